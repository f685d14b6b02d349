"""Ventricles with blood in them, in a made-up head of plain boxes: what fills them counts as theirs, a bleed beside them does not."""

import numpy as np
import pytest

from arcuate.imaging.ct import ventricles
from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import tissue
from arcuate.imaging.ct.work import Mask, Work
from arcuate.imaging.sampling import Frame

SHAPE = (120, 120, 100)
VENTRICLE = (slice(45, 75), slice(35, 85), slice(40, 60))  # 30 ml; the atlas is sure of its front half alone
SURE = (slice(45, 75), slice(60, 85), slice(40, 60))


def found(blood: Mask) -> ventricles.Ventricles:
    """Brain of 34 HU, fluid of 6, blood of 65; chances of 0.6 in the front, of 0.15 behind and 8 mm round the ventricle."""
    inside = np.zeros(SHAPE, np.bool_)
    inside[5:-5, 5:-5, 5:-5] = True
    hu = np.where(inside, 34.0, 1000.0).astype(np.float32)
    hu[VENTRICLE] = 6.0
    hu[blood] = 65.0
    chance = np.zeros(SHAPE, np.float32)
    chance[tuple(slice(s.start - 8, s.stop + 8) for s in VENTRICLE)] = 0.15
    chance[SURE] = 0.6
    nothing = np.zeros(SHAPE, np.float32)
    depth = np.where(inside, 30.0, 0.0).astype(np.float32)
    room = Cavity(inside, depth, (60.0, 0.0, 0.0), False)
    work = Work(hu, Frame(np.eye(3), np.eye(4)), np.zeros(3), 1.0)
    return ventricles.find(work, room, Chances(chance, nothing, nothing, (60.0, 75.0, 50.0)), tissue(work, room), blood)


def nowhere() -> Mask:
    return np.zeros(SHAPE, np.bool_)


def test_ventricles_are_counted_whole() -> None:
    assert found(nowhere()).ml == pytest.approx(30.0, rel=0.05)


@pytest.mark.parametrize("front", [False, True])
def test_blood_that_fills_ventricles_takes_nothing_from_them(front: bool) -> None:
    blood = nowhere()
    blood[45:75, 60:85, 40:50] = front
    blood[45:75, 36:60, 40:52] = True
    assert found(blood).ml == pytest.approx(30.0, rel=0.07)


def test_a_bleed_of_the_brain_that_reaches_to_the_ventricles_adds_nothing_to_them() -> None:
    blood = nowhere()
    blood[75:105, 40:80, 40:60] = True  # a quarter of it lies where ventricles lie at times
    assert found(blood).ml == pytest.approx(30.0, rel=0.07)
