"""What is known of a case: read from the record, nothing kept here."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.journey.domain import Facts, arrived, has_images, same_person, scanned
from arcuate.journey.settings import JourneySettings
from arcuate.journey.store import answers
from arcuate.journey.tables import CaseRow
from arcuate.kernel.codes import CS_TASK
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient

_OPEN_TASK = "ready,accepted,in-progress,on-hold,requested,received"
_CHART = ("Observation", "AllergyIntolerance", "Condition", "Device")


@dataclass(frozen=True)
class Gathered:
    """Facts, and what a person or a join must settle first.

    Attributes:
        unjoined: Studies of this accession that agree with the order's patient but are not joined yet.
    """

    facts: Facts
    unjoined: tuple[Json, ...] = ()


async def gather(
    fhir: FhirClient, row: CaseRow, studies: list[str], now: datetime, settings: JourneySettings
) -> Gathered:
    """Read everything about a case."""
    images = await _read_all(fhir, studies)
    if row.order_id is None:
        return Gathered(Facts(answered=answers(row)))
    order = await fhir.read("ServiceRequest", row.order_id)
    patient_id = reference_id(order.get("subject"), "Patient")
    based_on = {"based-on": f"ServiceRequest/{row.order_id}"}
    searches = (
        fhir.search("Appointment", based_on),
        fhir.search("Procedure", based_on),
        fhir.search("Observation", based_on),
        fhir.search("DetectedIssue", {"implicated": f"ServiceRequest/{row.order_id}"}),
        fhir.search("Task", {"focus": f"ServiceRequest/{row.order_id}"}),
        fhir.search("DiagnosticReport", based_on),
        fhir.search("Communication", based_on),
        _chart(fhir, patient_id),
    )
    appointments, procedures, observations, flags, tasks, reports, communications, chart = await asyncio.gather(
        *searches
    )
    patient = await _read_or_none(fhir, "Patient", patient_id)
    joined, unjoined, held = _sort_studies(images, row, patient)
    facts = Facts(
        order=order, patient=patient, appointments=tuple(appointments), procedures=tuple(procedures), studies=joined,
        observations=tuple(o for o in observations if o.get("derivedFrom")), chart=tuple(chart),
        flags=tuple(f for f in flags if f.get("status") not in ("cancelled", "entered-in-error")),
        tasks=tuple(t for t in tasks if _is_reading(t)), reports=tuple(reports), communications=tuple(communications),
        answered=answers(row), held=held,
    )  # fmt: skip
    return Gathered(_with_times(facts, row, now, settings), unjoined)


def _sort_studies(
    images: list[Json], row: CaseRow, patient: Json | None
) -> tuple[tuple[Json, ...], tuple[Json, ...], str]:
    joined: list[Json] = []
    unjoined: list[Json] = []
    held = ""
    for study in images:
        if reference_id(study.get("subject"), "Patient"):
            joined.append(study)
            continue
        said: Json = next((c for c in study.get("contained", ()) if c.get("resourceType") == "Patient"), {})
        conflict = same_person(patient or {}, said)
        if conflict and f"ImagingStudy/{study['id']}" not in row.released.split():
            held = f"identity conflict between images and order ({conflict})"
        else:
            unjoined.append(study)
    return tuple(joined), tuple(unjoined), held


def _with_times(facts: Facts, row: CaseRow, now: datetime, settings: JourneySettings) -> Facts:
    """Add what depends on time: images overdue, and a missed visit that has expired."""
    overdue = (
        row.scanned_at is not None
        and not has_images(facts)
        and now >= row.scanned_at + timedelta(seconds=settings.images_wait_s)
    )
    expired = (
        row.missed_at is not None
        and missed(facts)
        and now >= row.missed_at + timedelta(seconds=settings.no_show_expiry_s)
    )
    return Facts(**{**facts.__dict__, "images_overdue": overdue, "expired": expired})


def missed(facts: Facts) -> bool:
    """The patient did not come, and nothing new is booked."""
    return (
        any(a.get("status") == "noshow" for a in facts.appointments)
        and facts.open_appointment is None
        and not arrived(facts)
        and not scanned(facts)
    )


def _is_reading(task: Json) -> bool:
    return any(c.get("system") == CS_TASK and c.get("code") == "read" for c in task.get("code", {}).get("coding", ()))


async def _chart(fhir: FhirClient, patient_id: str | None) -> list[Json]:
    """Return what the chart holds: laboratory results, allergies, conditions, devices; never our own measurements."""
    if patient_id is None:
        return []
    found = await asyncio.gather(*(fhir.search(kind, {"patient": f"Patient/{patient_id}"}) for kind in _CHART))
    return [r for kind in found for r in kind if not r.get("derivedFrom") and not r.get("focus")]


async def _read_or_none(fhir: FhirClient, resource_type: str, logical_id: str | None) -> Json | None:
    if logical_id is None:
        return None
    try:
        return await fhir.read(resource_type, logical_id)
    except NotFound:
        return None


async def _read_all(fhir: FhirClient, references: Iterable[str]) -> list[Json]:
    found = await asyncio.gather(*(_read_or_none(fhir, *reference.split("/", 1)) for reference in references))
    return [resource for resource in found if resource is not None]


async def material(fhir: FhirClient, name: str, facts: Facts) -> list[Json]:
    """Return the resources that a question takes under a name of the stage table."""
    patient_id = facts.patient["id"] if facts.patient else None
    match name:
        case "past_appointments":
            return await fhir.search("Appointment", {"patient": f"Patient/{patient_id}"}) if patient_id else []
        case "day_appointments":
            return await _day(fhir, facts)
        case "tasks_of_all":
            return await _open_tasks(fhir)
        case "roster":
            kinds = ("Practitioner", "PractitionerRole", "Schedule", "Slot")
            return [r for found in await asyncio.gather(*(fhir.search(kind) for kind in kinds)) for r in found]
        case "prior_reports":
            reports = await fhir.search("DiagnosticReport", {"patient": f"Patient/{patient_id}"}) if patient_id else []
            here = {r["id"] for r in facts.reports}
            return [
                r
                for r in reports
                if r["id"] not in here and r.get("status") in ("final", "amended", "corrected", "appended")
            ]
        case "earlier":
            if not patient_id:
                return []
            query = {"patient": f"Patient/{patient_id}"}
            found = await asyncio.gather(fhir.search("ServiceRequest", query), fhir.search("Appointment", query))
            return [r for kind in found for r in kind]
    value = getattr(facts, name)
    return [] if value is None else [value] if isinstance(value, dict) else list(value)


async def _open_tasks(fhir: FhirClient) -> list[Json]:
    tasks = [t for t in await fhir.search("Task", {"status": _OPEN_TASK}) if _is_reading(t)]
    orders = {reference_id(t.get("focus"), "ServiceRequest") for t in tasks} - {None}
    return [*tasks, *await _read_all(fhir, sorted(f"ServiceRequest/{order}" for order in orders))]


async def _day(fhir: FhirClient, facts: Facts) -> list[Json]:
    appointment = facts.open_appointment
    day = str((appointment or {}).get("start", ""))[:10]
    return await fhir.search("Appointment", {"date": day}) if day else []
