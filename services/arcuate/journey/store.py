"""Queries of the journey room; each takes the session of a running transaction."""

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlmodel import Session, col, select

from arcuate.journey.domain import Answered
from arcuate.journey.table import as_mapping
from arcuate.journey.tables import WORK, CaseRow, CursorRow, LinkRow, StepRow

ADVANCE, TIMER = "advance", "timer"


def cursor(session: Session) -> int | None:
    """Return how far the feed was read."""
    row = session.get(CursorRow, "feed")
    return row.seq if row else None


def save_cursor(session: Session, seq: int) -> None:
    """Remember how far the feed was read."""
    session.merge(CursorRow(name="feed", seq=seq))


def case_of_order(session: Session, order_id: str, accession: str | None, now: datetime) -> CaseRow:
    """Return the case of an order: its own, the one that images of this accession began, or a new one."""
    row = session.exec(select(CaseRow).where(CaseRow.order_id == order_id)).first()
    if row is None and accession:
        row = session.exec(
            select(CaseRow).where(CaseRow.accession == accession, col(CaseRow.order_id).is_(None))
        ).first()
    if row is None:
        row = CaseRow(id=secrets.token_hex(8), since=now)
    row.order_id = order_id
    taken = (
        accession and session.exec(select(CaseRow).where(CaseRow.accession == accession, CaseRow.id != row.id)).first()
    )
    if not taken:
        row.accession = accession
    session.add(row)
    session.flush()
    link(session, [f"ServiceRequest/{order_id}"], row.id)
    return row


def case_of_accession(session: Session, accession: str, now: datetime) -> CaseRow:
    """Return the case of an accession number, beginning one that waits for its order where there is none."""
    row = session.exec(select(CaseRow).where(CaseRow.accession == accession)).first()
    if row is None:
        row = CaseRow(id=secrets.token_hex(8), accession=accession, since=now)
        session.add(row)
        session.flush()
    return row


def link(session: Session, references: Iterable[str], case_id: str) -> None:
    """Remember that resources belong to a case."""
    for reference in references:
        session.merge(LinkRow(reference=reference, case_id=case_id))


def linked_cases(session: Session, references: Iterable[str]) -> set[str]:
    """Return the cases to which any of these resources belongs."""
    wanted = list(references)
    if not wanted:
        return set()
    return set(session.exec(select(LinkRow.case_id).where(col(LinkRow.reference).in_(wanted))).all())


def links_of(session: Session, case_id: str, resource_type: str) -> list[str]:
    """Return the references of one type that belong to a case."""
    rows = session.exec(
        select(LinkRow.reference).where(LinkRow.case_id == case_id).order_by(col(LinkRow.reference))
    ).all()
    return [reference for reference in rows if reference.startswith(f"{resource_type}/")]


def cases_of_patient(session: Session, patient_id: str) -> set[str]:
    """Return the cases of a patient that are still under way."""
    ended = ("delivered", "cancelled", "expired")
    rows = session.exec(
        select(CaseRow.id).where(CaseRow.patient_id == patient_id, col(CaseRow.stage).not_in(ended))
    ).all()
    return set(rows)


def wake(session: Session, case_id: str, now: datetime, due: datetime | None = None, mark: str = "") -> None:
    """Ask for a case to be looked at: now, or at a later time."""
    if due is None:
        if not WORK.has_ready(session, ADVANCE, f"case:{case_id}", now):
            WORK.enqueue(session, ADVANCE, now=now, keys=[f"case:{case_id}"], payload={"case": case_id})
        return
    WORK.enqueue(
        session, TIMER, now=now, payload={"case": case_id}, due=due, dedupe=f"{case_id}:{mark}:{due.isoformat()}"
    )


def answers(row: CaseRow) -> dict[str, Answered]:
    """Return what the rooms have answered for a case."""
    found = json.loads(row.answers)
    return {n: Answered(a["fingerprint"], datetime.fromisoformat(a["at"]), a["given_up"]) for n, a in found.items()}


def save_answer(session: Session, case_id: str, name: str, answer: Answered) -> None:
    """Remember an answer."""
    row = session.get_one(CaseRow, case_id)
    row.answers = json.dumps(as_mapping({**answers(row), name: answer}))
    session.add(row)


def note(
    session: Session, case_id: str, stage: str, at: datetime, text: str, *, source: str = "", mark: str | None = None
) -> None:
    """Write a step; a mark that stands already is not written twice."""
    _step(session, StepRow(case_id=case_id, stage=stage, kind="note", at=at, note=text, source=source, mark=mark))


def reach(session: Session, case_id: str, reached: Mapping[str, tuple[datetime, str]]) -> None:
    """Write the stages that a case has reached; each once."""
    for stage, (at, source) in reached.items():
        _step(
            session,
            StepRow(case_id=case_id, stage=stage, kind="stage", at=at, source=source, mark=f"{case_id}:stage:{stage}"),
        )


def _step(session: Session, row: StepRow) -> None:
    if row.mark and session.exec(select(StepRow.id).where(StepRow.mark == row.mark)).first() is not None:
        return
    session.add(row)
    session.flush()


def get_case(session: Session, case_id: str) -> CaseRow | None:
    """Return a case."""
    return session.get(CaseRow, case_id)


def cases(session: Session, limit: int, *, stage: str | None = None) -> list[CaseRow]:
    """Return the newest cases."""
    query = select(CaseRow).order_by(col(CaseRow.since).desc()).limit(limit)
    if stage:
        query = query.where(CaseRow.stage == stage)
    return list(session.exec(query).all())


def steps(session: Session, case_ids: Iterable[str]) -> dict[str, list[StepRow]]:
    """Return the steps of cases, oldest first."""
    found: dict[str, list[StepRow]] = {case_id: [] for case_id in case_ids}
    query = select(StepRow).where(col(StepRow.case_id).in_(list(found))).order_by(col(StepRow.at), col(StepRow.id))
    for row in session.exec(query).all():
        found[row.case_id].append(row)
    return found


def stuck(session: Session, before: datetime) -> list[CaseRow]:
    """Return cases that have stood in a stage since before a time and wait for something, oldest first."""
    query = select(CaseRow).where(CaseRow.since < before, col(CaseRow.waits_for) != "").order_by(col(CaseRow.since))
    return list(session.exec(query).all())
