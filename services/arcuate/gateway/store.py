"""Queries of the gateway's tables. Functions run inside a transaction of `Database.read` or `Database.write`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from arcuate.gateway.domain import State, storable
from arcuate.gateway.mapping.model import Wait
from arcuate.gateway.tables import Cursor, Frame, Message, Waiting, work
from arcuate.gateway.verdict import NewMessage
from arcuate.kernel.db import upsert
from arcuate.kernel.db.driver import Driver, driver_of, insert, instant_of
from arcuate.kernel.db.driver import marks as marks_for
from arcuate.kernel.errors import BadInput, Conflict, NotFound
from arcuate.kernel.work import NewJob

MAP, MATCH = "map", "match"
_MESSAGE: Any = Message.__table__  # type: ignore[attr-defined]

_SORTING_LOCK = 4_711_001  # any number that no other advisory lock of this schema's programs has
_OLDEST = "SELECT number, received, sender, kind, size, raw, warning FROM frame WHERE unread ORDER BY number LIMIT ?"
_OLDEST_NUMBERS = "SELECT number FROM frame WHERE unread ORDER BY number LIMIT ?"
_NEW_MESSAGE = (
    "id", "frame", "position", "sender", "kind", "state", "cause", "reason", "location", "condition", "made", "note", "orders",
    "charset", "round", "changed", "changed_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unread:
    """What the sorter needs of a frame; `raw` is None where the bytes lie in a spool file."""

    number: int
    received: datetime
    sender: str
    kind: str
    size: int
    raw: bytes | None
    warning: str


@dataclass(frozen=True)
class Sorted:
    """A frame and what it holds."""

    frame: Unread
    messages: tuple[NewMessage, ...]
    warning: str = ""


def unread(session: Session, limit: int) -> list[Unread]:
    """Return the oldest frames whose content nobody has read yet."""
    return [
        Unread(number, instant_of(received), sender, kind, size, None if raw is None else bytes(raw), warning)
        for number, received, sender, kind, size, raw, warning in driver_of(session.connection()).rows(
            _OLDEST, (limit,)
        )
    ]


def add_sorted(session: Session, found: Sequence[Sorted]) -> int:
    """Write what frames hold, with the work on it; returns how many frames were taken.

    Taken are those that still are the oldest unread ones: another program may have been here first, and whoever goes on with a
    later frame before an earlier one would change the order of effects.
    """
    driver = driver_of(session.connection())
    if not driver.sqlite:
        driver.rows("SELECT pg_advisory_xact_lock(hashtext(current_schema()), ?)", (_SORTING_LOCK,))
    oldest = [row[0] for row in driver.rows(_OLDEST_NUMBERS, (len(found),))]
    by_number = {one.frame.number: one for one in found}
    taken = [by_number[number] for number in takewhile(by_number.__contains__, oldest)]
    _add_messages(driver, taken)
    for one in taken:
        if one.warning:
            warning = "; ".join(part for part in (storable(one.warning), one.frame.warning) if part)
            driver.rows("UPDATE frame SET warning = ? WHERE number = ?", (warning, one.frame.number))
    if taken:
        numbers = [one.frame.number for one in taken]
        # On SQLite this is what puts the frames into the indexes by which a repetition is found (`tables`).
        driver.rows(f"UPDATE frame SET unread = ? WHERE number IN ({marks_for(len(numbers))})", (False, *numbers))  # noqa: S608
    return len(taken)


def _add_messages(driver: Driver, taken: Sequence[Sorted]) -> None:
    """Write all messages of some frames, and the work on them, in a few statements: the door waits for the write lock meanwhile."""
    new = [(one.frame, position, message) for one in taken for position, message in enumerate(one.messages, 1)]
    if not new:
        return
    numbers = driver.numbers("message", len(new))
    rows, jobs = [], []
    for number, (frame, position, message) in zip(numbers, new, strict=True):
        rows.append((
            number, frame.number, position, frame.sender, storable(message.kind), message.state.value, message.cause,
            storable(message.reason), message.location, message.condition, "", storable(message.note), "", message.charset, 0,
            driver.instant(frame.received), "",
        ))  # fmt: skip
        if message.state in (State.WAITING, State.ACKNOWLEDGEMENT):
            kind = MAP if message.state is State.WAITING else MATCH
            jobs.append(NewJob(kind, frame.received, message.keys, {"message": number}))
    insert(driver, "message", _NEW_MESSAGE, rows)
    work.enqueue_all(driver, jobs)


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


_SETTLE = (
    "UPDATE message SET state = ?, cause = ?, reason = ?, location = ?, condition = ?, made = ?, note = ?, orders = ?, changed = ? "
    "WHERE id = ?"
)
_SET_MARK = (
    "INSERT INTO mark (key, event_at, message) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE "
    "SET event_at = excluded.event_at, message = excluded.message WHERE mark.event_at <= excluded.event_at"
)


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
    driver = driver_of(session.connection())
    driver.rows(_SETTLE, (
        outcome.state.value, outcome.cause, outcome.reason, outcome.location, outcome.condition, "; ".join(outcome.made), outcome.note,
        "\n".join(outcome.orders), driver.instant(now), message_id,
    ))  # fmt: skip


def wait_for(session: Session, message_id: int, waits: Iterable[tuple[Wait, datetime]]) -> None:
    """Let a message wait for orders, each until its time; what it waited for before is replaced."""
    driver = driver_of(session.connection())
    driver.rows("DELETE FROM waiting WHERE message = ?", (message_id,))
    rows = {
        wait.token: (wait.token, message_id, wait.kind.value, driver.instant(wait.event_at), driver.instant(expires))
        for wait, expires in waits
    }
    insert(driver, "waiting", ("token", "message", "kind", "event_at", "expires"), list(rows.values()))


def wake(session: Session, tokens: Sequence[str], now: datetime, keys: Sequence[str], but: int) -> int:
    """Look again at what waits for one of these orders (results and bookings; a cancellation is asked for by the order itself)."""
    driver = driver_of(session.connection())
    found = driver.rows(
        f"SELECT DISTINCT message FROM waiting WHERE token IN ({marks_for(len(tokens))}) AND kind <> 'kept' AND expires > ? AND message <> ?",  # noqa: S608 - our own
        (*tokens, driver.instant(now), but),
    )
    for (message_id,) in found:
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
    if not tokens:
        return {}
    driver = driver_of(session.connection())
    rows = driver.rows(
        f"SELECT token, event_at FROM waiting WHERE token IN ({marks_for(len(tokens))}) AND kind = 'kept' AND expires > ?",  # noqa: S608 - our own
        (*tokens, driver.instant(now)),
    )
    found: dict[str, datetime] = {}
    for token, event_at in rows:
        found[token] = max(instant_of(event_at), found.get(token, instant_of(event_at)))
    return found


def marks(session: Session, keys: Sequence[str]) -> dict[str, datetime]:
    """Return the newest event times under these keys."""
    if not keys:
        return {}
    query = f"SELECT key, event_at FROM mark WHERE key IN ({marks_for(len(keys))})"  # noqa: S608 - our own
    return {key: instant_of(event_at) for key, event_at in driver_of(session.connection()).rows(query, keys)}


def set_mark(session: Session, key: str, event_at: datetime, message_id: int) -> None:
    """Keep the newest event time under a key."""
    driver = driver_of(session.connection())
    driver.rows(_SET_MARK, (key, driver.instant(event_at), message_id))


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
