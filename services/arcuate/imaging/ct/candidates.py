"""What is known of each voxel that could be blood: its density and that around it, its place, what its mirror image shows.

Densities are in HU above the head's own brain, so that a scanner's offset does not matter. `FEATURES` names the columns in the order
in which the trees were grown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances, place
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue
from arcuate.imaging.ct.work import Mask, Work
from arcuate.imaging.sampling import Floats

DENSE = 9.0  # HU above the brain: what is less dense, and not beside such a place, holds no blood that could be told
BESIDE = 2  # voxels
MOST = 100.0  # HU above the brain: bone and lime are cut there, so that one voxel of them does not drown what lies round it
LIME = 130.0
DEPTHS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 30.0, 200.0)
INWARDS = (2.5, 5.0, 9.0)


@dataclass(frozen=True)
class Candidates:
    """mask (x, y, z): voxels that could be blood. features (n, len(FEATURES)) float32, a row for each in the order of the mask."""

    mask: Mask
    features: Floats


FEATURES = (
    "hu", "smooth_1", "clear_1", "clear_2", "clear_4", "clear_8", "highest_3", "lowest_3", "highest_7", "lowest_7", "spread",
    "depth", "above_its_depth_1", "above_its_depth_2", "mirror_1", "mirror_3", "inward_2", "inward_5", "inward_9", "bone_near", "lime_near",
    "thick_8", "thick_16", "thickest_8", "thickest_16", "size_16",
    "aside", "ahead", "below", "ventricle", "fluid", "vein", "slice_mm", "noise",
)  # fmt: skip


def candidates(work: Work, cavity: Cavity, chances: Chances, seen: Tissue) -> Candidates:
    """Describe the voxels of a head that could be blood."""
    box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in ndimage.find_objects(cavity.mask.astype(np.uint8))[0])
    inside = ndimage.binary_dilation(cavity.mask[box])  # its outermost voxels are bone and what lies inside it
    depth = cavity.depth[box]
    raw = np.clip(work.hu[box] - seen.brain, -60, 400).astype(np.float32)
    capped = np.minimum(raw, MOST)
    clear = inside & (depth > 1.0) & (raw < LIME)
    means = {wide: _mean(capped, clear, wide) for wide in (0.7, 1.0, 2.0, 4.0, 8.0)}
    held = np.where(inside, means[0.7], 0)
    wanted = inside & ndimage.binary_dilation(inside & (means[1.0] > DENSE), iterations=BESIDE)
    at = np.nonzero(wanted)
    one, two, four, eight = (means[w] for w in (1.0, 2.0, 4.0, 8.0))
    bins = np.digitize(depth[wanted], DEPTHS)
    columns: list[NDArray[np.floating]] = [
        capped[at], ndimage.gaussian_filter(capped, 1.0)[at], one[at], two[at], four[at], eight[at],
        ndimage.maximum_filter(held, 3)[at], ndimage.minimum_filter(np.where(inside, means[0.7], 60), 3)[at],
        ndimage.maximum_filter(held, 7)[at], ndimage.minimum_filter(np.where(inside, means[0.7], 60), 7)[at],
        np.sqrt(np.maximum(_mean(capped * capped, clear, 2.0) - two * two, 0))[at], depth[at],
    ]  # fmt: skip
    low = np.arange(depth.shape[2])[None, None, :] < depth.shape[2] // 2
    for mean in (one, two):
        columns.append(
            mean[at] - _usual(mean, depth, clear, low)[bins, np.broadcast_to(low, inside.shape)[at].astype(int)]
        )
    mirror = _mirrored(cavity, box, at)
    for wide in (1.0, 4.0):
        other = ndimage.map_coordinates(means[wide], mirror, order=1, mode="nearest")
        columns.append(means[wide][at] - other)
    columns += _inward(one, depth, at)
    dense = np.minimum(raw, 400.0)
    columns += [
        ndimage.maximum_filter(dense, 5)[at],
        ndimage.uniform_filter((inside & (raw > LIME)).astype(np.float32), 9)[at],
    ]
    columns += _thickness(one, inside, at)
    columns += _places(cavity, chances, box, at)
    noise = float(np.std((raw - means[1.0])[clear & (depth > 8)])) if clear.any() else 0.0
    columns += [np.full(len(at[0]), work.slice_mm), np.full(len(at[0]), noise)]
    whole = np.zeros(cavity.mask.shape, np.bool_)
    whole[box] = wanted
    return Candidates(whole, np.stack([np.asarray(c, np.float32) for c in columns], 1))


def _mean(image: Floats, clear: Mask, wide: float) -> Floats:
    """The mean round each voxel of what is neither bone nor lime."""
    weight = ndimage.gaussian_filter(clear.astype(np.float32), wide, truncate=3)
    total = ndimage.gaussian_filter(np.where(clear, image, 0), wide, truncate=3)
    return np.asarray(np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), image), np.float32)


def _usual(mean: Floats, depth: Floats, clear: Mask, low: Mask) -> NDArray[np.float64]:
    """Median at each depth below the bone, in the upper and the lower half: what hardening of the beam does to all of this head."""
    made = np.zeros((len(DEPTHS) + 1, 2))
    bins = np.digitize(depth, DEPTHS)
    for half in (0, 1):
        there = clear & (np.broadcast_to(low, clear.shape) == bool(half))
        values, where = mean[there], bins[there]
        for k in range(len(DEPTHS) + 1):
            some = values[where == k]
            if some.size > 50:
                made[k, half] = np.median(some)
    return made


def _mirrored(cavity: Cavity, box: tuple[slice, ...], at: tuple[NDArray[np.intp], ...]) -> NDArray[np.float64]:
    x, y, z = (a + s.start for a, s in zip(at, box, strict=True))
    line = cavity.midline(y, z)
    return np.stack([2 * line - x - box[0].start, at[1], at[2]])


def _inward(one: Floats, depth: Floats, at: tuple[NDArray[np.intp], ...]) -> list[Floats]:
    """What lies deeper, along the way from the bone."""
    flat = ndimage.gaussian_filter(depth, 2.0)
    slopes = np.stack([np.gradient(flat, axis=axis)[at] for axis in range(3)])
    slopes /= np.maximum(np.linalg.norm(slopes, axis=0), 1e-3)
    return [ndimage.map_coordinates(one, np.stack(at) + far * slopes, order=1, mode="nearest") for far in INWARDS]


def _thickness(one: Floats, inside: Mask, at: tuple[NDArray[np.intp], ...]) -> list[Floats]:
    """How thick what is dense is here, and how thick and large the whole part is."""
    here, whole, size = [], [], np.zeros(0, np.float32)
    for level in (8.0, 16.0):
        dense = inside & (one > level)
        distance = ndimage.distance_transform_edt(dense).astype(np.float32)
        numbered, count = ndimage.label(dense)
        most = (
            np.concatenate([[0], ndimage.maximum(distance, numbered, np.arange(1, count + 1))])
            if count
            else np.zeros(1)
        )
        here.append(distance[at])
        near = numbered[at]
        whole.append(np.asarray(most, np.float32)[near])
        size = np.log1p(np.bincount(numbered.ravel(), minlength=count + 1)[near].astype(np.float32)) * (near > 0)
    return [*here, *whole, size]


def _places(
    cavity: Cavity, chances: Chances, box: tuple[slice, ...], at: tuple[NDArray[np.intp], ...]
) -> list[NDArray[np.floating]]:
    middle, scale = place(cavity)
    x, y, z = (a + s.start for a, s in zip(at, box, strict=True))
    aside = np.abs(x - cavity.midline(y, z)) / scale[0]
    found: list[NDArray[np.floating]] = [aside, (y - middle[1]) / scale[1], (middle[2] - z) / scale[2]]
    return found + [channel[box][at] for channel in (chances.ventricle, chances.fluid, chances.vein)]
