"""Synthetic heads at 1 mm with their labels, as a scan would be measured: what the generator makes at 2 mm for training is too coarse for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from arcuate.inference.training.generator import Range, Renderer
from arcuate.inference.training.labels import LabelScheme
from arcuate.inference.training.maps import PreparedMap

HALF_BOX = (95, 110, 95)  # voxels kept on each side of the brain's middle
BLUR = 0.55  # voxels: tissue is never sharper than the scanner
SEEN_GREY = 0.75  # share of heads in which grey matter without a label is seen, as in training


@dataclass(frozen=True)
class FineHead:
    """image (x, y, z) float32 in no unit; affine: voxels of about 1 mm to mm, turned a little; truth: FreeSurfer numbers."""

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    truth: NDArray[np.uint8]


def heads(
    held: Sequence[PreparedMap], renderer: Renderer, count: int, seed: int, weightings: tuple[str, ...] = ("t1",)
) -> Iterator[FineHead]:
    """Yield `count` heads of the maps in turn: two without skull, two with; of one of the weightings each, names as in the generator."""
    reach = Range(weightings=weightings)
    for number in range(count):
        yield _head(held[number % len(held)], renderer, reach, number // 2 % 2 == 0, seed + number)


def _head(held: PreparedMap, renderer: Renderer, reach: Range, stripped: bool, seed: int) -> FineHead:
    random, numbers = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    index = held.index.numpy()
    means, spreads = renderer.contrast(reach, random)
    image = means.numpy()[index]
    if numbers.random() < SEEN_GREY:
        levels, shares = (table.numpy()[held.unlabelled.numpy()] for table in renderer.unlabelled_grey(means, random))
        image = image + shares * (levels - image)
    image = ndimage.gaussian_filter(image, BLUR)
    image = image + spreads.numpy()[index] * numbers.standard_normal(image.shape)
    truth = _truth(renderer.scheme)[index]
    if stripped:
        kept = _distance(held, image.shape) < numbers.uniform(0.5, 4)
        image, truth = np.where(kept, image, 0), np.where(kept, truth, 0)
    image = image * _field(image.shape, numbers)
    image = np.maximum(image + 0.02 * numbers.standard_normal(image.shape) * (image > 0), 0)
    middle = [round(c) for c in held.centre]
    box = tuple(slice(max(0, c - half), c + half) for c, half in zip(middle, HALF_BOX, strict=True))
    cut = np.ascontiguousarray(image[box], np.float32)
    return FineHead(cut, _affine(cut.shape, numbers), np.ascontiguousarray(truth[box]))


def _truth(scheme: LabelScheme) -> NDArray[np.uint8]:
    return np.array(scheme.classes, np.uint8)[scheme.class_of]


def _distance(held: PreparedMap, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Distance to the brain's surface at 1 mm; every side of a map is even."""
    found: NDArray[np.float32] = ndimage.zoom(held.distance.numpy(), 2, order=1, grid_mode=True, mode="nearest")
    return found[tuple(slice(n) for n in shape)]


def _field(shape: tuple[int, ...], numbers: np.random.Generator) -> NDArray[np.float64]:
    """A slow change of brightness over the head."""
    coarse = numbers.standard_normal((3, 3, 3)) * numbers.uniform(0, 0.3)
    slow = ndimage.zoom(coarse, [n / 3 for n in shape], order=1, grid_mode=True, mode="nearest")
    return np.asarray(np.exp(slow))


def _affine(shape: tuple[int, ...], numbers: np.random.Generator) -> NDArray[np.float64]:
    """Heads of other sizes, a little turned, their middle at 0."""
    turn = Rotation.from_euler("xyz", np.radians(numbers.normal(0, 4, 3))).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(numbers.uniform(0.93, 1.07, 3))
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine
