"""Ventricles by the density of fluid and the place where they lie; Evans index; midline shift at the septum pellucidum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue
from arcuate.imaging.ct.work import Mask, Work, rules
from arcuate.imaging.sampling import Floats

_BACK_MM, _FRONT_MM, _DOWN_MM, _UP_MM = 6, 14, 5, 10
_REACH_MM = 32
_SEPTUM_MM = 7
_WHITE_BELOW = 3.0  # HU by which white matter lies below the brain's median
_RIM = 1  # voxels round the mask; wider, white matter that age made dark beside the horns would count


@dataclass(frozen=True)
class Ventricles:
    """mask (x, y, z), blood in them included. ml: their volume, what they fill of voxels at their edge counted. evans: None where no
    frontal horn was found. shift_mm: to the right positive; None where the septum was not found. septum: where it was looked for (voxels)."""

    mask: Mask
    ml: float
    evans: float | None
    shift_mm: float | None
    septum: tuple[float, float, float]


def find(work: Work, cavity: Cavity, chances: Chances, seen: Tissue, blood: Mask) -> Ventricles:
    """Find ventricles, their index and the septum."""
    fluid = _fluid(cavity, chances, seen)
    low = (fluid + seen.brain - _WHITE_BELOW) / 2
    dark = (cavity.depth > 8) & ((seen.smooth < low) & seen.clear | ~seen.clear & (cavity.depth > 15)) & cavity.mask
    ratio = chances.ventricle / np.maximum(chances.ventricle + chances.fluid, 1e-3)
    core = _core(dark, ratio, cavity, chances, blood)
    mask = _grown(core, dark & ~blood, ratio, cavity)
    shift = _shift(core, cavity, chances)
    return Ventricles(mask, _ml(mask, blood, work, seen, fluid), _evans(mask, cavity, chances), shift, chances.septum)


def _core(dark: Mask, ratio: Floats, cavity: Cavity, chances: Chances, blood: Mask) -> Mask:
    """Fluid and blood where ventricles usually lie."""
    told = rules()["ventricles"]
    filled = _filled(blood, chances) & cavity.mask & (cavity.depth > 8)
    inside = (dark & ~blood | filled) & (ratio > told["chance"]) & (chances.ventricle > 0.02)
    numbered, count = ndimage.label(inside)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    sure = np.zeros(count + 1, np.bool_)
    sure[np.unique(numbered[inside & (chances.ventricle > 0.35)])] = True
    mask: Mask = (sure & (sizes >= told["least_ml"] * 1000) & (np.arange(count + 1) > 0))[numbered]
    return mask


def _filled(blood: Mask, chances: Chances) -> Mask:
    """Blood in ventricles: where they nearly always lie, and of a bleed that lies mostly where they lie at times all of that.

    A bleed of the brain beside a ventricle reaches into such places with a part of it alone.
    """
    told = rules()["ventricles"]
    usual = chances.ventricle > told["filled"]
    numbered, count = ndimage.label(blood)
    share = np.bincount(numbered[usual], minlength=count + 1) / np.maximum(
        np.bincount(numbered.ravel(), minlength=count + 1), 1
    )
    of_ventricles = share >= told["mostly"]
    of_ventricles[0] = False
    found: Mask = blood & (chances.ventricle > told["surely"]) | of_ventricles[numbered] & usual
    return found


def _grown(core: Mask, dark: Mask, ratio: Floats, cavity: Cavity) -> Mask:
    """The core and what hangs together with it through thick fluid: wide ventricles reach where few heads have any. Sulci are thin."""
    told = rules()["ventricles"]
    if not core.any():
        return core
    box = ndimage.find_objects((dark | core).astype(np.uint8))[0]
    allowed, start = dark[box] & (ratio[box] >= told["foreign"]), core[box]
    thick = allowed & (ndimage.distance_transform_edt(dark[box]) > told["thick"]) & (cavity.depth[box] > told["deep"])
    numbered, count = ndimage.label(thick | start)
    hangs = np.zeros(count + 1, np.bool_)
    hangs[np.unique(numbered[start])] = True
    hangs[0] = False
    grown = core.copy()
    grown[box] |= ndimage.binary_dilation(hangs[numbered] & ~start, _ball(round(told["thick"])), mask=allowed)
    return grown


def _ml(mask: Mask, blood: Mask, work: Work, seen: Tissue, fluid: float) -> float:
    """mL of a mask whose edge is counted by how much of each voxel is fluid: a threshold alone loses a rim where grey matter is the neighbour.

    Blood in it counts in full: its density says nothing of how much of a voxel is ventricle.
    """
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return 0.0
    box = tuple(slice(max(0, b.start - _RIM), b.stop + _RIM) for b in boxes[0])
    sure = ndimage.binary_erosion(mask[box], _ball(1)) | mask[box] & blood[box]
    edge = ndimage.binary_dilation(mask[box], _ball(_RIM)) & seen.clear[box] & ~sure
    white = seen.brain - _WHITE_BELOW + 1
    share = np.clip((white - work.hu[box][edge]) / max(white - fluid, 1.0), 0, 1)
    return float(sure.sum() + share.sum()) / 1000


def _ball(radius: int) -> Mask:
    away = np.indices((2 * radius + 1,) * 3) - radius
    ball: Mask = (away**2).sum(0) <= radius**2
    return ball


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
