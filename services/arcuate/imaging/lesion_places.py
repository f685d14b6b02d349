"""Where lesions lie: connected sets of voxels, their volume, and the place that the structures they touch give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.sampling import Floats, Frame

# Classes of the network wm-lesions, in the order of its output (model.toml, grid.names).
BACKGROUND, LESION, VENTRICLE, FLUID, CORTEX, WHITE, DEEP_GREY, INFRATENTORIAL = range(8)
CONNECTED = np.ones((3, 3, 3), np.bool_)
FAR_MM = 1e6


class WorkGrid(Protocol):
    """The network's grid in the scan's space (lesions.Grid)."""

    @property
    def frame(self) -> Frame: ...
    @property
    def origin(self) -> NDArray[np.float64]: ...
    @property
    def step(self) -> float: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...


@dataclass(frozen=True)
class Lesion:
    """One lesion. centre: RAS+ mm. place: periventricular, juxtacortical, deep or infratentorial."""

    number: int
    ml: float
    centre: tuple[float, float, float]
    place: str


@dataclass(frozen=True)
class Tissue:
    """What the network tells of the brain round the lesions, on its grid: mm to ventricle and cortex; what is below the tentorium."""

    to_ventricle: Floats
    to_cortex: Floats
    below: NDArray[np.bool_]
    white_ml: float

    @classmethod
    def of(cls, p: Floats, step: float) -> Tissue:
        """Of probabilities (classes, x, y, z) on voxels of `step` mm."""
        named = p.argmax(0)
        # A lesion lies in the tissue that surrounds it; its blurred border, two voxels wide, can look like any tissue.
        wide = ndimage.binary_dilation(named == LESION, iterations=2)
        x, y, z = ndimage.distance_transform_edt(wide, return_distances=False, return_indices=True)
        around = named[x, y, z]
        return cls(
            _distance(named == VENTRICLE, step),
            _distance(named == CORTEX, step),
            around == INFRATENTORIAL,
            float((named == WHITE).sum()) * step**3 / 1000,
        )


def lesions(
    mask: NDArray[np.bool_], affine: NDArray[np.float64], grid: WorkGrid, tissue: Tissue, rules: Mapping[str, Any]
) -> tuple[NDArray[np.int32], tuple[Lesion, ...]]:
    """Number the lesions of a mask on the scan's voxels, the largest first; pieces that are too small are left out.

    Returns:
        Numbers (i, j, k) from 1 on, 0 elsewhere, and the lesions in their order.
    """
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    pieces, count = ndimage.label(mask, CONNECTED)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    kept = [k for k in np.argsort(-sizes[1:], kind="stable") + 1 if sizes[k] * voxel_mm3 >= rules["smallest_mm3"]]
    table = np.zeros(count + 1, np.int32)
    table[kept] = np.arange(1, len(kept) + 1)
    numbered: NDArray[np.int32] = table[pieces]
    found = []
    for number, box in enumerate(ndimage.find_objects(numbered), 1):
        places = np.argwhere(numbered[box] == number) + [s.start for s in box]
        world = places @ affine[:3, :3].T + affine[:3, 3]
        x, y, z = (float(v) for v in world.mean(0))
        place = _place(world, grid, tissue, float(rules["touches"]))
        found.append(Lesion(number, len(places) * voxel_mm3 / 1000, (x, y, z), place))
    return numbered, tuple(found)


def _place(world: NDArray[np.float64], grid: WorkGrid, tissue: Tissue, touches: float) -> str:
    work = world @ grid.frame.turn
    index = np.clip(np.round((work - grid.origin) / grid.step).astype(int), 0, np.array(grid.shape) - 1)
    x, y, z = index.T
    if tissue.below[x, y, z].mean() > 0.5:
        return "infratentorial"
    if tissue.to_ventricle[x, y, z].min() <= touches:
        return "periventricular"
    if tissue.to_cortex[x, y, z].min() <= touches:
        return "juxtacortical"
    return "deep"


def _distance(mask: NDArray[np.bool_], step: float) -> Floats:
    if not mask.any():
        return np.full(mask.shape, FAR_MM, np.float32)
    return np.asarray(ndimage.distance_transform_edt(~mask) * step, np.float32)
