"""One number for how far a measurement of the brain can be trusted: the mean Dice that is to be expected of its labels.

Six signals known at run time go into a fit that is kept as data beside the model (`quality.toml`), made on synthetic
renderings of label maps that no network was trained on. The number ranks measurements; it is no probability.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIT = "quality.toml"
FULL = 255
FINE_MM = 2.0
"""The network's own voxel: finer ones are not known to give better labels."""


@dataclass(frozen=True)
class Signals:
    """What is known without a reference; each from 0 (bad) to 1 (good).

    Attributes:
        certainty: Dice that the network's own probabilities expect of its labels, mean over structures.
        flips: How far the answers for the scan and for its mirror image overlap, mean over structures.
        finder: Dice of the labelled brain and the brain that the finder saw.
        symmetry: 1 less the mean of |left - right| / (left + right) over the pairs.
        plausible: Share of structures whose volume lies in the range of `segmentation.toml`.
        fine: 1 for voxels of at most `FINE_MM` on every axis, `FINE_MM` by their longest side otherwise.
    """

    certainty: float
    flips: float
    finder: float
    symmetry: float
    plausible: float
    fine: float

    def values(self) -> dict[str, float]:
        """Return them by name."""
        return asdict(self)


@dataclass(frozen=True)
class Fit:
    """A linear fit from signals to mean Dice, as `quality.toml` holds it. version: of the model it was made with."""

    version: str
    intercept: float
    weights: Mapping[str, float]

    def predicted(self, signals: Signals) -> float:
        """Return the mean Dice to be expected, 0 to 1."""
        found = self.intercept + sum(self.weights[name] * value for name, value in signals.values().items())
        return round(min(1.0, max(0.0, found)), 3)


def load_fit(models_dir: Path, model: str) -> Fit | None:
    """Return the fit of a model; None where it has none, or one made with other signals than these."""
    path = models_dir / model / FIT
    if not path.is_file():
        return None
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    if set(told["weights"]) != {field.name for field in fields(Signals)}:
        return None
    return Fit(str(told["model_version"]), float(told["intercept"]), dict(told["weights"]))


def agreement(plain: NDArray[np.uint8], other: NDArray[np.uint8], left_out: Sequence[int]) -> tuple[float, float]:
    """Return the signals `certainty` and `flips`.

    Args:
        plain, other: Probabilities times 255 (classes, x, y, z) of the scan and of its mirror image, brought back.
        left_out: Classes that do not count, as the background.
    """
    spans = [np.flatnonzero((plain[0] < FULL - 5).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(span.size for span in spans):
        return 0.0, 0.0
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    pairs = [(plain[k][box], other[k][box]) for k in range(len(plain))]
    sums = [np.add(a, b, dtype=np.uint16) for a, b in pairs]
    best, labels = sums[0].copy(), np.zeros(sums[0].shape, np.uint8)
    for k in range(1, len(sums)):
        better = sums[k] > best
        np.copyto(best, sums[k], where=better)
        labels[better] = k
    certain, alike = [], []
    for k, (a, b) in enumerate(pairs):
        whole = float(sums[k].sum(dtype=np.int64)) / (2 * FULL)
        if k in left_out or whole < 1:
            continue
        mine = labels == k
        count = int(np.count_nonzero(mine))
        certain.append(float(sums[k][mine].sum(dtype=np.int64)) / FULL / (count + whole))
        alike.append(float(np.minimum(a, b).sum(dtype=np.int64)) / FULL / whole)
    return (float(np.mean(certain)), float(np.mean(alike))) if certain else (0.0, 0.0)


def fineness(spacing: NDArray[np.float64]) -> float:
    """Return the signal `fine` of a volume's voxels (mm)."""
    return min(1.0, FINE_MM / float(spacing.max()))


def overlap(one: NDArray[np.bool_], two: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks; 0 where both are empty."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(two))
    return 2 * int(np.count_nonzero(one & two)) / total if total else 0.0


def symmetry(pairs: Iterable[tuple[float, float]]) -> float:
    """Return the signal of that name from volumes (left, right)."""
    apart = [abs(left - right) / (left + right) for left, right in pairs if left + right > 0]
    return 1 - float(np.mean(apart)) if apart else 0.0


def fitted(signals: Sequence[Signals], dice: Sequence[float], ridge: float = 0.3) -> tuple[float, dict[str, float]]:
    """Return intercept and weights of a ridge regression; columns are scaled to unit spread for the penalty alone."""
    names = list(signals[0].values())
    columns = np.array([[s.values()[name] for name in names] for s in signals])
    goal = np.array(dice)
    middle, spread = columns.mean(0), columns.std(0) + 1e-3
    scaled = (columns - middle) / spread
    inner = scaled.T @ scaled + ridge * len(goal) / 10 * np.eye(len(names))
    weights = np.linalg.solve(inner, scaled.T @ (goal - goal.mean())) / spread
    return float(goal.mean() - weights @ middle), {n: float(w) for n, w in zip(names, weights, strict=True)}


def written(told: Mapping[str, Any], intercept: float, weights: Mapping[str, float]) -> str:
    """Return the text of `quality.toml`."""
    lines = ["# Fit of the quality score: mean Dice to be expected, from the signals of imaging/quality.py. Written by"]
    lines += ["# `arcuate evaluate NAME --quality --from LABELMAPS`; card.md says how well it ranks."]
    lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in told.items()]
    lines += [f"intercept = {intercept:.6f}", "", "[weights]", *(f"{k} = {v:.6f}" for k, v in weights.items())]
    return "\n".join(lines) + "\n"
