"""Grids: the quick way for grids that run along each other gives what the general way gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from arcuate.imaging import sampling
from arcuate.imaging.sampling import Frame

AXES = [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)]


def affine_of(axes: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * np.array(signs) * np.array(spacing)
    affine[:3, 3] = (3.0, -2.0, 1.5)
    return affine


@settings(max_examples=25, deadline=None)
@given(
    axes=st.sampled_from(AXES),
    signs=st.tuples(*[st.sampled_from((1, -1))] * 3),
    spacing=st.tuples(*[st.sampled_from((0.7, 1.0, 1.3, 2.0))] * 3),
    step=st.sampled_from((0.8, 1.0, 2.0)),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 99),
)
def test_sampling_along_the_axes_equals_sampling_at_large(
    axes: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...], step: float, order: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    data = np.asarray(random.random((9, 7, 8)).astype(np.float32), order=order)
    affine = affine_of(axes, signs, spacing)
    frame = Frame(np.eye(3), np.linalg.inv(affine))
    middle = affine[:3, :3] @ np.array([4.0, 3.0, 3.5]) + affine[:3, 3]
    origin, shape = middle - step * 4 + random.random(3), (8, 9, 10)
    matrix, offset = frame.to_voxel(step, origin)
    expected = ndimage.affine_transform(data, matrix, offset, output_shape=shape, order=1, cval=float(data.min()))
    np.testing.assert_allclose(sampling.sampled(data, frame, origin, shape, step), expected, atol=2e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_blocks_are_means_and_stay_in_their_place(order: str) -> None:
    data = np.asarray(np.random.default_rng(1).random((7, 8, 10)).astype(np.float32), order=order)
    affine = affine_of((1, 0, 2), (1, -1, 1), (0.5, 1.0, 0.3))
    made, moved = sampling.blocked(data, affine, 1.0)
    assert made.shape == (3, 8, 3)
    assert made[1, 2, 2] == pytest.approx(data[2:4, 2, 6:9].mean(), abs=1e-6)
    np.testing.assert_allclose((moved @ [1, 2, 2, 1])[:3], (affine @ [2.5, 2, 7, 1])[:3])


def test_what_lies_outside_the_scan_is_its_minimum() -> None:
    data = np.ones((4, 4, 4), np.float32)
    data[0, 0, 0] = -5
    frame = Frame(np.eye(3), np.eye(4))
    found = sampling.sampled(data, frame, np.array([-2.0, 100.0, 0.0]), (3, 3, 3), 1.0)
    assert (found == -5).all()
