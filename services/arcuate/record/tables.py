"""Tables of the record: versions, current state, search indexes, and what makes writes repeatable."""

from typing import Any

from sqlalchemy import BigInteger, Index, Integer, Table, Text, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

# INTEGER is SQLite's own row number; PostgreSQL needs the eight bytes named.
_Long = BigInteger().with_variant(Integer, "sqlite")

# By code point on both databases, so that ranges and pages mean the same.
_Text = Text().with_variant(Text(collation="C"), "postgresql")

_INDEX: dict[str, Any] = {"sqlite_with_rowid": False}  # the primary key is the table


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class VersionRow(Base, table=True):
    """One version of a resource; the feed is this table by `seq`, which is given in commit order."""

    __tablename__ = "version"
    __table_args__ = (UniqueConstraint("type", "id", "version"), Index("ix_version_type_seq", "type", "seq"))
    seq: int = Field(primary_key=True, sa_type=_Long, sa_column_kwargs={"autoincrement": False})
    type: str
    id: str
    version: int
    updated: int = Field(sa_type=BigInteger, index=True)  # microseconds since 1970 UTC
    method: str
    body: str | None = Field(default=None, sa_type=Text)  # None: deleted


class ResourceRow(Base, table=True):
    """The current state of a resource; `number` is the feed number of its first version and never changes."""

    __tablename__ = "resource"
    __table_args__ = (UniqueConstraint("type", "id"), Index("ix_resource_list", "type", "deleted", "number"))
    number: int = Field(primary_key=True, sa_type=_Long, sa_column_kwargs={"autoincrement": False})
    type: str
    id: str = Field(sa_type=_Text)
    version: int
    seq: int = Field(sa_type=BigInteger)
    updated: int = Field(sa_type=BigInteger, index=True)
    deleted: bool = False
    patient: str | None = None


class TokenRow(Base, table=True):
    """A code, identifier, boolean or URI."""

    __tablename__ = "token_index"
    __table_args__ = (Index("ix_token_number", "number"), _INDEX)
    param: str = Field(primary_key=True)
    code: str = Field(primary_key=True, sa_type=_Text)
    system: str = Field(primary_key=True, sa_type=_Text)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class ReferenceRow(Base, table=True):
    """A reference to another resource."""

    __tablename__ = "reference_index"
    __table_args__ = (Index("ix_reference_number", "number"), _INDEX)
    param: str = Field(primary_key=True)
    target_id: str = Field(primary_key=True, sa_type=_Text)
    target_type: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class DateRow(Base, table=True):
    """A span of time, in microseconds since 1970 UTC, from `low` inclusive to `high` exclusive."""

    __tablename__ = "date_index"
    __table_args__ = (Index("ix_date_number", "number"), _INDEX)
    param: str = Field(primary_key=True)
    low: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    high: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class StringRow(Base, table=True):
    """A text without case, accents and punctuation, beside it as it was written (`:exact`)."""

    __tablename__ = "string_index"
    __table_args__ = (Index("ix_string_number", "number"), _INDEX)
    param: str = Field(primary_key=True)
    text: str = Field(primary_key=True, sa_type=_Text)
    exact: str = Field(primary_key=True, sa_type=_Text)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class NumberRow(Base, table=True):
    """A number or quantity."""

    __tablename__ = "number_index"
    __table_args__ = (Index("ix_number_number", "number"), _INDEX)
    param: str = Field(primary_key=True)
    value: float = Field(primary_key=True)
    system: str = Field(primary_key=True, sa_type=_Text)
    code: str = Field(primary_key=True, sa_type=_Text)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


class ClaimRow(Base, table=True):
    """The condition under which a resource was created; its key lets two that race create one resource."""

    __tablename__ = "claim"
    criteria: str = Field(primary_key=True)  # SHA-256 of type and condition
    number: int = Field(sa_type=BigInteger, index=True)


class AnswerRow(Base, table=True):
    """The answer to a transaction that carried an identifier; the same identifier gets it again."""

    __tablename__ = "answer"
    source: str = Field(primary_key=True)
    body: str = Field(sa_type=Text)
    at: int = Field(sa_type=BigInteger)


class ExportRow(Base, table=True):
    """A Bulk Data export that was asked for; its lines are the versions at its feed number."""

    __tablename__ = "export"
    id: str = Field(primary_key=True)
    url: str
    at: int = Field(sa_type=BigInteger, index=True)
    seq: int = Field(sa_type=BigInteger)
    asked: str = Field(sa_type=Text)  # JSON: types, since, patients
    owner: str
    counts: str | None = Field(default=None, sa_type=Text)  # JSON: lines of each type; None while they are counted


class SubscriptionRow(Base, table=True):
    """How far a Subscription has come; its wishes stand in the resource of that id."""

    __tablename__ = "subscription"
    id: str = Field(primary_key=True)
    version: int  # of the resource, as it was last looked at
    status: str = Field(index=True)
    cursor: int = Field(sa_type=BigInteger)  # feed number up to which events were collected
    events: int = 0  # number of the newest event
    sent: int = 0  # number of the newest event that the endpoint took
    due: int = Field(sa_type=BigInteger)  # microseconds since 1970 UTC: not to be tried before
    heard: int = Field(sa_type=BigInteger)  # when the endpoint last took something
    failing: int | None = Field(default=None, sa_type=BigInteger)  # since when it takes nothing
    failures: int = 0
    reason: str | None = None
    lease_until: int = Field(default=0, sa_type=BigInteger)
    attempt: int = 0  # grows with every lease: what an older holder writes is refused


class SubscriptionEventRow(Base, table=True):
    """One event of a Subscription, numbered in feed order."""

    __tablename__ = "subscription_event"
    subscription: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    seq: int = Field(sa_type=BigInteger)


class OfferRow(Base, table=True):
    """What a `$find` was asked for; its proposals can be held and booked until then."""

    __tablename__ = "offer"
    id: str = Field(primary_key=True)
    until: int = Field(sa_type=BigInteger, index=True)
    asked: str = Field(sa_type=Text)  # JSON: patient, order, reasons, period


class SlotUseRow(Base, table=True):
    """A slot that is held, or asked of the RIS; its key lets one have it."""

    __tablename__ = "slot_use"
    slot: str = Field(primary_key=True)
    appointment: str = Field(unique=True)
    owner: str
    until: int | None = Field(default=None, sa_type=BigInteger)  # None: the RIS has been asked
    ends: int = Field(sa_type=BigInteger)
    task: str | None = None
    seen: int = Field(sa_type=BigInteger)


class SecretRow(Base, table=True):
    """A key of the room's own, shared by its replicas."""

    __tablename__ = "secret"
    name: str = Field(primary_key=True)
    value: str


# The same tables for queries: plain rows cost a third of mapped ones.
VERSION: Table = Base.metadata.tables["version"]
RESOURCE: Table = Base.metadata.tables["resource"]
TOKEN: Table = Base.metadata.tables["token_index"]
REFERENCE: Table = Base.metadata.tables["reference_index"]
DATE: Table = Base.metadata.tables["date_index"]
STRING: Table = Base.metadata.tables["string_index"]
NUMBER: Table = Base.metadata.tables["number_index"]
CLAIM: Table = Base.metadata.tables["claim"]
ANSWER: Table = Base.metadata.tables["answer"]
EXPORT: Table = Base.metadata.tables["export"]
SUBSCRIPTION: Table = Base.metadata.tables["subscription"]
SUBSCRIPTION_EVENT: Table = Base.metadata.tables["subscription_event"]
SECRET: Table = Base.metadata.tables["secret"]

INDEXES = (TOKEN, REFERENCE, DATE, STRING, NUMBER)
