"""The search in SQL: every condition is a question to one index table; values are always bound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, func, or_, select, true

from arcuate.record.domain import Stored
from arcuate.record.indexing import Indexer
from arcuate.record.query import Include, Search, Sort, Term, Value
from arcuate.record.store import CURRENT
from arcuate.record.tables import DATE, NUMBER, REFERENCE, RESOURCE, STRING, TOKEN, VERSION

_LOWEST = -(2**63)
_FAMILY_STEPS = 16
_MANY = 5000


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
        self._connection, self._indexer = connection, indexer

    def matching(self, search: Search, limit: int) -> list[Stored]:
        """Return at most so many matches."""
        identity = _identity(search)
        if identity is not None:
            rows = self._connection.execute(_BY_IDENTITY, {**identity, "most": limit})
        else:
            rows = self._connection.execute(CURRENT.where(self._condition(search)).limit(limit))
        return [Stored(*row) for row in rows]

    def count(self, search: Search) -> int:
        """Return how many match."""
        statement = select(func.count()).select_from(RESOURCE).where(self._condition(search))
        return int(self._connection.execute(statement).scalar_one())

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
        statement = _selected(*keys).where(self._condition(search))
        if position is not None:
            statement = statement.where(RESOURCE.c.number <= position.newest, _behind(keys, search.sorts, position))
        order = [key.desc() if sort.descending else key.asc() for key, sort in zip(keys, search.sorts, strict=True)]
        statement = statement.order_by(*order, RESOURCE.c.number.asc()).limit(search.count + 1)
        return [_hit(row) for row in self._connection.execute(statement)]

    def family(self, patient_ids: Iterable[str]) -> set[str]:
        """Return these patients with everybody who was merged into them and into whom they were merged."""
        family = set(patient_ids)
        fresh = family
        for _ in range(_FAMILY_STEPS):
            if not fresh:
                break
            fresh = self._merged_with(fresh) - family
            family |= fresh
        return family

    def _merged_with(self, ids: set[str]) -> set[str]:
        link = select(RESOURCE.c.id, REFERENCE.c.target_id).join(
            REFERENCE, REFERENCE.c.number == RESOURCE.c.number
        ).where(REFERENCE.c.param == "Patient.replaced-by")  # fmt: skip
        survivors = link.where(RESOURCE.c.type == "Patient", RESOURCE.c.id.in_(ids))
        replaced = link.where(REFERENCE.c.target_id.in_(ids))
        return {
            name for statement in (survivors, replaced) for row in self._connection.execute(statement) for name in row
        }

    def _newest(self) -> int:
        return int(self._connection.execute(select(func.max(VERSION.c.seq))).scalar() or 0)

    def _condition(self, search: Search) -> ColumnElement[bool]:
        parts: list[ColumnElement[bool]] = [
            RESOURCE.c.type == search.resource_type, RESOURCE.c.deleted.is_(False),
        ]  # fmt: skip
        parts += [RESOURCE.c.id.in_(ids) for ids in search.ids]
        updated = RESOURCE.c.updated
        parts += [_compared(updated, updated + 1, value.prefix, *value.span) for value in search.updated]
        parts += [self._term(term) for term in search.terms]
        return and_(*parts)

    def _term(self, term: Term) -> ColumnElement[bool]:
        number = RESOURCE.c.number
        key, kind = term.parameter.key, term.parameter.kind
        if term.modifier == "missing":
            table = _TABLES[kind]
            has = number.in_(select(table.c.number).where(table.c.param == key))
            return ~has if term.values[0].text == "true" else has
        if term.chained:
            return or_(*(self._chained(key, kind, t) for kind, t in zip(term.chained_types, term.chained, strict=True)))
        if term.modifier == "identifier":
            return number.in_(_tokens(f"{key}:identifier", term.values))
        if kind in ("token", "uri"):
            found = number.in_(_tokens(key, term.values))
            return ~found if term.modifier == "not" else found
        if kind == "reference":
            return number.in_(self._references(key, term.values))
        if kind == "date":
            return or_(*(number.in_(_dates(key, value)) for value in term.values))
        if kind == "string":
            return or_(*(number.in_(_strings(key, value, term.modifier)) for value in term.values))
        return or_(*(number.in_(_numbers(key, value)) for value in term.values))

    def _chained(self, key: str, target_type: str, term: Term) -> ColumnElement[bool]:
        inner = select(RESOURCE.c.id).where(
            RESOURCE.c.type == target_type, RESOURCE.c.deleted.is_(False), self._term(term)
        )
        reference = select(REFERENCE.c.number).where(REFERENCE.c.param == key, REFERENCE.c.target_type == target_type)
        if target_type == "Patient":
            ids = list(self._connection.execute(inner.limit(_MANY)).scalars())
            return RESOURCE.c.number.in_(reference.where(REFERENCE.c.target_id.in_(self.family(ids))))
        return RESOURCE.c.number.in_(reference.where(REFERENCE.c.target_id.in_(inner)))

    def _references(self, key: str, values: Sequence[Value]) -> Select[Any]:
        alternatives = []
        for value in values:
            kind, target = self._indexer.target_of(value.text)
            kind = value.target_type or kind
            ids = {target}
            if kind == "Patient" or (not kind and key.endswith(".patient")):
                ids = self.family(ids)
            one = REFERENCE.c.target_id.in_(ids)
            alternatives.append(and_(one, REFERENCE.c.target_type == kind) if kind else one)
        return select(REFERENCE.c.number).where(REFERENCE.c.param == key, or_(*alternatives))

    def _included(self, includes: Sequence[Include], matches: Sequence[Hit]) -> list[Hit]:
        found: dict[int, Hit] = {}
        for include in includes:
            if not matches:
                break
            for row in self._connection.execute(_include(include, matches).limit(_MANY)):
                found.setdefault(row.number, _hit(row))
        for match in matches:
            found.pop(match.number, None)
        return list(found.values())


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
    if len(search.terms) != 1 or search.ids or search.updated:
        return None
    term = search.terms[0]
    if term.modifier or term.chained or term.parameter.kind != "token" or len(term.values) != 1:
        return None
    value = term.values[0]
    if value.any_code or value.system is None:
        return None
    return {"param": term.parameter.key, "code": value.text, "system": value.system}


_TABLES: dict[str, Table] = {
    "token": TOKEN, "uri": TOKEN, "reference": REFERENCE, "date": DATE, "string": STRING, "quantity": NUMBER,
    "number": NUMBER,
}  # fmt: skip


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


def _tokens(key: str, values: Sequence[Value]) -> Select[Any]:
    alternatives = []
    for value in values:
        parts: list[ColumnElement[bool]] = [] if value.any_code else [TOKEN.c.code == value.text]
        if value.system is not None:
            parts.append(TOKEN.c.system == value.system)
        alternatives.append(and_(true(), *parts))
    return select(TOKEN.c.number).where(TOKEN.c.param == key, or_(*alternatives))


def _dates(key: str, value: Value) -> Select[Any]:
    low, high = DATE.c.low, DATE.c.high
    return select(DATE.c.number).where(DATE.c.param == key, _compared(low, high, value.prefix, *value.span))


def _numbers(key: str, value: Value) -> Select[Any]:
    number = NUMBER.c.value
    low, exact, high = value.number
    comparison: dict[str, ColumnElement[bool]] = {
        "eq": and_(number >= low, number < high), "ne": or_(number < low, number >= high), "gt": number > exact,
        "sa": number > exact, "lt": number < exact, "eb": number < exact, "ge": number >= exact, "le": number <= exact,
    }  # fmt: skip
    parts = [NUMBER.c.param == key, comparison[value.prefix]]
    if value.text:
        parts.append(NUMBER.c.code == value.text)
    if value.system is not None:
        parts.append(NUMBER.c.system == value.system)
    return select(NUMBER.c.number).where(*parts)


def _compared(low: Any, high: Any, prefix: str, first: int, last: int) -> ColumnElement[bool]:
    """Compare a stored span of time with the asked one, both half open (FHIR R4, 3.1.1.4.5: prefixes)."""
    comparison: dict[str, ColumnElement[bool]] = {
        "eq": and_(low >= first, high <= last), "ne": or_(low < first, high > last), "gt": high > last, "lt": low < first,
        "ge": high > first, "le": low < last, "sa": low >= last, "eb": high <= first,
    }  # fmt: skip
    return comparison[prefix]


def _strings(key: str, value: Value, modifier: str) -> Select[Any]:
    text = STRING.c.text
    # A range, unlike LIKE, can use the index on both databases.
    begins = and_(text >= value.text, text < value.text + "\U0010ffff")
    condition = text.contains(value.text, autoescape=True) if modifier == "contains" else begins
    return select(STRING.c.number).where(STRING.c.param == key, condition)


def _sort_key(sort: Sort) -> ColumnElement[Any]:
    """Return what a sort compares; a resource without a value stands first in ascending order."""
    if sort.parameter is None:
        return RESOURCE.c.id if sort.name == "_id" else RESOURCE.c.updated
    table = _TABLES[sort.parameter.kind]
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
