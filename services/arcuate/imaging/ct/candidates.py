"""What is known of each voxel that could be blood: its density and that around it, its place, what its mirror image shows.

Densities are in HU above the head's own brain, so that a scanner's offset does not matter. `FEATURES` names the columns in the order
in which the trees were grown; numbers in the names are about mm, or HU of a threshold. No number here is the same for a whole scan or a
whole dense part (noise, thickness of slices, size of the part): by such numbers first looks knew again the scans that they were grown
on, and learnt their bleeds by heart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances, place
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue
from arcuate.imaging.ct.work import Mask, Work
from arcuate.imaging.sampling import Floats

Places = tuple[NDArray[np.intp], ...]
Columns = NDArray[np.floating[Any]]

DENSE = 9.0  # HU above the brain: what is less dense, and not beside such a place, holds no blood that could be told
BESIDE = 2  # voxels
MOST = 100.0  # HU above the brain: bone and lime are cut there, so that one voxel of them does not drown what lies round it
LIME = 130.0  # HU above the brain
OUTSIDE = 60.0  # taken for what lies outside the cavity where the lowest is sought
DEPTHS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 15.0, 20.0, 30.0, 200.0)
INWARDS = (2.5, 5.0, 9.0)
THICK = (8.0, 16.0)  # HU above the brain: the distance from what is less dense tells how thick a dense part is here


@dataclass(frozen=True)
class Candidates:
    """mask (x, y, z): voxels that could be blood. features (n, len(FEATURES)) float32, a row for each in the order of the mask."""

    mask: Mask
    features: Floats


FEATURES = (
    "hu", "smooth_1", "clear_1", "clear_2", "clear_4", "clear_8", "highest_3", "lowest_3", "highest_7", "lowest_7", "spread",
    "depth", "above_its_depth_1", "above_its_depth_2", "mirror_1", "mirror_3", "inward_2", "inward_5", "inward_9", "bone_near", "lime_near",
    "thick_8", "thick_16", "aside", "ahead", "below", "ventricle", "fluid", "vein",
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
    one, two = means[1.0], means[2.0]
    wanted = inside & ndimage.binary_dilation(inside & (one > DENSE), iterations=BESIDE)
    at = np.nonzero(wanted)
    spread = np.sqrt(np.maximum(_mean(capped * capped, clear, 2.0) - two * two, 0))
    columns = [
        *_densities(capped, means, inside, at), spread[at], depth[at],
        *_above_its_depth((one, two), depth, clear, at), *_above_its_mirror((one, means[4.0]), cavity, box, at),
        *_inward(one, depth, at), *_bone(raw, inside, at),
        *(ndimage.distance_transform_edt(inside & (one > level))[at] for level in THICK), *_places(cavity, chances, box, at),
    ]  # fmt: skip
    whole = np.zeros(cavity.mask.shape, np.bool_)
    whole[box] = wanted
    return Candidates(whole, np.stack([np.asarray(c, np.float32) for c in columns], 1))


def _densities(capped: Floats, means: Mapping[float, Floats], inside: Mask, at: Places) -> list[Floats]:
    """HU here and around, the highest and the lowest near by."""
    high, low = np.where(inside, means[0.7], 0), np.where(inside, means[0.7], OUTSIDE)
    extremes = [found for n in (3, 7) for found in (ndimage.maximum_filter(high, n), ndimage.minimum_filter(low, n))]
    around = [means[wide] for wide in (1.0, 2.0, 4.0, 8.0)]
    return [image[at] for image in (capped, ndimage.gaussian_filter(capped, 1.0), *around, *extremes)]


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


def _above_its_depth(means: Sequence[Floats], depth: Floats, clear: Mask, at: Places) -> list[Columns]:
    low = np.arange(depth.shape[2])[None, None, :] < depth.shape[2] // 2
    cell = np.digitize(depth[at], DEPTHS), np.broadcast_to(low, depth.shape)[at].astype(int)
    return [mean[at] - _usual(mean, depth, clear, low)[cell] for mean in means]


def _above_its_mirror(means: Sequence[Floats], cavity: Cavity, box: tuple[slice, ...], at: Places) -> list[Columns]:
    x, y, z = (a + s.start for a, s in zip(at, box, strict=True))
    mirror = np.stack([2 * cavity.midline(y, z) - x - box[0].start, at[1], at[2]])
    return [mean[at] - ndimage.map_coordinates(mean, mirror, order=1, mode="nearest") for mean in means]


def _inward(one: Floats, depth: Floats, at: Places) -> list[Columns]:
    """What lies deeper, along the way from the bone."""
    flat = ndimage.gaussian_filter(depth, 2.0)
    slopes = np.stack([np.gradient(flat, axis=axis)[at] for axis in range(3)])
    slopes /= np.maximum(np.linalg.norm(slopes, axis=0), 1e-3)
    return [ndimage.map_coordinates(one, np.stack(at) + far * slopes, order=1, mode="nearest") for far in INWARDS]


def _bone(raw: Floats, inside: Mask, at: Places) -> list[Floats]:
    """Bone or lime beside, and how much of it lies inside the cavity."""
    lime = (inside & (raw > LIME)).astype(np.float32)
    return [ndimage.maximum_filter(raw, 5)[at], ndimage.uniform_filter(lime, 9)[at]]


def _places(cavity: Cavity, chances: Chances, box: tuple[slice, ...], at: Places) -> list[Columns]:
    middle, scale = place(cavity)
    x, y, z = (a + s.start for a, s in zip(at, box, strict=True))
    aside = np.abs(x - cavity.midline(y, z)) / scale[0]
    found: list[Columns] = [aside, (y - middle[1]) / scale[1], (middle[2] - z) / scale[2]]
    return found + [channel[box][at] for channel in (chances.ventricle, chances.fluid, chances.vein)]
