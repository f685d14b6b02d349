"""Head CT on a head of ellipsoids: what is there is found, in its size; what is no blood is not said; what cannot be read is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.imaging.ct_ellipsoid import head, install

from arcuate.imaging.ct import atlas
from arcuate.imaging.ct.headct import HAEMORRHAGE, SHIFT, values
from arcuate.imaging.ct.reading import HeadCt, load, read
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.pipelines import Volume
from arcuate.inference.training import ct_phantom
from arcuate.inference.training.ct_bleeds import Kind
from arcuate.inference.training.ct_phantom import Phantom, Recipe


def volume(phantom: Phantom) -> Volume:
    return Volume(phantom.hu.astype(np.float32), phantom.affine)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an atlas made of the ellipsoids themselves, and the trees that are shipped."""
    folder = tmp_path_factory.mktemp("models")
    install(folder)
    return folder


@pytest.fixture(scope="module")
def bled(models: Path) -> Iterator[tuple[Phantom, HeadCt]]:
    """A head with 30 mL in the brain, a midline pushed by 8 mm, a tilted gantry and slices of 2.5 mm; and its reading."""
    phantom = ct_phantom.make(head(), Recipe((Kind.INTRAPARENCHYMAL,), (30.0,), 8.0, slice_mm=2.5, mimics=False), 3)
    yield phantom, read(volume(phantom), load(models))


def test_a_phantom_is_the_same_each_time_and_knows_its_truth() -> None:
    recipe = Recipe((Kind.SUBDURAL,), (20.0,), slice_mm=5.0)
    one, two = ct_phantom.make(head(), recipe, 5), ct_phantom.make(head(), recipe, 5)
    assert np.array_equal(one.hu, two.hu) and one.truth == two.truth
    assert one.truth.blood_ml == pytest.approx(20.0, abs=0.01)
    assert not np.array_equal(one.hu, ct_phantom.make(head(), recipe, 6).hu)


def test_a_haemorrhage_is_found_in_about_its_size(bled: tuple[Phantom, HeadCt]) -> None:
    """The card says how near it comes on heads; this one is of ellipsoids, without grey matter."""
    phantom, found = bled
    assert found.blood_ml == pytest.approx(phantom.truth.blood_ml, rel=0.2)


def test_shift_ventricles_and_index_are_near_the_truth(bled: tuple[Phantom, HeadCt]) -> None:
    phantom, found = bled
    assert found.shift_mm == pytest.approx(phantom.truth.shift_mm, abs=1.5)
    # The fissure beside them is fluid too, and in a head of ellipsoids it is wide: 15 mL are read as 19.
    assert found.ventricle_ml == pytest.approx(phantom.truth.ventricle_ml, rel=0.35)
    assert found.evans == pytest.approx(phantom.truth.evans, abs=0.06)


@pytest.mark.parametrize("slice_mm", [1.0, 5.0])
def test_ventricles_far_wider_than_any_that_the_atlas_knows_are_measured_whole(models: Path, slice_mm: float) -> None:
    phantom = ct_phantom.make(head(wide=2.0), Recipe((), (), slice_mm=slice_mm, mimics=False), 4)
    found = read(volume(phantom), load(models))
    assert found.ventricle_ml == pytest.approx(phantom.truth.ventricle_ml, rel=0.15)
    assert found.evans == pytest.approx(phantom.truth.evans, abs=0.04)


def test_the_skull_is_its_measure(bled: tuple[Phantom, HeadCt]) -> None:
    _, found = bled
    assert found.cavity_ml == pytest.approx(4 / 3 * np.pi * 62 * 78 * 60 / 1000, rel=0.03)


def test_a_head_without_blood_is_never_called_so(models: Path) -> None:
    phantom = ct_phantom.make(head(), Recipe((), (), slice_mm=5.0), 11)
    found = read(volume(phantom), load(models))
    measured, absent = values(found)
    assert found.blood_ml == 0
    assert HAEMORRHAGE not in {m.structure for m in measured}
    assert "does not mean that there is none" in absent[HAEMORRHAGE]


def test_a_shift_is_told_without_direction(bled: tuple[Phantom, HeadCt]) -> None:
    _, found = bled
    one = next(m for m in values(found)[0] if m.structure == SHIFT)
    other = next(m for m in values(replace(found, shift_mm=-(found.shift_mm or 0)))[0] if m.structure == SHIFT)
    assert one.value == other.value > 0


def test_an_image_without_skull_is_refused(models: Path) -> None:
    hu = np.full((80, 90, 40), -1000, np.float32)
    hu[20:60, 20:70, 5:35] = 35
    with pytest.raises(NotMeasurable) as refused:
        read(Volume(hu, np.diag([2.0, 2.0, 4.0, 1.0])), load(models))
    assert refused.value.refusal.code is RefusalCode.NOT_PLAUSIBLE


def test_weights_that_were_changed_are_not_used(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "head-ct"
    folder.mkdir()
    for name in ("model.toml", "weights.safetensors"):
        (folder / name).write_bytes((models / "head-ct" / name).read_bytes())
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(NotMeasurable, match="sha256"):
        atlas.load(tmp_path)
