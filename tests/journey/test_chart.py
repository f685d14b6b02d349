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
from arcuate.kernel.codes import accession_identifier, identifier, reference
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
