"""Invented white-matter lesions: where and in what shapes the literature describes them, painted into a label map.

Periventricular caps and bands, confluent fields, ovoid foci at right angles to the ventricles, small deep foci, foci
that touch the cortex, and foci below the tentorium. Shapes come from thresholded smooth noise and warped ellipsoids;
nothing is copied from a scan. Lesions of a label map itself are kept in part of the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from arcuate.inference.training.generator import normal, uniform

LOAD_ML = (1.0, 160.0)
"""Of fields, if the whole head were like the part that is painted: most of a heavy load lies in a part round the ventricles."""
SMALLEST_RADIUS_MM, LARGEST_RADIUS_MM = 1.2, 7.0


@dataclass(frozen=True)
class Ground:
    """The part of a map that is painted on, 1 mm voxels (x, y, z): where white matter, the map's own lesions and the white
    matter below the tentorium are, and mm to the lateral ventricles and to cortex."""

    white: Tensor
    own: Tensor
    below: Tensor
    to_ventricle: Tensor
    to_cortex: Tensor


def paint(ground: Ground, random: torch.Generator) -> Tensor:
    """How far each voxel is lesion, 0..1 with a soft border; all 0 in some samples."""
    soft = torch.zeros(ground.white.shape)
    if uniform(random, 0, 1) < 0.07:
        return soft
    if uniform(random, 0, 1) < 0.5:
        soft = torch.maximum(soft, ground.own.float())
    if uniform(random, 0, 1) < 0.6:
        soft = torch.maximum(soft, _field(ground, random))
    if uniform(random, 0, 1) < 0.75 or not bool((soft > 0.5).any()):
        _foci(soft, ground, random)
    return smoothed(soft, uniform(random, 0.3, 0.8))


def noise(shape: tuple[int, ...], mm: float, random: torch.Generator) -> Tensor:
    """Smooth noise of unit-like spread with a grain of about `mm` (1 mm voxels)."""
    nodes = [max(2, math.ceil(n / mm) + 1) for n in shape]
    coarse = torch.randn(1, 1, *nodes, generator=random)
    return functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0]


def smoothed(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur in voxels along the last three axes; a wide one at half the resolution, which nobody sees."""
    if sigma >= 1.4 and image.ndim == 3:
        half = functional.avg_pool3d(image[None, None], 2, ceil_mode=True)[0, 0]
        blurred = smoothed(half, sigma / 2)
        return functional.interpolate(blurred[None, None], size=image.shape, mode="trilinear", align_corners=False)[
            0, 0
        ]
    for axis in (-3, -2, -1):
        image = smoothed_along(image, sigma, axis)
    return image


def smoothed_along(image: Tensor, sigma: float, axis: int) -> Tensor:
    """Gaussian blur in voxels along one axis, nothing beyond the edge; by adding shifted copies, many times faster on a CPU
    than a convolution of one channel."""
    if sigma < 0.2:
        return image
    radius, n = max(1, math.ceil(2.5 * sigma)), image.shape[axis]
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    made = image * (weights[0] / total)
    for k in range(1, min(radius, n - 1) + 1):
        weight = weights[k] / total
        made.narrow(axis, 0, n - k).add_(image.narrow(axis, k, n - k), alpha=weight)
        made.narrow(axis, k, n - k).add_(image.narrow(axis, 0, n - k), alpha=weight)
    return made


def _field(ground: Ground, random: torch.Generator) -> Tensor:
    """Caps, bands and confluent fields: the white matter where smooth noise and nearness to a ventricle are highest."""
    white = ground.white & ~ground.below
    count = int(white.sum())
    if count < 500:
        return torch.zeros(white.shape)
    shape = tuple(white.shape)
    value = noise(shape, uniform(random, 5, 16), random) + 0.4 * noise(shape, uniform(random, 2, 4), random)
    value = value + uniform(random, 0, 5) * torch.exp(-ground.to_ventricle / uniform(random, 2, 9))
    value = value - uniform(random, 0, 3) * torch.exp(-ground.to_cortex / 2.5)
    ml = math.exp(uniform(random, math.log(LOAD_ML[0]), math.log(LOAD_ML[1])))
    share = min(0.4, ml / 450)  # of about 450 ml of cerebral white matter
    inside = value[white]
    limit = inside.kthvalue(max(1, round((1 - share) * count)))[0]
    return (white & (value > limit)).float()


def _foci(soft: Tensor, ground: Ground, random: torch.Generator) -> None:
    """Single foci, painted in place."""
    near, far = ground.to_ventricle < 5, ground.to_cortex < 2.5
    kinds = [
        (ground.white & near & ~ground.below, 0.4),
        (ground.white & far & ~ground.below, 0.25),
        (ground.white & ~near & ~far & ~ground.below, 0.4),
        (ground.below, 0.15),
    ]
    allowed = ground.white | ground.below
    leak = smoothed(allowed.float(), 0.7) > 0.25  # a focus at the cortex reaches a little into it
    count = math.exp(uniform(random, math.log(4), math.log(100)))
    for where, share in kinds:
        spots = where.reshape(-1).nonzero().squeeze(1)
        if not len(spots):
            continue
        rate = count * share * uniform(random, 0, 1.5)
        for _ in range(int(torch.poisson(torch.tensor(rate), generator=random))):
            spot = int(spots[int(torch.randint(len(spots), (), generator=random))])
            _ellipsoid(soft, leak, spot, random)


def _ellipsoid(soft: Tensor, allowed: Tensor, spot: int, random: torch.Generator) -> None:
    size = math.exp(uniform(random, math.log(SMALLEST_RADIUS_MM), math.log(LARGEST_RADIUS_MM)))
    size = size * uniform(random, 0.5, 1.0) if size > 3 else size
    radii = torch.tensor([size * math.exp(normal(random, 0.3)) for _ in range(3)]).clamp(0.9, 12)
    _, ny, nz = soft.shape
    centre = [spot // (ny * nz), spot // nz % ny, spot % nz]
    reach = math.ceil(float(radii.max()) * 1.4) + 1
    box = tuple(slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in zip(centre, soft.shape, strict=True))
    axes = [torch.arange(b.start, b.stop, dtype=torch.float32) - c for b, c in zip(box, centre, strict=True)]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=random))
    radius = ((offsets @ turn / radii) ** 2).sum(-1).sqrt()
    radius = radius + 0.25 * noise(tuple(radius.shape), max(2.0, size), random)
    focus = ((1.0 - radius) * size + 0.5).clamp(0, 1) * allowed[box]
    soft[box] = torch.maximum(soft[box], focus)
