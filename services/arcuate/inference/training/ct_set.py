"""Which phantoms the reading of head CT learns from, and by which it is measured: other heads, other seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from arcuate.inference.training import ct_heads
from arcuate.inference.training.ct_bleeds import Kind
from arcuate.inference.training.ct_phantom import Recipe, drawn_ml

HELD_OUT = ("training_seg_04", "training_seg_10", "training_seg_14", "training_seg_18")
"""Heads for measuring alone: no atlas and no tree is made from them."""

FIRST_TO_LEARN_FROM = 90_000_000  # seeds from here on are no evaluation's
WITHOUT, SECOND_KIND, PART_MIXED = 0.22, 0.15, 0.08
"""Shares of the scans to learn from: without blood, with two kinds, of mixed density."""
AS_THEY_ARE = 280
"""So many scans to learn from show the heads of the label maps as they are; those after them show heads bent from these."""
CLEAN, A_KIND, MIXED = 5, 3, 2  # phantoms a head: without blood; of each kind; of mixed density


@dataclass(frozen=True)
class Planned:
    """One phantom of the set, not yet made. bent: its head gets a shape of its own (ct_heads.bent)."""

    path: Path
    recipe: Recipe
    seed: int
    bent: bool = False

    def head(self, loaded: Callable[[Path], ct_heads.Head]) -> ct_heads.Head:
        """Return the head that the phantom is made from."""
        head = loaded(self.path)
        return ct_heads.bent(head, self.seed) if self.bent else head


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


def training(labelmaps: Path) -> Iterator[Planned]:
    """Yield phantoms to learn from, without end: of heads that are not held out, each kind of blood as often and in every head, a fifth
    without; after the first `AS_THEY_ARE` no two of one shape."""
    paths = [path for path in sorted(labelmaps.glob("*.nii.gz")) if not is_held_out(path)]
    for number in count():
        turn = number // len(Kind)
        # Without the last term a kind would meet every other head alone.
        path = paths[(turn + number + turn // 8 % 2) % len(paths)]
        yield Planned(path, _to_learn_from(number), FIRST_TO_LEARN_FROM + number, bent=number >= AS_THEY_ARE)


def _to_learn_from(number: int) -> Recipe:
    rng = np.random.default_rng([number, 5])
    if rng.random() < WITHOUT:
        return Recipe((), (), shift_mm=float(rng.uniform(-3, 3)) if rng.random() < 0.3 else 0.0)
    kinds = [list(Kind)[number % len(Kind)]]
    if rng.random() < SECOND_KIND:
        kinds.append(Kind(rng.choice([kind for kind in Kind if kind != kinds[0]])))
    ml = tuple(drawn_ml(kind, rng) for kind in kinds)
    reach = min(15.0, 2 + sum(ml) / 6)
    shift = float(rng.uniform(-reach, reach)) if rng.random() < 0.6 else 0.0
    return Recipe(tuple(kinds), ml, shift, mixed=bool(rng.random() < PART_MIXED))


def heads(labelmaps: Path) -> Iterator[ct_heads.Head]:
    """Yield the heads from which an atlas may be made."""
    for path in sorted(labelmaps.glob("*.nii.gz")):
        if not is_held_out(path):
            yield ct_heads.load(path)
