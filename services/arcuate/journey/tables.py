"""Tables of the journey room: one row a case, one row a step."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime
from arcuate.kernel.work import WorkTable


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class CaseRow(Base, table=True):
    """One case: an order, or images that wait for theirs.

    Attributes:
        held: Why a person must look first.
        released: Studies that a person has let in; `set_aside` those that a person has kept out.
        read_with: The images (`id:instances`) that stood there when the report was signed; None until then.
        due: Until when the case may stand in its stage.
        version: Counts what workers have written; who has read an older one may write nothing more.
    """

    __tablename__ = "journey_case"
    id: str = Field(primary_key=True)
    accession: str | None = Field(default=None, unique=True)
    order_id: str | None = Field(default=None, unique=True)
    patient_id: str | None = Field(default=None, index=True)
    stage: str = Field(default="waiting", index=True)
    since: datetime = Field(sa_type=UtcDateTime)
    waits_for: str = "the order"
    held: str = ""
    answers: str = "{}"
    released: str = ""
    scanned_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    missed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    set_aside: str = ""
    read_with: str | None = None
    due: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    version: int = 0


class StepRow(Base, table=True):
    """One thing that happened to a case; a stage is reached once."""

    __tablename__ = "step"
    id: int | None = Field(default=None, primary_key=True)
    case_id: str = Field(foreign_key="journey_case.id", index=True)
    stage: str
    kind: str
    at: datetime = Field(sa_type=UtcDateTime)
    note: str = ""
    source: str = ""
    mark: str | None = Field(default=None, unique=True)


class LinkRow(Base, table=True):
    """Which cases a resource belongs to: one report can answer several orders, one patient can have several cases."""

    __tablename__ = "case_link"
    reference: str = Field(primary_key=True)
    case_id: str = Field(foreign_key="journey_case.id", primary_key=True, index=True)


class CursorRow(Base, table=True):
    """How far the feed was read."""

    __tablename__ = "cursor"
    name: str = Field(primary_key=True)
    seq: int


class TurnRow(Base, table=True):
    """What one replica at a time does (follow the feed, ask for readers), and until when it is whose turn."""

    __tablename__ = "turn"
    name: str = Field(primary_key=True)
    holder: str
    until: datetime = Field(sa_type=UtcDateTime)


class AlertRow(Base, table=True):
    """One thing that failed: told once, and once more when it has recovered.

    Attributes:
        open_name: The name until it has recovered, then None: a thing is open once.
        failures: How often it failed again meanwhile.
    """

    __tablename__ = "alert"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    kind: str
    open_name: str | None = Field(default=None, unique=True)
    cause: str
    since: datetime = Field(sa_type=UtcDateTime)
    told: datetime | None = Field(default=None, sa_type=UtcDateTime)
    well_since: datetime | None = Field(default=None, sa_type=UtcDateTime)
    recovered: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
    failures: int = 1


class SenderRow(Base, table=True):
    """One sender of HL7 messages, as the last look at the gateway has found it.

    Attributes:
        received: How many messages had come.
        known_since: Since when its hours are counted.
        listening_since: Since when we have looked without a break: what we have not watched is no silence of the sender.
    """

    __tablename__ = "sender"
    name: str = Field(primary_key=True)
    received: int
    known_since: datetime = Field(sa_type=UtcDateTime)
    listening_since: datetime = Field(sa_type=UtcDateTime)
    looked: datetime = Field(sa_type=UtcDateTime)


class HeardRow(Base, table=True):
    """How many messages of a sender came in one hour, of the last weeks."""

    __tablename__ = "heard"
    sender: str = Field(primary_key=True)
    hour: datetime = Field(sa_type=UtcDateTime, primary_key=True)
    messages: int


WORK = WorkTable(Base.metadata)
