"""The journeys that departments really have, through the real doors: messages come twice, late, in the wrong order, for the wrong person."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hl7_messages import booking, final, hl7, merge, msh, obr, orc, order, pid, unmerge
from journey_world import World
from small_series import write_small_series

from arcuate.kernel.codes import SYSTEM_ACCESSION
from arcuate.kernel.hl7v2.mllp import FrameReader, frame

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MOMENT_S = 0.5


def patient(n: int) -> str:
    return pid(f"D{n:03}", f"Synthetic-{n:04}^Bea", f"19{n % 80 + 10}0203")


def has_reached(stage: str) -> Any:
    return lambda case: any(step["kind"] == "stage" and step["stage"] == stage for step in case["steps"])


async def request_of(world: World, accession: str) -> dict[str, Any]:
    found = await world.fhir.one("ServiceRequest", {"identifier": f"{SYSTEM_ACCESSION}|{accession}"})
    assert found is not None
    return found


async def errors(world: World) -> list[dict[str, Any]]:
    return list((await world.http.get("/gateway/errors")).json()["items"])


async def error_about(world: World, accession: str) -> dict[str, Any]:
    """Return the parked message about an order, waiting for it."""
    async with asyncio.timeout(60):
        while True:
            for item in await errors(world):
                if any(accession in one for one in item["orders"]) or accession in str(item.get("control_id", "")):
                    return item
                body = (await world.http.get(f"/gateway/errors/{item['id']}")).json()
                if accession in body["text"]:
                    return item
            await asyncio.sleep(_MOMENT_S)


async def tasks(world: World, case: dict[str, Any], code: str = "read") -> list[dict[str, Any]]:
    found = await world.fhir.search("Task", {"focus": case["order"]})
    return [task for task in found if task["code"]["coding"][0]["code"] == code]


async def series(world: World, storescu: str, folder: Path, accession: str, n: int, **more: Any) -> str:
    """Send a short series of patient `n`; returns its study UID."""
    who = {"number": f"D{n:03}", "name": f"Synthetic-{n:04}^Bea", "birth": f"19{n % 80 + 10}0203"} | more
    uid = write_small_series(folder, accession, **who)
    await world.send_images(storescu, folder)
    return uid


async def test_a_merge_in_mid_journey_takes_the_case_along_and_its_undoing_gives_it_back(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    assert await world.send(order("D100", patient=patient(1))) == "AA"
    before = await world.until("D100", "checked")
    assert await world.send(order("D101", patient=patient(2))) == "AA"
    survivor = (await world.until("D101", "checked"))["patient"]

    assert await world.send(merge(patient(2), "D001")) == "AA"
    await world.until_case("D100", lambda case: case["patient"] == survivor)
    # Images that the scanner already has under the new number belong to the order under the old one.
    await series(world, storescu, tmp_path, "D100", 2)
    case = await world.until_case("D100", has_reached("scanned"))
    assert not case["held"]
    assert (await request_of(world, "D100"))["subject"]["reference"] == before["patient"]

    assert await world.send(unmerge(patient(2), patient(1), "D001")) == "AA"
    await world.until_case("D100", lambda case: case["patient"] == before["patient"])
    [study] = await world.fhir.search("ImagingStudy", {"based-on": case["order"]})
    assert study["subject"]["reference"] == before["patient"]


async def test_f026_a_cancellation_before_its_order_ends_the_case_and_nobody_is_booked_or_asked_to_read(
    department: World,
) -> None:
    world = department
    assert await world.send(order("D200", "CA", "CA", message="2", patient=patient(3), at="0955")) == "AA"
    assert await world.send(order("D200", patient=patient(3))) == "AA"

    case = await world.until("D200", "cancelled")
    assert case["waits_for"] == ""
    assert not await tasks(world, case)
    assert not await world.fhir.search("Appointment", {"based-on": case["order"]})


async def test_f054_a_late_series_after_the_final_report_asks_the_reader_to_look_and_leaves_the_report_alone(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    await world.send(order("D300", patient=patient(4)))
    await world.until("D300", "checked")
    uid = await series(world, storescu, tmp_path / "first", "D300", 4)
    await world.until("D300", "drafted")
    await world.send(final("D300", "Normal for age.", patient=patient(4)))
    case = await world.until("D300", "delivered")
    reports = await world.fhir.search("DiagnosticReport", {"based-on": case["order"], "status": "final"})
    assert not await tasks(world, case, "late-images")

    await series(world, storescu, tmp_path / "late", "D300", 4, study_uid=uid)
    case = await world.until_case("D300", lambda case: case["waits_for"].startswith("a reader"))

    assert case["stage"] == "delivered"
    [late] = await tasks(world, case, "late-images")
    assert late["status"] == "ready"
    assert await world.fhir.search("DiagnosticReport", {"based-on": case["order"], "status": "final"}) == reports
    assert [task["status"] for task in await tasks(world, case)] == ["completed"]

    await world.fhir.update({**late, "status": "completed"}, late["meta"]["versionId"])
    await world.until_case("D300", lambda case: case["waits_for"] == "")


async def test_f027_two_accessions_with_one_report_are_both_signed_and_delivered_by_one_message(
    department: World,
) -> None:
    world = department
    for accession in ("D400", "D401"):
        await world.send(order(accession, patient=patient(5)))
        await world.until(accession, "checked")

    await world.send(final("D400", "Head and neck in one report.", patient=patient(5), also=("D401",)))
    first, second = await world.until("D400", "delivered"), await world.until("D401", "delivered")

    [report] = await world.fhir.search("DiagnosticReport", {"based-on": first["order"], "status": "final"})
    assert {one["reference"] for one in report["basedOn"]} == {first["order"], second["order"]}
    assert len([m for m in world.reports.received if "Head and neck in one report." in m]) == 1


async def test_f027_one_order_with_several_accessions_is_a_case_for_each_under_one_number(department: World) -> None:
    world = department
    message = hl7(
        msh("ORM^O01^ORM_O01", "D500", "0950"), patient(6), "PV1|1|O|MRI",
        orc("D500"), obr("D500"), orc("D501"), obr("D501", 2),
    )  # fmt: skip
    assert await world.send(message) == "AA"
    first, second = await world.until("D500", "checked"), await world.until("D501", "checked")
    assert first["id"] != second["id"]
    assert first["patient"] == second["patient"]

    await world.send(order("D501", "CA", "CA", message="2", patient=patient(6), at="0956"))
    await world.until("D501", "cancelled")
    assert (await world.case("D500") or {})["stage"] == "checked"


async def test_f028_images_of_an_unknown_accession_are_listed_as_orphaned_and_join_when_the_order_comes(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    await series(world, storescu, tmp_path, "D600", 7)
    waiting = await world.until_case("D600", lambda case: case["due"] is not None)
    assert waiting["waits_for"] == "the order"
    world.advance(3700)
    lists = {one["name"]: one for one in (await world.http.get("/journey/reconciler")).json()["lists"]}
    assert "D600" in [one["accession"] for one in lists["orphaned"]["items"]]

    await world.send(order("D600", patient=patient(7)))
    case = await world.until_case("D600", has_reached("scanned"))
    assert case["id"] == waiting["id"]
    assert not case["held"]
    [study] = await world.fhir.search("ImagingStudy", {"based-on": case["order"]})
    assert study["subject"]["reference"] == case["patient"]


async def test_f051_images_of_another_patient_are_held_and_when_a_person_keeps_them_out_the_case_goes_on(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    await world.send(order("D700", patient=patient(8)))
    await world.until("D700", "checked")
    await series(world, storescu, tmp_path / "wrong", "D700", 9)
    held = await world.until("D700", "parked")
    assert "identity conflict" in held["held"]
    assert held["late"]
    lists = {one["name"]: one for one in (await world.http.get("/journey/reconciler")).json()["lists"]}
    assert held["id"] in [one["case"] for one in lists["held"]["items"]]

    without_reason = await world.http.post(f"/journey/cases/{held['id']}/keep-out", json={"reason": " "})
    kept_out = await world.http.post(f"/journey/cases/{held['id']}/keep-out", json={"reason": "Wrong worklist entry"})
    assert (without_reason.status_code, kept_out.status_code) == (400, 204)
    await world.until("D700", "checked")
    assert not await world.fhir.search("ImagingStudy", {"based-on": held["order"]})

    await series(world, storescu, tmp_path / "right", "D700", 8)
    case = await world.until_case("D700", has_reached("scanned"))
    assert not case["held"]
    assert len(await world.fhir.search("ImagingStudy", {"based-on": case["order"]})) == 1


async def test_f025_an_order_message_of_another_patient_changes_nothing_and_waits_for_a_person(
    department: World,
) -> None:
    world = department
    await world.send(order("D710", patient=patient(10)))
    case = await world.until("D710", "checked")
    request = await request_of(world, "D710")

    assert await world.send(order("D710", "XO", message="2", patient=patient(11), at="1001")) == "AA"
    parked = await error_about(world, "D710")

    assert parked["cause"] == "identity conflict"
    assert await request_of(world, "D710") == request
    assert (await world.case("D710") or {})["patient"] == case["patient"]
    lists = {one["name"]: one for one in (await world.http.get("/journey/reconciler")).json()["lists"]}
    assert parked["id"] in [one["item"] for one in lists["not_filed"]["items"]]
    about = (await world.http.get(f"/journey/cases/{case['id']}")).json()["about"]
    assert [(one["item"], one["cause"]) for one in about] == [(parked["id"], "identity conflict")]


async def test_a_missed_visit_that_is_booked_again_goes_on(department: World) -> None:
    world = department
    who = patient(12)
    await world.send(order("D800", patient=who))
    await world.until("D800", "checked")
    await world.send(booking("S12", "V800", "D800", "202603181030", "Booked", who))
    await world.until("D800", "booked")
    await world.send(booking("S26", "V800", "D800", "202603181030", "Noshow", who, at="1130"))
    await world.until_case("D800", lambda case: any("did not come" in s["note"] for s in case["steps"]))

    await world.send(booking("S12", "V801", "D800", "202603251030", "Booked", who, at="1200"))
    await world.until("D800", "booked")
    world.advance(90_000)
    await asyncio.sleep(_MOMENT_S)
    case = await world.until("D800", "booked")
    assert case["due"] == "2026-03-25T12:15:00+00:00"

    await world.send(booking("S14", "V801", "D800", "202603251030", "Arrived", who, at="1300"))
    await world.until("D800", "arrived")


async def test_f001_an_order_in_fragments_on_one_connection_with_another_behind_it_is_two_cases(
    department: World,
) -> None:
    world = department
    stream = frame(order("D900", patient=patient(13)).encode()) + frame(order("D901", patient=patient(14)).encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", world.mllp_port)
    for start in range(0, len(stream), 97):
        writer.write(stream[start : start + 97])
        await writer.drain()
        await asyncio.sleep(0)
    frames, answers = FrameReader(), []
    async with asyncio.timeout(30):
        while len(answers) < 2:
            answers += list(frames.feed(await reader.read(4096)))
    writer.close()

    await world.until("D900", "checked")
    await world.until("D901", "checked")


async def test_an_exam_that_is_discontinued_after_its_scan_is_read_by_nobody_and_its_draft_is_taken_back(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    await world.send(order("D1000", patient=patient(15)))
    await world.until("D1000", "checked")
    await world.send(order("D1000", "SC", "IP", message="2", patient=patient(15), at="1030"))
    await series(world, storescu, tmp_path, "D1000", 15)
    await world.until("D1000", "drafted")

    await world.send(order("D1000", "DC", "DC", message="3", patient=patient(15), at="1045"))
    case = await world.until("D1000", "cancelled")

    assert case["waits_for"] == ""
    assert [task["status"] for task in await tasks(world, case)] == ["cancelled"]
    assert not await world.fhir.search("DiagnosticReport", {"based-on": case["order"], "status": "preliminary"})


async def test_f027_a_discontinuation_of_a_completed_exam_waits_for_a_person_and_the_case_goes_on(
    department: World,
) -> None:
    world = department
    await world.send(order("D1010", patient=patient(16)))
    await world.until("D1010", "checked")
    await world.send(order("D1010", "SC", "CM", message="2", patient=patient(16), at="1040"))
    await world.until("D1010", "scanned")

    await world.send(order("D1010", "DC", "DC", message="3", patient=patient(16), at="1045"))
    parked = await error_about(world, "D1010")

    assert "completed" in parked["reason"]
    assert (await world.case("D1010") or {})["stage"] == "scanned"


async def test_a_report_before_its_order_and_before_the_images_is_filed_when_the_order_comes_and_nothing_is_drafted(
    department: World, storescu: str, tmp_path: Path
) -> None:
    world = department
    assert await world.send(final("D1100", "Read elsewhere, no images here yet.", patient=patient(17))) == "AA"
    assert await world.send(order("D1100", patient=patient(17))) == "AA"
    await world.until("D1100", "delivered")

    await series(world, storescu, tmp_path, "D1100", 17)
    case = await world.until_case("D1100", lambda case: case["waits_for"].startswith("a reader"))

    assert case["stage"] == "delivered"
    assert not [m for m in world.dictation.received if "D1100" in m]
    assert len(await tasks(world, case, "late-images")) == 1


async def test_f075_an_addendum_after_the_final_report_is_delivered_as_well(department: World) -> None:
    world = department
    await world.send(order("D1200", patient=patient(18)))
    await world.until("D1200", "checked")
    await world.send(final("D1200", "No acute finding.", patient=patient(18)))
    await world.until("D1200", "delivered")

    await world.send(final("D1200", "No acute finding. Addendum: prior seen.", "C", patient(18), at="1200"))
    addendum = await world.reports.next(lambda m: "Addendum: prior seen." in m)
    case = await world.until("D1200", "delivered")

    assert "|C|" in addendum or "|C\r" in addendum
    [report] = await world.fhir.search(
        "DiagnosticReport", {"based-on": case["order"], "status": "corrected,amended,final"}
    )
    assert report["status"] == "corrected"
    assert [task["status"] for task in await tasks(world, case) if task["status"] != "completed"] == []
