"""The search in SQL: every condition is a question to one index table; values are always bound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, true
from sqlmodel import Session, col

from arcuate.record.indexing import Indexer
from arcuate.record.query import Include, Search, Sort, Term, Value
from arcuate.record.tables import DateRow, NumberRow, ReferenceRow, ResourceRow, StringRow, TokenRow, VersionRow

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
    """Runs searches in the session of a transaction."""

    def __init__(self, session: Session, indexer: Indexer) -> None:
        self._session, self._indexer = session, indexer

    def matching(self, search: Search, limit: int) -> list[int]:
        """Return the numbers of at most so many matches."""
        statement = select(col(ResourceRow.number)).where(self._condition(search)).limit(limit)
        return list(self._session.execute(statement).scalars())

    def count(self, search: Search) -> int:
        """Return how many match."""
        statement = select(func.count()).select_from(ResourceRow).where(self._condition(search))
        return int(self._session.execute(statement).scalar_one())

    def page(self, search: Search, position: Position | None = None) -> Page:
        """Return one page; a row that was there at the first page comes exactly once, however others change."""
        newest = position.newest if position else self._newest()
        keys = [_sort_key(sort) for sort in search.sorts]
        statement = _selected(*keys).where(self._condition(search), col(ResourceRow.number) <= newest)
        if position is not None:
            statement = statement.where(_behind(keys, search.sorts, position))
        order = [key.desc() if sort.descending else key.asc() for key, sort in zip(keys, search.sorts, strict=True)]
        statement = statement.order_by(*order, col(ResourceRow.number).asc()).limit(search.count + 1)
        found = [_hit(row) for row in self._session.execute(statement)]
        matches, more = found[: search.count], len(found) > search.count
        following = Position(matches[-1].keys, matches[-1].number, newest) if more else None
        total = len(matches) if not more and position is None else self.count(search) if search.total else None
        return Page(matches, self._included(search.includes, matches), following, total)

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
        link = select(col(ResourceRow.id), col(ReferenceRow.target_id)).join(
            ReferenceRow, col(ReferenceRow.number) == col(ResourceRow.number)
        ).where(col(ReferenceRow.param) == "Patient.replaced-by")  # fmt: skip
        survivors = link.where(col(ResourceRow.type) == "Patient", col(ResourceRow.id).in_(ids))
        replaced = link.where(col(ReferenceRow.target_id).in_(ids))
        return {name for statement in (survivors, replaced) for row in self._session.execute(statement) for name in row}

    def _newest(self) -> int:
        return int(self._session.execute(select(func.max(col(VersionRow.seq)))).scalar() or 0)

    def _condition(self, search: Search) -> ColumnElement[bool]:
        parts: list[ColumnElement[bool]] = [
            col(ResourceRow.type) == search.resource_type, col(ResourceRow.deleted).is_(False),
        ]  # fmt: skip
        parts += [col(ResourceRow.id).in_(ids) for ids in search.ids]
        updated = col(ResourceRow.updated)
        parts += [_compared(updated, updated + 1, value.prefix, *value.span) for value in search.updated]
        parts += [self._term(term) for term in search.terms]
        return and_(*parts)

    def _term(self, term: Term) -> ColumnElement[bool]:
        number = col(ResourceRow.number)
        key, kind = term.parameter.key, term.parameter.kind
        if term.modifier == "missing":
            table = _TABLES[kind]
            has = number.in_(select(table.number).where(table.param == key))
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
        inner = select(col(ResourceRow.id)).where(
            col(ResourceRow.type) == target_type, col(ResourceRow.deleted).is_(False), self._term(term)
        )
        reference = select(col(ReferenceRow.number)).where(
            col(ReferenceRow.param) == key, col(ReferenceRow.target_type) == target_type
        )
        if target_type == "Patient":
            ids = list(self._session.execute(inner.limit(_MANY)).scalars())
            return col(ResourceRow.number).in_(reference.where(col(ReferenceRow.target_id).in_(self.family(ids))))
        return col(ResourceRow.number).in_(reference.where(col(ReferenceRow.target_id).in_(inner)))

    def _references(self, key: str, values: Sequence[Value]) -> Select[Any]:
        alternatives = []
        for value in values:
            kind, target = self._indexer.target_of(value.text)
            kind = value.target_type or kind
            ids = {target}
            if kind == "Patient" or (not kind and key.endswith(".patient")):
                ids = self.family(ids)
            one = col(ReferenceRow.target_id).in_(ids)
            alternatives.append(and_(one, col(ReferenceRow.target_type) == kind) if kind else one)
        return select(col(ReferenceRow.number)).where(col(ReferenceRow.param) == key, or_(*alternatives))

    def _included(self, includes: Sequence[Include], matches: Sequence[Hit]) -> list[Hit]:
        found: dict[int, Hit] = {}
        for include in includes:
            if not matches:
                break
            for row in self._session.execute(_include(include, matches).limit(_MANY)):
                found.setdefault(row.number, _hit(row))
        for match in matches:
            found.pop(match.number, None)
        return list(found.values())


_TABLES: dict[str, Any] = {
    "token": TokenRow, "uri": TokenRow, "reference": ReferenceRow, "date": DateRow, "string": StringRow, "quantity": NumberRow,
    "number": NumberRow,
}  # fmt: skip


def _selected(*keys: ColumnElement[Any]) -> Select[Any]:
    return select(
        col(ResourceRow.number), col(ResourceRow.type), col(ResourceRow.id), col(ResourceRow.version), col(ResourceRow.patient),
        col(VersionRow.body), *keys,
    ).join(VersionRow, col(VersionRow.seq) == col(ResourceRow.seq))  # fmt: skip


def _hit(row: Any) -> Hit:
    return Hit(row.number, row.type, row.id, row.version, row.patient, row.body, tuple(row)[6:])


def _include(include: Include, matches: Sequence[Hit]) -> Select[Any]:
    key = include.parameter.key
    if include.reverse:
        target_type = matches[0].resource_type
        refers = select(col(ReferenceRow.number)).where(
            col(ReferenceRow.param) == key, col(ReferenceRow.target_type) == target_type,
            col(ReferenceRow.target_id).in_([match.id for match in matches]),
        )  # fmt: skip
        return _selected().where(col(ResourceRow.number).in_(refers), col(ResourceRow.deleted).is_(False))
    statement = _selected().join(
        ReferenceRow,
        and_(
            col(ReferenceRow.target_type) == col(ResourceRow.type), col(ReferenceRow.target_id) == col(ResourceRow.id)
        ),
    )
    if include.target_type:
        statement = statement.where(col(ResourceRow.type) == include.target_type)
    return statement.where(
        col(ReferenceRow.param) == key, col(ReferenceRow.number).in_([match.number for match in matches]),
        col(ResourceRow.deleted).is_(False),
    )  # fmt: skip


def _tokens(key: str, values: Sequence[Value]) -> Select[Any]:
    alternatives = []
    for value in values:
        parts: list[ColumnElement[bool]] = [] if value.any_code else [col(TokenRow.code) == value.text]
        if value.system is not None:
            parts.append(col(TokenRow.system) == value.system)
        alternatives.append(and_(true(), *parts))
    return select(col(TokenRow.number)).where(col(TokenRow.param) == key, or_(*alternatives))


def _dates(key: str, value: Value) -> Select[Any]:
    low, high = col(DateRow.low), col(DateRow.high)
    return select(col(DateRow.number)).where(col(DateRow.param) == key, _compared(low, high, value.prefix, *value.span))


def _numbers(key: str, value: Value) -> Select[Any]:
    number = col(NumberRow.value)
    low, exact, high = value.number
    comparison: dict[str, ColumnElement[bool]] = {
        "eq": and_(number >= low, number < high), "ne": or_(number < low, number >= high), "gt": number > exact,
        "sa": number > exact, "lt": number < exact, "eb": number < exact, "ge": number >= exact, "le": number <= exact,
    }  # fmt: skip
    parts = [col(NumberRow.param) == key, comparison[value.prefix]]
    if value.text:
        parts.append(col(NumberRow.code) == value.text)
    if value.system is not None:
        parts.append(col(NumberRow.system) == value.system)
    return select(col(NumberRow.number)).where(*parts)


def _compared(low: Any, high: Any, prefix: str, first: int, last: int) -> ColumnElement[bool]:
    """Compare a stored span of time with the asked one, both half open (FHIR R4, 3.1.1.4.5: prefixes)."""
    comparison: dict[str, ColumnElement[bool]] = {
        "eq": and_(low >= first, high <= last), "ne": or_(low < first, high > last), "gt": high > last, "lt": low < first,
        "ge": high > first, "le": low < last, "sa": low >= last, "eb": high <= first,
    }  # fmt: skip
    return comparison[prefix]


def _strings(key: str, value: Value, modifier: str) -> Select[Any]:
    text = col(StringRow.text)
    # A range, unlike LIKE, can use the index on both databases.
    begins = and_(text >= value.text, text < value.text + "\U0010ffff")
    condition = text.contains(value.text, autoescape=True) if modifier == "contains" else begins
    return select(col(StringRow.number)).where(col(StringRow.param) == key, condition)


def _sort_key(sort: Sort) -> ColumnElement[Any]:
    """Return what a sort compares; a resource without a value stands first in ascending order."""
    if sort.parameter is None:
        return cast(ColumnElement[Any], ResourceRow.id if sort.name == "_id" else ResourceRow.updated)
    table = _TABLES[sort.parameter.kind]
    column: Any = {TokenRow: TokenRow.code, ReferenceRow: ReferenceRow.target_id, DateRow: DateRow.low, StringRow: StringRow.text,
                   NumberRow: NumberRow.value}[table]  # fmt: skip
    pick = func.max if sort.descending else func.min
    value = (
        select(pick(column))
        .where(table.number == col(ResourceRow.number), table.param == sort.parameter.key)
        .correlate(ResourceRow)
        .scalar_subquery()
    )
    return func.coalesce(value, _LOWEST if table in (DateRow, NumberRow) else "")


def _behind(keys: Sequence[ColumnElement[Any]], sorts: Sequence[Sort], position: Position) -> ColumnElement[bool]:
    """Return the condition for rows after a position: later in the first key, or equal there and later in the next."""
    alternatives: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for key, sort, value in zip(keys, sorts, position.keys, strict=True):
        alternatives.append(and_(*equal, key < value if sort.descending else key > value))
        equal.append(key == value)
    alternatives.append(and_(*equal, col(ResourceRow.number) > position.number))
    return or_(*alternatives)
