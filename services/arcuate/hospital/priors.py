"""What lies behind a patient: earlier reports and earlier visits, as the FHIR resources that a site loads once."""

import base64
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib.resources import files

from arcuate.hospital.morning import Case, Prior
from arcuate.hospital.patients import ASSIGNER, TEST_DATA, patient_resource
from arcuate.hospital.readers import SYSTEM_READER
from arcuate.kernel.codes import CS_EXAM, Json, appointment_system, concept, identifier, report_system
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry

_GAP_DAYS = 210


def past_entries(cases: Iterable[Case]) -> list[Entry]:
    """Return the patients with a past, their earlier visits (with outcomes) and earlier reports; conditional, so safe to repeat."""
    found: list[Entry] = []
    for case in cases:
        if not case.past and case.prior is None:
            continue
        person = patient_resource(case.person, "")
        del person["id"]
        number = person["identifier"][0]
        patient = bundle.create(person, {"identifier": f"{number['system']}|{number['value']}"})
        found.append(patient)
        found += [_visit(case, patient, place, outcome) for place, outcome in enumerate(case.past)]
        if case.prior is not None:
            found.append(_report(case, case.prior, patient))
    return found


def _visit(case: Case, patient: Entry, place: int, outcome: str) -> Entry:
    start = case.slot - timedelta(days=_GAP_DAYS * (len(case.past) - place))
    value = f"{case.appointment}-{place + 1}"
    resource: Json = {
        "resourceType": "Appointment", "meta": TEST_DATA,
        "identifier": [identifier(appointment_system(ASSIGNER), value)],
        "status": outcome, "description": case.exam.display, "start": _utc(start), "end": _utc(start + timedelta(minutes=case.minutes)),
        "minutesDuration": case.minutes, "created": _utc(start - timedelta(days=20)),
        "participant": [{"actor": patient.reference, "status": "accepted"}],
    }  # fmt: skip
    return bundle.create(resource, {"identifier": f"{appointment_system(ASSIGNER)}|{value}"})


def _report(case: Case, prior: Prior, patient: Entry) -> Entry:
    """Return the earlier report alone: its order was never in this house, so no case begins with it."""
    words = tomllib.loads((files("arcuate.hospital") / "data" / "words.toml").read_text(encoding="utf-8"))
    text = words["priors"][0].format(exam=case.exam.display)
    number = f"{case.accession}-P"
    when = _utc(prior.reported)
    system = report_system(ASSIGNER)
    report: Json = {
        "resourceType": "DiagnosticReport", "meta": TEST_DATA, "identifier": [{"system": system, "value": number}],
        "status": "final", "code": concept(CS_EXAM, case.exam.code, case.exam.display, case.exam.display),
        "subject": patient.reference, "effectiveDateTime": when, "issued": when,
        "resultsInterpreter": [
            {"display": prior.reader, "identifier": {"system": SYSTEM_READER, "value": prior.reader}},
        ],
        "presentedForm": [
            {"contentType": "text/plain; charset=utf-8", "data": base64.b64encode(text.encode()).decode()},
        ],
    }  # fmt: skip
    return bundle.create(report, {"identifier": f"{system}|{number}"})


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
