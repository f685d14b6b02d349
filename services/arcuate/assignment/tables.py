"""Tables of the assignment room."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class GivenRow(Base, table=True):
    """The fairness ledger: who was given which case, with its minutes, from when until when."""

    __tablename__ = "given"
    id: int | None = Field(default=None, primary_key=True)
    task_id: str = Field(index=True)
    reader: str = Field(index=True)
    minutes: int
    given_at: datetime = Field(sa_type=UtcDateTime, index=True)
    taken_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ReceiptRow(Base, table=True):
    """Why a case went where it went: the sentences, and how good the whole plan was."""

    __tablename__ = "receipt"
    id: int | None = Field(default=None, primary_key=True)
    task_id: str = Field(index=True)
    reader: str | None = None
    made_at: datetime = Field(sa_type=UtcDateTime)
    lines: str  # JSON: [[label, sentence], …]
    method: str
    points: int
    bound: int | None = None
