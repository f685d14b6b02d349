"""One room's database.

SQLite: one writer thread begins IMMEDIATE, runs all functions that waited, each in its own savepoint, and commits once: that one
fsync is shared by everybody who came meanwhile. PostgreSQL: a few threads, one transaction a function; the server groups the commits.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlmodel import Session

from arcuate.kernel.db.driver import is_disc_error
from arcuate.kernel.errors import StorageFault

T = TypeVar("T")
Work = Callable[[Session], Any]

_BATCH = 512
_READERS = 4
_WRITERS = 6
_RETRIED = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected


class Database:
    """Reads and writes of one room.

    Args:
        url: `sqlite:///path/room.db` or `postgresql+psycopg://user@host/name`.
        schema: PostgreSQL schema of the room; SQLite ignores it.
    """

    def __init__(self, url: str, schema: str | None = None) -> None:
        self.url = url
        self.schema = schema
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self._closed = False
        if self.is_sqlite:
            self._engine = _sqlite_engine(url, "BEGIN IMMEDIATE", 1)
            self._read_engine = _sqlite_engine(url, "BEGIN", _READERS)
        else:
            self._engine = self._read_engine = _postgres_engine(url, schema)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"read-{schema or 'db'}")
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix=f"write-{schema or 'db'}")
        self._waiting: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._lock = threading.Lock()

    def migrate(self, package: ModuleType | str) -> None:
        """Bring the schema to the newest revision of the room's Alembic history (`PACKAGE/migrations/versions`)."""
        from arcuate.kernel.db.migrate import (
            upgrade,  # a process that migrates nothing (the HL7 door) starts without Alembic
        )

        upgrade(self._engine, package, self.schema)

    async def read(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a reader thread on a snapshot; nothing that it changes is kept."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_sync, fn)

    async def write(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a transaction and return its result after the commit.

        Raises:
            StorageFault: The commit failed or its outcome is unknown.
        """
        return await asyncio.wrap_future(self._submit(fn))

    def read_sync(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` on a snapshot in this thread."""
        try:
            with Session(self._read_engine, expire_on_commit=False) as session:
                return fn(session)
        except IntegrityError:
            raise
        except (DBAPIError, NoConnection) as error:
            raise _storage_fault(error) from error

    def write_sync(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a transaction and wait for its commit."""
        return self._submit(fn).result()

    def close(self) -> None:
        """Finish what was begun and close all connections."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._writer is not None:
            self._waiting.put(None)
            self._writer.join()
        self._readers.shutdown()
        self._writers.shutdown()
        self._engine.dispose()
        self._read_engine.dispose()

    def _submit(self, fn: Callable[[Session], T]) -> "Future[T]":
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.set_exception(StorageFault("The database is closed"))
                return future
            if self.is_sqlite:
                if self._writer is None or not self._writer.is_alive():
                    self._writer = threading.Thread(target=self._write_forever, name="writer", daemon=True)
                    self._writer.start()
                self._waiting.put((fn, future))
                return future
        return self._writers.submit(self._write_alone, fn)

    def _write_alone(self, fn: Callable[[Session], T]) -> T:
        for attempt in range(3):
            try:
                with Session(self._engine, expire_on_commit=False) as session:
                    result = fn(session)
                    session.commit()
                    return result
            except IntegrityError:
                raise
            except DBAPIError as error:
                if attempt == 2 or getattr(error.orig, "sqlstate", None) not in _RETRIED:
                    raise _storage_fault(error) from error
            except NoConnection as error:
                raise _storage_fault(error) from error
        raise AssertionError("unreachable")

    def _write_forever(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < _BATCH:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    last = True
                    break
                batch.append(item)
            self._write_batch([item for item in batch if item[1].set_running_or_notify_cancel()])
            if last:
                return

    def _write_batch(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._engine.connect() as connection, connection.begin():
                for fn, future in batch:
                    outcomes.append((future, *_in_savepoint(connection, fn)))
        except BaseException as error:  # noqa: BLE001 - the only writer must outlive whatever happens in one batch
            fault = _storage_fault(error) if isinstance(error, DBAPIError) else error
            if _is_disc_error(error):
                self._engine.dispose()  # what a failed flush has left behind is not known: the next one goes through a new handle
            for _, future in batch:
                future.set_exception(fault)
            return
        for future, result, problem in outcomes:
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(problem)


def _in_savepoint(connection: Connection, fn: Work) -> tuple[Any, BaseException | None]:
    """Run one function; its own failure leaves the others of the batch untouched, a storage failure is raised."""
    try:
        with Session(connection, join_transaction_mode="create_savepoint", expire_on_commit=False) as session:
            result = fn(session)
            session.commit()
            return result, None
    except IntegrityError as error:
        return None, error
    except DBAPIError:
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller that waits for this function
        return None, error


def _sqlite_engine(url: str, begin: str, connections: int) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url, pool_size=connections, max_overflow=connections, connect_args={"timeout": 15, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we begin by ourselves, see below
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=15000",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgres_engine(url: str, schema: str | None) -> Engine:
    options = "-c statement_timeout=30000 -c lock_timeout=15000"
    if schema:
        options += f" -c search_path={schema}"
    engine = create_engine(
        url,
        pool_size=_WRITERS + _READERS,
        max_overflow=4,
        pool_pre_ping=True,
        pool_timeout=5,
        connect_args={"options": options},
    )
    if schema:
        with contextlib.closing(engine.connect()) as connection:
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            connection.commit()
    return engine


def _is_disc_error(error: BaseException) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else None
    return isinstance(cause, sqlite3.Error) and is_disc_error(cause)


def _storage_fault(error: DBAPIError | NoConnection) -> StorageFault:
    # The driver's text can hold values of the row: only its class is named.
    cause = error.orig if isinstance(error, DBAPIError) else None
    kind = type(cause or error).__name__
    return StorageFault(f"The database did not keep the change ({kind})", todo="Send it again later.")
