"""What journey, the board and a site's people see of forecasts, through the room's web door."""

import asyncio
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.errors import BadInput, Refused
from arcuate.kernel.fhir import types
from arcuate.kernel.settings import SiteSettings

Json = dict[str, Any]
Open = Callable[..., Any]


def extension(element: Json, name: str) -> Json:
    return next(e for e in element["extension"] if e["url"] == f"urn:arcuate:ext:{name}")


def missing(risk: Json) -> list[str]:
    return [e["valueString"] for e in risk["extension"] if e["url"] == "urn:arcuate:ext:missing"]


def chance(risk: Json, outcome: str = "no-show") -> Json:
    return next(p for p in risk["prediction"] if p["outcome"]["coding"][0]["code"] == outcome)


class Slow:
    """A model that takes its time for each answer."""

    def __init__(self, model: Any, seconds: float) -> None:
        self.name, self._model, self._seconds = model.name, model, seconds

    def forecast(self, moment: Any) -> Any:
        time.sleep(self._seconds)
        return self._model.forecast(moment)


async def test_f061_without_a_model_the_sites_rate_answers_and_is_marked(
    open_desk: Open, people: Any, tmp_path: Path
) -> None:
    desk = await open_desk(tmp_path / "no-models")
    risk = await desk.attendance(people.booking(), people.patient(), people.order())

    assert extension(risk, "confidence")["valueCode"] == "fallback"
    assert float(chance(risk)["probabilityDecimal"]) == 0.08
    assert extension(risk, "model-away")["valueCode"] == "absent"
    assert risk["note"][0]["text"].startswith("The site's rate: There is no attendance model")
    assert desk.house.rooms["scheduling"].ready() is None
    types.validate(risk)


async def test_f061_a_changed_model_is_not_used(open_desk: Open, people: Any, models: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models, tmp_path / "models")
    with (copy / "attendance" / "calibration.json").open("a") as out:
        out.write(" ")
    desk = await open_desk(copy)
    risk = await desk.attendance(people.booking(), people.patient())

    assert extension(risk, "confidence")["valueCode"] == "fallback"
    status = (await desk.http.get("/scheduling/status")).json()
    assert "was changed after training" in status["models"]["attendance"]["reason"]


async def test_f061_a_slow_model_is_answered_for_within_its_limit_and_the_flow_goes_on(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models, limit_s=0.2)
    model = desk.room.attendance.model

    desk.room.attendance.model = Slow(model, 1.0)
    began = time.monotonic()
    risks = [await desk.attendance(people.booking(), people.patient()) for _ in range(3)]

    assert time.monotonic() - began < 2.5
    assert {extension(r, "confidence")["valueCode"] for r in risks} == {"fallback"}
    assert {extension(r, "model-away")["valueCode"] for r in risks} == {"silent"}
    assert "did not answer within 200 ms" in risks[0]["note"][0]["text"]


async def test_many_bookings_at_once_wait_for_their_turn_and_all_get_the_models_answer(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models, limit_s=0.8)
    model = desk.room.attendance.model

    desk.room.attendance.model = Slow(model, 0.1)
    risks = await asyncio.gather(*(desk.attendance(people.booking(), people.patient()) for _ in range(20)))

    assert "fallback" not in {extension(risk, "confidence")["valueCode"] for risk in risks}


async def test_f061_a_failing_model_gives_one_alert_and_one_when_it_answers_again(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models)
    model = desk.room.attendance.model
    told: list[str] = []

    class Log:
        def error(self, event: str, **_: Any) -> None:
            told.append(event)

        def info(self, event: str, **_: Any) -> None:
            told.append(event)

    class Broken:
        name = model.name

        def forecast(self, moment: Any) -> Any:
            raise ArithmeticError("no")

    desk.room.attendance._log = Log()
    desk.room.attendance.model = Broken()
    first = await desk.attendance(people.booking(), people.patient())
    await desk.attendance(people.booking(), people.patient())
    desk.room.attendance.model = model
    later = await desk.attendance(people.booking(), people.patient(), people.order())

    assert extension(first, "confidence")["valueCode"] == "fallback"
    assert extension(later, "confidence")["valueCode"] == "usual"
    assert told == ["model does not answer", "model answers again"]


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("birth", "birth date"), ("patient", "birth date"), ("patient", "the patient's telephone entry"), ("order", "the exam"),
        ("order", "priority of the order"), ("created", "day of booking"), ("minutes", "minutes of the slot"),
    ],
)  # fmt: skip
async def test_f060_a_missing_input_lowers_the_confidence_and_is_named(
    open_desk: Open, people: Any, models: Path, left_out: str, named: str
) -> None:
    booking = people.booking()
    if left_out == "created":
        del booking["created"]
    if left_out == "minutes":
        del booking["minutesDuration"], booking["end"]
    given = [booking]
    given += [] if left_out == "patient" else [people.patient(birth=None if left_out == "birth" else "1990-04-02")]
    given += [] if left_out == "order" else [people.order()]
    risk = await (await open_desk(models)).attendance(*given)

    assert extension(risk, "confidence")["valueCode"] == "low"
    assert named in missing(risk)
    types.validate(risk)


async def test_f060_an_exam_and_scanner_never_seen_lower_the_confidence_of_waits(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models)
    booking = people.booking()
    booking["participant"][1]["actor"] = {"reference": "Location/new", "display": "MR9"}
    found = await desk.wait(booking, people.patient(), people.order(code="NEW", words="MRI of something new"))

    assert extension(found["wait"], "confidence")["valueCode"] == "low"
    assert missing(found["wait"]) == ["this exam (never seen in training)", "this scanner (never seen in training)"]


async def test_f060_outside_the_training_range_the_sites_rate_answers_with_the_input_named(
    open_desk: Open, people: Any, models: Path
) -> None:
    risk = await (await open_desk(models)).attendance(people.booking(lead_days=2000), people.patient(), people.order())

    assert extension(risk, "confidence")["valueCode"] == "fallback"
    assert "day of booking (2000, trained on" in risk["note"][0]["text"]
    assert not [e for e in risk["extension"] if e["url"] == "urn:arcuate:ext:model-away"]


async def test_a_forecast_states_chance_interval_like_visits_reasons_and_model(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models)
    past = [people.past(n) for n in (1, 2, 3)]
    risk = await desk.attendance(people.booking(lead_days=60), people.patient(phone=False), people.order(), *past)
    calm = await desk.attendance(
        people.booking(lead_days=3), people.patient(), people.order(), *[people.past(n, "fulfilled") for n in (1, 2, 3)]
    )

    made = chance(risk)
    interval = extension(made, "interval")["valueRange"]
    assert float(interval["low"]["value"]) < 100 * float(made["probabilityDecimal"]) < float(interval["high"]["value"])
    assert float(made["probabilityDecimal"]) > 2 * float(chance(calm)["probabilityDecimal"])
    assert "visits with like chances were missed" in made["rationale"]
    assert risk["note"][0]["text"].startswith("may not come: ")
    assert any("missed 3 of the last 3 visits (+" in note["text"] for note in risk["note"])
    assert any("no telephone number on file (+" in note["text"] for note in risk["note"])
    model = {e["url"]: e for e in extension(risk, "model")["extension"]}
    assert len(model["sha256"]["valueString"]) == 64
    assert model["synthetic"]["valueBoolean"] is True
    assert risk["basis"] == [{"reference": "Appointment/asked"}]
    types.validate(risk)


async def test_other_peoples_visits_in_the_bundle_change_nothing(open_desk: Open, people: Any, models: Path) -> None:
    desk = await open_desk(models)
    alone = await desk.attendance(people.booking(), people.patient(), people.order())
    desk.clock.advance(0.001)
    among = await desk.attendance(
        people.booking(), people.patient(), people.order(), *[people.past(n, patient_id="q") for n in (1, 2)]
    )

    assert chance(among)["probabilityDecimal"] == chance(alone)["probabilityDecimal"]


async def test_a_visit_that_is_over_gets_no_forecast(open_desk: Open, people: Any, models: Path) -> None:
    desk = await open_desk(models)
    with pytest.raises(Refused, match="no longer open: fulfilled"):
        await desk.attendance(people.booking(status="fulfilled"), people.patient())


@pytest.mark.parametrize("path", ["start", "id", "participant"])
async def test_an_appointment_that_nobody_could_answer_for_is_refused_with_the_element(
    open_desk: Open, people: Any, models: Path, path: str
) -> None:
    booking = people.booking()
    del booking[path]

    with pytest.raises(BadInput, match=f"Appointment.{path}"):
        await (await open_desk(models)).attendance(booking)


async def test_wait_and_duration_never_cross_and_name_their_appointment(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models)
    start = people.now + timedelta(hours=2)
    others = [
        people.appointment(
            f"d{i}", f"q{i}", start - timedelta(minutes=35 * (i + 1)), created=people.now - timedelta(days=9)
        )
        for i in range(3)
    ]
    found = await desk.wait(people.booking(start), people.patient(), people.order(), *others)

    assert set(found) == {"wait", "duration"}
    for observation in found.values():
        minutes = [float(c["valueQuantity"]["value"]) for c in observation["component"][:3]]
        assert minutes == sorted(minutes)
        assert observation["focus"] == [{"reference": "Appointment/asked"}]
        types.validate(observation)


async def test_somebody_who_is_here_never_waits_less_than_so_far(open_desk: Open, people: Any, models: Path) -> None:
    desk = await open_desk(models)
    arrived = {"status": "arrived", "meta": {"lastUpdated": people.stamp(people.now - timedelta(minutes=50))}}
    found = await desk.wait(
        people.booking(people.now - timedelta(minutes=20), **arrived), people.patient(), people.order()
    )
    by_code = {c["code"]["coding"][0]["code"]: float(c["valueQuantity"]["value"]) for c in found["wait"]["component"]}

    assert by_code["waited"] == 50
    assert by_code["p10"] >= 50


async def test_status_warns_until_a_model_was_trained_on_this_sites_visits(
    open_desk: Open, models: Path, history: Path, tmp_path: Path
) -> None:
    from arcuate.scheduling import attendance_training

    own = shutil.copytree(models, tmp_path / "models")
    attendance_training.train(history, own / "attendance", 1, site="Our hospital", synthetic=False, draws=5)
    desk = await open_desk(own, SiteSettings(time_zone="Europe/Zurich", site_name="Our hospital"))
    status = (await desk.http.get("/scheduling/status")).json()["models"]

    assert status["attendance"]["trained_here"] is True
    assert status["attendance"]["warning"] == ""
    assert status["waiting"]["trained_here"] is False
    assert status["waiting"]["warning"].startswith("Trained on invented visits")


async def test_many_questions_at_once_are_all_answered(open_desk: Open, people: Any, models: Path) -> None:
    desk = await open_desk(models)
    risks = await asyncio.gather(
        *(desk.attendance(people.booking(), people.patient(), people.order()) for _ in range(20))
    )

    assert len({str(chance(r)["probabilityDecimal"]) for r in risks}) == 1
