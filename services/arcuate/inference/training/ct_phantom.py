"""Synthetic head CTs with known haemorrhage, midline shift and ventricles, from label maps; seeded, numpy and scipy only.

Synthetic through and through: no scan of a person is in them. The same map, seed and recipe give the same voxels.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcuate.inference.training import ct_heads
from arcuate.inference.training.ct_bleeds import Bleed, Kind, calcifications, place, smooth
from arcuate.inference.training.ct_heads import Floats, Head, Mask
from arcuate.inference.training.ct_scanner import Protocol, scan

OEDEMA_HU = (18.0, 25.0)


@dataclass(frozen=True)
class Recipe:
    """What to make. kinds: none for a head without blood; slice_mm: None draws one; shift_mm: signed, to the right positive."""

    kinds: tuple[Kind, ...]
    ml: tuple[float, ...]
    shift_mm: float = 0.0
    mixed: bool = False
    slice_mm: float | None = None
    mimics: bool = True


@dataclass(frozen=True)
class Truth:
    """What is known of a phantom.

    blood_ml: of all bleeds together. shift_mm: of the septum pellucidum, to the right positive. ventricle_ml: lateral and third
    ventricles. evans: the index.
    """

    head: str
    seed: int
    bleeds: tuple[Bleed, ...]
    blood_ml: float
    shift_mm: float
    ventricle_ml: float
    evans: float
    protocol: Protocol


@dataclass(frozen=True)
class Phantom:
    """hu (columns, rows, slices); affine (4, 4): voxel to RAS mm; blood (x, y, z): true mask on the phantom's own 1 mm grid."""

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    blood: Mask
    truth: Truth


def make(head: Head, recipe: Recipe, seed: int) -> Phantom:
    """Make a phantom from a head."""
    rng = np.random.default_rng(seed)
    head = ct_heads.pushed(head, recipe.shift_mm)
    density = _density(head, rng)
    if recipe.mimics:
        for mask, hu in calcifications(head, rng):
            density[mask] = np.maximum(density[mask], hu)
    blood = np.zeros(head.labels.shape, np.bool_)
    bleeds = []
    side = -1 if recipe.shift_mm > 0 else 1 if recipe.shift_mm < 0 else int(rng.choice([-1, 1]))
    for kind, ml in zip(recipe.kinds, recipe.ml, strict=True):
        where = place(head, kind, ml, side, rng) & ~blood
        hu = float(rng.uniform(55, 82))
        _bleed(density, head, where, kind, hu, recipe.mixed, rng)
        blood |= where
        bleeds.append(Bleed(kind, float(where.sum()) / 1000, hu, recipe.mixed, side))
    protocol = Protocol.drawn(rng, recipe.slice_mm)
    image, affine = scan(head, density, protocol, rng)
    return Phantom(image, affine, blood, Truth(
        head.name, seed, tuple(bleeds), float(blood.sum()) / 1000, ct_heads.shift_mm(head),
        ct_heads.ventricle_ml(head), ct_heads.evans_index(head), protocol,
    ))  # fmt: skip


def drawn(seed: int) -> Recipe:
    """Draw a recipe: a third of the heads without blood, the others with one kind or two, 1 to 100 mL, a shift with large ones."""
    rng = np.random.default_rng([seed, 1])
    if rng.random() < 1 / 3:
        return Recipe((), (), shift_mm=float(rng.uniform(-3, 3)) if rng.random() < 0.3 else 0.0)
    kinds = list(rng.permutation(list(Kind))[: 1 + (rng.random() < 0.2)])
    ml = [drawn_ml(Kind(kind), rng) for kind in kinds]
    reach = min(15.0, 2 + sum(ml) / 6)
    shift = float(rng.uniform(-reach, reach)) if rng.random() < 0.6 else 0.0
    return Recipe(tuple(Kind(k) for k in kinds), tuple(ml), shift, bool(rng.random() < 0.2))


def drawn_ml(kind: Kind, rng: np.random.Generator) -> float:
    """Draw a volume, logarithmically even from 1 mL to the most that a kind has room for."""
    most = {Kind.SUBARACHNOID: 40.0, Kind.INTRAVENTRICULAR: 15.0}.get(kind, 100.0)
    return float(np.exp(rng.uniform(0.0, np.log(most))))


def _density(head: Head, rng: np.random.Generator) -> Floats:
    """HU at 1 mm from labels: a mean for each tissue of this head, smooth change within it."""
    mean, spread = np.zeros(256, np.float32), np.zeros(256, np.float32)
    for tissue in _tissues():
        level = rng.uniform(tissue["low"], tissue["high"])
        mean[tissue["labels"]], spread[tissue["labels"]] = level, tissue["spread"]
    return np.asarray(mean[head.labels] + spread[head.labels] * smooth(head.labels.shape, 14, rng), np.float32)


def _bleed(
    density: Floats, head: Head, where: Mask, kind: Kind, hu: float, mixed: bool, rng: np.random.Generator
) -> None:
    """Write a haemorrhage into the densities, with a rim of oedema round one in the brain."""
    if kind is Kind.INTRAPARENCHYMAL and rng.random() < 0.7:
        from scipy import ndimage

        reach = int(rng.integers(1, 6))
        rim = ndimage.binary_dilation(where, iterations=reach) & ~where & head.mask((*ct_heads.BRAIN,))
        density[rim] = float(rng.uniform(*OEDEMA_HU))
    field = smooth(where.shape, 10, rng)[where]
    values = hu + 3 * field
    if mixed and len(field):
        dark = field < np.quantile(field, rng.uniform(0.2, 0.5))
        values[dark] = rng.uniform(25, 45)
    density[where] = values


@cache
def _tissues() -> tuple[dict[str, Any], ...]:
    table = tomllib.loads(files("arcuate.inference.training").joinpath("ct_tissue.toml").read_text("utf-8"))
    return tuple(table["tissue"])
