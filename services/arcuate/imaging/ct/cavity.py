"""The cranial cavity from the skull, with defects bridged, and the plane between its halves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from arcuate.imaging.ct.work import Mask, Work, doubled, halved, largest, rules
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.sampling import Floats

_BRAIN_HU = 40.0
_EDGES = ndimage.generate_binary_structure(3, 2)  # faces alone would reach less far aslant


@dataclass(frozen=True)
class Cavity:
    """Where the brain can be.

    mask (x, y, z) at 1 mm. depth: mm from its edge, partial volume along the slices counted. plane (a, b, c): the midline stands at
    x = a + b * y + c * z (voxels). bridged: part of the skull is missing.
    """

    mask: Mask
    depth: Floats
    plane: tuple[float, float, float]
    bridged: bool

    @property
    def ml(self) -> float:
        """Its volume."""
        return float(self.mask.sum()) / 1000

    def midline(self, y: NDArray[Any], z: NDArray[Any]) -> NDArray[np.float64]:
        """Return x of the midline at these places."""
        a, b, c = self.plane
        line: NDArray[np.float64] = a + b * y + c * z
        return line


def find(work: Work) -> Cavity:
    """Find the cavity.

    Raises:
        NotMeasurable: No whole skull, or a cavity of a size that no head has.
    """
    told = rules()["cavity"]
    bone = work.hu > told["bone"]
    if float(bone.sum()) / 1000 < told["least_bone"]:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, "The image holds too little bone for a whole skull",
            "Send the original CT of the head, not a copy without its skull.",
        )  # fmt: skip
    room, bridged = _room(work, bone)
    edge = (float(np.quantile(work.hu[work.hu > 1.4 * told["bone"]], 0.75)) + _BRAIN_HU) / 2
    inside = room & (work.hu < max(edge, told["bone"])) & (work.hu > told["air"])
    mask = _filled(largest(inside))
    if not told["low"] <= float(mask.sum()) / 1000 <= told["high"]:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the cranial cavity came out as {mask.sum() / 1000:.0f} ml",
            "Check that the series covers the whole head from the skull base to the vertex.",
        )  # fmt: skip
    along = min(1.0, 2 * rules()["blood"]["rim"] / max(work.slice_mm + 1, 1e-3))
    depth = ndimage.distance_transform_edt(mask, sampling=(1, 1, along)).astype(np.float32)
    return Cavity(mask, depth, plane_of(mask), bridged)


def _room(work: Work, bone: Mask) -> tuple[Mask, bool]:
    """What the skull encloses, generously by a voxel, found on blocks of 2 mm; and whether a defect was bridged."""
    bone2, air2 = halved(bone) > 0.3, halved(work.hu < rules()["cavity"]["air"]) > 0.5
    grown = _grown(~(bone2 | air2))
    open_at = grown & (ndimage.distance_transform_edt(~largest(air2)) * 2 < rules()["cavity"]["scalp"])
    middle = int(np.median(np.nonzero(grown)[2])) if grown.any() else 0
    defect = float(open_at[:, :, middle:].sum()) * 8 / 1000 > rules()["cavity"]["open_ml"]
    if defect:
        grown = _grown(~(bone2 | air2 | _cap(bone2, air2)))
    return doubled(ndimage.binary_dilation(grown), work.hu.shape), defect


def _grown(free: Mask) -> Mask:
    """The brain's room: from its wide middle outwards, step by step and never through bone or a narrow hole."""
    told = rules()["cavity"]
    far = ndimage.distance_transform_edt(np.pad(free, ((1, 1), (1, 1), (0, 0))))[1:-1, 1:-1] * 2
    core = largest(far > told["core"])
    if not core.any():
        return core
    wide = ndimage.binary_dilation(core, _EDGES, round(told["core"] / 2), mask=far > told["seal"])
    grown: Mask = ndimage.binary_dilation(wide, _EDGES, round(told["seal"] / 2) + 1, mask=free)
    return grown


def _cap(bone2: Mask, air2: Mask) -> Mask:
    """Where a defect of the skull is bridged: inside a wide closing of the bone, near the air outside."""
    told = rules()["cavity"]
    coarse = halved(bone2) > 0.15
    wide = round(told["cap"] / 4)
    padded = np.pad(coarse, wide)
    outside = ndimage.distance_transform_edt(~padded) > wide
    closed = (ndimage.distance_transform_edt(~outside) > wide)[wide:-wide, wide:-wide, wide:-wide]
    around = largest(air2)
    beside = ndimage.distance_transform_edt(~around) * 2 < told["cap_from_air"]
    return doubled(closed & ~ndimage.binary_dilation(coarse), bone2.shape) & beside & ~bone2


def _filled(mask: Mask) -> Mask:
    """Holes (calcifications) belong to the cavity."""
    filled: Mask = ndimage.binary_fill_holes(mask)
    return filled


def plane_of(mask: Mask) -> tuple[float, float, float]:
    """The plane that mirrors the cavity best onto itself, by the middle of its left and right edges."""
    small = halved(mask) > 0.5
    any_x = small.any(0)
    first = small.argmax(0)
    last = small.shape[0] - 1 - small[::-1].argmax(0)
    y, z = np.nonzero(any_x & (last - first > 20))
    middle = (first[y, z] + last[y, z]) / 2

    def off(p: NDArray[np.float64]) -> NDArray[np.float64]:
        away: NDArray[np.float64] = p[0] + p[1] * y + p[2] * z - middle
        return away

    start = np.array([float(np.median(middle)), 0.0, 0.0])
    found = optimize.least_squares(off, start, loss="soft_l1", f_scale=1.5).x
    # From blocks of 2 mm to voxels of 1 mm: a block's centre lies at 2 k + 0.5.
    return float(2 * found[0] + 0.5 - 0.5 * (found[1] + found[2])), float(found[1]), float(found[2])
