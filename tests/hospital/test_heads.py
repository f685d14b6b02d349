"""Invented heads look like heads, know their own volumes, and leave as legal DICOM."""

import subprocess
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from arcuate.hospital.heads.render import Pixels, render_t1
from arcuate.hospital.heads.series import StudyFacts, seeded_uid, t1_series, write_series
from arcuate.hospital.heads.shape import LOW, Head, load_shape_model, sample_head, volumes_of

FACTS = StudyFacts(
    patient_id="S900001", issuer="SYNTH", family="Synthetic-0001", given="Ada", birth_date="19500101", sex="F", age_years=76,
    accession="SY26A0001", description="MRI brain without contrast", station="MR1", tesla=3.0, began=datetime(2026, 3, 17, 9, 0),
    seed="test",
)  # fmt: skip


@pytest.fixture(scope="module")
def head() -> Head:
    return sample_head(4)


@pytest.fixture(scope="module")
def picture(head: Head) -> Pixels:
    return render_t1(head.labels, 4)


def _centre(labels: npt.NDArray[np.uint8], *numbers: int) -> npt.NDArray[np.float64]:
    return np.argwhere(np.isin(labels, numbers)).mean(0) + LOW + 0.5


def test_same_seed_same_head_and_another_seed_another(head: Head) -> None:
    assert np.array_equal(sample_head(4).labels, head.labels)
    assert not np.array_equal(sample_head(5).labels, head.labels)


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_volumes_are_those_of_people(seed: int) -> None:
    volumes = sample_head(seed).volumes
    assert 1200 < volumes["intracranial"] < 2000
    for side in ("left", "right"):
        assert 170 < volumes[f"cortex-{side}"] < 330
        assert 160 < volumes[f"white-matter-{side}"] < 320
        assert 1.2 < volumes[f"hippocampus-{side}"] < 7  # one of the twenty source heads has 1.4 on one side
        assert 4.5 < volumes[f"thalamus-{side}"] < 11
        assert 2 < volumes[f"lateral-ventricle-{side}"] < 60
        assert 40 < volumes[f"cerebellum-{side}"] < 95
    assert 14 < volumes["brainstem"] < 32
    assert 0.2 < volumes["third-ventricle"] < 5


def test_left_is_left_and_structures_lie_where_they_belong(head: Head) -> None:
    for left, right in ((2, 41), (3, 42), (17, 53), (10, 49), (4, 43), (8, 47)):
        assert _centre(head.labels, left)[0] < -3
        assert _centre(head.labels, right)[0] > 3
    assert _centre(head.labels, 16)[2] < _centre(head.labels, 10, 49)[2]  # brainstem below thalamus
    assert _centre(head.labels, 8, 47)[1] < _centre(head.labels, 16)[1]  # cerebellum behind it
    assert _centre(head.labels, 206)[1] > _centre(head.labels, 2, 41)[1]  # eyes in front


def test_wide_ventricles_can_be_asked_for() -> None:
    model = load_shape_model()
    narrow, wide = (sample_head(8, ventricles=push, model=model).volumes for push in (-1.0, 1.5))
    total = [v["lateral-ventricle-left"] + v["lateral-ventricle-right"] for v in (narrow, wide)]
    assert total[1] > 2 * total[0]


def test_a_head_is_made_within_seconds() -> None:
    model = load_shape_model()
    sample_head(1, model=model)
    began = time.process_time()
    head = sample_head(2, model=model)
    list(t1_series(render_t1(head.labels, 2), FACTS))
    assert time.process_time() - began < 12  # about 3 s of one idle core; threads that wait for cores count too


def test_tissue_is_as_bright_as_t1_says(head: Head, picture: Pixels) -> None:
    white, grey, fluid = (float(np.median(picture[np.isin(head.labels, n)])) for n in ((2, 41), (3, 42), (4, 43)))
    assert white > 1.2 * grey > 1.6 * fluid
    assert float(np.median(picture[head.labels == 0])) < 0.1 * white
    assert int(picture.max()) < 4096


def test_the_series_reads_back_to_the_same_picture_with_the_right_geometry(picture: Pixels) -> None:
    slices = list(t1_series(picture, FACTS))
    assert 160 <= len(slices) <= 190
    assert len({s.SOPInstanceUID for s in slices}) == len(slices)
    volume = np.zeros_like(picture)
    for dataset in slices:
        plane = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        along_row, along_column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        corner = np.array(dataset.ImagePositionPatient, float)
        for row, column in ((0, 0), (dataset.Rows - 1, 0), (17, 5)):
            lps = corner + column * along_row + row * along_column
            x, y, z = np.round(lps * [-1, -1, 1] - LOW - 0.5).astype(int)
            assert picture[x, y, z] == plane[row, column]
        volume[round(-corner[0] - LOW[0] - 0.5)] = plane.T[::-1, ::-1]
    assert np.array_equal(volume, picture)


def test_uids_are_seeded_and_legal() -> None:
    assert seeded_uid("a", "b") == seeded_uid("a", "b") != seeded_uid("a", "c")
    assert pydicom.uid.UID(seeded_uid("a")).is_valid


def test_dciodvfy_finds_no_error(picture: Pixels, dciodvfy: str, tmp_path: Path) -> None:
    for path in write_series(picture, FACTS, tmp_path)[::25]:
        found = subprocess.run([dciodvfy, str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in found.stdout + found.stderr
        assert pydicom.dcmread(path).PatientName == "Synthetic-0001^Ada"


def test_true_volumes_are_the_count_of_the_labels(head: Head) -> None:
    assert head.volumes == volumes_of(head.labels)
    assert head.volumes["hippocampus-left"] == np.count_nonzero(head.labels == 17) / 1000


def test_the_model_is_small_and_holds_no_pickle() -> None:
    import arcuate.hospital.heads as heads

    path = Path(str(heads.__file__)).parent / "shape.npz"
    assert path.stat().st_size < 2_000_000
    with np.load(path, allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive.files)
