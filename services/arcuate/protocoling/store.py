"""Queries of the protocoling room; each takes the session of a running transaction."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select

from arcuate.protocoling.domain import Decision
from arcuate.protocoling.rulebook import Rule
from arcuate.protocoling.tables import CardRow, DecisionRow, FeedbackRow, RuleVersionRow


@dataclass(frozen=True)
class Shown:
    """A card as it is remembered."""

    uuid: str
    topic: str
    rule: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Answer:
    """Everything that is kept of one answer."""

    id: str
    at: datetime
    asked_by: str
    order_reference: str
    rulebook: str
    outcome: str
    decision: Decision
    milliseconds: int
    cards: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class Feedback:
    """One entry of a feedback request."""

    card: str
    outcome: str
    accepted: tuple[str, ...]
    reason: tuple[str | None, str | None]
    comment: str | None
    at: datetime


def remember_rules(session: Session, rules: Sequence[Rule], now: datetime) -> list[str]:
    """Remember each rule's content; return the ids of rules whose content changed while their version did not."""
    changed = []
    for rule in rules:
        if session.get(RuleVersionRow, rule.digest) is not None:
            continue
        same = select(RuleVersionRow).where(RuleVersionRow.rule == rule.id, RuleVersionRow.version == rule.version)
        if session.exec(same).first() is not None:
            changed.append(rule.id)
        session.add(RuleVersionRow(digest=rule.digest, rule=rule.id, version=rule.version, first_seen=now))
    return changed


def keep(session: Session, answers: Iterable[Answer]) -> None:
    """Keep answers and the cards that they showed."""
    for answer in answers:
        decision = answer.decision
        flags = [
            {"rule": f.rule, "version": f.version, "class": f.flag_class, "severity": f.severity}
            for f in decision.flags
        ]
        session.add(DecisionRow(
            id=answer.id, at=answer.at, asked_by=answer.asked_by, order_reference=answer.order_reference, rulebook=answer.rulebook,
            outcome=answer.outcome, flags=json.dumps(flags), protocol=decision.suggestion.name if decision.suggestion else None,
            undecided=json.dumps([{"class": u.flag_class, "why": u.why} for u in decision.undecided]),
            rules_run=decision.ran, milliseconds=answer.milliseconds,
        ))  # fmt: skip
        session.flush()
        for card in answer.cards:
            session.add(
                CardRow(uuid=card.uuid, decision_id=answer.id, topic=card.topic, rule=card.rule, version=card.version)
            )


def keep_feedback(session: Session, entries: Iterable[Feedback], now: datetime) -> None:
    """Keep feedback; a card that nobody remembers is kept as unknown."""
    for entry in entries:
        session.add(FeedbackRow(
            card=entry.card, known=session.get(CardRow, entry.card) is not None, outcome=entry.outcome, accepted=json.dumps(entry.accepted),
            reason_system=entry.reason[0], reason_code=entry.reason[1], comment=entry.comment, outcome_at=entry.at, received_at=now,
        ))  # fmt: skip


def decisions_of(session: Session, order_reference: str) -> list[DecisionRow]:
    """Return what was said about an order, oldest first."""
    query = select(DecisionRow).where(DecisionRow.order_reference == order_reference).order_by(col(DecisionRow.at))
    return list(session.exec(query).all())


def counts(session: Session) -> list[tuple[str, int, int, int]]:
    """Return for each rule: cards shown, feedback accepted, feedback overridden."""
    shown: dict[str, list[int]] = {}
    for rule in session.exec(select(CardRow.rule).where(col(CardRow.rule).is_not(None))).all():
        shown.setdefault(str(rule), [0, 0, 0])[0] += 1
    pairs = select(CardRow.rule, FeedbackRow.outcome).where(
        FeedbackRow.card == CardRow.uuid, col(CardRow.rule).is_not(None)
    )
    for rule, outcome in session.exec(pairs).all():
        shown.setdefault(str(rule), [0, 0, 0])[1 if outcome == "accepted" else 2] += 1
    return sorted((rule, row[0], row[1], row[2]) for rule, row in shown.items())


def forget(session: Session, before: datetime) -> None:
    """Delete what is older than the keeping time."""
    old = select(DecisionRow.id).where(DecisionRow.at < before)
    session.execute(delete(CardRow).where(col(CardRow.decision_id).in_(old)))
    session.execute(delete(DecisionRow).where(col(DecisionRow.at) < before))
    session.execute(delete(FeedbackRow).where(col(FeedbackRow.received_at) < before))
