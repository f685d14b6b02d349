"""The corpus of hostile and odd DICOM input: refused in time with a reason, or right."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.parsing import Parser
from arcuate.imaging.series import Choice, choose

CASES = [
    "plain", "shuffled", "descending", "implicit_no_ext", "columns_to_right", "sagittal", "rescale_per_slice",
    "enhanced_multiframe", "mirrored_head", "missing_slices", "duplicate_same", "duplicate_uid_different_pixels",
    "two_volumes_in_one_series", "mixed_orientations", "localiser", "no_geometry", "sheared_iop", "gantry_tilt",
    "spacing_nonsense", "two_patients", "rows_cols_bomb", "frames_bomb", "truncated", "one_truncated", "length_lie",
    "wrong_vr_length", "deep_nesting", "traversal_uids", "deflate_bomb", "bad_codestream", "not_dicom", "all_zero",
    "secondary_capture_rgb", "thick_gapped", "bad_charset",
]  # fmt: skip


@pytest.fixture(scope="session")
def hostile(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, shared / "data/imaging/hostile_dicom.py", folder], check=True, capture_output=True)
    assert set(json.loads((folder / "expected.json").read_text())) == set(CASES)
    return folder


def measured_input(parser: Parser, folder: Path, out: Path) -> tuple[Choice, np.ndarray]:
    choice = choose(parser.folder(folder))
    frames = [
        (s.instance.path, s.instance.digest, s.index, s.frame.slope, s.frame.intercept) for s in choice.grid.slices
    ]
    return choice, parser.pixels(frames, choice.grid.shape, out)


def peak_mb(pid: int | None, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


@pytest.mark.parametrize("name", CASES)
def test_f050_f052_f053_hostile_series(hostile: Path, tmp_path: Path, name: str) -> None:
    expected: dict[str, Any] = json.loads((hostile / "expected.json").read_text())[name]
    before = sorted(p.name for p in hostile.iterdir())
    with Parser() as parser:
        parser.header(hostile / "plain" / "IM0001.dcm")  # the process is up and idle
        idle, began, choice, volume = peak_mb(parser.pid, "VmRSS"), time.monotonic(), None, None
        try:
            choice, volume = measured_input(parser, hostile / name, tmp_path / "volume.npy")
        except NotMeasurable as error:
            assert expected["verdict"] == "refuse", error.refusal
            assert error.refusal.what
        seconds, extra = time.monotonic() - began, peak_mb(parser.pid, "VmHWM") - idle
    assert seconds < expected["max_seconds"]
    assert extra < expected["max_mb"]
    assert sorted(p.name for p in hostile.iterdir()) == before
    if choice is None or volume is None:
        return
    assert expected["verdict"] != "refuse"
    assert bool(choice.warnings) or expected["verdict"] == "use"
    if slices := expected["check"].get("slices"):
        assert choice.grid.shape[2] == slices
    if side := expected["check"].get("left_ball_side"):
        ball = np.argwhere(np.abs(volume - 1500) < 1).mean(axis=0)
        x = (choice.grid.affine @ np.append(ball, 1))[0]
        assert ("L" if x < 0 else "R") == side
