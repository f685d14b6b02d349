"""A head CT on a grid of 1 mm, axes to Right, Anterior and Superior: where everything is measured, gantry tilt undone."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import sampling
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.sampling import Floats, Frame

RULES = Path(__file__).with_name("measure.toml")
Mask = NDArray[np.bool_]
_MARGIN_MM = 6.0


@dataclass(frozen=True)
class Work:
    """hu (x, y, z) at 1 mm, -1024 outside the field of view. frame, origin: where it lies (sampling.py). slice_mm: of the scan."""

    hu: Floats
    frame: Frame
    origin: NDArray[np.float64]
    slice_mm: float

    def native(self, labels: NDArray[np.uint8], extent: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return labels on the scan's own grid."""
        return sampling.native(extent, self.frame, labels, self.origin)


@cache
def rules() -> Mapping[str, Any]:
    """The table of measure.toml."""
    return tomllib.loads(RULES.read_text(encoding="utf-8"))


def prepared(volume: Volume) -> Work:
    """Resample a scan of the head, cut to the bone and a margin round it.

    Raises:
        NotMeasurable: There is no bone to speak of.
    """
    data, affine = sampling.blocked(np.asarray(volume.data, np.float32), volume.affine, 1.0)
    frame = sampling.working_frame(affine)
    low, high = _box(data, affine, frame)
    origin = np.floor(low)
    shape = tuple(int(n) for n in np.ceil(high - origin) + 1)
    hu = sampling.sampled(data, frame, origin, shape, 1.0)
    normal = np.cross(volume.affine[:3, 0], volume.affine[:3, 1])
    slice_mm = abs(float(volume.affine[:3, 2] @ normal / np.linalg.norm(normal)))
    return Work(hu, Frame(frame.turn, np.linalg.inv(volume.affine)), origin, slice_mm)


def _box(data: Floats, affine: NDArray[np.float64], frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the bone of the largest object lies, in work mm."""
    step = [max(1, round(3 / s)) for s in np.linalg.norm(affine[:3, :3], axis=0)]
    coarse = data[:: step[0], :: step[1], :: step[2]]
    numbered, count = ndimage.label(coarse > rules()["cavity"]["bone"])
    if not count:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE,
            "No skull was found in the image",
            "Check that this is a CT of a whole head in HU.",
        )
    sizes = np.bincount(numbered.ravel())[1:]
    places = np.argwhere(numbered == int(sizes.argmax()) + 1) * np.array(step)
    world = places @ affine[:3, :3].T + affine[:3, 3]
    turned = world @ frame.turn
    return turned.min(0) - _MARGIN_MM, turned.max(0) + _MARGIN_MM


def largest(mask: Mask) -> Mask:
    """The largest component of a mask."""
    numbered, count = ndimage.label(mask)
    if count < 2:
        return mask
    return cast("Mask", numbered == int(np.bincount(numbered.ravel())[1:].argmax()) + 1)


def halved(mask: Mask) -> Floats:
    """Share of a mask in blocks of 2 x 2 x 2; odd sides are padded with false."""
    padded = np.pad(mask, [(0, n % 2) for n in mask.shape]).astype(np.float32)
    return sampling.halved(padded)


def doubled(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """A mask of blocks of 2 x 2 x 2 on the finer grid."""
    for axis in range(3):
        mask = np.repeat(mask, 2, axis)
    return mask[tuple(slice(0, n) for n in shape)]
