"""Searches run: pages that hold still, what comes along, how many there are; none runs longer than it may."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from arcuate.record.conditions import MANY, TABLES, Conditions, Part, all_of, any_of
from arcuate.record.domain import Stored
from arcuate.record.driver import Driver
from arcuate.record.indexing import Indexer
from arcuate.record.query import Include, Search, Sort
from arcuate.record.store import STORED, last_seq, marks

_LOWEST = -(2**63)
_STEPS = 4  # of :iterate

_SHOWN = "r.number, r.type, r.id, r.version, r.patient, v.body"
_FROM = "FROM resource r JOIN version v ON v.seq = r.seq"
_BY_IDENTITY = (
    " JOIN token_index i ON i.number = r.number WHERE i.param = ? AND i.code = ? AND i.system = ? AND r.deleted = ? "
    "ORDER BY r.number LIMIT ?"
)
_STORED_BY_IDENTITY = STORED + _BY_IDENTITY
_PAGE_BY_IDENTITY = f"SELECT {_SHOWN} {_FROM}{_BY_IDENTITY}"


class Hit(NamedTuple):
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

    def __init__(self, driver: Driver, indexer: Indexer) -> None:
        self._driver = driver
        self._conditions = Conditions(driver, indexer)

    def matching(self, search: Search, limit: int) -> list[Stored]:
        """Return at most so many matches."""
        identity = _identity(search)
        if identity is not None:
            return [Stored(*row) for row in self._driver.rows(_STORED_BY_IDENTITY, (*identity, False, limit))]
        condition = self._conditions.of(search)
        rows = self._driver.rows(f"{STORED} WHERE {condition.text} LIMIT ?", (*condition.values, limit))
        return [Stored(*row) for row in rows]

    def count(self, search: Search) -> int:
        """Return how many match."""
        condition = self._conditions.of(search)
        return int(self._driver.rows(f"SELECT count(*) FROM resource r WHERE {condition.text}", condition.values)[0][0])  # noqa: S608

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
            newest = position.newest if position else last_seq(self._driver)
            following = Position(matches[-1].keys, matches[-1].number, newest)
        total = len(matches) if not more and position is None else self.count(search) if search.total else None
        return Page(matches, self._included(search.includes, matches), following, total)

    def _found(self, search: Search, position: Position | None) -> list[Hit]:
        identity = _identity(search) if position is None and not search.sorts else None
        if identity is not None:
            return self._hits(Part(_PAGE_BY_IDENTITY, (*identity, False, search.count + 1)))
        keys = [_sort_key(sort) for sort in search.sorts]
        conditions = [self._conditions.of(search)]
        if position is not None:
            conditions.append(Part("r.number <= ?", (position.newest,)))
            conditions.append(_behind(keys, search.sorts, position))
        where = all_of(conditions)
        shown = "".join(f", {key.text} AS k{n}" for n, key in enumerate(keys))
        order = "".join(f"k{n} {'DESC' if sort.descending else 'ASC'}, " for n, sort in enumerate(search.sorts))
        statement = f"SELECT {_SHOWN}{shown} {_FROM} WHERE {where.text} ORDER BY {order}r.number LIMIT ?"
        values = (value for key in keys for value in key.values)
        return self._hits(Part(statement, (*values, *where.values, search.count + 1)))

    def _hits(self, statement: Part) -> list[Hit]:
        return [Hit._make((*row[:6], row[6:])) for row in self._driver.rows(statement.text, statement.values)]

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
        return [hit for group in groups if group for hit in self._hits(_include(include, group))]


def is_lookup(search: Search) -> bool:
    """Say whether a search is done with the rows that one key names, a page of them at most."""
    return _identity(search) is not None and not (search.sorts or search.includes or search.total or search.count_only)


def _identity(search: Search) -> tuple[str, str, str] | None:
    """Return key, code and system of a search by one `system|value`, the question that doors ask most: its statement stands ready."""
    if search.parts or len(search.terms) != 1 or search.ids or search.updated or search.has:
        return None
    term = search.terms[0]
    if term.modifier or term.chained or term.parameter.kind != "token" or len(term.values) != 1:
        return None
    value = term.values[0]
    if value.any_code or value.system is None:
        return None
    return term.parameter.key, value.text, value.system


def _include(include: Include, matches: Sequence[Hit]) -> Part:
    key, places = include.parameter.key, marks(len(matches))
    if include.reverse:
        refers = f"SELECT number FROM reference_index WHERE param = ? AND target_type = ? AND target_id IN ({places})"  # noqa: S608
        return Part(
            f"SELECT {_SHOWN} {_FROM} WHERE r.deleted = ? AND r.number IN ({refers}) LIMIT ?",
            (False, key, matches[0].resource_type, *(match.id for match in matches), MANY),
        )
    joined = f"{_FROM} JOIN reference_index i ON i.target_type = r.type AND i.target_id = r.id"
    restricted = " AND r.type = ?" if include.target_type else ""
    return Part(
        f"SELECT {_SHOWN} {joined} WHERE i.param = ? AND i.number IN ({places}) AND r.deleted = ?{restricted} LIMIT ?",
        (
            key, *(match.number for match in matches), False, *((include.target_type,) if include.target_type else ()), MANY,
        ),
    )  # fmt: skip


_COLUMNS = {
    "token_index": "code", "reference_index": "target_id", "date_index": "low", "string_index": "text", "number_index": "value",
}  # fmt: skip


def _sort_key(sort: Sort) -> Part:
    """Return what a sort compares; a resource without a value stands first in ascending order."""
    if sort.parameter is None:
        return Part("r.id" if sort.name == "_id" else "r.updated")
    table = TABLES[sort.parameter.kind]
    pick = "max" if sort.descending else "min"
    value = f"SELECT {pick}({_COLUMNS[table]}) FROM {table} i WHERE i.number = r.number AND i.param = ?"  # noqa: S608
    lowest = _LOWEST if table in ("date_index", "number_index") else ""
    return Part(f"coalesce(({value}), ?)", (sort.parameter.key, lowest))


def _behind(keys: Sequence[Part], sorts: Sequence[Sort], position: Position) -> Part:
    """Return the condition for rows after a position: later in the first key, or equal there and later in the next."""
    alternatives: list[Part] = []
    equal: list[Part] = []
    for key, sort, value in zip(keys, sorts, position.keys, strict=True):
        later = Part(f"{key.text} {'<' if sort.descending else '>'} ?", (*key.values, value))
        alternatives.append(all_of([*equal, later]))
        equal.append(Part(f"{key.text} = ?", (*key.values, value)))
    alternatives.append(all_of([*equal, Part("r.number > ?", (position.number,))]))
    return any_of(alternatives)
