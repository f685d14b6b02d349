"""Days of the department: slots, leads, arrivals, and the line in front of each scanner."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from arcuate.hospital.exams import Exam, Scanner, booked_minutes, lognormal, preparation_minutes, table_minutes
from arcuate.hospital.settings import HospitalSettings

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PlannedSlot:
    """A slot of the day's grid: start in minutes after midnight, local."""

    day: int  # proleptic ordinal
    scanner: int  # index into SCANNERS
    minute: int
    exam: int  # index into the exams


@dataclass(frozen=True)
class Unplanned:
    """An emergency or stat inpatient: when it arrives, minutes after midnight."""

    day: int
    scanner: int
    minute: int
    exam: int
    setting: str  # EMER or IMP


@dataclass(frozen=True)
class Visit:
    """Somebody who came: what the line needs to know of them. Times in minutes after midnight."""

    key: int  # index of the appointment in the caller's list
    exam: Exam
    setting: str
    slot: float
    arrival: float


@dataclass(frozen=True)
class Served:
    """When a visit's exam began and ended, minutes after midnight; `stopped` if it could not be completed."""

    key: int
    began: float
    ended: float
    stopped: bool


def day_grid(
    day: int, scanners: Sequence[Scanner], exams: Sequence[Exam], settings: HospitalSettings, rng: np.random.Generator
) -> list[PlannedSlot]:
    """Return the booked slots of one day: every scanner's day is cut into slots, most of which are filled."""
    slots: list[PlannedSlot] = []
    for number, scanner in enumerate(scanners):
        ours = [i for i, e in enumerate(exams) if e.modality == scanner.modality]
        shares = np.cumsum([exams[i].share for i in ours])
        fill = settings.fill_mr if scanner.modality == "MR" else settings.fill_ct
        minute = settings.open_minute
        while minute <= settings.last_slot_minute:
            exam = ours[min(int(np.searchsorted(shares, rng.random() * shares[-1])), len(ours) - 1)]
            if rng.random() < fill:
                slots.append(PlannedSlot(day, number, minute, exam))
            minute += booked_minutes(exams[exam], scanner)
    return slots


def day_emergencies(
    day: int, scanners: Sequence[Scanner], exams: Sequence[Exam], settings: HospitalSettings, rng: np.random.Generator
) -> list[Unplanned]:
    """Return the unplanned work of one day (Poisson; the scanner is the one that happens to take it)."""
    found: list[Unplanned] = []
    close = settings.last_slot_minute
    for modality, mean in (("MR", settings.emergencies_per_day_mr), ("CT", settings.emergencies_per_day_ct)):
        scanner_numbers = [i for i, s in enumerate(scanners) if s.modality == modality]
        ours = [i for i, e in enumerate(exams) if e.modality == modality and e.emergency > 0]
        weights = np.array([exams[i].emergency for i in ours])
        for _ in range(int(rng.poisson(mean))):
            minute = int(rng.integers(settings.open_minute, close))
            exam = ours[int(rng.choice(len(ours), p=weights / weights.sum()))]
            inpatient = modality == "MR" and rng.random() < 0.6
            scanner = scanner_numbers[int(rng.integers(len(scanner_numbers)))]
            found.append(Unplanned(day, scanner, minute, exam, "IMP" if inpatient else "EMER"))
    return found


def lead_days(count: int, settings: HospitalSettings, rng: np.random.Generator) -> Floats:
    """Draw days from order to exam (log-normal)."""
    drawn: Floats = np.exp(rng.normal(math.log(settings.lead_median_days), settings.lead_sigma, count))
    return np.minimum(drawn, 400.0)


def arrival_minutes(slots: Floats, settings: HospitalSettings, rng: np.random.Generator) -> Floats:
    """Draw when people with these slots arrive (minutes after midnight): most half an hour early, some late."""
    n = len(slots)
    early = slots - np.maximum(0.0, rng.normal(settings.early_mean_min, settings.early_sd_min, n))
    late = slots + rng.exponential(settings.late_mean_min, n)
    came: Floats = np.where(rng.random(n) < settings.late_share, late, early)
    return np.maximum(came, settings.open_minute - 45)


def run_scanner(
    visits: Sequence[Visit], scanner: Scanner, settings: HospitalSettings, rng: np.random.Generator
) -> list[Served]:
    """Let one scanner work through its day.

    Emergencies go first, then who has the earlier slot (or came after it); a running exam is never broken off, a failure
    makes everybody wait. Deterministic for a given state of `rng`.
    """
    technologist = float(rng.normal(0, settings.technologist_sd_min))
    waiting: list[tuple[int, float, int, Visit]] = []
    ready = {v.key: v.arrival + preparation_minutes(v.exam, v.setting, settings, rng) for v in visits}
    coming = sorted(visits, key=lambda v: (ready[v.key], v.key))
    served: list[Served] = []
    now = float(settings.open_minute)
    fails_at = now + float(rng.exponential(60 / settings.failures_per_hour))
    index = 0
    while index < len(coming) or waiting:
        while index < len(coming) and ready[coming[index].key] <= now:
            visit = coming[index]
            rank = 1 if visit.setting == "AMB" else 0
            heapq.heappush(waiting, (rank, max(visit.slot, visit.arrival) if rank else visit.arrival, visit.key, visit))
            index += 1
        if not waiting:
            now = max(now, ready[coming[index].key])
            continue
        visit = heapq.heappop(waiting)[3]
        if now >= fails_at:
            now += float(np.exp(rng.normal(math.log(settings.repair_median_min), 0.7)))
            fails_at = now + float(rng.exponential(60 / settings.failures_per_hour))
        minutes = table_minutes(visit.exam, scanner, visit.setting, settings, rng, technologist_min=technologist)
        stopped = visit.exam.modality == "MR" and rng.random() < settings.stopped_share
        if stopped:
            minutes = max(2.0, minutes * float(rng.uniform(0.1, 0.6)))
        served.append(Served(visit.key, now, now + minutes, stopped))
        turnover = settings.turnover_min if scanner.modality == "MR" else settings.turnover_ct_min
        now += minutes + float(lognormal(rng, turnover, settings.turnover_cv))
    return served
