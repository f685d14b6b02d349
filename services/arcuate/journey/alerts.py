"""Rooms and connections: looked at again and again, told once when one fails and once when it has recovered."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
from sqlmodel import Session, col, select

from arcuate.journey.hearing import Sender, Silence, hear
from arcuate.journey.room import Journey
from arcuate.journey.settings import JourneySettings
from arcuate.journey.store import WATCH
from arcuate.journey.tables import WORK, AlertRow
from arcuate.kernel.errors import ArcuateError, Json
from arcuate.kernel.work import Apply, Job, Later

_TIMEOUT_S = 5.0
_OWN_FAULT = 500
_RECENT = 100


@dataclass(frozen=True)
class Watched:
    """One room that is looked at; without a path one kind of connection, which the gateway tells of."""

    name: str
    meanwhile: str
    path: str = ""


@dataclass(frozen=True)
class Seen:
    """What one look has found.

    Attributes:
        kind: `room`, `door`, `receiver` or `sender`.
        cause: Why it fails, in words; empty when it works.
        since: When it began to fail, where that is known.
    """

    name: str
    kind: str
    cause: str = ""
    since: datetime | None = None


def load_watched(path: Path = Path(__file__).parent / "watched.toml") -> tuple[Watched, ...]:
    """Read the list of rooms."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(Watched(**one) for one in [*data["room"], *data["connection"]])


async def look(http: httpx.AsyncClient, watched: Sequence[Watched]) -> tuple[list[Seen], list[Sender]]:
    """Ask every room, and the gateway for its connections; returns what works and what does not, and who sends."""
    found = [Seen(room.name, "room", await _fault(http, room.path)) for room in watched if room.path]
    try:
        answer = await http.get("/gateway/connections", timeout=_TIMEOUT_S)
        if answer.status_code == httpx.codes.OK:
            return found + _connections(answer.json()), _senders(answer.json())
    except (httpx.HTTPError, ArcuateError, ValueError):
        pass  # the gateway itself is on the list
    return found, []


async def _fault(http: httpx.AsyncClient, path: str) -> str:
    try:
        answer = await http.get(path, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, ArcuateError) as error:
        return error.what if isinstance(error, ArcuateError) else f"no answer ({type(error).__name__})"
    return f"answers {answer.status_code}" if answer.status_code >= _OWN_FAULT else ""


def _connections(body: Json) -> list[Seen]:
    door = str((body.get("door") or {}).get("fault") or "")
    found = [Seen("HL7 door", "door", door)]
    for one in body.get("receivers") or ():
        down = one.get("state") == "does not answer"
        cause = (
            f"does not answer at {one.get('address')}; {one.get('waiting', 0)} messages wait in order" if down else ""
        )
        since = datetime.fromisoformat(str(one["down_since"])) if down and one.get("down_since") else None
        found.append(Seen(f"receiver {one.get('receiver')}", "receiver", cause, since))
    if asked := body.get("ehr"):
        down = asked.get("state") == "does not answer"
        cause = f"does not answer at {asked.get('address')}: {asked.get('cause')}" if down else ""
        since = datetime.fromisoformat(str(asked["down_since"])) if down and asked.get("down_since") else None
        found.append(Seen("EHR", "ehr", cause, since))
    return found


def _senders(body: Json) -> list[Sender]:
    return [
        Sender(str(one["sender"]), int(one["received"]), datetime.fromisoformat(str(one["last"])))
        for one in body.get("senders") or ()
        if one.get("last")
    ]


def _silent(one: Silence) -> Seen:
    application, _, facility = one.name.partition("|")
    name = f"sender {application or 'without a name'}" + (f" at {facility}" if facility else "")
    return Seen(name, "sender", one.cause, one.since if one.cause else None)


def judge(session: Session, seen: Seen, now: datetime, settings: JourneySettings) -> str:
    """Write what a look has found; returns `alert` or `recovered` when people are to be told, else an empty text.

    A thing that fails and works in turns is one alert: it has recovered only once it has worked for the set time.
    """
    row = session.exec(select(AlertRow).where(AlertRow.open_name == seen.name)).first()
    if row is None:
        if not seen.cause:
            return ""
        row = AlertRow(name=seen.name, kind=seen.kind, open_name=seen.name, cause=seen.cause, since=seen.since or now)
        session.add(row)
    return _fails(row, seen, now, settings) if seen.cause else _works(session, row, now, settings)


def _fails(row: AlertRow, seen: Seen, now: datetime, settings: JourneySettings) -> str:
    if row.well_since is not None:
        row.well_since, row.failures = None, row.failures + 1
    row.cause = seen.cause
    if row.told is not None or now < row.since + timedelta(seconds=settings.alert_after_s):
        return ""
    row.told = now
    return "alert"


def _works(session: Session, row: AlertRow, now: datetime, settings: JourneySettings) -> str:
    if row.well_since is None:
        row.well_since = now
    if now < row.well_since + timedelta(seconds=settings.recovered_after_s):
        return ""
    if row.told is None:  # it never failed for long enough to be told
        session.delete(row)
        return ""
    row.open_name, row.recovered = None, row.well_since
    return "recovered"


async def watch(journey: Journey, watched: Sequence[Watched], _job: Job) -> Apply | None:
    """Look once, tell what is new, and come back (a handler of work: one replica at a time does it).

    Raises:
        Later: Always; this work never ends.
    """
    seen, senders = await look(journey.http, watched)
    now, settings = journey.clock.now(), journey.settings

    def write(session: Session) -> list[tuple[Seen, str]]:
        silences = [_silent(one) for one in hear(session, senders, now, settings)]
        return [(one, judge(session, one, now, settings)) for one in [*seen, *silences]]

    for one, what in await journey.database.write(write):
        if what == "alert":
            journey.log.warning("alert: does not work", what=one.name, cause=one.cause)
        elif what:
            journey.log.warning("recovered: works again", what=one.name)
    raise Later(journey.settings.watch_every_s, "the next look")


def begin(session: Session, now: datetime) -> None:
    """See to it that the watch is kept; there is one, however many replicas there are."""
    WORK.enqueue(session, WATCH, now=now, dedupe=WATCH)


def listed(session: Session) -> tuple[list[AlertRow], list[AlertRow]]:
    """Return the alerts that are open, oldest first, and those that have recovered, newest first."""
    is_open = sa.and_(col(AlertRow.told).is_not(None), col(AlertRow.recovered).is_(None))
    open_ones = session.exec(select(AlertRow).where(is_open).order_by(col(AlertRow.since))).all()
    query = select(AlertRow).where(col(AlertRow.recovered).is_not(None)).order_by(col(AlertRow.recovered).desc())
    return list(open_ones), list(session.exec(query.limit(_RECENT)).all())


def alert_json(row: AlertRow, watched: Sequence[Watched]) -> dict[str, Any]:
    """Return an alert as the pages read it."""
    return {
        "id": row.id, "name": row.name, "kind": row.kind, "cause": row.cause, "since": row.since.isoformat(),
        "told": row.told.isoformat() if row.told else None, "recovered": row.recovered.isoformat() if row.recovered else None,
        "failures": row.failures, "meanwhile": next((one.meanwhile for one in watched if one.name in (row.name, row.kind)), ""),
    }  # fmt: skip
