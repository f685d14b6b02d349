"""One case: its way as stops with times, what happened, what was measured, what the draft says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from arcuate.dashboard.charts import Stop
from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.words import Wording, span

STAGES = (
    "ordered",
    "checked",
    "booked",
    "arrived",
    "scanned",
    "quantified",
    "assigned",
    "drafted",
    "signed",
    "delivered",
)
_ENDED = {"cancelled": "cancelled", "expired": "expired"}
_LATE_START = timedelta(minutes=10)
_UNREVIEWED = "not reviewed)"  # how the reporting room ends the state of a value that nobody has accepted


@dataclass(frozen=True)
class Reached:
    """When a stage was reached; `until` for one that lasts (the exam).

    Attributes:
        skipped: Why the stage has nothing to show, for example "no images".
    """

    at: datetime
    until: datetime | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Way:
    """What the stage line is made from.

    Attributes:
        stage: Where the case stands by the ledger; empty while unknown.
        planned: When the exam was or is to begin.
        due: Until when it is to be read.
    """

    reached: Mapping[str, Reached]
    stage: str
    held: bool = False
    planned: datetime | None = None
    due: datetime | None = None


def stops(way: Way, words: Wording) -> list[Stop]:
    """Return the ten stops with times, and the time between those that follow each other."""
    made: list[Stop] = []
    before: Reached | None = None
    over = way.stage in ENDS
    furthest = max((i for i, name in enumerate(STAGES) if name in way.reached), default=-1)
    for index, name in enumerate(STAGES):
        reached = way.reached.get(name)
        if reached is None:
            made.append(_not_reached(name, index, furthest, way, words, over=over))
            continue
        late = name == "scanned" and _started_late(reached, way)
        since = _between(before, reached, late=late)
        state = "skipped" if reached.skipped else "parked" if way.held and index == furthest else "done"
        made.append(Stop(name.capitalize(), state, reached.skipped or _times(reached, words), since, late))
        before = reached
    return made


ENDS = frozenset({"cancelled", "expired", "delivered"})


def _not_reached(name: str, index: int, furthest: int, way: Way, words: Wording, *, over: bool) -> Stop:
    if index < furthest:
        return Stop(name.capitalize(), "skipped", "not told")
    if over:
        return Stop(name.capitalize(), "skipped", _ENDED.get(way.stage, "") if index == furthest + 1 else "")
    if index > furthest + 1:
        return Stop(name.capitalize(), "ahead")
    if name in ("assigned", "drafted", "signed") and way.due is not None:
        late = words.now > way.due
        return Stop(name.capitalize(), "now", f"due {words.when(way.due)}", "late" if late else "", late)
    if name in ("arrived", "scanned") and way.planned is not None:
        return Stop(name.capitalize(), "now", words.when(way.planned))
    return Stop(name.capitalize(), "now", "next")


def _started_late(reached: Reached, way: Way) -> bool:
    return way.planned is not None and reached.at - way.planned >= _LATE_START


def _between(before: Reached | None, reached: Reached, *, late: bool) -> str:
    if before is None:
        return ""
    gap = (reached.at - (before.until or before.at)).total_seconds()
    if gap < 0:
        return ""
    return f"{span(gap)} wait" if late else span(gap)


def _times(reached: Reached, words: Wording) -> str:
    if reached.until is not None and words.is_today(reached.at) and reached.until - reached.at >= timedelta(minutes=1):
        return f"{words.clock(reached.at)} to {words.clock(reached.until)}"
    return words.when(reached.at)


class Kind(StrEnum):
    """What an event is, for the filter: main ones, all, or messages."""

    MAIN = "main"
    MORE = "more"
    MESSAGE = "message"


@dataclass(frozen=True)
class Event:
    """One thing that happened: when, by what (person, machine, message), a sentence and its cause."""

    at: datetime
    mark: Mark
    sentence: str
    cause: str = ""
    kind: Kind = Kind.MAIN


def shown_events(events: Sequence[Event], chosen: str) -> list[Event]:
    """Return events newest first: the main ones, all, or messages alone."""
    wanted = [
        e for e in events
        if chosen == "all" or (chosen == "messages" and e.kind is Kind.MESSAGE) or (chosen == "main" and e.kind is Kind.MAIN)
    ]  # fmt: skip
    return sorted(wanted, key=lambda e: e.at, reverse=True)


@dataclass(frozen=True)
class Measured:
    """One structure: a value for each side, or one for the whole.

    Attributes:
        reviewed: Whether a person has accepted every value of the row.
        values: By side ("left", "right", "both"), or under "" for a structure without sides.
        sides, since: The comparisons in words beside their limits; empty where none is told. `day`: since when.
    """

    name: str
    code: str
    values: Mapping[str, Decimal]
    unit: str
    reviewed: bool
    sides: str = ""
    since: str = ""
    day: date | None = None

    @property
    def count(self) -> int:
        """Return how many values the row holds."""
        return len(self.values)

    @property
    def difference(self) -> str:
        """Return by how much the sides differ: as judged beside its limit, else as a statement of size, not of meaning."""
        if self.sides:
            return f"sides {self.sides}" if self.sides.startswith("within") else self.sides
        left, right = self.values.get("left"), self.values.get("right")
        if left is None or right is None or left + right == 0:
            return ""
        share = abs(left - right) / ((left + right) / 2) * 100
        if share < 1:
            return "sides equal"
        return f"{'left' if left > right else 'right'} {share:.0f} % larger"

    def words(self, wording: Wording) -> str:
        """Return sides and change as one phrase."""
        since = f"since {wording.date(self.day)}" if self.day else "since earlier"
        if self.sides == self.since != "":
            return f"sides, and {since}: {self.sides}"
        told = f"{since}: {self.since}" if self.since else ""
        return "; ".join(text for text in (self.difference, told) if text)


@dataclass(frozen=True)
class DraftLine:
    """One line of a draft.

    Attributes:
        kind: head, open (a person must state it), machine (a value nobody has accepted), quote (the referrer's words), blank or plain.
        value: For a machine line, the value's text; `text` is what stands before it, `after` its source and state.
    """

    kind: str
    text: str
    value: str = ""
    after: str = ""


def draft_lines(text: str) -> list[DraftLine]:
    """Return a draft's lines by what they are; the words themselves stay as the reporting room wrote them."""
    return [_draft_line(line.rstrip()) for line in text.replace("\r\n", "\n").strip().split("\n")]


def _draft_line(line: str) -> DraftLine:
    if not line:
        return DraftLine("blank", "")
    if line.startswith("[") and line.endswith("]") and "dictated" in line:
        return DraftLine("open", line.strip("[]"))
    if line.isupper() and len(line) > 2 and line[0].isalpha() and ":" not in line:
        return DraftLine("head", line.capitalize())
    stated, bracket, state = line.rpartition(" (")
    name, colon, rest = stated.partition(": ")
    if bracket and colon and state.endswith(_UNREVIEWED):
        value, source, after = rest.partition(" [")
        return DraftLine("machine", f"{name}:", value, f"{source.strip()}{after} ({state}".strip())
    if line.startswith("> "):
        return DraftLine("quote", line.removeprefix("> "))
    return DraftLine("plain", line)


@dataclass(frozen=True)
class Prior:
    """An earlier report or exam of the patient."""

    at: datetime
    name: str
    by: str = ""


@dataclass(frozen=True)
class Said:
    """What one source states of a person, for a conflict of identity: both stand side by side."""

    source: str
    number: str
    name: str
    born: str
    sex: str
