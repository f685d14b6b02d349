"""Thick slices made fine: what a scan says of a slice stays true of its parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.imaging.slices import THICK_MM, made_fine


def _head(n: int) -> np.ndarray:
    """A smooth bright ball, 1 mm."""
    away = np.linalg.norm(np.indices((24, 24, n)) - np.array([11.5, 11.5, (n - 1) / 2])[:, None, None, None], axis=0)
    return (1000 / (1 + np.exp((away - n / 4) / 2))).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_the_means_of_their_parts(axis: int) -> None:
    fine = np.moveaxis(_head(60), 2, axis)
    thick = np.moveaxis(_head(60).reshape(24, 24, 12, 5).mean(3), 2, axis)
    affine = np.eye(4)
    affine[axis, axis] = 5.0
    affine[axis, 3] = 2.0

    made, where = made_fine(thick, affine)

    assert made.shape == fine.shape
    np.testing.assert_allclose(where, np.eye(4), atol=1e-9)
    parts = np.moveaxis(made, axis, 2).reshape(24, 24, 12, 5).mean(3)
    np.testing.assert_allclose(np.moveaxis(parts, 2, axis), thick, atol=12)  # values beyond the scan's own are cut off
    straight = np.apply_along_axis(lambda v: np.interp(np.arange(60), np.arange(12) * 5 + 2, v), axis, thick)
    assert np.abs(made - fine).mean() < 0.6 * np.abs(straight - fine).mean()


@given(st.floats(0.4, THICK_MM))
def test_fine_voxels_are_left_alone(spacing: float) -> None:
    data = _head(20)
    made, affine = made_fine(data, np.diag([1, 1, spacing, 1]))
    assert made is data
    assert affine[2, 2] == spacing


def test_a_dark_slice_beside_bright_ones_makes_nothing_darker_than_the_scan() -> None:
    data = np.full((4, 4, 9), 100, np.float32)
    data[:, :, 4] = 0
    made, _ = made_fine(data, np.diag([1, 1, 4.0, 1]))
    assert made.min() >= 0
    assert made.max() <= 100


def test_oblique_slices_stay_where_they_were() -> None:
    turn = np.array([[0.9, -0.3, 0.1], [0.3, 0.95, 0], [-0.1, 0, 0.99]])
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([1, 1, 4.5])
    affine[:3, 3] = (-40, 12, 7)
    data = np.zeros((12, 12, 9), np.float32)
    data[6, 6, 4] = 1

    made, where = made_fine(data, affine)

    centre = np.array([(np.indices(made.shape)[a] * made).sum() / made.sum() for a in range(3)])
    np.testing.assert_allclose((where @ [*centre, 1])[:3], (affine @ [6, 6, 4, 1])[:3], atol=0.3)
