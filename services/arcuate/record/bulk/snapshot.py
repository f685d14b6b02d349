"""What an export contains: the newest version of each resource at one feed number; no copy is made of anything.

Versions never change, so the same feed number gives the same lines today and tomorrow, on every replica, whatever is written meanwhile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, select, update

from arcuate.kernel.errors import NotFound
from arcuate.record import store
from arcuate.record.driver import driver_of
from arcuate.record.indexing import micros_of
from arcuate.record.tables import EXPORT, RESOURCE, VERSION


@dataclass(frozen=True)
class Export:
    """One export that was asked for.

    Attributes:
        url: The request, for the manifest.
        seq: The feed number that it stands at.
        types: Types to export.
        since: Only what changed at or after this, in microseconds; None for all.
        patients: Only what is about these patients; None for all, () for any patient.
        owner: Who asked; nobody else sees it.
        counts: Lines of each type; None while they are counted.
    """

    id: str
    url: str
    at: int
    seq: int
    types: tuple[str, ...]
    since: int | None
    patients: tuple[str, ...] | None
    owner: str
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Line:
    """One exported resource."""

    seq: int
    body: str


def begin(connection: Connection, asked: Export, now: datetime, kept_since: int) -> Export:
    """Keep an export at the newest feed number, and forget those that are too old."""
    connection.execute(delete(EXPORT).where(EXPORT.c.at < kept_since))
    made = Export(
        asked.id,
        asked.url,
        micros_of(now),
        store.last_seq(driver_of(connection)),
        asked.types,
        asked.since,
        asked.patients,
        asked.owner,
    )
    said = json.dumps({"types": made.types, "since": made.since, "patients": made.patients})
    row = {"id": made.id, "url": made.url, "at": made.at, "seq": made.seq, "asked": said, "owner": made.owner}
    connection.execute(insert(EXPORT), [row])
    return made


def load(connection: Connection, export_id: str, owner: str, kept_since: int) -> Export:
    """Return an export.

    Raises:
        NotFound: There is none of this caller, or it is too old.
    """
    row = connection.execute(select(EXPORT).where(EXPORT.c.id == export_id, EXPORT.c.at >= kept_since)).first()
    if row is None or row.owner != owner:
        raise NotFound("There is no such export, or its time is over", todo="Ask for a new one.")
    asked = json.loads(row.asked)
    patients = asked["patients"]
    return Export(
        row.id, row.url, row.at, row.seq, tuple(asked["types"]), asked["since"], None if patients is None else tuple(patients),
        row.owner, json.loads(row.counts) if row.counts else None,
    )  # fmt: skip


def forget(connection: Connection, export_id: str) -> None:
    """Forget an export."""
    connection.execute(delete(EXPORT).where(EXPORT.c.id == export_id))


def count(connection: Connection, export: Export) -> dict[str, int]:
    """Return how many lines each type has."""
    statement = select(VERSION.c.type, func.count()).where(_stands(export, export.types)).group_by(VERSION.c.type)
    return {str(row[0]): int(row[1]) for row in connection.execute(statement)}


def keep_counts(connection: Connection, export: Export, counts: Mapping[str, int]) -> None:
    """Keep the counts: the export is ready."""
    connection.execute(update(EXPORT).where(EXPORT.c.id == export.id).values(counts=json.dumps(dict(counts))))


def lines(connection: Connection, export: Export, resource_type: str, after: int, limit: int) -> list[Line]:
    """Return the next lines of a type in feed order."""
    statement = (
        select(VERSION.c.seq, VERSION.c.body)
        .where(_stands(export, (resource_type,)), VERSION.c.seq > after)
        .order_by(VERSION.c.seq)
        .limit(limit)
    )
    return [Line(*row) for row in connection.execute(statement)]


def _stands(export: Export, types: Sequence[str]) -> ColumnElement[bool]:
    version, newer = VERSION.c, VERSION.alias().c
    replaced = exists().where(
        newer.type == version.type,
        newer.id == version.id,
        newer.version == version.version + 1,
        newer.seq <= export.seq,
    )
    parts: list[ColumnElement[bool]] = [
        version.type.in_(types), version.seq <= export.seq, version.body.is_not(None), ~replaced,
    ]  # fmt: skip
    if export.since is not None:
        parts.append(version.updated >= export.since)
    if export.patients is not None:
        state = RESOURCE.c
        about = exists().where(state.type == version.type, state.id == version.id, state.patient.is_not(None))
        if export.patients:
            about = exists().where(
                state.type == version.type, state.id == version.id, state.patient.in_(export.patients)
            )
        parts.append(about)
    return and_(*parts)
