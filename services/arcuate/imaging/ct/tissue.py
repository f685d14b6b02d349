"""A head's own densities, smoothed without bone, and its brain's: what everything else is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.work import Mask, Work, rules
from arcuate.imaging.sampling import Floats


@dataclass(frozen=True)
class Tissue:
    """A head's smoothed densities.

    smooth (x, y, z): HU where the cavity is clear, else 0. clear: the cavity without bone's rim and lime. brain: its median HU.
    """

    smooth: Floats
    clear: Mask
    brain: float


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
