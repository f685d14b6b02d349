"""Queries of the gateway's tables. Functions run inside a transaction of `Database.read` or `Database.write`."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from arcuate.gateway.domain import State
from arcuate.gateway.mapping.model import Wait
from arcuate.gateway.tables import Cursor, Frame, Mark, Message, Transport, Waiting, work
from arcuate.kernel.errors import BadInput, Conflict, NotFound

MAP, MATCH = "map", "match"
_FRAME: Any = Frame.__table__  # type: ignore[attr-defined]
_MESSAGE: Any = Message.__table__  # type: ignore[attr-defined]

# What runs before each acknowledgement is built once: building a statement costs more than running it.
_KNOWN = sa.select(_FRAME.c.number, _FRAME.c.received, _FRAME.c.answer_code, _FRAME.c.answer, _FRAME.c.content_hash)
_BY_KEY = _KNOWN.where(_FRAME.c.resend_key == sa.bindparam("key"))
_FROM_SENDER = _FRAME.c.sender == sa.bindparam("from_sender")
_LAST_OF_SENDER = _KNOWN.where(_FROM_SENDER).order_by(_FRAME.c.number.desc()).limit(1)
_SAME_ID = (
    sa.select(_FRAME.c.number)
    .where(_FROM_SENDER, _FRAME.c.control_id == sa.bindparam("used_id"), _FRAME.c.received >= sa.bindparam("since"))
    .limit(1)
)
_ADD_FRAME = sa.insert(_FRAME).returning(_FRAME.c.number)
_ADD_MESSAGE = sa.insert(_MESSAGE).returning(_MESSAGE.c.id)


@dataclass(frozen=True)
class NewMessage:
    """One message of a frame as the door saw it."""

    kind: str
    state: State
    cause: str = ""
    reason: str = ""
    location: str = ""
    condition: str = ""
    note: str = ""
    charset: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class NewFrame:
    """A frame to journal."""

    received: datetime
    peer: str
    profile: str
    sender: str
    control_id: str
    kind: str
    size: int
    digest: bytes
    raw: bytes | None
    spool: str | None
    answer_code: str
    answer: bytes
    warning: str = ""
    messages: tuple[NewMessage, ...] = field(default=())


@dataclass(frozen=True)
class Kept:
    """The answer that belongs to a frame: its own, or the stored one of the frame that it repeats."""

    number: int
    code: str
    wire: bytes
    repeated: bool


def add_frame(session: Session, frame: NewFrame, window: datetime) -> Kept:
    """Journal a frame with its messages and their work; a repeated one gets its first answer and leaves no second trace.

    Raises:
        IntegrityError: Another connection has stored the same frame at this moment; call again.
    """
    content = frame.digest.hex()
    key = _resend_key(frame, content)
    earlier = _earlier(session, frame, content, key)
    if earlier is not None and earlier.received >= window:
        again = {"resends": _FRAME.c.resends + 1, "resent": frame.received}
        session.execute(sa.update(_FRAME).where(_FRAME.c.number == earlier.number).values(**again))
        return Kept(earlier.number, earlier.answer_code, earlier.answer, repeated=True)
    if earlier is not None:
        session.execute(sa.update(_FRAME).where(_FRAME.c.number == earlier.number).values(resend_key=None))
    warnings = [frame.warning] if frame.warning else []
    if key and _id_was_used(session, frame, window):
        warnings.append("control id reused")
    row = {
        "received": frame.received, "peer": frame.peer, "profile": frame.profile, "sender": frame.sender, "control_id": frame.control_id,
        "kind": frame.kind, "size": frame.size, "content_hash": content, "resend_key": key, "raw": frame.raw, "spool": frame.spool,
        "answer_code": frame.answer_code, "answer": frame.answer, "warning": "; ".join(warnings), "resends": 0,
    }  # fmt: skip
    number: int = session.execute(_ADD_FRAME, row).scalar_one()
    for position, message in enumerate(frame.messages, 1):
        _add_message(session, frame, number, position, message)
    return Kept(number, frame.answer_code, frame.answer, repeated=False)


def _resend_key(frame: NewFrame, content: str) -> str | None:
    if not frame.control_id:
        return None
    named = "\x00".join((frame.sender, frame.control_id, content))
    return hashlib.sha256(named.encode()).hexdigest()


def _earlier(session: Session, frame: NewFrame, content: str, key: str | None) -> Any:
    """The frame that this one repeats: by key; without MSH-10 only the last one of the same sender can be it."""
    if key is not None:
        return session.execute(_BY_KEY, {"key": key}).first()
    last = session.execute(_LAST_OF_SENDER, {"from_sender": frame.sender}).first()
    return last if last is not None and last.content_hash == content else None


def _id_was_used(session: Session, frame: NewFrame, window: datetime) -> bool:
    same = {"from_sender": frame.sender, "used_id": frame.control_id, "since": window}
    return session.execute(_SAME_ID, same).first() is not None


def _add_message(session: Session, frame: NewFrame, number: int, position: int, message: NewMessage) -> None:
    row = {
        "frame": number, "position": position, "sender": frame.sender, "kind": message.kind, "state": message.state, "cause": message.cause,
        "reason": message.reason, "location": message.location, "condition": message.condition, "made": "", "note": message.note,
        "orders": "", "charset": message.charset, "round": 0, "changed": frame.received, "changed_by": "",
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


# Transport, cursor


def add_transport(session: Session, at: datetime, peer: str, kind: str, size: int, raw: bytes) -> None:
    """Note what happened on a connection beside whole frames."""
    session.add(Transport(at=at, peer=peer, kind=kind, size=size, raw=raw))


def cursor(session: Session, name: str) -> int | None:
    """Return how far a feed has been read."""
    found = session.get(Cursor, name)
    return found.value if found else None


def save_cursor(session: Session, name: str, value: int) -> None:
    """Keep how far a feed has been read."""
    session.merge(Cursor(name=name, value=value))
