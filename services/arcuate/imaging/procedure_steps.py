"""What modalities and archives say of the images to come, over DICOM: performed procedure steps (PS3.4 annex F) and instance
availability notifications (annex R).

Heard only to know when a study is whole: nothing of the patient is kept of them and nothing is passed on. A modality sends them
to the RIS; its broker or the PACS forwards a copy here.
"""

from collections.abc import Callable, Iterable
from typing import Any

from pydicom import Dataset
from pynetdicom.sop_class import InstanceAvailabilityNotification, ModalityPerformedProcedureStep

from arcuate.imaging import store
from arcuate.imaging.completion import Source, Statement
from arcuate.imaging.store import Said
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.log import get_logger

# PS3.7 annex C
SUCCESS, FAILED, NO_SUCH_STEP, STANDS_ALREADY = 0x0000, 0x0110, 0x0112, 0x0111
BAD_VALUE, MISSING = 0x0106, 0x0120
RUNNING, ENDED = "IN PROGRESS", ("COMPLETED", "DISCONTINUED")
Answer = tuple[int, Dataset | None]


class Listener:
    """Answers N-CREATE and N-SET; calls are safe from any thread.

    Args:
        settled: Called after a commit, so that a worker looks for work.
    """

    def __init__(self, database: Database, clock: Clock, settled: Callable[[], None]) -> None:
        self._database, self._clock, self._settled = database, clock, settled

    def create(self, event: Any) -> Answer:
        """Answer one N-CREATE: a step begins, or images are announced."""
        uid = str(event.request.AffectedSOPInstanceUID or "")
        if not uid:
            return MISSING, None
        kinds = {
            str(ModalityPerformedProcedureStep): self._begin,
            str(InstanceAvailabilityNotification): self._announce,
        }
        return self._guarded(lambda: kinds[str(event.request.AffectedSOPClassUID)](uid, event.attribute_list))

    def change(self, event: Any) -> Answer:
        """Answer one N-SET: a step goes on or ends."""
        uid = str(event.request.RequestedSOPInstanceUID or "")
        return self._guarded(lambda: self._go_on(uid, event.modification_list))

    def _guarded(self, act: Callable[[], int]) -> Answer:
        try:
            status = act()
        except ArcuateError as error:
            get_logger("imaging").error("statement not kept", error=type(error).__name__)
            return FAILED, None
        except Exception as error:  # noqa: BLE001 - the edge of the protocol: a data set that cannot be read, never a traceback with data
            get_logger("imaging").warning("statement not understood", error=type(error).__name__)
            return FAILED, None
        return status, Dataset() if status == SUCCESS else None

    def _begin(self, uid: str, told: Dataset) -> int:
        studies = {
            str(item.StudyInstanceUID)
            for item in told.get("ScheduledStepAttributesSequence") or ()
            if item.get("StudyInstanceUID")
        }
        if not studies:
            return MISSING
        if str(told.get("PerformedProcedureStepStatus", "")) != RUNNING:
            return BAD_VALUE
        begun = Statement(Source.STEP, False, _performed(told))
        now = self._clock.now()
        kept = self._database.write_sync(lambda s: store.begin_step(s, uid, studies, begun, now))
        return SUCCESS if kept else STANDS_ALREADY

    def _go_on(self, uid: str, told: Dataset) -> int:
        status = str(told.get("PerformedProcedureStepStatus", RUNNING))
        if status not in (RUNNING, *ENDED):
            return BAD_VALUE
        said = Statement(Source.STEP, status in ENDED, _performed(told))
        now = self._clock.now()
        found = self._database.write_sync(lambda s: store.change_step(s, uid, said, now))
        self._settled()
        # PS3.4 F.7.2.2: what has ended is not changed any more.
        return {store.Step.CHANGED: SUCCESS, store.Step.ENDED: FAILED, store.Step.UNKNOWN: NO_SUCH_STEP}[found]

    def _announce(self, uid: str, told: Dataset) -> int:
        study = str(told.get("StudyInstanceUID", ""))
        if not study or not told.get("ReferencedSeriesSequence"):
            return MISSING
        items = (i for series in told.ReferencedSeriesSequence for i in series.get("ReferencedSOPSequence") or ())
        named = frozenset(
            str(i.ReferencedSOPInstanceUID) for i in items if i.get("InstanceAvailability", "ONLINE") != "UNAVAILABLE"
        )
        said = Said(study, uid, Statement(Source.AVAILABILITY, None, named))
        now = self._clock.now()
        self._database.write_sync(lambda s: store.note_said(s, said, now))
        self._settled()
        return SUCCESS


def _performed(told: Dataset) -> frozenset[str]:
    """Return the objects that a performed procedure step names, images and others."""
    return frozenset(
        str(item.ReferencedSOPInstanceUID)
        for series in told.get("PerformedSeriesSequence") or ()
        for item in _referenced(series)
    )


def _referenced(series: Dataset) -> Iterable[Dataset]:
    yield from series.get("ReferencedImageSequence") or ()
    yield from series.get("ReferencedNonImageCompositeSOPInstanceSequence") or ()
