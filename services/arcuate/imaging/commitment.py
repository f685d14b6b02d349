"""Storage commitment (PS3.4 annex J, Push Model): which of the named objects lie here, said by N-EVENT-REPORT.

Offered only where the site sets it: whoever is told "committed" may delete its own copy, and this room keeps images for `keep_days` only.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel
from sqlmodel import Session

from arcuate.imaging import store
from arcuate.imaging.completion import Source, Statement
from arcuate.imaging.spool import Spool
from arcuate.imaging.tables import StudyRow
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.log import get_logger

SUCCESS, NO_SUCH_ACTION, MISSING, NO_SUCH_OBJECT = 0x0000, 0x0123, 0x0120, 0x0112
_ALL, _SOME = 1, 2  # event types: all committed, failures exist
_WELL_KNOWN = "1.2.840.10008.1.20.1.1"


@dataclass(frozen=True)
class Peer:
    """Where a sender waits for the report."""

    host: str
    port: int


def peers(told: str) -> dict[str, Peer]:
    """Return the senders of the setting `AET=host:port AET=host:port`."""
    made = {}
    for one in told.split():
        ae_title, _, place = one.partition("=")
        host, _, port = place.rpartition(":")
        made[ae_title] = Peer(host, int(port))
    return made


class Committer:
    """Answers N-ACTION and reports on an association of its own."""

    def __init__(self, database: Database, spool: Spool, clock: Clock, own: str, known: dict[str, Peer]) -> None:
        self._database, self._spool, self._clock, self._own, self._known = database, spool, clock, own, known

    def answer(self, event: Any) -> tuple[int, None]:
        """Answer one N-ACTION request; the report follows."""
        if event.action_type != 1:
            return NO_SUCH_ACTION, None
        asked = event.action_information
        sender = str(event.assoc.requestor.ae_title).strip()
        if "TransactionUID" not in asked or not asked.get("ReferencedSOPSequence"):
            return MISSING, None
        if sender not in self._known:
            get_logger("imaging").warning("storage commitment without an address to report to")
            return 0x0110, None  # processing failure: nobody could be told
        named = [(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in asked.ReferencedSOPSequence]
        report = self._report(str(asked.TransactionUID), named)
        self._expect(str(asked.TransactionUID), [uid for _, uid in named])
        threading.Thread(target=self._send, args=(sender, report), daemon=True).start()
        return SUCCESS, None

    def _report(self, transaction: str, named: Sequence[tuple[str, str]]) -> Dataset:
        held = self._database.read_sync(lambda s: self._held(s, [uid for _, uid in named]))
        made = Dataset()
        made.TransactionUID = transaction
        kept = [_reference(*one) for one in named if held.get(one[1]) == one[0]]
        lost = [_reference(*one) for one in named if held.get(one[1]) != one[0]]
        for item in lost:
            item.FailureReason = NO_SUCH_OBJECT
        if kept:
            made.ReferencedSOPSequence = Items(kept)
        if lost:
            made.FailedSOPSequence = Items(lost)
        return made

    def _expect(self, transaction: str, named: Sequence[str]) -> None:
        """Note which images a study is to have: known where one of them is here; the request itself names no study."""
        now = self._clock.now()

        def note(session: Session) -> None:
            studies = {session.get_one(StudyRow, row.study_id).uid for row in store.received(session, named)}
            if len(studies) == 1:
                said = Statement(Source.COMMITMENT, None, frozenset(named))
                store.note_said(session, store.Said(studies.pop(), transaction, said), now)

        self._database.write_sync(note)

    def _held(self, session: Session, uids: Sequence[str]) -> dict[str, str]:
        """Return class by UID of what stands in the database and lies on the disk."""
        return {
            row.sop_uid: store.parsed(row, self._spool).text("SOPClassUID")
            for row in store.received(session, uids)
            if self._spool.path(row.file).is_file()
        }

    def _send(self, sender: str, report: Dataset) -> None:
        peer, ae = self._known[sender], AE(ae_title=self._own)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 30
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = ae.associate(peer.host, peer.port, ae_title=sender, ext_neg=[role])
        if not association.is_established:
            # The sender asks again when it hears nothing (PS3.4 J.3.2): nothing is lost.
            get_logger("imaging").warning("storage commitment not reported")
            return
        event = _SOME if "FailedSOPSequence" in report else _ALL
        association.send_n_event_report(report, event, StorageCommitmentPushModel, _WELL_KNOWN)
        association.release()


def _reference(sop_class: str, sop_uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, sop_uid
    return made
