"""One order's journey through the real doors: HL7 in, images in, a draft out to dictation, the signed report back and delivered."""

import asyncio
import subprocess
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from journey_world import World

from arcuate.hospital.heads.render import render_t1
from arcuate.hospital.heads.series import StudyFacts, write_series
from arcuate.hospital.heads.shape import sample_head


def hl7(*segments: str) -> str:
    return "\r".join(segments) + "\r"


def pid(number: str = "S0001", name: str = "Synthetic-0001^Ada", birth: str = "19500102") -> str:
    return f"PID|1||{number}^^^SYNTH^MR||{name}||{birth}|F"


def order(accession: str, control: str = "NW", state: str = "SC", message: str = "1", patient: str = pid()) -> str:
    return hl7(
        f"MSH|^~\\&|RIS|SYNTH|ARCUATE|X|20260317095000+0100||ORM^O01^ORM_O01|{accession}-{message}|P|2.5.1",
        patient,
        "PV1|1|O|MRI",
        f"ORC|{control}|P{accession}^RIS|{accession}^RIS||{state}||||20260317095000+0100|||1234^Referrer^Synthetic",
        f"OBR|1|P{accession}^RIS|{accession}^RIS|MRBRAIN^MRI brain without contrast^L"
        f"|||||||||||||||{accession}|RP1|SPS1||||MR|||^^^20260317103000+0100^^R||||Memory loss, progressive, ? atrophy",
    )


def final(accession: str, text: str, state: str = "F") -> str:
    return hl7(
        f"MSH|^~\\&|DICT|SYNTH|ARCUATE|X|20260317113000+0100||ORU^R01^ORU_R01|{accession}-{state}|P|2.5.1",
        pid(),
        f"ORC|RE|P{accession}^RIS|{accession}^RIS",
        f"OBR|1|P{accession}^RIS|{accession}^RIS|MRBRAIN^MRI brain without contrast^L|||20260317103000+0100|||||||||||"
        f"{accession}|RP1|SPS1||20260317113000+0100||MR|{state}",
        f"OBX|1|TX|MRBRAIN^Report^L||{text}||||||{state}",
    )


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An invented head as a DICOM series of patient S0001, accession J100."""
    facts = StudyFacts(
        patient_id="S0001", issuer="SYNTH", family="Synthetic-0001", given="Ada", birth_date="19500102", sex="F", age_years=76,
        accession="J100", description="MRI brain (synthetic)", station="MR1", tesla=3.0,
        began=datetime(2026, 3, 17, 10, 30, tzinfo=ZoneInfo("Europe/Zurich")), seed="11",
    )  # fmt: skip
    return write_series(render_t1(sample_head(11).labels, 11), facts, tmp_path_factory.mktemp("head"))


def store(storescu: str, port: int, files: list[Path]) -> None:
    folder = files[0].parent
    subprocess.run(
        [storescu, "-aec", "ARCUATE", "127.0.0.1", str(port), "+sd", str(folder)], check=True, capture_output=True
    )


async def send_images(world: World, storescu: str, files: list[Path]) -> None:
    await asyncio.to_thread(store, storescu, world.dicom_port, files)


def numbers(draft: str) -> list[str]:
    """Return the OBX of a draft that carry a measured number in mL."""
    return [line for line in draft.split("\r") if line.startswith("OBX") and "|NM|" in line and "|mL" in line]


async def test_an_order_becomes_a_draft_with_volumes_and_a_delivered_report(
    world: World, storescu: str, head: list[Path]
) -> None:
    assert await world.send(order("J100")) == "AA"
    await world.until("J100", "checked")

    await send_images(world, storescu, head)
    draft = await world.dictation.next(lambda m: "J100" in m and bool(numbers(m)), limit_s=240)

    assert "|P|" in draft.split("\rOBX")[0] or "|P\r" in draft.split("\rOBX")[0] + "\r"
    assert not world.reports.received
    assert any("ippocampus" in line for line in numbers(draft))

    assert await world.send(final("J100", "Mild generalised atrophy. Read and signed.")) == "AA"
    await world.until("J100", "delivered")

    [signed] = world.reports.received
    assert "Mild generalised atrophy. Read and signed." in signed
    reading = await world.fhir.search("Task", {"status": "completed"})
    assert len(reading) == 1


async def test_without_images_for_ten_minutes_a_draft_goes_out_and_is_revised_when_they_come(
    world: World, storescu: str, head: list[Path]
) -> None:
    await world.send(order("J100"))
    await world.until("J100", "checked")
    assert await world.send(order("J100", control="SC", state="CM", message="2")) == "AA"
    await world.until_case("J100", lambda case: "scanned" in {step["stage"] for step in case["steps"]})

    world.pass_images_wait()
    first = await world.dictation.next(lambda m: "J100" in m)
    assert not numbers(first)

    await send_images(world, storescu, head)
    revised = await world.dictation.next(lambda m: "J100" in m and bool(numbers(m)), limit_s=240)
    assert "revised" in revised.lower()


async def test_f026_an_order_that_is_cancelled_ends_and_nobody_is_asked_to_read_it(world: World) -> None:
    await world.send(order("J200"))
    await world.until("J200", "checked")

    await world.send(order("J200", control="CA", state="CA", message="2"))
    case = await world.until("J200", "cancelled")

    assert case["waits_for"] == ""
    assert not await world.fhir.search("Task", {"focus": case["order"]})


async def test_the_same_order_sent_three_times_is_one_case(world: World) -> None:
    for _ in range(3):
        assert await world.send(order("J300")) == "AA"
    await world.until("J300", "checked")

    cases = (await world.http.get("/journey/cases")).json()["cases"]
    assert [case["accession"] for case in cases] == ["J300"]
    [request] = await world.fhir.search("ServiceRequest")
    assert request["meta"]["versionId"] == "1"
