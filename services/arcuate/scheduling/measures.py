"""How good a forecast is: discrimination, calibration, quantile loss and coverage, with bootstrap intervals by patient or day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Measure = Callable[[Floats, Floats], float]


@dataclass(frozen=True)
class Measured:
    """A measure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "-"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def auc(truth: Floats, chance: Floats) -> float:
    """Return the area under the ROC curve; not-a-number when only one outcome occurs."""
    positive = int(truth.sum())
    negative = len(truth) - positive
    if not positive or not negative:
        return float("nan")
    _, inverse, counts = np.unique(chance, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    return float((ranks[truth > 0.5].sum() - positive * (positive + 1) / 2) / (positive * negative))


def brier(truth: Floats, chance: Floats) -> float:
    """Return the mean squared distance of chance and outcome."""
    return float(((chance - truth) ** 2).mean())


def ece(truth: Floats, chance: Floats) -> float:
    """Return the expected calibration error over 15 bins of equal mass, ties kept together."""
    edges = np.unique(np.quantile(chance, np.linspace(0, 1, 16)))
    bins = max(1, len(edges) - 1)
    place = np.clip(np.searchsorted(edges, chance, side="right") - 1, 0, bins - 1)
    gaps = np.bincount(place, truth, bins) - np.bincount(place, chance, bins)
    return float(np.abs(gaps).sum() / len(truth))


def slope(truth: Floats, chance: Floats) -> float:
    """Return the calibration slope: the factor on the log odds that fits the outcomes best (1 = right, below 1 = too extreme)."""
    x = np.log(np.clip(chance, 1e-6, 1 - 1e-6) / (1 - np.clip(chance, 1e-6, 1 - 1e-6)))
    if np.ptp(x) < 1e-9:
        return float("nan")
    design = np.c_[np.ones(len(x)), x]
    weights = np.array([0.0, 1.0])
    for _ in range(25):  # Newton steps of a logistic regression with two parameters
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(2), design.T @ (truth - p))
        weights = weights + step
        if np.abs(step).max() < 1e-6:
            break
    return float(weights[1])


CHANCE_MEASURES: Mapping[str, Measure] = {"AUC": auc, "Brier": brier, "slope": slope, "ECE": ece}


def bootstrap(
    truth: Floats, chance: Floats, groups: Ints, measures: Mapping[str, Measure], seed: int, times: int = 200
) -> dict[str, Measured]:
    """Return each measure with a 95 % interval; whole groups are drawn, so that rows of one patient stay together."""
    source = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    parts = np.split(order, starts[1:])
    drawn: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(times):
        rows = np.concatenate([parts[i] for i in source.integers(0, len(parts), len(parts))])
        for name, measure in measures.items():
            drawn[name].append(measure(truth[rows], chance[rows]))
    return {name: _measured(measure(truth, chance), drawn[name]) for name, measure in measures.items()}


def pinball(truth: Floats, forecast: Floats, level: float) -> float:
    """Return the mean quantile loss at a level."""
    error = truth - forecast
    return float(np.maximum(level * error, (level - 1) * error).mean())


def quantile_measures(
    truth: Floats, forecast: Floats, groups: Ints, seed: int, times: int = 200
) -> dict[str, Measured]:
    """Return error and coverage of forecasts with columns 10, 50 and 90 %, with intervals by group."""
    rows = np.arange(len(truth), dtype=float)

    def on(measure: Callable[[Floats, Floats], float]) -> Measure:
        return lambda _truth, picked: measure(truth[picked.astype(int)], forecast[picked.astype(int)])

    measures = {
        "MAE": on(lambda y, q: float(np.abs(y - q[:, 1]).mean())),
        "pinball": on(lambda y, q: float(np.mean([pinball(y, q[:, i], a) for i, a in enumerate((0.1, 0.5, 0.9))]))),
        "coverage": on(lambda y, q: float(((y >= q[:, 0]) & (y <= q[:, 2])).mean())),
        "below": on(lambda y, q: float((y < q[:, 0]).mean())),
        "above": on(lambda y, q: float((y > q[:, 2]).mean())),
        "width": on(lambda _, q: float((q[:, 2] - q[:, 0]).mean())),
    }
    return bootstrap(truth, rows, groups, measures, seed, times)


def _measured(value: float, drawn: list[float]) -> Measured:
    kept = np.array([d for d in drawn if np.isfinite(d)])
    if not len(kept):
        return Measured(value, float("nan"), float("nan"))
    low, high = np.quantile(kept, [0.025, 0.975])
    return Measured(value, float(low), float(high))
