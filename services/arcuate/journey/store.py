"""Queries of the journey room; each takes the session of a running transaction."""

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from arcuate.journey.domain import Answered
from arcuate.journey.table import as_mapping
from arcuate.journey.tables import WORK, CaseRow, CursorRow, LinkRow, StepRow, TurnRow
from arcuate.kernel.db.driver import driver_of, marks
from arcuate.kernel.work import DISCARDED, DONE, PARKED, READY, Later

ADVANCE, TIMER, WATCH = "advance", "timer", "watch"
ENDED = ("delivered", "cancelled", "expired")
_STALE_S = 0.5


def cursor(session: Session) -> int | None:
    """Return how far the feed was read."""
    row = session.get(CursorRow, "feed")
    return row.seq if row else None


def save_cursor(session: Session, seq: int) -> None:
    """Remember how far the feed was read."""
    statement = "INSERT INTO cursor (name, seq) VALUES ('feed', ?) ON CONFLICT (name) DO UPDATE SET seq = excluded.seq"
    driver_of(session.connection()).rows(statement, (seq,))


def case_of_order(
    session: Session, order_id: str, patient_id: str | None, accession: str | None, uids: Iterable[str], now: datetime
) -> CaseRow:
    """Return the case of an order: its own, the one that its images began (by accession or study UID), or a new one."""
    row = session.exec(select(CaseRow).where(CaseRow.order_id == order_id)).first()
    for waiting in _waiting_images(session, accession, uids):
        if row is None:
            row = waiting
        elif waiting.id != row.id:
            _absorb(session, row, waiting)
    if row is None:
        row = CaseRow(id=secrets.token_hex(8), since=now)
    row.order_id, row.patient_id = order_id, row.patient_id or patient_id
    taken = (
        accession and session.exec(select(CaseRow).where(CaseRow.accession == accession, CaseRow.id != row.id)).first()
    )
    if not taken:
        row.accession = accession
    session.add(row)
    session.flush()
    link(session, [f"ServiceRequest/{order_id}", *map(uid_name, uids)], row.id)
    return row


def _waiting_images(session: Session, accession: str | None, uids: Iterable[str]) -> list[CaseRow]:
    """Return the cases without an order that hold images of this accession number or these study UIDs."""
    found = linked_cases(session, map(uid_name, uids))
    same = col(CaseRow.accession) == accession if accession else sa.false()
    return list(
        session.exec(select(CaseRow).where(sa.or_(same, col(CaseRow.id).in_(found)), col(CaseRow.order_id).is_(None)))
    )


def _absorb(session: Session, row: CaseRow, other: CaseRow) -> None:
    """Move what stands in a case of waiting images into the case of their order."""
    moved = session.exec(select(LinkRow.reference).where(LinkRow.case_id == other.id)).all()
    session.execute(sa.delete(LinkRow).where(col(LinkRow.case_id) == other.id))
    session.execute(sa.update(StepRow).where(col(StepRow.case_id) == other.id).values(case_id=row.id))
    session.delete(other)
    session.flush()
    link(session, moved, row.id)


def case_of_images(
    session: Session, reference: str, accession: str | None, uids: Iterable[str], now: datetime
) -> set[str]:
    """Return the case of images: by accession number, else by study UID, else the one that they have; begins one where there is none."""
    row = session.exec(select(CaseRow).where(CaseRow.accession == accession)).first() if accession else None
    found = {row.id} if row is not None and row.order_id else linked_cases(session, map(uid_name, uids))
    found = found or ({row.id} if row is not None else linked_cases(session, [reference]))
    if not found:
        row = CaseRow(id=secrets.token_hex(8), accession=accession, since=now)
        session.add(row)
        session.flush()
        found = {row.id}
    for case_id in found:
        link(session, [reference, *map(uid_name, uids)], case_id)
    return found


def uid_name(uid: str) -> str:
    """Return how a study UID stands among the links."""
    return f"uid:{uid}"


def link(session: Session, references: Iterable[str], case_id: str) -> None:
    """Remember that resources belong to a case; they may belong to others as well."""
    rows = [value for reference in sorted(set(references)) for value in (reference, case_id)]
    if rows:
        places = ", ".join(["(?, ?)"] * (len(rows) // 2))
        statement = f"INSERT INTO case_link (reference, case_id) VALUES {places} ON CONFLICT DO NOTHING"  # noqa: S608
        driver_of(session.connection()).rows(statement, rows)


def linked_cases(session: Session, references: Iterable[str], *, open_only: bool = False) -> set[str]:
    """Return the cases to which any of these resources belongs; with `open_only` those that are still under way."""
    wanted = list(references)
    if not wanted:
        return set()
    query = f"SELECT case_id FROM case_link WHERE reference IN ({marks(len(wanted))})"  # noqa: S608
    found = driver_of(session.connection()).rows(f"{query} AND case_id IN ({_OPEN})" if open_only else query, wanted)
    return {case_id for (case_id,) in found}


_OPEN = f"SELECT id FROM journey_case WHERE stage NOT IN ({', '.join(repr(stage) for stage in ENDED)})"  # noqa: S608


def links_of(session: Session, case_id: str, resource_type: str) -> list[str]:
    """Return the references of one type that belong to a case."""
    rows = driver_of(session.connection()).rows("SELECT reference FROM case_link WHERE case_id = ?", (case_id,))
    return sorted(reference for (reference,) in rows if reference.startswith(f"{resource_type}/"))


def is_woken(session: Session, case_id: str, now: datetime) -> bool:
    """Return whether somebody has asked for a case to be looked at, and nobody has begun."""
    return WORK.has_ready(session, ADVANCE, f"case:{case_id}", now)


def take_up(session: Session, case_id: str, version: int, now: datetime) -> None:
    """Take the request for a look from the line: a worker that holds the case looks at it from now on.

    Raises:
        Later: Another worker has brought the case forward, so that the request is that one's.
    """
    fence(session, case_id, version)
    jobs, keys = WORK.jobs, WORK.keys
    asked = sa.select(jobs.c.id).join(keys, keys.c.job_id == jobs.c.id)
    asked = asked.where(keys.c.key == f"case:{case_id}", keys.c.open, jobs.c.kind == ADVANCE, jobs.c.state == READY)
    found = list(session.execute(asked.where(jobs.c.due <= now)).scalars())
    session.execute(sa.update(jobs).where(jobs.c.id.in_(found), jobs.c.state == READY).values(state=DONE))
    session.execute(sa.update(keys).where(keys.c.job_id.in_(found)).values(open=False))


def wake(session: Session, case_id: str, now: datetime, due: datetime | None = None, mark: str = "") -> None:
    """Ask for a case to be looked at: now, or at a later time (once a mark and time)."""
    if due is None:
        if not is_woken(session, case_id, now):
            WORK.enqueue(session, ADVANCE, now=now, keys=[f"case:{case_id}"], payload={"case": case_id})
        return
    WORK.enqueue(
        session, TIMER, now=now, payload={"case": case_id}, due=due, dedupe=f"{case_id}:{mark}:{due.isoformat()}"
    )


def answers(row: CaseRow) -> dict[str, Answered]:
    """Return what the rooms have answered for a case."""
    return {name: _answered(one) for name, one in json.loads(row.answers).items()}


def _answered(one: Mapping[str, Any]) -> Answered:
    # An older version of this room has written no `again`.
    again = datetime.fromisoformat(one["again"]) if one.get("again") else None
    return Answered(one["fingerprint"], datetime.fromisoformat(one["at"]), one["given_up"], again)


def fence(session: Session, case_id: str, version: int) -> None:
    """Count one more write of a worker to a case.

    Raises:
        Later: Another worker has written since this version was read: what this one knows is out of date.
    """
    statement = "UPDATE journey_case SET version = ? WHERE id = ? AND version = ? RETURNING id"
    if not driver_of(session.connection()).rows(statement, (version + 1, case_id, version)):
        raise Later(_STALE_S, "another worker has brought this case forward")


def take_over(session: Session, case_id: str) -> None:
    """Make every version that another worker has read of a case out of date."""
    session.execute(
        sa.update(CaseRow)
        .where(col(CaseRow.id) == case_id)
        .values(version=col(CaseRow.version) + 1)
        .execution_options(synchronize_session=False)
    )


def take_turn(session: Session, name: str, holder: str, now: datetime, seconds: float) -> bool:
    """Take or keep the turn for something that one replica at a time does; False while another one has it."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    until = now + timedelta(seconds=seconds)
    table: Any = TurnRow.__table__  # type: ignore[attr-defined]
    statement = (
        insert(table)
        .values(name=name, holder=holder, until=until)
        .on_conflict_do_update(
            index_elements=["name"], set_={"holder": holder, "until": until},
            where=sa.or_(table.c.until <= now, table.c.holder == holder),
        )
        .returning(table.c.holder)
    )  # fmt: skip
    return session.execute(statement).scalar_one_or_none() is not None


def has_turn(session: Session, name: str, holder: str) -> bool:
    """Say whether it still is this one's turn, and keep it so until the transaction ends."""
    row = session.exec(select(TurnRow).where(TurnRow.name == name).with_for_update()).first()
    return row is not None and row.holder == holder


def end_turn(session: Session, name: str, holder: str) -> None:
    """Give a turn back."""
    session.execute(sa.delete(TurnRow).where(col(TurnRow.name) == name, col(TurnRow.holder) == holder))


def save_answer(session: Session, case_id: str, name: str, answer: Answered) -> None:
    """Remember an answer."""
    row = session.get_one(CaseRow, case_id)
    row.answers = json.dumps(as_mapping({**answers(row), name: answer}))
    session.add(row)


def note(
    session: Session, case_id: str, stage: str, at: datetime, text: str, *, source: str = "", mark: str | None = None
) -> None:
    """Write a step; a mark that stands already is not written twice."""
    _steps(session, [(case_id, stage, "note", at, text, source, mark)])


def reach(session: Session, case_id: str, reached: Mapping[str, tuple[datetime, str]]) -> None:
    """Write the stages that a case has reached; each once."""
    _steps(session, [
        (case_id, stage, "stage", at, "", source, f"{case_id}:stage:{stage}") for stage, (at, source) in reached.items()
    ])  # fmt: skip


def _steps(session: Session, rows: Sequence[tuple[str, str, str, datetime, str, str, str | None]]) -> None:
    """Write steps in one statement; one whose mark stands already is left out."""
    if not rows:
        return
    driver = driver_of(session.connection())
    places = ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * len(rows))
    statement = f"INSERT INTO step ({_STEP}) VALUES {places} ON CONFLICT (mark) DO NOTHING"  # noqa: S608 - names of our own
    driver.rows(statement, [driver.instant(v) if isinstance(v, datetime) else v for row in rows for v in row])


_STEP = "case_id, stage, kind, at, note, source, mark"


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


def forgive(session: Session, case_id: str) -> None:
    """Set aside what failed for a case: it was brought forward since."""
    jobs, keys = WORK.jobs, WORK.keys
    of_case = sa.select(keys.c.job_id).where(keys.c.key == f"case:{case_id}")
    session.execute(
        sa.update(jobs)
        .where(jobs.c.state == PARKED, jobs.c.id.in_(of_case))
        .values(state=DISCARDED, reason="done by a later try")
    )


def overdue(session: Session, now: datetime, most: int) -> tuple[list[CaseRow], int]:
    """Return cases that stand in their stage for longer than they may or that a person must look at, oldest first, and how many."""
    late = sa.or_(col(CaseRow.due) < now, col(CaseRow.held) != "")
    total = session.exec(select(sa.func.count()).select_from(CaseRow).where(late)).one()
    rows = session.exec(select(CaseRow).where(late).order_by(col(CaseRow.since)).limit(most)).all()
    return list(rows), total
