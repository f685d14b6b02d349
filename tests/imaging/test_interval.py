"""Intervals of volumes: what heads of known volumes say of the next one, and where nothing is said."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging import interval, segmentation
from arcuate.imaging.interval import Answer, Intervals
from arcuate.imaging.network import load_model

MODELS = Path(__file__).parents[2] / "models"


def answers(count: int, seed: int = 1, side: str = "left", longest_mm: float = 1.0) -> list[Answer]:
    """Found volumes a tenth too large in the mean, by a spread of 5 %."""
    random = np.random.default_rng(seed)
    true = random.uniform(2, 5, count)
    found = true * 1.1 * np.exp(0.05 * random.standard_normal(count))
    return [Answer("hippocampus", side, float(f), float(t), longest_mm) for f, t in zip(found, true, strict=True)]


def test_of_new_heads_eight_in_ten_lie_in_the_interval_also_where_volumes_are_too_large() -> None:
    shares = []
    for seed in range(40):
        inside, count = interval.held(interval.fitted(answers(40, seed)), answers(1000, 99))
        assert count == 1000
        shares.append(inside / count)
    assert 0.79 < np.mean(shares) < 0.87


def test_left_and_right_have_one_interval_and_both_together_and_thick_slices_their_own() -> None:
    made = interval.fitted([*answers(30), *answers(30, 2, "right"), *answers(30, 3, ""), *answers(30, 4, "left", 5.0)])
    told = made.of([(("hippocampus", side), 3.0) for side in ("left", "right", "")], longest_mm=1.0)
    assert told["hippocampus", "left"] == told["hippocampus", "right"] != told["hippocampus", ""]
    assert made.of([(("hippocampus", "left"), 3.0)], longest_mm=5.0) != {
        ("hippocampus", "left"): told["hippocampus", "left"]
    }


def test_an_interval_has_no_more_digits_than_are_known_of_it() -> None:
    made = Intervals({"fine-whole": {"intracranial": (0.95678, 1.02345)}})
    assert made.of([(("intracranial", ""), 1623.456)], 1.0) == {("intracranial", ""): (1550.0, 1660.0)}


def test_a_handful_of_heads_gives_no_interval() -> None:
    assert interval.fitted(answers(interval.ENOUGH - 1)).of([(("hippocampus", "left"), 3.0)], 1.0) == {}


def test_intervals_are_read_back_as_written_and_never_for_another_version(tmp_path: Path) -> None:
    made = Intervals({"fine-side": {"hippocampus": (0.9, 1.05)}})
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / interval.FILE).write_text(interval.written({"model": "net", "version": "1 r5"}, made))
    assert interval.load(tmp_path, "net", "1 r5") == made
    assert interval.load(tmp_path, "net", "1 r6") is None
    assert interval.load(tmp_path, "other", "1 r5") is None


@pytest.mark.parametrize("name", ["brain-t1", "brain-any"])
def test_the_shipped_networks_have_intervals_of_every_structure_made_for_this_way_of_measuring(name: str) -> None:
    revision = tomllib.loads(segmentation.RULES.read_text(encoding="utf-8"))["revision"]
    made = interval.load(MODELS, name, f"{load_model(MODELS, name).used.version} r{revision}")
    assert made is not None
    told = made.of([(("hippocampus", side), 3.0) for side in ("left", "")], 1.0)
    assert all(1.5 < low < high < 4.5 for low, high in told.values())
    assert len(made.groups["fine-side"]) >= 10
