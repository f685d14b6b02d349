"""Tables of the protocoling room."""

from datetime import datetime

from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from arcuate.kernel.db import UtcDateTime


class Base(SQLModel, registry=registry()):
    """Tables of this room."""


class RuleVersionRow(Base, table=True):
    """Each content of a rule that ever ran here."""

    __tablename__ = "rule_version"
    digest: str = Field(primary_key=True)
    rule: str = Field(index=True)
    version: int
    first_seen: datetime = Field(sa_type=UtcDateTime)


class DecisionRow(Base, table=True):
    """What was said about one order, when, by which rules."""

    __tablename__ = "decision"
    id: str = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    asked_by: str
    order_reference: str = Field(index=True)
    rulebook: str
    outcome: str
    flags: str  # JSON: [{rule, version, class, severity}, …]
    protocol: str | None = None
    undecided: str  # JSON: [{class, why}, …]
    rules_run: int
    milliseconds: int


class CardRow(Base, table=True):
    """A card that was shown, so that feedback finds its rule."""

    __tablename__ = "card"
    uuid: str = Field(primary_key=True)
    decision_id: str = Field(foreign_key="decision.id", index=True)
    topic: str
    rule: str | None = None
    version: int | None = None


class FeedbackRow(Base, table=True):
    """What became of a card (CDS Hooks 2.0, feedback)."""

    __tablename__ = "feedback"
    id: int | None = Field(default=None, primary_key=True)
    card: str = Field(index=True)
    known: bool
    outcome: str
    accepted: str  # JSON: ids of accepted suggestions
    reason_system: str | None = None
    reason_code: str | None = None
    comment: str | None = None
    outcome_at: datetime = Field(sa_type=UtcDateTime)
    received_at: datetime = Field(sa_type=UtcDateTime, index=True)
