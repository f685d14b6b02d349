"""Queries of the access room; each takes the session of a running transaction."""

from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select

from arcuate.access.domain import Person, fingerprint
from arcuate.access.tables import AssertionRow, ClientRow, LinkRow, PersonRow, SessionRow
from arcuate.kernel.auth import Role


def person_of(row: PersonRow) -> Person:
    """Return the person that a row holds."""
    return Person(row.id, row.name, frozenset(Role(r) for r in row.roles.split()), row.password is not None)


def people(session: Session) -> list[Person]:
    """Return everybody, by name."""
    return [person_of(row) for row in session.exec(select(PersonRow).order_by(col(PersonRow.name))).all()]


def find_person(session: Session, name: str) -> PersonRow | None:
    """Return the active person of that name."""
    return session.exec(select(PersonRow).where(PersonRow.name == name, col(PersonRow.active))).first()


def get_person(session: Session, person_id: str) -> PersonRow | None:
    """Return an active person."""
    row = session.get(PersonRow, person_id)
    return row if row is not None and row.active else None


def use_link(session: Session, secret: str, now: datetime) -> PersonRow | None:
    """Use a link up; None when it is unknown, used or too old."""
    row = session.get(LinkRow, fingerprint(secret))
    if row is None or row.used is not None or row.expires <= now:
        return None
    row.used = now
    session.add(row)
    return get_person(session, row.person_id)


def session_person(session: Session, secret: str, now: datetime) -> PersonRow | None:
    """Return the person of a session that has not ended."""
    row = session.get(SessionRow, fingerprint(secret))
    return get_person(session, row.person_id) if row is not None and row.expires > now else None


def end_session(session: Session, secret: str) -> None:
    """Forget a session."""
    session.execute(delete(SessionRow).where(col(SessionRow.fingerprint) == fingerprint(secret)))


def take_assertion(session: Session, jti: str, expires: datetime, now: datetime) -> bool:
    """Remember an assertion; False when it was taken before."""
    session.execute(delete(AssertionRow).where(col(AssertionRow.expires) < now))
    if session.get(AssertionRow, jti) is not None:
        return False
    session.add(AssertionRow(jti=jti, expires=expires))
    session.flush()
    return True


def client(session: Session, client_id: str) -> ClientRow | None:
    """Return an outside client."""
    return session.get(ClientRow, client_id)
