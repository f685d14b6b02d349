"""Connections and parked messages: states in words, what is accounted for, how a message is mended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.words import span

_LEAST_MESSAGES = 20
_QUIET_TIMES, _QUIET_LEAST_S = 6.0, 600.0
_MINUTES = 60
_HEADERS = ("MSH", "FHS", "BHS")  # their field 1 is the separator itself (HL7 v2.5.1, 2.15.9)


@dataclass(frozen=True)
class Traffic:
    """When the newest messages of a connection came.

    Attributes:
        times: Newest first.
        complete: Whether these are all of the last hour.
    """

    times: tuple[datetime, ...] = ()
    complete: bool = True

    def usual_s(self) -> float | None:
        """Return the usual seconds between two messages; None where too few are known."""
        gaps = [(a - b).total_seconds() for a, b in pairwise(self.times)]
        return median(gaps) if len(gaps) >= _LEAST_MESSAGES else None

    def per_minute(self, now: datetime) -> list[int] | None:
        """Return the messages of each of the last 60 minutes; None when more came than are known."""
        if not self.complete:
            return None
        counts = [0] * _MINUTES
        for at in self.times:
            minute = int((now - at) / timedelta(minutes=1))
            if 0 <= minute < _MINUTES:
                counts[_MINUTES - 1 - minute] += 1
        return counts


@dataclass(frozen=True)
class Connection:
    """One sender or receiver.

    Attributes:
        name: As people call it; `id` marks it in an address.
        kind: What it carries, as a second line.
        mark: Its state's mark; `state` its state in words.
        worst: Larger is worse, for the selection.
        detail: Label and text rows of the side column.
    """

    id: str
    name: str
    kind: str
    incoming: bool
    mark: Mark
    state: str
    tone: str
    last: datetime | None
    last_words: str
    waiting: int
    parked: int
    counted: str
    worst: int
    per_minute: tuple[int, ...] | None = None
    detail: tuple[tuple[str, str], ...] = ()
    sentence: str = ""


def quiet(last: datetime | None, traffic: Traffic, now: datetime) -> str:
    """Return why a sender's silence is unusual, or an empty text."""
    usual = traffic.usual_s()
    if last is None or usual is None:
        return ""
    silence = (now - last).total_seconds()
    if silence < max(_QUIET_LEAST_S, _QUIET_TIMES * usual):
        return ""
    return f"{span(silence)}, usual {span(usual)}"


# What becomes of a message, as people say it, in the order in which the sum is shown.
OUTCOMES = (
    ("applied", "Applied to the record"), ("ignored", "Known and not needed"), ("acknowledgement", "Acknowledgements of ours"),
    ("waiting", "Being worked on"), ("kept", "Cancellations that wait for their order"), ("unmatched", "Results that wait for their order"),
    ("parked", "Parked with a reason"), ("discarded", "Set aside by a person"), ("expired", "Waited in vain"),
)  # fmt: skip


def accounted(messages: int, states: Mapping[str, int]) -> tuple[list[tuple[str, int]], int]:
    """Return what became of all messages, and how many have no end that we know."""
    rows = [(words, states.get(state, 0)) for state, words in OUTCOMES]
    return rows, messages - sum(number for _, number in rows)


@dataclass(frozen=True)
class Segment:
    """One segment of a message.

    Attributes:
        fields: By HL7 number; index 0 is the segment's name, and MSH-1 is the separator itself.
        faulty: Number of the faulty field, 0 for the segment as a whole; None when nothing is wrong here.
    """

    id: str
    fields: tuple[str, ...]
    faulty: int | None = None

    def numbered(self) -> list[tuple[int, str]]:
        """Return the fields that follow a separator, each with its HL7 number."""
        first = 2 if self.id in _HEADERS else 1
        return [(n, text) for n, text in enumerate(self.fields) if n >= first]


def mended(text: str, segment: str, field: int, value: str, *, repetition: int = 1) -> str:
    """Return a copy of a message in which one field is replaced; everything else stays byte for byte.

    Args:
        segment: Name of the segment; `repetition` counts those of the same name.
        field: HL7 number of the field.
    """
    lines = text.replace("\r\n", "\r").replace("\n", "\r").split("\r")
    separator = text[3:4] or "|"
    seen = 0
    for index, line in enumerate(lines):
        if line[:3] != segment:
            continue
        seen += 1
        if seen != repetition:
            continue
        place = field - 1 if segment in _HEADERS else field
        parts = line.split(separator)
        parts += [""] * (place + 1 - len(parts))
        parts[place] = value
        lines[index] = separator.join(parts)
        break
    return "\r".join(lines)


@dataclass(frozen=True)
class Hl7Words:
    """Names of HL7 fields, and causes of the error queue in words (`hl7.toml`)."""

    fields: Mapping[str, str]
    titles: Mapping[str, str]
    todos: Mapping[str, str]

    def field(self, location: str) -> str:
        """Return a place with its name: "PID-7, birth date"."""
        name = self.fields.get(location.split(".", maxsplit=1)[0], "")
        return f"{location}, {name}" if name else location

    def title(self, cause: str) -> str:
        """Return a cause as a heading; one that is not known keeps the gateway's own words."""
        return self.titles.get(cause, cause[:1].upper() + cause[1:])

    def fault(self, location: str, reason: str) -> str:
        """Return what is wrong, with its place named once."""
        bare = reason.removeprefix(location).strip() if location else reason
        return f"{self.field(location)}: {bare}" if location else reason


@dataclass(frozen=True)
class ParkedItem:
    """One message that a person must look at, without its content."""

    id: str
    cause: str
    kind: str
    party: str
    at: datetime | None
    state: str


@dataclass(frozen=True)
class ParkedGroup:
    """Messages parked for the same cause; `count` may be more than the items that are listed."""

    cause: str
    count: int
    items: tuple[ParkedItem, ...]


def grouped(items: Sequence[ParkedItem], counts: Mapping[str, int], shown: int) -> list[ParkedGroup]:
    """Return items by cause, the largest group first, each with its newest ones."""
    by_cause: dict[str, list[ParkedItem]] = {}
    for item in items:
        by_cause.setdefault(item.cause, []).append(item)
    causes = sorted({*by_cause, *counts}, key=lambda c: (-counts.get(c, len(by_cause.get(c, []))), c))
    return [
        ParkedGroup(c, max(counts.get(c, 0), len(by_cause.get(c, []))), tuple(by_cause.get(c, [])[:shown]))
        for c in causes
    ]
