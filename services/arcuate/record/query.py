"""What a search asks: its parameters read and judged, without a word of SQL (FHIR R4, 3.1.1)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from decimal import Decimal, InvalidOperation

from arcuate.kernel.errors import BadInput
from arcuate.record.indexing import Interval, interval_of, normalized, short
from arcuate.record.parameters import Parameter, Parameters

DEFAULT_COUNT = 50
MOST = 200

Pairs = Sequence[tuple[str, str]]

_PREFIX = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?\Z")
_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "missing"}),
    "reference": frozenset({"identifier", "missing"}),
    "date": frozenset({"missing"}),
    "string": frozenset({"contains", "missing"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "uri": frozenset({"missing"}),
}
_SILENT = frozenset({"_format", "_pretty"})


@dataclass(frozen=True)
class Value:
    """One of the alternatives of a parameter.

    Attributes:
        text: A code, id or normalized text.
        system: A token's system; None when any will do, "" when it must have none.
        any_code: A token of which only the system counts.
        target_type: A reference's type; "" when the value does not say.
        prefix: `eq`, `gt` … for dates and numbers.
        span: The range of time that a date means.
        number: A number with the range that its last digit leaves open: low, value, high.
    """

    text: str = ""
    system: str | None = None
    any_code: bool = False
    target_type: str = ""
    prefix: str = "eq"
    span: Interval = (0, 0)
    number: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Term:
    """One parameter of the search; the alternatives are OR, terms among each other are AND.

    Attributes:
        chained: For `patient.identifier=…`: what the resource that the reference names must match.
        chained_types: The types that it may have.
    """

    parameter: Parameter
    modifier: str = ""
    values: tuple[Value, ...] = ()
    chained: "tuple[Term, ...]" = ()
    chained_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sort:
    """One sort key; `name` is a parameter, `_id` or `_lastUpdated`."""

    name: str
    parameter: Parameter | None
    descending: bool


@dataclass(frozen=True)
class Include:
    """A resource that comes along: what a match refers to, or (reverse) what refers to a match."""

    parameter: Parameter
    target_type: str = ""
    reverse: bool = False


@dataclass(frozen=True)
class Search:
    """A search of one type.

    Attributes:
        ids: `_id` alternatives, each group one parameter.
        updated: `_lastUpdated` conditions.
        pairs: The parameters that took effect, for the self link.
        ignored: Names of parameters that did not, for the warning.
    """

    resource_type: str
    terms: tuple[Term, ...] = ()
    ids: tuple[tuple[str, ...], ...] = ()
    updated: tuple[Value, ...] = ()
    sorts: tuple[Sort, ...] = ()
    includes: tuple[Include, ...] = ()
    count: int = DEFAULT_COUNT
    count_only: bool = False
    total: bool = False
    pairs: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass
class _Draft:
    terms: list[Term] = field(default_factory=list)
    ids: list[tuple[str, ...]] = field(default_factory=list)
    updated: list[Value] = field(default_factory=list)
    sorts: tuple[Sort, ...] = ()
    includes: list[Include] = field(default_factory=list)
    count: int = DEFAULT_COUNT
    count_only: bool = False
    total: bool = False


class _Unknown(Exception):
    """The parameter is not one that this type knows."""


@dataclass(frozen=True)
class Reader:
    """Reads searches."""

    parameters: Parameters
    zone: tzinfo

    def read(self, resource_type: str, pairs: Pairs, *, strict: bool = False) -> Search:
        """Return the search that these parameters ask.

        Args:
            strict: Refuse unknown parameters instead of leaving them out (`Prefer: handling=strict`; conditions always).

        Raises:
            BadInput: A value that cannot be understood, or (strict) an unknown parameter (code `not-supported`).
        """
        draft, used, ignored = _Draft(), [], []
        for name, given in pairs:
            # No stored text holds NUL, and PostgreSQL takes none: a sign that no text holds either stands for it.
            value = given.replace("\x00", "\uffff")
            if name in _SILENT or value == "":
                continue
            try:
                self._take(draft, resource_type, name, value)
                used.append((name, value))
            except _Unknown:
                if strict:
                    raise _unsupported(name) from None
                ignored.append(name[:60])
        return Search(
            resource_type, tuple(draft.terms), tuple(draft.ids), tuple(draft.updated), draft.sorts, tuple(draft.includes),
            draft.count, draft.count_only, draft.total, tuple(used), tuple(ignored),
        )  # fmt: skip

    def _take(self, draft: _Draft, resource_type: str, name: str, value: str) -> None:
        if name == "_id":
            draft.ids.append(tuple(_split(value, ",")))
        elif name == "_lastUpdated":
            draft.updated.extend(self._date(part, name) for part in _split(value, ",")[:1])
        elif name == "_count":
            draft.count = min(_whole(value, name), MOST)
            draft.count_only = draft.count_only or draft.count == 0
        elif name == "_sort":
            draft.sorts = tuple(self._sort(resource_type, part) for part in value.split(","))
        elif name == "_summary":
            if value not in ("count", "false"):
                raise _Unknown
            draft.count_only = value == "count"
        elif name == "_total":
            draft.total = value == "accurate"
        elif name.partition(":")[0] in ("_include", "_revinclude"):
            draft.includes.append(self._include(resource_type, name, value))
        else:
            draft.terms.append(self.term(resource_type, name, value))

    def term(self, resource_type: str, name: str, value: str) -> Term:
        """Return one parameter with its value read."""
        head, dot, rest = name.partition(".")
        base, _, modifier = head.partition(":")
        parameter = self.parameters.find(resource_type, base)
        if parameter is None:
            raise _Unknown
        if dot:
            return self._chain(parameter, modifier, rest, value)
        if modifier == "missing":
            if value not in ("true", "false"):
                raise _bad("':missing' takes true or false", name)
            return Term(parameter, "missing", (Value(text=value),))
        if modifier and modifier not in _MODIFIERS[parameter.kind]:
            if parameter.kind != "reference" or modifier not in self.parameters.by_type:
                raise _Unknown
            return Term(parameter, "", tuple(self._reference(v, modifier) for v in _split(value, ",")))
        kind = "token" if modifier == "identifier" else parameter.kind
        return Term(parameter, modifier, tuple(self._value(kind, v, name) for v in _split(value, ",")))

    def _chain(self, parameter: Parameter, modifier: str, rest: str, value: str) -> Term:
        if parameter.kind != "reference" or "." in rest:
            raise _Unknown
        restricted = parameter.targets or ({"Patient"} if parameter.name == "patient" else frozenset())
        candidates = [modifier] if modifier else sorted(restricted or self.parameters.types)
        chained = []
        for target in candidates:
            try:
                chained.append((target, self.term(target, rest, value)))
            except _Unknown:
                continue
        if not chained:
            raise _Unknown
        return Term(parameter, "", (), tuple(term for _, term in chained), tuple(target for target, _ in chained))

    def _value(self, kind: str, text: str, name: str) -> Value:
        if kind == "token":
            return _token(text)
        if kind == "reference":
            return self._reference(text, "")
        if kind == "date":
            return self._date(text, name)
        if kind == "string":
            return Value(text=normalized(_unescaped(text)))
        if kind == "uri":
            return Value(text=short(_unescaped(text)), system="")
        return _number(text, name)

    def _reference(self, text: str, modifier: str) -> Value:
        return Value(text=_unescaped(text), target_type=modifier)

    def _date(self, text: str, name: str) -> Value:
        prefix, rest = _prefixed(text)
        # A plus sign that was not percent-encoded arrives as a blank.
        span = interval_of(rest.replace(" ", "+"), self.zone)
        if span is None or prefix == "ap":
            raise _bad(
                "This is no date that FHIR knows", name, "Write for example ge2026-03-17 or lt2026-03-17T09:00:00Z."
            )
        return Value(prefix=prefix, span=span)

    def _sort(self, resource_type: str, text: str) -> Sort:
        name = text.removeprefix("-")
        parameter = self.parameters.find(resource_type, name)
        if parameter is None and name not in ("_id", "_lastUpdated"):
            raise _Unknown
        return Sort(name, parameter, text.startswith("-"))

    def _include(self, resource_type: str, name: str, value: str) -> Include:
        if ":" in name:  # :iterate
            raise _Unknown
        reverse = name == "_revinclude"
        parts = value.split(":")
        if len(parts) not in (2, 3) or (not reverse and parts[0] != resource_type):
            raise _Unknown
        parameter = self.parameters.find(parts[0], parts[1])
        if parameter is None or parameter.kind != "reference":
            raise _Unknown
        return Include(parameter, parts[2] if len(parts) == 3 else "", reverse)


def _token(text: str) -> Value:
    parts = _split(text, "|", limit=2)
    if len(parts) == 1:
        return Value(text=short(_unescaped(parts[0])))
    system, code = (short(_unescaped(part)) for part in parts)
    return Value(text=code, system=system, any_code=code == "")


def _number(text: str, name: str) -> Value:
    prefix, rest = _prefixed(text)
    parts = _split(rest, "|", limit=3)
    if not _NUMBER.match(parts[0]) or prefix == "ap":
        raise _bad("This is no number", name)
    try:
        number = _span(Decimal(parts[0]))
    except (InvalidOperation, OverflowError):
        raise _bad("This number is out of range", name) from None
    system = short(_unescaped(parts[1])) if len(parts) == 3 and parts[1] else None
    return Value(
        text=short(_unescaped(parts[-1])) if len(parts) == 3 else "", system=system, prefix=prefix, number=number
    )


def _span(number: Decimal) -> tuple[float, float, float]:
    """Return the range that a written number stands for: 100 is 99.5 to 100.5, 1.10 is 1.095 to 1.105."""
    exponent = number.as_tuple().exponent
    half = Decimal(5).scaleb((exponent if isinstance(exponent, int) and exponent < 0 else 0) - 1)
    return float(number - half), float(number), float(number + half)


def _prefixed(text: str) -> tuple[str, str]:
    found = _PREFIX.match(text)
    return (found.group(1) or "eq", found.group(2)) if found else ("eq", text)


def _split(text: str, sign: str, limit: int = 1000) -> list[str]:
    """Split at a sign that no backslash precedes; escapes stay in the parts."""
    parts = [""]
    position = 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            parts[-1] += text[position : position + 2]
            position += 2
        elif text[position] == sign and len(parts) < limit:
            parts.append("")
            position += 1
        else:
            parts[-1] += text[position]
            position += 1
    return parts


def _unescaped(text: str) -> str:
    """Take away the backslash before `,`, `|`, `$` and `\\`; every other backslash is itself."""
    return re.sub(r"\\([,|$\\])", r"\1", text)


def _whole(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise _bad("A whole number belongs here", name)
    return int(text)


def _bad(what: str, name: str, todo: str = "") -> BadInput:
    return BadInput(what, where=f"the search parameter {name[:60]}", todo=todo, code="value")


def _unsupported(name: str) -> BadInput:
    return BadInput(
        f"The search parameter '{name[:60]}' is not known here", todo="See /fhir/metadata.", code="not-supported"
    )


def plain(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a condition in one fixed form, so that the same condition is the same text."""
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
