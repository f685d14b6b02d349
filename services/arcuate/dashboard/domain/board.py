"""Today's board: what a visit's slot says, where a scanner stands, what the scheduler does next."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.words import percent

GONE = frozenset({"cancelled", "entered-in-error", "waitlist", "proposed"})
_HERE = frozenset({"arrived", "checked-in"})
_TURNOVER = timedelta(minutes=5)
_LEAST_HEIGHT = 24.0  # pixels of a slot: one line
_ABOVE_NOW = 90.0  # pixels of the past that stay in sight


class State(StrEnum):
    """What a slot looks like."""

    DONE = "done"
    MISSED = "missed"
    RUNNING = "running"
    HERE = "here"
    LATE = "late"  # the time has come, the person has not
    FLAGGED = "flagged"
    RISK = "risk"
    EXPECTED = "expected"


MARKS: Mapping[State, Mark] = {
    State.DONE: Mark.DONE, State.MISSED: Mark.UNKNOWN, State.RUNNING: Mark.RUNNING, State.HERE: Mark.WAITING,
    State.LATE: Mark.LOOK, State.FLAGGED: Mark.STOP, State.RISK: Mark.LOOK,
}  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """One reason of a forecast, with what it adds in points of the chance."""

    sentence: str
    points: float


@dataclass(frozen=True)
class Chance:
    """How likely somebody does not come (or cancels on the last day): fractions of 1, with an 80 % interval.

    Attributes:
        fallback: Why this is the site's rate and no model's answer; empty for a model's answer.
        model: Name and version of the model.
        like: Of how many visits with like chances how many were missed, as (missed, visits).
    """

    value: float
    low: float
    high: float
    reasons: tuple[Reason, ...] = ()
    fallback: str = ""
    model: str = ""
    like: tuple[int, int] | None = None
    late_cancel: float | None = None


@dataclass(frozen=True)
class Forecast:
    """Minutes as 10, 50 and 90 % quantiles."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class Flag:
    """A flag with its fix beside it."""

    id: str
    title: str
    detail: str
    fix: str
    severe: bool
    rule: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What our pages asked of the RIS and the RIS has not confirmed yet."""

    what: str
    at: datetime | None
    by: str
    taken: bool


@dataclass(frozen=True)
class Visit:
    """One appointment of the day with what is known of it.

    Attributes:
        id: Of the Appointment.
        status: Of the Appointment.
        short: Family name, for the slot.
        began: When the exam began; `ended` when it ended; `arrived` when the person came.
    """

    id: str
    scanner: str
    start: datetime
    end: datetime
    status: str
    name: str
    short: str
    exam: str
    case: str = ""
    phone: str = ""
    about: str = ""
    priority: str = "routine"
    arrived: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None
    chance: Chance | None = None
    wait: Forecast | None = None
    duration: Forecast | None = None
    flags: tuple[Flag, ...] = ()
    asked: Asked | None = None
    scanner_named: bool = True

    @property
    def minutes(self) -> int:
        """Return the length of the slot."""
        return max(5, round((self.end - self.start) / timedelta(minutes=1)))

    @property
    def severe(self) -> Flag | None:
        """Return the first flag that must be settled before the exam."""
        return next((f for f in self.flags if f.severe), None)

    @property
    def is_open(self) -> bool:
        """Return whether the visit still lies ahead: it can be moved or cancelled."""
        return self.status in ("booked", "pending") and self.began is None and self.ended is None

    @property
    def is_here(self) -> bool:
        """Return whether the person is here and waits."""
        return self.status in _HERE and self.began is None and self.ended is None

    def waited(self, now: datetime) -> float | None:
        """Return the minutes waited so far."""
        return None if self.arrived is None else max(0.0, (now - self.arrived) / timedelta(minutes=1))


@dataclass(frozen=True)
class Limits:
    """From when on something is shown or marked (the room's settings)."""

    shown_from: float = 0.04
    marked_from: float = 0.25
    free_min: int = 20
    late_min: int = 10


def state_of(visit: Visit, now: datetime, limits: Limits) -> State:
    """Return what the slot of a visit says; what has happened counts before what was forecast."""
    if visit.ended is not None or visit.status == "fulfilled":
        return State.DONE
    if visit.status == "noshow":
        return State.MISSED
    if visit.began is not None:
        return State.RUNNING
    if visit.severe is not None:
        return State.FLAGGED
    if visit.status in _HERE:
        return State.HERE
    if now - visit.start >= timedelta(minutes=limits.late_min):
        return State.LATE
    if visit.chance is not None and not visit.chance.fallback and visit.chance.value >= limits.marked_from:
        return State.RISK
    return State.EXPECTED


def note_of(visit: Visit, state: State, now: datetime) -> str:
    """Return the one line under the exam: what is missing, why at risk, minutes on the table."""
    if visit.asked is not None:
        return f"asked: {visit.asked.what}"
    minute = timedelta(minutes=1)
    match state:
        case State.RUNNING if visit.began is not None:
            return f"on table {int((now - visit.began) / minute)} of {visit.minutes} min"
        case State.DONE if visit.began is not None and visit.began - visit.start >= 5 * minute:
            return f"started {int((visit.began - visit.start) / minute)} min late"
        case State.MISSED:
            return "did not come"
        case State.FLAGGED if visit.severe is not None:
            return visit.severe.title
        case State.HERE:
            waited = visit.waited(now)
            return "here" if waited is None else "just came" if waited < 1 else f"here, waits {int(waited)} min"
        case State.LATE:
            return f"not here, {int((now - visit.start) / minute)} min past"
        case State.RISK if visit.chance is not None and visit.chance.reasons:
            return visit.chance.reasons[0].sentence
        case State.EXPECTED if visit.chance is not None and visit.chance.fallback:
            return f"site rate {percent(visit.chance.value)}"
    return ""


def brief_of(visit: Visit, state: State, now: datetime) -> str:
    """Return the note in two words, for a small slot; empty where the name says enough."""
    if visit.asked is not None:
        return "asked"
    if state is State.RUNNING and visit.began is not None:
        return f"{int((now - visit.began) / timedelta(minutes=1))} of {visit.minutes} min"
    waited = visit.waited(now) if state is State.HERE else None
    return f"{int(waited)} min" if waited is not None else ""


@dataclass(frozen=True)
class Free:
    """Time between two visits in which nothing is booked."""

    scanner: str
    start: datetime
    end: datetime

    @property
    def minutes(self) -> int:
        """Return its length."""
        return round((self.end - self.start) / timedelta(minutes=1))


@dataclass(frozen=True)
class Lane:
    """One scanner's day.

    Attributes:
        late: Minutes behind its slots, 0 when on time.
    """

    scanner: str
    visits: tuple[Visit, ...]
    free: tuple[Free, ...]
    late: int


def lanes(visits: Iterable[Visit], now: datetime, limits: Limits) -> list[Lane]:
    """Return the scanners by name, each with its visits by start and what is free between them."""
    by_scanner: dict[str, list[Visit]] = {}
    for visit in visits:
        by_scanner.setdefault(visit.scanner, []).append(visit)
    found = []
    for scanner, mine in sorted(by_scanner.items()):
        mine.sort(key=lambda v: (v.start, v.end, v.id))
        found.append(Lane(scanner, tuple(mine), tuple(_gaps(scanner, mine, now, limits)), _late(mine, now)))
    return found


def _gaps(scanner: str, visits: Sequence[Visit], now: datetime, limits: Limits) -> Iterable[Free]:
    """Between visits only: nobody tells us opening hours, so nothing is called free before the first and after the last."""
    least = timedelta(minutes=limits.free_min)
    taken = [v for v in visits if v.status != "noshow"]
    for before, after in pairwise(taken):
        begin = max(before.end, _next_five(now))
        if after.start - begin >= least:
            yield Free(scanner, begin, after.start)


def _next_five(now: datetime) -> datetime:
    rest = timedelta(minutes=now.minute % 5, seconds=now.second, microseconds=now.microsecond)
    return now - rest + timedelta(minutes=5) if rest else now


def _late(visits: Sequence[Visit], now: datetime) -> int:
    """Return by how many minutes the next person would start after their slot."""
    running = next((v for v in visits if v.began is not None and v.ended is None and v.status != "fulfilled"), None)
    ahead = [v for v in visits if v.began is None and v.ended is None and v.status in ("booked", "pending", *_HERE)]
    following = next((v for v in ahead if running is None or v.start >= running.start), None)
    if following is None:
        return 0
    begin = now
    if running is not None and running.began is not None:
        length = running.duration.p50 if running.duration else running.minutes
        begin = max(now, running.began + timedelta(minutes=length)) + _TURNOVER
    elif following.status not in _HERE:
        return 0  # an empty scanner that waits for somebody is not late itself
    return max(0, int((begin - following.start) / timedelta(minutes=1)))


def summary(day: Sequence[Lane]) -> tuple[int, int, int, int, int]:
    """Return how many wait here, are done, are planned in all, were missed, and how many minutes are free."""
    visits = [v for lane in day for v in lane.visits]
    here = sum(v.is_here for v in visits)
    done = sum(v.ended is not None or v.status == "fulfilled" for v in visits)
    missed = sum(v.status == "noshow" for v in visits)
    return here, done, len(visits), missed, sum(g.minutes for lane in day for g in lane.free)


@dataclass(frozen=True)
class Placed:
    """A slot on the time axis.

    Attributes:
        y: Pixels from the top; `height` in pixels.
        column: Place among slots of the same time, of `columns`.
        brief: The note in two words, where the slot is too small for it.
    """

    visit: Visit
    state: State
    note: str
    y: float
    height: float
    column: int = 0
    columns: int = 1
    brief: str = ""


@dataclass(frozen=True)
class Scale:
    """The board's time axis: pixels from the top, a fixed number a minute."""

    begin: datetime
    end: datetime
    per_minute: float = 1.9

    def y(self, moment: datetime) -> float:
        """Return the pixels of a moment."""
        return round((moment - self.begin) / timedelta(minutes=1) * self.per_minute, 1)

    @property
    def height(self) -> float:
        """Return the whole height."""
        return self.y(self.end)

    def hours(self) -> list[datetime]:
        """Return the whole hours on the axis (of the site's zone where its offset is whole hours, else of UTC)."""
        first = self.begin.replace(minute=0, second=0, microsecond=0)
        count = int((self.end - first) / timedelta(hours=1)) + 1
        return [h for i in range(count) if self.begin <= (h := first + timedelta(hours=i)) <= self.end]


def scale_of(day: Sequence[Lane], now: datetime) -> Scale:
    """Return an axis that holds every visit, and now where it is near."""
    visits = [v for lane in day for v in lane.visits]
    begin, end = min(v.start for v in visits), max(v.end for v in visits)
    margin = timedelta(minutes=15)
    if begin - timedelta(hours=4) < now < end + timedelta(hours=4):
        begin, end = min(begin, now), max(end, now)
    return Scale(begin - margin, end + margin)


def opening_y(day: Sequence[Lane], scale: Scale, now: datetime) -> float:
    """Return where the board's window begins when it opens: some minutes before now, and through as few slots as can be."""
    wished = max(0.0, scale.y(now) - _ABOVE_NOW)
    spans = [
        (scale.y(v.start), max(scale.y(v.end), scale.y(v.start) + _LEAST_HEIGHT)) for lane in day for v in lane.visits
    ]
    near = [max(0.0, top - 4) for top, _ in spans if abs(top - wished) <= _ABOVE_NOW]

    def cost(y: float) -> tuple[int, float]:
        return sum(top < y < bottom for top, bottom in spans), abs(y - wished)

    best: float = min([wished, *near], key=cost)
    return round(best, 1)


def placed(lane: Lane, scale: Scale, now: datetime, limits: Limits) -> list[Placed]:
    """Return a scanner's slots on the axis; slots at the same time stand side by side."""
    found: list[Placed] = []
    group: list[Visit] = []
    for visit in (*lane.visits, None):
        if visit is not None and group and visit.start < max(v.end for v in group):
            group.append(visit)
            continue
        found += [_place(v, i, len(group), scale, now, limits) for i, v in enumerate(group)]
        group = [visit] if visit is not None else []
    return found


def _place(visit: Visit, column: int, columns: int, scale: Scale, now: datetime, limits: Limits) -> Placed:
    state = state_of(visit, now, limits)
    height = max(_LEAST_HEIGHT, scale.y(visit.end) - scale.y(visit.start) - 2)
    brief = brief_of(visit, state, now)
    return Placed(
        visit, state, note_of(visit, state, now), scale.y(visit.start), round(height, 1), column, columns, brief
    )
