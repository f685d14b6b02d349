"""Borders at 1 mm: the scan's own brightness decides where the network's 2 mm leave it open, and nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from arcuate.imaging import refining, sampling

CLASSES = np.array([0, 2, 3])
SHAPE = (24, 24, 24)  # at 2 mm; the scan has 48 at 1 mm
BORDER = 21  # of white and grey, between two of the network's voxels
FULL = 510 * 64


def scan(white: float = 1000.0, grey: float = 600.0) -> NDArray[np.float32]:
    image = np.zeros([2 * n for n in SHAPE], np.float32)
    image[4:BORDER, 4:44, 4:44] = white
    image[BORDER:44, 4:44, 4:44] = grey
    return image + np.random.default_rng(5).normal(0, 10, image.shape).astype(np.float32)


def answer(k: int) -> NDArray[np.uint16]:
    """A network that knows white and grey apart, but puts the border 3 mm too far, unsure of it for 8 mm."""
    at = np.arange(SHAPE[0]) * 2 + 1
    grey = np.clip((at - (BORDER + 3)) / 8 + 0.5, 0, 1)
    share = {1: 1 - grey, 2: grey}.get(k, np.zeros_like(grey))
    inside = np.zeros(SHAPE, np.float32)
    inside[2:22, 2:22, 2:22] = 1
    known = share[:, None, None] * inside if k else 1 - inside
    return np.round(510 * known).astype(np.uint16)


def labelled(image: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Labels of the network alone, and with the scan's brightness (None where it tells nothing)."""
    plain, certainty = sampling.raised(answer, CLASSES, SHAPE)
    seen = refining.look(image, plain, certainty, CLASSES, FULL)
    return plain, None if seen is None else sampling.raised(answer, CLASSES, SHAPE, seen.of)[0]


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
