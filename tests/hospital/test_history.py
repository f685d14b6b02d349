"""The written history is a department that one could train on: right resources, stated rates, honest difficulty."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from arcuate.hospital.attendance import FULFILLED, LATE_CANCEL, NO_SHOW, load_causes
from arcuate.hospital.history import Written, write_history
from arcuate.hospital.past import EARLY_CANCEL, Past, draw_past
from arcuate.hospital.settings import HospitalSettings
from arcuate.hospital.timeline import DAY

MONTHS = 18


@pytest.fixture(scope="module")
def past() -> Past:
    return draw_past(HospitalSettings(), seed=11, months=MONTHS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    where = tmp_path_factory.mktemp("history")
    return where, write_history(where, HospitalSettings(), seed=3, months=2)


def _read(folder: Path, name: str) -> Iterator[dict[str, object]]:
    with (folder / f"{name}.ndjson").open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        total.update(file.name.encode() + file.read_bytes())
    return total.hexdigest()


def _interval(rate: float, n: int) -> float:
    return 3.5 * (rate * (1 - rate) / n) ** 0.5


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_history(tmp_path / name, HospitalSettings(), seed=seed, months=1)
    assert _digest(tmp_path / "a") == _digest(tmp_path / "b")
    assert _digest(tmp_path / "a") != _digest(tmp_path / "c")


def test_eighteen_months_hold_enough_appointments_to_train_on(past: Past) -> None:
    assert 20_000 <= len(past.bookings) <= 40_000


@pytest.mark.parametrize(
    ("outcome", "rate"), [(NO_SHOW, HospitalSettings().no_show_rate), (LATE_CANCEL, 0.15 * 0.30 / (1 - 0.15 * 0.70))]
)
def test_rates_lie_within_the_interval_of_their_setting(past: Past, outcome: int, rate: float) -> None:
    n = len(past.chances.outcome)
    assert abs(float((past.chances.outcome == outcome).mean()) - rate) < _interval(rate, n)


def test_a_department_with_more_no_shows_can_be_asked_for() -> None:
    settings = HospitalSettings(no_show_rate=0.174)
    outcome = draw_past(settings, seed=1, months=6).chances.outcome
    assert abs(float((outcome == NO_SHOW).mean()) - 0.174) < _interval(0.174, len(outcome))


def test_cancellations_are_as_frequent_and_as_late_as_stated(past: Past) -> None:
    planned = [b for b in past.bookings if b.setting == "AMB"]
    counts = Counter(b.outcome for b in planned)
    cancelled = counts[LATE_CANCEL] + counts[EARLY_CANCEL]
    assert abs(cancelled / len(planned) - 0.15) < _interval(0.15, len(planned)) + 0.005
    assert abs(counts[LATE_CANCEL] / cancelled - 0.30) < _interval(0.30, cancelled) + 0.01


def test_late_means_within_24_hours_and_early_means_before(past: Past) -> None:
    for booking in past.bookings:
        notice = booking.start - booking.changed
        if booking.outcome == LATE_CANCEL:
            assert 0 < notice < DAY
        if booking.outcome == EARLY_CANCEL:
            assert notice >= DAY
        assert booking.authored < booking.created < booking.start


def test_lead_times_arrivals_and_durations_follow_their_settings(past: Past) -> None:
    came = [b for b in past.bookings if b.outcome == FULFILLED and b.setting == "AMB"]
    ordered = np.array([(b.start - b.authored) / DAY for b in past.bookings if b.setting == "AMB"])
    early = np.array([b.start - b.arrival for b in came])
    assert 17 < ordered.mean() < 20.5
    assert 0.46 < (ordered > 10).mean() < 0.53
    assert 0.57 < (early >= 30).mean() < 0.63
    assert 0.07 < (early < 0).mean() < 0.09
    brain = np.array([b.ended - b.began for b in came if b.exam == 0 and b.scanner == 0 and not b.stopped])
    assert 0.20 < brain.std() / brain.mean() < 0.33
    stopped = np.array([b.stopped for b in came if b.scanner < 3])
    assert abs(float(stopped.mean()) - 0.008) < _interval(0.008, len(stopped))


def test_nobody_is_on_two_tables_at_once_on_one_scanner(past: Past) -> None:
    by_scanner: dict[int, list[tuple[float, float]]] = {}
    for booking in past.bookings:
        if booking.ended:
            assert booking.arrival <= booking.began < booking.ended
            by_scanner.setdefault(booking.scanner, []).append((booking.began, booking.ended))
    for times in by_scanner.values():
        ordered = sorted(times)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ordered))


def test_the_truth_is_noisy_yet_worth_learning(past: Past) -> None:
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    outcome, truth = past.chances.outcome, past.chances.no_show
    assert 0.76 < roc_auc_score(outcome == NO_SHOW, truth) < 0.86
    missed = [c for c in load_causes() if not c.seen]
    assert {c.name for c in missed} >= {"tendency", "not_reachable", "deprivation_step", "public_insurance"}


def test_what_a_model_may_see_predicts_as_well_as_published_models_and_not_better(past: Past) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    roc_auc_score = pytest.importorskip("sklearn.metrics").roc_auc_score
    known: dict[int, tuple[int, int]] = {}
    rows: list[list[float]] = []
    missed: list[bool] = []
    people = past.people
    for booking in past.bookings:
        if booking.setting != "AMB" or booking.outcome == EARLY_CANCEL:
            continue
        seen, gone = known.get(booking.person, (0, 0))
        who = booking.person
        lead, minute = (booking.start - booking.created) / DAY, booking.start % DAY
        age = booking.start / DAY - people.birth[who]
        rows.append([
            lead > 7, lead > 30, lead > 90, lead < 0.8, age >= 65 * 365, age < 40 * 365, people.male[who], people.single[who],
            people.mobile[who], people.ring[who], minute < 480, minute >= 960, past.standing.moved[booking.order],
            np.log((gone + 0.3) / (seen - gone + 3)), gone > 0,
        ])  # fmt: skip
        missed.append(booking.outcome == NO_SHOW)
        if booking.outcome in (FULFILLED, NO_SHOW):
            known[who] = (seen + 1, gone + (booking.outcome == NO_SHOW))
    x, y, cut = np.array(rows, dtype=float), np.array(missed), int(len(rows) * 0.75)
    model = linear.LogisticRegression(max_iter=400).fit(x[:cut], y[:cut])
    auc = roc_auc_score(y[cut:], model.predict_proba(x[cut:])[:, 1])
    assert 0.66 < auc < 0.78


def test_files_hold_the_resources_and_elements_that_the_models_read(folder: tuple[Path, Written]) -> None:
    where, written = folder
    assert set(written.counts) == {"Location", "Patient", "ServiceRequest", "Appointment", "Encounter", "Procedure"}
    arrived = {str(e["appointment"][0]["reference"]): e for e in _read(where, "Encounter")}  # type: ignore[index]
    states: Counter[str] = Counter()
    for appointment in _read(where, "Appointment"):
        status = str(appointment["status"])
        states[status] += 1
        start, end = (datetime.fromisoformat(str(appointment[k])) for k in ("start", "end"))
        assert start.tzinfo is not None
        assert end - start == timedelta(minutes=int(appointment["minutesDuration"]))  # type: ignore[call-overload]
        assert datetime.fromisoformat(str(appointment["created"])) < start
        assert (status == "cancelled") == ("cancelationReason" in appointment)
        assert (status == "fulfilled") == (f"Appointment/{appointment['id']}" in arrived)
    assert set(states) == {"fulfilled", "noshow", "cancelled"}
    assert written.counts["Procedure"] == written.counts["Encounter"] == states["fulfilled"]


def test_everything_says_that_it_is_test_data_and_no_truth_is_in_it(folder: tuple[Path, Written]) -> None:
    where, _ = folder
    for file in where.iterdir():
        text = file.read_text(encoding="utf-8")
        assert all('"HTEST"' in line for line in text.splitlines())
        for hidden in ("tendency", "deprivation", "reachable", "insurance", "chance"):
            assert hidden not in text
    assert all(str(p["name"][0]["family"]).startswith("Synthetic-") for p in _read(where, "Patient"))  # type: ignore[index]


def test_every_setting_has_a_sentence_and_every_cause_says_why() -> None:
    from arcuate.kernel.settings import describe

    assert all(line.sentence.endswith(".") for line in describe(HospitalSettings()))
    assert all(cause.why for cause in load_causes())
