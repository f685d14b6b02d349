"""Nothing is sent while the gateway is halted: after a restore, what waits may have gone out already, and a person decides."""

from datetime import datetime

from sqlmodel import Session

from arcuate.gateway.tables import Halt

RESTORED = "The data was restored from a backup: what waits may have been sent before"


def standing(session: Session) -> Halt | None:
    """Return why nothing is sent, or None."""
    return session.get(Halt, 1)


def halt(session: Session, at: datetime, reason: str) -> None:
    """Send nothing from now on; an earlier reason stands."""
    if standing(session) is None:
        session.add(Halt(id=1, since=at, reason=reason))


def release(session: Session) -> bool:
    """Send again; returns False if nothing was halted."""
    found = standing(session)
    if found is not None:
        session.delete(found)
    return found is not None
