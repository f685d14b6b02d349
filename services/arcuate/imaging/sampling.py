"""Grids between the scan's voxels and the networks' boxes: working axes, resampling, raising to a finer grid.

All lengths in mm. "Work" coordinates run along the axes of a Frame; index * step + origin is a work coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Affine = NDArray[np.float64]

MAX_TURN_DEGREES = 20.0
BESIDE = 0.01  # voxels; axes that stray less than this from each other over the whole grid count as one


@dataclass(frozen=True)
class Frame:
    """Working axes: world = turn @ work. to_voxel(step, origin) gives matrix and offset for ndimage."""

    turn: NDArray[np.float64]
    inverse: NDArray[np.floating[Any]]

    def to_voxel(self, step: float, origin: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix and offset from work indices to voxels of the scan, as ndimage.affine_transform takes them."""
        matrix = self.inverse[:3, :3] @ self.turn
        return matrix * step, matrix @ origin + self.inverse[:3, 3]


def working_frame(affine: NDArray[np.float64]) -> Frame:
    """Axes to Right, Anterior, Superior along the voxel axes where those are less than 20 degrees off the world's."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # The voxel axis of each world axis, so that the cosines are largest together.
    best = max(permutations(range(3)), key=lambda axes: sum(abs(directions[w, v]) for w, v in enumerate(axes)))
    ordered = np.empty((3, 3))
    for w, v in enumerate(best):
        ordered[:, w] = directions[:, v] * np.sign(directions[w, v])
    u, _, vt = np.linalg.svd(ordered)
    turn: NDArray[np.float64] = u @ vt
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    if angle > MAX_TURN_DEGREES or np.linalg.det(turn) < 0:
        turn = np.eye(3)
    return Frame(turn, np.linalg.inv(affine))


def scaled(image: Floats) -> Floats:
    """Intensities to about 0..1 as in training (inference/training/generator.py, `scaled`): min to 99 % of the body."""
    low = float(image.min())
    coarse = image[::2, ::2, ::2].ravel()
    top = float(np.quantile(coarse, 0.999))
    body = coarse[coarse > low + 0.1 * (top - low)]
    high = float(np.quantile(body, 0.99)) if body.size > 16 else top
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1.5).astype(np.float32)


def halved(image: Floats) -> Floats:
    x, y, z = image.shape
    halved: Floats = image.reshape(x // 2, 2, y // 2, 2, z // 2, 2).mean((1, 3, 5), dtype=np.float32)
    return halved


def sampled(data: Floats, frame: Frame, origin: NDArray[np.float64], shape: tuple[int, ...], step: float) -> Floats:
    """Trilinear samples of the volume at origin + index * step (mm, work axes); the volume's minimum outside it."""
    matrix, offset = frame.to_voxel(step, origin)
    low = float(data.min())
    along = _straight(matrix, shape)
    if along is not None:
        return _sampled_by_axis(data, matrix, offset, shape, along, low)
    found: Floats = ndimage.affine_transform(
        data, matrix, offset, output_shape=shape, output=np.float32, order=1, mode="constant", cval=low, prefilter=False
    )
    return found


def _straight(matrix: NDArray[np.floating[Any]], shape: tuple[int, ...]) -> list[int] | None:
    """The input axis of each output axis, where the two grids run along each other (to `BESIDE` voxels over the box)."""
    along = [int(axis) for axis in np.abs(matrix).argmax(0)]
    main = np.zeros_like(matrix)
    main[along, range(3)] = matrix[along, range(3)]
    strays = (np.abs(matrix - main) @ np.array(shape)).max()
    return along if sorted(along) == [0, 1, 2] and strays < BESIDE else None


def _sampled_by_axis(
    data: Floats,
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    shape: tuple[int, ...],
    along: list[int],
    low: float,
) -> Floats:
    """`sampled` for grids that run along each other: one axis after the other, a tenth of the work."""
    found = np.full(shape, low, np.float32)
    output = [along.index(v) for v in range(3)]  # the output axis of each axis of the scan
    places, kept, box = [], [], []
    for v, w in enumerate(output):
        at = matrix[v, w] * np.arange(shape[w]) + offset[v]
        # Positions that meet a voxel but for rounding meet it, as at the edge of the volume.
        at = np.where(np.abs(at - np.round(at)) < 1e-6, np.round(at), at)
        inner = np.flatnonzero((at >= 0) & (at <= data.shape[v] - 1))
        if not inner.size:
            return found
        at = at[inner]
        first, last = int(at.min()), min(int(np.ceil(at.max())), data.shape[v] - 1)
        places.append(at - first)
        kept.append(inner)
        box.append(slice(first, last + 1))
    # In the order of memory: what is done sheet by sheet stays in the cache.
    order = sorted(range(3), key=lambda v: -abs(data.strides[v]))
    sheets = data[tuple(box)].transpose(order)
    planes, rows, columns = (_Places.at(places[v]) for v in order)
    made = np.empty([len(places[v]) for v in order], np.float32)
    for k, (before, after, weight) in enumerate(zip(planes.before, planes.after, planes.weight, strict=True)):
        sheet = sheets[before] if not weight else sheets[before] + weight * (sheets[after] - sheets[before])
        made[k] = columns.along(rows.along(sheet, 0), 1)
    held = tuple(slice(kept[v][0], kept[v][-1] + 1) for v in along)
    found[held] = made.transpose([order.index(v) for v in along])
    return found


@dataclass(frozen=True)
class _Places:
    """Where to read along one axis: two neighbours and the weight of the second."""

    before: NDArray[np.intp]
    after: NDArray[np.intp]
    weight: Floats

    @classmethod
    def at(cls, places: NDArray[np.float64]) -> _Places:
        before = np.floor(places).astype(np.intp)
        weight = (places - before).astype(np.float32)
        return cls(before, before + (weight > 0), weight)

    def along(self, sheet: Floats, axis: int) -> Floats:
        """Linear interpolation of a sheet along one of its axes."""
        first: Floats = sheet.take(self.before, axis)
        if self.weight.any():
            after = sheet.take(self.after, axis)
            after -= first
            after *= self.weight[:, None] if axis == 0 else self.weight
            first += after
        return first


def blocked(data: Floats, affine: Affine, target_mm: float) -> tuple[Floats, Affine]:
    """Block means so that voxels come near `target_mm` from below; the affine follows."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    factors = [int(f) for f in np.clip(np.floor(target_mm / spacing + 0.01), 1, 16)]
    if factors == [1, 1, 1]:
        return data, affine
    # In the order of memory: what is done sheet by sheet stays in the cache.
    order = sorted(range(3), key=lambda v: -abs(data.strides[v]))
    sheets, (a, b, c) = data.transpose(order), (factors[v] for v in order)
    n, rows, columns = (size // factor for size, factor in zip(sheets.shape, (a, b, c), strict=True))
    made = np.empty((n, rows, columns), np.float32)
    for k in range(n):
        sheet = _summed(sheets[k * a : (k + 1) * a], a, 0)[0]
        made[k] = _summed(_summed(sheet[: rows * b], b, 0)[:, : columns * c], c, 1)
    made *= np.float32(1 / (a * b * c))
    data = made.transpose([order.index(v) for v in range(3)])
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((np.array(factors) - 1) / 2)
    affine[:3, :3] = affine[:3, :3] * factors
    return data, affine


def _summed(data: Floats, factor: int, axis: int) -> Floats:
    """Sums of `factor` neighbours along an axis whose length is a multiple of it."""
    here = (slice(None),) * axis
    total: Floats = data[(*here, slice(0, None, factor))]
    for k in range(1, factor):
        total = total + data[(*here, slice(k, None, factor))]
    return total


def corners(shape: tuple[int, ...], affine: Affine, frame: Frame) -> NDArray[np.float64]:
    ends = [(-0.5, n - 0.5) for n in shape]
    voxels = np.array(np.meshgrid(*ends)).reshape(3, -1)
    world = affine[:3, :3] @ voxels + affine[:3, 3:]
    turned: NDArray[np.float64] = (frame.turn.T @ world).T
    return turned


def windows(shape: tuple[int, ...], window: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Windows that cover `shape`, overlapping by a third where one is not enough."""
    starts = []
    for n, w in zip(shape, window, strict=True):
        count = 1 if n <= w else int(np.ceil((n - w) / (2 * w / 3))) + 1
        starts.append(sorted({int(s) for s in np.linspace(0, max(0, n - w), count)}))
    return [
        tuple(slice(s, s + w) for s, w in zip(at, window, strict=True))
        for at in ((a, b, c) for a in starts[0] for b in starts[1] for c in starts[2])
    ]


def aligned(frame: Frame, origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moves the origin by less than a voxel so that the grid meets the centres of the volume's own voxels."""
    matrix, offset = frame.to_voxel(1.0, origin)
    nearest = np.round(offset)
    moved: NDArray[np.float64] = origin + np.linalg.solve(matrix, nearest - offset)
    return moved


def doubled(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Linear interpolation to half the voxel, times 64; edges repeat."""
    for axis in range(3):
        n = values.shape[axis]
        at = np.arange(n)
        before, after = values.take(np.maximum(at - 1, 0), axis), values.take(np.minimum(at + 1, n - 1), axis)
        three = values * np.uint16(3)
        pair = np.stack([three + before, three + after], axis + 1)
        values = pair.reshape(*values.shape[:axis], 2 * n, *values.shape[axis + 1 :])
    return values


def inside(
    extent: tuple[int, ...], frame: Frame, origin: NDArray[np.float64], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Which work voxels have their centre in the field of view."""
    matrix, offset = frame.to_voxel(1.0, origin)
    if (along := _straight(matrix, shape)) is not None:
        axes = []
        for w, (v, size) in enumerate(zip(along, shape, strict=True)):
            at = np.arange(size) * matrix[v, w] + offset[v]
            axes.append((at >= -0.5) & (at <= extent[v] - 0.5))
        straight: NDArray[np.bool_] = axes[0][:, None, None] & axes[1][None, :, None] & axes[2][None, None, :]
        return straight
    within = np.ones(shape, np.bool_)
    for axis, n in enumerate(extent):
        x, y, z = (np.arange(size) * matrix[axis, w] for w, size in enumerate(shape))
        at = (x[:, None, None] + y[None, :, None]) + (z[None, None, :] + offset[axis])
        within &= (at >= -0.5) & (at <= n - 0.5)
    return within


def native(
    extent: tuple[int, ...], frame: Frame, labels: NDArray[np.uint8], origin: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Labels on the volume's own grid by the nearest work voxel; slice after slice in memory, as SEG and NIfTI take them."""
    forward = np.linalg.inv(frame.inverse)
    matrix = frame.turn.T @ forward[:3, :3]
    offset = frame.turn.T @ forward[:3, 3] - origin
    found: NDArray[np.uint8]
    along = _straight(matrix, extent)  # the work axis of each voxel axis
    if along is not None:
        found = np.zeros(extent, np.uint8, order="F")
        at = [matrix[w, v] * np.arange(n) + offset[w] for v, (w, n) in enumerate(zip(along, extent, strict=True))]
        within = [np.flatnonzero((c >= 0) & (c <= labels.shape[w] - 1)) for c, w in zip(at, along, strict=True)]
        nearest = [np.floor(c[inner] + 0.5).astype(np.intp) for c, inner in zip(at, within, strict=True)]
        if all(inner.size for inner in within):
            box = tuple(slice(inner[0], inner[-1] + 1) for inner in within)
            source = labels.transpose(along)
            for into, k in zip(found[box].T, nearest[2], strict=True):
                into[:] = source[:, :, k].T.take(nearest[1], 0).take(nearest[0], 1)
        return found
    found = ndimage.affine_transform(
        labels, matrix, offset, output_shape=extent, output=np.uint8, order=0, mode="constant", cval=0
    )
    return found


def on_voxels(
    values: Floats,
    frame: Frame,
    origin: NDArray[np.float64],
    step: float,
    box: tuple[slice, ...],
    mode: Literal["constant", "nearest"] = "constant",
) -> Floats:
    """Trilinear values of a work grid (voxel 0 at `origin`, `step` apart, mm) on a box of the scan's own voxels; beyond the grid 0, or
    its edge with mode "nearest"."""
    forward = np.linalg.inv(frame.inverse)
    matrix = frame.turn.T @ forward[:3, :3] / step
    offset = (frame.turn.T @ forward[:3, 3] - origin) / step
    found: Floats = ndimage.affine_transform(
        values, matrix, offset + matrix @ np.array([part.start for part in box]),
        output_shape=tuple(part.stop - part.start for part in box), output=np.float32, order=1, mode=mode, prefilter=False,
    )  # fmt: skip
    return found
