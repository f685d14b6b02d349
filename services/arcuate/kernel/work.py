"""Durable work: rows with lease, attempt number and backoff in the room's own database.

A job is enqueued in the transaction of the state that it follows. A worker leases it; when the handler is done, the function
that it returns runs in the same transaction that marks the job done, and only if the attempt number still is the worker's own
(fencing): a worker that was stuck past its lease can change nothing. Jobs that share a key run in order of their number.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session

from arcuate.kernel.background import background
from arcuate.kernel.clock import Clock
from arcuate.kernel.db.database import Database
from arcuate.kernel.db.driver import Driver, driver_of, insert, instant_of, marks
from arcuate.kernel.db.types import UtcDateTime
from arcuate.kernel.errors import ArcuateError, BadInput, Conflict, NotFound
from arcuate.kernel.log import get_logger

T = TypeVar("T")

READY, LEASED, DONE, PARKED, DISCARDED = "ready", "leased", "done", "parked", "discarded"
_OPEN = (READY, LEASED)
_JOB = ("kind", "payload", "dedupe", "state", "attempt", "tries", "created", "due")
_KEY = ("job_id", "key", "open")
_ADD = f"INSERT INTO work ({', '.join(_JOB)}) VALUES ({marks(len(_JOB))}) ON CONFLICT (dedupe) DO NOTHING RETURNING id"  # noqa: S608
# One question for each state: each is answered in the order of an index, so that a long line costs no more than a short one.
_DUE = (f"state = '{LEASED}' AND lease_until <= ?", f"state = '{READY}' AND due <= ?")
_FREE = (
    " AND NOT EXISTS (SELECT 1 FROM work_key mine JOIN work_key other ON other.key = mine.key AND other.open = TRUE "
    "AND other.job_id < mine.job_id WHERE mine.job_id = work.id)"
)  # no earlier open job has one of its keys
_KEYS_OF = "SELECT job_id, key FROM work_key WHERE job_id IN ({}) ORDER BY job_id, key"
_LEASE = (
    f"UPDATE work SET state = '{LEASED}', attempt = attempt + 1, lease_until = ? WHERE id IN ({{}}) "  # noqa: S608
    "RETURNING id, kind, payload, attempt, created"
)
_FINISH = (
    "UPDATE work SET state = ?, reason = ?, lease_until = NULL, due = coalesce(?, due), tries = tries + ? "  # noqa: S608
    f"WHERE id = ? AND attempt = ? AND state = '{LEASED}' RETURNING id"
)
_CLOSE = "UPDATE work_key SET open = ? WHERE job_id = ?"


class Park(ArcuateError):
    """Give this job up at once; a person must look at it. The message is the reason that the person reads."""

    status, issue_type = 422, "business-rule"


class Later(ArcuateError):
    """Come back to this job after some seconds, without using up a try."""

    status, issue_type = 503, "transient"

    def __init__(self, seconds: float, waits_for: str) -> None:
        super().__init__(waits_for)
        self.seconds = seconds


class LeaseLost(Conflict):
    """Another worker has taken the job since; nothing was written."""


@dataclass(frozen=True)
class Job:
    """One leased job."""

    id: int
    kind: str
    keys: tuple[str, ...]
    payload: dict[str, Any]
    attempt: int
    first_due: datetime


@dataclass(frozen=True)
class NewJob:
    """One job to enqueue."""

    kind: str
    now: datetime
    keys: tuple[str, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParkedJob:
    """One job that waits for a person."""

    id: int
    kind: str
    payload: dict[str, Any]
    reason: str
    parked_at: datetime


Apply = Callable[[Session], Any]
Handler = Callable[[Job], Awaitable[Apply | None]]


def _default_backoff(attempt: int) -> float:
    return float(min(60.0, 0.5 * 4 ** (attempt - 1)))


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

    def any_due(self, session: Session, kinds: Sequence[str], now: datetime) -> bool:
        """Return whether a job is due, whether or not an earlier one of its keys still holds it back."""
        driver = driver_of(session.connection())
        values = (driver.instant(now), *kinds, 1)
        return any(driver.rows(_find(due, "", len(kinds)), values) for due in _DUE)

    def claim(self, session: Session, kinds: Sequence[str], now: datetime, lease_s: float, limit: int) -> list[Job]:
        """Lease up to `limit` due jobs whose keys have no earlier open job: first those whose lease ran out, then as they fell due."""
        driver = driver_of(session.connection())
        at, until = driver.instant(now), driver.instant(now + timedelta(seconds=lease_s))
        free = "" if driver.sqlite else " FOR UPDATE SKIP LOCKED"
        found: list[int] = []
        for due in _DUE:
            if limit > len(found):
                asked = _find(due, _FREE, len(kinds)) + free
                found += [row[0] for row in driver.rows(asked, (at, *kinds, limit - len(found)))]
        if not found:
            return []
        held: dict[int, list[str]] = {number: [] for number in found}
        for number, key in driver.rows(_KEYS_OF.format(marks(len(found))), found):
            held[number].append(key)
        leased = driver.rows(_LEASE.format(marks(len(found))), (until, *found))
        return [
            Job(number, kind, tuple(held[number]), json.loads(payload), attempt, instant_of(created))
            for number, kind, payload, attempt, created in sorted(leased)
        ]

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
        if state not in _OPEN and job.keys:
            driver.rows(_CLOSE, (False, job.id))

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


class Worker:
    """Runs the jobs of a room, several at a time.

    Args:
        handlers: One a kind of job; each returns the function that writes its result, or None.
        lease_s: How long an attempt may take before another worker may take the job.
        tries: After so many failed attempts the job is parked.
        parallel: How many jobs run at once.
        poll_s: How often to look for jobs that nobody announced (retries, other replicas), in real seconds.
    """

    def __init__(
        self, database: Database, table: WorkTable, clock: Clock, handlers: Mapping[str, Handler], *, lease_s: float = 30.0,
        tries: int = 3, parallel: int = 8, poll_s: float = 0.5, backoff: Callable[[int], float] = _default_backoff,
        name: str = "worker",
    ) -> None:  # fmt: skip
        self._database, self._table, self._clock, self._handlers = database, table, clock, dict(handlers)
        self._lease_s, self._tries, self._parallel, self._poll_s, self._backoff = (
            lease_s,
            tries,
            parallel,
            poll_s,
            backoff,
        )
        self._wake = asyncio.Event()
        self._log = get_logger(name)

    def wake(self) -> None:
        """Say that a job may have been enqueued."""
        self._wake.set()

    def run(self) -> AbstractAsyncContextManager[None]:
        """Work in the background until the context is left; jobs in hand are finished or given back."""
        return background(self._forever())

    async def drain(self) -> int:
        """Run everything that is due now, and what that makes due; returns how many attempts were made."""
        made = 0
        while jobs := await self._claim(self._parallel):
            await asyncio.gather(*(self._attempt(job) for job in jobs))
            made += len(jobs)
        return made

    async def _claim(self, limit: int) -> list[Job]:
        now, kinds = self._clock.now(), list(self._handlers)
        if not await self._database.read(lambda s: self._table.any_due(s, kinds, now)):
            return []
        return await self._database.write(lambda s: self._table.claim(s, kinds, now, self._lease_s, limit))

    async def _forever(self) -> None:
        running: set[asyncio.Task[None]] = set()
        claiming: asyncio.Future[list[Job]] | None = None
        try:
            while True:
                self._wake.clear()
                free = self._parallel - len(running)
                jobs: list[Job] = []
                try:
                    if free:
                        claiming = asyncio.ensure_future(self._claim(free))
                        jobs = await asyncio.shield(claiming)
                        claiming = None
                except ArcuateError as error:
                    claiming = None
                    self._log.warning("cannot look for work", reason=error.what)
                for job in jobs:
                    task = asyncio.create_task(self._attempt(job))
                    running.add(task)
                    task.add_done_callback(self._done(running))
                if not jobs:
                    # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the wake-up.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_s):
                            await self._wake.wait()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if claiming is not None:
                # A claim may commit after the stop: what it took would else wait for its lease to run out.
                with contextlib.suppress(ArcuateError):
                    for job in await claiming:
                        await self._give_back(job)

    def _done(self, running: set[asyncio.Task[None]]) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            running.discard(task)
            self._wake.set()

        return done

    async def _attempt(self, job: Job) -> None:
        try:
            await self._run(job)
        except asyncio.CancelledError:
            await self._give_back(job)
            raise
        except LeaseLost as error:
            self._log.warning("lease lost", job=job.id, kind=job.kind, reason=error.what)
        except ArcuateError as error:
            # The outcome could not be written: the lease runs out and another attempt follows.
            self._log.warning("outcome not written", job=job.id, kind=job.kind, reason=error.what)

    async def _give_back(self, job: Job) -> None:
        """Leave a job that was stopped before its end to the next worker, at once; one that ended meanwhile stays ended."""
        with contextlib.suppress(ArcuateError):
            await self._database.write(lambda s: self._table.finish(s, job, READY, tried=False))

    async def _run(self, job: Job) -> None:
        try:
            async with asyncio.timeout(self._lease_s * 0.9):
                apply = await self._handlers[job.kind](job)
            await self._database.write(lambda s: self._complete(s, job, apply))
        except LeaseLost:
            raise
        except Park as park:
            await self._park(job, str(park))
        except Later as later:
            due, waits_for = self._clock.now() + timedelta(seconds=later.seconds), later.what
            await self._database.write(
                lambda s: self._table.finish(s, job, READY, reason=waits_for, due=due, tried=False)
            )
        except Exception as error:  # noqa: BLE001 - the edge of a worker: every failure becomes a retry or a parked job
            await self._failed(job, error)

    def _complete(self, session: Session, job: Job, apply: Apply | None) -> None:
        self._table.finish(session, job, DONE)
        if apply is not None:
            apply(session)

    async def _park(self, job: Job, reason: str) -> None:
        now = self._clock.now()
        await self._database.write(lambda s: self._table.finish(s, job, PARKED, reason=reason, due=now))
        self._log.warning("job parked", job=job.id, kind=job.kind)

    async def _failed(self, job: Job, error: Exception) -> None:
        tries = 1 + await self._database.read(lambda s: self._table.tries(s, job.id))
        reason = str(error) if isinstance(error, ArcuateError) else f"{type(error).__name__} in {job.kind}"
        self._log.warning(
            "job failed", job=job.id, kind=job.kind, tries=tries, error=type(error).__name__,
            where=_origin(error), outcome="parked" if tries >= self._tries else "again",
        )  # fmt: skip
        if tries >= self._tries:
            await self._park(job, reason)
            return
        due = self._clock.now() + timedelta(seconds=self._backoff(tries))
        await self._database.write(lambda s: self._table.finish(s, job, READY, reason=reason, due=due))


def _find(due: str, free: str, kinds: int) -> str:
    """The question for the first due jobs of one state; its values are the time, the kinds and how many."""
    return f"SELECT id FROM work WHERE {due} AND kind IN ({marks(kinds)}){free} ORDER BY due, id LIMIT ?"  # noqa: S608 - our own


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


def _origin(error: BaseException) -> str:
    """Return file and line where an error was raised; never its text, which could hold patient data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno}" if trace is not None else ""
