"""Heads for CT phantoms: a label map cut to what a head CT covers, its regions, and a midline that is pushed aside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

LATERAL_LEFT, LATERAL_RIGHT = (4, 5, 136, 137), (43, 44, 163, 164)
THIRD, FOURTH = 14, 15
SUPRATENTORIAL_VENTRICLES = (*LATERAL_LEFT, *LATERAL_RIGHT, THIRD)
CEREBELLUM = (7, 8, 46, 47)
CSF, DURA = 24, 214
TISSUE_LEFT = (2, 3, 10, 11, 12, 13, 17, 18, 26, 28, 25)
TISSUE_RIGHT = (41, 42, 49, 50, 51, 52, 53, 54, 58, 60, 57)
BRAIN = (*TISSUE_LEFT, *TISSUE_RIGHT, *CEREBELLUM, 16)
INTRACRANIAL = (*BRAIN, *SUPRATENTORIAL_VENTRICLES, FOURTH, CSF, DURA, 72, 30, 62, 85)
_BELOW_MM, _ABOVE_MM = 12, 12
_SCALED, _BENT_MM, _NODES_MM = 0.08, 2.5, 45
"""Of a bent head: share of its length, standard deviation of the bending, how far apart its nodes lie."""


@dataclass(frozen=True)
class Head:
    """A head at 1 mm, axes to Right, Anterior, Superior.

    labels (x, y, z): stored numbers. depth (x, y, z): mm to the edge of the cranial cavity, inside it positive. septum: the
    septum pellucidum's place (x, y, z) in voxels.
    """

    name: str
    labels: Labels
    depth: Floats
    septum: tuple[float, float, float]

    def mask(self, numbers: tuple[int, ...]) -> Mask:
        """Where one of these labels stands."""
        return of(self.labels, numbers)


def of(labels: Labels, numbers: tuple[int, ...]) -> Mask:
    """Where one of these labels stands."""
    table = np.zeros(256, np.bool_)
    table[list(numbers)] = True
    return cast("Mask", table[labels])


def load(path: Path) -> Head:
    """Read a label map (see labels.csv), cut below the cerebellum and above the vertex."""
    image = cast("SpatialImage", nibabel.as_closest_canonical(cast("Any", nibabel.load(path))))
    labels = np.asarray(image.dataobj).astype(np.uint8)
    lowest = int(np.flatnonzero(of(labels, CEREBELLUM).any((0, 1)))[0])
    highest = int(np.flatnonzero(of(labels, BRAIN).any((0, 1)))[-1])
    labels = labels[:, :, max(0, lowest - _BELOW_MM) : highest + _ABOVE_MM]
    return made(path.name.removesuffix(".nii.gz"), np.ascontiguousarray(labels))


def made(name: str, labels: Labels) -> Head:
    """Return the head of a label array at 1 mm (x, y, z), RAS."""
    inside = ndimage.binary_fill_holes(of(labels, INTRACRANIAL))
    depth = ndimage.distance_transform_edt(inside).astype(np.float32)
    return Head(name, labels, depth, _septum(labels))


def _septum(labels: Labels) -> tuple[float, float, float]:
    """Between the bodies of both lateral ventricles, above the front of the third: the level of the foramina of Monro."""
    third = np.argwhere(labels == THIRD)
    if len(third) == 0:
        raise ValueError("the label map has no third ventricle")
    front, top = np.quantile(third[:, 1], 0.8), np.quantile(third[:, 2], 0.95)
    y0, z0 = round(float(front)), round(float(top)) + 3
    window = labels[:, y0 - 5 : y0 + 12, z0 - 3 : z0 + 8]
    left, right = np.argwhere(of(window, (4,)))[:, 0], np.argwhere(of(window, (43,)))[:, 0]
    x = (np.quantile(left, 0.95) + np.quantile(right, 0.05)) / 2 if len(left) and len(right) else third[:, 0].mean()
    return float(x), float(y0 + 3), float(z0 + 2)


def pushed(head: Head, shift_mm: float) -> Head:
    """Push the middle of the head sideways, to the right where positive; the falx stays where it is held by the skull.

    Args:
        shift_mm: How far the septum moves; less in heads whose septum lies near the skull.
    """
    if shift_mm == 0:
        return head
    x, y, z = (np.arange(n, dtype=np.float32) for n in head.labels.shape)
    near = np.exp(-(((y - head.septum[1]) / 45) ** 2))[None, :, None] * np.exp(-(((z - head.septum[2]) / 40) ** 2))
    weight = np.clip(head.depth / 45, 0, 1)
    weight = weight * weight * (3 - 2 * weight) * near
    at = tuple(round(v) for v in head.septum)
    field = ndimage.gaussian_filter(weight, 4) * np.float32(shift_mm / max(float(weight[at]), 0.2))
    source = np.clip(np.rint(x[:, None, None] - field), 0, len(x) - 1).astype(np.intp)
    labels = np.take_along_axis(head.labels, source, axis=0)
    labels = np.where(head.depth > 0, labels, head.labels)
    line = x - field[:, at[1], at[2]]  # from where each voxel of the septum's row was taken
    moved = float(np.interp(head.septum[0], line, x)) - head.septum[0]
    septum = (head.septum[0] + moved, head.septum[1], head.septum[2])
    return Head(head.name, labels, head.depth, septum)


def bent(head: Head, seed: int) -> Head:
    """Give a head another shape: up to `_SCALED` longer or shorter along each axis, and bent smoothly by some `_BENT_MM`.

    Few label maps are few skulls; what learns from them must not know them by their shape.
    """
    rng = np.random.default_rng([seed, 7])
    zoom = 1 + rng.uniform(-_SCALED, _SCALED, 3)
    shape = tuple(int(np.ceil(n * z)) for n, z in zip(head.labels.shape, zoom, strict=True))
    at = []
    for axis, grid in enumerate(np.ogrid[tuple(slice(0, n) for n in shape)]):
        middle = (head.labels.shape[axis] - 1) / 2
        straight = (grid - (shape[axis] - 1) / 2) / zoom[axis] + middle
        at.append(np.asarray(straight, np.float32) + _BENT_MM * _slow(shape, rng))
    return made(head.name, ndimage.map_coordinates(head.labels, at, order=0, mode="nearest"))


def _slow(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """A smooth random field: a cubic curve through its nodes in steps of 4 voxels, straight lines between those."""
    field = rng.standard_normal([max(4, round(n / _NODES_MM) + 1) for n in shape]).astype(np.float32)
    steps = [n // 4 + 2 for n in shape]
    coarse = ndimage.zoom(field, [n / c for n, c in zip(steps, field.shape, strict=True)], order=3, mode="nearest")
    fine: Floats = ndimage.zoom(coarse, 4, order=1, grid_mode=True, mode="nearest")
    return fine[tuple(slice(0, n) for n in shape)]


def shift_mm(head: Head) -> float:
    """How far the septum stands off the midline (mm, to the right positive), as it is read: off the plane through the falx where it
    meets the skull, the middle between the hemispheres near their outer edge."""
    near = (head.depth > 0) & (head.depth < 18)
    left, right = near & head.mask(TISSUE_LEFT), near & head.mask(TISSUE_RIGHT)
    width = head.labels.shape[0]
    last = width - 1 - left[::-1].argmax(0)
    first = right.argmax(0)
    y, z = np.nonzero(left.any(0) & right.any(0) & (np.abs(first - last) < 10))
    middle = (last[y, z] + first[y, z]) / 2
    terms = np.stack([np.ones(len(y)), y, z], 1)
    for _ in range(3):
        found = np.linalg.lstsq(terms, middle, rcond=None)[0]
        kept = np.abs(terms @ found - middle) < 4
        terms, middle = terms[kept], middle[kept]
    return float(head.septum[0] - found @ np.array([1.0, head.septum[1], head.septum[2]]))


def ventricle_ml(head: Head) -> float:
    """Lateral and third ventricles with what lies in them, mL."""
    return float(head.mask(SUPRATENTORIAL_VENTRICLES).sum()) / 1000


def evans_index(head: Head) -> float:
    """Greatest width of the frontal horns divided by the greatest width of the cavity on the same axial slice."""
    horns = head.mask((4, 43))
    horns[:, : round(head.septum[1]), :] = False
    horns[:, :, : round(head.septum[2]) - 12] = False
    best = (0.0, 0)
    for k in range(horns.shape[2]):
        columns = np.flatnonzero(horns[:, :, k].sum(1) >= 2)
        if len(columns):
            best = max(best, (float(columns[-1] - columns[0] + 1), k))
    if best[0] == 0:
        return 0.0
    return best[0] / inner_width(head.depth[:, :, best[1]] > 0)


def inner_width(inside: Mask) -> float:
    """Greatest extent along x of a slice's cavity (x, y), voxels."""
    rows = [np.flatnonzero(inside[:, y]) for y in range(inside.shape[1])]
    return max((float(r[-1] - r[0] + 1) for r in rows if len(r)), default=1.0)
