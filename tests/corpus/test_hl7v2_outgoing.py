"""What we send, in the eyes of an independent referee: reports, requests to the RIS, acknowledgements."""

import base64
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from arcuate.gateway.outgoing import oru, srm
from arcuate.gateway.outgoing.oru import Content
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import ack, build, header

ZURICH = ZoneInfo("Europe/Zurich")
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
PATIENT: Json = {
    "resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1980-01-01",
    "identifier": [codes.identifier(codes.patient_system("HOSP"), "100", "MR"), codes.identifier("urn:oid:2.16.756.5", "756", "PI")],
    "name": [{"family": "Müller & Co^|~", "given": ["Jané", "Ann"]}],
}  # fmt: skip
ORDER: Json = {
    "resourceType": "ServiceRequest", "id": "o", "priority": "urgent", "code": codes.concept(codes.CS_EXAM, "MRBR", "MR Brain"),
    "identifier": [
        codes.accession_identifier("ACC1"), codes.identifier(codes.placer_system("RIS"), "P1", "PLAC"),
        codes.identifier(codes.filler_system("from.RIS.HOSP"), "F1", "FILL"),
    ],
    "requester": {"display": "Robin Referrer"}, "reasonCode": [{"text": "Headache, R/O MS & tumour | ?"}],
}  # fmt: skip
TEXT = "FINDINGS\n\nA & B | C ^ D ~ E \\ F\r\nÄpfel\tand \x07 bells\n" + "long " * 400


def report(status: str) -> Json:
    return {
        "resourceType": "DiagnosticReport", "id": "r", "status": status, "code": codes.concept(codes.CS_LOINC, "18748-4", "Study"),
        "effectiveDateTime": "2026-03-17T08:00:00+01:00", "issued": "2026-03-17T10:00:00.000+01:00",
        "resultsInterpreter": [{"display": "Dr Reader"}],
        "presentedForm": [{"contentType": "text/plain", "data": base64.b64encode(TEXT.encode()).decode()}],
    }  # fmt: skip


def observation(status: str, **more: object) -> Json:
    code = codes.concept(codes.CS_STRUCTURE, "hippocampus", "Hippocampus volume")
    return {"resourceType": "Observation", "status": status, "code": code, "device": {"display": "brain-t1"}, **more}


def envelope(kind: str, event: str, structure: str, control_id: str) -> build.Envelope:
    return build.Envelope(
        kind, event, structure, control_id, NOW, ZURICH, facility="HOSP", to_application="DICT", to_facility="HOSP"
    )


def referee(shared: Path, *arguments: str) -> None:
    judged = subprocess.run(
        [str(shared / "tools" / "fhir-referee" / "fhir-referee"), "hl7", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if judged.returncode == 3:
        pytest.skip("the referee is not set up (setup.sh)")
    assert judged.returncode == 0, judged.stdout


def test_reports_pass_the_referee(shared: Path, tmp_path: Path) -> None:
    values = [
        observation("preliminary", bodySite={"text": "Left"}, valueQuantity=codes.quantity(Decimal("3.210"), "mL")),
        observation(
            "preliminary",
            bodySite={"text": "Right"},
            dataAbsentReason={"text": "refused"},
            note=[{"text": "motion " * 60}],
        ),
        observation("final", valueQuantity=codes.quantity(Decimal("1E+2"), "%")),
        observation("final", valueString="none"),
    ]
    second = {**ORDER, "id": "o2", "identifier": [codes.accession_identifier("ACC2")]}
    paths = []
    for number, (status, orders) in enumerate(
        [("preliminary", [ORDER]), ("final", [ORDER, second]), ("corrected", [second])]
    ):
        raw = oru.message(
            envelope("ORU", "R01", "ORU_R01", f"C{number}"), Content(report(status), PATIENT, orders, values)
        )
        build.check(raw)
        paths.append(tmp_path / f"{status}.hl7")
        paths[-1].write_bytes(raw)
    referee(shared, "--unique", *map(str, paths))


@pytest.mark.parametrize("kind", ["reschedule", "cancel"])
def test_requests_to_the_ris_pass_the_referee(shared: Path, tmp_path: Path, kind: str) -> None:
    appointment: Json = {
        "resourceType": "Appointment", "id": "a", "start": "2026-03-18T11:00:00+01:00", "serviceType": [{"text": "MR Brain"}],
        "identifier": [codes.identifier(codes.appointment_system("RIS"), "B1", "FILL")],
    }  # fmt: skip
    task: Json = {
        "resourceType": "Task", "id": "t", "status": "requested", "code": codes.concept(codes.CS_ASK, kind), "description": "Asked & asked",
        "input": [{"type": {"text": "start"}, "valueDateTime": "2026-03-20T09:00:00+01:00"}], "requester": {"display": "Sam Scheduler"},
    }  # fmt: skip
    raw = srm.message(envelope("SRM", srm.EVENTS[kind], "SRM_S01", "C9"), task, appointment, PATIENT, ZURICH)
    build.check(raw)
    path = tmp_path / "srm.hl7"
    path.write_bytes(raw)
    referee(shared, str(path))


def test_acknowledgements_of_the_corpus_pass_the_referee(shared: Path, tmp_path: Path) -> None:
    asked, answered = tmp_path / "asked.hl7", tmp_path / "answered.hl7"
    for name in (
        "pacsbridge/pacsbridge_0010_ORM-O01",
        "dcm4che/dcm4che_0006_OMI-O23",
        "fhirconverter/fhirconverter_0109_SIU-S12",
    ):
        raw = (
            (shared / "data" / "hl7v2" / "messages" / f"{name}.hl7")
            .read_bytes()
            .removeprefix(b"\xef\xbb\xbf")
            .replace(b"\n", b"\r")
        )
        msh = header.read(raw)
        asked.write_bytes(raw)
        for code, error in (("AA", None), ("AR", ack.NOT_STORED)):
            answered.write_bytes(ack.build(msh, "AA" if code == "AA" else "AR", "OWN1", NOW, error))
            referee(shared, "--request", str(asked), str(answered))
