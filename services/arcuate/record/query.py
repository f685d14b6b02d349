"""What a search asks: its parameters read and judged, without a word of SQL (FHIR R4, 3.1.1)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import shapes
from arcuate.record.indexing import normalized, short
from arcuate.record.parameters import Parameter, Parameters
from arcuate.record.values import Value, bad, day, number, split, token, unescaped, whole
from arcuate.record.views import View

DEFAULT_COUNT = 50
MOST = 200

Pairs = Sequence[tuple[str, str]]

_MODIFIERS: Mapping[str, frozenset[str]] = {
    "token": frozenset({"not", "missing"}),
    "reference": frozenset({"identifier", "missing"}),
    "date": frozenset({"missing"}),
    "string": frozenset({"contains", "exact", "missing"}),
    "quantity": frozenset({"missing"}),
    "number": frozenset({"missing"}),
    "uri": frozenset({"missing"}),
}
_SILENT = frozenset({"_format", "_pretty"})
_RESULT = frozenset({"_count", "_sort", "_total", "_elements", "_summary"})
_OF_ALL = frozenset({"_id", "_lastUpdated", "_count", "_sort", "_total", "_summary"})
_WHOLE = View()
_SUMMARIES = frozenset({"true", "text", "data", "count", "false"})


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
class Has:
    """`_has:Observation:patient:code=…`: what must refer to a match, by which parameter, and what it must match itself."""

    parameter: Parameter
    term: Term


@dataclass(frozen=True)
class Include:
    """A resource that comes along: what a match refers to, or (reverse) what refers to a match.

    Attributes:
        iterate: What came along counts as a match for this one too.
    """

    parameter: Parameter
    target_type: str = ""
    reverse: bool = False
    iterate: bool = False


@dataclass(frozen=True)
class Search:
    """A search of one type, of several, or of all (FHIR R4, 3.1.0.4.1).

    Attributes:
        resource_type: Empty for a search of several types or of all.
        parts: The same search for each of several types.
        ids: `_id` alternatives, each group one parameter.
        has: `_has` conditions.
        updated: `_lastUpdated` conditions.
        view: What of each resource is shown.
        pairs: The parameters that took effect, for the self link.
        ignored: Names of parameters that did not, for the warning.
    """

    resource_type: str
    terms: tuple[Term, ...] = ()
    ids: tuple[tuple[str, ...], ...] = ()
    has: tuple[Has, ...] = ()
    updated: tuple[Value, ...] = ()
    sorts: tuple[Sort, ...] = ()
    includes: tuple[Include, ...] = ()
    count: int = DEFAULT_COUNT
    count_only: bool = False
    total: bool = False
    view: View = _WHOLE
    pairs: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    parts: "tuple[Search, ...]" = ()


@dataclass
class _Draft:
    terms: list[Term] = field(default_factory=list)
    ids: list[tuple[str, ...]] = field(default_factory=list)
    has: list[Has] = field(default_factory=list)
    updated: list[Value] = field(default_factory=list)
    sorts: tuple[Sort, ...] = ()
    includes: list[Include] = field(default_factory=list)
    count: int = DEFAULT_COUNT
    count_only: bool = False
    total: bool = False
    summary: str = "false"
    elements: tuple[str, ...] = ()


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
            resource_type, tuple(draft.terms), tuple(draft.ids), tuple(draft.has), tuple(draft.updated), draft.sorts,
            tuple(draft.includes), draft.count, draft.count_only, draft.total, View(draft.summary, draft.elements),
            tuple(used), tuple(ignored),
        )  # fmt: skip

    def read_system(self, pairs: Pairs) -> Search:
        """Return the search of several types (`_type`) or of all that these parameters ask.

        Raises:
            BadInput: A parameter that not all of these types have, or that is for one type alone.
        """
        given = [(name, value) for name, value in pairs if value and name not in _SILENT]
        rest = [(name, value) for name, value in given if name != "_type"]
        listed = [kind for name, value in given if name == "_type" for kind in value.split(",")]
        types = tuple(sorted(dict.fromkeys(listed)))
        names = {name for name, _ in rest}
        if not types and not names & {"_id", "_lastUpdated"}:
            raise BadInput(
                "A search of all types needs _type, _id or _lastUpdated", where="the address",
                todo="Name types (_type=Patient,Observation), search one type, or follow a link of a search.",
                code="not-supported",
            )  # fmt: skip
        if any(kind not in self.parameters.by_type for kind in types):
            raise bad("A type that is not stored here", "_type", "See /fhir/metadata.")
        for name in sorted(names):
            _refuse_of_one_type(name, all_types=not types)
        parts = tuple(self._of_several(kind, rest) for kind in types)
        shape = parts[0] if parts else self.read(self.parameters.types[0], rest, strict=True)
        if any(sort.parameter is not None for sort in shape.sorts):
            raise bad("Several types are sorted by _id or _lastUpdated alone", "_sort")
        named = (("_type", ",".join(types)),) if types else ()
        return replace(shape, resource_type="", parts=parts, pairs=(*named, *shape.pairs))

    def _of_several(self, kind: str, pairs: Pairs) -> Search:
        try:
            return self.read(kind, pairs, strict=True)
        except BadInput as error:
            todo = "Search this type by itself, or leave the parameter out."
            raise BadInput(f"{error.what} (of {kind})", where=error.where, todo=todo, code=error.code) from None

    def _take(self, draft: _Draft, resource_type: str, name: str, value: str) -> None:
        if name == "_id":
            draft.ids.append(tuple(split(value, ",")))
        elif name == "_lastUpdated":
            draft.updated.append(day(value, name, self.zone))
        elif name.startswith("_has:"):
            draft.has.append(self._has(resource_type, name, value))
        elif name.partition(":")[0] in ("_include", "_revinclude"):
            draft.includes.extend(self._includes(resource_type, name, value))
        elif name in _RESULT:
            self._take_result(draft, resource_type, name, value)
        else:
            draft.terms.append(self.term(resource_type, name, value))

    def _take_result(self, draft: _Draft, resource_type: str, name: str, value: str) -> None:
        if name == "_count":
            draft.count = min(whole(value, name), MOST)
            draft.count_only = draft.count_only or draft.count == 0
        elif name == "_sort":
            draft.sorts = tuple(self._sort(resource_type, part) for part in value.split(","))
        elif name == "_total":
            draft.total = value == "accurate"
        elif name == "_elements":
            draft.elements = elements(resource_type, value)
        else:
            draft.summary = summary(value)
            draft.count_only = draft.count_only or draft.summary == "count"

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
                raise bad("':missing' takes true or false", name)
            return Term(parameter, "missing", (Value(text=value),))
        if modifier and modifier not in _MODIFIERS[parameter.kind]:
            if parameter.kind != "reference" or modifier not in self.parameters.by_type:
                raise _Unknown
            return Term(parameter, "", tuple(self._reference(v, modifier) for v in split(value, ",")))
        if modifier == "exact":
            said = [unescaped(v) for v in split(value, ",")]
            return Term(parameter, modifier, tuple(Value(text=normalized(v), exact=short(v)) for v in said))
        kind = "token" if modifier == "identifier" else parameter.kind
        return Term(parameter, modifier, tuple(self._value(kind, v, name) for v in split(value, ",")))

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
            return token(text)
        if kind == "reference":
            return self._reference(text, "")
        if kind == "date":
            return day(text, name, self.zone)
        if kind == "string":
            return Value(text=normalized(unescaped(text)))
        if kind == "uri":
            return Value(text=short(unescaped(text)), system="")
        return number(text, name)

    def _reference(self, text: str, modifier: str) -> Value:
        return Value(text=unescaped(text), target_type=modifier)

    def _sort(self, resource_type: str, text: str) -> Sort:
        name = text.removeprefix("-")
        parameter = self.parameters.find(resource_type, name)
        if parameter is None and name not in ("_id", "_lastUpdated"):
            raise _Unknown
        return Sort(name, parameter, text.startswith("-"))

    def _has(self, resource_type: str, name: str, value: str) -> Has:
        parts = name.split(":", 3)
        parameter = self.parameters.find(parts[1], parts[2]) if len(parts) == 4 else None
        if parameter is None or parameter.kind != "reference" or not parameter.may_name(resource_type):
            raise _Unknown
        return Has(parameter, self.term(parts[1], parts[3], value))

    def _includes(self, resource_type: str, name: str, value: str) -> list[Include]:
        head, _, modifier = name.partition(":")
        if modifier not in ("", "iterate", "recurse"):
            raise _Unknown
        reverse, iterate = head == "_revinclude", bool(modifier)
        parts = value.split(":")
        if len(parts) == 2 and parts[1] == "*" and parts[0] == resource_type and not reverse:
            found = self.parameters.by_type[resource_type].values()
            return [Include(one, "", False, iterate) for one in found if one.kind == "reference"]
        if len(parts) not in (2, 3) or (not reverse and not iterate and parts[0] != resource_type):
            raise _Unknown
        parameter = self.parameters.find(parts[0], parts[1])
        if parameter is None or parameter.kind != "reference":
            raise _Unknown
        return [Include(parameter, parts[2] if len(parts) == 3 else "", reverse, iterate)]


def _refuse_of_one_type(name: str, *, all_types: bool) -> None:
    where = f"the search parameter {name[:60]}"
    if name.partition(":")[0] in ("_include", "_revinclude"):
        what, todo = f"'{name[:60]}' is for a search of one type", "Search one type, or leave it out."
    elif all_types and name not in _OF_ALL:
        what, todo = f"Not every type has '{name[:60]}'", "Name types that have it in _type, or leave it out."
    else:
        return
    raise BadInput(what, where=where, todo=todo, code="not-supported")


def summary(value: str) -> str:
    """Return the word of `_summary`.

    Raises:
        BadInput: It is none.
    """
    if value not in _SUMMARIES:
        raise bad("'_summary' takes true, text, data, count or false", "_summary")
    return value


def elements(resource_type: str, value: str) -> tuple[str, ...]:
    """Return the names of `_elements`.

    Raises:
        BadInput: One is no element of the type.
    """
    names = tuple(part.removeprefix(f"{resource_type}.").strip() for part in value.split(","))
    known = shapes.shape_of(resource_type).elements
    if any(name not in known for name in names):
        raise bad(f"An element that {resource_type} does not have", "_elements")
    return names


def _unsupported(name: str) -> BadInput:
    return BadInput(
        f"The search parameter '{name[:60]}' is not known here", todo="See /fhir/metadata.", code="not-supported"
    )


def plain(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a condition in one fixed form, so that the same condition is the same text."""
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
