"""The Parameters of `$find`, `$hold` and `$book` read and judged (IHE ITI Scheduling 1.0, ITI-115 to ITI-117). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from arcuate.kernel.errors import BadInput, Json
from arcuate.record.indexing import interval_of

DEFAULT_COUNT = 50
MOST = 200

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_FIND = {
    "start": "valueDateTime", "end": "valueDateTime", "specialty": "valueString", "visit-type": "valueString",
    "practitioner": "valueReference", "organization": "valueReference", "location-string": "valueString",
    "location-reference": "valueReference", "patient-reference": "valueReference", "patient-resource": "resource",
    "reason": "valueString", "referral-identifier": "valueIdentifier", "timing": "valueTiming",
    "insurance-reference": "valueReference", "_count": "valueInteger",
}  # fmt: skip
_HOLD = {"appointment-reference": "valueReference"}
_BOOK = {
    "appointment-reference": "valueReference", "appointment-resource": "resource", "patient-resource": "resource",
    "comment": "valueString",
}  # fmt: skip
_ONCE = frozenset({
    "start", "end", "referral-identifier", "timing", "insurance-reference", "_count", "appointment-reference",
    "appointment-resource", "comment",
})  # fmt: skip

Given = Mapping[str, Sequence[Any]]
"""Values by the parameter's name."""


@dataclass(frozen=True)
class Token:
    """A code with its system."""

    system: str
    code: str


@dataclass(frozen=True)
class Wanted:
    """What `$find` asks.

    Attributes:
        start, end: Microseconds since 1970 UTC.
        specialties, visit_types: Any of these will do.
        actors: By type, References any of which will do; one of each type must be there.
        place: Texts of a place's name or address, any of which will do.
        patient: A Reference; None when nobody is named.
        patient_numbers: Identifiers of a Patient that came whole.
        order: The Identifier of the order.
        days: Days of the week that suit; empty when all do.
        unused: What was asked and has no effect here, as sentences.
    """

    start: int
    end: int
    specialties: tuple[Token, ...] = ()
    visit_types: tuple[Token, ...] = ()
    actors: Mapping[str, tuple[Json, ...]] | None = None
    place: tuple[str, ...] = ()
    patient: Json | None = None
    patient_numbers: tuple[Json, ...] = ()
    reasons: tuple[Token, ...] = ()
    order: Json | None = None
    days: frozenset[str] = frozenset()
    count: int = DEFAULT_COUNT
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Booking:
    """What `$book` asks: a proposal by its reference, or a change of a booking by its resource."""

    reference: Json | None
    appointment: Json | None
    patient_numbers: tuple[Json, ...]
    comment: str


def find(body: Json, zone: tzinfo, count: str | None = None) -> Wanted:
    """Return what the Parameters of `$find` ask.

    Args:
        zone: The site's, for times without one.
        count: `_count` of the address.

    Raises:
        BadInput: A parameter is missing, unknown, of another type, or not understood.
    """
    given = _given(body, _FIND)
    start, end = _period(given, zone)
    days, unused = _days(given)
    if given.get("insurance-reference"):
        unused.append("insurance-reference: what an insurance covers is not known here.")
    patients = given.get("patient-reference", ())
    if len(patients) + len(given.get("patient-resource", ())) > 1:
        raise BadInput(
            "Appointments of a group are not booked here", where="Parameters.parameter", todo="Name one patient.",
            code="not-supported",
        )  # fmt: skip
    kinds = {"practitioner": "Practitioner", "organization": "Organization", "location-reference": "Location"}
    actors = {kind: tuple(given[name]) for name, kind in kinds.items() if given.get(name)}
    return Wanted(
        start, end, _tokens(given, "specialty"), _tokens(given, "visit-type"), actors,
        tuple(str(text) for text in given.get("location-string", ())), next(iter(patients), None), _numbers(given),
        _tokens(given, "reason"), next(iter(given.get("referral-identifier", ())), None), days, _count(given, count),
        tuple(unused),
    )  # fmt: skip


def hold(body: Json) -> Json:
    """Return the Reference of the proposal that the Parameters of `$hold` name.

    Raises:
        BadInput: There is none.
    """
    given = _given(body, _HOLD)
    if not given.get("appointment-reference"):
        raise _missing("appointment-reference")
    found: Json = given["appointment-reference"][0]
    return found


def book(body: Json) -> Booking:
    """Return what the Parameters of `$book` ask.

    Raises:
        BadInput: They name no appointment, or two.
    """
    given = _given(body, _BOOK)
    reference = next(iter(given.get("appointment-reference", ())), None)
    appointment = next(iter(given.get("appointment-resource", ())), None)
    if (reference is None) == (appointment is None):
        raise BadInput(
            "Either appointment-reference (a proposal) or appointment-resource (a change) belongs here",
            where="Parameters.parameter", code="required",
        )  # fmt: skip
    if appointment is not None and appointment.get("resourceType") != "Appointment":
        raise BadInput("An Appointment belongs here", where="Parameters.parameter.resource", code="structure")
    comment = " ".join(str(next(iter(given.get("comment", ())), "")).split())
    return Booking(reference, appointment, _numbers(given), comment)


def _given(body: Json, known: Mapping[str, str]) -> dict[str, list[Any]]:
    if body.get("resourceType") != "Parameters":
        raise BadInput("A Parameters resource belongs here", where="resourceType", code="structure")
    given: dict[str, list[Any]] = {}
    for position, part in enumerate(body.get("parameter") or []):
        where, name = f"Parameters.parameter[{position}]", str(part.get("name"))
        if name not in known:
            listed = ", ".join(sorted(known))
            raise BadInput(
                f"The parameter '{name[:60]}' is not known here", where=where, todo=f"These are: {listed}.",
                code="not-supported",
            )  # fmt: skip
        if known[name] not in part:
            raise BadInput(f"'{name}' comes as {known[name]}", where=where, code="structure")
        given.setdefault(name, []).append(part[known[name]])
        if name in _ONCE and len(given[name]) > 1:
            raise BadInput(f"'{name}' stands twice", where=where, code="structure")
    return given


def _period(given: Given, zone: tzinfo) -> tuple[int, int]:
    spans = []
    for name in ("start", "end"):
        if not given.get(name):
            raise _missing(name)
        text = str(given[name][0])
        span = interval_of(text, zone)
        if span is None:
            raise BadInput(f"'{name}' is no date or time", where="Parameters.parameter", code="value")
        # A day as the end means the whole of it.
        spans.append(span[0] if name == "start" or "T" in text else span[1])
    if spans[1] <= spans[0]:
        raise BadInput("The end is not after the start", where="Parameters.parameter", code="value")
    return spans[0], spans[1]


def _missing(name: str) -> BadInput:
    return BadInput(f"'{name}' is missing", where="Parameters.parameter", code="required")


def _tokens(given: Given, name: str) -> tuple[Token, ...]:
    found = []
    for text in given.get(name, ()):
        system, bar, code = str(text).partition("|")
        if not bar or not system or not code:
            raise BadInput(
                f"'{name}' needs system and code", where="Parameters.parameter", todo="Write system|code.", code="value"
            )
        found.append(Token(system, code))
    return tuple(found)


def _numbers(given: Given) -> tuple[Json, ...]:
    patients = given.get("patient-resource", ())
    if any(one.get("resourceType") != "Patient" for one in patients):
        raise BadInput("A Patient belongs here", where="Parameters.parameter.resource", code="structure")
    return tuple(number for one in patients for number in one.get("identifier") or [] if number.get("value"))


def _days(given: Given) -> tuple[frozenset[str], list[str]]:
    timing: Json = next(iter(given.get("timing", ())), {})
    repeat: Json = timing.get("repeat") or {}
    unused = sorted({*timing, *(f"repeat.{name}" for name in repeat)} - {"repeat", "repeat.dayOfWeek"})
    return frozenset(repeat.get("dayOfWeek") or ()), [
        f"timing.{name}: of a timing only repeat.dayOfWeek is used." for name in unused
    ]


def _count(given: Given, count: str | None) -> int:
    said = given["_count"][0] if given.get("_count") else count
    if said is None:
        return DEFAULT_COUNT
    text = str(said)
    if not text.isdecimal() or len(text) > 9 or int(text) == 0:
        raise BadInput("A whole number from 1 on belongs here", where="_count", code="value")
    return min(int(text), MOST)
