"""Queries of the gateway's tables. Functions run inside a transaction of `Database.read` or `Database.write`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from arcuate.gateway.domain import State, storable
from arcuate.gateway.mapping.model import Wait
from arcuate.gateway.tables import Cursor, Frame, Mark, Message, Waiting, work
from arcuate.gateway.verdict import NewMessage
from arcuate.kernel.db import upsert
from arcuate.kernel.errors import BadInput, Conflict, NotFound

MAP, MATCH = "map", "match"
_FRAME: Any = Frame.__table__  # type: ignore[attr-defined]
_MESSAGE: Any = Message.__table__  # type: ignore[attr-defined]

_UNREAD = sa.text("frame.unread")  # as the partial index says it
_ADD_MESSAGE = sa.insert(_MESSAGE).returning(_MESSAGE.c.id)
_SORTING_LOCK = 4_711_001  # any number that no other advisory lock of this schema's programs has


@dataclass(frozen=True)
class Sorted:
    """A frame and what it holds."""

    frame: Frame
    messages: tuple[NewMessage, ...]
    warning: str = ""


def unread(session: Session, limit: int) -> list[Frame]:
    """Return the oldest frames whose content nobody has read yet."""
    return list(session.exec(select(Frame).where(_UNREAD).order_by(col(Frame.number)).limit(limit)).all())


def add_sorted(session: Session, found: Sequence[Sorted]) -> int:
    """Write what frames hold, with the work on it; returns how many frames were taken.

    Taken are those that still are the oldest unread ones: another program may have been here first, and whoever goes on with a
    later frame before an earlier one would change the order of effects.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(
            sa.text("SELECT pg_advisory_xact_lock(hashtext(current_schema()), :lock)"), {"lock": _SORTING_LOCK}
        )
    oldest = session.execute(sa.select(_FRAME.c.number).where(_UNREAD).order_by(_FRAME.c.number).limit(len(found)))
    by_number = {one.frame.number: one for one in found}
    taken = []
    for number in oldest.scalars().all():
        if number not in by_number:
            break
        taken.append(by_number[number])
    for one in taken:
        for position, message in enumerate(one.messages, 1):
            _add_message(session, one.frame, position, message)
        values: dict[str, Any] = {"unread": False}
        if one.warning:
            values["warning"] = "; ".join(part for part in (storable(one.warning), one.frame.warning) if part)
        session.execute(sa.update(_FRAME).where(_FRAME.c.number == one.frame.number).values(**values))
    return len(taken)


def _add_message(session: Session, frame: Frame, position: int, message: NewMessage) -> None:
    row = {
        "frame": frame.number, "position": position, "sender": frame.sender, "kind": storable(message.kind), "state": message.state,
        "cause": message.cause, "reason": storable(message.reason), "location": message.location, "condition": message.condition,
        "made": "", "note": storable(message.note), "orders": "", "charset": message.charset, "round": 0, "changed": frame.received,
        "changed_by": "",
    }  # fmt: skip
    id: int = session.execute(_ADD_MESSAGE, row).scalar_one()
    if message.state in (State.WAITING, State.ACKNOWLEDGEMENT):
        kind = MAP if message.state is State.WAITING else MATCH
        work.enqueue(session, kind, now=frame.received, keys=message.keys, payload={"message": id})


# Reading one


@dataclass(frozen=True)
class Loaded:
    """A message with what its mapping needs from the journal."""

    message: Message
    frame: Frame


def load(session: Session, message_id: int) -> Loaded:
    """Return a message and its frame.

    Raises:
        NotFound: There is none.
    """
    message = session.get(Message, message_id)
    frame = session.get(Frame, message.frame) if message is not None else None
    if message is None or frame is None:
        raise NotFound("There is no such message", where=f"message {message_id}")
    return Loaded(message, frame)


def frame(session: Session, number: int) -> Frame:
    """Return a journal row.

    Raises:
        NotFound: There is none.
    """
    found = session.get(Frame, number)
    if found is None:
        raise NotFound("The journal has no such number", where=f"journal {number}")
    return found


# What became of a message


@dataclass(frozen=True)
class Settled:
    """The outcome of a mapping."""

    state: State
    cause: str = ""
    reason: str = ""
    location: str = ""
    condition: str = ""
    made: Sequence[str] = ()
    note: str = ""
    orders: Sequence[str] = ()


def settle(session: Session, message_id: int, outcome: Settled, now: datetime) -> None:
    """Write what became of a message."""
    session.execute(
        sa.update(_MESSAGE).where(_MESSAGE.c.id == message_id).values(
            state=outcome.state, cause=outcome.cause, reason=outcome.reason, location=outcome.location,
            condition=outcome.condition, made="; ".join(outcome.made), note=outcome.note, orders="\n".join(outcome.orders),
            changed=now,
        )
    )  # fmt: skip


def wait_for(session: Session, message_id: int, waits: Iterable[tuple[Wait, datetime]]) -> None:
    """Let a message wait for orders, each until its time; what it waited for before is replaced."""
    session.execute(sa.delete(Waiting).where(col(Waiting.message) == message_id))
    for token, (wait, expires) in {wait.token: (wait, expires) for wait, expires in waits}.items():
        session.add(Waiting(token=token, message=message_id, kind=wait.kind, event_at=wait.event_at, expires=expires))


def wake(session: Session, tokens: Sequence[str], now: datetime, keys: Sequence[str], but: int) -> int:
    """Look again at what waits for one of these orders (results and bookings; a cancellation is asked for by the order itself)."""
    found = session.exec(
        select(Waiting.message)
        .where(
            col(Waiting.token).in_(tokens),
            col(Waiting.kind) != "kept",
            col(Waiting.expires) > now,
            col(Waiting.message) != but,
        )
        .distinct()
    ).all()
    for message_id in found:
        look_again(session, message_id, now, keys)
    return len(found)


def look_again(session: Session, message_id: int, now: datetime, keys: Sequence[str]) -> None:
    """Put a message back into the line."""
    message = session.get_one(Message, message_id)
    message.round += 1
    message.state = State.WAITING
    message.changed = now
    session.add(message)
    work.enqueue(
        session, MAP, now=now, keys=keys, payload={"message": message_id}, dedupe=f"{MAP}:{message_id}:{message.round}"
    )


def cancels(session: Session, tokens: Sequence[str], now: datetime) -> dict[str, datetime]:
    """Return the kept cancellations of these orders."""
    rows = session.exec(
        select(Waiting).where(col(Waiting.token).in_(tokens), Waiting.kind == "kept", col(Waiting.expires) > now)
    ).all()
    found: dict[str, datetime] = {}
    for row in rows:
        found[row.token] = max(row.event_at, found.get(row.token, row.event_at))
    return found


def marks(session: Session, keys: Sequence[str]) -> dict[str, datetime]:
    """Return the newest event times under these keys."""
    return {row.key: row.event_at for row in session.exec(select(Mark).where(col(Mark.key).in_(keys))).all()}


def set_mark(session: Session, key: str, event_at: datetime, message_id: int) -> None:
    """Keep the newest event time under a key."""
    mark = session.get(Mark, key) or Mark(key=key, event_at=event_at, message=message_id)
    if mark.event_at <= event_at:
        mark.event_at, mark.message = event_at, message_id
    session.add(mark)


def expire(session: Session, now: datetime) -> int:
    """Let go what has waited in vain; results show up in the error queue then, cancellations end quietly."""
    gone = session.exec(select(Waiting.message).where(col(Waiting.expires) <= now).distinct()).all()
    session.execute(sa.delete(Waiting).where(col(Waiting.expires) <= now))
    for message_id in gone:
        still = session.exec(select(Waiting.token).where(Waiting.message == message_id).limit(1)).first()
        message = session.get_one(Message, message_id)
        if still is not None or message.state not in (State.UNMATCHED, State.KEPT):
            continue
        if message.state == State.UNMATCHED:
            message.state, message.cause = State.PARKED, "no order came"
            message.reason = "No order with this number came within the time that a result waits"
        else:
            message.state = State.EXPIRED
        message.changed = now
        session.add(message)
    return len(gone)


# The error queue


def replay(
    session: Session, message_id: int, edited: bytes | None, by: str, now: datetime, keys: Sequence[str]
) -> None:
    """Process a parked or waiting message again, once: the second person learns who was first.

    Raises:
        Conflict: It is not parked any more.
    """
    _leave(session, message_id, State.WAITING, by, now, edited)
    message = session.get_one(Message, message_id)
    work.enqueue(
        session, MAP, now=now, keys=keys, payload={"message": message_id}, dedupe=f"{MAP}:{message_id}:{message.round}"
    )


def discard(session: Session, message_id: int, reason: str, by: str, now: datetime) -> None:
    """Set a message aside with a reason; its bytes stay in the journal.

    Raises:
        BadInput: There is no reason.
        Conflict: It is not parked any more.
    """
    if not reason.strip():
        raise BadInput("A message is set aside only with a reason", where="reason")
    _leave(session, message_id, State.DISCARDED, by, now, None)
    session.execute(sa.update(_MESSAGE).where(_MESSAGE.c.id == message_id).values(note=reason.strip()[:500]))
    session.execute(sa.delete(Waiting).where(col(Waiting.message) == message_id))


def _leave(session: Session, message_id: int, state: State, by: str, now: datetime, edited: bytes | None) -> None:
    values: dict[str, Any] = {"state": state, "changed": now, "changed_by": by, "round": _MESSAGE.c.round + 1}
    if edited is not None:
        values["edited"] = edited
    parked = _MESSAGE.c.state.in_((State.PARKED, State.UNMATCHED))
    done = session.execute(sa.update(_MESSAGE).where(_MESSAGE.c.id == message_id, parked).values(**values))
    if done.rowcount == 1:  # type: ignore[attr-defined]
        return
    message = session.get(Message, message_id)
    if message is None:
        raise NotFound("There is no such message", where=f"message {message_id}")
    who = f"{message.changed_by or 'the gateway'} at {message.changed:%Y-%m-%d %H:%M:%S}Z"
    raise Conflict(
        f"This message is not parked any more: {message.state}, last changed by {who}", where=f"in-{message_id}"
    )


def is_untidy(session: Session, now: datetime) -> bool:
    """Say whether `expire` or `adopt` has something to do."""
    late = session.exec(select(Waiting.token).where(col(Waiting.expires) <= now).limit(1)).first()
    return late is not None or any(job.kind == MAP for job in work.parked(session))


def adopt(session: Session, now: datetime) -> int:
    """Show jobs that were given up in the error queue: their messages are parked."""
    given_up = [job for job in work.parked(session) if job.kind == MAP]
    for job in given_up:
        message = session.get(Message, int(job.payload["message"]))
        if message is not None and message.state == State.WAITING:
            message.state, message.cause, message.reason = State.PARKED, "could not be processed", job.reason
            message.changed = now
            session.add(message)
        work.discard(session, job.id, now=now, by="the gateway", reason=f"shown in the error queue: {job.reason}"[:400])
    return len(given_up)


# Cursor


def cursor(session: Session, name: str) -> int | None:
    """Return how far a feed has been read."""
    found = session.get(Cursor, name)
    return found.value if found else None


def save_cursor(session: Session, name: str, value: int) -> None:
    """Keep how far a feed has been read."""
    upsert(session, Cursor, {"name": name}, {"value": value})
