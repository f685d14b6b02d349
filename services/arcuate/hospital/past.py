"""Months of the department as they happened: who was booked when, who came, who was scanned how long.

Read `draw_past` first. The truth behind it (chances, hidden traits) is part of what it returns and of nothing else.
"""

from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby

import numpy as np
import numpy.typing as npt

from arcuate.hospital import appointments as day_of
from arcuate.hospital.attendance import FULFILLED, LATE_CANCEL, Bookings, Chances, draw_outcomes
from arcuate.hospital.exams import SCANNERS, Exam, load_exams
from arcuate.hospital.patients import Population, populate
from arcuate.hospital.settings import HospitalSettings
from arcuate.hospital.timeline import DAY, months_before, office_time, working_days

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EARLY_CANCEL = 3


@dataclass(frozen=True)
class Booking:
    """One appointment of the past. Local times in minutes (see `timeline`); `changed` = when its last state became known."""

    order: int
    person: int
    exam: int
    scanner: int
    setting: str  # AMB, EMER, IMP
    authored: float
    created: float
    start: float
    outcome: int
    changed: float
    arrival: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    stopped: bool = False


@dataclass(frozen=True)
class Past:
    """Everything that happened, and the truth behind the planned bookings that still stood 24 h before."""

    people: Population
    bookings: tuple[Booking, ...]
    standing: Bookings
    chances: Chances


def draw_past(settings: HospitalSettings, seed: int, months: int) -> Past:
    """Draw the months before `settings.history_end`."""
    rng = np.random.default_rng([seed, 1])
    exams = load_exams()
    people = populate(settings, rng, settings.history_end)
    days = working_days(months_before(settings.history_end, months), settings.history_end)
    slots = [slot for day in days for slot in day_of.day_grid(day, SCANNERS, exams, settings, rng)]
    planned = _plan(slots, exams, people, settings, rng)
    standing = _standing(planned.bookings, planned.moved, exams, people)
    early = settings.cancel_rate * (1 - settings.late_cancel_share)
    late_rate = settings.cancel_rate * settings.late_cancel_share / (1 - early)
    chances = draw_outcomes(standing, people, settings.no_show_rate, late_rate, rng)
    decided = [_decide(b, int(o), rng) for b, o in zip(planned.bookings, chances.outcome, strict=True)]
    unplanned = _unplanned(days, exams, people, settings, rng, first_order=planned.next_order)
    served = _serve([*decided, *unplanned], exams, settings, rng)
    everything = sorted([*served, *planned.cancelled], key=lambda b: (b.start, b.scanner, b.order, b.created))
    return Past(people, tuple(everything), standing, chances)


@dataclass(frozen=True)
class _Planned:
    bookings: list[Booking]  # stood 24 h before, in the order of the slots
    moved: Ints
    cancelled: list[Booking]  # cancelled earlier
    next_order: int


def _plan(
    slots: list[day_of.PlannedSlot],
    exams: tuple[Exam, ...],
    people: Population,
    settings: HospitalSettings,
    rng: np.random.Generator,
) -> _Planned:
    n = len(slots)
    person = rng.choice(len(people), n, p=people.demand)
    start = np.array([slot.day * DAY + slot.minute for slot in slots])
    total = day_of.lead_days(n, settings, rng)
    delay = np.minimum(0.35 * total, np.exp(rng.normal(np.log(0.6), 0.8, n)))
    created = office_time(start - (total - delay) * DAY, start - 30, rng)
    moved, chains, alone = _early_cancellations(created, person, people, settings, rng)
    cancelled: list[Booking] = []
    bookings: list[Booking] = []
    for order, slot in enumerate(slots):
        mine = Booking(
            order,
            int(person[order]),
            slot.exam,
            slot.scanner,
            "AMB",
            0.0,
            float(created[order]),
            float(start[order]),
            FULFILLED,
            0.0,
        )
        earlier = _earlier_dates(mine, chains.get(order, 0), settings, rng)
        first = earlier[0].created if earlier else mine.created
        authored = first - max(5.0, float(delay[order]) * DAY)
        cancelled.extend(replace(b, authored=authored) for b in earlier)
        bookings.append(replace(mine, authored=authored))
    for number, slot_index in enumerate(alone):
        like = replace(bookings[slot_index], order=n + number, person=int(rng.choice(len(people), p=people.demand)))
        (gone,) = _earlier_dates(like, 1, settings, rng)
        cancelled.append(replace(gone, authored=gone.created - float(rng.uniform(5, 2000))))
    return _Planned(bookings, moved, cancelled, n + len(alone))


def _early_cancellations(
    created: Floats, person: Ints, people: Population, settings: HospitalSettings, rng: np.random.Generator
) -> tuple[Ints, dict[int, int], list[int]]:
    """Return how often each order was moved before, the same as a sparse table, and slots like which an order was given up."""
    n = len(created)
    share = settings.cancel_rate * (1 - settings.late_cancel_share)
    count = round(n * share / (1 - share))
    rebooked = round(count * settings.rebooked_share)
    weight = np.exp(0.4 * people.tendency[person])
    moved = np.bincount(rng.choice(n, rebooked, p=weight / weight.sum()), minlength=n)
    alone = [int(i) for i in rng.choice(n, count - rebooked)]
    return moved, {int(i): int(moved[i]) for i in np.flatnonzero(moved)}, alone


def _earlier_dates(last: Booking, count: int, settings: HospitalSettings, rng: np.random.Generator) -> list[Booking]:
    """Return dates of the same order that were cancelled more than 24 h before, oldest first."""
    found: list[Booking] = []
    next_created = last.created
    for _ in range(count):
        cancelled_at = next_created - float(rng.uniform(2, 90))
        lead = max(2.5, float(day_of.lead_days(1, settings, rng)[0])) * DAY
        part = float(rng.uniform(0.1, 0.9))
        start = np.floor((cancelled_at + max(2 * DAY, (1 - part) * lead)) / DAY) * DAY
        while date.fromordinal(int(start // DAY)).weekday() >= 5:
            start += DAY
        start += float(rng.integers(7 * 12, 17 * 12) * 5)
        created = cancelled_at - max(20.0, part * lead)
        found.append(replace(last, created=created, start=start, outcome=EARLY_CANCEL, changed=cancelled_at))
        next_created = created
    return found[::-1]


def _standing(bookings: list[Booking], moved: Ints, exams: tuple[Exam, ...], people: Population) -> Bookings:
    start = np.array([b.start for b in bookings])
    created = np.array([b.created for b in bookings])
    person = np.array([b.person for b in bookings])
    day = np.floor(start / DAY).astype(np.int64)
    return Bookings(
        person=person,
        lead_days=(start - created) / DAY,
        age=(day - people.birth[person]) / 365.25,
        minute=(start % DAY).astype(np.int64),
        weekday=(day - 1) % 7,  # ordinal 1 is a Monday
        moved=moved,
        contrast=np.array([exams[b.exam].contrast != "none" for b in bookings]),
        urgent=np.array([priority_of(b) != "routine" for b in bookings]),
    )


def priority_of(booking: Booking) -> str:
    """Return ServiceRequest.priority: unplanned work is stat; about one planned order in eight is urgent."""
    if booking.setting != "AMB":
        return "stat"
    return "urgent" if booking.order * 2654435761 % 2**32 < 2**29 else "routine"


def _decide(booking: Booking, outcome: int, rng: np.random.Generator) -> Booking:
    changed = booking.start + 30.0
    if outcome == LATE_CANCEL:
        # Half of the late ones come on the last morning or evening; none before the booking itself.
        changed = max(booking.created + 5, booking.start - float(rng.triangular(5, 60, 1435)))
    return replace(booking, outcome=outcome, changed=changed)


def _unplanned(
    days: list[int],
    exams: tuple[Exam, ...],
    people: Population,
    settings: HospitalSettings,
    rng: np.random.Generator,
    *,
    first_order: int,
) -> list[Booking]:
    found: list[Booking] = []
    for day in days:
        for case in day_of.day_emergencies(day, SCANNERS, exams, settings, rng):
            arrival = case.day * DAY + case.minute
            created = arrival - float(rng.uniform(2, 25 if case.setting == "EMER" else 300))
            start = np.ceil((arrival + 10) / 5) * 5
            person = int(rng.choice(len(people), p=people.demand))
            found.append(
                Booking(
                    first_order + len(found), person, case.exam, case.scanner, case.setting, created - float(rng.uniform(2, 15)), created,
                    float(start), FULFILLED, float(start), arrival,
                )
            )  # fmt: skip
    return found


def _serve(
    bookings: list[Booking], exams: tuple[Exam, ...], settings: HospitalSettings, rng: np.random.Generator
) -> list[Booking]:
    """Let everybody who came arrive and be scanned, day by day and scanner by scanner."""
    planned = [i for i, b in enumerate(bookings) if b.outcome == FULFILLED and b.setting == "AMB"]
    slots = np.array([bookings[i].start % DAY for i in planned])
    came = dict(zip(planned, day_of.arrival_minutes(slots, settings, rng), strict=True))
    served = list(bookings)
    ordered = sorted(
        (i for i, b in enumerate(bookings) if b.outcome == FULFILLED),
        key=lambda i: (bookings[i].start // DAY, bookings[i].scanner, i),
    )
    for (day, scanner), group in groupby(ordered, key=lambda i: (bookings[i].start // DAY, bookings[i].scanner)):
        visits = [
            day_of.Visit(
                i, exams[bookings[i].exam], bookings[i].setting, bookings[i].start % DAY,
                float(came[i]) if i in came else bookings[i].arrival % DAY,
            )
            for i in group
        ]  # fmt: skip
        arrivals = {v.key: v.arrival for v in visits}
        for done in day_of.run_scanner(visits, SCANNERS[scanner], settings, rng):
            began, ended = day * DAY + done.began, day * DAY + done.ended
            served[done.key] = replace(
                served[done.key],
                arrival=day * DAY + arrivals[done.key],
                began=began,
                ended=ended,
                changed=ended,
                stopped=done.stopped,
            )
    return served
