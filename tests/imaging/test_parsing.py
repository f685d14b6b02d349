"""Files from outside cost their own process at most; every damage is refused with a reason."""

import gzip
import os
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from arcuate.imaging.domain import Instance, NotMeasurable, RefusalCode, Unreadable
from arcuate.imaging.parsing import Limits, Parser
from arcuate.imaging.series import choose


def damage(parser: Parser, path: Path) -> RefusalCode:
    found = parser.header(path)
    refusal = found.refusal if isinstance(found, Unreadable) else found.damage
    assert refusal is not None
    assert refusal.what
    return refusal.code


def test_f050_a_process_that_dies_refuses_this_file_and_reads_the_next(parser: Parser, phantom: Path) -> None:
    files = sorted(phantom.iterdir())
    assert isinstance(parser.header(files[0]), Instance)
    assert parser.pid is not None
    os.kill(parser.pid, signal.SIGSTOP)
    killer = threading.Timer(0.3, os.kill, (parser.pid, signal.SIGKILL))
    killer.start()
    found = parser.header(files[1])
    assert isinstance(found, Unreadable)
    assert found.refusal.code == RefusalCode.HOSTILE
    assert isinstance(parser.header(files[1]), Instance)


def test_f050_a_process_that_hangs_is_ended_in_time(phantom: Path) -> None:
    files = sorted(phantom.iterdir())
    with Parser(Limits(header_seconds=0.5)) as parser:
        parser.header(files[0])
        assert parser.pid is not None
        os.kill(parser.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert damage(parser, files[1]) == RefusalCode.HOSTILE
        assert time.monotonic() - began < 10
        assert isinstance(parser.header(files[1]), Instance)


def test_f050_a_file_over_the_limit_is_not_opened(phantom: Path) -> None:
    with Parser(Limits(file_bytes=1000)) as parser:
        assert damage(parser, next(phantom.iterdir())) == RefusalCode.TOO_LARGE


@pytest.mark.parametrize("cut", [10, 140, 400, 900, -1, -3000])
def test_f050_a_file_cut_anywhere_is_refused(parser: Parser, phantom: Path, cut: int) -> None:
    path = next(phantom.iterdir())
    path.write_bytes(path.read_bytes()[:cut])
    assert damage(parser, path) in (RefusalCode.DAMAGED, RefusalCode.NOT_DICOM, RefusalCode.ILLEGAL_UID)


def test_f050_a_file_that_changes_after_its_header_was_read_is_not_decoded(
    parser: Parser, phantom: Path, tmp_path: Path
) -> None:
    choice = choose(parser.folder(phantom))
    victim = Path(choice.grid.slices[10].instance.path)
    content = bytearray(victim.read_bytes())
    content[-100] ^= 0xFF
    victim.write_bytes(bytes(content))
    frames = [(s.instance.path, s.instance.digest, s.index, 1.0, 0.0) for s in choice.grid.slices]
    with pytest.raises(NotMeasurable) as caught:
        parser.pixels(frames, choice.grid.shape, tmp_path / "v.npy")
    assert caught.value.refusal.code == RefusalCode.DAMAGED


def test_f059_a_blank_slice_inside_the_volume_is_a_hole(
    parser: Parser, write: Callable[..., Path], tmp_path: Path
) -> None:
    def blank(image: object, number: int) -> None:
        if number == 30:
            image.PixelData = bytes(len(image.PixelData))  # type: ignore[attr-defined]

    choice = choose(parser.folder(write(tmp_path / "s", blank)))
    frames = [(s.instance.path, s.instance.digest, s.index, 1.0, 0.0) for s in choice.grid.slices]
    with pytest.raises(NotMeasurable) as caught:
        parser.pixels(frames, choice.grid.shape, tmp_path / "v.npy")
    assert caught.value.refusal.code == RefusalCode.INCOMPLETE


def test_illegal_values_are_named_and_read_all_the_same(parser: Parser, phantom: Path) -> None:
    path = next(phantom.iterdir())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x10\x00\x40\x00CS\x02\x00O ", b"\x10\x00\x40\x00CS\x02\x00X "))
    found = parser.header(path)
    assert isinstance(found, Instance)
    assert found.dropped == {"PatientSex": "is not one of the values that DICOM allows"}
    assert found.tags["PatientSex"] == "X"


def test_a_report_object_is_no_image_but_is_not_damaged(parser: Parser, phantom: Path) -> None:
    path = next(phantom.iterdir())
    made = dcmread(path)
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(made, keyword)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.34"
    made.save_as(path)
    assert damage(parser, path) == RefusalCode.NOT_SUITED


def test_metadata_holds_no_pixels(parser: Parser, phantom: Path) -> None:
    made = parser.metadata(next(phantom.iterdir()))
    assert made["00100020"]["Value"] == ["PH-1"]
    assert "7FE00010" not in made


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


def volume(path: Path, affine: np.ndarray | None = None, shape: tuple[int, ...] = (8, 9, 10), code: int = 1) -> Path:
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    image.to_filename(path)
    return path


AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -100], [0, 0, 2, -70], [0, 0, 0, 1]])


def test_f052_a_nifti_without_orientation_is_refused(parser: Parser, tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable) as caught:
        parser.nifti(volume(tmp_path / "a.nii.gz", AFFINE, code=0), tmp_path / "v.npy")
    assert caught.value.refusal.code == RefusalCode.ORIENTATION


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello", RefusalCode.NOT_DICOM),
        (b"", RefusalCode.NOT_DICOM),
        (struct.pack("<i", 348) + b"\0" * 344, RefusalCode.NOT_DICOM),
    ],
)
def test_what_is_no_nifti_is_refused(parser: Parser, tmp_path: Path, content: bytes, code: RefusalCode) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    with pytest.raises(NotMeasurable) as caught:
        parser.nifti(path, tmp_path / "v.npy")
    assert caught.value.refusal.code in (code, RefusalCode.DAMAGED, RefusalCode.NOT_SUITED)


def test_f050_a_nifti_that_opens_to_more_than_any_head_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(b"\0" * 40_000_000))
    with Parser(Limits(voxels=1_000_000)) as parser, pytest.raises(NotMeasurable) as caught:
        parser.nifti(path, tmp_path / "v.npy")
    assert caught.value.refusal.code == RefusalCode.HOSTILE


def test_a_nifti_of_several_volumes_is_refused(parser: Parser, tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable):
        parser.nifti(volume(tmp_path / "a.nii", AFFINE, (4, 4, 4, 3)), tmp_path / "v.npy")


def test_a_nifti_keeps_its_own_grid(parser: Parser, tmp_path: Path) -> None:
    data, affine = parser.nifti(volume(tmp_path / "a.nii.gz", AFFINE), tmp_path / "v.npy")
    np.testing.assert_array_equal(affine, AFFINE)
    np.testing.assert_array_equal(data.ravel(), np.arange(720, dtype=np.float32))
