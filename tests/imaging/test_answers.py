"""Two answers on grids half a voxel apart: joined where they belong, finer than either alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from arcuate.imaging.answers import FULL, RAISED, Answers

CLASSES = np.array([0, 7])
N = 16


def ball(centre: NDArray[np.float64], radius: float, first: float) -> NDArray[np.uint8]:
    """How much of each voxel of 2 mm, counted from `first` mm, a ball fills: what a perfect network would answer."""
    steps = (np.arange(8) + 0.5) / 4
    axes = [first + 2 * np.arange(N)[:, None] + steps - c for c in centre]
    x, y, z = (axis.reshape(-1) ** 2 for axis in axes)
    inside = (x[:, None, None] + y[None, :, None] + z[None, None, :] < radius**2).astype(np.float32)
    share = inside.reshape(N, 8, N, 8, N, 8).mean((1, 3, 5))
    return np.round(255 * np.stack([1 - share, share])).astype(np.uint8)


def truth(centre: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    x, y, z = ((np.arange(2 * N) + 0.5 - c) ** 2 for c in centre)
    found: NDArray[np.bool_] = x[:, None, None] + y[None, :, None] + z[None, None, :] < radius**2
    return found


def dice(found: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


@given(st.tuples(*[st.floats(14, 18)] * 3), st.floats(7, 10))
def test_a_ball_is_found_where_it_lies(middle: tuple[float, ...], radius: float) -> None:
    centre = np.array(middle)
    labels, best = Answers(ball(centre, radius, 0), ball(centre, radius, 1)).labels(CLASSES)
    there = np.argwhere(labels == 7) + 0.5
    assert there.mean(0) == pytest.approx(centre, abs=0.2)
    # Linear interpolation rounds a ball of shares off by a few per cent, the more the smaller it is.
    assert 0.9 < len(there) / (4 / 3 * np.pi * radius**3) < 1.0
    assert best.max() <= RAISED


def test_two_grids_know_more_than_one_grid_twice() -> None:
    random = np.random.default_rng(3)
    gained = []
    for _ in range(10):
        centre, radius = random.uniform(14, 18, 3), random.uniform(3, 6)
        one, other = ball(centre, radius, 0), ball(centre, radius, 1)
        # The same grid twice, given for its neighbour half a voxel on, is as wrong as the offset is forgotten.
        both, wrong = (Answers(one, later).labels(CLASSES)[0] == 7 for later in (other, one))
        gained.append(dice(both, truth(centre, radius)) - dice(wrong, truth(centre, radius)))
    assert min(gained) > 0


def test_a_mirror_image_comes_back_with_its_sides_exchanged() -> None:
    classes, swapped = np.array([0, 2, 41]), np.array([0, 2, 1])
    plain = np.zeros((3, 8, 8, 8), np.uint8)
    plain[1, :4], plain[2, 4:] = 255, 255
    # A perfect network calls in the mirror image, which it is given, left what was right.
    answers = Answers.of(plain, np.ascontiguousarray(plain[swapped][:, ::-1]), swapped)
    assert (answers.later == plain).all()
    labels, _ = answers.labels(classes)
    assert (labels[:7] == 2).all() and (labels[9:] == 41).all()


def test_where_both_are_sure_so_is_their_sum_and_nothing_beyond_the_edge_comes_in() -> None:
    sure = np.zeros((2, 6, 6, 6), np.uint8)
    sure[1] = 255
    answers = Answers(sure, sure)
    assert (answers.at(1) == FULL).all() and (answers.at(0) == 0).all()
    labels, best = answers.labels(CLASSES)
    assert (labels == 7).all() and (best == RAISED).all()
