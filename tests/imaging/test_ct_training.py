"""`arcuate train head-ct` on maps of a head of ellipsoids: a model that reads, and a pool from which it goes on."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.imaging.ct_ellipsoid import labels

from arcuate import head_ct
from arcuate.imaging.ct import reading, tree_training
from arcuate.imaging.ct.trees import FILES
from arcuate.imaging.pipelines import Volume
from arcuate.inference.training import ct_heads, ct_phantom, ct_set
from arcuate.kernel.errors import BadInput


@pytest.fixture
def labelmaps(tmp_path: Path) -> Path:
    folder = tmp_path / "labelmaps"
    folder.mkdir()
    for number in range(2):
        nibabel.save(nibabel.Nifti1Image(labels(), np.eye(4)), folder / f"map_{number}.nii.gz")
    return folder


def test_training_makes_a_model_that_reads_and_goes_on_from_the_scans_it_made(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_training, "FIRST", (4, 30))
    monkeypatch.setattr(tree_training, "SECOND", (3, 20))
    monkeypatch.setattr(head_ct, "LEAST_SCANS", 6)
    models, cache, said = tmp_path / "models", tmp_path / "cache", [""]
    head_ct.train(models, labelmaps, 0.0, cache, said.append)
    made = sorted((cache / "head-ct").glob("*/*.npz"))
    assert len(made) == 6
    first = {file: (models / "head-ct" / file).read_bytes() for file in FILES}

    one = next(ct_set.training(labelmaps))
    phantom = ct_phantom.make(ct_heads.load(one.path), one.recipe, one.seed)
    found = reading.read(Volume(phantom.hu.astype(np.float32), phantom.affine), reading.load(models))
    assert found.blood_ml > 0.5 * phantom.blood.sum() / 1000

    stamps = [path.stat().st_mtime_ns for path in made]
    head_ct.train(models, labelmaps, 0.0, cache, said.append)
    assert [path.stat().st_mtime_ns for path in made] == stamps, "no scan is made twice"
    assert {file: (models / "head-ct" / file).read_bytes() for file in FILES} == first


def test_what_is_learnt_from_is_never_what_is_measured(labelmaps: Path) -> None:
    (labelmaps / "map_1.nii.gz").rename(labelmaps / f"{ct_set.HELD_OUT[0]}.nii.gz")
    learnt = [one for one, _ in zip(ct_set.training(labelmaps), range(40), strict=False)]
    measured = list(ct_set.planned(labelmaps, 7))
    assert {one.path.name for one in learnt} == {"map_0.nii.gz"}
    assert {one.path.name for one in measured} == {f"{ct_set.HELD_OUT[0]}.nii.gz"}
    assert not {one.seed for one in learnt} & {one.seed for one in measured}
    kinds = [kind for one in learnt for kind in one.recipe.kinds]
    assert set(kinds) == set(ct_set.Kind) and 0 < sum(not one.recipe.kinds for one in learnt) < 20


def test_without_label_maps_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="label maps"):
        head_ct.train(tmp_path, tmp_path, 0.0, tmp_path, print)


def test_every_kind_of_blood_is_learnt_in_every_head(tmp_path: Path) -> None:
    for number in range(1, 17):
        (tmp_path / f"map_{number:02d}.nii.gz").touch()
    learnt = [one for one, _ in zip(ct_set.training(tmp_path), range(240), strict=False)]
    met = {(kind, one.path.name) for one in learnt for kind in one.recipe.kinds[:1]}
    assert len(met) > 0.9 * 16 * len(ct_set.Kind), "some heads are drawn without blood"


def test_a_bent_head_has_a_shape_of_its_own_with_all_that_was_in_it() -> None:
    head = ct_heads.made("map", labels())
    bent, again, other = (ct_heads.bent(head, seed) for seed in (1, 1, 2))
    assert np.array_equal(bent.labels, again.labels) and bent.labels.shape != other.labels.shape
    before, after = (np.bincount(one.labels.ravel(), minlength=256) for one in (head, bent))
    there = before > 2000
    assert there.sum() > 6 and (np.abs(np.log(after[there] / before[there])) < 0.5).all()
    assert bent.depth.shape == bent.labels.shape and bent.depth[tuple(round(v) for v in bent.septum)] > 20
    left, right = (np.argwhere(bent.mask(side))[:, 0].mean() for side in (ct_heads.TISSUE_LEFT, ct_heads.TISSUE_RIGHT))
    assert left < bent.septum[0] < right


def test_only_what_is_learnt_from_is_bent(labelmaps: Path) -> None:
    learnt = [one for one, _ in zip(ct_set.training(labelmaps), range(ct_set.AS_THEY_ARE + 5), strict=False)]
    assert [one.bent for one in learnt] == [False] * ct_set.AS_THEY_ARE + [True] * 5
    shapes = {one.head(ct_heads.load).labels.shape for one in learnt[-3:]}
    assert len(shapes) == 3, "each has a shape of its own"
    (labelmaps / "map_1.nii.gz").rename(labelmaps / f"{ct_set.HELD_OUT[0]}.nii.gz")
    assert not any(one.bent for one in ct_set.planned(labelmaps, 7))
