"""Tables of the reporting room: every version of every draft."""

from datetime import datetime

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class DraftRow(Base, table=True):
    """One version of a draft.

    Attributes:
        order_key: Accession number, or the order's id.
        digest: SHA-256 of the draft without its head line; the same draft is not kept twice.
        report: The DiagnosticReport as JSON.
        amounts: JSON: the values as printed, by field.
        faults: JSON: sections that the template could not fill, and why.
    """

    __tablename__ = "draft"
    __table_args__ = (UniqueConstraint("order_key", "version", name="one_version"),)
    id: int | None = Field(default=None, primary_key=True)
    order_key: str = Field(index=True)
    version: int
    digest: str
    template: str
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    text: str
    report: str
    amounts: str
    faults: str
