"""Queries of the fairness ledger and the receipts."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from arcuate.assignment.optimiser import Plan
from arcuate.assignment.receipt import Line
from arcuate.assignment.service import Decision
from arcuate.assignment.tables import GivenRow, ReceiptRow


def carried(session: Session, since: datetime) -> dict[str, int]:
    """Return the minutes that each reader was given since then and still has or has read."""
    rows = session.execute(
        select(GivenRow.reader, func.sum(col(GivenRow.minutes)))
        .where(col(GivenRow.given_at) >= since, col(GivenRow.taken_at).is_(None))
        .group_by(col(GivenRow.reader))
    )
    return {str(reader): int(minutes) for reader, minutes in rows}


def record(session: Session, decisions: Sequence[Decision], plan: Plan, now: datetime) -> None:
    """Write what changed; the same decision written twice leaves one line in the ledger."""
    for decision in decisions:
        if not decision.changed:
            continue
        open_rows = session.exec(
            select(GivenRow).where(GivenRow.task_id == decision.task_id, col(GivenRow.taken_at).is_(None))
        ).all()
        if any(row.reader == decision.reader for row in open_rows):
            continue
        for row in open_rows:
            row.taken_at = now
            session.add(row)
        if decision.reader is not None:
            session.add(
                GivenRow(task_id=decision.task_id, reader=decision.reader, minutes=decision.minutes, given_at=now)
            )
        session.add(_receipt(decision, plan, now))


def receipts(session: Session, task_id: str) -> list[tuple[ReceiptRow, list[Line]]]:
    """Return the receipts of a case, newest first."""
    rows = session.exec(
        select(ReceiptRow).where(ReceiptRow.task_id == task_id).order_by(col(ReceiptRow.id).desc())
    ).all()
    return [(row, [Line(label, sentence) for label, sentence in json.loads(row.lines)]) for row in rows]


def _receipt(decision: Decision, plan: Plan, now: datetime) -> ReceiptRow:
    return ReceiptRow(
        task_id=decision.task_id, reader=decision.reader, made_at=now, method=plan.method, points=plan.points, bound=plan.bound,
        lines=json.dumps([[line.label, line.sentence] for line in decision.lines], ensure_ascii=False),
    )  # fmt: skip
