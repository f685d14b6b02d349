"""What a search asks, as conditions in SQL: every one is a question to one index table; values are always bound."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from arcuate.record.driver import Driver
from arcuate.record.indexing import Indexer
from arcuate.record.query import Has, Search, Term
from arcuate.record.store import marks
from arcuate.record.values import Value

MANY = 5000
"""So many resources at most come along with a page, or stand between a chain's two ends."""

TABLES = {
    "token": "token_index", "uri": "token_index", "reference": "reference_index", "date": "date_index", "string": "string_index",
    "quantity": "number_index", "number": "number_index",
}  # fmt: skip

_FAMILY_STEPS = 16
_NAMED = "SELECT DISTINCT target_id FROM reference_index WHERE param = ? AND target_type = ?"


class Part(NamedTuple):
    """A piece of a statement with the values of its places."""

    text: str
    values: tuple[Any, ...] = ()


def all_of(parts: Sequence[Part]) -> Part:
    """Return a condition that holds where all of these hold."""
    return _joined(" AND ", parts)


def any_of(parts: Sequence[Part]) -> Part:
    """Return a condition that holds where one of these holds."""
    return parts[0] if len(parts) == 1 else _joined(" OR ", parts)


def _joined(word: str, parts: Sequence[Part]) -> Part:
    return Part(
        f"({word.join([part.text for part in parts])})", tuple(value for part in parts for value in part.values)
    )


class Conditions:
    """Makes conditions on `resource r`; a merged patient is asked for in the same transaction, once."""

    def __init__(self, driver: Driver, indexer: Indexer) -> None:
        self._driver, self._indexer = driver, indexer
        self._families: dict[frozenset[str], set[str]] = {}

    def of(self, search: Search) -> Part:
        """Return what a match must meet."""
        if search.parts:
            return any_of([self.of(part) for part in search.parts])
        parts = [Part("r.deleted = ?", (False,))]
        if search.resource_type:
            parts.append(Part("r.type = ?", (search.resource_type,)))
        parts += [Part(f"r.id IN ({marks(len(ids))})", ids) for ids in search.ids]
        parts += [_compared("r.updated", "r.updated + 1", value.prefix, *value.span) for value in search.updated]
        parts += [self._term(term, "r") for term in search.terms]
        parts += [self._has(search.resource_type, has) for has in search.has]
        return all_of(parts)

    def _term(self, term: Term, row: str) -> Part:
        key, kind = term.parameter.key, term.parameter.kind
        if term.modifier == "missing":
            word = "NOT IN" if term.values[0].text == "true" else "IN"
            return Part(f"{row}.number {word} (SELECT number FROM {TABLES[kind]} WHERE param = ?)", (key,))  # noqa: S608
        if term.chained:
            pairs = zip(term.chained_types, term.chained, strict=True)
            return any_of([self._chained(key, target_type, inner, row) for target_type, inner in pairs])
        if term.modifier == "exact":
            alternatives = [Part("(text = ? AND exact = ?)", (value.text, value.exact)) for value in term.values]
            return _among(row, "string_index", key, any_of(alternatives))
        if term.modifier == "identifier":
            return _among(row, "token_index", f"{key}:identifier", _tokens(term.values))
        if kind in ("token", "uri"):
            return _among(row, "token_index", key, _tokens(term.values), "NOT IN" if term.modifier == "not" else "IN")
        if kind == "reference":
            return _among(row, "reference_index", key, self._references(key, term.values))
        if kind == "date":
            return any_of([_among(row, "date_index", key, _span(value)) for value in term.values])
        if kind == "string":
            return any_of([_among(row, "string_index", key, _string(value, term.modifier)) for value in term.values])
        return any_of([_among(row, "number_index", key, _number(value)) for value in term.values])

    def _has(self, resource_type: str, has: Has) -> Part:
        inner = self._term(has.term, "o")
        named = Part(
            f"{_NAMED} AND number IN (SELECT o.number FROM resource o WHERE o.type = ? AND o.deleted = ? AND {inner.text})",  # noqa: S608
            (has.parameter.key, resource_type, has.parameter.resource_type, False, *inner.values),
        )
        if resource_type != "Patient":
            return Part(f"r.id IN ({named.text})", named.values)
        ids = self.family(row[0] for row in self._driver.rows(f"{named.text} LIMIT ?", (*named.values, MANY)))
        return Part(f"r.id IN ({marks(len(ids))})", tuple(ids))

    def _chained(self, key: str, target_type: str, term: Term, row: str) -> Part:
        matches = self._term(term, "t")
        inner = Part(
            f"SELECT t.id FROM resource t WHERE t.type = ? AND t.deleted = ? AND {matches.text}",  # noqa: S608
            (target_type, False, *matches.values),
        )
        if target_type == "Patient":
            ids = self.family(found[0] for found in self._driver.rows(f"{inner.text} LIMIT ?", (*inner.values, MANY)))
            inner = Part(marks(len(ids)), tuple(ids))
        condition = Part(f"target_type = ? AND target_id IN ({inner.text})", (target_type, *inner.values))
        return _among(row, "reference_index", key, condition)

    def _references(self, key: str, values: Sequence[Value]) -> Part:
        alternatives = []
        for value in values:
            kind, target = self._indexer.target_of(value.text)
            kind = value.target_type or kind
            ids = {target}
            if kind == "Patient" or (not kind and key.endswith(".patient")):
                ids = self.family(ids)
            one = Part(f"target_id IN ({marks(len(ids))})", tuple(ids))
            alternatives.append(all_of([one, Part("target_type = ?", (kind,))]) if kind else one)
        return any_of(alternatives)

    def family(self, patient_ids: Iterable[str]) -> set[str]:
        """Return these patients with everybody who was merged into them and into whom they were merged.

        It is looked up once: whoever makes conditions here writes no patients between them.
        """
        asked = frozenset(patient_ids)
        if asked not in self._families:
            self._families[asked] = self._family(asked)
        return self._families[asked]

    def _family(self, patient_ids: Iterable[str]) -> set[str]:
        family = set(patient_ids)
        fresh = family
        for _ in range(_FAMILY_STEPS):
            if not fresh:
                break
            fresh = self._merged_with(fresh) - family
            family |= fresh
        return family

    def _merged_with(self, ids: set[str]) -> set[str]:
        places = marks(len(ids))
        link = (
            "SELECT l.id, i.target_id FROM resource l JOIN reference_index i ON i.number = l.number WHERE i.param = ?"
        )
        survivors = self._driver.rows(
            f"{link} AND l.type = ? AND l.id IN ({places})", ("Patient.replaced-by", "Patient", *ids)
        )
        replaced = self._driver.rows(f"{link} AND i.target_id IN ({places})", ("Patient.replaced-by", *ids))
        return {name for row in (*survivors, *replaced) for name in row}


def _among(row: str, table: str, key: str, condition: Part, word: str = "IN") -> Part:
    """Return that a row's number is among those whose values under a key meet a condition."""
    return Part(
        f"{row}.number {word} (SELECT number FROM {table} WHERE param = ? AND {condition.text})",  # noqa: S608
        (key, *condition.values),
    )


def _tokens(values: Sequence[Value]) -> Part:
    alternatives = []
    for value in values:
        parts = [] if value.any_code else [Part("code = ?", (value.text,))]
        if value.system is not None:
            parts.append(Part("system = ?", (value.system,)))
        alternatives.append(all_of(parts) if parts else Part("1 = 1"))
    return any_of(alternatives)


def _span(value: Value) -> Part:
    return _compared("low", "high", value.prefix, *value.span)


def _number(value: Value) -> Part:
    low, exact, high = value.number
    comparison = {
        "eq": Part("(value >= ? AND value < ?)", (low, high)), "ne": Part("(value < ? OR value >= ?)", (low, high)),
        "gt": Part("value > ?", (exact,)), "sa": Part("value > ?", (exact,)), "lt": Part("value < ?", (exact,)),
        "eb": Part("value < ?", (exact,)), "ge": Part("value >= ?", (exact,)), "le": Part("value <= ?", (exact,)),
    }  # fmt: skip
    parts = [comparison[value.prefix]]
    if value.text:
        parts.append(Part("code = ?", (value.text,)))
    if value.system is not None:
        parts.append(Part("system = ?", (value.system,)))
    return all_of(parts)


def _compared(low: str, high: str, prefix: str, first: int, last: int) -> Part:
    """Compare a stored span of time with the asked one, both half open (FHIR R4, 3.1.1.4.5: prefixes)."""
    comparison = {
        "eq": Part(f"({low} >= ? AND {high} <= ?)", (first, last)), "ne": Part(f"({low} < ? OR {high} > ?)", (first, last)),
        "gt": Part(f"{high} > ?", (last,)), "lt": Part(f"{low} < ?", (first,)), "ge": Part(f"{high} > ?", (first,)),
        "le": Part(f"{low} < ?", (last,)), "sa": Part(f"{low} >= ?", (last,)), "eb": Part(f"{high} <= ?", (first,)),
    }  # fmt: skip
    return comparison[prefix]


def _string(value: Value, modifier: str) -> Part:
    if modifier == "contains":
        plain = value.text.replace("/", "//").replace("%", "/%").replace("_", "/_")
        return Part("text LIKE ? ESCAPE '/'", (f"%{plain}%",))
    # A range, unlike LIKE, can use the index on both databases.
    return Part("(text >= ? AND text < ?)", (value.text, value.text + "\U0010ffff"))
