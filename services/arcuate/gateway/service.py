"""Use cases of the gateway: apply a message, answer about the journal and the error queue."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlmodel import Session

from arcuate.gateway import elsewhere, history, lookups, spool, store
from arcuate.gateway.domain import State
from arcuate.gateway.mapping import plan
from arcuate.gateway.mapping.model import ContentFault, Mapped, Wait, WaitKind
from arcuate.gateway.mapping.mrg import merge_mark
from arcuate.gateway.mapping.plan import Context, Needs
from arcuate.gateway.outgoing import queue
from arcuate.gateway.profile import Profiles
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.store import Loaded, Settled
from arcuate.gateway.tables import Frame
from arcuate.kernel import codes
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput, Conflict, Json, PreconditionFailed, Refused, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.hl7v2.message import split
from arcuate.kernel.limit import computing_time
from arcuate.kernel.work import Apply, Job, Later

_STALE_TRIES = 3
_RECORD_AWAY_S = 5.0


@dataclass(frozen=True)
class Gateway:
    """What the use cases work with."""

    database: Database
    fhir: FhirClient
    profiles: Profiles
    settings: GatewaySettings
    clock: Clock
    zone: ZoneInfo
    spool_dir: Path

    async def map_message(self, job: Job) -> Apply | None:
        """Apply one message to the record: look up, map, write; returns what is noted when that is done (a handler of work).

        Raises:
            Later: The record is away, or somebody else changed a resource at the same time again and again.
        """
        message_id = int(job.payload["message"])
        loaded = await self.database.read(lambda s: store.load(s, message_id))
        if loaded.message.state != State.WAITING:
            return None
        for _ in range(_STALE_TRIES):
            try:
                return await self._apply(loaded, job.keys)
            except PreconditionFailed:
                continue
            except Unavailable as error:
                raise Later(_RECORD_AWAY_S, "the record does not answer") from error
        raise Later(1.0, "others are changing the same resources")

    async def _apply(self, loaded: Loaded, keys: tuple[str, ...]) -> Apply:
        past = history.of_frame(loaded.frame)
        if past and elsewhere.is_resource(self.bytes_of(loaded)):
            return await self._take_over(loaded, keys)
        try:
            with computing_time(self.settings.mapping_s):
                context, use = self._context(loaded)
                needs = plan.needs(use, context)
        except ContentFault as fault:
            return self._parked(loaded, fault)
        mapped, faults = await self._mapped(use, context, needs, past=past)
        if faults:
            # Searches are answered one by one: between two of them another may have written, so that what they say together
            # never stood. Only what stands twice is a person's to decide.
            mapped, faults = await self._mapped(use, context, needs, past=past)
        return await self._write(loaded, keys, mapped, faults, tuple(needs.others.get("ServiceRequest", ())))

    async def _take_over(self, loaded: Loaded, keys: tuple[str, ...]) -> Apply:
        """Apply FHIR resources of the past (Bulk Data, a row of a table)."""
        try:
            raw = loaded.message.edited or self.bytes_of(loaded)
            asked = elsewhere.read(raw, history.source_of(loaded.frame), self.settings.identifier_systems)
            found = await lookups.by_identifier(self.fhir, asked.wanted)
            mapped = elsewhere.taken_over(asked, found, self.profiles.of("", "").rank, past=True)
        except ContentFault as fault:
            return self._parked(loaded, fault)
        return await self._write(loaded, keys, mapped, [], ())

    async def _write(
        self, loaded: Loaded, keys: tuple[str, ...], mapped: Mapped | None, faults: Sequence[ContentFault], named: tuple[str, ...]
    ) -> Apply:  # fmt: skip
        if mapped is None:
            return self._parked(loaded, faults[0], named=named)
        if mapped.entries:
            try:
                await self.fhir.transaction(bundle.transaction(mapped.entries, source_of(loaded)))
            except (PreconditionFailed, Unavailable):
                raise
            except (BadInput, Conflict, Refused) as error:
                refused = ContentFault("refused by the record", f"The record refused it: {error.what}", error.where)
                return self._parked(loaded, refused, named=named)
        if faults:
            return self._parked(loaded, faults[0], mapped, named)
        return self._applied(loaded, mapped, keys)

    async def _mapped(
        self, use: str, context: Context, needs: Needs, *, past: bool
    ) -> tuple[Mapped | None, Sequence[ContentFault]]:
        """Map a message on what stands in the record now; None is a message of which nothing can be applied."""
        try:
            standing = await self._standing(context, needs)
            with computing_time(self.settings.mapping_s):
                mapped, faults = plan.apply(use, context, standing)
        except ContentFault as fault:
            return None, [fault]
        return history.past(mapped, standing, context.at) if past else history.alive(mapped, standing, needs), faults

    def _context(self, loaded: Loaded) -> tuple[Context, str]:
        raw = loaded.message.edited or self.bytes_of(loaded)
        profile = self.profiles.of_header(headers.read(raw))
        message = profile.parse(raw)
        use = plan.use_of_message(message)
        if use not in plan.events()["use"].values():
            raise ContentFault("unknown message type", "This message type is not mapped", "MSH-9", "200")
        return Context.of(message, profile, self.zone, loaded.frame.received), use

    def bytes_of(self, loaded: Loaded) -> bytes:
        """Return the bytes of one message as received; of a frame without any, all of it."""
        raw = self.raw_of(loaded.frame)
        messages = split(raw).messages
        return messages[loaded.message.position - 1] if messages else raw

    async def _standing(self, context: Context, needs: Needs) -> Any:
        orders = needs.others.get("ServiceRequest", [])
        keys = [f"{context.sender.authority}|{one}" for one in needs.others.get("Appointment", [])]
        keys += [f"report|{context.sender.authority}|{one}" for one in needs.others.get("DiagnosticReport", [])]
        keys += [f"visit|{context.sender.authority}|{one}" for one in needs.others.get("Encounter", [])]
        keys += [merge_mark(one) for one in needs.patients]
        now = self.clock.now()
        cancels, marks = await self.database.read(lambda s: (store.cancels(s, orders, now), store.marks(s, keys)))
        return await lookups.look_up(self.fhir, needs, cancels, marks)

    def _parked(
        self, loaded: Loaded, fault: ContentFault, mapped: Mapped | None = None, named: Sequence[str] = ()
    ) -> Apply:
        """Note why a message waits for a person, and which orders it names: the cases of these orders show it."""
        cause = history.CAUSE + fault.cause if history.of_frame(loaded.frame) else fault.cause
        outcome = Settled(
            State.PARKED, cause, fault.what, fault.where, fault.condition, tuple(mapped.made) if mapped else (),
            loaded.message.note, tuple(mapped.orders) if mapped and mapped.orders else tuple(named),
        )  # fmt: skip
        settle, message_id = self._settler(loaded, outcome), _id(loaded)

        def write(session: Session) -> None:
            settle(session)
            store.wait_for(session, message_id, [])

        return write

    def _applied(self, loaded: Loaded, mapped: Mapped, keys: tuple[str, ...]) -> Apply:
        state = _state_of(mapped)
        note = "; ".join(part for part in (loaded.message.note, mapped.note) if part)
        outcome = Settled(state, made=tuple(mapped.made), note=note, orders=_orders_of(mapped))
        settle = self._settler(loaded, outcome)
        now, message_id = self.clock.now(), _id(loaded)

        def write(session: Session) -> None:
            settle(session)
            store.wait_for(session, message_id, [(wait, now + self._patience(wait)) for wait in mapped.waits])
            for key, event_at in mapped.marks.items():
                store.set_mark(session, key, event_at, message_id)
            if mapped.orders:
                store.wake(session, mapped.orders, now, keys, message_id)

        return write

    def _settler(self, loaded: Loaded, outcome: Settled) -> Callable[[Session], None]:
        now, message_id = self.clock.now(), _id(loaded)
        return lambda session: store.settle(session, message_id, outcome, now)

    def _patience(self, wait: Wait) -> timedelta:
        if wait.kind is WaitKind.CANCEL:
            return timedelta(hours=self.settings.cancel_hours)
        return timedelta(days=self.settings.unmatched_days)

    async def match(self, job: Job) -> Apply | None:
        """Match an acknowledgement that came through our door with what we sent (handler of work)."""
        loaded = await self.database.read(lambda s: store.load(s, int(job.payload["message"])))
        answer = ack.read(self.bytes_of(loaded))
        now = self.clock.now()
        if answer is None:
            return None
        control_id = answer.control_id.decode("latin-1")
        return lambda session: queue.acknowledge_later(session, control_id, answer.code, self.bytes_of(loaded), now)

    def is_cut_off(self, frame: Frame) -> bool:
        """Say whether a frame was over the limit for keeping, so that only its head is there."""
        return frame.raw is not None and len(frame.raw) < frame.size

    def raw_of(self, frame: Frame) -> bytes:
        """Return the bytes of a journal row."""
        return frame.raw if frame.raw is not None else spool.read(self.spool_dir, frame.spool or "")


def source_of(loaded: Loaded) -> Json:
    """Return the identity of a message's transaction: journal number, place in the frame, replay."""
    value = str(loaded.frame.number)
    if loaded.message.position > 1:
        value += f".{loaded.message.position}"
    if loaded.message.round:
        value += f"-{loaded.message.round}"
    return codes.identifier(codes.SYSTEM_JOURNAL, value)


def _id(loaded: Loaded) -> int:
    assert loaded.message.id is not None
    return loaded.message.id


def _state_of(mapped: Mapped) -> State:
    if mapped.entries:
        return State.APPLIED
    if any(wait.kind is WaitKind.RESULT for wait in mapped.waits):
        return State.UNMATCHED
    if any(wait.kind is WaitKind.CANCEL for wait in mapped.waits):
        return State.KEPT
    return State.IGNORED if mapped.stale else State.APPLIED


def _orders_of(mapped: Mapped) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*mapped.orders, *(wait.token for wait in mapped.waits)]))


async def tidy(database: Database, clock: Clock) -> tuple[int, int]:
    """Let go what has waited in vain, and show given-up work in the error queue; returns how many of each."""
    now: datetime = clock.now()
    if not await database.read(lambda s: store.is_untidy(s, now)):
        return 0, 0
    return await database.write(lambda s: (store.expire(s, now), store.adopt(s, now)))
