"""Durable work: rows with lease, attempt number and backoff in the room's own database.

A job is enqueued in the transaction of the state that it follows. A worker leases it; when the handler is done, the function
that it returns runs in the same transaction that marks the job done, and only if the attempt number still is the worker's own
(fencing): a worker that was stuck past its lease can change nothing. Jobs that share a key run in order of their number.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session

from arcuate.kernel.db.driver import Driver, driver_of, insert, marks
from arcuate.kernel.db.types import UtcDateTime
from arcuate.kernel.errors import BadInput, Conflict, NotFound
from arcuate.kernel.work import lease
from arcuate.kernel.work.jobs import DISCARDED, LEASED, OPEN, PARKED, READY, Job, LeaseLost, NewJob, ParkedJob

_JOB = ("kind", "payload", "dedupe", "state", "attempt", "tries", "created", "due")
_KEY = ("job_id", "key", "open")
_ADD = f"INSERT INTO work ({', '.join(_JOB)}) VALUES ({marks(len(_JOB))}) ON CONFLICT (dedupe) DO NOTHING RETURNING id"  # noqa: S608
_FINISH = (
    "UPDATE work SET state = ?, reason = ?, lease_until = NULL, due = coalesce(?, due), tries = tries + ? "  # noqa: S608
    f"WHERE id = ? AND attempt = ? AND state = '{LEASED}' RETURNING id"
)


class WorkTable:
    """The tables `work` and `work_key` of a room, and the statements on them."""

    def __init__(self, metadata: sa.MetaData) -> None:
        self.jobs = sa.Table(
            "work", metadata,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
            sa.Column("kind", sa.String, nullable=False),
            sa.Column("payload", sa.Text, nullable=False),
            sa.Column("dedupe", sa.String, unique=True),
            sa.Column("state", sa.String, nullable=False),
            sa.Column("attempt", sa.Integer, nullable=False),
            sa.Column("tries", sa.Integer, nullable=False),
            sa.Column("created", UtcDateTime, nullable=False),
            sa.Column("due", UtcDateTime, nullable=False),
            sa.Column("lease_until", UtcDateTime),
            sa.Column("reason", sa.String),
            sa.Column("changed_by", sa.String),
            sa.Index("ix_work_state_due", "state", "due"),
        )  # fmt: skip
        self.keys = sa.Table(
            "work_key", metadata,
            sa.Column("job_id", sa.Integer, sa.ForeignKey("work.id", ondelete="CASCADE"), primary_key=True),
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("open", sa.Boolean, nullable=False),
            sa.Index("ix_work_key_open", "key", "open", "job_id"),
        )  # fmt: skip

    def enqueue(
        self, session: Session, kind: str, *, now: datetime, keys: Sequence[str] = (),
        payload: Mapping[str, Any] | None = None, due: datetime | None = None, dedupe: str | None = None,
    ) -> int | None:  # fmt: skip
        """Add a job in the caller's transaction; returns its number, or None if `dedupe` stands already."""
        driver = driver_of(session.connection())
        added = driver.rows(_ADD, _row(driver, kind, payload, dedupe, now, due))
        if not added:
            return None
        number: int = added[0][0]
        insert(driver, "work_key", _KEY, [(number, key, True) for key in sorted(set(keys))])
        return number

    def enqueue_all(self, driver: Driver, new: Sequence[NewJob]) -> None:
        """Add jobs in this order, in the transaction of the driver and in a few statements."""
        if not new:
            return
        numbers = driver.numbers("work", len(new))
        insert(driver, "work", ("id", *_JOB), [
            (number, *_row(driver, one.kind, one.payload, None, one.now, None)) for number, one in zip(numbers, new, strict=True)
        ])  # fmt: skip
        held = [(number, key, True) for number, one in zip(numbers, new, strict=True) for key in sorted(set(one.keys))]
        insert(driver, "work_key", _KEY, held)

    def has_ready(self, session: Session, kind: str, key: str, now: datetime) -> bool:
        """Return whether a job of this kind and key waits that no worker has begun: one more would do the same."""
        jobs, keys = self.jobs, self.keys
        query = (
            sa.select(jobs.c.id)
            .join(keys, keys.c.job_id == jobs.c.id)
            .where(keys.c.key == key, keys.c.open, jobs.c.kind == kind, jobs.c.state == READY, jobs.c.due <= now)
        )
        return session.execute(query.limit(1)).first() is not None

    def any_due(self, session: Session, terms: lease.Terms) -> bool:
        """Return whether a job is due, whether or not an earlier one of its keys still holds it back."""
        return lease.any_due(driver_of(session.connection()), terms)

    def claim(self, session: Session, terms: lease.Terms) -> list[Job]:
        """Lease due jobs (see `lease`)."""
        return lease.claim(driver_of(session.connection()), terms)

    def finish(
        self,
        session: Session,
        job: Job,
        state: str,
        *,
        reason: str | None = None,
        due: datetime | None = None,
        tried: bool = True,
    ) -> None:
        """Write the outcome of an attempt.

        Raises:
            LeaseLost: The attempt is no longer the current one.
        """
        driver = driver_of(session.connection())
        values = (state, reason, driver.instant(due), int(tried), job.id, job.attempt)
        changed = driver.rows(_FINISH, values)
        if not changed:
            raise LeaseLost("The lease of this job has passed to another worker", where=f"job {job.id}")
        if state not in OPEN and job.keys:
            driver.rows(lease.CLOSE, (False, job.id))

    def tries(self, session: Session, job_id: int) -> int:
        """Return how many attempts have failed."""
        return session.execute(sa.select(self.jobs.c.tries).where(self.jobs.c.id == job_id)).scalar_one()

    def parked(self, session: Session) -> list[ParkedJob]:
        """Return the jobs that wait for a person, oldest first."""
        rows = session.execute(
            sa.select(self.jobs).where(self.jobs.c.state == PARKED).order_by(self.jobs.c.id)
        ).mappings()
        return [ParkedJob(r["id"], r["kind"], json.loads(r["payload"]), r["reason"] or "", r["due"]) for r in rows]

    def replay(
        self, session: Session, job_id: int, *, now: datetime, by: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        """Give a parked job a new round of tries; a second replay of the same parking is a Conflict naming who was first."""
        values: dict[str, Any] = {
            "state": READY,
            "tries": 0,
            "due": now,
            "changed_by": f"{by} at {now:%Y-%m-%d %H:%M:%S}Z",
            "reason": None,
        }
        if payload is not None:
            values["payload"] = json.dumps(dict(payload))
        self._leave_parking(session, job_id, values)
        session.execute(sa.update(self.keys).where(self.keys.c.job_id == job_id).values(open=True))

    def discard(self, session: Session, job_id: int, *, now: datetime, by: str, reason: str) -> None:
        """Set a parked job aside for good, with the reason."""
        if not reason.strip():
            raise BadInput("A job is set aside only with a reason", where="reason")
        self._leave_parking(
            session, job_id, {"state": DISCARDED, "reason": reason, "changed_by": f"{by} at {now:%Y-%m-%d %H:%M:%S}Z"}
        )

    def _leave_parking(self, session: Session, job_id: int, values: dict[str, Any]) -> None:
        changed = session.execute(
            sa.update(self.jobs).where(self.jobs.c.id == job_id, self.jobs.c.state == PARKED).values(**values)
        )
        if changed.rowcount != 1:  # type: ignore[attr-defined]
            row = session.execute(
                sa.select(self.jobs.c.state, self.jobs.c.changed_by).where(self.jobs.c.id == job_id)
            ).first()
            if row is None:
                raise NotFound("There is no such job", where=f"job {job_id}")
            raise Conflict(
                f"The job is no longer parked: {row.state}, last changed by {row.changed_by or 'a worker'}",
                where=f"job {job_id}",
            )

    def counts(self, session: Session) -> dict[str, int]:
        """Return how many jobs stand in each state."""
        rows = session.execute(sa.select(self.jobs.c.state, sa.func.count()).group_by(self.jobs.c.state)).all()
        return {row[0]: row[1] for row in rows}


def _row(
    driver: Driver,
    kind: str,
    payload: Mapping[str, Any] | None,
    dedupe: str | None,
    now: datetime,
    due: datetime | None,
) -> tuple[Any, ...]:
    created = driver.instant(now)
    return kind, json.dumps(dict(payload or {})), dedupe, READY, 0, 0, created, driver.instant(due) if due else created
