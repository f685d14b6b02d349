"""Profiles of senders: where their numbers and times live, what their codes mean, how they want to be answered. Data, not code."""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from arcuate.kernel.errors import BadInput
from arcuate.kernel.hl7v2.header import Header
from arcuate.kernel.hl7v2.message import Message, Part, Segment

_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d+))?\Z")
_LISTS = ("accession", "study_uid", "placer", "filler", "start", "priority", "booking_start", "booking_end")
_FOLDED = ("booking_status", "priority_map")


@dataclass(frozen=True)
class Place:
    """A field, or a component of it, inside one group of segments."""

    segment: str
    field: int
    component: int | None

    @classmethod
    def read(cls, path: str) -> "Place":
        """Return the place that `SEG-F` or `SEG-F.C` names.

        Raises:
            BadInput: It names none.
        """
        found = _PATH.match(path)
        if found is None:
            raise BadInput("A profile names a field as SEG-F or SEG-F.C", where=path)
        component = found.group(3)
        return cls(found.group(1), int(found.group(2)), int(component) if component else None)

    def __str__(self) -> str:
        """Return the path as profiles write it."""
        return f"{self.segment}-{self.field}" + (f".{self.component}" if self.component else "")

    def text(self, segments: Iterable[Segment]) -> str:
        """Return the first value there; without a component the first component."""
        return next((text for segment in segments if (text := self.of(segment))), "")

    def of(self, segment: Segment) -> str:
        """Return the value in this one segment."""
        # Most fields are empty, and this is asked before the acknowledgement.
        if segment.id != self.segment or not segment.raw(self.field):
            return ""
        return segment[self.field].component(self.component or 1).strip()


@dataclass(frozen=True)
class Source:
    """One place where a value may stand, and what must hold before it is believed."""

    place: Place
    pattern: re.Pattern[str] | None = None
    filled: tuple[Place, ...] = ()
    equals: tuple[Place, ...] = ()
    match: tuple[tuple[Place, re.Pattern[str]], ...] = ()

    def find(self, segments: list[Segment]) -> tuple[str, Part] | None:
        """Return the value and the field that it stands in, or None."""
        for segment in segments:
            if segment.id != self.place.segment:
                continue
            value = self.place.of(segment)
            if value and self._believed(value, segment, segments):
                return value, segment[self.place.field]
        return None

    def _believed(self, value: str, segment: Segment, segments: list[Segment]) -> bool:
        if self.pattern is not None and not self.pattern.fullmatch(value):
            return False
        if not all(place.text(segments) for place in self.filled):
            return False
        if self.equals and value not in [place.text(segments) for place in self.equals]:
            return False
        # A condition on the same segment is asked of the very one that holds the value (OBX-3 of that OBX).
        return all(
            pattern.fullmatch(place.of(segment) if place.segment == segment.id else place.text(segments))
            for place, pattern in self.match
        )


@dataclass(frozen=True)
class Profile:
    """How one sender, or a group of senders, speaks."""

    name: str
    application: str
    facility: str
    time_zone: str
    charset: str
    default_charset: str
    processing_ids: frozenset[str]
    content_fault: Literal["AA", "AE"]
    storage_fault: Literal["AR", "close"]
    patient_keys: tuple[str, ...]
    not_keys: frozenset[str]
    sources: Mapping[str, tuple[Source, ...]] = field(repr=False)
    maps: Mapping[str, Mapping[str, str]] = field(repr=False)
    procedures: Mapping[str, str] = field(repr=False)
    places: Mapping[str, str] = field(repr=False)

    def find(self, what: str, segments: list[Segment]) -> tuple[str, Part] | None:
        """Return the first believed value of `what` (`accession`, `placer` ...) in a group of segments."""
        return next((found for source in self.sources[what] if (found := source.find(segments))), None)

    def value(self, what: str, segments: list[Segment]) -> str:
        """Return the text of `find`, or the empty string."""
        found = self.find(what, segments)
        return found[0] if found else ""

    def values(self, what: str, segments: list[Segment]) -> list[str]:
        """Return the believed values of `what`, best place first."""
        return [found[0] for source in self.sources[what] if (found := source.find(segments))]

    def translate(self, table: str, code: str) -> str | None:
        """Return what a code means; None when the profile does not know it."""
        return self.maps[table].get(code.strip().casefold() if table in _FOLDED else code.strip())

    def rank(self, kind: str) -> int | None:
        """Return how well a number of this type (CX-5) names the patient, 0 best; None when it numbers something else."""
        if kind in self.not_keys:
            return None
        return self.patient_keys.index(kind) if kind in self.patient_keys else len(self.patient_keys)

    def zone(self, site: ZoneInfo) -> ZoneInfo:
        """Return the zone of this sender's times without an offset."""
        return ZoneInfo(self.time_zone) if self.time_zone else site

    def parse(self, raw: bytes) -> Message:
        """Return the message in this sender's character set."""
        return Message.parse(raw, self.charset, self.default_charset)

    def fits(self, application: str, facility: str) -> int:
        """Return how exactly the profile names this sender; 0 when it is not for it."""
        if not (fnmatchcase(application, self.application) and fnmatchcase(facility, self.facility)):
            return 0
        return 1 + sum(
            len(pattern.replace("*", "")) + (pattern != "*") for pattern in (self.application, self.facility)
        )


class Profiles:
    """All profiles of a site; the default is always among them."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self.all = tuple(profiles)
        self._known: dict[tuple[str, str], Profile] = {}

    def of(self, application: str, facility: str) -> Profile:
        """Return the profile that names MSH-3 and MSH-4 most exactly."""
        key = (application, facility)
        found = self._known.get(key)
        if found is None:
            found = max(self.all, key=lambda profile: profile.fits(*key))
            if len(self._known) < 4096:  # senders choose these names: the cache must not grow without end
                self._known[key] = found
        return found

    def of_header(self, header: Header | None) -> Profile:
        """Return the profile of a frame's sender."""
        if header is None:
            return self.of("", "")
        component = header.fields[2][:1] or b"^"
        names = (header.field(number).split(component)[0].decode("utf-8", "replace").strip() for number in (3, 4))
        return self.of(*names)


def load(folder: Path | None = None) -> Profiles:
    """Return the default profile and those in a site's folder.

    Raises:
        BadInput: A profile has a fault; file and key are named.
    """
    found = sorted(folder.glob("*.toml")) if folder is not None else []
    return Profiles(reversed([read(), *(read(path) for path in found)]))


def read(path: Path | None = None) -> Profile:
    """Return the profile in a file, over the default one; without a file the default one.

    Raises:
        BadInput: It has a fault; file and key are named.
    """
    default = tomllib.loads(resources.files("arcuate.gateway.profiles").joinpath("default.toml").read_text("utf-8"))
    if path is None:
        return _profile(default, "default.toml")
    try:
        own = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"This profile cannot be read: {error}", where=str(path)) from error
    return _profile(_over(default, own), path.name)


def _over(default: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the default with a site's own keys over it: tables are merged, lists replaced."""
    merged = dict(default)
    for key, value in own.items():
        merged[key] = (
            {**default[key], **value} if isinstance(value, dict) and isinstance(default.get(key), dict) else value
        )
    return merged


def _profile(data: Mapping[str, Any], file: str) -> Profile:
    try:
        reading, answers = data["reading"], data["answers"]
        zone = reading["time_zone"]
        if zone:
            ZoneInfo(zone)
        if answers["content_fault"] not in ("AA", "AE") or answers["storage_fault"] not in ("AR", "close"):
            raise BadInput("content_fault is AA or AE, storage_fault is AR or close", where="answers")
        return Profile(
            name=data["name"],
            application=data["sender"]["application"],
            facility=data["sender"]["facility"],
            time_zone=zone,
            charset=reading["charset"],
            default_charset=reading["default_charset"],
            processing_ids=frozenset(reading["processing_ids"]),
            content_fault=answers["content_fault"],
            storage_fault=answers["storage_fault"],
            patient_keys=tuple(data["patient"]["keys"]),
            not_keys=frozenset(data["patient"]["not_keys"]),
            sources={what: tuple(_source(entry) for entry in data[what]) for what in _LISTS},
            maps={table: _codes(table, data[table], allowed) for table, allowed in _meanings().items()},
            procedures=_house("procedure_map", data["procedure_map"]),
            places=_house("location_map", data["location_map"]),
        )
    except (KeyError, TypeError, re.error, ZoneInfoNotFoundError, ValueError) as error:
        raise BadInput(f"This profile has a fault: {type(error).__name__} {error}", where=file) from error


@cache
def _meanings() -> Mapping[str, list[str]]:
    """Return `meanings.toml`: the maps of a profile, and what their codes may mean."""
    return tomllib.loads(resources.files("arcuate.gateway").joinpath("meanings.toml").read_text("utf-8"))


def _codes(table: str, entries: Mapping[str, str], allowed: Collection[str]) -> Mapping[str, str]:
    for code, meaning in entries.items():
        if meaning not in allowed:
            listed = ", ".join(filter(None, allowed))
            raise BadInput(f"{code} means {meaning!r}, which is none of: {listed}", where=table)
    return {code.casefold(): meaning for code, meaning in entries.items()} if table in _FOLDED else entries


def _house(table: str, entries: Mapping[str, str]) -> Mapping[str, str]:
    for code, ours in entries.items():
        if not isinstance(ours, str) or not ours.strip():
            raise BadInput(f"{code} names nothing of the house", where=table)
    return {code: ours.strip() for code, ours in entries.items()}


def _source(entry: Mapping[str, Any]) -> Source:
    return Source(
        Place.read(entry["path"]),
        re.compile(entry["pattern"]) if "pattern" in entry else None,
        tuple(Place.read(path) for path in entry.get("filled", ())),
        tuple(Place.read(path) for path in entry.get("equals", ())),
        tuple((Place.read(path), re.compile(pattern)) for path, pattern in entry.get("match", {}).items()),
    )
