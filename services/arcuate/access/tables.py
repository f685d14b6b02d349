"""Tables of the access room."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class PersonRow(Base, table=True):
    """A person."""

    __tablename__ = "person"
    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    password: str | None = None
    roles: str
    active: bool = True
    failures: int = 0
    failed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class LinkRow(Base, table=True):
    """A one-time sign-in link, kept as a hash."""

    __tablename__ = "link"
    fingerprint: str = Field(primary_key=True)
    person_id: str = Field(foreign_key="person.id")
    expires: datetime = Field(sa_type=UtcDateTime)
    used: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SessionRow(Base, table=True):
    """A signed-in person, kept as a hash."""

    __tablename__ = "session"
    fingerprint: str = Field(primary_key=True)
    person_id: str = Field(foreign_key="person.id")
    expires: datetime = Field(sa_type=UtcDateTime)


class ClientRow(Base, table=True):
    """A client outside the house (a script, an EHR) with its public key."""

    __tablename__ = "client"
    id: str = Field(primary_key=True)
    public_key: str
    roles: str


class AssertionRow(Base, table=True):
    """A client assertion that was taken; it is not taken again."""

    __tablename__ = "assertion"
    jti: str = Field(primary_key=True)
    expires: datetime = Field(sa_type=UtcDateTime, index=True)
