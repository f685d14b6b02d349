"""Queries of the reporting room; each takes the session of a running transaction."""

from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select

from arcuate.reporting.tables import DraftRow


def latest(session: Session, order_key: str) -> DraftRow | None:
    """Return the newest version of an order's draft."""
    query = select(DraftRow).where(DraftRow.order_key == order_key).order_by(col(DraftRow.version).desc())
    return session.exec(query).first()


def versions(session: Session, order_key: str) -> list[DraftRow]:
    """Return all versions of an order's draft, oldest first."""
    query = select(DraftRow).where(DraftRow.order_key == order_key).order_by(col(DraftRow.version))
    return list(session.exec(query).all())


def keep(session: Session, row: DraftRow) -> None:
    """Keep a version."""
    session.add(row)
    session.flush()


def forget(session: Session, before: datetime) -> None:
    """Delete versions older than the keeping time."""
    session.execute(delete(DraftRow).where(col(DraftRow.at) < before))
