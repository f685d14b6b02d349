"""What a search asks, as conditions in SQL: every one is a question to one index table; values are always bound."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, or_, select, true

from arcuate.record.indexing import Indexer
from arcuate.record.query import Has, Search, Term
from arcuate.record.tables import DATE, NUMBER, REFERENCE, RESOURCE, STRING, TOKEN
from arcuate.record.values import Value

MANY = 5000
"""So many resources at most come along with a page, or stand between a chain's two ends."""

_FAMILY_STEPS = 16


class Conditions:
    """Makes conditions; a merged patient is asked for in the same transaction."""

    def __init__(self, connection: Connection, indexer: Indexer) -> None:
        self._connection, self._indexer = connection, indexer

    def of(self, search: Search) -> ColumnElement[bool]:
        parts: list[ColumnElement[bool]] = [
            RESOURCE.c.type == search.resource_type, RESOURCE.c.deleted.is_(False),
        ]  # fmt: skip
        parts += [RESOURCE.c.id.in_(ids) for ids in search.ids]
        updated = RESOURCE.c.updated
        parts += [_compared(updated, updated + 1, value.prefix, *value.span) for value in search.updated]
        parts += [self._term(term) for term in search.terms]
        parts += [self._has(search.resource_type, has) for has in search.has]
        return and_(*parts)

    def _term(self, term: Term, number: ColumnElement[int] | None = None) -> ColumnElement[bool]:
        number = RESOURCE.c.number if number is None else number
        key, kind = term.parameter.key, term.parameter.kind
        if term.modifier == "missing":
            table = TABLES[kind]
            has = number.in_(select(table.c.number).where(table.c.param == key))
            return ~has if term.values[0].text == "true" else has
        if term.chained:
            return or_(
                *(self._chained(key, kind, t, number) for kind, t in zip(term.chained_types, term.chained, strict=True))
            )
        if term.modifier == "exact":
            return number.in_(_tokens(f"{key}:exact", term.values))
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

    def _has(self, resource_type: str, has: Has) -> ColumnElement[bool]:
        other = RESOURCE.alias()
        inner = select(other.c.number).where(
            other.c.type == has.parameter.resource_type,
            other.c.deleted.is_(False),
            self._term(has.term, other.c.number),
        )
        named = select(REFERENCE.c.target_id).where(
            REFERENCE.c.param == has.parameter.key,
            REFERENCE.c.target_type == resource_type,
            REFERENCE.c.number.in_(inner),
        )
        if resource_type != "Patient":
            return RESOURCE.c.id.in_(named)
        return RESOURCE.c.id.in_(self.family(self._connection.execute(named.distinct().limit(MANY)).scalars()))

    def _chained(self, key: str, target_type: str, term: Term, number: ColumnElement[int]) -> ColumnElement[bool]:
        target = RESOURCE.alias()
        inner = select(target.c.id).where(
            target.c.type == target_type, target.c.deleted.is_(False), self._term(term, target.c.number)
        )
        reference = select(REFERENCE.c.number).where(REFERENCE.c.param == key, REFERENCE.c.target_type == target_type)
        if target_type == "Patient":
            ids = list(self._connection.execute(inner.limit(MANY)).scalars())
            return number.in_(reference.where(REFERENCE.c.target_id.in_(self.family(ids))))
        return number.in_(reference.where(REFERENCE.c.target_id.in_(inner)))

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


TABLES: dict[str, Table] = {
    "token": TOKEN, "uri": TOKEN, "reference": REFERENCE, "date": DATE, "string": STRING, "quantity": NUMBER,
    "number": NUMBER,
}  # fmt: skip


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
