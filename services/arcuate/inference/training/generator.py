"""Synthetic scans from label maps: random shape, random contrast, random faults of acquisition.

One call makes one (image, target) pair on a grid of chosen size and voxel. Every structure gets its own mean and
spread; nothing is copied from a real scan. After SynthSeg (B. Billot et al., Medical Image Analysis 86, 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.nn import functional

from arcuate.inference.training import unlabelled
from arcuate.inference.training.labels import LabelScheme
from arcuate.inference.training.maps import PreparedMap

# T1-like means of tissues, as (low, high); fractions of the way from grey to white for the mixed nuclei.
MIXED = {
    "white": (1.0, 1.0), "cerebellar_white": (0.85, 1.08), "brainstem": (0.6, 1.0), "ventral_dc": (0.4, 0.9),
    "pallidum": (0.45, 0.95), "thalamus": (0.2, 0.75), "putamen": (0.0, 0.45), "caudate": (-0.1, 0.3),
    "accumbens": (-0.05, 0.3), "hippocampus": (-0.15, 0.2), "amygdala": (-0.15, 0.2), "cortex": (-0.1, 0.1),
    "cerebellar_grey": (-0.2, 0.2), "lesion": (-0.1, 1.0), "choroid": (-0.5, 0.2), "vessel": (-0.8, 0.9),
}  # fmt: skip
OUTSIDE = {
    "soft": (0.2, 1.0), "skin": (0.3, 1.4), "marrow": (0.3, 1.2), "bone": (0.02, 0.3), "vein": (0.1, 0.9),
    "eye": (0.1, 0.4), "air": (0.0, 0.06),
}  # fmt: skip

# Means of white matter, grey matter and fluid as (low, high) in the weightings that a department's series have; `inverted`
# is no acquisition, but a T1 turned over shows whether a network reads anatomy or brightness.
WEIGHTINGS = {
    "t1": ((0.72, 0.95), (0.42, 0.65), (0.03, 0.25)), "inverted": ((0.05, 0.28), (0.35, 0.58), (0.75, 0.97)),
    "t2": ((0.20, 0.40), (0.42, 0.62), (0.75, 1.10)), "flair": ((0.42, 0.58), (0.60, 0.82), (0.02, 0.22)),
    "pd": ((0.48, 0.62), (0.66, 0.84), (0.62, 1.00)),
}  # fmt: skip

# Share of T1-like samples in which bone is as dark as fluid, as in an inversion-prepared T1: only its shape and place
# then tell the inner table of the skull from the fluid below it, and intracranial volume depends on that.
BONE_LIKE_FLUID = 0.5

# Share of samples in which grey matter without a label (unlabelled.toml) is seen.
UNLABELLED_GREY = 0.75


@dataclass(frozen=True)
class Range:
    """How far the generator may go. `contrast`: the share of samples whose tissue means are wholly free (0..1); the others
    have one of `weightings` (names in WEIGHTINGS), each as often.

    Lengths in mm, angles in degrees. `whole_head` widens what the finder must stand: fields of view, tilts, necks.
    """

    contrast: float = 0.0
    weightings: tuple[str, ...] = ("t1",)
    stripped: float = 0.5
    rotation: float = 9.0
    scale: float = 0.15
    shift: float = 14.0
    elastic: float = 4.0
    bias: float = 0.5
    thick: float = 0.25
    blur: float = 0.25
    cut: float = 0.25
    gamma: float = 0.25
    whole_head: bool = False


@dataclass(frozen=True)
class Grid:
    """Voxels of the sample (x, y, z) and their side in mm."""

    shape: tuple[int, int, int]
    voxel: float


def uniform(random: torch.Generator, low: float, high: float) -> float:
    """One number."""
    return low + (high - low) * float(torch.rand((), generator=random))


def normal(random: torch.Generator, sigma: float) -> float:
    """One number round 0."""
    return sigma * float(torch.randn((), generator=random))


class Renderer:
    """Renders samples of one grid. Deterministic for a given Random on one device and thread count."""

    def __init__(self, scheme: LabelScheme, grid: Grid) -> None:
        self.scheme = scheme
        self.grid = grid
        self.class_of = torch.from_numpy(scheme.class_of)
        self.swapped = torch.from_numpy(scheme.swapped)
        self.group_of = torch.from_numpy(scheme.group_of)
        self.tissues = [
            scheme.tissue_of[int((self.group_of == g).nonzero()[0])] for g in range(int(self.group_of.max()) + 1)
        ]

    def sample(self, held: PreparedMap, reach: Range, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Image (1, 1, x, y, z) float32 in about 0..1 and target class indices (x, y, z) int64."""
        flip = uniform(random, 0, 1) < 0.5
        points = self._points(held, reach, random, flip)
        means, spreads = self.contrast(reach, random)
        source = _nearest(held.index, points)
        image, distance = self._intensities(held, points, means, reach, random)
        image = image + spreads[source] * torch.randn(image.shape, generator=random)
        image = self._texture(image, source, random)
        target = self.class_of[source]
        if flip:
            target = self.swapped[target]
        image, target = self._strip(image, target, distance, reach, random)
        image = self._acquire(image, reach, random)
        image, target = self._cut(image, target, reach, random)
        return scaled(image, random)[None, None], target

    def _points(self, held: PreparedMap, reach: Range, random: torch.Generator, flip: bool) -> Tensor:
        """Voxel coordinates of the map (x, y, z, 3) at which the sample's grid looks."""
        angles = [math.radians(normal(random, reach.rotation)) for _ in range(3)]
        matrix = _rotation(angles)
        matrix = matrix @ (torch.eye(3) + 0.04 * torch.randn(3, 3, generator=random))
        zoom = torch.tensor([uniform(random, 1 - reach.scale, 1 + reach.scale) for _ in range(3)])
        if flip:
            zoom[0] = -zoom[0]
        matrix = matrix * zoom
        shift = torch.tensor([uniform(random, -reach.shift, reach.shift) for _ in range(3)])
        centre = torch.tensor(held.centre)
        axes = [(torch.arange(n) - (n - 1) / 2) * self.grid.voxel for n in self.grid.shape]
        columns = [axis[:, None] * matrix[:, i] for i, axis in enumerate(axes)]
        points = columns[0][:, None, None] + columns[1][None, :, None] + columns[2][None, None, :] + (centre + shift)
        if reach.elastic > 0:
            nodes = [int(uniform(random, 4, 10.99)) for _ in range(3)]
            coarse = torch.randn(1, 3, *nodes, generator=random) * uniform(random, 0, reach.elastic)
            bent = functional.interpolate(coarse, size=self.grid.shape, mode="trilinear", align_corners=True)
            points = points + bent[0].permute(1, 2, 3, 0)
        return points

    def contrast(self, reach: Range, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every source index."""
        if uniform(random, 0, 1) < reach.contrast:
            means = self._free_means(random)
            spreads = torch.rand(len(self.tissues), generator=random) * 0.1
        else:
            means = self._weighted_means(reach.weightings, random)
            spreads = torch.full((len(self.tissues),), uniform(random, 0.01, 0.06))
            spreads = spreads * (0.7 + 0.6 * torch.rand(len(self.tissues), generator=random))
        air = torch.tensor([tissue == "air" for tissue in self.tissues])
        means[0] = 0.0 if uniform(random, 0, 1) < 0.5 else uniform(random, 0, 0.05)
        spreads[air] = uniform(random, 0, 0.02)
        return means[self.group_of], spreads[self.group_of]

    def _free_means(self, random: torch.Generator) -> Tensor:
        means = torch.rand(len(self.tissues), generator=random)
        kind = uniform(random, 0, 1)
        families = [{"white", "cerebellar_white", "brainstem"}, {"fluid", "csf", "eye"},
                    {"cortex", "cerebellar_grey", "hippocampus", "amygdala", "caudate", "putamen", "accumbens"}]  # fmt: skip
        joined = families if kind < 0.35 else families[1:2] if kind < 0.7 else []
        for family in joined:
            mean = uniform(random, 0, 1)
            for number, tissue in enumerate(self.tissues):
                if tissue in family:
                    means[number] = mean + normal(random, 0.03)
        return means.clamp(0, 1)

    def _weighted_means(self, weightings: tuple[str, ...], random: torch.Generator) -> Tensor:
        weighting = (
            weightings[0] if len(weightings) == 1 else weightings[int(uniform(random, 0, len(weightings) - 1e-6))]
        )
        white, grey, fluid = (uniform(random, *bounds) for bounds in WEIGHTINGS[weighting])
        # What lies outside the brain is known of T1 alone.
        free_outside = uniform(random, 0, 1) < 0.4 or weighting != "t1"
        as_dark_as_fluid = uniform(random, 0, 1) < BONE_LIKE_FLUID and fluid < 0.3
        means = torch.zeros(len(self.tissues))
        for number, tissue in enumerate(self.tissues):
            if tissue in MIXED:
                means[number] = grey + (white - grey) * uniform(random, *MIXED[tissue])
            elif tissue in ("fluid", "csf"):
                means[number] = fluid + normal(random, 0.02)
            elif tissue == "bone" and as_dark_as_fluid:
                means[number] = fluid * uniform(random, 0.5, 1.2)
            else:
                means[number] = uniform(random, 0, 1.2) if free_outside else uniform(random, *OUTSIDE[tissue])
        return means.clamp(0, 1.4)

    def _intensities(
        self, held: PreparedMap, points: Tensor, means: Tensor, reach: Range, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Intensity with partial volume, and mm to the brain's surface, both (x, y, z)."""
        low, high = _seen(points, held.index.shape)
        near = held.index[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].contiguous()
        far = held.distance[tuple(slice(a // 2, b // 2) for a, b in zip(low, high, strict=True))]
        points = points - torch.tensor(low)
        fine = torch.index_select(means, 0, near.reshape(-1)).reshape(1, 1, *near.shape)
        if uniform(random, 0, 1) < UNLABELLED_GREY:
            hidden = held.unlabelled[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].reshape(-1)
            there = hidden.nonzero()[:, 0]  # a few in a hundred voxels: looked up alone
            levels, shares = (table[hidden[there].int()] for table in self.unlabelled_grey(means, random))
            seen = fine.reshape(-1)
            seen[there] = seen[there] + shares * (levels - seen[there])
        halved = functional.avg_pool3d(fine, 2)
        if self.grid.voxel > 3:
            halved = functional.avg_pool3d(functional.pad(halved, (1, 0) * 3, mode="replicate"), 2, stride=1)
            offset = 1.0
        else:
            offset = 0.0
        both = torch.cat([halved, far[None, None]], 1)
        shape = torch.tensor(both.shape[2:])
        where = (points + (offset - 0.5)) / 2
        unit = (2 * where + 1) / shape - 1
        extend = reach.whole_head and uniform(random, 0, 1) < 0.4
        seen = functional.grid_sample(
            both,
            unit.flip(-1)[None],
            mode="bilinear",
            padding_mode="border" if extend else "zeros",
            align_corners=False,
        )
        inside = ((unit.abs() < 1).all(-1)) | torch.tensor(extend)
        return seen[0, 0], torch.where(inside, seen[0, 1], 99.0)

    def unlabelled_grey(self, means: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """For each number of unlabelled.places: the brightness it tends to, and how far it goes there (0 to 1)."""
        levels, shares = [0.0], [0.0]
        for kind in unlabelled.load():
            level = float(means[self.scheme.tissue_of.index(kind.like)])
            far = uniform(random, 0, kind.most)
            levels += [level] * unlabelled.PATCHES
            shares += [min(kind.most, far * uniform(random, 0.6, 1.4)) for _ in range(unlabelled.PATCHES)]
        return torch.tensor(levels), torch.tensor(shares)

    def _texture(self, image: Tensor, source: Tensor, random: torch.Generator) -> Tensor:
        """Uneven tissue outside the brain (fat, muscle, vessels are one label there), a little inside."""
        if uniform(random, 0, 1) < 0.3:
            return image
        strength = torch.tensor([0.02 if c else 0.25 for c in self.class_of.tolist()]) * uniform(random, 0, 1.5)
        nodes = [max(2, int(n * self.grid.voxel / uniform(random, 6, 20))) for n in self.grid.shape]
        field = functional.interpolate(
            torch.randn(1, 1, *nodes, generator=random), size=self.grid.shape, mode="trilinear"
        )
        return image * (1 + strength[source] * field[0, 0])

    def _strip(
        self, image: Tensor, target: Tensor, distance: Tensor, reach: Range, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Skull taken off at 0 to 5 mm from the brain with a wavy edge; CSF that went with it is background."""
        if uniform(random, 0, 1) >= reach.stripped:
            return image, target
        nodes = [max(3, int(n * self.grid.voxel / uniform(random, 15, 40))) for n in self.grid.shape]
        wave = functional.interpolate(
            torch.randn(1, 1, *nodes, generator=random), size=self.grid.shape, mode="trilinear"
        )
        edge = uniform(random, 0, 5) + uniform(random, 0, 1.2) * wave[0, 0]
        kept = (target > 0) | (distance < 0) if uniform(random, 0, 1) < 0.25 else distance < edge
        return torch.where(kept, image, 0.0), torch.where(kept, target, 0)

    def _acquire(self, image: Tensor, reach: Range, random: torch.Generator) -> Tensor:
        steps: list[tuple[float, Callable[[Tensor], Tensor]]] = [
            (0.8, partial(self._bias, reach=reach, random=random)),
            (reach.blur, partial(self._blurred, random=random)),
            (reach.thick, partial(self._thick_slices, random=random)),
            (0.7, lambda x: x.clamp_min(0) ** math.exp(normal(random, reach.gamma))),
            (0.3, lambda x: x + uniform(random, 0, 0.04) * torch.randn(x.shape, generator=random)),
        ]
        for probability, step in steps:
            if uniform(random, 0, 1) < probability:
                image = step(image)
        return image

    def _bias(self, image: Tensor, reach: Range, random: torch.Generator) -> Tensor:
        nodes = [int(uniform(random, 2, 5.99)) for _ in range(3)]
        coarse = torch.randn(1, 1, *nodes, generator=random) * uniform(random, 0, reach.bias)
        field = functional.interpolate(coarse, size=self.grid.shape, mode="trilinear", align_corners=True)
        return image * torch.exp(field[0, 0])

    def _blurred(self, image: Tensor, random: torch.Generator) -> Tensor:
        for axis in range(3):
            image = _smoothed(image, axis, uniform(random, 0.2, 1.5) / self.grid.voxel)
        return image

    def _thick_slices(self, image: Tensor, random: torch.Generator) -> Tensor:
        axis = int(uniform(random, 0, 2.99))
        thickness = uniform(random, self.grid.voxel, 7)
        image = _smoothed(image, axis, uniform(random, 0, 0.25) * thickness / self.grid.voxel)
        n = image.shape[axis]
        into, back = slices(n, max(2, round(n * self.grid.voxel / thickness)))
        means = torch.tensordot(into, image, ([1], [axis]))
        low, high = float(means.min()), float(means.max())
        return torch.tensordot(back, means, ([1], [0])).clamp(low, high).movedim(0, axis)

    def _cut(self, image: Tensor, target: Tensor, reach: Range, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A field of view that ends early, or a face taken off: zero image, background target."""
        kept = torch.ones_like(target, dtype=torch.bool)
        if uniform(random, 0, 1) < reach.cut:
            axis, share = int(uniform(random, 0, 2.99)), uniform(random, 0, 0.3 if reach.whole_head else 0.15)
            n = self.grid.shape[axis]
            amount = round(share * n)
            kept.narrow(axis, 0 if uniform(random, 0, 1) < 0.5 else n - amount, amount).fill_(False)
        if reach.whole_head and uniform(random, 0, 1) < 0.25:
            y, z = (torch.linspace(-1, 1, n) for n in self.grid.shape[1:])
            plane = y[:, None] * uniform(random, 0.4, 1) - z[None, :] > uniform(random, 0.6, 1.1)
            kept &= ~plane[None] | (target > 0)
        return torch.where(kept, image, 0.0), torch.where(kept, target, 0)


def slices(n: int, count: int) -> tuple[Tensor, Tensor]:
    """What `count` slices see of n voxels along an axis (count, n), and what is made of them again (n, count).

    A slice is the mean over its thickness. Back go means of a smooth curve that has the slices' means, as imaging/slices.py makes
    thick slices fine: the derivative of a cubic spline through their running sum (L. I. Boneva, D. Kendall, I. Stefanov, Spline transformations,
    Journal of the Royal Statistical Society B 33, 1971).
    """
    edges, sums = np.arange(count + 1.0), np.vstack([np.zeros(count), np.tri(count)])
    back = np.diff(CubicSpline(edges, sums, bc_type="natural")(np.linspace(0, count, n + 1)), axis=0) * (n / count)
    of_voxels = np.vstack([np.zeros(n), np.tri(n)])
    at = np.linspace(0, n, count + 1)
    into = np.diff([np.interp(at, np.arange(n + 1.0), column) for column in of_voxels.T], axis=1).T * (count / n)
    return torch.from_numpy(into).float(), torch.from_numpy(back).float()


def scaled(image: Tensor, random: torch.Generator | None = None) -> Tensor:
    """Intensities to about 0..1, as imaging/segmentation.py scales a scan: minimum and 99 % percentile.

    The percentile is taken over voxels above a tenth of the range, so that air and a stripped skull do not count.
    """
    low = image.min()
    coarse = image[::2, ::2, ::2].reshape(-1)
    top = torch.quantile(coarse, 0.999)
    body = coarse[coarse > low + 0.1 * (top - low)]
    high = torch.quantile(body, 0.99) if body.numel() > 16 else top
    jitter = 1.0 if random is None else uniform(random, 0.9, 1.1)
    return ((image - low) / (high - low).clamp_min(1e-6) * jitter).clamp(0, 1.5)


def _rotation(angles: list[float]) -> Tensor:
    result = torch.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [k for k in range(3) if k != axis]
        turn = torch.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        result = result @ turn
    return result


def _seen(points: Tensor, shape: Sequence[int]) -> tuple[list[int], list[int]]:
    """The part of a map that the points look at, with a margin, from even to even voxels; all where they look beside it."""
    flat = points.reshape(-1, 3)
    low = [max(0, int(n) - 6) // 2 * 2 for n in flat.amin(0)]
    high = [min(size, (int(n) + 8) // 2 * 2) for n, size in zip(flat.amax(0), shape, strict=True)]
    if any(b - a < 8 for a, b in zip(low, high, strict=True)):
        return [0, 0, 0], list(shape)
    return low, high


def _nearest(index: Tensor, points: Tensor) -> Tensor:
    """Source indices (x, y, z) int64 at the nearest voxel; 0 outside the map."""
    nx, ny, nz = index.shape
    whole = torch.round(points).to(torch.int32)
    x, y, z = whole[..., 0], whole[..., 1], whole[..., 2]
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    flat = torch.where(inside, (x * ny + y) * nz + z, 0)
    found = torch.index_select(index.reshape(-1), 0, flat.reshape(-1)).reshape(flat.shape)
    return torch.where(inside, found, 0).long()


def _smoothed(image: Tensor, axis: int, sigma: float) -> Tensor:
    if sigma < 0.2:
        return image
    radius = max(1, math.ceil(2.5 * sigma))
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    shape, pad = [1, 1, 1], [0, 0, 0]
    shape[axis], pad[axis] = len(at), radius
    out = functional.conv3d(image[None, None], (kernel / kernel.sum()).reshape(1, 1, *shape), padding=pad)
    return out[0, 0]
