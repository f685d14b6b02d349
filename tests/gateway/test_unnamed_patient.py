"""A patient of whom only a number is known: reports about them leave all the same."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from arcuate.gateway.outgoing import oru
from arcuate.kernel.codes import accession_identifier, concept, identifier
from arcuate.kernel.hl7v2 import build


def test_a_report_about_a_patient_without_a_name_is_a_valid_message() -> None:
    patient = {"resourceType": "Patient", "identifier": [identifier("urn:arcuate:id:patient:SYNTH", "S1", "MR")]}
    order = {
        "resourceType": "ServiceRequest",
        "identifier": [accession_identifier("A1")],
        "code": {"text": "MRI brain"},
    }
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "conclusion": "Read.",
        "code": concept("urn:x", "y", "MRI brain"),
    }
    at = datetime(2026, 3, 17, 9, tzinfo=UTC)
    envelope = build.Envelope(
        "ORU", "R01", "ORU_R01", "1", at, ZoneInfo("Europe/Zurich"), facility="SITE", to_application="EHR"
    )

    raw = oru.message(envelope, oru.Content(report, patient, [order], []))

    build.check(raw)
    assert b"PID|1||S1^^^SYNTH^MR||^^^^^^U\r" in raw
