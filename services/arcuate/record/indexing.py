"""What of a resource can be searched: its values as index rows (FHIR R4, 3.1.1.4)."""

import calendar
import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any

from arcuate.kernel.errors import Json
from arcuate.record.parameters import Parameters

Interval = tuple[int, int]
"""Microseconds since 1970 UTC: from the first inclusive to the last exclusive."""

EVER = 2**62
"""An end that is not known."""

_LONGEST_TOKEN = 200
_LONGEST_STRING = 200
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?\Z")
_RELATIVE = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/[A-Za-z0-9\-.]+)?\Z")
_NO_WORD = re.compile(r"[^\w]+")
_PARTS = (
    "text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country",
)  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class IndexRows:
    """The rows of one resource, each headed by the parameter's key.

    Attributes:
        tokens: (key, code, system)
        references: (key, target id, target type); an address outside the house has the type "".
        dates: (key, low, high)
        strings: (key, normalized text, the text as it was written)
        numbers: (key, value, system, code)
        patient: Id of the patient whom the resource is about.
    """

    tokens: set[tuple[str, str, str]] = field(default_factory=set)
    references: set[tuple[str, str, str]] = field(default_factory=set)
    dates: set[tuple[str, int, int]] = field(default_factory=set)
    strings: set[tuple[str, str, str]] = field(default_factory=set)
    numbers: set[tuple[str, float, str, str]] = field(default_factory=set)
    patient: str | None = None


@dataclass(frozen=True)
class Indexer:
    """Makes index rows.

    Attributes:
        zone: Zone of dates and times that state none: the site's.
        base: Addresses under which the record itself is known; references below them are relative ones.
    """

    parameters: Parameters
    zone: tzinfo
    bases: tuple[str, ...] = ()

    def rows(self, resource: Json) -> IndexRows:
        """Return the index rows of a resource as it will be stored."""
        made = IndexRows()
        resource_type = resource["resourceType"]
        for parameter, value in self.parameters.values(resource):
            self._add(made, parameter.key, parameter.kind, value)
            if parameter.name == "patient" and made.patient is None and isinstance(value, dict):
                kind, target = self.target(value)
                made.patient = target if kind == "Patient" else None
        if resource_type == "Patient":
            made.patient = resource.get("id")
        return made

    def _add(self, made: IndexRows, key: str, kind: str, value: Any) -> None:
        if kind == "token":
            for system, code in _tokens(value):
                made.tokens.add((key, code, system))
        elif kind == "uri":
            if isinstance(value, str):
                made.tokens.add((key, short(value.partition("|")[0]), ""))
        elif kind == "reference":
            self._add_reference(made, key, value)
        elif kind == "date":
            made.dates.update((key, *interval) for interval in self._intervals(value))
        elif kind == "string":
            for said in _strings(value):
                if text := normalized(said):
                    made.strings.add((key, text, short(said)))
        else:
            made.numbers.update((key, *row) for row in _numbers(value))

    def _add_reference(self, made: IndexRows, key: str, value: Any) -> None:
        if not isinstance(value, dict):
            return
        kind, target = self.target(value)
        if target:
            made.references.add((key, target, kind))
        if isinstance(value.get("identifier"), dict):
            made.tokens.update((f"{key}:identifier", code, system) for system, code in _tokens(value["identifier"]))

    def target(self, reference: Json) -> tuple[str, str]:
        """Return type and id of what a Reference names; (“”, address) outside the house, (“”, “”) when it names nothing here."""
        text = reference.get("reference")
        if not isinstance(text, str) or text.startswith("#"):
            return "", ""
        return self.target_of(text)

    def target_of(self, text: str) -> tuple[str, str]:
        """Return type and id of a reference's text."""
        for base in self.bases:
            text = text.removeprefix(base + "/")
        found = _RELATIVE.match(text)
        return (found.group(1), found.group(2)) if found else ("", short(text))

    def _intervals(self, value: Any) -> Iterator[Interval]:
        if isinstance(value, str):
            if (found := interval_of(value, self.zone)) is not None:
                yield found
        elif isinstance(value, dict) and ("start" in value or "end" in value):
            start = interval_of(str(value.get("start", "")), self.zone)
            end = interval_of(str(value.get("end", "")), self.zone)
            yield (start[0] if start else -EVER, end[1] if end else EVER)
        elif isinstance(value, dict):  # Timing
            for event in value.get("event") or []:
                yield from self._intervals(event)
            bounds = (value.get("repeat") or {}).get("boundsPeriod")
            if bounds:
                yield from self._intervals(bounds)


def interval_of(text: str, zone: tzinfo) -> Interval | None:
    """Return the span of time that a FHIR date, dateTime or instant means, or None when it is none."""
    found = _DATE.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        if hour is None:
            return _days(int(year), int(month or 0), int(day or 0), zone)
        start = datetime(int(year), int(month), int(day), int(hour), int(minute), min(int(second or 0), 59))
        micros = int(((fraction or "") + "000000")[:6])
        start = start.replace(microsecond=micros, tzinfo=zone if offset is None else _offset(offset))
    except (ValueError, OverflowError):
        return None
    low = micros_of(start)
    return low, low + _length(second, fraction)


def _length(second: str | None, fraction: str | None) -> int:
    """Return how many microseconds the last written digit spans."""
    if second is None:
        return 60_000_000
    return 10 ** max(0, 6 - len(fraction)) if fraction else 1_000_000


def micros_of(when: datetime) -> int:
    """Return whole microseconds since 1970 UTC."""
    since = when - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def datetime_of(micros: int) -> datetime:
    """Return the instant of whole microseconds since 1970 UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def _days(year: int, month: int, day: int, zone: tzinfo) -> Interval:
    first = date(year, month or 1, day or 1)
    if day:
        last = first
    elif month:
        last = date(year, month, calendar.monthrange(year, month)[1])
    else:
        last = date(year, 12, 31)
    after = last + timedelta(days=1)
    low = datetime(first.year, first.month, first.day, tzinfo=zone)
    high = datetime(after.year, after.month, after.day, tzinfo=zone)
    return micros_of(low), micros_of(high)


def _offset(text: str) -> tzinfo:
    return datetime.fromisoformat(f"2000-01-01T00:00:00{text.replace('Z', '+00:00')}").tzinfo or UTC


def short(text: str) -> str:
    """Return the form in which a long text stands in an index: its beginning and a hash of the whole."""
    if len(text) <= _LONGEST_TOKEN:
        return text
    return f"{text[:120]}#{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}"


def normalized(text: str) -> str:
    """Return a text as string searches compare it: without case, accents and punctuation (FHIR R4, 3.1.1.4.4)."""
    plain = text.lower()
    if not text.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    if not plain.isalnum():
        plain = " ".join(_NO_WORD.sub(" ", plain).split())
    return plain[:_LONGEST_STRING]


def _tokens(value: Any) -> Sequence[tuple[str, str]]:
    """Return (system, code) of a code, boolean, Coding, CodeableConcept, Identifier or ContactPoint."""
    if isinstance(value, bool):
        return (("", "true" if value else "false"),)
    if isinstance(value, str):
        return (("", short(value)),)
    if not isinstance(value, dict):
        return ()
    if "coding" in value:
        return [found for coding in value["coding"] for found in _tokens(coding)]
    code = value.get("code", value.get("value"))
    return ((short(str(value.get("system", ""))), short(code)),) if isinstance(code, str) else ()


def _strings(value: Any) -> Sequence[str]:
    """Return a string, or each part of a HumanName or Address."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, dict):
        return ()
    parts = [value[name] for name in _PARTS if name in value]
    return [one for part in parts for one in (part if isinstance(part, list) else (part,)) if isinstance(one, str)]


def _numbers(value: Any) -> Iterator[tuple[float, str, str]]:
    """Yield (value, system, code) of a number or Quantity."""
    system = code = ""
    if isinstance(value, dict):
        system, code = str(value.get("system", "")), str(value.get("code") or value.get("unit") or "")
        value = value.get("value")
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        yield float(value), short(system), short(code)
