"""Real series: the geometry that an independent reader found, and the way from a folder and from C-STORE to the same volumes."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from arcuate.imaging.geometry import axis_codes
from arcuate.imaging.parsing import Parser
from arcuate.imaging.series import Choice, choose

ARCHIVES = {
    "HFS": "dicom_t1_decubitus/HFS.tar.xz",
    "HFDR": "dicom_t1_decubitus/HFDR.tar.xz",
    "dicom_t1_studyforrest": "dicom_t1_studyforrest/dicom_t1_studyforrest.tar.xz",
}


@pytest.fixture(scope="session")
def series(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    for archive in ARCHIVES.values():
        subprocess.run(["tar", "xJf", shared / "data/imaging" / archive, "-C", folder], check=True)
    return folder


def read(folder: Path, out: Path) -> tuple[Choice, np.ndarray]:
    with Parser() as parser:
        choice = choose(parser.folder(folder))
        frames = [
            (s.instance.path, s.instance.digest, s.index, s.frame.slope, s.frame.intercept) for s in choice.grid.slices
        ]
        return choice, parser.pixels(frames, choice.grid.shape, out)


@pytest.mark.parametrize("name", ARCHIVES)
def test_f052_affine_and_voxels_are_those_of_an_independent_reader(
    shared: Path, series: Path, tmp_path: Path, name: str
) -> None:
    expected: dict[str, Any] = json.loads((shared / "data/imaging/dicom_expected.json").read_text())[name]
    choice, volume = read(series / name, tmp_path / "v.npy")
    assert list(choice.grid.shape) == expected["shape_columns_rows_slices"]
    assert axis_codes(choice.grid.affine) == expected["axcodes"]
    np.testing.assert_allclose(choice.grid.affine, expected["affine_ras"], atol=2e-4)
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(np.asarray(volume), choice.grid.affine))
    voxels = np.ascontiguousarray(np.asarray(upright.dataobj)).astype("<i2")
    assert hashlib.sha256(voxels.tobytes()).hexdigest() == expected["canonical_ras_int16_c_order_sha256"]


def test_f052_a_head_on_its_side_has_the_same_axes_as_one_on_its_back(series: Path, tmp_path: Path) -> None:
    """PatientPosition differs (HFS, HFDR), the patient's axes do not."""
    back, side = (read(series / name, tmp_path / f"{name}.npy")[0] for name in ("HFS", "HFDR"))
    np.testing.assert_array_equal(back.grid.affine, side.grid.affine)
    assert any("Thick slices" in warning for warning in back.warnings)


def test_the_derived_series_without_timing_is_used_and_says_what_it_does_not_know(series: Path, tmp_path: Path) -> None:
    choice, _ = read(series / "dicom_t1_studyforrest", tmp_path / "v.npy")
    assert choice.reason.startswith("Series 401 (anat-T1w): T1-weighted by its name")
    assert any("DERIVED" in w for w in choice.warnings)
    assert any("Echo and repetition time are not stated" in w for w in choice.warnings)
