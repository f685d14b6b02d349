"""Trained models: better than what a desk can count, calibrated, with intervals, checked before they are loaded."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from arcuate.kernel.errors import BadInput, NotFound
from arcuate.scheduling import attendance, attendance_training, measures, waiting
from arcuate.scheduling.attendance import Calibration
from arcuate.scheduling.domain import rate_interval
from arcuate.scheduling.reasons import explain, load_words
from arcuate.scheduling.waiting import conform


def test_a_model_beats_the_sites_rate_and_the_card_says_that_the_data_are_synthetic(models: Path) -> None:
    card = (models / "attendance" / "card.md").read_text()
    rows = [line.split("|") for line in card.splitlines() if line.startswith("| no-show | 24 h before |")]
    found = {row[3].strip(): float(row[6].split()[0]) for row in rows}

    assert found["model"] > 0.6
    assert found["site's rate"] == 0.5
    assert "**Synthetic.**" in card
    assert tomllib.loads((models / "attendance" / "model.toml").read_text())["data"]["synthetic"] is True


def test_training_twice_with_one_seed_gives_the_same_model(history: Path, models: Path, tmp_path: Path) -> None:
    attendance_training.train(history, tmp_path / "again", 1, draws=20)

    assert (tmp_path / "again" / "model.toml").read_text() == (models / "attendance" / "model.toml").read_text()


def test_waits_cover_what_they_promise(models: Path) -> None:
    card = (models / "waiting" / "card.md").read_text()
    row = next(line.split("|") for line in card.splitlines() if line.startswith("| wait | all | model |"))
    assert 0.7 <= float(row[8].split()[0]) <= 0.92


@pytest.mark.parametrize("name", ["attendance", "waiting"])
def test_a_changed_file_is_not_loaded(models: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(models / name, tmp_path / name)
    file = next(copy.glob("*.ubj"))
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))
    loader = {"attendance": attendance.load, "waiting": waiting.load}[name]

    with pytest.raises(BadInput, match="was changed after training"):
        loader(copy)


def test_a_file_that_points_out_of_the_folder_is_not_loaded(models: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models / "attendance", tmp_path / "attendance")
    toml = copy / "model.toml"
    toml.write_text(toml.read_text().replace('"no-show-0.ubj"', '"../no-show-0.ubj"'))

    with pytest.raises(BadInput, match="missing"):
        attendance.load(copy)


def test_no_model_is_not_found_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="arcuate train attendance"):
        attendance.load(tmp_path)


rows = st.lists(st.tuples(st.floats(-6, 3), st.integers(20, 200), st.integers(0, 20)), min_size=1, max_size=30)


@given(rows, st.floats(-6, 3), st.floats(0, 2), st.floats(0.1, 2), st.floats(-2, 2))
def test_an_interval_holds_its_chance_and_grows_with_the_spread_of_the_boosters(
    table: list[tuple[float, int, int]], margin: float, spread: float, slope: float, intercept: float
) -> None:
    calibration = Calibration(slope, intercept, 0.1, tuple(sorted(table)))
    low, high = calibration.interval(margin, spread)
    narrow = calibration.interval(margin, 0.0)

    assert 0 <= low < calibration.chance(margin) < high <= 1
    assert low <= narrow[0] + 1e-12
    assert high >= narrow[1] - 1e-12


@given(st.integers(1, 3000), st.integers(0, 3000))
def test_a_rate_interval_holds_the_rate(count: int, events: int) -> None:
    events = min(events, count)
    low, high = rate_interval(events, count)

    assert low < (events + 0.5) / (count + 1) < high


@given(
    hnp.arrays(float, (5, 3), elements=st.floats(-50, 500)).map(lambda a: np.sort(a, axis=1)),
    st.floats(-40, 40),
    st.floats(0, 5),
)
def test_quantiles_never_cross_and_are_never_below_the_least_value(
    quantiles: np.ndarray, widen: float, least: float
) -> None:
    moved = conform(quantiles, widen, least)

    assert (np.diff(moved, axis=1) >= 0).all()
    assert (moved >= least).all()


@settings(max_examples=80)
@given(st.lists(st.floats(-1.5, 1.5), min_size=18, max_size=18), st.floats(-4, 0), st.floats(0.01, 0.3))
def test_the_points_of_reasons_lead_from_the_sites_rate_to_the_chance(
    parts: list[float], common: float, base: float
) -> None:
    from arcuate.scheduling.domain import sigmoid
    from arcuate.scheduling.features import ATTENDANCE, names

    values = dict.fromkeys(names(ATTENDANCE), 1.0)
    reasons = explain(load_words(), names(ATTENDANCE), values, [*parts, common], base, sigmoid)
    total = 100 * (sigmoid(sum(parts) + common) - base)

    assert abs(sum(r.points for r in reasons) - total) < 0.6
    assert len(reasons) <= 6


def test_measures_agree_with_known_values() -> None:
    truth = np.array([0.0, 0.0, 1.0, 1.0])

    assert measures.auc(truth, np.array([0.1, 0.4, 0.35, 0.8])) == 0.75
    assert measures.auc(truth, np.full(4, 0.5)) == 0.5
    assert measures.brier(truth, truth) == 0.0
    assert np.isnan(measures.slope(truth, np.full(4, 0.5)))


def test_the_slope_finds_chances_that_are_too_bold() -> None:
    source = np.random.default_rng(0)
    logit = source.normal(-1, 1, 20_000)
    truth = (source.random(20_000) < 1 / (1 + np.exp(-logit))).astype(float)

    assert measures.slope(truth, 1 / (1 + np.exp(-logit))) == pytest.approx(1.0, abs=0.06)
    assert measures.slope(truth, 1 / (1 + np.exp(-2 * logit))) == pytest.approx(0.5, abs=0.03)
