"""Reads on the database driver itself (`arcuate.kernel.db.driver`).

On SQLite, the record keeps reading connections of its own, because to check one out costs more than to ask it; what is written runs on
the connection of the one writer.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from arcuate.kernel.db import Database
from arcuate.kernel.db.driver import Driver, PostgresDriver, SqliteDriver, as_sqlalchemy, driver_of
from arcuate.kernel.errors import StorageFault

__all__ = ["Driver", "Readers", "SqliteDriver", "driver_of"]

T = TypeVar("T")

_READERS = 4


class Readers:
    """Reads of the record's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._path = make_url(database.url).database or ""
        self._own = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="record-read")

    async def read(self, fn: Callable[[Driver], T]) -> T:
        """Run `fn` in a reader thread on a snapshot.

        Raises:
            StorageFault: The database does not answer.
        """
        if not self._database.is_sqlite:
            return await self._database.read(lambda session: fn(PostgresDriver(session.connection())))
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._snapshot, fn)

    async def by_key(self, fn: Callable[[Driver], T]) -> T:
        """Run one statement that finds its row by a key.

        On SQLite a thread would cost more than the question, and readers of a WAL wait for nobody.

        Raises:
            StorageFault: The database does not answer.
        """
        if not self._database.is_sqlite:
            return await self.read(fn)
        try:
            return fn(self._driver())
        except DBAPIError as error:
            raise _fault(error) from error

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown()
        while self._opened:
            self._opened.pop().close()

    def _snapshot(self, fn: Callable[[Driver], T]) -> T:
        try:
            driver = self._driver()
            with _transaction(driver):
                return fn(driver)
        except DBAPIError as error:
            raise _fault(error) from error

    def _driver(self) -> SqliteDriver:
        """Return this thread's own connection."""
        found: SqliteDriver | None = getattr(self._own, "driver", None)
        if found is None:
            try:
                raw = sqlite3.connect(self._path, timeout=15, isolation_level=None, check_same_thread=False)
                raw.execute("PRAGMA query_only=ON")
            except sqlite3.Error as error:
                raise as_sqlalchemy(error) from None
            self._opened.append(raw)
            found = self._own.driver = SqliteDriver(raw)
        return found


@contextlib.contextmanager
def _transaction(driver: SqliteDriver) -> Iterator[None]:
    driver.rows("BEGIN")
    try:
        yield
    finally:
        if driver.raw.in_transaction:
            driver.raw.rollback()


def _fault(error: DBAPIError) -> StorageFault:
    # The driver's text can hold values of the row: only its class is named.
    return StorageFault(f"The database does not answer ({type(error.orig).__name__})", todo="Ask again later.")
