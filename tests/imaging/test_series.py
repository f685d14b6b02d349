"""The choice of the series, with a reason for it and against every other one."""

from dataclasses import replace

import pytest

from arcuate.imaging.contrast import weighting_of
from arcuate.imaging.domain import Instance, NotMeasurable, Refusal, RefusalCode, Unreadable
from arcuate.imaging.parsing import Parser
from arcuate.imaging.series import Choice, choose


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, write_phantom: object) -> list[Instance]:
    """A plain T1-weighted series as it was read from files."""
    folder = tmp_path_factory.mktemp("plain")
    write_phantom(folder)  # type: ignore[operator]
    with Parser() as parser:
        return [found for found in parser.folder(folder) if isinstance(found, Instance)]


def with_tags(series: list[Instance], number: int = 5, **values: object) -> list[Instance]:
    """The same series under another number, with other attributes; None takes one away."""
    changed = []
    for k, instance in enumerate(series):
        tags = {**instance.tags, "SeriesNumber": number, "SeriesInstanceUID": f"1.2.{number}", **values}
        tags["SOPInstanceUID"] = f"1.2.{number}.{k + 1}"
        changed.append(replace(instance, tags={name: value for name, value in tags.items() if value is not None}))
    return changed


def refusal(found: list[Instance]) -> NotMeasurable:
    with pytest.raises(NotMeasurable) as caught:
        choose(found)
    return caught.value


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"SeriesDescription": "t2_tse_tra"}, "weighting"),
        ({"SeriesDescription": "T1 FLAIR sag"}, "weighting"),
        ({"SeriesDescription": "TOF_3D_multi-slab"}, "flow"),
        ({"SeriesDescription": "t1_mpr_sag localizer"}, "localiser"),
        ({"SeriesDescription": "t1 c-spine"}, "another part"),
        ({"BodyPartExamined": "KNEE"}, "head"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, "computed"),
        ({"EchoTime": 90.0, "SeriesDescription": "ax 3d"}, "echo time"),
        ({"EchoTime": None, "RepetitionTime": None, "SeriesDescription": "ax 3d"}, "T1-weighted"),
    ],
)
def test_what_does_not_suit_is_refused_in_words(plain: list[Instance], values: dict[str, object], word: str) -> None:
    error = refusal(with_tags(plain, **values))
    assert error.refusal.code == RefusalCode.NOT_SUITED
    assert word in error.refusal.what
    assert error.refusal.todo


def test_a_short_series_is_refused(plain: list[Instance]) -> None:
    error = refusal(plain[:30])
    assert "does not cover" in error.refusal.what


def test_f051_a_study_of_two_patients_is_refused(plain: list[Instance]) -> None:
    assert (
        refusal(plain + with_tags(plain, 6, PatientID="PH-2", SeriesDescription="T2")).refusal.code
        == RefusalCode.IDENTITY
    )


def test_files_of_two_studies_are_refused(plain: list[Instance]) -> None:
    assert refusal(plain + with_tags(plain, 6, StudyInstanceUID="1.2.3.4")).refusal.code == RefusalCode.MIXED


def test_when_nothing_suits_every_series_has_its_own_reason(plain: list[Instance]) -> None:
    error = refusal(with_tags(plain, 5, SeriesDescription="T2 tse") + with_tags(plain, 6, SeriesDescription="DWI"))
    assert error.refusal.code == RefusalCode.NO_SERIES
    assert "Series 5 (T2 tse)" in error.refusal.what
    assert "Series 6 (DWI)" in error.refusal.what


def two(plain: list[Instance], **values: object) -> Choice:
    """The choice between series 4 with these attributes and the plain series 5."""
    return choose(with_tags(plain, 4, **values) + plain)


def test_the_series_without_contrast_agent_is_preferred(plain: list[Instance]) -> None:
    choice = two(plain, ContrastBolusAgent="Gadovist", SeriesDescription="T1 MPRAGE post gd")
    assert choice.facts.number == 5
    assert "no contrast agent stated" in choice.reason
    assert "suits better" in choice.passed[0].refusal.what


def test_3d_is_preferred_to_2d(plain: list[Instance]) -> None:
    assert two(plain, MRAcquisitionType="2D").facts.number == 5


def test_the_original_is_preferred_to_a_reformatted_copy(plain: list[Instance]) -> None:
    assert (
        two(plain, SeriesDescription="T1 MPRAGE MPR tra", ImageType=["DERIVED", "SECONDARY", "MPR"]).facts.number == 5
    )


def test_a_better_series_with_missing_slices_gives_way_to_a_whole_one(plain: list[Instance]) -> None:
    choice = choose(with_tags(plain[:20] + plain[22:], 4) + plain)
    assert choice.facts.number == 5
    assert choice.passed[0].refusal.code == RefusalCode.INCOMPLETE


def test_a_contrast_agent_is_a_warning(plain: list[Instance]) -> None:
    choice = choose(with_tags(plain, ContrastBolusAgent="Dotarem"))
    assert any("contrast agent" in warning for warning in choice.warnings)


def test_a_file_that_cannot_be_read_is_counted(plain: list[Instance]) -> None:
    lost = Unreadable("notes.txt", Refusal(RefusalCode.NOT_DICOM, "Not DICOM"))
    assert any("1 files could not be read" in warning for warning in choose([*plain, lost]).warnings)


@pytest.mark.parametrize(
    ("values", "weighting"),
    [
        ({"SeriesDescription": "t2_space_sag"}, "t2"),
        ({"SeriesDescription": "t2_flair_3d"}, "flair"),
        ({"SeriesDescription": "PD tse tra"}, "pd"),
    ],
)
def test_another_weighting_is_taken_where_the_study_has_no_t1(
    plain: list[Instance], values: dict[str, object], weighting: str
) -> None:
    series = with_tags(plain, EchoTime=90.0, **values)
    chosen = choose(series, "series_other.toml")
    assert chosen.rules == "series_other.toml" and weighting_of(chosen) == weighting
    assert weighting_of(choose([*plain, *series])) == "t1"


def test_a_kind_of_image_that_no_network_knows_stays_refused(plain: list[Instance]) -> None:
    for words in ("dwi b1000", "swi", "t2 map", "ax 3d"):
        with pytest.raises(NotMeasurable):
            choose(with_tags(plain, EchoTime=90.0, SeriesDescription=words), "series_other.toml")
