"""Blood by its density: denser than the brain, not dense as lime, thick enough, and not where veins lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.work import Mask, Work, rules
from arcuate.imaging.sampling import Floats

_RING = 3  # voxels round a haemorrhage in which a share of a voxel can be blood
_LAYER_REACH = 4  # the same along bone, where a layer thins out slowly
_CORE = 3  # voxels from the edge: what lies deeper shows a haemorrhage's own density
_MARGIN = 8  # voxels round a part that are looked at, the rim beside bone included


@dataclass(frozen=True)
class Tissue:
    """A head's smoothed densities.

    smooth (x, y, z): HU where the cavity is clear, else 0. clear: the cavity without bone's rim and lime. brain: its median HU.
    """

    smooth: Floats
    clear: Mask
    brain: float


@dataclass(frozen=True)
class Blood:
    """mask (x, y, z); parts: volume of each connected part, mL, largest first; dense_ml: left out as lime or metal."""

    mask: Mask
    parts: tuple[float, ...]
    dense_ml: float

    @property
    def ml(self) -> float:
        """All of it."""
        return float(sum(self.parts))


def tissue(work: Work, cavity: Cavity) -> Tissue:
    """Smooth the cavity's densities without letting bone in."""
    told = rules()["blood"]
    dense = cavity.mask & (work.hu > told["most"])
    dense = ndimage.binary_dilation(dense, iterations=1)
    clear = (cavity.depth > told["rim"]) & ~dense
    weight = ndimage.gaussian_filter(clear.astype(np.float32), told["smooth"])
    value = ndimage.gaussian_filter(np.where(clear, work.hu, 0).astype(np.float32), told["smooth"])
    smooth = np.where(clear, value / np.maximum(weight, 1e-3), 0).astype(np.float32)
    among = smooth[clear & (smooth > 22) & (smooth < 46)]
    return Tissue(smooth, clear, float(np.median(among)) if among.size else 33.0)


def find(work: Work, cavity: Cavity, chances: Chances, seen: Tissue) -> Blood:
    """Find blood."""
    told = rules()["blood"]
    above = seen.smooth - seen.brain - _asked_of_veins(chances)
    grown = seen.clear & (above > told["grow"])
    numbered, _ = ndimage.label(grown)
    wanted = np.unique(numbered[grown & (above > told["seed"])])
    boxes = ndimage.find_objects(numbered)
    found = np.zeros(cavity.mask.shape, np.bool_)
    for number in wanted[wanted > 0]:
        box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in boxes[number - 1])
        part = numbered[box] == number
        if part.sum() < 60:
            continue
        found[box] |= _edge(part, box, seen)
    found = _kept(found, cavity, chances, seen)
    return _whole(found, work, cavity, seen)


def _asked_of_veins(chances: Chances) -> Floats:
    """HU by which a place must be denser because veins may lie there."""
    told = rules()["blood"]
    return np.asarray(told["vein"] * np.clip(chances.vein / told["vein_chance"], 0, 1), np.float32)


def _edge(part: Mask, box: tuple[slice, ...], seen: Tissue) -> Mask:
    """A part at half the height between brain and its own inside."""
    values = seen.smooth[box]
    inner = ndimage.binary_erosion(part)
    middle = float(np.median(values[inner if inner.sum() > 30 else part]))
    half = max((seen.brain + middle) / 2, seen.brain + rules()["blood"]["grow"])
    return part & (values > half)


def _kept(found: Mask, cavity: Cavity, chances: Chances, seen: Tissue) -> Mask:
    """Leave out what is too small, too thin, too faint, a vein, or partial volume of the skull base."""
    told = rules()["blood"]
    numbered, count = ndimage.label(found)
    kept = np.zeros(count + 1, np.bool_)
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        part = numbered[box] == number
        if part.sum() < 200:
            continue
        thick = float(ndimage.distance_transform_edt(np.pad(part, 1)).max())
        middle = float(np.quantile(seen.smooth[box][part], 0.7)) - seen.brain
        vein = min(1.0, float(chances.vein[box][part].mean()) / told["vein_chance"])
        low = (box[2].start + box[2].stop) / 2 < chances.septum[2]
        at_base = low and float(np.median(cavity.depth[box][part])) < told["beside"]
        thin = told["thin_at_base"] if at_base else told["thin"]
        kept[number] = thick > thin and middle > told["mean"] + told["vein"] * vein
    mask: Mask = kept[numbered]
    return mask


def _whole(found: Mask, work: Work, cavity: Cavity, seen: Tissue) -> Blood:
    """Count each voxel by how much of it is blood, and the rim beside bone by what lies next to it."""
    told = rules()["blood"]
    dense = cavity.mask & (work.hu > told["most"]) & (cavity.depth > told["rim"] + 1)
    share = np.zeros(found.shape, np.float32)
    along = np.zeros(found.shape, np.bool_)
    around = _around(found, seen)
    numbered, _ = ndimage.label(found)
    owner = np.zeros(found.shape, np.int32)
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        wide = tuple(slice(max(0, s.start - _MARGIN), s.stop + _MARGIN) for s in box)
        part, other = numbered[wide] == number, (numbered[wide] > 0) & (numbered[wide] != number)
        lies_along = float(np.median(cavity.depth[wide][part])) < told["beside"]
        reach = _LAYER_REACH if lies_along else _RING - 1
        near = ndimage.binary_dilation(part, iterations=reach) & seen.clear[wide] & ~other
        rim = cavity.mask[wide] & ~seen.clear[wide] & ndimage.binary_dilation(part, iterations=_RING - 1)
        filled = _shares(part, rim, seen.smooth[wide], around[wide], seen.brain, lies_along)
        share[wide][near] = np.maximum(share[wide][near], filled[near])
        owner[wide][near], along[wide][near] = number, lies_along
    if found.any():
        _, at = ndimage.distance_transform_edt(~seen.clear, return_indices=True)
        beside = cavity.mask & ~seen.clear & ndimage.binary_dilation(found, iterations=_MARGIN)
        places = np.nonzero(beside)
        nearest = tuple(a[places] for a in at)
        low, high = told["rim_share"]
        deep = np.clip((share[nearest] - low) / (high - low), 0, 1)  # a layer that reaches below the rim fills it
        share[places], owner[places] = np.where(along[nearest], deep, share[nearest]), owner[nearest]
    ml = np.bincount(owner.ravel(), weights=share.ravel())[1:] / 1000
    large = np.concatenate([[False], ml >= told["least_ml"]])
    parts = tuple(sorted((round(float(v), 3) for v in ml if v >= told["least_ml"]), reverse=True))
    return Blood(large[owner] & (share > 0.5) if found.any() else found, parts, float(dense.sum()) / 1000)


def _shares(part: Mask, rim: Mask, values: Floats, base: Floats, brain: float, along: bool) -> Floats:
    """How much of each voxel is blood (0 to 1), between what lies round a part and its own density.

    A solid part counts whole inside. One without a core (blood in sulci, a thin layer) is a mixture throughout: smoothing has
    darkened it, so that its densest voxels give its density.
    """
    told = rules()["blood"]
    inmost = ndimage.distance_transform_edt(part | rim)
    core = part & (inmost > _CORE)
    if core.sum() > max(30.0, told["solid"] * float(part.sum())):
        whole, pure = part & (inmost > _CORE - 1), float(np.median(values[core]))
    else:
        whole, pure = np.zeros_like(part), float(np.quantile(values[part], told["layer" if along else "sulci"]))
        if not along:  # blood in sulci lies between cortex; a part in fluid has no brain round it
            base = np.where(base > brain - told["fluid_round"], np.maximum(base, brain + told["cortex"]), base)
    filled = np.where(whole, 1, np.clip((values - base) / np.maximum(pure - base, 5.0), 0, 1))
    return np.asarray(filled, np.float32)


def _around(found: Mask, seen: Tissue) -> Floats:
    """HU of what lies round a haemorrhage, voxel by voxel: beside fluid or oedema a share of blood begins darker than beside brain."""
    told = rules()["blood"]
    other = (seen.clear & ~ndimage.binary_dilation(found, iterations=_RING)).astype(np.float32)
    weight = ndimage.gaussian_filter(other, told["around"], truncate=5)
    value = ndimage.gaussian_filter(seen.smooth * other, told["around"], truncate=5)
    made = np.where(weight > 1e-3, value / np.maximum(weight, 1e-6), seen.brain)
    return np.asarray(np.clip(made, told["least_base"], seen.brain + told["base"]), np.float32)
