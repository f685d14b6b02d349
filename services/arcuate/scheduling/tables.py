"""Tables of the scheduling room."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class PredictionRow(Base, table=True):
    """A forecast that was made, and what came of it once that is known."""

    __tablename__ = "prediction"
    __table_args__ = (UniqueConstraint("kind", "appointment_id", "made_at"),)
    id: int | None = Field(default=None, primary_key=True)
    kind: str  # attendance or wait
    appointment_id: str = Field(index=True)
    made_at: datetime = Field(sa_type=UtcDateTime)
    start: datetime = Field(sa_type=UtcDateTime, index=True)
    confidence: str
    model_version: str | None = None
    model_sha256: str | None = None
    answer: str  # JSON: chances or minutes
    features: str  # JSON: what the model saw
    outcome: str | None = None
    wait_min: float | None = None
    duration_min: float | None = None
    outcome_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class LineRow(Base, table=True):
    """The live line: one visit with its arrival, begin and end, rebuilt from the feed."""

    __tablename__ = "line"
    appointment_id: str = Field(primary_key=True)
    order_id: str | None = Field(default=None, index=True)
    place: str | None = Field(default=None, index=True)
    start: datetime = Field(sa_type=UtcDateTime, index=True)
    minutes: int | None = None
    status: str
    outcome: str | None = None
    arrived_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    began_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class EarlyRow(Base, table=True):
    """Times that came before their appointment: kept until it comes."""

    __tablename__ = "early"
    key: str = Field(primary_key=True)  # Appointment/… or ServiceRequest/…
    arrived_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    began_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class CursorRow(Base, table=True):
    """How far the feed was read."""

    __tablename__ = "cursor"
    name: str = Field(primary_key=True)
    position: int
