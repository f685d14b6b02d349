"""Tables of the audit trail."""

from sqlalchemy import BigInteger, Index, Integer, Table, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

_Long = BigInteger().with_variant(Integer, "sqlite")


class Base(SQLModel, registry=registry()):
    """Tables of the trail."""


class EntryRow(Base, table=True):
    """One action. `hash` covers the row and the hash before it; triggers refuse to change or delete a row."""

    __tablename__ = "entry"
    number: int = Field(primary_key=True, sa_type=_Long, sa_column_kwargs={"autoincrement": False})
    at: int = Field(sa_type=BigInteger, index=True)  # microseconds since 1970 UTC
    interaction: str
    outcome: str
    client: str
    person: str = Field(index=True)
    name: str
    detail: str  # names of search parameters, never their values
    targets: str = Field(sa_type=Text)  # JSON: references and patients
    hash: str


class TargetRow(Base, table=True):
    """Which entries touch a resource or patient."""

    __tablename__ = "target"
    __table_args__ = (Index("ix_target_entry", "number"),)
    reference: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=BigInteger, sa_column_kwargs={"autoincrement": False})


ENTRY: Table = Base.metadata.tables["entry"]
TARGET: Table = Base.metadata.tables["target"]
