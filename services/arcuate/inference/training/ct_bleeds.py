"""Haemorrhages of known kind and volume in a label map, and what looks like blood and is none.

Each kind is a field over the voxels where it may lie; the voxels of the smallest values, as many as the volume asks, are blood.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.inference.training.ct_heads import (
    BRAIN,
    CEREBELLUM,
    CSF,
    DURA,
    LATERAL_LEFT,
    LATERAL_RIGHT,
    SUPRATENTORIAL_VENTRICLES,
    THIRD,
    TISSUE_LEFT,
    TISSUE_RIGHT,
    Floats,
    Head,
    Mask,
)

Places = NDArray[np.intp]


class Kind(StrEnum):
    """Where blood lies."""

    INTRAPARENCHYMAL = "intraparenchymal"
    SUBDURAL = "subdural"
    EPIDURAL = "epidural"
    SUBARACHNOID = "subarachnoid"
    INTRAVENTRICULAR = "intraventricular"


@dataclass(frozen=True)
class Bleed:
    """One haemorrhage. ml: its true volume; hu: its mean; mixed: part of it is as dark as brain or darker; side: -1 left, 1 right."""

    kind: Kind
    ml: float
    hu: float
    mixed: bool
    side: int


def place(head: Head, kind: Kind, ml: float, side: int, rng: np.random.Generator) -> Mask:
    """Return where the blood lies; fewer voxels than asked only where the head has no room."""
    places, values = _FIELDS[kind](head, side, rng)
    count = min(round(ml * 1000), len(values))
    made = np.zeros(head.labels.shape, np.bool_)
    if count:
        chosen = places[np.argpartition(values, count - 1)[:count]]
        made[tuple(chosen.T)] = True
    return made


def smooth(shape: tuple[int, ...], wide: float, rng: np.random.Generator) -> Floats:
    """A smooth random field of standard deviation 1; `wide`: voxels over which it changes."""
    coarse = [max(4, int(n / wide) + 3) for n in shape]
    field = rng.standard_normal(coarse).astype(np.float32)
    made = ndimage.zoom(
        field, [n / c for n, c in zip(shape, coarse, strict=True)], order=1, grid_mode=True, mode="nearest"
    )
    made = made[tuple(slice(0, n) for n in shape)]
    return np.asarray(made / max(float(made.std()), 1e-6), np.float32)


def _intraparenchymal(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats]:
    below = rng.random() < 0.12
    allowed = head.mask(CEREBELLUM if below else TISSUE_LEFT if side < 0 else TISSUE_RIGHT)
    middle = np.argwhere(allowed & (head.depth > (10 if below else 22)))
    centre = middle[rng.integers(len(middle))].astype(np.float32)
    places = np.argwhere(head.mask(BRAIN) if rng.random() < 0.2 else allowed)
    axes = rng.uniform(0.75, 1.35, 3).astype(np.float32)
    near = np.linalg.norm((places - centre) / axes, axis=1)
    rough = smooth(head.labels.shape, 9, rng)[tuple(places.T)]
    return places, (near * (1 + 0.12 * rough)).astype(np.float32)


def _convexity(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats, NDArray[np.float32]]:
    """Voxels near the skull on one side, above the tentorium: places, depth, direction from the middle of the cavity."""
    x = np.arange(head.labels.shape[0], dtype=np.float32)[:, None, None]
    cerebellum = np.argwhere(head.mask(CEREBELLUM))
    tent = float(np.quantile(cerebellum[:, 2], 0.9))
    half = (x - head.septum[0]) * side > 3
    allowed = (head.depth > 0) & (head.depth < 40) & half
    allowed[:, :, : int(tent)] = False
    places = np.argwhere(allowed)
    away = (places - np.array([head.septum[0], head.septum[1] - 10, head.septum[2]])).astype(np.float32)
    return places, head.depth[tuple(places.T)], away / np.linalg.norm(away, axis=1, keepdims=True)


def _subdural(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats]:
    places, depth, direction = _convexity(head, side, rng)
    turn, lift = rng.uniform(-0.7, 0.7), rng.uniform(0.0, 0.6)
    axis = np.array([side * np.cos(turn), np.sin(turn), lift], np.float32)
    angle = np.arccos(np.clip(direction @ (axis / np.linalg.norm(axis)), -1, 1))
    # 50 mL come out 7 to 12 mm thick, as crescents of that size are.
    return places, (depth + rng.uniform(8, 22) * angle**2).astype(np.float32)


def _epidural(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats]:
    places, depth, direction = _convexity(head, side, rng)
    turn, lift = rng.uniform(-0.6, 0.6), rng.uniform(-0.1, 0.4)
    axis = np.array([side * np.cos(turn), np.sin(turn), lift], np.float32)
    angle = np.arccos(np.clip(direction @ (axis / np.linalg.norm(axis)), -1, 1))
    return places, (depth + rng.uniform(25, 45) * angle**2).astype(np.float32)


def _subarachnoid(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats]:
    places = np.argwhere((head.labels == CSF) & (head.depth > 2))
    if rng.random() < 0.6:  # the basal cisterns, from a ruptured aneurysm
        centre = np.array([head.septum[0], head.septum[1] + rng.uniform(-15, 12), head.septum[2] - rng.uniform(28, 40)])
    else:  # the convexity of one side, after an injury
        centre = np.array([head.septum[0] + side * 55, head.septum[1] + rng.uniform(-40, 30), head.septum[2] + 15])
    rough = smooth(head.labels.shape, 12, rng)[tuple(places.T)]
    return places, (np.linalg.norm(places - centre, axis=1) * (1 + 0.1 * rough)).astype(np.float32)


def _intraventricular(head: Head, side: int, rng: np.random.Generator) -> tuple[Places, Floats]:
    if rng.random() < 0.6:  # a level in the dependent horns of a supine patient
        places = np.argwhere(head.mask(SUPRATENTORIAL_VENTRICLES))
        return places, (places[:, 1] + 0.05 * places[:, 2]).astype(np.float32)
    own = LATERAL_LEFT if side < 0 else LATERAL_RIGHT
    places = np.argwhere(head.mask((*own, THIRD)))
    return places, np.abs(places[:, 1] - head.septum[1]).astype(np.float32)


_FIELDS = {
    Kind.INTRAPARENCHYMAL: _intraparenchymal,
    Kind.SUBDURAL: _subdural,
    Kind.EPIDURAL: _epidural,
    Kind.SUBARACHNOID: _subarachnoid,
    Kind.INTRAVENTRICULAR: _intraventricular,
}


def calcifications(head: Head, rng: np.random.Generator) -> list[tuple[Mask, float]]:
    """What is dense and no blood: choroid plexus, pineal gland, falx, basal ganglia; each in a part of the heads, with its HU."""
    found: list[tuple[Mask, float]] = []
    third = np.argwhere(head.labels == THIRD)
    if rng.random() < 0.6:
        for plexus in ((136,), (163,)):
            found.append((_grains(head.mask(plexus), rng.uniform(0.05, 0.4), rng), float(rng.uniform(90, 350))))
    if rng.random() < 0.6 and len(third):
        behind = third[third[:, 1] == third[:, 1].min()].mean(0) - np.array([0.0, 5.0, 0.0])
        found.append((_ball(head, behind, float(rng.uniform(1.2, 3.2))), float(rng.uniform(100, 350))))
    if rng.random() < 0.5:
        found.append((_falx(head, rng), float(rng.uniform(100, 400))))
    if rng.random() < 0.2:
        found.append((_grains(head.mask((13, 52)), rng.uniform(0.1, 0.5), rng), float(rng.uniform(55, 140))))
    return [(mask, hu) for mask, hu in found if mask.any()]


def _grains(where: Mask, share: float, rng: np.random.Generator) -> Mask:
    field = smooth(where.shape, 3, rng)
    if not where.any():
        return where
    return where & (field > np.quantile(field[where], 1 - share))


def _ball(head: Head, centre: NDArray[np.float64], radius: float) -> Mask:
    low = np.maximum(0, np.floor(centre - radius - 1)).astype(int)
    high = np.ceil(centre + radius + 2).astype(int)
    made = np.zeros(head.labels.shape, np.bool_)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.indices(made[part].shape).astype(np.float64) + low[:, None, None, None]
    made[part] = np.linalg.norm(grid - centre[:, None, None, None], axis=0) <= radius
    return made & (head.depth > 0)


def _falx(head: Head, rng: np.random.Generator) -> Mask:
    """Plates of 1 to 2 mm in the interhemispheric fissure, in its front third."""
    x0 = round(head.septum[0])
    made = np.zeros(head.labels.shape, np.bool_)
    y0, z0 = round(head.septum[1]) + 25, round(head.septum[2]) + int(rng.integers(5, 25))
    wide, tall = int(rng.integers(4, 14)), int(rng.integers(4, 12))
    made[x0 : x0 + int(rng.integers(1, 3)), y0 : y0 + wide, z0 : z0 + tall] = True
    return made & ((head.labels == CSF) | (head.labels == DURA))
