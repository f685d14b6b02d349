"""The FLAIR's own brightness says where a lesion ends, and makes none."""

import numpy as np
import pytest
from numpy.typing import NDArray

from arcuate.imaging import lesion_borders, lesions
from arcuate.imaging.lesion_places import LESION, WHITE
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.sampling import Floats, Frame

SHAPE, STEP = (40, 40, 40), 1.5
CENTRE, RADIUS = 30.0, 10.0
LIMITS = lesions.rules()["border"]


def distance(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """mm from the middle of the lesion."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    found: NDArray[np.float64] = np.linalg.norm(index @ affine[:3, :3].T + affine[:3, 3] - CENTRE, axis=-1)
    return found


def weighed(
    contrast: float, told_radius: float, slices_mm: float = 1.0, spot: bool = False
) -> tuple[Floats, Volume, NDArray[np.float64]]:
    """A lesion of 10 mm in white matter, of which the network is sure in its middle and believes that it ends at `told_radius`."""
    affine = np.diag([1.0, 1.0, slices_mm, 1.0])
    shape = (60, 60, int(60 / slices_mm))
    off = distance(affine, shape)
    data = (300 * (1 + (contrast - 1) * np.clip(RADIUS - off + 0.5, 0, 1))).astype(np.float32)
    data[0, 0, 0] = 0
    if spot:
        data[5:8, 5:8, :] = 300 * contrast
    data += np.random.default_rng(2).normal(0, 4, shape).astype(np.float32) * (data > 0)
    p = np.zeros((8, *SHAPE), np.float32)
    at = distance(np.diag([STEP, STEP, STEP, 1.0]), SHAPE)
    p[LESION] = np.clip((told_radius - at) / 8 + 0.5, 0, 1)
    p[WHITE] = 1 - p[LESION]
    grid = lesions.Grid(Frame(np.eye(3), np.linalg.inv(affine)), np.zeros(3), STEP, SHAPE)
    volume = Volume(data, affine)
    lesion = lesions.raised(p[LESION], grid, shape)
    return lesion_borders.weighed(lesion, p, volume, grid, LIMITS), volume, off


def radius_of(p: Floats, affine: NDArray[np.float64]) -> float:
    ml = float((p >= 0.5).sum() * abs(np.linalg.det(affine[:3, :3])))
    return float((ml * 3 / 4 / np.pi) ** (1 / 3))


@pytest.mark.parametrize("slices_mm", [1.0, 3.0])
@pytest.mark.parametrize("told", [8.0, 12.0])
def test_a_border_lies_where_the_scan_is_half_as_bright_not_where_the_network_put_it(
    told: float, slices_mm: float
) -> None:
    found, volume, _ = weighed(1.5, told, slices_mm)
    assert radius_of(found, volume.affine) == pytest.approx(RADIUS, abs=0.7)


def test_brightness_alone_makes_no_lesion() -> None:
    found, _, off = weighed(1.5, 9.0, spot=True)
    assert not (found[off > 15] >= 0.5).any()


def test_a_lesion_hardly_brighter_than_white_matter_is_left_to_the_network() -> None:
    found, volume, _ = weighed(1.03, 8.0)
    assert radius_of(found, volume.affine) == pytest.approx(8.0, abs=0.3)


def test_without_a_lesion_nothing_changes() -> None:
    found, _, _ = weighed(1.5, -20.0)
    assert (found == 0).all()
