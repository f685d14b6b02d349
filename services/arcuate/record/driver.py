"""Statements on the database driver itself: what is asked and written most costs a tenth there of what it costs through SQLAlchemy.

Statements are written with `?`; psycopg gets `%s`. On SQLite, the record keeps reading connections of its own, because to check one out
costs more than to ask it; what is written runs on the connection of the one writer. Errors look as SQLAlchemy's do, so that a lost race
(`IntegrityError`) and a failing store (`DBAPIError`) mean the same everywhere.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from arcuate.kernel.db import Database
from arcuate.kernel.errors import StorageFault

T = TypeVar("T")

_READERS = 4


class Driver(Protocol):
    """A connection in the middle of a transaction."""

    sqlite: bool

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; none when it gives none."""
        ...

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        ...


class SqliteDriver:
    """Statements on a connection of the module sqlite3."""

    sqlite = True

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        try:
            return self.raw.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _as_sqlalchemy(error) from None

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        try:
            self.raw.executemany(statement, values)
        except sqlite3.Error as error:
            raise _as_sqlalchemy(error) from None


class PostgresDriver:
    """Statements through SQLAlchemy's thin way to psycopg."""

    sqlite = False

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        result = self.connection.exec_driver_sql(_for_psycopg(statement), tuple(values))
        return [tuple(row) for row in result] if result.returns_rows else []

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        self.connection.exec_driver_sql(_for_psycopg(statement), [tuple(row) for row in values])


def driver_of(connection: Connection) -> Driver:
    """Return the driver below a connection, in the same transaction."""
    if connection.dialect.name == "sqlite":
        return SqliteDriver(cast(sqlite3.Connection, connection.connection.driver_connection))
    return PostgresDriver(connection)


@lru_cache(512)
def _for_psycopg(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _as_sqlalchemy(error: sqlite3.Error) -> DBAPIError:
    # Neither statement nor values go along: they can hold patient data.
    kind = IntegrityError if isinstance(error, sqlite3.IntegrityError) else OperationalError
    return kind("", (), error)


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
                raise _as_sqlalchemy(error) from None
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
