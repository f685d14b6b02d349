"""Months of the synthetic department as FHIR NDJSON: what the attendance and wait models train on.

Read `past` first: it draws everything; `write_history` only writes it down. The truth (chances, hidden traits) stays in the
returned object and never enters a file.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from itertools import groupby
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from arcuate.hospital import appointments as day_of
from arcuate.hospital.attendance import FULFILLED, LATE_CANCEL, NO_SHOW, Bookings, Chances, draw_outcomes
from arcuate.hospital.exams import SCANNERS, Exam, booked_minutes, load_exams
from arcuate.hospital.orders import Wording, load_wording, write_indication
from arcuate.hospital.patients import (
    ASSIGNER,
    TEST_DATA,
    Population,
    load_given_names,
    patient_resource,
    person_at,
    populate,
)
from arcuate.hospital.settings import HospitalSettings
from arcuate.hospital.timeline import DAY, Stamper, months_before, office_time, working_days
from arcuate.kernel.codes import (
    CS_EXAM,
    CS_FORECAST,
    Json,
    accession_identifier,
    appointment_system,
    coding,
    concept,
    identifier,
    placer_system,
    visit_system,
)  # fmt: skip

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

EARLY_CANCEL = 3
_REASONS = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"
_ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


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


@dataclass(frozen=True)
class Written:
    """What was written: resources by type, and the past that they tell."""

    counts: Mapping[str, int]
    past: Past


def write_history(folder: Path, settings: HospitalSettings, seed: int, months: int) -> Written:
    """Write `Type.ndjson` files (R4) of the months before `settings.history_end`.

    Patient, ServiceRequest, Appointment, Encounter (period.start = arrival), Procedure (performedPeriod = on the table) and
    Location. Same settings, seed and months give the same bytes. About 2,000 bookings a month.
    """
    past = draw_past(settings, seed, months)
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for name, resources in _Pages(past, settings, seed).by_type():
        with (folder / f"{name}.ndjson").open("w", encoding="utf-8", newline="\n") as out:
            counts[name] = 0
            for resource in resources:
                out.write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")
                counts[name] += 1
    return Written(counts, past)


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
        urgent=np.array([_priority(b) != "routine" for b in bookings]),
    )


def _priority(booking: Booking) -> str:
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


class _Pages:
    """Turns a past into FHIR resources."""

    def __init__(self, past: Past, settings: HospitalSettings, seed: int) -> None:
        self._past = past
        self._settings = settings
        self._rng = np.random.default_rng([seed, 2])
        self._source = random.Random(seed)  # noqa: S311 - a simulation wants a seeded source
        self._exams = load_exams()
        self._codes = [concept(CS_EXAM, e.code, e.display, e.display) for e in self._exams]
        self._stamp = Stamper(ZoneInfo(settings.history_zone))
        self._given = load_given_names()
        self._who = sorted({b.person for b in past.bookings})
        self._patients = dict(zip(self._who, self._ids(len(self._who)), strict=True))
        orders = sorted({b.order for b in past.bookings})
        self._orders = dict(zip(orders, self._ids(len(orders)), strict=True))
        self._places = self._ids(len(SCANNERS))
        self._appointments = self._ids(len(past.bookings))
        self._encounters = self._ids(len(past.bookings))

    def _ids(self, count: int) -> list[str]:
        raw = self._rng.bytes(16 * count).hex()
        return [f"{raw[i : i + 8]}-{raw[i + 8 : i + 12]}-{raw[i + 12 : i + 16]}-{raw[i + 16 : i + 20]}-{raw[i + 20 : i + 32]}"
                for i in range(0, 32 * count, 32)]  # fmt: skip

    def by_type(self) -> Iterator[tuple[str, Iterator[Json]]]:
        """Yield each resource type with its resources."""
        writers: tuple[tuple[str, Callable[[], Iterator[Json]]], ...] = (
            ("Location", self._locations), ("Patient", self._people), ("ServiceRequest", self._requests),
            ("Appointment", self._bookings), ("Encounter", self._visits), ("Procedure", self._exams_done),
        )  # fmt: skip
        for name, write in writers:
            yield name, write()

    def _locations(self) -> Iterator[Json]:
        for scanner, logical_id in zip(SCANNERS, self._places, strict=True):
            kind = f"{scanner.modality} scanner" + (f", {scanner.tesla:g} T" if scanner.tesla else "")
            yield {
                "resourceType": "Location", "id": logical_id, "meta": TEST_DATA, "status": "active", "name": scanner.name,
                "description": f"{kind} of the synthetic department", "mode": "instance",
            }  # fmt: skip

    def _people(self) -> Iterator[Json]:
        for index in self._who:
            yield patient_resource(person_at(self._past.people, index, self._given), self._patients[index])

    def _requests(self) -> Iterator[Json]:
        wording: Wording = load_wording()
        last = {b.order: b for b in self._past.bookings}  # the order's last date decides its state
        for order, logical_id in self._orders.items():
            booking = last[order]
            exam = self._exams[booking.exam]
            status = {FULFILLED: "completed", NO_SHOW: "active"}.get(booking.outcome, "revoked")
            yield {
                "resourceType": "ServiceRequest", "id": logical_id, "meta": TEST_DATA,
                "identifier": [
                    accession_identifier(f"SY{order:07d}"), identifier(placer_system(ASSIGNER), f"PL{order:07d}", "PLAC"),
                ],
                "status": status, "intent": "order", "priority": _priority(booking), "code": self._codes[booking.exam],
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "authoredOn": self._stamp(booking.authored),
                "reasonCode": [{"text": write_indication(exam, wording, self._settings, self._source)}],
            }  # fmt: skip

    def _bookings(self) -> Iterator[Json]:
        status = {FULFILLED: "fulfilled", NO_SHOW: "noshow", LATE_CANCEL: "cancelled", EARLY_CANCEL: "cancelled"}
        for number, booking in enumerate(self._past.bookings):
            exam = self._exams[booking.exam]
            minutes = booked_minutes(exam, SCANNERS[booking.scanner])
            resource: Json = {
                "resourceType": "Appointment", "id": self._appointments[number],
                "meta": {**TEST_DATA, "lastUpdated": self._stamp(booking.changed)},
                "identifier": [identifier(appointment_system(ASSIGNER), f"AP{number:07d}")],
                "status": status[booking.outcome], "description": exam.display,
                "start": self._stamp(booking.start), "end": self._stamp(booking.start + minutes), "minutesDuration": minutes,
                "created": self._stamp(booking.created),
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "participant": [
                    {"actor": {"reference": f"Patient/{self._patients[booking.person]}"}, "status": "accepted"},
                    {
                        "actor": {"reference": f"Location/{self._places[booking.scanner]}", "display": SCANNERS[booking.scanner].name},
                        "status": "accepted",
                    },
                ],
            }  # fmt: skip
            if booking.outcome in (LATE_CANCEL, EARLY_CANCEL):
                resource["cancelationReason"] = self._reason(
                    "late-cancel" if booking.outcome == LATE_CANCEL else "early-cancel"
                )
            yield resource

    def _reason(self, when: str) -> Json:
        drawn = self._source.random()
        by_patient, by_provider = self._settings.cancel_by_patient, self._settings.cancel_by_provider
        who, text = ("pat", "Patient") if drawn < by_patient else ("prov", "Provider")
        if drawn >= by_patient + by_provider:
            who, text = "maint", "Equipment Maintenance/Repair"
        return {"coding": [coding(CS_FORECAST, when), coding(_REASONS, who, text)]}

    def _visits(self) -> Iterator[Json]:
        for number, booking in enumerate(self._past.bookings):
            if booking.outcome != FULFILLED:
                continue
            yield {
                "resourceType": "Encounter", "id": self._encounters[number], "meta": TEST_DATA,
                "identifier": [identifier(visit_system(ASSIGNER), f"VN{number:07d}")],
                "status": "finished", "class": coding(_ACT, booking.setting),
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "appointment": [{"reference": f"Appointment/{self._appointments[number]}"}],
                "period": {"start": self._stamp(booking.arrival), "end": self._stamp(booking.ended + 5)},
                "location": [{"location": {"reference": f"Location/{self._places[booking.scanner]}"}}],
            }  # fmt: skip

    def _exams_done(self) -> Iterator[Json]:
        done = [(i, b) for i, b in enumerate(self._past.bookings) if b.outcome == FULFILLED]
        for (number, booking), logical_id in zip(done, self._ids(len(done)), strict=True):
            yield {
                "resourceType": "Procedure", "id": logical_id, "meta": TEST_DATA,
                "identifier": [accession_identifier(f"SY{booking.order:07d}")],
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "status": "stopped" if booking.stopped else "completed", "code": self._codes[booking.exam],
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "encounter": {"reference": f"Encounter/{self._encounters[number]}"},
                "performedPeriod": {"start": self._stamp(booking.began), "end": self._stamp(booking.ended)},
                "location": {"reference": f"Location/{self._places[booking.scanner]}"},
            }  # fmt: skip
