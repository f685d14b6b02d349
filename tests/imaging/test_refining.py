"""Borders at 1 mm: the scan's own brightness decides where the network's 2 mm leave it open, and nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from arcuate.imaging import refining
from arcuate.imaging.answers import RAISED, Answers

CLASSES = np.array([0, 2, 3])
SHAPE = (24, 24, 24)  # at 2 mm; the scan has 48 at 1 mm
BORDER = 21  # of white and grey, between two of the network's voxels


def scan(white: float = 1000.0, grey: float = 600.0) -> NDArray[np.float32]:
    image = np.zeros([2 * n for n in SHAPE], np.float32)
    image[4:BORDER, 4:44, 4:44] = white
    image[BORDER:44, 4:44, 4:44] = grey
    return image + np.random.default_rng(5).normal(0, 10, image.shape).astype(np.float32)


def answer(first: int) -> NDArray[np.uint8]:
    """A network that knows white and grey apart, but puts the border 3 mm too far, unsure of it for 8 mm; its grid starts at `first` mm."""
    at = np.arange(SHAPE[0]) * 2 + 1 + first
    grey = np.clip((at - (BORDER + 3)) / 8 + 0.5, 0, 1)
    inside = np.zeros(SHAPE, np.float32)
    inside[2:22, 2:22, 2:22] = 1
    known = [1 - inside, *(share[:, None, None] * inside for share in (1 - grey, grey))]
    return np.round(255 * np.stack(known)).astype(np.uint8)


def labelled(
    image: NDArray[np.float32],
    grid: Callable[[int], NDArray[np.uint8]] = answer,
    classes: NDArray[np.int64] = CLASSES,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Labels of the network alone, and with the scan's brightness (None where it tells nothing)."""
    answers = Answers(grid(0), grid(1))
    plain, certainty = answers.labels(classes)
    seen = refining.look(image, plain, certainty, classes, RAISED)
    return plain, None if seen is None else answers.labels(classes, seen.of)[0]


def border_of(labels: NDArray[np.uint8]) -> float:
    """Where white ends, in mm, in the middle of the block."""
    return float((labels[:, 16:32, 16:32] == 2).sum(0).mean()) + 4


def test_a_border_between_two_voxels_of_the_network_is_found_at_1_mm() -> None:
    plain, refined = labelled(scan())
    assert refined is not None
    assert abs(border_of(plain) - BORDER) >= 2
    assert border_of(refined) == pytest.approx(BORDER, abs=0.5)


def test_a_border_stays_where_it_is_when_the_head_is_brighter_on_one_side() -> None:
    image = scan() * np.linspace(0.85, 1.15, 48, dtype=np.float32)[None, :, None]
    _, refined = labelled(image)
    assert refined is not None
    assert border_of(refined) == pytest.approx(BORDER, abs=0.5)


def test_what_the_network_is_sure_of_stays_whatever_it_looks_like() -> None:
    image = scan()
    image[7:12, 20:26, 20:26] = 600.0  # a lesion as dark as grey matter, deep in white matter
    _, refined = labelled(image)
    assert refined is not None
    assert (refined[7:12, 20:26, 20:26] == 2).all()


def test_where_white_is_not_brighter_than_grey_brightness_decides_nothing() -> None:
    assert labelled(scan(white=600.0, grey=1000.0))[1] is None
    assert labelled(scan(white=1000.0, grey=980.0))[1] is None


def test_a_narrow_ventricle_is_as_wide_as_its_fluid_and_not_as_what_is_half_filled() -> None:
    """A cleft of 2 mm that no voxel lies in wholly: the darkest are two thirds fluid, those beside them one third."""
    classes, random = np.array([0, 2, 3, 4, 14]), np.random.default_rng(7)
    image = scan() + 0
    image[10:18, 8:40, 8:20] = 100.0  # a wide ventricle in white matter
    filled = {30: 0.3, 31: 0.7, 32: 0.7, 33: 0.3}
    for x, share in filled.items():
        image[x, 8:40, 26:40] = 600.0 + share * (100.0 - 600.0)
    image += random.normal(0, 10, image.shape).astype(np.float32)

    def grid(first: int) -> NDArray[np.uint8]:
        found = np.zeros((5, *SHAPE), np.float32)
        found[:3] = answer(first) / 255.0
        for number, (low, high), z in ((3, (10, 18), slice(4, 10)), (4, (29, 35), slice(13, 20))):
            at = np.arange(SHAPE[0]) * 2 + 1 + first
            share = np.clip(np.minimum(at - low, high - at) / 6 + 0.5, 0, 0.95)
            found[number, :, 4:20, z] = share[:, None, None]
        found[:3] *= 1 - found[3:].sum(0)
        return np.round(255 * found).astype(np.uint8)

    plain, refined = labelled(image, grid, classes)
    assert refined is not None

    def width(labels: NDArray[np.uint8]) -> float:
        return float((labels[:, 12:36, 30:36] == 14).sum(0).mean())

    assert width(plain) > 4
    assert width(refined) == pytest.approx(2, abs=0.5)


def test_what_a_ventricle_and_white_matter_fill_together_is_no_nucleus() -> None:
    """Two layers, equally bright and equally open to the network: white matter on both sides of the one, a ventricle beside the other."""
    classes, random = np.array([0, 2, 3, 4, 11]), np.random.default_rng(8)
    image = scan()
    image[8:14, 8:40, 28:40] = 100.0
    layer, without, beside = slice(14, 16), slice(8, 20), slice(28, 40)
    image[layer, 8:40, without] = image[layer, 8:40, beside] = 785.0
    image += random.normal(0, 10, image.shape).astype(np.float32)

    def grid(first: int) -> NDArray[np.uint8]:
        known = np.zeros((5, *SHAPE), np.float32)
        known[:3] = answer(first) / 255.0
        known[4, 12:, :, 12:], known[2, 12:, :, 12:] = known[2, 12:, :, 12:], 0
        known[:, 4 : 6 - first, 4:20, 14:20] = np.array([0, 0, 0, 1, 0])[:, None, None, None]
        open_to = np.array([0, 0.46, 0, 0, 0.54])[:, None, None, None]
        for z in (slice(4, 10), slice(14, 20)):
            known[:, 6 - first : 9, 4:20, z] = open_to
        return np.round(255 * known).astype(np.uint8)

    plain, refined = labelled(image, grid, classes)
    assert refined is not None
    assert (plain[layer, 12:36, 10:18] == 11).all()
    assert (plain[layer, 12:36, 30:38] == 11).all()
    assert (refined[layer, 12:36, 10:18] == 11).mean() > 0.9
    assert (refined[layer, 12:36, 30:38] == 2).mean() > 0.9
