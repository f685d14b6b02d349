"""One synthetic morning: the day plan of `data/morning.toml` made into people, orders, slots and timed steps, relative to now."""

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

from arcuate.hospital.exams import SCANNERS, Exam, booked_minutes, exam_of, load_exams
from arcuate.hospital.patients import Person, invent, load_given_names
from arcuate.hospital.readers import Reader, load_readers
from arcuate.hospital.settings import HospitalSettings
from arcuate.kernel.errors import Defect

_PAST_MIN, _AHEAD_MIN = 215.0, 260.0
"""How far the plan reaches back and ahead of now; near midnight both are squeezed, so that the day stays one day."""
_LEAST_SPAN_MIN = 45.0
_PREPARE_MIN = 5.0


class Kind(StrEnum):
    """What happens at a step, as the hospital tells it."""

    REGISTER = "register"
    ORDER = "order"
    BOOK = "book"
    CHANGE = "change"
    MOVE = "move"
    LABORATORY = "laboratory"
    CANCEL_BOOKING = "cancel booking"
    CANCEL_ORDER = "cancel order"
    NO_SHOW = "no-show"
    ARRIVE = "arrive"
    BEGIN = "begin"
    IMAGES = "images"
    DONE = "done"


@dataclass(frozen=True)
class Prior:
    """An earlier report of the patient: when, and who read it (a reader's name)."""

    reported: datetime
    reader: str


@dataclass(frozen=True)
class Case:
    """One order's script. Times are aware; `end` is `delivered`, `cancelled`, `expired` or `open` (not part of the script).

    Attributes:
        exam_then: The exam after the RIS has corrected the order, else None.
        first_slot: The slot before it was moved, else None.
        ventricles: Width of the invented head's ventricles in standard deviations; None: no images are sent.
        egfr_at: When the laboratory reports the eGFR; None: it comes with the order, if there is one.
        past: Outcomes of earlier visits (`noshow`, `fulfilled`), oldest first.
    """

    key: str
    accession: str
    placer: str
    appointment: str
    visit: str
    person: Person
    exam: Exam
    exam_then: Exam | None
    indication: str
    priority: str
    setting: str
    scanner: str
    course: str
    ordered: datetime
    booked: datetime
    slot: datetime
    first_slot: datetime | None
    minutes: int
    ventricles: float | None
    prior: Prior | None
    past: tuple[str, ...]
    egfr: float | None
    egfr_at: datetime | None
    end: str
    head_seed: int

    @property
    def exam_done(self) -> Exam:
        """Return the exam that is made in the end."""
        return self.exam_then or self.exam


@dataclass(frozen=True)
class Step:
    """Something that happens to a case at a time."""

    at: datetime
    kind: Kind
    case: Case


@dataclass(frozen=True)
class Morning:
    """A morning: its cases, their steps in order of time, and who reads."""

    made_at: datetime
    zone: ZoneInfo
    cases: tuple[Case, ...]
    steps: tuple[Step, ...]
    readers: tuple[Reader, ...]
    seed: int

    @property
    def doors_open(self) -> datetime:
        """Return when the day begins; what is older is the RIS's first load."""
        return min(c.slot for c in self.cases if c.course != "withdrawn") - timedelta(minutes=60)


async def expected_ends(morning: Morning) -> dict[str, str]:
    """Return the scripted end by accession number: `delivered`, `cancelled` or `expired`; open cases have none."""
    return {case.accession: case.end for case in morning.cases if case.end != "open"}


def make_morning(seed: int, now: datetime, zone: ZoneInfo, settings: HospitalSettings | None = None) -> Morning:
    """Make the morning around `now` (aware). Same seed, now and settings, same morning."""
    table = _plan()
    source = random.Random(f"morning {seed}")  # noqa: S311 - a simulation wants a seeded source
    calendar = _Calendar(now, zone)
    readers = load_readers(now, calendar.place)
    maker = _Maker(calendar, source, settings or HospitalSettings(), readers, seed)
    cases: list[Case] = []
    steps: list[Step] = []
    for row in table:
        case = maker.case(row, cases)
        cases.append(case)
        steps += maker.steps(case, row)
    ordered = sorted(enumerate(steps), key=lambda pair: (pair[1].at, pair[0]))
    return Morning(now, zone, tuple(cases), tuple(step for _, step in ordered), readers, seed)


def _plan() -> list[dict[str, Any]]:
    text = (files("arcuate.hospital") / "data" / "morning.toml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["case"]
    return rows


@dataclass(frozen=True)
class _Calendar:
    """Places minutes from now on the site's day; near midnight the plan is squeezed into the same day."""

    now: datetime
    zone: ZoneInfo

    @property
    def back(self) -> float:
        """Return by how much the plan's past is squeezed (1: not at all)."""
        return min(1.0, max(_LEAST_SPAN_MIN, self._since_midnight) / _PAST_MIN)

    @property
    def _since_midnight(self) -> float:
        local = self.now.astimezone(self.zone)
        return local.hour * 60 + local.minute - 2.0

    def place(self, minutes: float) -> datetime:
        ahead = min(1.0, max(_LEAST_SPAN_MIN, 1434.0 - self._since_midnight) / _AHEAD_MIN)
        return self.now + timedelta(minutes=minutes * (self.back if minutes < 0 else ahead))

    def slot(self, minutes: float) -> datetime:
        """Return the slot's start, on five minutes."""
        at = self.place(minutes).replace(second=0, microsecond=0)
        return at - timedelta(minutes=at.minute % 5)

    def office(self, day: datetime, source: random.Random) -> datetime:
        """Return a time in office hours on that day."""
        local = day.astimezone(self.zone)
        return local.replace(hour=source.randint(8, 16), minute=source.randint(0, 59), second=source.randint(0, 59))


class _Maker:
    def __init__(
        self, calendar: _Calendar, source: random.Random, settings: HospitalSettings, readers: Sequence[Reader], seed: int
    ) -> None:  # fmt: skip
        self._calendar = calendar
        self._source = source
        self._settings = settings
        self._readers = readers
        self._seed = seed
        self._exams = load_exams()
        self._given = load_given_names()
        self._stamp = calendar.now.astimezone(calendar.zone).strftime("%y%m%d%H%M")

    def case(self, row: Mapping[str, Any], earlier: Sequence[Case]) -> Case:
        """Return the case of a row of the plan."""
        number = len(earlier) + 1
        exam = exam_of(self._exams, row["exam"])
        then = exam_of(self._exams, row["to"]) if "to" in row else None
        slot = self._calendar.slot(row["start"])
        ordered, booked = self._times(row, slot)
        return Case(
            key=row["key"],
            accession=f"SY{self._stamp}{number:02d}",
            placer=f"PL{self._stamp}{number:02d}",
            appointment=f"AP{self._stamp}{number:02d}",
            visit=f"VN{self._stamp}{number:02d}",
            person=self._person(row, number, earlier),
            exam=exam,
            exam_then=then,
            indication=row["indication"],
            priority=row.get("priority", "routine"),
            setting=row.get("setting", "O"),
            scanner=row["scanner"],
            course=row["course"],
            ordered=ordered,
            booked=booked,
            slot=slot,
            first_slot=self._calendar.slot(row["from"]) if "from" in row else None,
            minutes=booked_minutes(then or exam, next(s for s in SCANNERS if s.name == row["scanner"])),
            ventricles=row.get("head"),
            prior=self._prior(row),
            past=tuple(row.get("past", ())),
            egfr=row.get("egfr"),
            egfr_at=self._calendar.place(row["lab"]) if "lab" in row else None,
            end=row["end"],
            head_seed=self._seed * 1000 + number,
        )

    def _person(self, row: Mapping[str, Any], number: int, earlier: Sequence[Case]) -> Person:
        if same := row.get("same_person_as"):
            return next(case.person for case in earlier if case.key == same)
        made = invent(
            400 + number,
            row["age"],
            row["sex"] == "M",
            self._calendar.now.date(),
            source=self._source,
            given=self._given,
        )
        changes: dict[str, Any] = {"number": f"S{self._stamp}{number:02d}"}
        if "mobile" in row or "past" in row:
            changes["mobile"] = made.mobile or "+000 555 00400" if row.get("mobile", True) else ""
        if "single" in row:
            changes["single"] = bool(row["single"])
        if "ring" in row:
            changes["postal_code"] = f"SY{row['ring']}{made.postal_code[3:]}"
        return replace(made, **changes)

    def _times(self, row: Mapping[str, Any], slot: datetime) -> tuple[datetime, datetime]:
        """Return when it was ordered and when it was booked."""
        if row["course"] == "withdrawn":
            ordered = self._calendar.place(-75 - self._source.random() * 60)
            return ordered, ordered
        if row["booked"] == 0:
            ordered = slot - timedelta(minutes=(48 + self._source.randint(0, 10)) * self._calendar.back)
            return ordered, ordered + timedelta(minutes=4 * self._calendar.back)
        booked = self._calendar.office(slot - timedelta(days=row["booked"]), self._source)
        return booked - timedelta(minutes=self._source.randint(40, 1500)), booked

    def _prior(self, row: Mapping[str, Any]) -> Prior | None:
        if "prior" not in row:
            return None
        field = exam_of(self._exams, row["exam"]).skill
        able = [r.name for r in self._readers if r.skill.get(field, 0) >= 2]
        return Prior(self._calendar.now - timedelta(days=row["prior"]), self._source.choice(able))

    def steps(self, case: Case, row: Mapping[str, Any]) -> list[Step]:
        """Return what happens to the case, by its course."""
        minute = timedelta(minutes=self._calendar.back)
        found = [(case.ordered - minute, Kind.REGISTER), (case.ordered, Kind.ORDER)]
        if case.course == "withdrawn":
            found.append((case.ordered + 25 * minute, Kind.CANCEL_ORDER))
            return [Step(at, kind, case) for at, kind in found]
        found.append((case.booked, Kind.BOOK))
        if case.egfr_at is not None:
            found.append((case.egfr_at, Kind.LABORATORY))
        if case.course == "late_cancel":
            gone = case.slot - 70 * minute
            found += [(gone, Kind.CANCEL_BOOKING), (gone + 3 * minute, Kind.CANCEL_ORDER)]
        elif case.course == "no_show" or row.get("absent"):
            found.append((case.slot + 20 * minute, Kind.NO_SHOW))
        else:
            if case.course == "moved":
                found.append((case.slot - 55 * minute, Kind.MOVE))
            if case.course == "corrected":
                found.append((case.slot - 50 * minute, Kind.CHANGE))
            found += self._visit(case)
        return [Step(at, kind, case) for at, kind in found]

    def _visit(self, case: Case) -> list[tuple[datetime, Kind]]:
        """Return arrival, exam and images; what the course says of now holds whatever the draw."""
        now = self._calendar.now
        minute = timedelta(minutes=self._calendar.back)
        source = self._source
        early = source.uniform(24, 38) if case.setting == "O" else source.uniform(12, 18)
        arrive, begin = case.slot - early * minute, case.slot + source.uniform(0, 4) * minute
        length = min(case.exam_done.minutes * source.uniform(0.8, 1.15), case.minutes - _PREPARE_MIN)
        done = begin + length * minute
        if case.course == "on_table":
            arrive, begin = min(arrive, now - 25 * minute), min(begin, now - 4 * minute)
            done = max(done, now + 5 * minute)
        elif case.course == "waiting":
            arrive, begin = min(arrive, now - 6 * minute), max(begin, now + 4 * minute)
            done = begin + length * minute
        elif case.course == "booked":
            arrive = max(arrive, now + source.uniform(1, 6) * minute)
            begin = max(begin, arrive + 8 * minute)
            done = begin + length * minute
        elif done > now:
            raise Defect(f"The plan's case {case.key} is not over before now", where="hospital/data/morning.toml")
        found = [(arrive, Kind.ARRIVE), (begin, Kind.BEGIN), (done, Kind.DONE)]
        if case.ventricles is not None:
            found.append((done + timedelta(seconds=30), Kind.IMAGES))
        return found
