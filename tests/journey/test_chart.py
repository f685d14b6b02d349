"""What the rules need of the chart is asked of the record and goes along with the order: allergies, conditions, devices, medicines."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_world import house_client, settle

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.codes import CS_KNOWN, HISTORY_TAG, accession_identifier, concept, identifier, reference
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings

SITE = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
START = datetime(2026, 3, 17, 9, tzinfo=UTC)
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path / "data")
    rooms = ["access", "record", "protocoling", "journey"]
    async with open_house(settings, SITE, rooms=rooms, clock=ManualClock(START)) as house:
        yield house


@pytest.fixture
def http(house: House) -> httpx.AsyncClient:
    return house_client(house)


async def order(fhir: FhirClient, exam: str, indication: str) -> dict[str, Any]:
    """Create an order; returns the reference of its patient."""
    patient = await fhir.create({
        "resourceType": "Patient", "identifier": [identifier("urn:arcuate:id:patient:SYNTH", "1", "MR")], "birthDate": "1950-01-02",
    })  # fmt: skip
    await fhir.create({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [accession_identifier("C1")],
        "subject": reference("Patient", patient["id"]), "code": {"text": exam}, "reasonCode": [{"text": indication}],
        "priority": "routine",
    })  # fmt: skip
    return reference("Patient", patient["id"])


async def flags(fhir: FhirClient) -> set[str]:
    found = await fhir.search("DetectedIssue", {"status": "preliminary,final,registered"})
    return {flag["code"]["coding"][0]["code"] for flag in found}


async def test_a_medicine_that_the_record_learns_of_changes_what_the_check_says(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    patient = await order(fhir, "CT head without contrast", "Headache since 2 days after a fall with head trauma")
    await settle(house)
    assert "priority_mismatch" not in await flags(fhir)

    await fhir.create({
        "resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": patient,
        "medicationCodeableConcept": {"text": "Apixaban 5 mg"},
    })  # fmt: skip
    await settle(house)
    assert "priority_mismatch" in await flags(fhir)


async def test_a_flag_that_a_later_check_finds_again_keeps_its_time_and_its_version(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    await order(fhir, "MRI brain without contrast", "Memory loss")
    await settle(house)
    before = await fhir.search("DetectedIssue")
    assert before

    house.contexts["journey"].clock.advance(60)  # type: ignore[attr-defined]
    (placed,) = await fhir.search("ServiceRequest")
    await fhir.update({**placed, "note": [{"text": "Called the ward"}]})
    await settle(house)

    (case,) = (await http.get("/journey/cases")).json()["cases"]
    assert sum(step["stage"] == "check" for step in case["steps"]) == 2
    assert before == await fhir.search("DetectedIssue")


async def test_an_implant_of_the_devices_or_the_problem_list_is_seen_by_the_check_of_an_mri(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    patient = await order(fhir, "MRI brain without contrast", "Memory loss")
    await settle(house)
    before = await flags(fhir)

    await fhir.create({
        "resourceType": "Device", "status": "active", "patient": patient, "type": {"text": "Cardiac pacemaker"},
    })  # fmt: skip
    await settle(house)
    assert await flags(fhir) - before


async def test_what_was_taken_over_from_the_past_begins_no_case_and_is_read_by_a_live_one(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    patient = await order(fhir, "CT head without contrast", "Headache since 2 days after a fall with head trauma")
    past = {"meta": {"tag": [HISTORY_TAG]}, "subject": patient, "intent": "order"}
    await fhir.create({
        **past, "resourceType": "ServiceRequest", "status": "completed", "identifier": [accession_identifier("OLD")], "code": {"text": "MR Brain"},
    })  # fmt: skip
    await fhir.create({
        **past, "resourceType": "MedicationRequest", "status": "active", "medicationCodeableConcept": {"text": "Apixaban 5 mg"},
    })  # fmt: skip
    await fhir.create({
        "resourceType": "ImagingStudy", "status": "available", "subject": patient,
        "identifier": [accession_identifier("THERE"), identifier("urn:arcuate:id:elsewhere:ehr", "ImagingStudy/1")],
    })  # fmt: skip
    await settle(house)
    cases = (await http.get("/journey/cases")).json()["cases"]
    assert [case["accession"] for case in cases] == ["C1"]
    assert "priority_mismatch" in await flags(fhir)


async def test_what_the_ehr_does_not_answer_is_not_known_in_the_check_and_asked_anew_when_it_does(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    patient = await order(fhir, "CT head with contrast", "Known meningioma, follow up")
    told = {
        "resourceType": "List", "identifier": [identifier("urn:arcuate:id:ehr-answer", "1")], "status": "current", "mode": "snapshot",
        "subject": patient,
    }  # fmt: skip

    def entry(state: str) -> dict[str, Any]:
        return {"flag": concept(CS_KNOWN, state), "item": {"type": "AllergyIntolerance", "display": "allergies"}}

    made = await fhir.create({**told, "entry": [entry("silent")]})
    await settle(house)
    sentences = [
        str(flag.get("detail", ""))
        for flag in await fhir.search("DetectedIssue", {"status": "preliminary,final,registered"})
    ]
    assert any("allergies" in sentence for sentence in sentences), sentences
    await fhir.update({**made, "entry": [entry("answered")]}, if_match=made["meta"]["versionId"])
    await settle(house)
    sentences = [
        str(flag.get("detail", ""))
        for flag in await fhir.search("DetectedIssue", {"status": "preliminary,final,registered"})
    ]
    assert not any("allergies" in sentence for sentence in sentences), sentences
