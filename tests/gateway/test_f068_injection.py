"""Text can't forge structure in what we send (row 068): any text in any field gives the same segments and the same text back."""

import base64
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.gateway.outgoing import oru, srm
from arcuate.gateway.outgoing.oru import Content
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.hl7v2.message import Message

ZURICH = ZoneInfo("Europe/Zurich")
ENVELOPE = build.Envelope("ORU", "R01", "ORU_R01", "C1", datetime(2026, 3, 17, tzinfo=UTC), ZURICH)
EVIL = st.text(
    st.one_of(st.sampled_from("|^~\\&\r\n\x0b\x1c\x00\t #"), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=60,
)


def content(text: str, name: str, reason: str, requester: str, value: str) -> Content:
    report: Json = {
        "resourceType": "DiagnosticReport", "id": "r", "status": "preliminary", "code": {"text": name},
        "resultsInterpreter": [{"display": requester}],
        "presentedForm": [{"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()}],
    }  # fmt: skip
    patient: Json = {
        "identifier": [codes.identifier(codes.patient_system(name), value, "MR")],
        "name": [{"family": name, "given": [requester]}],
    }
    order: Json = {
        "identifier": [codes.accession_identifier("ACC1")], "code": {"text": reason}, "requester": {"display": requester},
        "reasonCode": [{"text": reason}],
    }  # fmt: skip
    observation: Json = {
        "status": "preliminary",
        "code": {"text": name},
        "valueString": value,
        "device": {"display": requester},
    }
    return Content(report, patient, [order], [observation])


@settings(deadline=None)
@given(EVIL, EVIL, EVIL, EVIL, EVIL)
def test_f068_any_text_in_any_field_leaves_the_message_as_it_was_meant(
    text: str, name: str, reason: str, requester: str, value: str
) -> None:
    raw = oru.message(ENVELOPE, content(text, name, reason, requester, value))
    message = Message.parse(raw)

    assert not set(raw.replace(b"\r", b"")) & {0x0B, 0x1C, 0x00, 0x0A}
    assert {segment.id for segment in message} <= {"MSH", "PID", "ORC", "OBR", "OBX", "NTE"}
    assert [len(message.all(id)) for id in ("MSH", "PID", "ORC", "OBR")] == [1, 1, 1, 1]
    assert (
        message.value("PID-5.1") == name and message.value("PID-5.2") == requester and message.value("PID-3.1") == value
    )
    assert message.value("OBR-31.2") == reason and message.value("OBR-16.2") == requester
    lines = [obx[5].text for obx in message.all("OBX")[:-1]]
    kept = oru.plain_text(
        {"presentedForm": [{"contentType": "text/plain", "data": base64.b64encode(text.encode()).decode()}]}
    )
    assert "".join(lines).replace(" ", "") == "".join(kept).replace(" ", "")
    if any(sign in text for sign in "\x0b\x1c\x00"):
        assert message.value("NTE-3") == "Control characters were removed from this text"


@settings(deadline=None)
@given(EVIL, EVIL)
def test_f068_what_is_asked_of_the_ris_cannot_forge_segments(reason: str, name: str) -> None:
    task: Json = {"code": codes.concept(codes.CS_ASK, "cancel"), "description": reason, "requester": {"display": name}}
    appointment: Json = {
        "identifier": [codes.identifier(codes.appointment_system("RIS"), "B1", "FILL")],
        "serviceType": [{"text": name}],
    }
    message = Message.parse(
        srm.message(ENVELOPE, task, appointment, {"identifier": [], "name": [{"family": name}]}, ZURICH)
    )

    assert [segment.id for segment in message] == ["MSH", "ARQ", "PID", "RGS", "AIS"]
    assert message.value("ARQ-7.2") == reason and message.value("PID-5.1") == name
