"""Weights of the classes: volumes come nearer to the true ones, left and right alike; weights made for another network count for nothing."""

from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging import balance
from arcuate.imaging.network import ModelUsed, Network, load_model

MODELS = Path(__file__).parents[2] / "models"
CLASSES = np.array([0, 17, 53])
SWAPPED = np.array([0, 2, 1])
NAMES = {0: "background", 17: "Left-Hippocampus", 53: "Right-Hippocampus"}


def network(version: str) -> Network:
    return Network(ModelUsed("net", version, ""), (8, 8, 8), 2.0, CLASSES, SWAPPED)


def put(folder: Path, version: str, weights: list[float]) -> None:
    text = balance.written({"model": "net", "model_version": version}, np.array(weights, np.float32), CLASSES, NAMES)
    (folder / "net").mkdir()
    (folder / "net" / balance.FILE).write_text(text)


def test_weights_are_read_back_as_written(tmp_path: Path) -> None:
    put(tmp_path, "1", [1.0, 0.5, 0.7])
    assert balance.load(tmp_path, network("1")).tolist() == pytest.approx([1.0, 0.5, 0.7])


def test_weights_made_for_other_weights_of_the_network_change_nothing(tmp_path: Path) -> None:
    assert balance.load(tmp_path, network("1")).tolist() == [1, 1, 1]
    put(tmp_path, "1", [1.0, 0.5, 0.7])
    assert balance.load(tmp_path, network("2")).tolist() == [1, 1, 1]


def test_the_weights_that_lie_with_the_shipped_t1_network_were_made_for_it() -> None:
    weights = balance.load(MODELS, load_model(MODELS, "brain-t1"))
    assert weights[0] == 1 and (weights != 1).sum() > 30


def labelled(weights: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Voxels (head, class) of two structures that lie in a row of background, drawn too large and too small by soft borders."""
    counts = []
    for left, right in edges:
        x = np.arange(400.0)
        inside = [1 / (1 + np.exp((np.abs(x - middle) - half) / 3)) for middle, half in ((100, left), (300, right))]
        shares = np.array([1 - sum(inside), *inside]) * weights[:, None]
        counts.append(np.bincount(shares.argmax(0), minlength=3))
    return np.array(counts, float)


def test_rounds_bring_volumes_to_the_true_ones_and_keep_the_sides_alike() -> None:
    halves = np.random.default_rng(2).uniform(25, 45, (12, 1)) * [1, 1]
    true = labelled(np.ones(3), halves)
    weights = np.ones(3, np.float32)
    before = balance.off(labelled(weights, halves + 3), true)
    for _ in range(6):
        weights = balance.nearer(weights, balance.off(labelled(weights, halves + 3), true), SWAPPED)
    after = balance.off(labelled(weights, halves + 3), true)
    assert np.abs(before[1:]).min() > 0.06 and np.abs(after[1:]).max() < 0.02
    assert weights[1] == weights[2] < 1 and weights[0] == 1


def test_a_head_that_hardly_has_a_structure_says_nothing_of_it() -> None:
    true, found = np.array([[1e5, 2, 900], [1e5, 1000, 0]]), np.array([[1e5, 200, 900], [1e5, 1100, 50]])
    assert balance.off(found, true)[1:] == pytest.approx([np.log(1101 / 1001), 0])


def test_one_round_never_runs_away() -> None:
    far = np.array([0.0, 9.0, 9.0])
    weights = np.ones(3, np.float32)
    for _ in range(9):
        weights = balance.nearer(weights, far, SWAPPED)
    assert weights.tolist() == [1, *[balance.BOUNDS[0]] * 2]
