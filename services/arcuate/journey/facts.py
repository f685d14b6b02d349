"""What is known of a case: read from the record, nothing kept here."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.journey.domain import Facts, arrived, conflict_of, has_images, scanned
from arcuate.journey.settings import JourneySettings
from arcuate.journey.store import answers
from arcuate.journey.tables import CaseRow
from arcuate.kernel.codes import CS_TASK
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient

_OPEN_TASK = "ready,accepted,in-progress,on-hold,requested,received"
_CHART = (
    "Observation",
    "AllergyIntolerance",
    "Condition",
    "Device",
    "MedicationRequest",
    "MedicationStatement",
    "List",
)
_MERGE_STEPS = 8


@dataclass(frozen=True)
class Gathered:
    """Facts, and what a person or a join must settle first.

    Attributes:
        unjoined: Studies of this accession that agree with the order's patient but are not joined yet.
        kept_out: Studies that a person has kept out, or that wait for one.
    """

    facts: Facts
    unjoined: tuple[Json, ...] = ()
    kept_out: tuple[Json, ...] = ()


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
    people = await _people(fhir, patient_id)
    sorted_ = _sort_studies(images, row, people)
    facts = Facts(
        order=order, patient=people[-1] if people else None, people=tuple(people), appointments=tuple(appointments),
        procedures=tuple(procedures), studies=sorted_.joined,
        observations=tuple(o for o in observations if o.get("derivedFrom")), chart=tuple(chart),
        flags=tuple(f for f in flags if f.get("status") not in ("cancelled", "entered-in-error")),
        tasks=tuple(t for t in tasks if is_task(t, "read")), late=tuple(t for t in tasks if is_task(t, "late-images")),
        reports=tuple(reports), communications=tuple(communications), answered=answers(row), held=sorted_.held,
        read_with=None if row.read_with is None else frozenset(row.read_with.split()),
    )  # fmt: skip
    return Gathered(_with_times(facts, row, now, settings), sorted_.unjoined, sorted_.kept_out)


async def _people(fhir: FhirClient, patient_id: str | None) -> list[Json]:
    """Return the patient of an order and everybody merged with it; the last one is who counts.

    `replaced-by` alone says that two are one, as in the record's searches; `replaces` only says where to look.
    """
    known: dict[str, Json] = {}
    wanted = {patient_id} - {None}
    for _ in range(_MERGE_STEPS):
        read = await asyncio.gather(*(_read_or_none(fhir, "Patient", one) for one in sorted(map(str, wanted))))
        known |= {patient["id"]: patient for patient in read if patient is not None}
        wanted = {other for p in known.values() for kind in ("replaced-by", "replaces") for other in _linked(p, kind)}
        if not wanted - set(known):
            break
        wanted -= set(known)
    return _one_person(known, patient_id)


def _one_person(known: Mapping[str, Json], patient_id: str | None) -> list[Json]:
    if patient_id is None or patient_id not in known:
        return []
    merges = [(loser, winner) for loser, patient in known.items() for winner in _linked(patient, "replaced-by")]
    family = {patient_id}
    for _ in known:
        family |= {one for pair in merges for one in pair if family & set(pair)}
    counts = patient_id
    for _ in known:
        counts = next((winner for loser, winner in merges if loser == counts and winner in known), counts)
    return [known[one] for one in sorted(family & set(known)) if one != counts] + [known[counts]]


def _linked(patient: Json, kind: str) -> list[str]:
    links = [link for link in patient.get("link", ()) if link.get("type") == kind]
    return [other for link in links if (other := reference_id(link.get("other"), "Patient"))]


@dataclass(frozen=True)
class _Sorted:
    joined: tuple[Json, ...]
    unjoined: tuple[Json, ...]
    kept_out: tuple[Json, ...]
    held: str


def _sort_studies(images: list[Json], row: CaseRow, people: list[Json]) -> _Sorted:
    joined: list[Json] = []
    unjoined: list[Json] = []
    kept_out: list[Json] = []
    held = ""
    for study in images:
        name = f"ImagingStudy/{study['id']}"
        if reference_id(study.get("subject"), "Patient"):
            joined.append(study)
            continue
        said: Json = next((c for c in study.get("contained", ()) if c.get("resourceType") == "Patient"), {})
        conflict = conflict_of(people, said)
        if not conflict or name in row.released.split():
            unjoined.append(study)
            continue
        kept_out.append(study)
        if name not in row.set_aside.split():
            held = f"identity conflict between images and order ({conflict})"
    return _Sorted(tuple(joined), tuple(unjoined), tuple(kept_out), held)


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
        and not facts.booking_asked
        and not arrived(facts)
        and not scanned(facts)
    )


def is_task(task: Json, code: str) -> bool:
    """Say whether a Task is one of the house's own of this code."""
    return any(c.get("system") == CS_TASK and c.get("code") == code for c in task.get("code", {}).get("coding", ()))


async def _chart(fhir: FhirClient, patient_id: str | None) -> list[Json]:
    """Return what the chart holds: laboratory results, allergies, conditions, devices, medicines; never our own measurements."""
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
        case "prior_studies":
            studies = await fhir.search("ImagingStudy", {"patient": f"Patient/{patient_id}"}) if patient_id else []
            here = {s["id"] for s in facts.studies}
            return [s for s in studies if s["id"] not in here]
        case "visits":
            return await fhir.search("Encounter", {"patient": f"Patient/{patient_id}"}) if patient_id else []
        case "earlier":
            if not patient_id:
                return []
            query = {"patient": f"Patient/{patient_id}"}
            found = await asyncio.gather(fhir.search("ServiceRequest", query), fhir.search("Appointment", query))
            return [r for kind in found for r in kind]
    value = getattr(facts, name)
    return [] if value is None else [value] if isinstance(value, dict) else list(value)


async def _open_tasks(fhir: FhirClient) -> list[Json]:
    tasks = [t for t in await fhir.search("Task", {"status": _OPEN_TASK}) if is_task(t, "read")]
    orders = {reference_id(t.get("focus"), "ServiceRequest") for t in tasks} - {None}
    return [*tasks, *await _read_all(fhir, sorted(f"ServiceRequest/{order}" for order in orders))]


async def _day(fhir: FhirClient, facts: Facts) -> list[Json]:
    appointment = facts.open_appointment
    day = str((appointment or {}).get("start", ""))[:10]
    return await fhir.search("Appointment", {"date": day}) if day else []
