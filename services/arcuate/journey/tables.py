"""Tables of the journey room: one row a case, one row a step."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime
from arcuate.kernel.work import WorkTable


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class CaseRow(Base, table=True):
    """One case: an order, or images that wait for theirs."""

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
    """Which case a resource belongs to."""

    __tablename__ = "link"
    reference: str = Field(primary_key=True)
    case_id: str = Field(foreign_key="journey_case.id", index=True)


class CursorRow(Base, table=True):
    """How far the feed was read."""

    __tablename__ = "cursor"
    name: str = Field(primary_key=True)
    seq: int


WORK = WorkTable(Base.metadata)
