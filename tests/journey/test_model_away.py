"""A forecast answered by the fallback because the model was away is renewed once the model answers again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_world import house_client, settle

from arcuate.house import House, HouseSettings, open_house
from arcuate.journey.acts import InHand
from arcuate.journey.asking import pause_s
from arcuate.journey.table import load_table
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.codes import accession_identifier, identifier, reference
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings
from arcuate.scheduling.settings import SchedulingSettings

SITE = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
MODELS = Path(__file__).parents[2] / "models"
AWAY = "urn:arcuate:ext:model-away"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 17, 9, tzinfo=UTC))


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path / "data", models_dir=MODELS)
    scheduling = {"scheduling": SchedulingSettings(limit_s=20.0)}
    rooms = ["access", "record", "journey", "scheduling"]
    async with open_house(settings, SITE, rooms=rooms, clock=clock, room_settings=scheduling) as house:
        yield house


@pytest.fixture
def http(house: House) -> httpx.AsyncClient:
    return house_client(house)


class Counted:
    """The shipped model behind a switch; counts how often it is asked."""

    def __init__(self, model: Any) -> None:
        self._model, self.name = model, model.name
        self.asked, self.away = 0, True

    def forecast(self, moment: Any) -> Any:
        self.asked += 1
        if self.away:
            raise ArithmeticError("away")
        return self._model.forecast(moment)


def models_of(house: House) -> tuple[Counted, Counted]:
    """Put the models of attendance and waiting behind switches."""
    desk = house.rooms["scheduling"].app.state.desk
    desk.attendance.model, desk.waiting.model = Counted(desk.attendance.model), Counted(desk.waiting.model)
    return desk.attendance.model, desk.waiting.model


async def book(http: httpx.AsyncClient) -> dict[str, Any]:
    fhir = FhirClient(http)
    patient = await fhir.create({
        "resourceType": "Patient", "identifier": [identifier("urn:arcuate:id:patient:SYNTH", "0001", "MR")], "birthDate": "1990-04-02",
        "name": [{"family": "Synthetic-0001"}], "telecom": [{"system": "phone", "value": "0"}],
    })  # fmt: skip
    order = await fhir.create({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [accession_identifier("A1")],
        "subject": reference("Patient", patient["id"]), "code": {"text": "MRI brain without contrast"}, "priority": "routine",
    })  # fmt: skip
    return await fhir.create({
        "resourceType": "Appointment", "status": "booked", "start": "2026-03-24T09:00:00Z", "end": "2026-03-24T09:30:00Z",
        "minutesDuration": 30, "created": "2026-03-12T08:00:00Z", "basedOn": [reference("ServiceRequest", order["id"])],
        "participant": [
            {"actor": reference("Patient", patient["id"]), "status": "accepted"},
            {"actor": {"display": "MR1"}, "status": "accepted"},
        ],
    })  # fmt: skip


async def risk(http: httpx.AsyncClient) -> dict[str, Any]:
    [found] = await FhirClient(http).search("RiskAssessment")
    return dict(found)


def codes(resource: dict[str, Any]) -> dict[str, str]:
    return {e["url"].removeprefix("urn:arcuate:ext:"): e.get("valueCode", "") for e in resource["extension"]}


async def test_f061_a_fallback_gives_way_to_the_models_answer_a_minute_after_it_is_back(
    house: House, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    attendance, waiting = models_of(house)
    await book(http)
    await settle(house)
    first = await risk(http)
    assert (codes(first)["confidence"], codes(first)["model-away"]) == ("fallback", "silent")

    attendance.away = waiting.away = False
    clock.advance(59)
    await settle(house)
    assert (await risk(http))["meta"]["versionId"] == first["meta"]["versionId"]

    clock.advance(2)
    await settle(house)
    later = await risk(http)
    assert codes(later)["confidence"] != "fallback"
    assert "model-away" not in codes(later)
    assert later["id"] == first["id"]
    observed = await FhirClient(http).search("Observation")
    assert len(observed) == 2
    assert not any("model-away" in codes(one) for one in observed)

    clock.advance(3600)
    await settle(house)
    assert (attendance.asked, waiting.asked) == (2, 2)
    [case] = (await http.get("/journey/cases")).json()["cases"]
    notes = [step["note"] for step in case["steps"] if step["stage"] == "attendance"]
    assert notes == ["The site's rate is shown: no model answers", "Chance of attendance predicted"]
    assert "attendance" not in [one["ask"] for one in case["silent"]]


@pytest.mark.parametrize(("code", "times_a_day"), [("silent", (96, 101)), ("absent", (7, 9))])
def test_a_model_that_stays_away_is_asked_ever_more_rarely(code: str, times_a_day: tuple[int, int]) -> None:
    answer = {"entry": [{"resource": {"extension": [{"url": AWAY, "valueCode": code}]}}]}
    ask = next(one for one in load_table().asks if one.name == "attendance")
    asked_for, times = timedelta(), 0
    while asked_for < timedelta(days=1):
        asked_for += timedelta(seconds=pause_s(ask, answer, "", asked_for))
        times += 1

    assert times_a_day[0] <= times <= times_a_day[1]


@pytest.mark.long
async def test_what_the_visit_itself_lacks_is_not_asked_again(
    house: House, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    attendance, _ = models_of(house)
    attendance.away = False
    booking = await book(http)
    await settle(house)
    before = attendance.asked
    created = {**booking, "created": "2019-01-01T08:00:00Z"}  # far outside what the model was trained on
    await FhirClient(http).update(created, booking["meta"]["versionId"])
    await settle(house)
    found = codes(await risk(http))
    assert found["confidence"] == "fallback"
    assert "model-away" not in found

    clock.advance(7200)
    await settle(house)
    assert attendance.asked == before + 1


@pytest.mark.long
async def test_a_worker_that_stopped_after_writing_the_new_answer_writes_it_once(
    house: House, http: httpx.AsyncClient, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    attendance, waiting = models_of(house)
    await book(http)
    await settle(house)
    attendance.away = waiting.away = False
    write = InHand.write
    failed: list[bool] = []

    async def dies_once(self: InHand, fn: Any) -> None:
        if not failed:
            failed.append(True)
            raise OSError("the worker stopped")
        await write(self, fn)

    clock.advance(61)
    monkeypatch.setattr(InHand, "write", dies_once)
    await settle(house)
    for _ in range(5):
        clock.advance(30)
        await settle(house)

    assert failed
    assert (await risk(http))["meta"]["versionId"] == "2"
    assert codes(await risk(http))["confidence"] != "fallback"
