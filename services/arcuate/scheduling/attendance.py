"""The attendance model: chances of no-show and late cancellation with interval and reasons.

A chance is made in three steps: a bag of five small boosters gives log odds; a line fitted on later visits (Platt) turns their mean
into a chance; the visits with the closest log odds among those later ones say how often it then happened. The 80 % interval joins,
on the log odds, the spread of the five boosters and the binomial uncertainty of those nearest visits.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arcuate.kernel.errors import BadInput
from arcuate.scheduling import boosting, reasons
from arcuate.scheduling.boosting import Bag
from arcuate.scheduling.domain import (
    Z80,
    Chance,
    Confidence,
    Feature,
    Forecast,
    ModelName,
    Moment,
    logit,
    sigmoid,
    vector,
)
from arcuate.scheduling.features import ATTENDANCE, names
from arcuate.scheduling.modelfile import Json, open_folder

Floats = npt.NDArray[np.float64]

NAME = "attendance"
OUTCOMES = ("no-show", "late-cancel")
_NEAREST = 300


@dataclass(frozen=True)
class Calibration:
    """From log odds to a chance, and what happened to visits with like log odds.

    Attributes:
        slope, intercept: The line on the log odds.
        base: Share of all calibration visits.
        rows: (log odds, visits, of them with the outcome), by rising log odds.
    """

    slope: float
    intercept: float
    base: float
    rows: tuple[tuple[float, int, int], ...]

    def chance(self, margin: float) -> float:
        """Return the calibrated chance."""
        return sigmoid(self.slope * margin + self.intercept)

    def like(self, margin: float) -> tuple[int, int]:
        """Return how many of the nearest calibration visits there are, and how many of them had the outcome."""
        count = events = 0
        for _, visits, happened in sorted(self.rows, key=lambda row: abs(row[0] - margin)):
            count, events = count + visits, events + happened
            if count >= _NEAREST:
                break
        return count, events

    def interval(self, margin: float, spread: float) -> tuple[float, float]:
        """Return the 80 % interval of the chance; `spread` = standard deviation of the boosters' log odds."""
        count, events = self.like(margin)
        sampling = 1 / (events + 0.5) + 1 / (count - events + 0.5)
        half = Z80 * math.sqrt(sampling + (self.slope * spread) ** 2)
        centre = logit(self.chance(margin))
        return sigmoid(centre - half), sigmoid(centre + half)

    def to_json(self) -> Json:
        """Return the table as it is stored."""
        return {
            "slope": self.slope,
            "intercept": self.intercept,
            "base": self.base,
            "rows": [list(r) for r in self.rows],
        }

    @classmethod
    def from_json(cls, table: Mapping[str, object]) -> "Calibration":
        """Read the stored table."""
        rows: Sequence[Sequence[float]] = table["rows"]  # type: ignore[assignment]
        return cls(
            float(str(table["slope"])), float(str(table["intercept"])), float(str(table["base"])),
            tuple((float(r[0]), int(r[1]), int(r[2])) for r in rows),
        )  # fmt: skip


@dataclass(frozen=True)
class AttendanceModel:
    """A loaded model; it answers without I/O."""

    bags: Mapping[str, Bag]
    calibrations: Mapping[str, Calibration]
    ranges: Mapping[str, tuple[float, float]]
    name: ModelName
    features: Sequence[Feature] = ATTENDANCE

    def forecast(self, moment: Moment) -> Forecast:
        """Return both chances at a moment; outside the training range the site's rate answers."""
        values = vector(self.features, moment)
        outside = beyond(self.ranges, values)
        if outside:
            return site_rate({o: c.base for o, c in self.calibrations.items()}, outside, self.name, values)
        words = reasons.load_words()
        absent = reasons.missing(words, self.features, values)
        x = boosting.matrix([values], names(self.features))
        chances = {outcome: self._chance(outcome, x, values) for outcome in self.bags}
        confidence = Confidence.LOW if absent else Confidence.USUAL
        return Forecast(confidence, chances, {}, absent, "", self.name, values)

    def chances(self, rows: Sequence[dict[str, float]], outcome: str) -> Floats:
        """Return calibrated chances of many feature rows."""
        x = boosting.matrix(rows, names(self.features))
        calibration = self.calibrations[outcome]
        margins = self.bags[outcome].margins(x).mean(axis=1)
        return np.array([calibration.chance(float(m)) for m in margins])

    def intervals(self, rows: Sequence[dict[str, float]], outcome: str) -> Floats:
        """Return the 80 % intervals of many feature rows, (n, 2)."""
        margins = self.bags[outcome].margins(boosting.matrix(rows, names(self.features)))
        calibration = self.calibrations[outcome]
        return np.array([
            calibration.interval(float(m), float(s)) for m, s in zip(margins.mean(axis=1), margins.std(axis=1, ddof=1), strict=True)
        ])  # fmt: skip

    def _chance(self, outcome: str, x: Floats, values: Mapping[str, float]) -> Chance:
        calibration, bag = self.calibrations[outcome], self.bags[outcome]
        parts = bag.contributions(x)[:, 0]
        margins = parts.sum(axis=1)
        margin = float(margins.mean())
        low, high = calibration.interval(margin, float(margins.std(ddof=1)))
        why = reasons.explain(
            reasons.load_words(), names(self.features), values, [float(c) for c in parts.mean(axis=0)], calibration.base,
            calibration.chance,
        )  # fmt: skip
        return Chance(calibration.chance(margin), low, high, calibration.base, why, calibration.like(margin))


def load(path: Path) -> AttendanceModel:
    """Load the model of a folder after its hashes were checked.

    Raises:
        NotFound: There is none.
        BadInput: It was changed, or was made for other features.
    """
    folder = open_folder(path, NAME)
    stated = list(folder.toml["inputs"]["features"])
    if stated != names(ATTENDANCE):
        raise BadInput(
            "The model was made for other features than this version computes",
            where=str(path),
            todo="arcuate train attendance",
        )
    tables = folder.json_of("calibration.json")
    bags = {
        outcome: Bag(tuple(
            boosting.load(folder.bytes_of(file)) for file in sorted(folder.toml["files"]) if file.startswith(f"{outcome}-")
        ))
        for outcome in OUTCOMES
    }  # fmt: skip
    ranges = {name: (float(low), float(high)) for name, (low, high) in folder.json_of("ranges.json").items()}
    calibrations = {outcome: Calibration.from_json(tables[outcome]) for outcome in OUTCOMES}
    return AttendanceModel(bags, calibrations, ranges, folder.name)


def beyond(ranges: Mapping[str, tuple[float, float]], values: Mapping[str, float]) -> str:
    """Return a sentence that names the inputs outside the training range, or an empty text."""
    words = reasons.load_words().inputs
    outside = [
        f"{words.get(name, name)} ({values[name]:.0f}, trained on {low:.0f} to {high:.0f})"
        for name, (low, high) in ranges.items()
        if not math.isnan(values[name]) and not low <= values[name] <= high
    ]
    return f"outside the training range: {', '.join(outside)}" if outside else ""


def site_rate(
    rates: Mapping[str, float], why: str, model: ModelName | None = None, values: Mapping[str, float] | None = None,
    counts: Mapping[str, tuple[int, int]] | None = None,
) -> Forecast:  # fmt: skip
    """Return the site's rate as the stated fallback.

    Args:
        counts: Visits and events behind the rates, where they are known: they make the interval. Without them it spans a
            factor of two on the odds to each side.
    """
    chances = {}
    for outcome, rate in rates.items():
        count, events = (counts or {}).get(outcome, (0, 0))
        half = Z80 * math.sqrt(1 / (events + 0.5) + 1 / (count - events + 0.5)) if count else math.log(2)
        centre = logit(rate)
        chances[outcome] = Chance(rate, sigmoid(centre - half), sigmoid(centre + half), rate)
    return Forecast(Confidence.FALLBACK, chances, {}, (), why, model, values)
