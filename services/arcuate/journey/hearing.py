"""Silent senders: one that speaks at this time of the week and does not (FAULTS 092).

What is usual is learned by looking: messages are counted by sender and hour, and a silence is judged against the same stretch of time
one to four weeks before (until a week is known, the day before). So a quiet night is none, and a quiet Monday morning is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlmodel import Session, col, select

from arcuate.journey.settings import JourneySettings
from arcuate.journey.tables import HeardRow, SenderRow

_HOUR, _DAY, _WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)
_WEEKS = 4
_LONGEST = _DAY  # of a longer silence only the last day is compared
_BREAK = timedelta(minutes=5)


@dataclass(frozen=True)
class Sender:
    """What the gateway says of one sender.

    Attributes:
        received: How many messages have come so far.
        last: When the last one came.
    """

    name: str
    received: int
    last: datetime


@dataclass(frozen=True)
class Silence:
    """What is found of one sender: since when it says nothing, and why that is unusual (empty where it is not)."""

    name: str
    since: datetime
    cause: str


def hear(session: Session, senders: Iterable[Sender], now: datetime, settings: JourneySettings) -> list[Silence]:
    """Count what has come since the last look, and judge every silence."""
    session.execute(sa.delete(HeardRow).where(col(HeardRow.hour) < now - (_WEEKS + 1) * _WEEK))
    found = []
    for sender in senders:
        row = _count(session, sender, now)
        since = max(sender.last, row.listening_since)
        found.append(Silence(sender.name, since, _cause(session, row, since, now, settings)))
    return found


def _count(session: Session, sender: Sender, now: datetime) -> SenderRow:
    row = session.get(SenderRow, sender.name)
    if row is None:
        row = SenderRow(name=sender.name, received=sender.received, known_since=now, listening_since=now, looked=now)
    if now - row.looked > _BREAK:
        row.listening_since = now
    if (more := sender.received - row.received) > 0:
        hour = sender.last.replace(minute=0, second=0, microsecond=0)
        heard = session.get(HeardRow, (sender.name, hour)) or HeardRow(sender=sender.name, hour=hour, messages=0)
        heard.messages += more
        session.add(heard)
    row.received, row.looked = sender.received, now
    session.add(row)
    session.flush()
    return row


def _cause(session: Session, row: SenderRow, since: datetime, now: datetime, settings: JourneySettings) -> str:
    if now - since < timedelta(seconds=settings.silent_after_s):
        return ""
    begin = max(since, now - _LONGEST)
    if now - row.known_since >= _WEEK + (now - begin):
        usual = max(_heard(session, row.name, begin - n * _WEEK, now - n * _WEEK) for n in range(1, _WEEKS + 1))
        when = "in the same hours of earlier weeks"
    else:
        usual = _heard(session, row.name, begin - _DAY, now - _DAY)
        when = "in the same hours of the day before"
    if usual < settings.silent_least:
        return ""
    return f"no message for {(now - since).total_seconds() / 60:.0f} min; {when} it sent about {usual:.0f}"


def _heard(session: Session, name: str, begin: datetime, end: datetime) -> float:
    """Return about how many messages came between two times; an hour that is cut counts in proportion."""
    rows = session.exec(
        select(HeardRow).where(HeardRow.sender == name, col(HeardRow.hour) > begin - _HOUR, col(HeardRow.hour) < end)
    ).all()
    return sum(row.messages * ((min(row.hour + _HOUR, end) - max(row.hour, begin)) / _HOUR) for row in rows)
