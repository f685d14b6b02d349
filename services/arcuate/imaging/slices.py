"""Thick slices made fine before they are looked at: a slice is the mean over its thickness, not a point in its middle.

Between slices a straight line from middle to middle blurs what is blurred already. Here the running sum over the slices, which is known at their
edges, goes through a cubic spline; its differences are finer slices whose means are those of the scan (L. I. Boneva, D. Kendall,
I. Stefanov, Spline transformations, Journal of the Royal Statistical Society B 33, 1971).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from arcuate.imaging.sampling import Affine, Floats

THICK_MM = 2.5
"""Finer voxels are left as they are: of voxels of 2 mm on every axis the curve sharpens the noise (synthetic heads with dark and bright exchanged:
mean Dice 0.81 -> 0.78)."""
FINE_MM = 1.0


def made_fine(data: Floats, affine: Affine) -> tuple[Floats, Affine]:
    """Return a volume (i, j, k) whose thick axes have voxels of at most `FINE_MM`, and its affine; within the range of the values before.

    Slices with gaps are taken for as thick as they lie apart.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = float(data.min()), float(data.max())
    for axis in np.flatnonzero(spacing > THICK_MM):
        parts = int(np.ceil(spacing[axis] / FINE_MM - 0.05))
        finer = np.tensordot(_parting(data.shape[axis], parts), data, (1, axis))
        data = np.clip(np.moveaxis(finer, 0, axis), low, high)
        affine = affine.copy()
        affine[:3, axis] /= parts
        affine[:3, 3] -= affine[:3, axis] * (parts - 1) / 2
    return data, affine


def _parting(slices: int, parts: int) -> NDArray[np.float32]:
    """The weights (slices x parts, slices) of each slice in each of its finer ones."""
    sums = np.vstack([np.zeros(slices), np.tri(slices)])
    spline = CubicSpline(np.arange(slices + 1.0), sums, bc_type="natural")
    return np.asarray(parts * np.diff(spline(np.arange(slices * parts + 1) / parts), axis=0), np.float32)
