"""Queries of the record; each takes the connection of a running transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, select, text, update

from arcuate.record.domain import Stored
from arcuate.record.indexing import IndexRows
from arcuate.record.tables import (
    ANSWER,
    CLAIM,
    DATE,
    INDEXES,
    NUMBER,
    REFERENCE,
    RESOURCE,
    SECRET,
    STRING,
    TOKEN,
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
        claims: Criteria and number.
    """

    versions: list[tuple[Any, ...]] = field(default_factory=list)
    created: list[tuple[Any, ...]] = field(default_factory=list)
    changed: list[tuple[Any, ...]] = field(default_factory=list)
    indexes: dict[int, IndexRows] = field(default_factory=dict)
    claims: list[tuple[str, int]] = field(default_factory=list)


def lock(connection: Connection) -> None:
    """Let one writer of this record after the other, until its commit: feed numbers then appear in commit order.

    SQLite has one writer anyway. The lock is taken before anything is read, so that what is read is committed.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key, hashtext(current_schema()))"), {"key": _LOCK})


def last_seq(connection: Connection) -> int:
    """Return the newest feed number."""
    return int(connection.execute(_LAST_SEQ).scalar() or 0)


def current(connection: Connection, resource_type: str, logical_id: str) -> Stored | None:
    """Return a resource as it stands, deleted or not; None when there never was one."""
    row = connection.exec_driver_sql(_current_text(connection.dialect.paramstyle), (resource_type, logical_id)).first()
    return Stored(*row) if row else None


@cache
def _current_text(paramstyle: str) -> str:
    """Return the statement as the driver takes it: this is the hot path."""
    statement = (
        "SELECT r.number, r.type, r.id, r.version, r.updated, r.patient, v.body FROM resource r JOIN version v ON v.seq = r.seq "
        "WHERE r.type = ? AND r.id = ?"
    )
    return statement if paramstyle == "qmark" else statement.replace("?", "%s")


def version(connection: Connection, resource_type: str, logical_id: str, number: int) -> Version | None:
    """Return one version of a resource."""
    row = connection.execute(_VERSION_BY_ID, {"type": resource_type, "id": logical_id, "version": number}).first()
    return Version(*row) if row else None


_R, _V = RESOURCE.c, VERSION.c

CURRENT = select(_R.number, _R.type, _R.id, _R.version, _R.updated, _R.patient, _V.body).join(VERSION, _V.seq == _R.seq)
"""Selects what `Stored` holds."""

_LAST_SEQ = select(func.max(_V.seq))
_VERSION = select(_V.seq, _V.type, _V.id, _V.version, _V.updated, _V.method, _V.body)
_VERSION_BY_ID = _VERSION.where(
    _V.type == bindparam("type"), _V.id == bindparam("id"), _V.version == bindparam("version")
)
_ANSWER = select(ANSWER.c.body).where(ANSWER.c.source == bindparam("source"))


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


def history(connection: Connection, part: HistoryPart) -> list[Version]:
    """Return versions in feed order, or newest first."""
    statement = _VERSION
    if part.types:
        statement = statement.where(_V.type.in_(part.types))
    if part.logical_id is not None:
        statement = statement.where(_V.id == part.logical_id)
    if part.after is not None:
        statement = statement.where(_V.seq > part.after)
    if part.before is not None:
        statement = statement.where(_V.seq < part.before)
    if part.since is not None:
        statement = statement.where(_V.updated >= part.since)
    statement = statement.order_by(_V.seq.asc() if part.oldest_first else _V.seq.desc()).limit(part.limit)
    return [Version(*row) for row in connection.execute(statement)]


def write(connection: Connection, batch: Batch) -> None:
    """Write what a transaction collected."""
    _insert(connection, VERSION, batch.versions)
    _insert(connection, RESOURCE, batch.created)
    if batch.changed:
        _update(connection, batch.changed)
    _insert(connection, TOKEN, [(*row, n) for n, rows in batch.indexes.items() for row in rows.tokens])
    _insert(connection, REFERENCE, [(*row, n) for n, rows in batch.indexes.items() for row in rows.references])
    _insert(connection, DATE, [(*row, n) for n, rows in batch.indexes.items() for row in rows.dates])
    _insert(connection, STRING, [(*row, n) for n, rows in batch.indexes.items() for row in rows.strings])
    _insert(connection, NUMBER, [(*row, n) for n, rows in batch.indexes.items() for row in rows.numbers])
    if batch.claims:
        # The search found nothing under these conditions, so an older claim on one of them is stale.
        connection.execute(delete(CLAIM).where(CLAIM.c.criteria.in_([criteria for criteria, _ in batch.claims])))
        _insert(connection, CLAIM, batch.claims)


def _update(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    names = [column.name for column in RESOURCE.columns]
    connection.execute(_UPDATE, [dict(zip([f"b_{name}" for name in names], row, strict=True)) for row in rows])
    numbers = [row[0] for row in rows]
    for index in INDEXES:
        connection.execute(delete(index).where(index.c.number.in_(numbers)))


_UPDATE = (
    update(RESOURCE)
    .where(_R.number == bindparam("b_number"))
    .values({c.name: bindparam(f"b_{c.name}") for c in RESOURCE.columns if c.name != "number"})
)


def _insert(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows whose values stand in the order of the table's columns, by the driver itself: this is the hot path."""
    if rows:
        connection.exec_driver_sql(_insert_text(table, connection.dialect.paramstyle), list(rows))


@cache
def _insert_text(table: Table, paramstyle: str) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    mark = "?" if paramstyle == "qmark" else "%s"
    return f'INSERT INTO "{table.name}" ({names}) VALUES ({", ".join([mark] * len(table.columns))})'  # noqa: S608


def release(connection: Connection, numbers: Iterable[int]) -> None:
    """Give up the conditions under which deleted resources were created."""
    connection.execute(delete(CLAIM).where(CLAIM.c.number.in_(list(numbers))))


def answer(connection: Connection, source: str) -> str | None:
    """Return the first answer to a transaction of that source."""
    return connection.execute(_ANSWER, {"source": source}).scalar()


def keep_answer(connection: Connection, source: str, body: str, at: int) -> None:
    """Keep the first answer to a transaction of that source."""
    _insert(connection, ANSWER, [(source, body, at)])


def secret(connection: Connection, name: str, fresh: str) -> str:
    """Return a key of this record, keeping the fresh one when there is none yet."""
    lock(connection)
    kept = connection.execute(select(SECRET.c.value).where(SECRET.c.name == name)).scalar()
    if kept is None:
        _insert(connection, SECRET, [(name, fresh)])
    return str(kept or fresh)
