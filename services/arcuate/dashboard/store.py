"""Queries of the dashboard; each takes the session of a running transaction."""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import Session, col

from arcuate.dashboard.tables import PreferenceRow, SessionRow
from arcuate.kernel.db import upsert

_NOTED_EVERY = timedelta(seconds=30)


def add_session(session: Session, row: SessionRow, now: datetime) -> None:
    """Keep a new session, and forget those that have ended."""
    session.execute(delete(SessionRow).where(col(SessionRow.expires) <= now))
    session.add(row)


def find_session(session: Session, session_id: str) -> SessionRow | None:
    """Return a session."""
    return session.get(SessionRow, session_id)


def note_seen(session: Session, session_id: str, now: datetime) -> None:
    """Remember that the person is there."""
    row = session.get(SessionRow, session_id)
    if row is not None and now - row.seen >= _NOTED_EVERY:
        row.seen = now
        session.add(row)


def end_session(session: Session, session_id: str) -> None:
    """Forget a session."""
    session.execute(delete(SessionRow).where(col(SessionRow.id) == session_id))


def letter_keys(session: Session, person_id: str) -> bool:
    """Return whether single letters act as keys for a person."""
    row = session.get(PreferenceRow, person_id)
    return row is None or row.letter_keys


def set_letter_keys(session: Session, person_id: str, on: bool) -> None:
    """Keep whether single letters act as keys for a person."""
    upsert(session, PreferenceRow, {"person_id": person_id}, {"letter_keys": on})
