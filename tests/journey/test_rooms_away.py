"""Every room may be away: the case goes on, says what is missing, and is repaired when the room returns."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_world import house_client, settle

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.codes import accession_identifier, identifier, reference, study_uid_identifier
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings

SITE = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
MR = "urn:arcuate:id:patient:SYNTH"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 17, 9, tzinfo=UTC))


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path / "data")
    async with open_house(settings, SITE, rooms=["access", "record", "journey"], clock=clock) as house:
        yield house


@pytest.fixture
def http(house: House) -> httpx.AsyncClient:
    return house_client(house)


async def case(http: httpx.AsyncClient) -> dict[str, Any]:
    [found] = (await http.get("/journey/cases")).json()["cases"]
    return dict(found)


async def order(fhir: FhirClient) -> tuple[dict[str, Any], dict[str, Any]]:
    patient = await fhir.create(
        {
            "resourceType": "Patient",
            "identifier": [identifier(MR, "0001", "MR")],
            "name": [{"family": "Synthetic-0001"}],
        }
    )
    made = await fhir.create({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [accession_identifier("A1")],
        "subject": reference("Patient", patient["id"]), "code": {"text": "MRI brain"},
    })  # fmt: skip
    return patient, made


def study(number: str, accession: str = "A1") -> dict[str, Any]:
    return {
        "resourceType": "ImagingStudy", "status": "available",
        "identifier": [study_uid_identifier("1.2.3"), accession_identifier(accession)],
        "contained": [{"resourceType": "Patient", "id": "said", "identifier": [identifier(MR, number, "MR")]}],
        "subject": {"reference": "#said"},
    }  # fmt: skip


async def test_a_list_of_absurd_length_is_a_list(house: House, http: httpx.AsyncClient) -> None:
    await order(FhirClient(http))
    await settle(house)
    for limit, found in ((-35797197108707740031647744, 0), (0, 0), (10**40, 1)):
        answer = await http.get(f"/journey/cases?limit={limit}")
        assert answer.status_code == 200
        assert len(answer.json()["cases"]) == found


async def test_an_order_goes_on_unchecked_after_the_limit_and_says_so(
    house: House, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    await order(FhirClient(http))
    await settle(house)
    assert (await case(http))["stage"] == "ordered"

    clock.advance(61)
    await settle(house)

    found = await case(http)
    assert found["stage"] == "checked"
    assert any("protocoling does not answer" in step["note"] for step in found["steps"])


async def test_without_images_for_ten_minutes_the_case_still_gets_a_reading_task(
    house: House, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    fhir = FhirClient(http)
    _, made = await order(fhir)
    await fhir.create({
        "resourceType": "Procedure", "status": "completed", "identifier": [accession_identifier("A1")], "subject": made["subject"],
        "basedOn": [reference("ServiceRequest", made["id"])],
    })  # fmt: skip
    await settle(house)
    assert (await case(http))["stage"] == "scanned"
    assert not await fhir.search("Task", {"focus": f"ServiceRequest/{made['id']}"})

    clock.advance(601)
    await settle(house)

    assert (await case(http))["stage"] == "quantified"
    [task] = await fhir.search("Task", {"focus": f"ServiceRequest/{made['id']}"})
    assert task["status"] == "ready"
    assert any("shared list" in step["note"] for step in (await case(http))["steps"])


async def test_f028_images_of_an_unknown_accession_wait_and_join_by_themselves(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    waiting = await fhir.create(study("0001"))
    await settle(house)
    assert (await case(http))["waits_for"] == "the order"

    patient, made = await order(fhir)
    await settle(house)

    joined = await fhir.read("ImagingStudy", waiting["id"])
    assert joined["subject"] == reference("Patient", patient["id"])
    assert joined["basedOn"] == [reference("ServiceRequest", made["id"])]
    assert (await case(http))["stage"] == "scanned"


async def test_f051_images_of_another_patient_are_held_until_a_person_releases_them(
    house: House, http: httpx.AsyncClient
) -> None:
    fhir = FhirClient(http)
    await order(fhir)
    held = await fhir.create(study("0002"))
    await settle(house)

    found = await case(http)
    assert found["stage"] == "parked"
    assert "identity conflict" in found["held"]
    assert (await fhir.read("ImagingStudy", held["id"]))["subject"] == {"reference": "#said"}

    without_reason = await http.post(f"/journey/cases/{found['id']}/release", json={})
    released = await http.post(
        f"/journey/cases/{found['id']}/release", json={"reason": "Number mistyped at the scanner, same person"}
    )
    await settle(house)

    assert without_reason.status_code == 400
    assert released.status_code == 204
    assert (await case(http))["stage"] == "scanned"
    assert any("Released by Tester" in step["note"] for step in (await case(http))["steps"])


async def test_a_missed_visit_expires_unless_it_is_booked_again(
    house: House, http: httpx.AsyncClient, clock: ManualClock
) -> None:
    fhir = FhirClient(http)
    patient, made = await order(fhir)

    def visit(status: str, start: str) -> dict[str, Any]:
        return {
            "resourceType": "Appointment", "status": status, "start": start, "end": start.replace(":00:00", ":45:00"),
            "basedOn": [reference("ServiceRequest", made["id"])],
            "participant": [{"actor": reference("Patient", patient["id"]), "status": "accepted"}],
        }  # fmt: skip

    missed = await fhir.create(visit("noshow", "2026-03-17T09:00:00Z"))
    await settle(house)
    clock.advance(3600)
    rebooked = await fhir.create(visit("booked", "2026-03-19T09:00:00Z"))
    await settle(house)
    clock.advance(90_000)
    await settle(house)
    assert (await case(http))["stage"] == "booked"

    await fhir.update({**rebooked, "status": "noshow"}, rebooked["meta"]["versionId"])
    await settle(house)
    assert (await case(http))["stage"] != "expired"
    clock.advance(90_000)
    await settle(house)

    assert (await case(http))["stage"] == "expired"
    assert missed["status"] == "noshow"
