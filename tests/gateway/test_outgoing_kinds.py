"""Messages that a receiver asks for: bookings (SIU), how far an order is (ORM, OMG), signed reports as documents (MDM)."""

import base64
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import Sink, Site, open_site
from tests.gateway.messages import booking, order, result

from arcuate.gateway.outgoing import mdm, oru, pdf, siu, status
from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.hl7v2.message import Message

EHR = {"also": ["SIU", "OMG", "MDM"]}


@pytest.fixture
async def ehr() -> AsyncIterator[Sink]:
    sink = Sink()
    await sink.open()
    yield sink
    await sink.close()


@pytest.fixture
async def asked(tmp_path: Path, ehr: Sink) -> AsyncIterator[Site]:
    """A gateway whose EHR asks for bookings, statuses and documents, and whose archive asks for nothing more than reports."""
    receivers = [
        Receiver.model_validate({"name": name, "kind": "report", "host": "127.0.0.1", "port": ehr.port, "application": name, **more})
        for name, more in (("ehr", EHR), ("archive", {}))
    ]  # fmt: skip
    async with open_site(
        tmp_path / "data", GatewaySettings(port=0, receivers=tuple(receivers), send_timeout_s=2)
    ) as opened:
        yield opened


async def told(site: Site, sink: Sink) -> list[Message]:
    """What the EHR has got since it was asked last."""
    for _ in range(2):
        await site.settle()
    messages = [Message.parse(raw) for raw in sink.received]
    sink.received.clear()
    assert await site.errors() == []
    return messages


async def change(site: Site, kind: str, id: str, **more: Any) -> Json:
    """Somebody changes a resource at our FHIR door."""
    stands = await site.fhir.read(kind, id)
    made = {name: value for name, value in {**stands, **more}.items() if value is not None}
    return await site.fhir.update(made, if_match=version_of(stands))


async def test_a_booking_that_changes_at_our_doors_is_told_and_one_that_came_by_hl7_is_not(
    asked: Site, ehr: Sink
) -> None:
    await asked.apply(order(), booking())
    assert await told(asked, ehr) == []  # the RIS told us: it knows

    (known,) = await asked.find("Appointment")
    await change(asked, "Appointment", known["id"], start="2026-03-19T09:00:00+01:00", end="2026-03-19T09:30:00+01:00")
    await change(asked, "Appointment", known["id"], comment="Bring the implant card")
    moved, noted = await told(asked, ehr)
    assert [one.value("MSH-9.2") for one in (moved, noted)] == ["S13", "S14"] and moved.value("MSH-5") == "ehr"
    assert (moved.value("SCH-2"), moved.value("SCH-2.2"), moved.value("SCH-25")) == ("B1", "RIS", "Booked")
    assert moved.value("SCH-11.4") == moved.value("AIS-4") == "20260319090000+0100" and moved.value("SCH-9") == "30"
    assert (moved.value("PID-3"), moved.value("SCH-26"), moved.value("SCH-27")) == ("100", "P1", "ACC1")
    assert (moved.value("AIS-3"), moved.value("AIL-3"), moved.value("AIL-3.4")) == ("MRBR", "MR1", "HOSP")

    await change(asked, "Appointment", known["id"], language="en")
    assert await told(asked, ehr) == []  # says nothing that a book holds
    reason = {"text": "Scanner | down ^ today"}
    await change(asked, "Appointment", known["id"], status="cancelled", cancelationReason=reason)
    (cancelled,) = await told(asked, ehr)
    assert (cancelled.value("MSH-9.2"), cancelled.value("SCH-25")) == ("S15", "Cancelled")
    assert cancelled.value("SCH-7.2") == "Scanner | down ^ today"


async def test_a_booking_made_here_is_new_carries_our_number_and_its_no_show_is_told(asked: Site, ehr: Sink) -> None:
    await asked.apply(order())
    patient = codes.reference("Patient", (await asked.patient("100"))["id"])
    made = await asked.fhir.create({
        "resourceType": "Appointment", "status": "pending", "start": "2026-03-19T08:00:00Z", "end": "2026-03-19T08:30:00Z",
        "participant": [{"actor": patient, "status": "accepted"}],
    })  # fmt: skip
    assert await told(asked, ehr) == []  # asked for, not booked
    for state in ("booked", "arrived", "noshow", "booked", "entered-in-error"):
        await change(asked, "Appointment", made["id"], status=state)
    messages = await told(asked, ehr)
    assert [one.value("MSH-9.2") for one in messages] == ["S12", "S14", "S26", "S12", "S17"]
    assert {one.value("SCH-2") for one in messages} == {made["id"]} and messages[1].value("SCH-25") == "Arrived"


async def test_how_far_an_order_is_is_told_as_often_as_it_changes(asked: Site, ehr: Sink) -> None:
    await asked.apply(order(), order("ACC2", placer="P2", control="SC", state="IP", control_id="2"))
    assert await told(asked, ehr) == []
    request = await asked.order("ACC1")
    for state in ("on-hold", "active", "on-hold", "revoked"):
        await change(asked, "ServiceRequest", request["id"], status=state)
    await change(asked, "ServiceRequest", request["id"], note=[{"text": "Called the ward"}])
    messages = await told(asked, ehr)
    assert [one.value("ORC-5") for one in messages] == ["HD", "SC", "HD", "CA"]
    assert {(one.value("MSH-9.1"), one.value("MSH-9.2"), one.value("ORC-1")) for one in messages} == {
        ("OMG", "O19", "SC")
    }
    assert {(one.value("ORC-2"), one.value("ORC-3"), one.value("OBR-18")) for one in messages} == {
        ("P1", "ACC1", "ACC1")
    }

    exam = {"resourceType": "Procedure", "status": "in-progress", "subject": request["subject"]}
    begun = await asked.fhir.create({**exam, "basedOn": [codes.reference("ServiceRequest", request["id"])]})
    await change(asked, "Procedure", begun["id"], status="completed")
    assert [one.value("ORC-5") for one in await told(asked, ehr)] == ["IP", "CM"]


async def test_a_ris_that_keeps_the_book_gets_our_number_as_placer_and_states_as_results(
    tmp_path: Path, ehr: Sink
) -> None:
    ris = Receiver.model_validate(
        {
            "name": "ris",
            "kind": "report",
            "host": "127.0.0.1",
            "port": ehr.port,
            "also": ["SIU", "ORU"],
            "own_number": "placer",
        }
    )
    async with open_site(tmp_path / "data", GatewaySettings(port=0, receivers=(ris,), send_timeout_s=2)) as site:
        await site.apply(order())
        request, patient = await site.order("ACC1"), codes.reference("Patient", (await site.patient("100"))["id"])
        made = await site.fhir.create({
            "resourceType": "Appointment", "status": "booked", "start": "2026-03-19T08:00:00Z", "end": "2026-03-19T08:30:00Z",
            "basedOn": [codes.reference("ServiceRequest", request["id"])], "participant": [{"actor": patient, "status": "accepted"}],
        })  # fmt: skip
        (told_of,) = await told(site, ehr)
        assert (told_of.value("SCH-1"), told_of.value("SCH-1.2"), told_of.value("SCH-2")) == (made["id"], "ARCUATE", "")
        await change(site, "ServiceRequest", request["id"], status="on-hold")
        await change(site, "ServiceRequest", request["id"], status="revoked")
        states = await told(site, ehr)
        assert [(one.value("MSH-9.1"), one.value("OBR-25"), one.value("ORC-5")) for one in states] == [
            ("ORU", "S", "HD"),
            ("ORU", "X", "CA"),
        ]
        sent = {one["category"][0]["coding"][0]["code"]: one["status"] for one in await site.find("Communication")}
        assert sent == {"booking": "completed", "status": "completed"}


async def test_a_signed_report_comes_as_a_document_with_a_pdf_to_who_asks(asked: Site, ehr: Sink) -> None:
    await asked.apply(order(), result(text="Normal brain (3 mL).\nNo mass."))
    reports = await told(asked, ehr)
    assert sorted((one.value("MSH-5"), one.value("MSH-9.1")) for one in reports) == [
        ("archive", "ORU"), ("ehr", "MDM"), ("ehr", "ORU"),
    ]  # fmt: skip
    document = next(one for one in reports if one.value("MSH-9.1") == "MDM")
    assert (document.value("MSH-9.2"), document.value("TXA-17"), document.value("TXA-15")) == ("T02", "LA", "ACC1")
    assert (document.value("OBX-2"), document.value("OBX-5.3"), document.value("OBX-5.4")) == ("ED", "PDF", "Base64")
    shown = base64.b64decode(document.value("OBX-5.5"))
    assert shown.startswith(b"%PDF-1.4") and b"(Normal brain \\(3 mL\\).) Tj" in shown and b"(No mass.) Tj" in shown
    assert b"Jane Doe, born 1980-01-01, 100" in shown and b"Accession: ACC1" in shown

    await asked.apply(result(status="C", text="Hippocampus: 海馬", control_id="41", at="20260317140000"))
    corrected = next(one for one in await told(asked, ehr) if one.value("MSH-9.1") == "MDM")
    assert corrected.value("MSH-9.2") == "T10" and corrected.value("TXA-13") == document.value("TXA-12")
    assert b"Some characters cannot be shown" in base64.b64decode(corrected.value("OBX-5.5"))
    assert corrected.value("OBX[2]-5") == "Hippocampus: 海馬"  # what the page cannot show


async def test_the_pdf_that_a_report_carries_is_sent_as_it_is(asked: Site, ehr: Sink) -> None:
    own = base64.b64encode(b"%PDF-1.7 the dictation's own page").decode()
    carried = f"OBX|2|ED|PDF^Report^L||DICT^AP^PDF^Base64^{own}||||||F\r"
    await asked.apply(order(), result(groups=carried))
    document = next(one for one in await told(asked, ehr) if one.value("MSH-9.1") == "MDM")
    assert document.value("OBX-5.5") == own and len(document.all("OBX")) == 1


EVIL = st.text(
    st.one_of(st.sampled_from("|^~\\&\r\n\x0b\x1c ()"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=60,
)
ZURICH = ZoneInfo("Europe/Zurich")


@settings(deadline=None, max_examples=25)
@given(EVIL, EVIL)
def test_f068_text_cannot_forge_segments_in_what_is_asked_for(text: str, name: str) -> None:
    patient: Json = {
        "identifier": [codes.identifier(codes.patient_system(name), text, "MR")],
        "name": [{"family": name}],
    }
    request: Json = {
        "identifier": [codes.accession_identifier(text)],
        "code": {"text": name},
        "requester": {"display": text},
    }
    appointment: Json = {
        "id": "1", "status": "cancelled", "cancelationReason": {"text": text}, "serviceType": [{"text": name}], "minutesDuration": 30,
    }  # fmt: skip
    place: Json = {"identifier": [{"system": f"urn:arcuate:id:location:{name}", "value": text}]}
    report: Json = {
        "id": "r", "status": "final", "code": {"text": name}, "resultsInterpreter": [{"display": text}],
        "presentedForm": [{"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()}],
    }  # fmt: skip
    at = datetime(2026, 3, 17, tzinfo=UTC)

    def envelope(kind: str, event: str, structure: str) -> build.Envelope:
        return build.Envelope(kind, event, structure, "C1", at, ZURICH)

    booked = Message.parse(
        siu.message(envelope("SIU", "S15", "SIU_S12"), siu.Content(appointment, patient, request, [place]))
    )
    assert [segment.id for segment in booked] == ["MSH", "SCH", "PID", "RGS", "AIS", "AIL"]
    assert booked.value("SCH-7.2") == text and booked.value("AIS-3.2") == name
    how_far = Message.parse(status.message(envelope("ORM", "O01", "ORM_O01"), "HD", request, patient, at, ZURICH))
    assert [segment.id for segment in how_far] == ["MSH", "PID", "ORC", "OBR"] and how_far.value("OBR-18") == text
    document = Message.parse(
        mdm.message(envelope("MDM", "T02", "MDM_T02"), oru.Content(report, patient, [request], []))
    )
    assert [one.id for one in document if one.id != "OBX"] == ["MSH", "EVN", "PID", "PV1", "ORC", "OBR", "TXA"]
    assert document.value("TXA-9.2") == text and base64.b64decode(document.value("OBX-5.5")).startswith(b"%PDF")


@settings(deadline=None, max_examples=25)
@given(st.lists(EVIL, max_size=5))
def test_text_cannot_forge_structure_in_a_pdf(lines: list[str]) -> None:
    made, complete = pdf.document(lines)
    start = int(made.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    assert made[start:].startswith(b"xref\n0 ") and made.endswith(b"%%EOF\n")
    places = [int(row[:10]) for row in made[start:].split(b"\n")[3:] if row.endswith(b" n ")]
    assert all(made[at:].startswith(b"%d 0 obj" % number) for number, at in enumerate(places, 1))
    assert complete == all(line.encode("cp1252", "replace").decode("cp1252") == line for line in lines)
    assert zlib.crc32(made) == zlib.crc32(pdf.document(lines)[0])
