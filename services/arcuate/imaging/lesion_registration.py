"""Rigid registration of two scans of one head and one contrast: six parameters, normalised correlation inside the brain.

Coarse to fine, with a deterministic optimiser: the same scans give the same transform. It is for scans of one person by one
kind of sequence; how well it fits is stated (`correlation`), so that a caller can refuse a bad fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from arcuate.imaging.pipelines import Volume

LEVELS_MM = (6.0, 3.0)
REACH_MM, REACH_DEGREES = 25.0, 20.0
"""How far two dates may lie apart on the scanner's table."""


@dataclass(frozen=True)
class Rigid:
    """moving: (4, 4) from RAS+ mm of the fixed scan to RAS+ mm of the moving one. correlation: of both in the brain, -1..1."""

    moving: NDArray[np.float64]
    correlation: float


def register(fixed: Volume, brain: NDArray[np.bool_], moving: Volume) -> Rigid:
    """Find where the moving scan shows what the fixed one shows.

    Args:
        brain: (i, j, k) on the fixed scan: what is compared.
    """
    places = np.argwhere(brain)
    world = places @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
    middle = world.mean(0)
    parameters, value = np.zeros(6), -1.0
    for level, mm in enumerate(LEVELS_MM):
        still, other = _smoothed(fixed, mm / 2), _smoothed(moving, mm / 2)
        points = world[:: max(1, len(world) // (12_000 * (level + 1)))]
        wanted = _at(still, fixed.affine, points)
        inverse = np.linalg.inv(moving.affine)

        def cost(p: NDArray[np.float64]) -> float:
            seen = _at(other, None, points, inverse @ _matrix(p, middle))  # noqa: B023 - used within the loop alone
            return -_correlation(wanted, seen)  # noqa: B023

        steps = np.diag([mm, mm, mm, np.radians(2 * mm / 3), np.radians(2 * mm / 3), np.radians(2 * mm / 3)])
        found = optimize.minimize(
            cost, parameters, method="Powell", options={"direc": steps, "xtol": 1e-3, "ftol": 1e-6, "maxiter": 12},
            bounds=[(-REACH_MM, REACH_MM)] * 3 + [(-np.radians(REACH_DEGREES), np.radians(REACH_DEGREES))] * 3,
        )  # fmt: skip
        parameters, value = found.x, -float(found.fun)
    return Rigid(_matrix(parameters, middle), value)


def resampled(moving: Volume, fixed: Volume, rigid: Rigid) -> NDArray[np.float32]:
    """The moving scan on the fixed one's voxels, by linear interpolation."""
    matrix = np.linalg.inv(moving.affine) @ rigid.moving @ fixed.affine
    made: NDArray[np.float32] = ndimage.affine_transform(
        np.asarray(moving.data, np.float32), matrix[:3, :3], matrix[:3, 3], output_shape=fixed.data.shape, output=np.float32,
        order=1, mode="constant", cval=0.0, prefilter=False,
    )  # fmt: skip
    return made


def _matrix(p: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift (mm) and turns (radians) about the middle of the brain."""
    (a, b, c), (sa, sb, sc) = np.cos(p[3:]), np.sin(p[3:])
    about_x = np.array([[1, 0, 0], [0, a, -sa], [0, sa, a]])
    about_y = np.array([[b, 0, sb], [0, 1, 0], [-sb, 0, b]])
    about_z = np.array([[c, -sc, 0], [sc, c, 0], [0, 0, 1]])
    made = np.eye(4)
    made[:3, :3] = about_x @ about_y @ about_z
    made[:3, 3] = middle + p[:3] - made[:3, :3] @ middle
    return made


def _smoothed(volume: Volume, sigma_mm: float) -> NDArray[np.float32]:
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    made: NDArray[np.float32] = ndimage.gaussian_filter(np.asarray(volume.data, np.float32), sigma_mm / spacing)
    return made


def _at(
    data: NDArray[np.float32],
    affine: NDArray[np.float64] | None,
    points: NDArray[np.float64],
    to_voxel: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    matrix = np.linalg.inv(affine) if affine is not None else to_voxel
    assert matrix is not None
    voxels = points @ matrix[:3, :3].T + matrix[:3, 3]
    found: NDArray[np.float32] = ndimage.map_coordinates(data, voxels.T, order=1, mode="constant", cval=0.0)
    return found


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else -1.0
