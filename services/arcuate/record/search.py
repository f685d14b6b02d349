"""Searches run: pages that hold still, what comes along, how many there are; none runs longer than it may."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, func, or_, select

from arcuate.record.conditions import MANY, TABLES, Conditions
from arcuate.record.domain import Stored
from arcuate.record.indexing import Indexer
from arcuate.record.query import Include, Search, Sort
from arcuate.record.store import CURRENT
from arcuate.record.tables import DATE, NUMBER, REFERENCE, RESOURCE, STRING, TOKEN, VERSION

_LOWEST = -(2**63)
_STEPS = 4  # of :iterate


@dataclass(frozen=True)
class Hit:
    """A stored resource that a search found; `keys` are its sort values."""

    number: int
    resource_type: str
    id: str
    version: int
    patient: str | None
    body: str
    keys: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Position:
    """Where a page begins: behind these sort values and number, among what was there at the first page."""

    keys: tuple[Any, ...]
    number: int
    newest: int


@dataclass(frozen=True)
class Page:
    """One page of matches, what comes along with them, and where the next page begins."""

    matches: list[Hit]
    included: list[Hit]
    following: Position | None
    total: int | None


class Searcher:
    """Runs searches in a transaction."""

    def __init__(self, connection: Connection, indexer: Indexer) -> None:
        self._connection = connection
        self._conditions = Conditions(connection, indexer)

    def matching(self, search: Search, limit: int) -> list[Stored]:
        """Return at most so many matches."""
        identity = _identity(search)
        if identity is not None:
            rows = self._connection.execute(_BY_IDENTITY, {**identity, "most": limit})
        else:
            rows = self._connection.execute(CURRENT.where(self._conditions.of(search)).limit(limit))
        return [Stored(*row) for row in rows]

    def count(self, search: Search) -> int:
        """Return how many match."""
        statement = select(func.count()).select_from(RESOURCE).where(self._conditions.of(search))
        return int(self._connection.execute(statement).scalar_one())

    def found(self, search: Search, position: Position | None = None) -> Page:
        """Return one page, or the number alone where no more was asked."""
        if search.count_only:
            return Page([], [], None, self.count(search))
        return self.page(search, position)

    def page(self, search: Search, position: Position | None = None) -> Page:
        """Return one page; a row that was there at the first page comes exactly once, however others change."""
        found = self._found(search, position)
        matches, more = found[: search.count], len(found) > search.count
        following = None
        if more:
            # Rows that are created from here on have higher numbers, and later pages leave them out.
            newest = position.newest if position else self._newest()
            following = Position(matches[-1].keys, matches[-1].number, newest)
        total = len(matches) if not more and position is None else self.count(search) if search.total else None
        return Page(matches, self._included(search.includes, matches), following, total)

    def _found(self, search: Search, position: Position | None) -> list[Hit]:
        identity = _identity(search) if position is None and not search.sorts else None
        if identity is not None:
            return [
                _hit(row) for row in self._connection.execute(_PAGE_BY_IDENTITY, {**identity, "most": search.count + 1})
            ]
        keys = [_sort_key(sort) for sort in search.sorts]
        statement = _selected(*keys).where(self._conditions.of(search))
        if position is not None:
            statement = statement.where(RESOURCE.c.number <= position.newest, _behind(keys, search.sorts, position))
        order = [key.desc() if sort.descending else key.asc() for key, sort in zip(keys, search.sorts, strict=True)]
        statement = statement.order_by(*order, RESOURCE.c.number.asc()).limit(search.count + 1)
        return [_hit(row) for row in self._connection.execute(statement)]

    def _newest(self) -> int:
        return int(self._connection.execute(select(func.max(VERSION.c.seq))).scalar() or 0)

    def _included(self, includes: Sequence[Include], matches: Sequence[Hit]) -> list[Hit]:
        found: dict[int, Hit] = {}
        fresh: Sequence[Hit] = matches
        for depth in range(_STEPS if any(include.iterate for include in includes) else 1):
            asked = [include for include in includes if include.iterate or depth == 0]
            known = {match.number for match in matches} | found.keys()
            brought = {
                hit.number: hit for include in asked for hit in self._brought(include, fresh) if hit.number not in known
            }
            found |= brought
            fresh = list(brought.values())
            if not fresh or len(found) >= MANY:
                break
        return list(found.values())

    def _brought(self, include: Include, hits: Sequence[Hit]) -> list[Hit]:
        if include.reverse:
            by_type: dict[str, list[Hit]] = {}
            for hit in hits:
                by_type.setdefault(hit.resource_type, []).append(hit)
            groups = list(by_type.values())
        else:
            groups = [[hit for hit in hits if hit.resource_type == include.parameter.resource_type]]
        return [
            _hit(row)
            for group in groups
            if group
            for row in self._connection.execute(_include(include, group).limit(MANY))
        ]


def _selected(*keys: ColumnElement[Any]) -> Select[Any]:
    return select(
        RESOURCE.c.number, RESOURCE.c.type, RESOURCE.c.id, RESOURCE.c.version, RESOURCE.c.patient,
        VERSION.c.body, *keys,
    ).join(VERSION, VERSION.c.seq == RESOURCE.c.seq)  # fmt: skip


def _by_identity(selected: Select[Any]) -> Select[Any]:
    return (
        selected.join(TOKEN, TOKEN.c.number == RESOURCE.c.number)
        .where(
            TOKEN.c.param == bindparam("param"), TOKEN.c.code == bindparam("code"), TOKEN.c.system == bindparam("system"),
            RESOURCE.c.deleted.is_(False),
        )
        .order_by(RESOURCE.c.number)
        .limit(bindparam("most"))
    )  # fmt: skip


_BY_IDENTITY = _by_identity(CURRENT)
_PAGE_BY_IDENTITY = _by_identity(_selected())


def _identity(search: Search) -> dict[str, str] | None:
    """Return the parts of a search by one `system|value`, the question that doors ask most: its statement stands ready."""
    if len(search.terms) != 1 or search.ids or search.updated or search.has:
        return None
    term = search.terms[0]
    if term.modifier or term.chained or term.parameter.kind != "token" or len(term.values) != 1:
        return None
    value = term.values[0]
    if value.any_code or value.system is None:
        return None
    return {"param": term.parameter.key, "code": value.text, "system": value.system}


def _hit(row: Any) -> Hit:
    return Hit(row.number, row.type, row.id, row.version, row.patient, row.body, tuple(row)[6:])


def _include(include: Include, matches: Sequence[Hit]) -> Select[Any]:
    key = include.parameter.key
    if include.reverse:
        target_type = matches[0].resource_type
        refers = select(REFERENCE.c.number).where(
            REFERENCE.c.param == key, REFERENCE.c.target_type == target_type,
            REFERENCE.c.target_id.in_([match.id for match in matches]),
        )  # fmt: skip
        return _selected().where(RESOURCE.c.number.in_(refers), RESOURCE.c.deleted.is_(False))
    statement = _selected().join(
        REFERENCE,
        and_(REFERENCE.c.target_type == RESOURCE.c.type, REFERENCE.c.target_id == RESOURCE.c.id),
    )
    if include.target_type:
        statement = statement.where(RESOURCE.c.type == include.target_type)
    return statement.where(
        REFERENCE.c.param == key, REFERENCE.c.number.in_([match.number for match in matches]),
        RESOURCE.c.deleted.is_(False),
    )  # fmt: skip


def _sort_key(sort: Sort) -> ColumnElement[Any]:
    """Return what a sort compares; a resource without a value stands first in ascending order."""
    if sort.parameter is None:
        return RESOURCE.c.id if sort.name == "_id" else RESOURCE.c.updated
    table = TABLES[sort.parameter.kind]
    column: Any = {TOKEN: TOKEN.c.code, REFERENCE: REFERENCE.c.target_id, DATE: DATE.c.low, STRING: STRING.c.text,
                   NUMBER: NUMBER.c.value}[table]  # fmt: skip
    pick = func.max if sort.descending else func.min
    value = (
        select(pick(column))
        .where(table.c.number == RESOURCE.c.number, table.c.param == sort.parameter.key)
        .correlate(RESOURCE)
        .scalar_subquery()
    )
    return func.coalesce(value, _LOWEST if table in (DATE, NUMBER) else "")


def _behind(keys: Sequence[ColumnElement[Any]], sorts: Sequence[Sort], position: Position) -> ColumnElement[bool]:
    """Return the condition for rows after a position: later in the first key, or equal there and later in the next."""
    alternatives: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for key, sort, value in zip(keys, sorts, position.keys, strict=True):
        alternatives.append(and_(*equal, key < value if sort.descending else key > value))
        equal.append(key == value)
    alternatives.append(and_(*equal, RESOURCE.c.number > position.number))
    return or_(*alternatives)
