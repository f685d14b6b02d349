"""Synthetic FLAIR scans with lesions, and the T1 of the same head: random contrast, acquisition and things that only look alike.

FLAIR as it is seen: fluid dark, grey matter a little brighter than white, lesions brighter than grey. Bright without being a
lesion: choroid plexus, septum, rims of the ventricles, inflow in fluid, limbic and insular cortex, fat, veins. The T1 channel
is empty in half of the samples, and moved a little against the FLAIR, as a person moves between two series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from arcuate.inference.training import lesion_maps, lesion_shapes
from arcuate.inference.training.generator import MIXED, Grid, Range, Renderer, normal, uniform
from arcuate.inference.training.labels import LabelScheme
from arcuate.inference.training.lesion_maps import Places
from arcuate.inference.training.lesion_network import CLASSES
from arcuate.inference.training.lesion_shapes import Ground, noise, smoothed, smoothed_along

LESION = CLASSES.index("lesion")
WINDOW = Grid((48, 48, 48), 1.5)
REACH = Range(stripped=0.5, rotation=9, scale=0.12, shift=14, elastic=3, bias=0.3)

# FLAIR means in units of white matter, (low, high); cortex is drawn first, and grey nuclei are fractions of it.
OF_WHITE = {
    "white": (1.0, 1.0), "lesion": (1.0, 1.0), "cerebellar_white": (0.92, 1.1), "brainstem": (0.95, 1.15),
    "ventral_dc": (0.95, 1.15), "pallidum": (0.75, 1.02), "thalamus": (1.0, 1.18), "fluid": (0.05, 0.45), "csf": (0.05, 0.5),
    "choroid": (0.3, 1.6), "vessel": (0.4, 1.3), "soft": (0.3, 1.3), "skin": (0.3, 2.4), "marrow": (0.3, 2.0),
    "bone": (0.02, 0.3), "vein": (0.2, 1.4), "eye": (0.05, 0.4), "air": (0.0, 0.05),
}  # fmt: skip
OF_CORTEX = {
    "cortex": (1.0, 1.0), "cerebellar_grey": (0.88, 1.05), "hippocampus": (0.97, 1.15), "amygdala": (0.97, 1.15),
    "putamen": (0.9, 1.05), "caudate": (0.92, 1.08), "accumbens": (0.92, 1.08),
}  # fmt: skip
MIDDLE = 0.5
"""What the median of the brain is scaled to (imaging/lesions.py does the same with a scan)."""


@dataclass(frozen=True)
class _Seen:
    """The part of the map that a sample looks at. points: (x, y, z, 3) voxels of that part."""

    index: Tensor
    points: Tensor
    ground: Ground
    septum: Tensor


class LesionRenderer(Renderer):
    """Renders windows: image (1, 2, x, y, z) with FLAIR and T1, target classes (x, y, z)."""

    def __init__(self, scheme: LabelScheme, grid: Grid = WINDOW) -> None:
        super().__init__(scheme, grid)
        self.lesion_class_of = lesion_maps.class_table(scheme)
        sets = {"white": lesion_maps.WHITE, "own": lesion_maps.LESION, "below": lesion_maps.INFRATENTORIAL_WHITE,
                "fluid": lesion_maps.FLUIDS | lesion_maps.VENTRICLES, "cortex": lesion_maps.CORTEX}  # fmt: skip
        self.is_a = {name: lesion_maps.table_of(scheme, labels) for name, labels in sets.items()}

    def window(self, place: Places, random: torch.Generator, reach: Range = REACH) -> tuple[Tensor, Tensor]:
        """One sample, round a place in the white matter."""
        centre = place.spots[int(torch.randint(len(place.spots), (), generator=random))].tolist()
        about = replace(place.held, centre=(centre[0], centre[1], centre[2]))
        points = self._points(about, reach, random, uniform(random, 0, 1) < 0.5)
        seen = self._seen(place, points)
        lesion = lesion_shapes.paint(seen.ground, random)
        cortex = uniform(random, 1.06, 1.4)
        means = self._flair_means(cortex, random)
        flair = self._flair(seen, lesion, means, cortex, random)
        with_t1 = uniform(random, 0, 1) < 0.5
        sampled = _sampled(torch.stack([flair, lesion]), seen.points)
        nearest = _nearest(seen.index, seen.points)
        target = self.lesion_class_of[nearest]
        image, share = sampled[0], sampled[1]
        second = torch.zeros_like(image)
        if with_t1:
            moved = seen.points + torch.randn(3, generator=random) * 0.7
            t1_means = self._weighted_means(("t1",), random)
            second = _sampled(self._t1(seen, lesion, t1_means, random)[None], moved)[0]
        distance = _sampled(place.held.distance[None], (points - 0.5) / 2, outside=99.0)[0]
        image, second, target, share = self._strip_both(image, second, target, share, distance, reach, random)
        image, share = self._scan(torch.stack([image, share]), reach, random)
        target = torch.where(share > 0.5, LESION, target)
        normal_brain = (target > 0) & (target != CLASSES.index("fluid")) & (target != LESION)
        image = self._scaled(image, normal_brain, nearest, means, place, random)
        if with_t1:
            second = self._scan(second[None], reach, random)[0]
            second = self._scaled(second, normal_brain, nearest, t1_means, place, random)
        return torch.stack([image, second])[None], target

    def _seen(self, place: Places, points: Tensor) -> _Seen:
        """Crop of the map around the points, with a margin for blurs."""
        shape = place.held.index.shape
        flat = points.reshape(-1, 3)
        low = [min(max(0, int(a) - 4), n - 8) for a, n in zip(flat.amin(0), shape, strict=True)]
        high = [max(first + 8, min(n, int(b) + 5)) for first, b, n in zip(low, flat.amax(0), shape, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        index = place.held.index[box].contiguous().long()
        kinds = {name: self.is_a[name][index] for name in ("white", "own", "below")}
        to_ventricle = place.to_ventricle[box].float() / lesion_maps.QUARTER_MM
        to_cortex = place.to_cortex[box].float() / lesion_maps.QUARTER_MM
        x = torch.arange(low[0], high[0], dtype=torch.float32) - place.held.centre[0]
        septum = kinds["white"] & (to_ventricle < 3.5) & (x.abs() < 3.5)[:, None, None]
        ground = Ground(kinds["white"] & ~septum, kinds["own"], kinds["below"], to_ventricle, to_cortex)
        return _Seen(index, points - torch.tensor(low), ground, septum)

    def _scaled(
        self, image: Tensor, brain: Tensor, nearest: Tensor, means: Tensor, place: Places, random: torch.Generator
    ) -> Tensor:
        """The whole brain's median to MIDDLE, as imaging/lesions.py scales a scan; a little beside it, since its brain is another's.

        A window's own median says less: most of a window in deep white matter is white, of the whole brain grey.
        """
        shown = brain & (image > 0)
        values, table = image[shown], means[self.group_of]
        if values.numel() > 200:
            of_window = float(table[nearest[shown]].median())
            middle = float(values.median()) * _median(table, place.volumes) / max(of_window, 1e-3)
        else:
            middle = float(image.max()) / 2
        return (image * (MIDDLE * math.exp(normal(random, 0.07)) / max(middle, 1e-3))).clamp(0, 1.6)

    def _flair_means(self, cortex: float, random: torch.Generator) -> Tensor:
        """Brightness of each tissue in units of white matter."""
        return torch.tensor(
            [
                uniform(random, *OF_WHITE[t]) if t in OF_WHITE else cortex * uniform(random, *OF_CORTEX[t])
                for t in self.tissues
            ]
        )

    def _flair(self, seen: _Seen, lesion: Tensor, means: Tensor, cortex: float, random: torch.Generator) -> Tensor:
        """FLAIR at 1 mm in units of white matter."""
        image = torch.index_select(means[self.group_of], 0, seen.index.reshape(-1)).reshape(seen.index.shape)
        shape = tuple(image.shape)
        contrast = max(cortex - 1 + uniform(random, 0.08, 0.9), 0.2)
        white, cortical = self.is_a["white"][seen.index], self.is_a["cortex"][seen.index]
        # Uneven tissue: white matter that is not quite normal, cortex that is brighter in places, rims and septum.
        image = image * (1 + white * uniform(random, 0, 0.06) * noise(shape, uniform(random, 8, 25), random))
        if uniform(random, 0, 1) < 0.6:
            image = image + cortical * (
                uniform(random, 0, 0.25) * noise(shape, uniform(random, 12, 30), random).clamp_min(0)
            )
        if uniform(random, 0, 1) < 0.6:
            rim = torch.exp(-seen.ground.to_ventricle / uniform(random, 0.8, 3))
            image = image + white * rim * (uniform(random, 0, 0.5) * contrast)
        if uniform(random, 0, 1) < 0.5:
            image = torch.where(seen.septum, uniform(random, 0.9, 1.0 + contrast), image)
        if uniform(random, 0, 1) < 0.35:
            fluid = self.is_a["fluid"][seen.index]
            inflow = (noise(shape, uniform(random, 5, 14), random) - uniform(random, 0.7, 1.6)).clamp(0, 1)
            image = image + fluid * inflow * uniform(random, 0.3, 1.6)
        brightness = 1 + contrast * (1 + uniform(random, 0.05, 0.3) * noise(shape, uniform(random, 3, 10), random))
        if uniform(random, 0, 1) < 0.4:
            halo = smoothed(lesion, uniform(random, 1.5, 3.0)) * uniform(random, 0.1, 0.5) * contrast
            image = image + white * (1 - lesion) * halo
        if uniform(random, 0, 1) < 0.15:  # dark cores of old lesions
            core = (smoothed(lesion, 2.0) - 0.8).clamp(0, 0.2) * 5 * (noise(shape, 9, random) > 0.4)
            brightness = brightness - core * uniform(random, 0.3, 1.0)
        return image * (1 - lesion) + brightness.clamp_min(0.2) * lesion

    def _t1(self, seen: _Seen, lesion: Tensor, means: Tensor, random: torch.Generator) -> Tensor:
        """T1 at 1 mm: lesions lie between grey and white matter, or look like white."""
        white = means[self.tissues.index("white")]
        grey = means[self.tissues.index("cortex")]
        image = torch.index_select(means[self.group_of], 0, seen.index.reshape(-1)).reshape(seen.index.shape)
        if "lesion" in MIXED:
            image = torch.where(seen.ground.own, white, image)
        depth = uniform(random, -0.1, 1.4) + 0.3 * noise(tuple(image.shape), 8, random)
        return image + lesion * (grey - white) * depth.clamp_min(-0.1) * (image > 0.7 * grey)

    def _strip_both(
        self, image: Tensor, second: Tensor, target: Tensor, share: Tensor, distance: Tensor, reach: Range,
        random: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """Skull taken off FLAIR and T1 alike, in part of the samples tight, with a wavy edge."""
        if uniform(random, 0, 1) >= reach.stripped:
            return image, second, target, share
        nodes = [max(3, int(n * self.grid.voxel / uniform(random, 15, 40))) for n in self.grid.shape]
        coarse = torch.randn(1, 1, *nodes, generator=random)
        wave = functional.interpolate(coarse, size=self.grid.shape, mode="trilinear")[0, 0]
        kept = distance < uniform(random, -1.0, 5) + uniform(random, 0, 1.2) * wave
        kept |= (target == CLASSES.index("ventricle")) | (target == CLASSES.index("white"))
        zero = torch.zeros(())
        return (
            torch.where(kept, image, zero), torch.where(kept, second, zero), torch.where(kept, target, 0),
            torch.where(kept, share, zero),
        )  # fmt: skip

    def _scan(self, stack: Tensor, reach: Range, random: torch.Generator) -> Tensor:
        """Coil, slices, noise and resampling of the first image; what lies beside it goes through the same slices."""
        if uniform(random, 0, 1) < 0.85:
            stack = torch.cat([self._bias(stack[0], reach, random)[None], stack[1:]])
        sigma = uniform(random, 0.01, 0.075)
        if uniform(random, 0, 1) < 0.45:
            stack = self._slices(stack, sigma, random)
        else:
            if uniform(random, 0, 1) < 0.5:
                stack = _blurred(stack, uniform(random, 0.2, 0.8) / self.grid.voxel)
            stack = _noisy(stack, sigma, random)
            if uniform(random, 0, 1) < 0.4:
                stack = _blurred(stack, uniform(random, 0.3, 0.9) / self.grid.voxel)
        return stack

    def _slices(self, stack: Tensor, sigma: float, random: torch.Generator) -> Tensor:
        """Thick slices, mostly axial, with noise of their own, brought back to the grid."""
        axis = 2 if uniform(random, 0, 1) < 0.75 else int(uniform(random, 0, 2.99))
        thickness = uniform(random, 2, 6.5)
        stack = _blurred(stack, 0.3 * thickness / self.grid.voxel, axis)
        size = list(self.grid.shape)
        size[axis] = max(4, round(size[axis] * self.grid.voxel / thickness))
        small = functional.interpolate(stack[None], size=size, mode="trilinear", align_corners=True)[0]
        small = _noisy(small, sigma, random)
        return functional.interpolate(small[None], size=self.grid.shape, mode="trilinear", align_corners=True)[0]


def _median(values: Tensor, volumes: Tensor) -> float:
    """The median of a brain of which so much (`volumes`) has each of these values."""
    ordered, order = values.sort()
    sums = volumes[order].cumsum(0)
    return float(ordered[int(torch.searchsorted(sums, sums[-1] / 2))])


def _noisy(stack: Tensor, sigma: float, random: torch.Generator) -> Tensor:
    grain = torch.randn(stack.shape[1:], generator=random) * sigma
    noisy = stack.clone()
    noisy[0] = (stack[0] + grain * (stack[0] > 0)).abs()
    return noisy


def _blurred(stack: Tensor, sigma: float, axis: int | None = None) -> Tensor:
    """Gaussian blur of each image of (n, x, y, z), along one axis or all."""
    for along in range(3) if axis is None else (axis,):
        stack = smoothed_along(stack, sigma, along - 3)
    return stack


def _sampled(sources: Tensor, points: Tensor, outside: float = 0.0) -> Tensor:
    """Trilinear values (n, x, y, z) of sources (n, ...) at voxel coordinates; `outside` beyond their edge."""
    shape = torch.tensor(sources.shape[1:])
    unit = (2 * points + 1) / shape - 1
    found = functional.grid_sample(
        sources[None], unit.flip(-1)[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]
    return torch.where((unit.abs() < 1).all(-1), found, outside)


def _nearest(index: Tensor, points: Tensor) -> Tensor:
    whole = torch.round(points).long()
    top = torch.tensor(index.shape) - 1
    inside = ((whole >= 0) & (whole <= top)).all(-1)
    x, y, z = whole.clamp_min(0).minimum(top).unbind(-1)
    return torch.where(inside, index[x, y, z], 0)
