"""The generator's truth: who misses an appointment and who cancels late, and with what chance.

The additions to the log odds stand in `data/attendance.toml`; the intercepts are solved here, so that the department's mean
equals its base rates. Nothing here is ever written into a resource.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from arcuate.hospital.patients import Population

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FULFILLED, NO_SHOW, LATE_CANCEL = 0, 1, 2


@dataclass(frozen=True)
class Cause:
    """One line of the truth: additions to the log odds per unit of the cause; `seen` if a resource shows it."""

    name: str
    seen: bool
    no_show: float
    late_cancel: float
    why: str


@dataclass(frozen=True)
class Bookings:
    """Appointments that stand 24 h before, one array element each."""

    person: Ints  # index into the population
    lead_days: Floats  # from the booking to the start
    age: Floats  # years
    minute: Ints  # start, minutes after midnight, local
    weekday: Ints  # Monday 0
    moved: Ints  # earlier dates of the same order that were cancelled
    contrast: Bools
    urgent: Bools

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True)
class Chances:
    """The true chances of each booking and what came of it."""

    no_show: Floats
    late_cancel: Floats
    outcome: Ints  # FULFILLED, NO_SHOW or LATE_CANCEL


def load_causes() -> tuple[Cause, ...]:
    """Read the truth."""
    text = (files("arcuate.hospital") / "data" / "attendance.toml").read_text(encoding="utf-8")
    return tuple(Cause(**row) for row in tomllib.loads(text)["cause"])


def cause_values(bookings: Bookings, people: Population) -> Mapping[str, Floats]:
    """Return the value of every cause for every booking."""
    who = bookings.person
    values: dict[str, npt.NDArray[np.generic]] = {
        "lead_over_7": bookings.lead_days > 7,
        "lead_over_30": bookings.lead_days > 30,
        "lead_over_90": bookings.lead_days > 90,
        "age_65_and_over": bookings.age >= 65,
        "age_under_40": bookings.age < 40,
        "male": people.male[who],
        "single": people.single[who],
        "no_mobile_on_file": ~people.mobile[who],
        "not_reachable": ~people.reachable[who],
        "tens_of_km": people.ring[who],
        "before_8": bookings.minute < 8 * 60,
        "after_16": bookings.minute >= 16 * 60,
        "monday": bookings.weekday == 0,
        "times_moved": bookings.moved,
        "needs_contrast": bookings.contrast,
        "urgent": bookings.urgent,
        "same_day": bookings.lead_days < 0.8,
        "public_insurance": people.public[who],
        "deprivation_step": people.deprivation[who],
        "tendency": people.tendency[who],
    }
    return {name: value.astype(np.float64) for name, value in values.items()}


def draw_outcomes(
    bookings: Bookings, people: Population, no_show_rate: float, late_cancel_rate: float, rng: np.random.Generator
) -> Chances:
    """Return true chances whose means are the given rates, and one drawn outcome for each booking."""
    values = cause_values(bookings, people)
    causes = load_causes()
    miss: Floats = np.zeros(len(bookings))
    late: Floats = np.zeros(len(bookings))
    for cause in causes:
        miss += cause.no_show * values[cause.name]
        late += cause.late_cancel * values[cause.name]
    p_miss = _sigmoid(miss + _intercept(miss, no_show_rate))
    p_late = _sigmoid(late + _intercept(late, late_cancel_rate))
    drawn = rng.random(len(bookings))
    outcome = np.where(drawn < p_late, LATE_CANCEL, np.where(drawn < p_late + p_miss, NO_SHOW, FULFILLED))
    return Chances(p_miss, p_late, outcome.astype(np.int64))


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def _intercept(log_odds: Floats, rate: float) -> float:
    """Return the intercept with which the mean chance equals the rate (bisection; the mean rises with it)."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(_sigmoid(log_odds + middle).mean()) < rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2
