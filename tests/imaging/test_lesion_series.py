"""Which series is taken as the FLAIR, and why another is not."""

from dataclasses import replace

import pytest

from arcuate.imaging.domain import Instance, NotMeasurable
from arcuate.imaging.parsing import Parser
from arcuate.imaging.pipelines import asked_by, named
from arcuate.imaging.series import choose

RULES = "flair.toml"
TIMES = {"EchoTime": 120.0, "RepetitionTime": 9000.0, "InversionTime": 2500.0, "ScanningSequence": "IR"}


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, write_phantom: object) -> list[Instance]:
    """A plain T1-weighted series as it was read from files."""
    folder = tmp_path_factory.mktemp("plain")
    write_phantom(folder)  # type: ignore[operator]
    with Parser() as parser:
        return [found for found in parser.folder(folder) if isinstance(found, Instance)]


def series(plain: list[Instance], number: int, **values: object) -> list[Instance]:
    made = []
    for k, instance in enumerate(plain):
        tags = {**instance.tags, "SeriesNumber": number, "SeriesInstanceUID": f"1.2.{number}", **values}
        tags["SOPInstanceUID"] = f"1.2.{number}.{k + 1}"
        made.append(replace(instance, tags={name: value for name, value in tags.items() if value is not None}))
    return made


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "another weighting"),
        ({"SeriesDescription": "ax head"}, "Neither its name nor its timing"),
        ({"SeriesDescription": "T1 FLAIR sag", "EchoTime": 20.0}, "T1-weighted FLAIR"),
        ({"SeriesDescription": "t2 flair", **TIMES, "InversionTime": 180.0}, "inversion time"),
        ({"SeriesDescription": "flair c-spine", **TIMES}, "another part"),
        ({"SeriesDescription": "flair", **TIMES, "ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "computed"),
        ({"SeriesDescription": "flair", **TIMES, "Modality": "CT"}, "not an MR"),
    ],
)
def test_what_is_no_flair_is_refused_in_words(plain: list[Instance], values: dict[str, object], word: str) -> None:
    with pytest.raises(NotMeasurable) as caught:
        choose(series(plain, 5, **values), RULES)
    assert word in caught.value.refusal.what and caught.value.refusal.todo


def test_a_flair_without_a_name_is_known_by_its_times(plain: list[Instance]) -> None:
    unnamed = series(plain, 6, SeriesDescription="ax dark", SequenceName="*tir2d1_16", **TIMES)
    made = choose(plain + unnamed, RULES)
    assert made.facts.number == 6 and "times as a FLAIR has" in made.reason
    assert any("another weighting" in p.refusal.what for p in made.passed)


def test_3d_is_taken_before_2d_and_plain_before_contrast_agent(plain: list[Instance]) -> None:
    flat = series(plain, 6, SeriesDescription="t2 flair tra", MRAcquisitionType="2D", **TIMES)
    deep = series(plain, 7, SeriesDescription="t2 space dark fluid", **TIMES)
    after = series(plain, 8, SeriesDescription="t2 space dark-fluid +C", **TIMES, ContrastBolusAgent="Gadobutrol")
    made = choose(flat + deep + after, RULES)
    assert made.facts.number == 7 and "3D acquisition" in made.reason
    assert any("contrast agent" in line for line in choose(after, RULES).warnings)


def test_a_study_with_a_flair_is_also_read_for_lesions_and_one_without_is_not(plain: list[Instance]) -> None:
    lesions = named("wm-lesions")
    assert lesions not in asked_by(plain)
    assert lesions in asked_by(plain + series(plain, 6, SeriesDescription="t2_tirm_tra_dark-fluid", **TIMES))
    assert lesions not in asked_by(plain + series(plain, 6, SeriesDescription="T1 FLAIR"))
