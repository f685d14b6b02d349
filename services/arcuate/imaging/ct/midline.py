"""The plane between the hemispheres, by the mirror image of what lies beside the falx where it meets the skull."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue

_REACH_MM = 12
_OUTER_MM = 28.0
_WORST_HU = 12.0


def refined(cavity: Cavity, seen: Tissue) -> Cavity:
    """Return the cavity with its plane moved by at most a few mm, so that both sides of the falx look alike.

    Only columns whose midline lies near the skull count: in the middle the falx can be pushed, there it cannot.
    """
    y, z = np.nonzero(cavity.mask.any(0))
    x = cavity.midline(y, z)
    inside = np.rint(x).astype(int).clip(0, cavity.mask.shape[0] - 1)
    depth = cavity.depth[inside, y, z]
    kept = (depth > 3) & (depth < _OUTER_MM) & ((y + z) % 3 == 0)
    y, z = y[kept], z[kept]
    if len(y) < 200:
        return cavity
    middle = (float(y.mean()), float(z.mean()))
    away = np.arange(1, _REACH_MM + 1, 1.5)
    image, clear = seen.smooth, seen.clear.astype(np.float32)

    def unlike(p: NDArray[np.float64]) -> float:
        line = cavity.midline(y, z) + p[0] + p[1] * (y - middle[0]) / 50 + p[2] * (z - middle[1]) / 50
        sides = []
        for sign in (-1, 1):
            at = (line[:, None] + sign * away).ravel(), np.repeat(y, len(away)), np.repeat(z, len(away))
            sides.append(
                (
                    ndimage.map_coordinates(image, at, order=1),
                    ndimage.map_coordinates(clear, at, order=1, prefilter=False),
                )
            )
        (left, one), (right, two) = sides
        both = (one > 0.99) & (two > 0.99)
        if both.sum() < 500:
            return _WORST_HU
        return float(np.minimum(np.abs(left[both] - right[both]), _WORST_HU).mean()) + 0.01 * float(np.abs(p).sum())

    starts = [np.array([a, 0.0, 0.0]) for a in (-3.0, -1.5, 0.0, 1.5, 3.0)]
    best = min(starts, key=unlike)
    simplex = best + np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    found = optimize.minimize(
        unlike,
        best,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "maxfev": 60, "xatol": 0.05, "fatol": 1e-3},
    ).x
    if np.abs(found[0]) > 6 or np.abs(found[1:]).max() > 6:
        return cavity
    a, b, c = cavity.plane
    moved = a + found[0] - found[1] * middle[0] / 50 - found[2] * middle[1] / 50
    return replace(cavity, plane=(float(moved), float(b + found[1] / 50), float(c + found[2] / 50)))
