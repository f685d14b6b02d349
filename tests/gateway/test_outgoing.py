"""What goes out (rows 009, 012, 013, 016): drafts to dictation only, signed reports to the others, acknowledged and told to the record."""

import asyncio
import base64
from decimal import Decimal

from tests.gateway.conftest import Sink, Site, positive
from tests.gateway.messages import booking, order, result

from arcuate.gateway.outgoing import halt, queue
from arcuate.gateway.tables import work
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Message

Sinks = dict[str, Sink]


async def draft(site: Site, accession: str = "ACC1", text: str = "FINDINGS\n\nHippocampus: see table & note.") -> Json:
    """What journey writes: a preliminary report with a measured value, and one that could not be measured."""
    request = await site.order(accession)
    subject, about = request["subject"], [codes.reference("ServiceRequest", request["id"])]
    device = {"display": "brain-t1 0.1"}
    hippocampus = codes.concept(codes.CS_STRUCTURE, "hippocampus", "Hippocampus volume")
    measured = await site.fhir.create({
        "resourceType": "Observation", "status": "preliminary", "code": hippocampus, "bodySite": {"text": "Left hippocampus"},
        "subject": subject, "valueQuantity": codes.quantity(Decimal("3.210"), "mL"), "device": device,
    })  # fmt: skip
    refused = await site.fhir.create({
        "resourceType": "Observation", "status": "preliminary", "code": hippocampus, "bodySite": {"text": "Right hippocampus"},
        "subject": subject, "dataAbsentReason": {"text": "refused"}, "note": [{"text": "motion"}], "device": device,
    })  # fmt: skip
    return await site.fhir.create({
        "resourceType": "DiagnosticReport", "identifier": [codes.identifier(codes.SYSTEM_DRAFT, accession)], "status": "preliminary",
        "code": codes.concept(codes.CS_LOINC, "18748-4", "Diagnostic imaging study"), "subject": subject, "basedOn": about,
        "result": [codes.reference("Observation", one["id"]) for one in (measured, refused)],
        "presentedForm": [{"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()}],
    })  # fmt: skip


async def settled(site: Site) -> None:
    for _ in range(3):
        await site.settle()


async def communications(site: Site) -> list[tuple[str, str, str]]:
    found = await site.find("Communication")
    return sorted((c["category"][0]["coding"][0]["code"], c["recipient"][0]["display"], c["status"]) for c in found)


async def test_a_draft_goes_to_dictation_only_with_its_values_marked_as_not_reviewed(
    connected: Site, sinks: Sinks
) -> None:
    await connected.apply(order())
    report = await draft(connected)
    await settled(connected)

    assert [len(sinks[name].received) for name in ("dictation", "report", "ris")] == [1, 0, 0]
    message = Message.parse(sinks["dictation"].received[0])
    assert message.value("OBR-25") == "P" and message.value("OBR-18") == "ACC1" and message.value("OBR-2") == "P1"
    assert message.value("PID-3.1") == "100" and message.value("PID-3.4") == "HOSP"
    assert [obx[11].value for obx in message.all("OBX")] == ["P"] * 5
    assert [obx[5].text for obx in message.all("OBX") if obx[2].value == "TX"] == [
        "FINDINGS",
        " ",
        "Hippocampus: see table & note.",
    ]
    values = [obx for obx in message.all("OBX") if obx[2].value != "TX"]
    assert [(obx[2].value, obx[4].value, obx[5].text, obx[6].value) for obx in values] == [
        ("NM", "left", "3.210", "mL"), ("ST", "right", "not measured; motion", ""),
    ]  # fmt: skip
    assert [nte[3].text for nte in message.all("NTE")] == ["Machine value, not reviewed (brain-t1 0.1)"] * 2

    assert await communications(connected) == [("draft", "dictation", "completed")]
    told = (await connected.find("Communication"))[0]
    assert (
        told["about"] == [{"reference": f"DiagnosticReport/{report['id']}"}] and "received" in told and "sent" in told
    )


async def test_a_signed_report_goes_to_the_others_and_a_late_draft_to_nobody(connected: Site, sinks: Sinks) -> None:
    await connected.apply(order(), result(text="Signed words"))
    await settled(connected)
    await draft(connected)
    await settled(connected)

    assert [len(sinks[name].received) for name in ("dictation", "report", "ris")] == [0, 1, 1]
    message = Message.parse(sinks["report"].received[0])
    assert (message.value("OBR-25"), message.value("OBX-11"), message.value("OBX-5")) == ("F", "F", "Signed words")
    assert await communications(connected) == [("final", "report", "completed"), ("final", "ris", "completed")]

    await connected.apply(result(status="C", text="Corrected words", control_id="41", at="20260317140000"))
    await settled(connected)
    assert Message.parse(sinks["report"].received[-1]).value("OBR-25") == "C"


async def test_a_report_without_an_order_or_that_says_nothing_new_is_not_sent(connected: Site, sinks: Sinks) -> None:
    await connected.apply(order())
    report = await draft(connected)
    await settled(connected)
    again = await connected.fhir.read("DiagnosticReport", report["id"])
    await connected.fhir.update({**again, "language": "en"}, if_match=version_of(again))
    subject = (await connected.order("ACC1"))["subject"]
    orphan = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"}, "subject": subject}
    await connected.fhir.create(orphan)
    await settled(connected)

    assert [len(sinks[name].received) for name in ("dictation", "report", "ris")] == [1, 0, 0]


async def test_others_preliminary_reports_are_not_sent_on_as_drafts(connected: Site, sinks: Sinks) -> None:
    await connected.apply(order(), result(status="P"))
    await settled(connected)
    assert [len(sink.received) for sink in sinks.values()] == [0, 0, 0]


async def test_f012_a_receiver_down_for_hours_gets_everything_in_order_afterwards(
    connected: Site, sinks: Sinks
) -> None:
    await sinks["report"].close()
    numbers = [f"ACC{n}" for n in range(6)]
    for n, accession in enumerate(numbers):
        await connected.apply(
            order(accession, placer=f"P{n}", control_id=f"o{n}"), result(accession, control_id=f"r{n}")
        )
    await settled(connected)
    assert len(sinks["ris"].received) == 6  # the others are not held up
    receiver = next(
        one for one in (await connected.get("/gateway/connections"))["receivers"] if one["receiver"] == "report"
    )
    assert (receiver["state"], receiver["waiting"]) == ("does not answer", 6)

    for _ in range(24):  # four hours
        connected.clock.advance(600)
        await connected.settle()
    await sinks["report"].open()
    connected.clock.advance(60)
    await settled(connected)

    assert [Message.parse(raw).value("OBR-18") for raw in sinks["report"].received] == numbers
    assert len([one for one in await communications(connected) if one == ("final", "report", "completed")]) == 6


async def test_f048_after_a_restore_nothing_is_sent_until_a_person_releases_it(connected: Site, sinks: Sinks) -> None:
    now = connected.clock.now()
    await connected.parts.context.database.write(lambda session: halt.halt(session, now, halt.RESTORED))
    await connected.apply(order("ACC1", placer="P1", control_id="o1"), result("ACC1", control_id="r1"))
    for _ in range(3):
        connected.clock.advance(60)
        await settled(connected)
    assert [sink.received for sink in sinks.values()] == [[] for _ in sinks]
    assert "restored" in (await connected.get("/gateway/connections"))["halted"]["reason"]

    assert (await connected.http.post("/gateway/sending/release")).json() == {"released": True}
    connected.clock.advance(60)
    await settled(connected)
    assert [Message.parse(raw).value("OBR-18") for raw in sinks["report"].received] == ["ACC1"]
    assert (await connected.http.post("/gateway/sending/release")).json() == {"released": False}


def silent(_raw: bytes, _control_id: str) -> list[bytes]:
    return []


def saying(*codes_: str) -> object:
    """Answers with these codes, one message after the other; after the last one positively."""
    left = list(codes_)

    def answer(raw: bytes, control_id: str) -> list[bytes]:
        code = left.pop(0) if left else "AA"
        return [
            f"MSH|^~\\&|S|X|A|Y|2026||ACK|B{control_id[:18]}|P|2.5.1\rMSA|{one}|{control_id}|Not for me\r".encode()
            for one in code.split("+")
        ]

    return answer


async def test_f013_without_an_acknowledgement_the_same_message_is_sent_again(connected: Site, sinks: Sinks) -> None:
    sinks["report"].answering = silent
    await connected.apply(order(), result())
    await settled(connected)
    sinks["report"].answering = positive
    connected.clock.advance(60)
    await settled(connected)

    first, second = sinks["report"].received
    assert first == second
    assert ("final", "report", "completed") in await communications(connected)


async def test_f009_an_application_error_goes_to_the_error_queue_and_is_replayed_once(
    connected: Site, sinks: Sinks
) -> None:
    sinks["report"].answering = saying("AE")  # type: ignore[assignment]
    await connected.apply(order(), result())
    await settled(connected)

    item = (await connected.get("/gateway/errors"))["outgoing"][0]
    assert item["state"] == "parked" and "AE: Not for me" in item["reason"]
    assert len(sinks["report"].received) == 1
    assert ("final", "report", "on-hold") in await communications(connected)
    shown = await connected.get(f"/gateway/errors/{item['id']}")
    assert [segment["id"] for segment in shown["segments"]][:3] == ["MSH", "PID", "ORC"]

    answers = await asyncio.gather(*(connected.http.post(f"/gateway/errors/{item['id']}/replay") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    await settled(connected)
    assert len(sinks["report"].received) == 2
    assert ("final", "report", "completed") in await communications(connected)


async def test_only_the_chain_of_the_parked_message_waits(connected: Site, sinks: Sinks) -> None:
    sinks["report"].answering = saying("AE")  # type: ignore[assignment]
    await connected.apply(order(), result(text="one"))
    await settled(connected)
    await connected.apply(result(status="C", text="two", control_id="41", at="20260317140000"))
    await connected.apply(
        order("ACC2", "200", placer="P2", control_id="2", name="Roe^Rick"),
        result("ACC2", "200", control_id="42", name="Roe^Rick"),
    )
    await settled(connected)
    assert [Message.parse(raw).value("OBR-18") for raw in sinks["report"].received] == ["ACC1", "ACC2"]

    item = next(one for one in (await connected.get("/gateway/errors"))["outgoing"] if one["state"] == "parked")
    assert (await connected.http.post(f"/gateway/errors/{item['id']}/replay")).status_code == 200
    await settled(connected)
    assert [Message.parse(raw).value("OBX-5") for raw in sinks["report"].received[2:]] == ["one", "two"]


async def test_f009_a_commit_acknowledgement_is_no_proof_and_a_later_one_through_our_door_is(
    connected: Site, sinks: Sinks
) -> None:
    sinks["report"].answering = saying("CA")  # type: ignore[assignment]
    await connected.apply(order(), result())
    await settled(connected)
    assert ("final", "report", "in-progress") in await communications(connected)

    control_id = Message.parse(sinks["report"].received[0]).value("MSH-10")
    from arcuate.kernel.hl7v2.mllp import MllpClient, frame

    async with MllpClient("127.0.0.1", connected.port, 5) as client:
        later = f"MSH|^~\\&|S|X|A|Y|2026||ACK|Z1|P|2.5.1\rMSA|AA|{control_id}\r"
        assert await client.exchange(frame(later.encode()), 0.2) is None
    await settled(connected)
    assert ("final", "report", "completed") in await communications(connected)


async def test_a_refusal_is_tried_again_and_then_waits_for_a_person(connected: Site, sinks: Sinks) -> None:
    sinks["report"].answering = saying("AR", "AR")  # type: ignore[assignment]
    await connected.apply(order(), result())
    for _ in range(3):
        await settled(connected)
        connected.clock.advance(60)
    await settled(connected)
    assert len(sinks["report"].received) == 3
    assert ("final", "report", "completed") in await communications(connected)


async def test_what_our_pages_ask_goes_to_the_ris_and_is_done_with_its_message(connected: Site, sinks: Sinks) -> None:
    await connected.apply(order(), booking())
    appointment = (await connected.find("Appointment"))[0]
    task = await connected.fhir.create({
        "resourceType": "Task", "status": "requested", "intent": "order", "code": codes.concept(codes.CS_ASK, "reschedule"),
        "focus": codes.reference("Appointment", appointment["id"]), "description": "Needs an interpreter",
        "requester": {"display": "Sam Scheduler"},
        "input": [{"type": {"text": "start"}, "valueDateTime": "2026-03-20T09:00:00+01:00"}],
    })  # fmt: skip
    await settled(connected)

    message = Message.parse(sinks["ris"].received[0])
    assert message.value("MSH-9.2") == "S02"
    assert (message.value("ARQ-2"), message.value("ARQ-11"), message.value("ARQ-7.2")) == (
        "B1",
        "20260320090000+0100",
        "Needs an interpreter",
    )
    assert (await connected.fhir.read("Task", task["id"]))["status"] == "accepted"

    await connected.apply(booking("S13", start="20260320090000", control_id="11", at="20260317120000"))
    assert (await connected.fhir.read("Task", task["id"]))["status"] == "completed"
    assert (await connected.find("Appointment"))[0]["start"] == "2026-03-20T09:00:00+01:00"


async def test_what_is_booked_here_is_asked_of_the_ris_and_its_message_books_it(connected: Site, sinks: Sinks) -> None:
    await connected.apply(order())
    (patient,), (asked,) = await connected.find("Patient"), await connected.find("ServiceRequest")
    appointment = await connected.fhir.create({
        "resourceType": "Appointment", "status": "pending", "start": "2026-03-20T09:00:00+01:00", "end": "2026-03-20T09:45:00+01:00",
        "identifier": [codes.identifier(codes.appointment_system("ARCUATE"), "our-number", "PLAC")],
        "basedOn": [codes.reference("ServiceRequest", asked["id"])],
        "participant": [{"actor": codes.reference("Patient", patient["id"]), "status": "accepted"}],
    })  # fmt: skip
    task = await connected.fhir.create({
        "resourceType": "Task", "status": "requested", "intent": "proposal", "code": codes.concept(codes.CS_ASK, "book"),
        "focus": codes.reference("Appointment", appointment["id"]), "description": "Booked by $book",
        "input": [{"type": {"text": "start"}, "valueDateTime": appointment["start"]}],
    })  # fmt: skip
    await settled(connected)

    message = Message.parse(sinks["ris"].received[0])
    assert message.value("MSH-9.2") == "S01" and message.value("AIS-2") == "A"
    assert (message.value("ARQ-1.1"), message.value("ARQ-1.2")) == ("our-number", "ARCUATE")
    assert message.value("ARQ-11") == "20260320090000+0100"
    assert (message.value("ARQ-24"), message.value("ARQ-25")) == ("P1", "ACC1")

    confirmed = booking(start="20260320091500").replace("PB1^RIS", "our-number^ARCUATE")
    await connected.apply(confirmed)
    (booked,) = await connected.find("Appointment")
    assert (booked["id"], booked["status"]) == (appointment["id"], "booked")
    assert booked["start"] == "2026-03-20T09:15:00+01:00"
    assert (await connected.fhir.read("Task", task["id"]))["status"] == "completed"


async def test_names_and_texts_longer_than_the_tables_of_the_standard_never_keep_a_report_back(
    connected: Site, sinks: Sinks
) -> None:
    assigner, exam = "University Hospital of the North East", "MR Brain " + "with and without contrast " * 12
    text = (
        order().replace("^^^HOSP^MR", f"^^^{assigner}^MR").replace("^RIS|", f"^{assigner}|").replace("MR Brain", exam)
    )
    await connected.apply(text, result().replace("^^^HOSP^MR", f"^^^{assigner}^MR").replace("MR Brain", exam))
    await settled(connected)

    (raw,) = sinks["report"].received
    message = Message.parse(raw)
    assert message.value("PID-3.4") == assigner and message.value("OBR-2.2") == assigner
    assert message.value("OBR-4.2") == exam.strip()


async def test_what_cannot_be_built_stands_in_the_error_queue_and_is_tried_again_by_a_person(connected: Site) -> None:
    now = connected.clock.now()
    await connected.parts.context.database.write(
        lambda s: work.enqueue(s, queue.COMPOSE, now=now, payload={"type": "DiagnosticReport"})
    )
    for _ in range(4):
        connected.clock.advance(600)
        await connected.settle()

    found = await connected.get("/gateway/errors")
    (item,) = found["outgoing"]
    assert item["cause"] == "could not be built" and item["about"].startswith("DiagnosticReport/") and item["reason"]
    assert {"cause": "could not be built", "state": "parked", "count": 1} in found["groups"]
    assert (await connected.get(f"/gateway/errors/{item['id']}"))["id"] == item["id"]

    assert (await connected.http.post(f"/gateway/errors/{item['id']}/replay")).status_code == 200
    assert (await connected.http.post(f"/gateway/errors/{item['id']}/replay")).status_code == 409
    for _ in range(4):
        connected.clock.advance(600)
        await connected.settle()
    away = await connected.http.post(f"/gateway/errors/{item['id']}/discard", json={"reason": "its report was deleted"})
    assert away.status_code == 200
    assert (await connected.get("/gateway/errors"))["outgoing"] == []
