"""The quality score: falls when the network is unsure or its two answers differ; its fit is data that is read back as written."""

from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging import quality, robustness
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.quality import Fit, Signals


def answer(left_at: int, sure: int = 255) -> np.ndarray:
    """Probabilities of background, left and right of two cubes in a box of 20 voxels."""
    found = np.zeros((3, 20, 20, 20), np.uint8)
    found[1, left_at : left_at + 6, 5:15, 5:15] = sure
    found[2, 12:18, 5:15, 5:15] = sure
    found[0] = 255 - found[1] - found[2]
    return found


def test_a_sure_answer_that_its_mirror_image_confirms_is_perfect() -> None:
    assert quality.agreement(answer(2), answer(2), [0]) == (1.0, 1.0)


def test_doubt_and_disagreement_lower_their_signals() -> None:
    certainty, flips = quality.agreement(answer(2, 160), answer(2, 160), [0])
    assert certainty < 0.9 and flips == pytest.approx(1)
    _, flips = quality.agreement(answer(2), answer(5), [0])
    assert flips == pytest.approx((0.5 + 1) / 2)


def test_an_answer_without_any_structure_is_worth_nothing() -> None:
    empty = np.zeros((3, 8, 8, 8), np.uint8)
    empty[0] = 255
    assert quality.agreement(empty, empty, [0]) == (0.0, 0.0)
    assert quality.symmetry([]) == 0.0 and quality.overlap(empty[1] > 0, empty[1] > 0) == 0.0


def test_the_fit_ranks_and_is_read_back_as_written(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    signals = [Signals(*random.uniform(0.4, 1, 6)) for _ in range(40)]
    dice = [0.9 * s.certainty - 0.1 for s in signals]
    intercept, weights = quality.fitted(signals, dice)
    (tmp_path / "net").mkdir()
    text = quality.written({"model": "net", "model_version": "1", "made": "2026-11-22"}, intercept, weights)
    (tmp_path / "net" / quality.FIT).write_text(text)
    fit = quality.load_fit(tmp_path, "net")
    assert fit is not None and fit.version == "1"
    assert np.corrcoef([fit.predicted(s) for s in signals], dice)[0, 1] > 0.98
    assert quality.load_fit(tmp_path, "another") is None
    assert Fit("1", 9.0, weights).predicted(signals[0]) == 1.0


def test_a_fit_made_with_other_signals_scores_nothing(tmp_path: Path) -> None:
    (tmp_path / quality.FIT).write_text('model_version = "1"\nintercept = 0.1\n[weights]\ncertainty = 0.5\n')
    assert quality.load_fit(tmp_path.parent, tmp_path.name) is None


def test_thick_slices_are_a_signal_and_voxels_finer_than_the_networks_are_none() -> None:
    seen = [quality.fineness(np.array([1.0, 1.0, longest])) for longest in (0.7, 2.0, 4.0, 8.0)]
    assert seen == [1.0, 1.0, 0.5, 0.25]


def test_copies_keep_scan_and_labels_together() -> None:
    labels = np.zeros((30, 32, 34), np.int32)
    labels[8:22, 10:20, 8:20] = 7
    made = robustness.copies(Volume((labels * 10).astype(np.float32), np.diag([-1.0, 1, 1, 1])), labels)
    for copy in made:
        bright = copy.volume.data > 0.5 * copy.volume.data.max()
        if copy.name != "inverted inside the brain":
            assert quality.overlap(bright, copy.manual > 0) > 0.8, copy.name
        voxel = abs(float(np.linalg.det(copy.volume.affine[:3, :3])))
        assert (copy.manual > 0).sum() * voxel == pytest.approx((labels > 0).sum(), rel=0.25), copy.name
