"""Tables of the dashboard: who is signed in, and what a person prefers. No clinical fact."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class SessionRow(Base, table=True):
    """One browser in which a person is signed in.

    Attributes:
        id: SHA-256 of the cookie; the cookie itself is kept nowhere.
        sealed: The access room's session, encrypted with a key that only the cookie yields.
        csrf: What every write must carry besides the cookie.
        seen: Last key or click.
    """

    __tablename__ = "browser_session"
    id: str = Field(primary_key=True)
    sealed: str
    person_id: str = Field(index=True)
    name: str
    roles: str
    csrf: str
    opened: datetime = Field(sa_type=UtcDateTime)
    seen: datetime = Field(sa_type=UtcDateTime)
    expires: datetime = Field(sa_type=UtcDateTime, index=True)


class PreferenceRow(Base, table=True):
    """What a person has chosen, at every workstation."""

    __tablename__ = "preference"
    person_id: str = Field(primary_key=True)
    letter_keys: bool = True
