"""Queries of forecasts, the live line and the feed's cursor."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func
from sqlmodel import Session, col, select

from arcuate.scheduling.domain import Forecast, Moment, Outcome, Visit
from arcuate.scheduling.tables import CursorRow, EarlyRow, LineRow, PredictionRow

_FEED = "feed"
_STOOD = (Outcome.ATTENDED.value, Outcome.NO_SHOW.value, Outcome.LATE_CANCEL.value)


@dataclass(frozen=True)
class Times:
    """When somebody arrived, and when the exam began and ended."""

    arrived: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None


def keep(session: Session, kind: str, moment: Moment, forecast: Forecast) -> None:
    """Keep a forecast; the same question at the same time is kept once."""
    where = (
        PredictionRow.kind == kind, PredictionRow.appointment_id == moment.visit.id, PredictionRow.made_at == moment.decided_at,
    )  # fmt: skip
    if session.exec(select(PredictionRow).where(*where)).first() is not None:
        return
    answer = {
        **{name: [round(c.value, 4), round(c.low, 4), round(c.high, 4)] for name, c in forecast.chances.items()},
        **{name: [q.p10, q.p50, q.p90] for name, q in forecast.minutes.items()},
    }
    features = {
        name: None if math.isnan(value) else round(value, 4) for name, value in (forecast.features or {}).items()
    }
    line = session.get(LineRow, moment.visit.id)
    session.add(
        PredictionRow(
            kind=kind, appointment_id=moment.visit.id, made_at=moment.decided_at, start=moment.visit.start,
            confidence=forecast.confidence.value, answer=json.dumps(answer), features=json.dumps(features),
            model_version=forecast.model.version if forecast.model else None,
            model_sha256=forecast.model.sha256 if forecast.model else None, outcome=line.outcome if line else None,
        )
    )  # fmt: skip


def forecasts(session: Session, appointment_id: str) -> Sequence[PredictionRow]:
    """Return the forecasts of an appointment, oldest first."""
    return session.exec(
        select(PredictionRow).where(PredictionRow.appointment_id == appointment_id).order_by(col(PredictionRow.made_at))
    ).all()


def note_visit(session: Session, visit: Visit, status: str, changed: datetime) -> None:
    """Bring the live line to what an Appointment says, and give its forecasts their outcome."""
    row = session.get(LineRow, visit.id) or LineRow(appointment_id=visit.id, start=visit.start, status=status)
    row.order_id, row.place, row.start, row.minutes, row.status = (
        visit.order,
        visit.place,
        visit.start,
        visit.minutes,
        status,
    )
    row.outcome = visit.outcome.value if visit.outcome else None
    if status in ("arrived", "checked-in") and row.arrived_at is None:
        row.arrived_at = changed
    session.add(row)
    for key in (f"Appointment/{visit.id}", f"ServiceRequest/{visit.order}"):
        early = session.get(EarlyRow, key)
        if early is not None:
            _take(row, Times(early.arrived_at, early.began_at, early.ended_at))
            session.delete(early)
    _settle(session, row, changed)


def note_times(session: Session, key: str, times: Times, changed: datetime) -> None:
    """Bring the live line to what an Encounter or Procedure says; it may come before its appointment.

    Args:
        key: `Appointment/id` or `ServiceRequest/id`.
    """
    row = _line_of(session, key)
    if row is None:
        early = session.get(EarlyRow, key) or EarlyRow(key=key)
        early.arrived_at, early.began_at, early.ended_at = (
            times.arrived or early.arrived_at, times.began or early.began_at, times.ended or early.ended_at,
        )  # fmt: skip
        session.add(early)
        return
    _take(row, times)
    session.add(row)
    _settle(session, row, changed)


def _line_of(session: Session, key: str) -> LineRow | None:
    kind, logical_id = key.split("/", 1)
    if kind == "Appointment":
        return session.get(LineRow, logical_id)
    # An order that was moved has several appointments: the exam belongs to the one that stood last.
    standing = case((col(LineRow.status) == "cancelled", 1), else_=0)
    return session.exec(
        select(LineRow).where(LineRow.order_id == logical_id).order_by(standing, col(LineRow.start).desc()).limit(1)
    ).first()


def _take(row: LineRow, times: Times) -> None:
    # An Encounter states the arrival itself; what was guessed from the time of a status change gives way.
    row.arrived_at = times.arrived or row.arrived_at
    row.began_at = times.began or row.began_at
    row.ended_at = times.ended or row.ended_at


def _settle(session: Session, row: LineRow, changed: datetime) -> None:
    """Give the forecasts of this visit what came of it; a corrected outcome replaces the earlier one."""
    wait = (row.began_at - row.arrived_at).total_seconds() / 60 if row.began_at and row.arrived_at else None
    duration = (row.ended_at - row.began_at).total_seconds() / 60 if row.ended_at and row.began_at else None
    if row.outcome is None and wait is None and duration is None:
        return
    for forecast in session.exec(select(PredictionRow).where(PredictionRow.appointment_id == row.appointment_id)):
        before = (forecast.outcome, forecast.wait_min, forecast.duration_min)
        forecast.outcome, forecast.wait_min, forecast.duration_min = row.outcome, wait, duration
        if before != (row.outcome, wait, duration):
            forecast.outcome_at = changed
            session.add(forecast)


def line_times(session: Session, appointment_ids: Sequence[str]) -> dict[str, Times]:
    """Return what the live line knows of some visits."""
    rows = session.exec(select(LineRow).where(col(LineRow.appointment_id).in_(appointment_ids))).all()
    return {row.appointment_id: Times(row.arrived_at, row.began_at, row.ended_at) for row in rows}


def waiting(session: Session, since: datetime) -> Sequence[LineRow]:
    """Return who has arrived since then and whose exam has not begun, by arrival."""
    return session.exec(
        select(LineRow)
        .where(
            col(LineRow.arrived_at) >= since,
            col(LineRow.began_at).is_(None),
            col(LineRow.status).in_(("arrived", "checked-in")),
        )
        .order_by(col(LineRow.arrived_at))
    ).all()


def own_counts(session: Session) -> dict[str, tuple[int, int]]:
    """Return (visits, events) of the site itself, by outcome; a visit cancelled early did not stand and is left out."""
    rows = dict(
        session.execute(
            select(LineRow.outcome, func.count()).where(col(LineRow.outcome).in_(_STOOD)).group_by(col(LineRow.outcome))
        )
        .tuples()
        .all()
    )
    total = sum(rows.values())
    return {o: (total, rows.get(o, 0)) for o in (Outcome.NO_SHOW.value, Outcome.LATE_CANCEL.value)}


@dataclass(frozen=True)
class Kept:
    """How forecasts did here: only those whose visit is over and known, the last one of each made a day ahead or more."""

    count: int
    expected: Mapping[str, float]
    seen: Mapping[str, int]


def kept_so_far(session: Session, before: datetime) -> Kept:
    """Compare the chances given with what came, over visits that started before a time (so that their outcome has matured)."""
    rows = session.exec(
        select(PredictionRow)
        .where(
            PredictionRow.kind == "attendance", col(PredictionRow.outcome).is_not(None), PredictionRow.start < before,
            PredictionRow.confidence != "fallback",
        )
        .order_by(col(PredictionRow.made_at))
    ).all()  # fmt: skip
    last = {row.appointment_id: row for row in rows}
    expected, seen = dict.fromkeys(_STOOD[1:], 0.0), dict.fromkeys(_STOOD[1:], 0)
    for row in last.values():
        answer = json.loads(row.answer)
        for outcome in expected:
            expected[outcome] += float(answer.get(outcome, [0.0])[0])
            seen[outcome] += row.outcome == outcome
    return Kept(len(last), expected, seen)


def load_cursor(session: Session) -> int | None:
    """Return how far the feed was read."""
    row = session.get(CursorRow, _FEED)
    return row.position if row else None


def save_cursor(session: Session, position: int) -> None:
    """Keep how far the feed was read."""
    row = session.get(CursorRow, _FEED) or CursorRow(name=_FEED, position=position)
    row.position = position
    session.add(row)
