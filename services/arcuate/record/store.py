"""Queries of the record; each runs in a transaction that its caller began."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from arcuate.record.domain import Stored
from arcuate.record.driver import Driver
from arcuate.record.indexing import IndexRows
from arcuate.record.tables import (
    ANSWER,
    CLAIM,
    INDEXES,
    RESOURCE,
    SECRET,
    VERSION,
)

_LOCK = 0x46484952  # "FHIR"


@dataclass(frozen=True)
class Version:
    """One version as history shows it; `body` is None for a deletion."""

    seq: int
    resource_type: str
    id: str
    version: int
    updated: int
    method: str
    body: str | None


@dataclass
class Batch:
    """The rows that one transaction writes, collected so that each table is written once.

    Attributes:
        versions: In the order of the columns of `version`.
        created, changed: In the order of the columns of `resource`.
        indexes: By the table's name, in the order of its columns.
        claims: Criteria and number.
    """

    versions: list[tuple[Any, ...]] = field(default_factory=list)
    created: list[tuple[Any, ...]] = field(default_factory=list)
    changed: list[tuple[Any, ...]] = field(default_factory=list)
    indexes: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {table.name: [] for table in INDEXES})
    claims: list[tuple[str, int]] = field(default_factory=list)

    def index(self, number: int, rows: IndexRows) -> None:
        """Add the index rows of a resource."""
        for name, found in (
            ("token_index", rows.tokens), ("reference_index", rows.references), ("date_index", rows.dates),
            ("string_index", rows.strings), ("number_index", rows.numbers),
        ):  # fmt: skip
            if found:
                self.indexes[name] += [(*row, number) for row in found]


class Unit:
    """Changes that are written together in one transaction: what they write is collected, and written before anything is read."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.batch = Batch()
        self._seq: int | None = None

    def next_seq(self) -> int:
        """Return the next feed number.

        Under the writer's lock (PostgreSQL) or in the one writer (SQLite) nobody else takes a number before the commit.
        """
        self._seq = (last_seq(self.driver) if self._seq is None else self._seq) + 1
        return self._seq

    def flush(self) -> None:
        """Write what was collected."""
        if self.batch.versions:
            batch, self.batch = self.batch, Batch()
            write(self.driver, batch)

    def forget(self) -> None:
        """Drop what was collected since the last flush: the transaction went back to it."""
        self.batch, self._seq = Batch(), None


def lock(driver: Driver) -> None:
    """Let one writer of this record after the other, until its commit: feed numbers then appear in commit order.

    SQLite has one writer anyway. The lock is taken before anything is read, so that what is read is committed.
    """
    if not driver.sqlite:
        driver.rows("SELECT pg_advisory_xact_lock(?, hashtext(current_schema()))", (_LOCK,))


def last_seq(driver: Driver) -> int:
    """Return the newest feed number."""
    return int(driver.rows("SELECT max(seq) FROM version")[0][0] or 0)


STORED = "SELECT r.number, r.type, r.id, r.version, r.updated, r.patient, v.body FROM resource r JOIN version v ON v.seq = r.seq"
"""Selects what `Stored` holds."""
_CURRENT = f"{STORED} WHERE r.type = ? AND r.id = ?"


def current(driver: Driver, resource_type: str, logical_id: str) -> Stored | None:
    """Return a resource as it stands, deleted or not; None when there never was one."""
    found = driver.rows(_CURRENT, (resource_type, logical_id))
    return Stored(*found[0]) if found else None


_VERSION = "SELECT seq, type, id, version, updated, method, body FROM version"


def version(driver: Driver, resource_type: str, logical_id: str, number: int) -> Version | None:
    """Return one version of a resource."""
    found = driver.rows(f"{_VERSION} WHERE type = ? AND id = ? AND version = ?", (resource_type, logical_id, number))
    return Version(*found[0]) if found else None


@dataclass(frozen=True)
class HistoryPart:
    """Which versions are wanted.

    Attributes:
        after, before: Feed numbers, both exclusive.
        since: Not older than this, in microseconds.
    """

    types: Sequence[str] = ()
    logical_id: str | None = None
    after: int | None = None
    before: int | None = None
    since: int | None = None
    oldest_first: bool = False
    limit: int = 50


def history(driver: Driver, part: HistoryPart) -> list[Version]:
    """Return versions in feed order, or newest first."""
    conditions: list[str] = []
    values: list[Any] = []
    if part.types:
        conditions.append(f"type IN ({marks(len(part.types))})")
        values += part.types
    for condition, value in (
        ("id = ?", part.logical_id), ("seq > ?", part.after), ("seq < ?", part.before), ("updated >= ?", part.since),
    ):  # fmt: skip
        if value is not None:
            conditions.append(condition)
            values.append(value)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = "ASC" if part.oldest_first else "DESC"
    found = driver.rows(f"{_VERSION}{where} ORDER BY seq {order} LIMIT ?", [*values, part.limit])
    return [Version(*row) for row in found]


def marks(number: int) -> str:
    """Return the places of so many values in a statement."""
    return ",".join("?" * number)


def write(driver: Driver, batch: Batch) -> None:
    """Write what a transaction collected."""
    _insert(driver, VERSION, batch.versions)
    _insert(driver, RESOURCE, batch.created)
    if batch.changed:
        _update(driver, batch.changed)
    for name, rows in batch.indexes.items():
        _insert_rows(driver, name, rows)
    if batch.claims:
        # The search found nothing under these conditions, so an older claim on one of them is stale.
        driver.many("DELETE FROM claim WHERE criteria = ?", [(criteria,) for criteria, _ in batch.claims])
        _insert(driver, CLAIM, batch.claims)


def _update(driver: Driver, rows: Sequence[tuple[Any, ...]]) -> None:
    driver.many(_UPDATE, [(*row[1:], row[0]) for row in rows])
    numbers = [(row[0],) for row in rows]
    for index in INDEXES:
        driver.many(f"DELETE FROM {index.name} WHERE number = ?", numbers)  # noqa: S608 - a name of ours


_UPDATE = (
    f"UPDATE resource SET {', '.join(f'{c.name} = ?' for c in RESOURCE.columns if c.name != 'number')} WHERE number = ?"  # noqa: S608
)


def _insert(driver: Driver, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of the table's columns."""
    _insert_rows(driver, table.name, rows)


def _insert_rows(driver: Driver, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows, several a statement: each step of one lets go of the interpreter's lock, and waits for it again.

    Few numbers of rows, so that the statements stand ready.
    """
    start = 0
    for count, statement in _INSERTS[name]:
        while len(rows) - start >= count:
            part = rows[start : start + count]
            driver.rows(statement, part[0] if count == 1 else [value for row in part for value in row])
            start += count


def _insert_text(table: Table, count: int) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    row = f"({marks(len(table.columns))})"
    return f'INSERT INTO "{table.name}" ({names}) VALUES {", ".join([row] * count)}'  # noqa: S608


_TOGETHER = (64, 16, 4, 1)
_INSERTS = {
    table.name: [(count, _insert_text(table, count)) for count in _TOGETHER]
    for table in (VERSION, RESOURCE, *INDEXES, CLAIM, ANSWER, SECRET)
}


def release(driver: Driver, numbers: Iterable[int]) -> None:
    """Give up the conditions under which deleted resources were created."""
    driver.many("DELETE FROM claim WHERE number = ?", [(number,) for number in numbers])


def answer(driver: Driver, source: str) -> str | None:
    """Return the first answer to a transaction of that source."""
    found = driver.rows("SELECT body FROM answer WHERE source = ?", (source,))
    return found[0][0] if found else None


def keep_answer(driver: Driver, source: str, body: str, at: int) -> None:
    """Keep the first answer to a transaction of that source."""
    _insert(driver, ANSWER, [(source, body, at)])


def secret(driver: Driver, name: str, fresh: str) -> str:
    """Return a key of this record, keeping the fresh one when there is none yet."""
    lock(driver)
    kept = driver.rows("SELECT value FROM secret WHERE name = ?", (name,))
    if not kept:
        _insert(driver, SECRET, [(name, fresh)])
    return str(kept[0][0] if kept else fresh)
