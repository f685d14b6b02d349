"""Ventricles by the density of fluid and the place where they lie; Evans index; midline shift at the septum pellucidum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue
from arcuate.imaging.ct.work import Mask, rules

_BACK_MM, _FRONT_MM, _DOWN_MM, _UP_MM = 6, 14, 5, 10
_REACH_MM = 32
_SEPTUM_MM = 7


@dataclass(frozen=True)
class Ventricles:
    """mask (x, y, z), blood in them included. evans: None where no frontal horn was found. shift_mm: to the right positive; None where
    the septum was not found. septum: where it was looked for (voxels)."""

    mask: Mask
    evans: float | None
    shift_mm: float | None
    septum: tuple[float, float, float]

    @property
    def ml(self) -> float:
        """Their volume."""
        return float(self.mask.sum()) / 1000


def find(cavity: Cavity, chances: Chances, seen: Tissue, blood: Mask) -> Ventricles:
    """Find ventricles, their index and the septum."""
    told = rules()["ventricles"]
    fluid = _fluid(cavity, chances, seen)
    low = (fluid + seen.brain - 3) / 2
    dark = (
        cavity.mask
        & (cavity.depth > 8)
        & ((seen.smooth < low) & seen.clear | blood | ~seen.clear & (cavity.depth > 15))
    )
    ratio = chances.ventricle / np.maximum(chances.ventricle + chances.fluid, 1e-3)
    inside = dark & (ratio > told["chance"]) & (chances.ventricle > 0.02)
    inside &= ~blood | (chances.ventricle > 0.4)
    numbered, count = ndimage.label(inside)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    sure = np.zeros(count + 1, np.bool_)
    sure[np.unique(numbered[inside & (chances.ventricle > 0.35)])] = True
    mask: Mask = (sure & (sizes >= told["least_ml"] * 1000) & (np.arange(count + 1) > 0))[numbered]
    shift = _shift(mask, cavity, chances)
    return Ventricles(mask, _evans(mask, cavity, chances), shift, chances.septum)


def _fluid(cavity: Cavity, chances: Chances, seen: Tissue) -> float:
    """The fluid's own HU: the median of the darkest places that are ventricle for sure."""
    low, high = rules()["ventricles"]["fluid"]
    values = seen.smooth[seen.clear & (chances.ventricle > 0.4) & (seen.smooth > low - 10) & (seen.smooth < high)]
    return float(np.clip(np.median(values), low, high)) if values.size > 200 else 7.0


def _evans(mask: Mask, cavity: Cavity, chances: Chances) -> float | None:
    """Greatest width of the frontal horns by the greatest inner width of the skull on the same slice."""
    _, y, z = chances.septum
    horns = mask.copy()
    horns[:, : round(y), :] = False
    horns[:, :, : max(0, round(z) - 12)] = False
    best = (0.0, 0)
    for k in np.flatnonzero(horns.any((0, 1))):
        columns = np.flatnonzero(horns[:, :, k].sum(1) >= 2)
        if len(columns):
            best = max(best, (float(columns[-1] - columns[0] + 1), int(k)))
    if best[0] < 5:
        return None
    rows = [np.flatnonzero(row) for row in cavity.mask[:, :, best[1]].T]
    inner = max((float(r[-1] - r[0] + 1) for r in rows if len(r)), default=0.0)
    return round(best[0] / inner, 3) if inner else None


def _shift(mask: Mask, cavity: Cavity, chances: Chances) -> float | None:
    """How far the septum stands off the midline: the middle between both frontal horns, row by row, the median of them."""
    _, y, z = chances.septum
    found: list[float] = []
    for k in range(max(0, round(z) - _DOWN_MM), min(mask.shape[2], round(z) + _UP_MM)):
        for j in range(max(0, round(y) - _BACK_MM), min(mask.shape[1], round(y) + _FRONT_MM)):
            line = float(cavity.midline(np.array(j), np.array(k)))
            at = _between(mask[:, j, k], line)
            if at is not None:
                found.append(at - line)
    return round(float(np.median(found)), 2) if len(found) >= 8 else None


def _between(row: NDArray[np.bool_], line: float) -> float | None:
    """The middle between two horns: of the gap where a septum shows, else of the run that both make together."""
    low = max(0, round(line) - _REACH_MM)
    inside = row[low : round(line) + _REACH_MM]
    steps = np.diff(np.pad(inside, 1).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1) + low, np.flatnonzero(steps == -1) + low - 1
    if len(starts) == 0:
        return None
    gaps = [(starts[i + 1] - ends[i] - 1, (ends[i] + starts[i + 1]) / 2) for i in range(len(starts) - 1)]
    narrow = [at for width, at in gaps if width <= _SEPTUM_MM]
    if len(narrow) == 1:
        return float(narrow[0])
    return float(starts[0] + ends[-1]) / 2 if len(starts) <= 2 and ends[-1] - starts[0] > 8 else None
