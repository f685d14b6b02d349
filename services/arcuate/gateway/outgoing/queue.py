"""Queries of the outgoing queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, func, select

from arcuate.gateway.tables import Cursor, Outgoing, work
from arcuate.kernel.db import upsert
from arcuate.kernel.errors import BadInput, Conflict, NotFound

SEND, COMPOSE, REPORT = "send", "compose", "delivery"
WAITING, HELD, ACCEPTED, DELIVERED, PARKED, DISCARDED = (
    "waiting",
    "held",
    "accepted",
    "delivered",
    "parked",
    "discarded",
)
_TABLE: Any = Outgoing.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class NewOutgoing:
    """A message to send."""

    receiver: str
    kind: str
    dedupe: str
    key: str
    about: str
    subject: str
    based_on: Sequence[str]
    control_id: str
    raw: bytes


def add(session: Session, new: NewOutgoing, now: datetime) -> int | None:
    """Put a message into its receiver's queue; the same content for the same receiver is not sent twice (None)."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    number: int | None = session.execute(
        insert(_TABLE)
        .values(
            receiver=new.receiver, kind=new.kind, dedupe=new.dedupe, key=new.key, about=new.about, subject=new.subject,
            based_on="\n".join(new.based_on), control_id=new.control_id, raw=new.raw, state=WAITING, tries=0, due=now, created=now,
            reason="", changed_by="",
        )
        .on_conflict_do_nothing(index_elements=["dedupe"])
        .returning(_TABLE.c.id)
    ).scalar_one_or_none()  # fmt: skip
    if number is not None:
        _line_up(session, number, new.receiver, 0, now)
        _tell(session, number, WAITING, now)
    return number


def _line_up(session: Session, number: int, receiver: str, round: int, now: datetime) -> None:
    """One line a receiver: a message goes when the one before it is settled."""
    keys, dedupe = (f"receiver:{receiver}",), f"{SEND}:{number}:{round}"
    work.enqueue(session, SEND, now=now, keys=keys, payload={"outgoing": number, "round": round}, dedupe=dedupe)


def _tell(session: Session, number: int, state: str, now: datetime) -> None:
    """Have the record told where the delivery stands."""
    payload = {"outgoing": number, "state": state}
    work.enqueue(
        session, REPORT, now=now, keys=(f"delivery:{number}",), payload=payload, dedupe=f"{REPORT}:{number}:{state}"
    )


def load(session: Session, number: int) -> Outgoing:
    """Return a message of the queue.

    Raises:
        NotFound: There is none.
    """
    found = session.get(Outgoing, number)
    if found is None:
        raise NotFound("There is no such outgoing message", where=f"out-{number}")
    return found


def is_behind_parked(session: Session, row: Outgoing) -> bool:
    """Say whether an earlier message of the same chain waits for a person."""
    earlier = select(Outgoing.id).where(
        Outgoing.receiver == row.receiver, Outgoing.key == row.key, col(Outgoing.state).in_((PARKED, HELD)),
        col(Outgoing.id) < row.id,
    )  # fmt: skip
    return session.exec(earlier.limit(1)).first() is not None


def settle(session: Session, number: int, state: str, now: datetime, answer: bytes | None, reason: str = "") -> None:
    """Write how sending ended."""
    values: dict[str, Any] = {"state": state, "reason": reason, "sent": now}
    if answer is not None:
        values["answer"] = answer
    if state == DELIVERED:
        values["acknowledged"] = now
    session.execute(sa.update(_TABLE).where(_TABLE.c.id == number).values(**values))
    if state in (DELIVERED, PARKED):
        _tell(session, number, state, now)


def hold(session: Session, number: int) -> None:
    """Keep a message back behind the parked one of its chain."""
    session.execute(sa.update(_TABLE).where(_TABLE.c.id == number).values(state=HELD))


def note_try(session: Session, number: int, reason: str, answer: bytes | None) -> None:
    """Count a refused try."""
    values = {"tries": _TABLE.c.tries + 1, "reason": reason, "answer": answer}
    session.execute(sa.update(_TABLE).where(_TABLE.c.id == number).values(**values))


def tell_once(session: Session, receiver: str, alert: bool) -> bool:
    """Note that a receiver is (not) alerted about; returns whether that was otherwise before."""
    name = f"alert:{receiver}"
    found = session.get(Cursor, name)
    if (found.value if found else 0) == int(alert):
        return False
    upsert(session, Cursor, {"name": name}, {"value": int(alert)})
    return True


def acknowledge_later(session: Session, control_id: str, code: str, answer: bytes, now: datetime) -> bool:
    """Match an application acknowledgement that came through our own door; says whether it belongs to one of our messages."""
    row = session.exec(select(Outgoing).where(Outgoing.control_id == control_id)).first()
    if row is None or row.id is None or row.state not in (WAITING, ACCEPTED):
        return row is not None
    if code == "AA":
        settle(session, row.id, DELIVERED, now, answer)
    elif code in ("AE", "AR"):
        settle(session, row.id, PARKED, now, answer, f"The receiver answered {code} later")
    return True


def replay(session: Session, number: int, by: str, now: datetime) -> None:
    """Send a parked message again, once, and behind it what waited for it.

    Raises:
        Conflict: It is not parked any more.
    """
    row = _leave(session, number, WAITING, by, now)
    _line_up(session, number, row.receiver, row.tries + 1, now)
    _release(session, row, now)


def discard(session: Session, number: int, reason: str, by: str, now: datetime) -> None:
    """Set a parked message aside with a reason; what waited behind it goes on.

    Raises:
        BadInput: There is no reason.
        Conflict: It is not parked any more.
    """
    if not reason.strip():
        raise BadInput("A message is set aside only with a reason", where="reason")
    row = _leave(session, number, DISCARDED, by, now)
    session.execute(sa.update(_TABLE).where(_TABLE.c.id == number).values(reason=reason.strip()[:500]))
    _release(session, row, now)


def _leave(session: Session, number: int, state: str, by: str, now: datetime) -> Outgoing:
    mark = f"{by} at {now:%Y-%m-%d %H:%M:%S}Z"
    values = {"state": state, "changed_by": mark, "tries": _TABLE.c.tries + 1}
    done = session.execute(sa.update(_TABLE).where(_TABLE.c.id == number, _TABLE.c.state == PARKED).values(**values))
    row = load(session, number)
    session.refresh(row)
    if done.rowcount != 1:  # type: ignore[attr-defined]
        raise Conflict(
            f"This message is not parked any more: {row.state}, last changed by {row.changed_by or 'the gateway'}",
            where=f"out-{number}",
        )
    return row


def _release(session: Session, row: Outgoing, now: datetime) -> None:
    held = session.exec(
        select(Outgoing)
        .where(
            Outgoing.receiver == row.receiver,
            Outgoing.key == row.key,
            Outgoing.state == HELD,
            col(Outgoing.id) > row.id,
        )
        .order_by(col(Outgoing.id))
    ).all()
    for one in held:
        one.state, one.tries = WAITING, one.tries + 1
        session.add(one)
        assert one.id is not None
        _line_up(session, one.id, one.receiver, one.tries, now)


@dataclass(frozen=True)
class Line:
    """A receiver's queue in figures."""

    waiting: int
    parked: int
    oldest: datetime | None
    last_acknowledged: datetime | None


def line(session: Session, receiver: str) -> Line:
    """Return how a receiver's queue stands."""
    counted = session.execute(
        sa.select(_TABLE.c.state, func.count(), func.min(_TABLE.c.created))
        .where(_TABLE.c.receiver == receiver)
        .group_by(_TABLE.c.state)
    ).all()
    by_state = {row[0]: (row[1], row[2]) for row in counted}
    newest = session.exec(
        select(Outgoing.acknowledged)
        .where(Outgoing.receiver == receiver, col(Outgoing.acknowledged).is_not(None))
        .order_by(col(Outgoing.acknowledged).desc()).limit(1)
    ).first()  # fmt: skip
    waiting = [by_state.get(state, (0, None)) for state in (WAITING, HELD)]
    oldest = min((at for _, at in waiting if at is not None), default=None)
    return Line(sum(number for number, _ in waiting), by_state.get(PARKED, (0, None))[0], oldest, newest)
