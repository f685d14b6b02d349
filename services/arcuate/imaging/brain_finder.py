"""Where the brain lies in a head of any contrast, by the brain finder, a coarse network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import sampling
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.network import Network, checked
from arcuate.imaging.pipelines import Infer, Volume
from arcuate.imaging.sampling import Floats, Frame

FILLED = 0.25
"""Less of what is seen 8 to 20 mm from the brain is filled where the skull was taken off: 0.01 to 0.14 in scans without skull (more where the
finder misses some cortex), 0.56 and more in whole heads."""


@dataclass(frozen=True)
class Brain:
    """Where the brain lies: middle and size of its bounding box, and its mask (x, y, z) on the finder's grid, whose voxel (i, j, k)
    has its centre at start + (index + 0.5) * step; all in work mm."""

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    ml: float
    stripped: bool
    mask: NDArray[np.bool_]
    start: NDArray[np.float64]
    step: float


async def find_brain(volume: Volume, frame: Frame, infer: Infer, model: Network) -> Brain:
    """Find the brain with the network for heads of any contrast; refused where there is none."""
    data, affine = await asyncio.to_thread(sampling.blocked, volume.data, volume.affine, model.voxel_mm / 2)
    inner = Frame(frame.turn, np.linalg.inv(affine))
    corners = sampling.corners(volume.data.shape, volume.affine, frame)
    low, high = corners.min(0), corners.max(0)
    step = model.voxel_mm
    shape = np.array(model.shape)
    size = np.maximum(shape, np.ceil((high - low) / step).astype(int))
    start = (low + high) / 2 - size * step / 2
    image = await asyncio.to_thread(
        lambda: sampling.halved(sampling.sampled(data, inner, start + step / 4, tuple(2 * size), step / 2))
    )
    mask = np.zeros(image.shape, np.float32)
    for window in sampling.windows(image.shape, model.shape):
        answer = await infer(model.used.name, {"image": sampling.scaled(image[window])[None, None]})
        found = checked(answer, model)[0, 1]
        mask[window] = np.maximum(mask[window], found)
    seen = np.ix_(*(_between(start[k], n, step, low[k], high[k]) for k, n in enumerate(image.shape)))
    return _brain_of(mask >= 128, image, seen, start, step)


def _between(start: float, n: int, step: float, low: float, high: float) -> NDArray[np.bool_]:
    at = start + (np.arange(n) + 0.5) * step
    between: NDArray[np.bool_] = (at > low) & (at < high)
    return between


def _brain_of(
    mask: NDArray[np.bool_],
    image: Floats,
    seen: tuple[NDArray[Any], ...],
    start: NDArray[np.float64],
    step: float,
) -> Brain:
    """From the finder's mask; seen: the voxels along each axis that lie in the field of view, as `np.ix_` has them."""
    numbered, count = ndimage.label(mask)
    sizes = np.bincount(numbered.ravel())[1:] if count else np.array([0])
    ml = float(sizes.max()) * step**3 / 1000
    if ml < 300:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, "No brain was found in the image",
            "Check that this is a T1-weighted series of a head; if it is, report it as not measurable.",
        )  # fmt: skip
    brain = numbered == int(sizes.argmax()) + 1
    places = np.argwhere(brain)
    low, high = np.quantile(places, 0.002, axis=0), np.quantile(places, 0.998, axis=0)
    centre = start + ((low + high) / 2 + 0.5) * step
    size = (high - low + 1) * step
    distance = ndimage.distance_transform_edt(~brain) * step
    around, near = image[seen], distance[seen]
    shell = around[(near > 8) & (near < 20)]
    level = image.min() + 0.08 * (np.quantile(image[brain], 0.9) - image.min())
    bare = not shell.size or bool((shell > level).mean() < FILLED)
    return Brain(centre, size, ml, bare, brain, start, step)
