"""Runs the jobs of a room, several at a time."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from sqlmodel import Session

from arcuate.kernel.background import Loops
from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.db.database import Database
from arcuate.kernel.errors import ArcuateError, StorageFault
from arcuate.kernel.log import get_logger, origin
from arcuate.kernel.work.jobs import DONE, PARKED, READY, Apply, Handler, Job, Later, LeaseLost, Park
from arcuate.kernel.work.lease import Terms
from arcuate.kernel.work.table import WorkTable

_AWAY_S = 5.0  # until a job whose own database failed is tried again


def _default_backoff(attempt: int) -> float:
    return float(min(60.0, 0.5 * 4 ** (attempt - 1)))


class Worker:
    """Runs the jobs of a room, several at a time.

    Args:
        handlers: One a kind of job; each returns the function that writes its result, or None.
        lease_s: How long an attempt may take before another worker may take the job.
        tries: After so many failed attempts the job is parked.
        parallel: How many jobs run at once.
        loops: Where it is seen whether the worker still looks for work; None looks by itself.
        poll_s: How often to look for jobs that nobody announced (retries, other replicas), in real seconds.
    """

    def __init__(
        self, database: Database, table: WorkTable, clock: Clock, handlers: Mapping[str, Handler], *, lease_s: float = 30.0,
        tries: int = 3, parallel: int = 8, poll_s: float = 0.5, backoff: Callable[[int], float] = _default_backoff,
        name: str = "worker", loops: Loops | None = None,
    ) -> None:  # fmt: skip
        self._database, self._table, self._clock, self._handlers = database, table, clock, dict(handlers)
        self._lease_s, self._tries, self._parallel, self._poll_s, self._backoff = (
            lease_s,
            tries,
            parallel,
            poll_s,
            backoff,
        )
        # A clock of the test's own stands still for the database.
        self._shared_clock = isinstance(clock, SystemClock) and not database.is_sqlite
        self._wake = asyncio.Event()
        self._in_hand: set[int] = set()
        self._loops = loops or Loops(name)
        self._log = get_logger(name)

    def wake(self) -> None:
        """Say that a job may have been enqueued."""
        self._wake.set()

    def run(self) -> AbstractAsyncContextManager[None]:
        """Work in the background until the context is left; jobs in hand are finished or given back."""
        return self._loops.run(f"work on {', '.join(self._handlers)}", self._forever)

    async def drain(self) -> int:
        """Run everything that is due now, and what that makes due; returns how many attempts were made."""
        made = 0
        while jobs := await self._claim(self._parallel, idle=True):
            await asyncio.gather(*(self._attempt(job) for job in jobs))
            made += len(jobs)
        return made

    async def _claim(self, limit: int, *, idle: bool) -> list[Job]:
        terms = Terms(
            list(self._handlers), self._clock.now(), self._lease_s, limit, self._tries, idle, self._shared_clock,
            frozenset(self._in_hand),
        )  # fmt: skip
        if not await self._database.read(lambda s: self._table.any_due(s, terms)):
            return []
        return await self._database.write(lambda s: self._table.claim(s, terms))

    async def _forever(self) -> None:
        running: set[asyncio.Task[None]] = set()
        alone = False
        claiming: asyncio.Future[list[Job]] | None = None
        try:
            while True:
                self._wake.clear()
                alone = alone and bool(running)
                free = 0 if alone else self._parallel - len(running)
                jobs: list[Job] = []
                try:
                    if free:
                        claiming = asyncio.ensure_future(self._claim(free, idle=not running))
                        jobs = await asyncio.shield(claiming)
                        claiming = None
                except ArcuateError as error:
                    claiming = None
                    self._log.warning("cannot look for work", reason=error.what)
                alone = alone or any(job.alone for job in jobs)
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
        self._in_hand.add(job.id)
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
        finally:
            self._in_hand.discard(job.id)

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
        except StorageFault as fault:  # no fault of the job: nothing is counted
            due, waits_for = self._clock.now() + timedelta(seconds=_AWAY_S), fault.what
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
            where=origin(error), outcome="parked" if tries >= self._tries else "again",
        )  # fmt: skip
        if tries >= self._tries:
            await self._park(job, reason)
            return
        due = self._clock.now() + timedelta(seconds=self._backoff(tries))
        await self._database.write(lambda s: self._table.finish(s, job, READY, reason=reason, due=due))
