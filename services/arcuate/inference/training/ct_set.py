"""The phantoms by which the reading of head CT is measured: heads that its atlas was not made from, seeds of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcuate.inference.training import ct_heads
from arcuate.inference.training.ct_bleeds import Kind
from arcuate.inference.training.ct_phantom import Recipe, drawn_ml

HELD_OUT = ("training_seg_04", "training_seg_10", "training_seg_14", "training_seg_18")
"""Heads for measuring alone. Their phantoms were not looked at while the rules were made."""

CLEAN, A_KIND, MIXED = 5, 3, 2  # phantoms a head: without blood; of each kind; of mixed density


@dataclass(frozen=True)
class Planned:
    """One phantom of the set, not yet made."""

    path: Path
    recipe: Recipe
    seed: int


def is_held_out(path: Path) -> bool:
    """Whether a label map is kept for measuring."""
    return path.name.split(".")[0] in HELD_OUT


def planned(labelmaps: Path, seed: int) -> Iterator[Planned]:
    """Yield the set, a round over all heads at a time, so that an evaluation cut short has seen all of them."""
    paths = [path for path in sorted(labelmaps.glob("*.nii.gz")) if is_held_out(path)]
    for turn in range(A_KIND):
        for k, path in enumerate(paths):
            yield from _of_head(path, turn, 100_000 * seed + 1_000 * k + 50 * turn)


def _of_head(path: Path, turn: int, first: int) -> Iterator[Planned]:
    for n, kind in enumerate(Kind):
        rng = np.random.default_rng([first + n, 2])
        yield Planned(path, Recipe((kind,), (drawn_ml(kind, rng),), _shift(rng)), first + n)
    for n in range(CLEAN * (turn + 1) // A_KIND - CLEAN * turn // A_KIND):
        rng = np.random.default_rng([first + 20 + n, 2])
        yield Planned(path, Recipe((), (), float(rng.uniform(-3, 3)) if n else 0.0), first + 20 + n)
    if turn < MIXED:
        rng = np.random.default_rng([first + 40, 2])
        kind = (Kind.INTRAPARENCHYMAL, Kind.SUBDURAL)[turn % 2]
        yield Planned(path, Recipe((kind,), (drawn_ml(kind, rng),), _shift(rng), mixed=True), first + 40)


def _shift(rng: np.random.Generator) -> float:
    return float(rng.uniform(-14, 14)) if rng.random() < 0.6 else 0.0


def heads(labelmaps: Path) -> Iterator[ct_heads.Head]:
    """Yield the heads from which an atlas may be made."""
    for path in sorted(labelmaps.glob("*.nii.gz")):
        if not is_held_out(path):
            yield ct_heads.load(path)
