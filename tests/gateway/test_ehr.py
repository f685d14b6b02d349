"""The EHR is asked for what rules need: found by number with assigner, written once with its date, and what is not known is said."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.gateway.conftest import START, Site, open_site, prepare
from tests.gateway.messages import booking, order
from tests.gateway.other_server import OtherServer, other_server, patient_of

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import Json

LOINC = "http://loinc.org"


@pytest.fixture
async def ehr(tmp_path: Path) -> AsyncIterator[OtherServer]:
    await prepare(tmp_path / "ehr", ("access", "record", "gateway"))
    async with other_server(tmp_path / "ehr", ManualClock(START)) as server:
        yield server


@pytest.fixture
async def asking(tmp_path: Path, ehr: OtherServer) -> AsyncIterator[Site]:
    settings = GatewaySettings(
        port=0, ehr_url=f"{ehr.url}/fhir", ehr_client_id="arcuate-at-hosp", ehr_timeout_s=5,
        identifier_systems={"http://hosp.example/mrn": "urn:arcuate:id:patient:HOSP"},
    )  # fmt: skip
    async with open_site(tmp_path / "data", settings) as site:
        ehr.keys = lambda: known
        known: Json = await site.get("/gateway/ehr/jwks")
        yield site


async def settled(site: Site) -> None:
    await site.settle()
    assert site.parts.asking is not None
    await site.parts.asking.drain()
    await site.settle()


def allergy_of(whose: Json) -> Json:
    active = {
        "coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]
    }
    return {
        "resourceType": "AllergyIntolerance",
        "patient": whose,
        "code": {"text": "Gadobutrol"},
        "clinicalStatus": active,
    }


async def filled(ehr: OtherServer) -> Json:
    patient = await ehr.fhir.create(patient_of())
    jane = {"reference": f"Patient/{patient['id']}"}
    await ehr.fhir.create(allergy_of(jane))
    for month in range(1, 10):
        value = {
            "value": 20 + month,
            "unit": "mL/min",
            "system": "http://unitsofmeasure.org",
            "code": "mL/min/{1.73_m2}",
        }
        await ehr.fhir.create({
            "resourceType": "Observation", "status": "final", "subject": jane, "code": {"coding": [{"system": LOINC, "code": "98979-8"}]},
            "effectiveDateTime": f"2026-0{month}-01T08:00:00Z", "valueQuantity": value,
        })  # fmt: skip
    return patient


async def known(site: Site) -> dict[str, str]:
    (told,) = await site.find("List")
    return {entry["item"]["type"]: entry["flag"]["coding"][0]["code"] for entry in told["entry"]}


async def test_an_order_brings_what_the_ehr_knows_once_with_its_source_and_date(asking: Site, ehr: OtherServer) -> None:
    patient = await filled(ehr)
    await asking.apply(order())
    await settled(asking)
    ours = await asking.patient("100")
    (allergy,) = await asking.find("AllergyIntolerance", patient=f"Patient/{ours['id']}")
    assert allergy["meta"]["source"].startswith("urn:arcuate:id:job:gateway#ehr-")
    assert (await asking.find("Provenance", target=f"AllergyIntolerance/{allergy['id']}"))[0]["recorded"]
    assert len(await asking.find("Observation")) == 9
    assert set((await known(asking)).values()) == {"answered"}
    asked = len(ehr.asked)
    await asking.apply(order("ACC2", placer="P2", control_id="2"))  # while the answers are fresh nobody is asked
    await settled(asking)
    assert len(ehr.asked) == asked
    assert all(call.startswith("POST") or "100" not in call for call in ehr.asked)
    # Once more before the visit: what the EHR no longer lists goes, what is the same is not written again.
    await asking.apply(booking(start="20260320110000"))
    (mine,) = await ehr.fhir.search("AllergyIntolerance", {"patient": f"Patient/{patient['id']}"})
    await ehr.fhir.delete("AllergyIntolerance", mine["id"])
    asking.clock.advance(timedelta(days=2, hours=2).total_seconds())
    await settled(asking)
    assert len(ehr.asked) > asked
    assert await asking.find("AllergyIntolerance") == []
    assert {one["meta"]["versionId"] for one in await asking.find("Observation")} == {"1"}


@pytest.mark.long
async def test_what_a_message_has_told_stands_once(asking: Site, ehr: OtherServer) -> None:
    await filled(ehr)
    lab = "OBX|1|NM|98979-8^eGFR^LN||21|mL/min/{1.73_m2}^^UCUM|||||F|||20260101090000+0100\r"
    await asking.apply(order(more=lab))
    await settled(asking)
    values = await asking.find("Observation", code=f"{LOINC}|98979-8")
    assert len(values) == 9


async def test_a_patient_is_never_found_by_name_and_a_wrong_one_is_refused_and_shown(
    asking: Site, ehr: OtherServer
) -> None:
    await ehr.fhir.create(patient_of("100", "http://elsewhere.example/mrn"))
    await asking.apply(order())
    await settled(asking)
    assert set((await known(asking)).values()) == {"no-such-patient"}
    await ehr.fhir.create(patient_of("200", name=[{"family": "Other"}], birthDate="1950-05-05"))
    await asking.apply(order("ACC2", "200", placer="P2", control_id="2"))
    await settled(asking)
    errors = await asking.get("/gateway/errors")
    assert [one["cause"] for one in errors["outgoing"]] == ["answer of the EHR refused"]
    assert await asking.find("AllergyIntolerance") == []


async def test_an_answer_about_somebody_else_is_refused_whole(asking: Site, ehr: OtherServer) -> None:
    await filled(ehr)

    def fault(request: Request, _body: bytes) -> Response | None:
        if request.url.path != "/fhir/AllergyIntolerance/_search":
            return None
        entries = [
            {
                "resource": {
                    "resourceType": "AllergyIntolerance",
                    "id": "x",
                    "patient": {"reference": "Patient/somebody"},
                }
            }
        ]
        return JSONResponse({"resourceType": "Bundle", "type": "searchset", "entry": entries})

    ehr.fault = fault
    await asking.apply(order())
    await settled(asking)
    assert (await known(asking))["AllergyIntolerance"] == "refused"
    assert await asking.find("AllergyIntolerance") == []
    assert len(await asking.find("Observation")) == 9
    (shown,) = (await asking.get("/gateway/errors"))["outgoing"]
    assert "allergies" in shown["reason"]
    ehr.fault = lambda _request, _body: None
    answer = await asking.http.post(f"/gateway/errors/{shown['id']}/replay")
    assert answer.status_code == 200
    await settled(asking)
    assert (await known(asking))["AllergyIntolerance"] == "answered"


@pytest.mark.long
async def test_what_the_record_does_not_take_is_refused_by_type_and_the_rest_is_written(
    asking: Site, ehr: OtherServer
) -> None:
    patient = await filled(ehr)

    def fault(request: Request, _body: bytes) -> Response | None:
        if request.url.path != "/fhir/AllergyIntolerance/_search":
            return None
        bad = {
            "resourceType": "AllergyIntolerance",
            "id": "x",
            "patient": {"reference": f"Patient/{patient['id']}"},
        }  # ait-1: no status
        return JSONResponse({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": bad}]})

    ehr.fault = fault
    await asking.apply(order())
    await settled(asking)
    assert (await known(asking))["AllergyIntolerance"] == "refused"
    assert len(await asking.find("Observation")) == 9


LONG = pytest.mark.long
FAULTS = [
    JSONResponse({}, 429, {"Retry-After": "120"}),
    pytest.param(JSONResponse({}, 500), marks=LONG),
    pytest.param(Response("<html>", 200), marks=LONG),
    pytest.param(
        JSONResponse({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "exception"}]}, 503),
        marks=LONG,
    ),
]


@pytest.mark.parametrize("answer", FAULTS)
async def test_an_ehr_that_does_not_answer_is_one_cause_is_left_alone_and_asked_again(
    asking: Site, ehr: OtherServer, answer: Response
) -> None:
    await filled(ehr)
    calls = []

    def fault(request: Request, _body: bytes) -> Response | None:
        calls.append(request.url.path)
        return answer

    ehr.fault = fault
    await asking.apply(order())
    await settled(asking)
    assert set((await known(asking)).values()) == {"silent"}
    line = (await asking.get("/gateway/connections"))["ehr"]
    assert (line["state"], line["down_since"] is not None) == ("does not answer", True)
    before = len(calls)
    await settled(asking)
    assert len(calls) == before
    ehr.fault = lambda _request, _body: None
    asking.clock.advance(200)
    await settled(asking)
    assert set((await known(asking)).values()) == {"answered"}
    assert (await asking.get("/gateway/connections"))["ehr"]["state"] == "up"


async def test_without_a_setting_nobody_is_asked(site: Site) -> None:
    assert site.parts.asking is None
    assert (await site.http.get("/gateway/ehr/jwks")).status_code == 404
