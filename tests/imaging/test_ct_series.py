"""Which CT series is read, and in which words the others are refused."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.imaging.ct_ellipsoid import write_ct

from arcuate.imaging.domain import Instance, NotMeasurable
from arcuate.imaging.parsing import Parser
from arcuate.imaging.pipelines import asked_by
from arcuate.imaging.series import choose

RULES = "series_ct.toml"
SLICES, STEP = 24, 5.0


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    """The headers of a CT of 80 x 80 x 24 voxels of 1.5 mm and 5 mm, as the reading process gives them."""
    folder = tmp_path_factory.mktemp("ct")
    hu = np.random.default_rng(1).integers(-20, 60, (80, 80, SLICES)).astype(np.int16)
    write_ct(folder, hu, np.diag([-1.5, -1.5, STEP, 1.0]))
    with Parser() as parser:
        found = parser.folder(folder)
    return [one for one in found if isinstance(one, Instance)]


def stating(instances: Sequence[Instance], **tags: Any) -> list[Instance]:
    """The same images with other values; None takes a value away."""
    return [replace(i, tags={k: v for k, v in {**i.tags, **tags}.items() if v is not None}) for i in instances]


def lying(instances: Sequence[Instance], step: float = STEP, tilt: float = 0.0) -> list[Instance]:
    """The same images so far apart; the gantry tilted by so many degrees while the table moves level."""
    lean = np.radians(tilt)
    down = (0.0, float(np.cos(lean)), float(-np.sin(lean)))
    made = []
    for k, one in enumerate(sorted(instances, key=lambda i: i.number("InstanceNumber") or 0)):
        frame = replace(one.frames[0], position=(0.0, 0.0, k * step), orientation=((1.0, 0.0, 0.0), down))
        made.append(replace(one, frames=(frame,)))
    return made


def test_a_plain_head_ct_is_chosen_with_the_reason(plain: list[Instance]) -> None:
    choice = choose(plain, RULES)
    assert "soft-tissue kernel" in choice.reason and "original" in choice.reason
    assert [p.name for p in asked_by(plain)] == ["head-ct"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SeriesDescription": "CT ANGIO HEAD"}, "as dense as blood"),
        ({"SeriesDescription": "HEAD POST CONTRAST"}, "contrast agent was given"),
        ({"ContrastBolusAgent": "Iohexol"}, "ContrastBolusAgent"),
        ({"ConvolutionKernel": "H70h", "SeriesDescription": "HEAD"}, "bone kernel"),
        ({"SeriesDescription": "HEAD MONO 50 keV"}, "spectral"),
        ({"KVP": 80.0}, "95 kV"),
        ({"RescaleType": "US"}, "become HU"),
        ({"RescaleIntercept": None}, "become HU"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localiser"),
        ({"SeriesDescription": "SINUSES"}, "another part"),
        ({"SliceThickness": 8.0}, "thicker than"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(plain: list[Instance], tags: dict[str, Any], words: str) -> None:
    if "RescaleIntercept" in tags:
        plain = [replace(i, frames=(replace(i.frames[0], intercept=0.0),)) for i in plain]
    with pytest.raises(NotMeasurable) as refused:
        choose(stating(plain, **tags), RULES)
    assert words in refused.value.refusal.what
    assert refused.value.refusal.todo


def test_slices_too_far_apart_are_refused(plain: list[Instance]) -> None:
    with pytest.raises(NotMeasurable) as refused:
        choose(lying(plain, step=7.0), RULES)
    assert "5.5 mm" in refused.value.refusal.what


def test_a_tilted_gantry_is_taken_and_said(plain: list[Instance]) -> None:
    choice = choose(lying(plain, tilt=18.0), RULES)
    assert any("tilted by 18" in w for w in choice.warnings)


def test_a_gantry_tilted_beyond_belief_is_refused(plain: list[Instance]) -> None:
    with pytest.raises(NotMeasurable):
        choose(lying(plain, tilt=35.0), RULES)


def test_a_head_ct_without_contrast_wins_over_the_one_with(plain: list[Instance]) -> None:
    venous = stating(plain, SeriesInstanceUID="1.2.3.6", SeriesNumber=6, SeriesDescription="HEAD VENOUS")
    venous = [replace(i, tags={**i.tags, "SOPInstanceUID": f"{i.sop_uid}.6"}) for i in venous]
    choice = choose([*plain, *venous], RULES)
    assert choice.facts.number == 5
    assert "contrast" in choice.passed[0].refusal.what


def test_a_chest_ct_asks_for_no_head(plain: list[Instance]) -> None:
    chest = stating(plain, BodyPartExamined="CHEST", SeriesDescription="CHEST")
    assert "head-ct" not in [p.name for p in asked_by(chest)]
