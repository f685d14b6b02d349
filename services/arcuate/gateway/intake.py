"""From a frame to a committed journal row and its answer. Nothing here waits for mapping."""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from arcuate.gateway import domain, store
from arcuate.gateway.domain import Answer, Finding, State, Verdict
from arcuate.gateway.mapping import plan
from arcuate.gateway.mapping.model import ContentFault
from arcuate.gateway.mapping.plan import Context
from arcuate.gateway.profile import Profile, Profiles
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.store import NewFrame, NewMessage
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, StorageFault
from arcuate.kernel.hl7v2 import ack, inspect
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.hl7v2.ack import Error
from arcuate.kernel.hl7v2.header import Header
from arcuate.kernel.hl7v2.inspect import Fault
from arcuate.kernel.hl7v2.message import Message, split
from arcuate.kernel.log import get_logger


@dataclass(frozen=True)
class Read:
    """What the door read in a frame: what goes into the journal, and its verdict."""

    header: Header | None
    profile: Profile
    finding: Finding
    messages: tuple[NewMessage, ...]
    warning: str = ""


_Pending = tuple[NewFrame, datetime, "asyncio.Future[store.Kept]"]
_TOGETHER = 256  # frames in one commit


def _fail(kept: "asyncio.Future[store.Kept]", error: Exception) -> None:
    if not kept.done():
        kept.set_exception(error)


class Intake:
    """Stores frames and says what to answer.

    Args:
        on_stored: Called after a commit: there is work.
    """

    def __init__(
        self, database: Database, profiles: Profiles, settings: GatewaySettings, clock: Clock, zone: ZoneInfo,
        on_stored: Callable[[], None],
    ) -> None:  # fmt: skip
        self._database, self._profiles, self._settings = database, profiles, settings
        self._clock, self._zone, self._on_stored = clock, zone, on_stored
        self._log = get_logger("gateway")
        self.storage_fault: str | None = None
        self._pending: list[_Pending] = []
        self._committing: asyncio.Task[None] | None = None
        # Numbers of our answers: a part of its own for each start, then counted. (A call for random bytes each time lets go of the
        # interpreter's lock, and getting it back from a busy writer thread costs milliseconds.)
        self._start, self._count = secrets.token_hex(4), itertools.count(1)

    def _control_id(self) -> str:
        """MSH-10 of an answer, at most 18 characters."""
        return f"{self._start}{next(self._count):x}"

    async def take(self, raw: bytes, peer: str) -> Answer:
        """Journal one frame and return its answer; whatever fails, nothing positive is answered before the commit."""
        header = headers.read(raw)
        profile = self._profiles.of_header(header)
        try:
            read = self._read(raw, header, profile)
        except Exception as error:  # noqa: BLE001 - a fault of our reading must not keep a message out of the journal
            self._log.error("frame not read", error=type(error).__name__)
            read = Read(header, profile, Finding(Verdict.STORED), (NewMessage(_kind(header), State.WAITING),))
        answer, _ = await self._commit(read, raw, raw, None, len(raw), headers.content_hash(raw, read.header), peer)
        return answer

    async def take_spooled(self, name: str, head: bytes, size: int, digest: bytes, peer: str) -> tuple[Answer, bool]:
        """Journal a frame whose bytes lie in a spool file: parked as too large, answered as a content fault.

        The second value says whether the journal refers to the file now (not when it repeats another frame, or failed).
        """
        header = headers.read(head)
        profile = self._profiles.of_header(header)
        limit = self._settings.processed_bytes
        finding = (
            Finding(Verdict.CONTENT_FAULT, ack.too_large(limit))
            if header
            else Finding(Verdict.NO_HEADER, ack.NO_HEADER)
        )
        read = Read(header, profile, finding, (_too_large(header, size, limit),))
        return await self._commit(read, head, None, name, size, digest, peer)

    async def refuse(self, head: bytes, size: int, peer: str) -> Answer:
        """Journal the beginning of a frame over the limit for keeping, and refuse it."""
        header, limit = headers.read(head), self._settings.spooled_bytes
        read = Read(
            header,
            self._profiles.of_header(header),
            Finding(Verdict.TOO_LARGE, ack.too_large(limit)),
            (_too_large(header, size, limit),),
        )
        self._log.error("frame refused: over the limit for keeping", peer=peer, size=size)
        answer, _ = await self._commit(read, head, head, None, size, hashlib.sha256(head).digest(), peer)
        return answer

    async def _commit(
        self, read: Read, head: bytes, raw: bytes | None, spool: str | None, size: int, digest: bytes, peer: str
    ) -> tuple[Answer, bool]:
        now = self._clock.now()
        control_id = self._control_id()
        answer = domain.answer(read.header, read.finding, read.profile, control_id, now)
        frame = NewFrame(
            now, peer, read.profile.name, _sender(read.header), _latin(read.header.control_id if read.header else b""),
            _kind(read.header), size, digest, raw, spool, answer.code, answer.wire, read.warning, read.messages,
        )  # fmt: skip
        window = now - timedelta(days=self._settings.resend_days)
        try:
            kept = await self._write(frame, window)
        except Exception as error:  # noqa: BLE001 - the edge of the door: whatever failed, the frame is not stored
            return self.not_stored(head, error), False
        self.storage_fault = None
        self._on_stored()
        return Answer(kept.code, kept.wire, answer.close), not kept.repeated

    async def _write(self, frame: NewFrame, window: datetime) -> store.Kept:
        """Commit together with whatever else waits: frames that came while the last commit ran share the next one."""
        kept: asyncio.Future[store.Kept] = asyncio.get_running_loop().create_future()
        self._pending.append((frame, window, kept))
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit_pending())
        return await kept

    async def _commit_pending(self) -> None:
        try:
            while self._pending:
                group, self._pending = self._pending[:_TOGETHER], self._pending[_TOGETHER:]
                await self._commit_group(group)
        finally:
            self._committing = None

    async def _commit_group(self, group: list[_Pending]) -> None:
        def write(session: Session) -> list[store.Kept]:
            return [store.add_frame(session, frame, window) for frame, window, _ in group]

        try:
            found = await self._database.write(write)
        except StorageFault as error:
            # Whether the commit took place is not known: nobody gets a positive answer.
            for _, _, kept in group:
                _fail(kept, error)
        except Exception:  # noqa: BLE001 - one of them failed: each for itself, so that the others are not held up
            for frame, window, kept in group:
                await self._commit_alone(frame, window, kept)
        else:
            for (_, _, kept), one in zip(group, found, strict=True):
                if not kept.done():
                    kept.set_result(one)

    async def _commit_alone(self, frame: NewFrame, window: datetime, kept: "asyncio.Future[store.Kept]") -> None:
        """One retry: another replica may have stored the same message in the meantime."""

        def write(session: Session) -> store.Kept:
            return store.add_frame(session, frame, window)

        try:
            try:
                one = await self._database.write(write)
            except IntegrityError:
                one = await self._database.write(write)
        except Exception as error:  # noqa: BLE001 - the one who waits for it answers
            _fail(kept, error)
            return
        if not kept.done():
            kept.set_result(one)

    def not_stored(self, head: bytes, error: Exception) -> Answer:
        """Return the answer to a frame that could not be kept (policy 2); `head` holds its MSH."""
        header = headers.read(head)
        self.storage_fault = error.what if isinstance(error, ArcuateError) else type(error).__name__
        self._log.error("frame not stored", error=type(error).__name__)
        finding = Finding(Verdict.NOT_STORED, ack.NOT_STORED)
        return domain.answer(header, finding, self._profiles.of_header(header), self._control_id(), self._clock.now())

    def _read(self, raw: bytes, header: Header | None, profile: Profile) -> Read:
        if header is None:
            unreadable = NewMessage("", State.PARKED, "no header", "There is no MSH segment", "MSH", "100")
            return Read(None, profile, Finding(Verdict.NO_HEADER, ack.NO_HEADER), (unreadable,))
        frame = split(raw)
        looked = [self._look(one, profile) for one in frame.messages]
        warning = f"BTS-1 says {frame.declared}, the batch holds {len(frame.messages)}" if frame.miscounted else ""
        if all(one.state is State.ACKNOWLEDGEMENT for one, _ in looked):
            finding = Finding(Verdict.ACKNOWLEDGEMENT)
        else:
            finding = next(
                (found for _, found in looked if found.verdict is not Verdict.STORED), Finding(Verdict.STORED)
            )
            if finding.verdict is Verdict.ACKNOWLEDGEMENT:
                finding = Finding(Verdict.STORED)
        return Read(header, profile, finding, tuple(one for one, _ in looked), warning)

    def _look(self, raw: bytes, profile: Profile) -> tuple[NewMessage, Finding]:
        """What can be said of a message at once: its type, the faults of its head, and whose line it stands in."""
        message = profile.parse(raw)
        kind, event = plan.message_type(message)
        name = f"{kind}^{event}" if event else kind
        charset = f"{message.charset.name} by {message.charset.source}"
        use = plan.use_of_message(message)
        if use == "acknowledgement":
            return NewMessage(name, State.ACKNOWLEDGEMENT, charset=charset), Finding(Verdict.ACKNOWLEDGEMENT)
        found = inspect.faults(message)
        grave = next((fault for fault in found if fault.grave), None)
        if grave is None and use == "unknown":
            grave = Fault("MSH-9", "200", "MSH-9 names no message type that is known here", grave=True)
        if grave is not None:
            return self._parked(name, charset, grave)
        note = "; ".join(fault.words for fault in found)
        if use == "ignored":
            ignored = NewMessage(name, State.IGNORED, note=note or "This event is not used", charset=charset)
            return ignored, Finding(Verdict.STORED)
        waiting = NewMessage(name, State.WAITING, note=note, charset=charset, keys=self._keys(use, message, profile))
        return waiting, Finding(Verdict.STORED)

    def _parked(self, name: str, charset: str, fault: Fault) -> tuple[NewMessage, Finding]:
        cause, condition = _CAUSES.get(fault.code, ("unreadable", "Data type error"))
        verdict = Verdict.NOT_FOR_US if fault.code in ("200", "202", "203") else Verdict.CONTENT_FAULT
        error = Error(fault.code, condition, fault.words, fault.location.replace("-", "^1^"))
        message = NewMessage(name, State.PARKED, cause, fault.words, fault.location, fault.code, charset=charset)
        return message, Finding(verdict, error)

    def keys_of(self, raw: bytes) -> tuple[str, ...]:
        """Return the lines in which a message stands (for a replay)."""
        profile = self._profiles.of_header(headers.read(raw))
        message = profile.parse(raw)
        use = plan.use_of_message(message)
        return self._keys(use, message, profile)

    def _keys(self, use: str, message: Message, profile: Profile) -> tuple[str, ...]:
        """The lines in which the message stands; what cannot be found out here is told by the mapping."""
        try:
            wanted = plan.needs(use, Context.of(message, profile, self._zone, self._clock.now()))
        except ContentFault:
            return ()
        others = (one for kind in ("ServiceRequest", "Appointment") for one in wanted.others.get(kind, ()))
        return domain.queue_keys(wanted.patients, others)


# Table 0357: what the error queue calls a fault of the head, and what the standard calls it.
_CAUSES = {
    "100": ("no header", "Segment sequence error"),
    "101": ("no message type", "Required field missing"),
    "102": ("unreadable", "Data type error"),
    "200": ("unknown message type", "Unsupported message type"),
    "202": ("unknown processing id", "Unsupported processing id"),
    "203": ("unknown version", "Unsupported version id"),
}


def _too_large(header: Header | None, size: int, limit: int) -> NewMessage:
    return NewMessage(_kind(header), State.PARKED, "too large", f"{size} bytes; the limit is {limit}", "", "207")


def _sender(header: Header | None) -> str:
    """MSH-3 and MSH-4 as one text for our own tables."""
    return _latin(header.field(3) + b"|" + header.field(4)) if header is not None else ""


def _kind(header: Header | None) -> str:
    if header is None:
        return ""
    kind, event = header.type
    return f"{kind}^{event}" if event else kind


def _latin(raw: bytes) -> str:
    """Bytes as text that keeps them apart one by one and can be stored (no NUL)."""
    return raw.decode("latin-1").replace("\x00", "\ufffd")
