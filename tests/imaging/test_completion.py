"""When a study is whole: what modality and archive say of it, counts in the images, and only else quiet time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep

from arcuate.imaging.completion import Source, Statement, Verdict, judge, seconds_left
from arcuate.imaging.domain import Instance

from .conftest import ROOT

STUDY, STEP = f"{ROOT}.1", "2.25.77"


def held(*numbers: int, **tags: Any) -> list[Instance]:
    shared = {"SeriesInstanceUID": "1.5", "SeriesNumber": 5, "ImageType": ["ORIGINAL", "PRIMARY"], **tags}
    return [Instance("", str(n), 0, "", {"SOPInstanceUID": f"1.5.{n}", **shared}, ()) for n in numbers]


def names(*numbers: int) -> frozenset[str]:
    return frozenset(f"1.5.{n}" for n in numbers)


# ---- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "here", "words"),
    [
        (Statement(Source.STEP, True, names(1, 2, 3)), held(1, 2), "1 of 3 images that the performed procedure step names"),
        (Statement(Source.STEP, False), held(1), "the performed procedure step has not ended"),
        (Statement(Source.AVAILABILITY, None, names(1, 2)), held(1), "1 of 2 images that the instance availability"),
        (Statement(Source.COMMITMENT, None, names(1, 2)), held(2), "1 of 2 images that the storage commitment"),
        (Statement(Source.PULL, False, count=4), held(1, 2), "the PACS counts 4 images, 2 came"),
        (None, held(1, 2, ImagesInAcquisition=3), "series 5: 2 of the 3 images of an acquisition came"),
        (None, held(1, 2, NumberOfSeriesRelatedInstances=9), "series 5: its images state 9, 2 came"),
        (None, held(1, 2, NumberOfStudyRelatedInstances=9), "the images state 9 in the study, 2 came"),
    ],
)  # fmt: skip
def test_what_is_known_to_lack_is_said_in_words(told: Statement | None, here: list[Instance], words: str) -> None:
    verdict = judge([told] if told else [], here)
    assert words in verdict.missing and not verdict.whole_by


@pytest.mark.parametrize(
    ("told", "here"),
    [
        ([], held(1, 2)),
        ([], held(1, 2, ImagesInAcquisition=2, NumberOfStudyRelatedInstances=2)),  # counts of the moment prove no end
        ([Statement(Source.AVAILABILITY, None, names(1, 2))], held(1, 2)),  # PS3.4 R.3.2: it need not name all
        ([Statement(Source.COMMITMENT, None, names(1, 2))], held(1, 2)),  # PS3.4 J.3.2: nor this
        ([Statement(Source.STEP, True)], held(1, 2)),  # it ended and names nothing
        ([Statement(Source.STEP, True, names(1, 2))], held(1, 2, 3)),  # somebody else sends too
        ([], held(1, 2, ImageType=["DERIVED", "PRIMARY"], ImagesInAcquisition=192)),  # a reformat copies the count
        ([], held(1, 2, ImagesInAcquisition=2_000_000_000)),
    ],
)
def test_without_proof_quiet_time_decides(told: list[Statement], here: list[Instance]) -> None:
    assert judge(told, here) == Verdict()


def test_an_end_that_names_all_that_is_here_is_an_end() -> None:
    two = [Statement(Source.STEP, True, names(1, 2)), Statement(Source.STEP, True, names(3))]
    assert judge(two, held(1, 2, 3)).whole_by == "performed procedure step"
    assert judge([Statement(Source.PULL, True, names(1))], held(1)).whole_by == "PACS"
    one_goes_on = [two[0], Statement(Source.STEP, False)]
    assert "has not ended" in judge(one_goes_on, held(1, 2)).missing


def test_how_long_a_study_is_waited_for_follows_from_what_is_known() -> None:
    assert seconds_left(Verdict(whole_by="x"), 0, 20, 900) <= 0
    assert seconds_left(Verdict(), 5, 20, 900) == 15
    assert seconds_left(Verdict(missing="x"), 5, 20, 900) == 895
    assert seconds_left(Verdict(missing="x"), 5, 20, 0) == 15  # never shorter than quiet time


# ---- over the network ------------------------------------------------------------------------------------------------


def item(**values: Any) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def begun() -> Dataset:
    return item(
        ScheduledStepAttributesSequence=[item(StudyInstanceUID=STUDY)], PerformedProcedureStepStatus="IN PROGRESS",
        PerformedSeriesSequence=[],
    )  # fmt: skip


def ended(paths: Sequence[Path]) -> Dataset:
    images = [dcmread(path, stop_before_pixels=True) for path in paths]
    named = [item(ReferencedSOPClassUID=i.SOPClassUID, ReferencedSOPInstanceUID=i.SOPInstanceUID) for i in images]
    series = item(SeriesInstanceUID=images[0].SeriesInstanceUID, ReferencedImageSequence=named)
    return item(PerformedProcedureStepStatus="COMPLETED", PerformedSeriesSequence=[series])


async def say(desk: Any, act: Callable[[Any], Any], sop_class: Any = ModalityPerformedProcedureStep) -> int:
    """Do one thing as a modality would, on an association of its own; returns the status."""

    def spoken() -> int:
        ae = AE(ae_title="MR1")
        ae.add_requested_context(sop_class)
        association = ae.associate("127.0.0.1", desk.port, ae_title="ARCUATE")
        assert association.is_established
        status, _ = act(association)
        association.release()
        return int(status.Status)

    return await asyncio.to_thread(spoken)


async def begin(desk: Any, told: Dataset | None = None) -> int:
    return await say(desk, lambda a: a.send_n_create(told or begun(), ModalityPerformedProcedureStep, STEP))


async def end(desk: Any, told: Dataset, step: str = STEP) -> int:
    return await say(desk, lambda a: a.send_n_set(told, ModalityPerformedProcedureStep, step))


@pytest.mark.parametrize("desk", [{"quiet_s": 300.0}], indirect=True)
async def test_a_study_whose_procedure_step_has_ended_does_not_wait_for_quiet_time(desk: Any, phantom: Path) -> None:
    files = sorted(phantom.iterdir())[:4]
    assert await end(desk, ended(files)) == 0x0112  # no such step
    assert await begin(desk, item(PerformedProcedureStepStatus="IN PROGRESS")) == 0x0120
    assert await begin(desk) == 0x0000
    assert await begin(desk) == 0x0111
    await desk.send(*files[:3])
    assert await end(desk, ended(files)) == 0x0000
    assert await end(desk, ended(files)) == 0x0110  # what has ended is not changed
    (waiting,) = (await desk.http.get("/imaging/studies")).json()["studies"]
    assert waiting["state"] == "receiving"
    await desk.send(files[3])
    (listed,) = (await desk.settled(within_s=60))["studies"]
    assert listed["objects"] == {"used": 4}
    assert (listed["whole_by"], listed["missing"]) == ("performed procedure step", "")
    assert "note" not in await desk.study()


@pytest.mark.parametrize("desk", [{"quiet_s": 0.1, "incomplete_s": 1.0}], indirect=True)
async def test_a_study_that_lacks_images_waits_longer_then_says_so_and_is_mended_by_a_late_one(
    desk: Any, phantom: Path
) -> None:
    files = sorted(phantom.iterdir())
    told = item(StudyInstanceUID=STUDY, ReferencedPerformedProcedureStepSequence=[], ReferencedSeriesSequence=[])
    first = dcmread(files[0], stop_before_pixels=True)
    told.ReferencedSeriesSequence = [
        item(
            SeriesInstanceUID=first.SeriesInstanceUID,
            ReferencedSOPSequence=[
                item(ReferencedSOPClassUID=first.SOPClassUID, ReferencedSOPInstanceUID=f"{ROOT}.5.{n}",
                     InstanceAvailability="ONLINE" if n < 4 else "UNAVAILABLE", RetrieveAETitle="PACS")
                for n in (1, 2, 3, 4)
            ],
        )
    ]  # fmt: skip
    announce = lambda a: a.send_n_create(told, InstanceAvailabilityNotification, "2.25.78")  # noqa: E731
    assert await say(desk, announce, InstanceAvailabilityNotification) == 0x0000
    started = time.monotonic()
    await desk.send(*files[:2])
    (listed,) = (await desk.settled())["studies"]
    assert time.monotonic() - started >= 1.0
    words = "1 of 3 images that the instance availability notification names have not come"
    assert listed["missing"] == words
    assert (await desk.study())["note"] == [{"text": f"Images are known to be missing: {words}."}]
    await desk.send(files[2])
    (listed,) = (await desk.settled())["studies"]
    assert listed["missing"] == ""
    assert "note" not in await desk.study()
