"""Changes that come together are written together: one call of the database's writer, and one commit, for all that waited.

SQLite only: there, the way to its one writer costs more than a change itself. PostgreSQL has several writers and groups commits by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from arcuate.kernel.db import Database
from arcuate.record.driver import Driver, driver_of

T = TypeVar("T")
Work = Callable[[Driver], Any]

_MOST = 256


class Writes:
    """The way to the database's writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[Driver], T]) -> T:
        """Run a change, all or nothing, and return its result after the commit.

        Raises:
            IntegrityError: A race was lost.
            StorageFault: The commit failed or its outcome is unknown.
        """
        if not self._database.is_sqlite:
            return await self._database.write(lambda session: work(driver_of(session.connection())))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, done))
        if self._running is None:
            self._running = loop.create_task(self._go())
        return await done

    async def settle(self) -> None:
        """Return when nothing waits any more."""
        while self._running is not None:
            await asyncio.shield(self._running)

    async def _go(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._write([one for one in batch if not one[1].done()])  # who gave up needs no change
        finally:
            self._running = None

    async def _write(self, batch: Sequence[tuple[Work, "asyncio.Future[Any]"]]) -> None:
        works = [work for work, _ in batch]
        try:
            outcomes = await self._database.write(lambda session: _each(driver_of(session.connection()), works))
        except Exception as error:  # noqa: BLE001 - each of those who wait is told
            outcomes = [(None, error)] * len(batch)
        for (_, done), (result, problem) in zip(batch, outcomes, strict=True):
            if done.done():
                continue
            if problem is None:
                done.set_result(result)
            else:
                done.set_exception(problem)


def _each(driver: Driver, works: Sequence[Work]) -> list[tuple[Any, Exception | None]]:
    """Run each in a savepoint of its own: its failure leaves the others untouched; a failing store fails all."""
    outcomes: list[tuple[Any, Exception | None]] = []
    for work in works:
        driver.rows("SAVEPOINT change")
        try:
            outcomes.append((work(driver), None))
        except Exception as error:
            if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
                raise
            driver.rows("ROLLBACK TO change")
            outcomes.append((None, error))
        driver.rows("RELEASE change")
    return outcomes
