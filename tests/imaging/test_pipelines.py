"""The table of pipelines: who measures what, and what a study that asks for nothing is told."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset

from arcuate.imaging.methods import METHODS, loaded
from arcuate.imaging.parsing import Parser
from arcuate.imaging.pipelines import asked_by, named, pipelines
from arcuate.kernel.errors import NotFound

Write = Callable[..., Path]


def test_every_row_names_what_is_there() -> None:
    numbers = [n for p in pipelines() for n in (p.series_number, p.series_number + 1)]
    assert len(set(numbers)) == len(numbers)
    assert len({p.name for p in pipelines()}) == len(pipelines())
    for pipeline in pipelines():
        assert pipeline.method in METHODS and callable(loaded(pipeline.method))
        assert pipeline.mode in ("review", "shadow")
        assert set(pipeline.optional) < set(pipeline.inputs)
        for file in (*pipeline.rules, *pipeline.inputs.values()):
            assert files("arcuate.imaging").joinpath(file).is_file()


def test_an_unknown_pipeline_is_said_with_those_that_are_known() -> None:
    with pytest.raises(NotFound, match="brain-volumes"):
        named("heart")


def test_a_t1_asks_for_brain_volumes(parser: Parser, phantom: Path) -> None:
    assert "brain-volumes" in [p.name for p in asked_by(parser.folder(phantom))]


def test_a_study_that_asks_for_nothing_gets_the_refusal_of_the_first(
    parser: Parser, write: Write, tmp_path: Path
) -> None:
    def ultrasound(image: FileDataset, _number: int) -> None:
        image.Modality = "US"

    assert [p.name for p in asked_by(parser.folder(write(tmp_path / "us", ultrasound)))] == ["brain-volumes"]
