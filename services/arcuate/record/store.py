"""Queries of the record; each takes the session of a running transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, insert, select, text, update
from sqlmodel import Session, col

from arcuate.record.domain import Stored
from arcuate.record.indexing import IndexRows
from arcuate.record.tables import (
    INDEXES,
    AnswerRow,
    ClaimRow,
    DateRow,
    NumberRow,
    ReferenceRow,
    ResourceRow,
    SecretRow,
    StringRow,
    TokenRow,
    VersionRow,
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
    """The rows that one transaction writes, collected so that each table is written once."""

    versions: list[dict[str, Any]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    indexes: dict[int, IndexRows] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)


def lock(session: Session) -> None:
    """Let one writer of this record after the other, until its commit: feed numbers then appear in commit order.

    SQLite has one writer anyway. The lock is taken before anything is read, so that what is read is committed.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key, hashtext(current_schema()))"), {"key": _LOCK})


def last_seq(session: Session) -> int:
    """Return the newest feed number."""
    return int(session.execute(select(func.max(col(VersionRow.seq)))).scalar() or 0)


def current(session: Session, resource_type: str, logical_id: str) -> Stored | None:
    """Return a resource as it stands, deleted or not; None when there never was one."""
    row = session.execute(
        _CURRENT.where(col(ResourceRow.type) == resource_type, col(ResourceRow.id) == logical_id)
    ).first()
    return Stored(*row) if row else None


def by_number(session: Session, number: int) -> Stored:
    """Return the resource with that number."""
    return Stored(*session.execute(_CURRENT.where(col(ResourceRow.number) == number)).one())


_CURRENT = select(
    col(ResourceRow.number), col(ResourceRow.type), col(ResourceRow.id), col(ResourceRow.version), col(ResourceRow.updated),
    col(ResourceRow.patient), col(VersionRow.body),
).join(VersionRow, col(VersionRow.seq) == col(ResourceRow.seq))  # fmt: skip

_VERSION = select(
    col(VersionRow.seq), col(VersionRow.type), col(VersionRow.id), col(VersionRow.version), col(VersionRow.updated),
    col(VersionRow.method), col(VersionRow.body),
)  # fmt: skip


def version(session: Session, resource_type: str, logical_id: str, number: int) -> Version | None:
    """Return one version of a resource."""
    row = session.execute(
        _VERSION.where(
            col(VersionRow.type) == resource_type, col(VersionRow.id) == logical_id, col(VersionRow.version) == number
        )
    ).first()
    return Version(*row) if row else None


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


def history(session: Session, part: HistoryPart) -> list[Version]:
    """Return versions in feed order, or newest first."""
    statement = _VERSION
    seq = col(VersionRow.seq)
    if part.types:
        statement = statement.where(col(VersionRow.type).in_(part.types))
    if part.logical_id is not None:
        statement = statement.where(col(VersionRow.id) == part.logical_id)
    if part.after is not None:
        statement = statement.where(seq > part.after)
    if part.before is not None:
        statement = statement.where(seq < part.before)
    if part.since is not None:
        statement = statement.where(col(VersionRow.updated) >= part.since)
    statement = statement.order_by(seq.asc() if part.oldest_first else seq.desc()).limit(part.limit)
    return [Version(*row) for row in session.execute(statement)]


def write(session: Session, batch: Batch) -> None:
    """Write what a transaction collected."""
    for table, rows in ((VersionRow, batch.versions), (ResourceRow, batch.created)):
        if rows:
            session.execute(insert(_core(table)), rows)
    for row in batch.changed:
        session.execute(update(_core(ResourceRow)).where(col(ResourceRow.number) == row["number"]).values(**row))
    if batch.changed:
        numbers = [row["number"] for row in batch.changed]
        for index in INDEXES:
            session.execute(delete(index).where(col(index.number).in_(numbers)))
    _write_indexes(session, batch.indexes)
    for claim in batch.claims:
        # The search found nothing under this condition, so an older claim on it is stale.
        session.execute(delete(ClaimRow).where(col(ClaimRow.criteria) == claim["criteria"]))
    if batch.claims:
        session.execute(insert(_core(ClaimRow)), batch.claims)


def _write_indexes(session: Session, indexes: dict[int, IndexRows]) -> None:
    tables: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
        (TokenRow, [
            {"param": p, "code": c, "system": s, "number": n} for n, rows in indexes.items() for p, c, s in rows.tokens
        ]),
        (ReferenceRow, [
            {"param": p, "target_type": t, "target_id": i, "number": n}
            for n, rows in indexes.items() for p, t, i in rows.references
        ]),
        (DateRow, [
            {"param": p, "low": a, "high": z, "number": n} for n, rows in indexes.items() for p, a, z in rows.dates
        ]),
        (StringRow, [
            {"param": p, "text": t, "number": n} for n, rows in indexes.items() for p, t in rows.strings
        ]),
        (NumberRow, [
            {"param": p, "value": v, "system": s, "code": c, "number": n}
            for n, rows in indexes.items() for p, v, s, c in rows.numbers
        ]),
    )  # fmt: skip
    for table, rows in tables:
        if rows:
            session.execute(insert(_core(table)), rows)


def _core(table: Any) -> Any:
    """Return the plain table: inserts by way of the mapper cost several times as much."""
    return table.__table__


def release(session: Session, numbers: Iterable[int]) -> None:
    """Give up the conditions under which deleted resources were created."""
    session.execute(delete(ClaimRow).where(col(ClaimRow.number).in_(list(numbers))))


def answer(session: Session, source: str) -> str | None:
    """Return the first answer to a transaction of that source."""
    return session.execute(select(col(AnswerRow.body)).where(col(AnswerRow.source) == source)).scalar()


def keep_answer(session: Session, source: str, body: str, at: int) -> None:
    """Keep the first answer to a transaction of that source."""
    session.execute(insert(_core(AnswerRow)), [{"source": source, "body": body, "at": at}])


def secret(session: Session, name: str, fresh: str) -> str:
    """Return a key of this record, keeping the fresh one when there is none yet."""
    lock(session)
    row = session.get(SecretRow, name)
    if row is None:
        row = SecretRow(name=name, value=fresh)
        session.add(row)
        session.flush()
    return row.value
