"""The method on real data of another field: leakage, calibration and drift are tested there, no model of it is kept.

Vitória (appointments, Brazil 2016) and the Hangu clinic (consultation times, China): for evaluation and research only; see the
README of that folder for source and licence.
"""

import csv
import lzma
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from arcuate.scheduling import boosting, measures
from arcuate.scheduling.attendance import Calibration
from arcuate.scheduling.attendance_training import Row, calibrate
from arcuate.scheduling.domain import Moment, Outcome, Visit, vector
from arcuate.scheduling.features import ATTENDANCE, names
from arcuate.scheduling.waiting import conform
from arcuate.scheduling.waiting_training import _widening

Rows = list[dict[str, str]]


def _table(file: Path) -> Rows:
    with lzma.open(file, "rt", newline="") as text:
        return list(csv.DictReader(text))


def _visit(row: dict[str, str]) -> Visit:
    day = datetime.fromisoformat(row["appt_date"]).replace(hour=12, tzinfo=UTC)
    booked = datetime.fromisoformat(row["booked_at"]).replace(tzinfo=UTC)
    age = int(row["age"])
    return Visit(
        id=row["id"], patient=row["patient"], order=None, start=day, created=min(booked, day),
        birth=day.date() - timedelta(days=int(age * 365.25 + 180)) if 0 <= age <= 100 else None,
        outcome=Outcome.NO_SHOW if row["no_show"] == "1" else Outcome.ATTENDED, known_at=day + timedelta(hours=12),
    )  # fmt: skip


def _rows(visits: list[Visit]) -> list[Row]:
    """Decisions at 18:00 of the day before, for visits that were booked by then (lead of a day or more)."""
    by_patient: dict[str, list[Visit]] = {}
    for visit in visits:
        by_patient.setdefault(str(visit.patient), []).append(visit)
    rows = []
    for visit in visits:
        decided = visit.start - timedelta(hours=18)
        if visit.created is not None and visit.created <= decided and visit.outcome is not None:
            moment = Moment(visit, decided, tuple(by_patient[str(visit.patient)]))
            rows.append(Row(moment, vector(ATTENDANCE, moment), visit.outcome, False))
    return sorted(rows, key=lambda r: r.start)


@pytest.fixture(scope="module")
def vitoria(shared: Path) -> tuple[boosting.Bag, Calibration, list[Row]]:
    """A bag trained on every third patient's first days, its calibration, and the last five days."""
    table = _table(shared / "data" / "ops" / "noshow_vitoria_train.csv.xz")
    patients = sorted({r["patient"] for r in table})[::3]
    kept = frozenset(patients)
    rows = _rows([_visit(r) for r in table if r["patient"] in kept])
    first, last = datetime(2016, 5, 14, tzinfo=UTC), datetime(2016, 5, 19, tzinfo=UTC)
    train = [r for r in rows if r.start < first]
    later = [r for r in rows if first <= r.start < last]
    groups = {p: i for i, p in enumerate(patients)}
    x = boosting.matrix([r.values for r in train], names(ATTENDANCE))
    truth = np.array([float(r.outcome is Outcome.NO_SHOW) for r in train])
    bag = boosting.fit_bag(
        x, truth, np.array([groups[str(r.moment.visit.patient)] for r in train]), 1, [False] * len(ATTENDANCE)
    )
    return bag, calibrate(bag, later, "no-show", names(ATTENDANCE)), [r for r in rows if r.start >= last]


def test_on_real_visits_booked_a_day_or_more_ahead_the_model_ranks_and_is_calibrated(
    vitoria: tuple[boosting.Bag, Calibration, list[Row]],
) -> None:
    """The best published figure on these rows is about 0.615; far above it would be a leak, far below a lost signal."""
    bag, calibration, judged = vitoria
    margins = bag.margins(boosting.matrix([r.values for r in judged], names(ATTENDANCE))).mean(axis=1)
    chance = np.array([calibration.chance(float(m)) for m in margins])
    truth = np.array([float(r.outcome is Outcome.NO_SHOW) for r in judged])

    assert 0.57 <= measures.auc(truth, chance) <= 0.66
    assert measures.ece(truth, chance) <= 0.04
    assert measures.brier(truth, chance) < truth.mean() * (1 - truth.mean())


def test_an_input_that_training_hardly_missed_does_not_break_the_chance(
    vitoria: tuple[boosting.Bag, Calibration, list[Row]],
) -> None:
    """Ages taken away from all judged rows: the mean chance stays near the rate (an unseen category breaks boosters silently)."""
    bag, calibration, judged = vitoria
    rows = [{**r.values, "age": float("nan")} for r in judged]
    margins = bag.margins(boosting.matrix(rows, names(ATTENDANCE))).mean(axis=1)
    chance = np.array([calibration.chance(float(m)) for m in margins])
    truth = np.array([float(r.outcome is Outcome.NO_SHOW) for r in judged])

    assert abs(float(chance.mean()) - float(truth.mean())) < 0.08


def test_quantiles_of_real_consultation_times_beat_the_median_and_cover_what_they_promise(shared: Path) -> None:
    table = _table(shared / "data" / "ops" / "service_hangu_train.csv.xz")
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

    def known(r: dict[str, str]) -> list[float]:
        numbers = [float(r[c] or "nan") for c in ("year", "month", "visit_no", "start_s")]
        flags = [r["half"] == "am", r["sex"] == "F", r["cancer_main"] == "1", r["origin"] == "city"]
        return [*numbers, float(days.index(r["weekday"])), *(float(f) for f in flags)]

    x = np.array([known(r) for r in table])
    y = np.array([float(r["service_s"]) / 60 for r in table])
    session = np.array([int(r["session"]) for r in table])
    train, later, judged = session <= 170, (session > 170) & (session <= 214), session > 214
    booster = boosting.fit_quantiles(x[train], y[train], 1)
    widen = _widening(boosting.quantiles(booster, x[later]), y[later], 0.0)
    found = conform(boosting.quantiles(booster, x[judged]), widen, 0.0)
    median = np.tile(np.quantile(y[train | later], boosting.LEVELS), (int(judged.sum()), 1))
    model = measures.quantile_measures(y[judged], found, session[judged], 1, 20)
    plain = measures.quantile_measures(y[judged], median, session[judged], 1, 20)

    assert model["MAE"].value < plain["MAE"].value
    assert model["pinball"].value < plain["pinball"].value
    assert 0.70 <= model["coverage"].value <= 0.88
