"""One order's journey through the real doors: HL7 in, images in, a draft out to dictation, the signed report back and delivered."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hl7_messages import final, order
from journey_world import World
from small_series import write_small_series

from arcuate.hospital.heads.render import render_t1
from arcuate.hospital.heads.series import StudyFacts, write_series
from arcuate.hospital.heads.shape import sample_head

# A network measures a whole head here, and ten programs start: a busy machine takes its time.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An invented head as a DICOM series of patient S0001, accession J101."""
    facts = StudyFacts(
        patient_id="S0001", issuer="SYNTH", family="Synthetic-0001", given="Ada", birth_date="19500102", sex="F", age_years=76,
        accession="J101", description="MRI brain (synthetic)", station="MR1", tesla=3.0,
        began=datetime(2026, 3, 17, 10, 30, tzinfo=ZoneInfo("Europe/Zurich")), seed="11",
    )  # fmt: skip
    return write_series(render_t1(sample_head(11).labels, 11), facts, tmp_path_factory.mktemp("head"))


def numbers(draft: str) -> list[str]:
    """Return the OBX of a draft that carry a measured number in mL."""
    return [line for line in draft.split("\r") if line.startswith("OBX") and "|NM|" in line and "|mL" in line]


async def test_without_images_for_ten_minutes_a_draft_goes_out_is_revised_when_they_come_and_the_signed_report_is_delivered(
    world: World, storescu: str, tmp_path: Path
) -> None:
    assert await world.send(order("J100")) == "AA"
    await world.until("J100", "checked")
    assert await world.send(order("J100", control="SC", state="CM", message="2")) == "AA"
    await world.until_case("J100", lambda case: "scanned" in {step["stage"] for step in case["steps"]})

    world.pass_images_wait()
    first = await world.dictation.next(lambda m: "J100" in m)
    assert "|P|" in first.split("\rOBX")[0] or "|P\r" in first.split("\rOBX")[0] + "\r"
    assert not numbers(first)

    write_small_series(tmp_path, "J100")
    await world.send_images(storescu, tmp_path)
    revised = await world.dictation.next(lambda m: "J100" in m and "ocaliser" in m)
    assert "revised" in revised.lower()
    assert not [m for m in world.reports.received if "J100" in m]

    assert await world.send(final("J100", "Mild generalised atrophy. Read and signed.")) == "AA"
    case = await world.until("J100", "delivered")

    [signed] = [m for m in world.reports.received if "J100" in m]
    assert "Mild generalised atrophy. Read and signed." in signed
    [reading] = await world.fhir.search("Task", {"focus": case["order"]})
    assert reading["status"] == "completed"


@pytest.mark.long
@pytest.mark.parametrize("world", ["a program a room on PostgreSQL"], indirect=True)
async def test_volumes_that_another_program_has_measured_reach_dictation(
    world: World, storescu: str, head: list[Path]
) -> None:
    """In one program the real head of the corpus tests and the demo go this way."""
    assert await world.send(order("J101")) == "AA"
    await world.until("J101", "checked")

    await world.send_images(storescu, head[0].parent)
    draft = await world.dictation.next(lambda m: "J101" in m and bool(numbers(m)), limit_s=600)

    assert any("ippocampus" in line for line in numbers(draft))


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
    [case] = [case for case in cases if case["accession"] == "J300"]
    request = await world.fhir.read("ServiceRequest", case["order"].removeprefix("ServiceRequest/"))
    assert request["meta"]["versionId"] == "1"
