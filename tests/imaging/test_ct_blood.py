"""How much blood there is, in a round skull: layers along bone are counted up to the bone, sheets in the brain by their mixture."""

import numpy as np
import pytest
from scipy import ndimage

from arcuate.imaging.ct import blood
from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.work import Mask, Work
from arcuate.imaging.sampling import Floats, Frame

SIDE, INNER = 72, 31.0
BRAIN, CLOT, BONE = 32.0, 70.0, 1000.0
MIDDLE = (SIDE - 1) / 2


def away() -> Floats:
    """Distance from the middle, voxels."""
    grid = np.indices((SIDE,) * 3, np.float32) - np.float32(MIDDLE)
    return np.asarray(np.linalg.norm(grid, axis=0), np.float32)


def found_ml(bled: Mask) -> float:
    """Blood that is found where this mask bled, mL."""
    inside = away() < INNER
    density = np.where(inside, np.where(bled, CLOT, BRAIN), BONE).astype(np.float32)
    noise = np.random.default_rng(4).normal(0, 3, density.shape).astype(np.float32)
    work = Work(ndimage.gaussian_filter(density, 0.55) + noise, Frame(np.eye(3), np.eye(4)), np.zeros(3), 1.0)
    depth = np.asarray(ndimage.distance_transform_edt(inside), np.float32)
    nowhere = np.zeros(density.shape, np.float32)
    cavity = Cavity(inside, depth, (MIDDLE, 0.0, 0.0), False)
    # The septum below everything: nothing here lies at the skull base.
    chances = Chances(nowhere, nowhere, nowhere, (MIDDLE, MIDDLE, 0.0))
    return blood.find(work, cavity, chances, blood.tissue(work, cavity)).ml


def lens(thick: float) -> Mask:
    """A layer along the bone of one side that thins out to its edge."""
    grid = np.indices((SIDE,) * 3, np.float32) - np.float32(MIDDLE)
    off = np.arccos(np.clip(grid[0] / np.maximum(away(), 1e-3), -1, 1))
    mask: Mask = (away() < INNER) & (INNER - away() + 8 * off**2 < thick)
    return mask


def test_brain_alone_holds_no_blood() -> None:
    assert found_ml(np.zeros((SIDE,) * 3, np.bool_)) == 0


def test_a_layer_is_counted_up_to_the_bone() -> None:
    layer = lens(9.0)
    assert found_ml(layer) == pytest.approx(float(layer.sum()) / 1000, rel=0.08)


def test_sheets_between_brain_are_not_counted_as_one_lump() -> None:
    sheets: Mask = (away() < 16) & (np.indices((SIDE,) * 3)[0] % 6 < 3)
    assert found_ml(sheets) == pytest.approx(float(sheets.sum()) / 1000, rel=0.15)
