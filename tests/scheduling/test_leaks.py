"""FAULTS 063: nothing that was known only after the decision may reach a model."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.kernel.errors import BadInput, Refused
from arcuate.scheduling import attendance_training
from arcuate.scheduling.domain import Feature, Moment, Outcome, Visit, as_of, leaks, vector
from arcuate.scheduling.features import ATTENDANCE, DURATION, WAIT

START = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
times = st.integers(-20_000, 20_000).map(lambda m: START + timedelta(minutes=m))


@st.composite
def visits(draw: st.DrawFn, number: int = 0) -> Visit:
    start = draw(times)
    arrived = draw(st.none() | times)
    began = draw(st.none() | times)
    return Visit(
        id=f"v{number}", patient="p", order=draw(st.sampled_from(["o1", "o2", None])), start=start,
        created=draw(st.none() | times), minutes=draw(st.none() | st.integers(5, 90)), exam="MRX0", words="mri brain with contrast",
        place="MR1", priority=draw(st.sampled_from(["routine", "stat", None])), outcome=draw(st.none() | st.sampled_from(Outcome)),
        known_at=draw(times), arrived=arrived, began=began, ended=draw(st.none() | times),
    )  # fmt: skip


@st.composite
def moments(draw: st.DrawFn) -> Moment:
    others = tuple(draw(visits(number)) for number in range(1, draw(st.integers(1, 4))))
    return Moment(draw(visits()), draw(times), others)


@settings(max_examples=100, deadline=None)
@given(moments())
def test_f063_no_feature_changes_when_the_future_is_taken_away(moment: Moment) -> None:
    assert leaks(ATTENDANCE, [moment]) == []
    assert leaks(WAIT + DURATION, [moment]) == []


@settings(max_examples=50, deadline=None)
@given(moments(), st.sampled_from(Outcome))
def test_f063_the_answer_to_be_forecast_never_moves_a_feature(moment: Moment, outcome: Outcome) -> None:
    other = replace(
        moment, visit=replace(moment.visit, outcome=outcome, known_at=moment.decided_at + timedelta(days=1))
    )

    assert [str(v) for v in vector(ATTENDANCE, moment).values()] == [str(v) for v in vector(ATTENDANCE, other).values()]


@settings(max_examples=100, deadline=None)
@given(moments())
def test_what_was_known_then_holds_nothing_later(moment: Moment) -> None:
    known = as_of(moment)

    assert known.visit.outcome is None
    for other in known.others:
        stated = [other.created, other.arrived, other.began, other.ended, other.known_at if other.outcome else None]
        assert all(when is None or when <= moment.decided_at for when in stated)
    assert as_of(known) == known


@pytest.mark.parametrize(
    "planted",
    [
        Feature("status", lambda m: float(m.visit.outcome is Outcome.NO_SHOW)),
        Feature("arrival", lambda m: 0.0 if m.visit.arrived is None else 1.0),
        Feature("all_misses", lambda m: float(sum(v.outcome is Outcome.NO_SHOW for v in m.others))),
    ],
    ids=lambda f: f.name,
)
def test_f063_training_with_a_planted_leak_is_refused_by_name(history: Path, tmp_path: Path, planted: Feature) -> None:
    with pytest.raises(Refused, match=planted.name):
        attendance_training.train(history, tmp_path / "model", 1, features=(*ATTENDANCE, planted))

    assert not (tmp_path / "model").exists()


def test_too_little_history_is_refused_with_what_answers_meanwhile(history: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for file in history.iterdir():
        lines = file.read_text().splitlines(keepends=True)
        (short / file.name).write_text("".join(lines[:300]))

    with pytest.raises(BadInput, match="too few to train on"):
        attendance_training.train(short, tmp_path / "model", 1)


def test_a_history_without_appointments_is_refused_with_the_missing_file(tmp_path: Path) -> None:
    (tmp_path / "Patient.ndjson").write_text("")

    with pytest.raises(BadInput, match=r"Appointment\.ndjson"):
        attendance_training.train(tmp_path, tmp_path / "model", 1)


def test_a_broken_line_is_named(history: Path, tmp_path: Path) -> None:
    for file in history.iterdir():
        (tmp_path / file.name).write_text(file.read_text())
    with (tmp_path / "Appointment.ndjson").open("a") as out:
        out.write("{half a line\n")

    with pytest.raises(BadInput, match=r"Appointment\.ndjson line \d+"):
        attendance_training.train(tmp_path, tmp_path / "model", 1)
