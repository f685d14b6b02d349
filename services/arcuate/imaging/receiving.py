"""Taking one object in, the same for C-STORE and STOW-RS: bytes to the disk, header read in its own process, row committed."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from arcuate.imaging import store
from arcuate.imaging.domain import Instance, NotMeasurable, RefusalCode, Unreadable, refuse
from arcuate.imaging.parsing import Parser
from arcuate.imaging.spool import Spool, new_id
from arcuate.imaging.store import Arrival
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.log import get_logger

# What is wrong with these is wrong with the bytes: they are refused at the door. Everything else (another modality, a geometry
# that cannot be measured) is received and judged later.
_REFUSED_AT_THE_DOOR = frozenset({RefusalCode.DAMAGED, RefusalCode.HOSTILE, RefusalCode.TOO_LARGE})
# Ours in the network and in files (PS3.7 D.3.3.2); made from a UUID (PS3.5 B.2).
IMPLEMENTATION = UID("2.25.165766788727222648836524332623736602836")


@dataclass(frozen=True)
class Received:
    """What became of an object: its fate (`used`, `copy`, `conflict`, `other-patient`) and its identifiers."""

    fate: str
    instance: Instance


class Receiver:
    """Takes objects in; calls are safe from any thread.

    Args:
        parser: The reading process of this door.
        settled: Called after a commit, so that a worker looks for work.
    """

    def __init__(
        self, database: Database, spool: Spool, parser: Parser, clock: Clock, quiet_s: float, settled: Callable[[], None]
    ) -> None:  # fmt: skip
        self._database, self._spool, self._parser = database, spool, parser
        self._clock, self._quiet_s, self._settled = clock, quiet_s, settled
        self._log = get_logger("imaging")

    def take(self, path: Path, source: str, claimed: tuple[str, str] | None = None) -> Received:
        """Keep a file of the spool's incoming folder and note it. When this returns, file and row are on the disk.

        Args:
            source: By which door, for people (an AE title, `stow`).
            claimed: SOP Class and Instance UID that the sender stated beside the data set.

        Raises:
            NotMeasurable: The object is damaged, hostile or not what the sender says.
            Unavailable: No space; StorageFault: the disk or the database did not keep it.
        """
        found = self._parser.header(path)
        if isinstance(found, Unreadable):
            self._log.warning("object refused", code=found.refusal.code)
            raise NotMeasurable(found.refusal)
        if found.damage is not None and found.damage.code in _REFUSED_AT_THE_DOOR:
            self._log.warning("object refused", code=found.damage.code)
            raise NotMeasurable(found.damage)
        if claimed is not None and claimed != (found.text("SOPClassUID"), found.sop_uid):
            raise refuse(
                RefusalCode.MIXED, "The data set is not the object that the sender announced", "Send it again."
            )
        self._spool.check_room(found.size)
        file = self._spool.keep(path, new_id())
        arrival = Arrival(found, file, source, self._clock.now())
        # After a failed commit the file stays: whether the row stands is unknown. Without a row it is swept at the next start.
        fate = self._database.write_sync(lambda session: store.note_arrival(session, arrival, self._quiet_s))
        if fate == store.COPY:
            self._spool.drop([file])
        self._settled()
        if fate in (store.CONFLICT, store.OTHER_PATIENT):
            self._log.warning("object conflicts", fate=fate)
        return Received(fate, found)

    def is_of_study(self, path: Path, study_uid: str) -> bool:
        """Return whether a file belongs to that study; an unreadable one is left for `take` to refuse."""
        found = self._parser.header(path)
        return isinstance(found, Unreadable) or found.study_uid == study_uid

    def metadata(self, path: Path) -> dict[str, Any]:
        """Return a kept file's attributes as DICOM JSON (PS3.18 F), read in the reading process."""
        return self._parser.metadata(path)


def file_head(sop_class: str, sop_uid: str, transfer_syntax: str) -> bytes:
    """Return preamble and file meta information (PS3.10 7.1) for a data set that came without them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(sop_uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = UID(transfer_syntax), IMPLEMENTATION
    buffer = BytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()
