"""Statements on the database driver itself: what is asked and written most costs a tenth there of what it costs through SQLAlchemy.

Statements are written with `?`; psycopg gets `%s`. They run in the transaction of a connection or session that is open already. Errors
look as SQLAlchemy's do, so that a lost race (`IntegrityError`) and a failing store (`DBAPIError`) mean the same everywhere.

Many rows belong into one statement (`insert`): on SQLite every step of a statement lets go of the interpreter's lock and waits for it
again, while the database's write lock is held and others wait for that.
"""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol, cast

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

_MOST_VALUES = 8_000  # of one statement; SQLite takes 32,766, PostgreSQL 65,535


class Driver(Protocol):
    """A connection in the middle of a transaction."""

    sqlite: bool

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows; none when it gives none."""
        ...

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        ...

    def numbers(self, table: str, count: int) -> Sequence[int]:
        """Return so many new values, rising, for the column `id` of a table, which the database numbers."""
        ...

    def instant(self, value: datetime | None) -> Any:
        """Return an aware time in the form in which a column of type `UtcDateTime` keeps it."""
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
            raise as_sqlalchemy(error) from None

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each of these."""
        try:
            self.raw.executemany(statement, values)
        except sqlite3.Error as error:
            raise as_sqlalchemy(error) from None

    def numbers(self, table: str, count: int) -> Sequence[int]:
        """Return the numbers behind the highest one; whoever asks holds the one write lock."""
        [(last,)] = self.rows(f"SELECT coalesce(max(id), 0) FROM {table}")  # noqa: S608 - a name of our own
        return range(last + 1, last + 1 + count)

    def instant(self, value: datetime | None) -> Any:
        """Return naive UTC as text."""
        return None if value is None else sqlite_instant(value)


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

    def numbers(self, table: str, count: int) -> Sequence[int]:
        """Return the next numbers of the column's sequence."""
        asked = "SELECT nextval(pg_get_serial_sequence(?, 'id')) FROM generate_series(1, ?)"
        return sorted(int(row[0]) for row in self.rows(asked, (table, count)))

    def instant(self, value: datetime | None) -> Any:
        """Return it as it is."""
        return value


def driver_of(connection: Connection) -> Driver:
    """Return the driver below a connection, in the same transaction."""
    if connection.dialect.name == "sqlite":
        return SqliteDriver(cast(sqlite3.Connection, connection.connection.driver_connection))
    return PostgresDriver(connection)


def sqlite_instant(value: datetime) -> str:
    """Return an aware time as a column of type `UtcDateTime` keeps it in SQLite: naive UTC."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def instant_of(value: Any) -> datetime:
    """Return the aware time that a column of type `UtcDateTime` keeps, as either driver gives it."""
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    assert isinstance(found, datetime)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def insert(driver: Driver, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows, many in one statement."""
    most = max(1, _MOST_VALUES // len(columns))
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        statement = _insert(table, tuple(columns), len(part))
        driver.rows(statement, [value for row in part for value in row])


def marks(count: int) -> str:
    """Return so many question marks for a list of values."""
    return ", ".join("?" * count)


@lru_cache(512)
def _insert(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({marks(len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"  # noqa: S608 - names of our own


@lru_cache(512)
def _for_psycopg(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def as_sqlalchemy(error: sqlite3.Error) -> DBAPIError:
    """Return an error of the module sqlite3 as SQLAlchemy would raise it; neither statement nor values go along: patient data."""
    kind = IntegrityError if isinstance(error, sqlite3.IntegrityError) else OperationalError
    return kind("", (), error)


def is_disc_error(error: sqlite3.Error) -> bool:
    """Say whether reading, writing or flushing the file itself failed (SQLITE_IOERR and its kinds)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR
