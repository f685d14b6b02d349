"""Changes that come together are written together: one call of the database's writer, and one commit, for all that waited.

SQLite only: there, the way to its one writer costs more than a change itself. PostgreSQL has several writers and groups commits by itself.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError

from arcuate.kernel.db import Database
from arcuate.record.driver import driver_of
from arcuate.record.store import Unit

T = TypeVar("T")
Work = Callable[[Unit], Any]

_MOST = 256


class _Asked(NamedTuple):
    """A change that waits; `alone`: it reads, or writes in steps, so it needs a savepoint."""

    work: Work
    alone: bool
    done: asyncio.Future[Any]


class Writes:
    """The way to the database's writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Asked] = []
        self._running: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[Unit], T], *, alone: bool = True) -> T:
        """Run a change, all or nothing, and return its result after the commit.

        Args:
            alone: False for a change that reads nothing and collects all that it writes as its last step (a plain create).

        Raises:
            IntegrityError: A race was lost.
            StorageFault: The commit failed or its outcome is unknown.
        """
        if not self._database.is_sqlite:
            return await self._database.write(lambda session: _one(Unit(driver_of(session.connection())), work))
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Asked(work, alone, done))
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
                await self._write([one for one in batch if not one.done.done()])  # who gave up needs no change
        finally:
            self._running = None

    async def _write(self, batch: Sequence[_Asked]) -> None:
        try:
            outcomes = await self._database.write(lambda session: _each(Unit(driver_of(session.connection())), batch))
        except Exception as error:  # noqa: BLE001 - each of those who wait is told
            outcomes = [(None, error)] * len(batch)
        for asked, (result, problem) in zip(batch, outcomes, strict=True):
            if asked.done.done():
                continue
            if problem is None:
                asked.done.set_result(result)
            else:
                asked.done.set_exception(problem)


def _one(unit: Unit, work: Callable[[Unit], T]) -> T:
    result = work(unit)
    unit.flush()
    return result


def _each(unit: Unit, batch: Sequence[_Asked]) -> list[tuple[Any, Exception | None]]:
    """Run each; the failure of one leaves the others untouched, a failing store fails all."""
    outcomes: list[tuple[Any, Exception | None]] = []
    for asked in batch:
        if asked.alone:
            unit.flush()
            outcomes.append(_in_savepoint(unit, asked.work))
        else:
            try:
                outcomes.append((asked.work(unit), None))
            except DBAPIError:
                raise
            except Exception as error:  # noqa: BLE001 - handed to the caller that waits; nothing of it was collected
                outcomes.append((None, error))
    unit.flush()
    return outcomes


def _in_savepoint(unit: Unit, work: Work) -> tuple[Any, Exception | None]:
    unit.driver.rows("SAVEPOINT change")
    outcome: tuple[Any, Exception | None]
    try:
        outcome = _one(unit, work), None
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError):
            raise
        unit.driver.rows("ROLLBACK TO change")
        unit.forget()
        outcome = None, error
    unit.driver.rows("RELEASE change")
    return outcome
