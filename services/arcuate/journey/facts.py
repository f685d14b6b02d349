"""What is known of a case: read from the record, nothing kept here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from arcuate.journey.domain import Facts, arrived, conflict_of, has_images, scanned
from arcuate.journey.settings import JourneySettings
from arcuate.journey.store import answers
from arcuate.journey.tables import CaseRow
from arcuate.kernel.codes import CS_TASK
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient, Query

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
_BASED_ON = ("Appointment", "Procedure", "Observation", "DiagnosticReport", "Communication")
_OF_PATIENT = {
    "past_appointments": ("Appointment",),
    "prior_reports": ("DiagnosticReport",),
    "prior_studies": ("ImagingStudy",),
    "visits": ("Encounter",),
    "earlier": ("ServiceRequest", "Appointment"),
}
_SIGNED = ("final", "amended", "corrected", "appended")
_MERGE_STEPS = 8

Question = tuple[str, Query]


@dataclass(frozen=True)
class Found:
    """What the record holds of a case, as it was read.

    Attributes:
        order_id, links: What was asked for.
        tasks: All Tasks about the order, whatever they ask.
        people: The patient and everybody merged with it; the last one is who counts.
    """

    order_id: str | None
    links: tuple[str, ...]
    images: tuple[Json, ...] = ()
    order: Json | None = None
    flags: tuple[Json, ...] = ()
    tasks: tuple[Json, ...] = ()
    appointments: tuple[Json, ...] = ()
    procedures: tuple[Json, ...] = ()
    observations: tuple[Json, ...] = ()
    reports: tuple[Json, ...] = ()
    communications: tuple[Json, ...] = ()
    chart: tuple[Json, ...] = ()
    people: tuple[Json, ...] = ()

    def with_written(self, stored: Iterable[Json]) -> "Found | None":
        """Return this with what was written since, so that it need not be read back; None where only the record can tell."""
        made = self
        for resource in stored:
            kind = resource["resourceType"]
            if kind in _NO_FACTS or (
                kind == "Observation" and resource.get("focus") and not resource.get("derivedFrom")
            ):
                continue
            if kind not in _WRITTEN or "urn:uuid:" in str(resource):
                return None
            if kind == "Task" and reference_id(resource.get("focus"), "ServiceRequest") != self.order_id:
                continue  # readers are given out over several cases
            name = _WRITTEN[kind]
            before: tuple[Json, ...] = getattr(made, name)
            known = any(one["id"] == resource["id"] for one in before)
            after = [resource if one["id"] == resource["id"] else one for one in before] + [resource] * (not known)
            changed: dict[str, Any] = {name: tuple(after)}
            made = replace(made, **changed)
        return made


_WRITTEN = {"DetectedIssue": "flags", "Task": "tasks", "DiagnosticReport": "reports"}
_NO_FACTS = frozenset({"RiskAssessment", "Provenance"})


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


async def find(fhir: FhirClient, row: CaseRow, studies: list[str]) -> Found:
    """Read everything about a case, in one question to the record; a second one where the patient is new to the case or was merged."""
    asked_of = row.patient_id  # who it was at the last look; another one is asked about below
    questions = [_by_id("ImagingStudy", [one.split("/", 1)[1] for one in studies])] if studies else []
    if row.order_id is not None:
        questions += [*_of_order(row.order_id), *_of_patient(asked_of)]
    found = iter(await fhir.searches(questions))
    images = tuple(sorted(next(found), key=lambda one: str(one["id"]))) if studies else ()
    if row.order_id is None:
        return Found(None, tuple(studies), images)
    orders, flags, tasks, *based_on = (tuple(next(found)) for _ in _of_order(row.order_id))
    if not orders:
        raise NotFound("There is no ServiceRequest here", where=f"case {row.id}")
    [order] = orders
    patient_id = reference_id(order.get("subject"), "Patient")
    if patient_id != asked_of:
        found = iter(await fhir.searches(_of_patient(patient_id)))
    patients, *charts = list(found) or [[]]
    chart = tuple(r for kind in charts for r in kind if not r.get("derivedFrom") and not r.get("focus"))
    people = tuple(await _people(fhir, patient_id, patients))
    appointments, procedures, observations, reports, communications = based_on
    return Found(
        row.order_id, tuple(studies), images, order, flags, tasks, appointments, procedures, observations, reports, communications,
        chart, people,
    )  # fmt: skip


def gathered(found: Found, row: CaseRow, now: datetime, settings: JourneySettings) -> Gathered:
    """Return what is known of a case: what the record holds, and what its row says."""
    if found.order is None:
        return Gathered(Facts(answered=answers(row)))
    sorted_ = _sort_studies(found.images, row, found.people)
    facts = Facts(
        order=found.order, patient=found.people[-1] if found.people else None, people=found.people,
        appointments=found.appointments, procedures=found.procedures, studies=sorted_.joined,
        observations=tuple(o for o in found.observations if o.get("derivedFrom")), chart=found.chart,
        flags=tuple(f for f in found.flags if f.get("status") not in ("cancelled", "entered-in-error")),
        tasks=tuple(t for t in found.tasks if is_task(t, "read")),
        late=tuple(t for t in found.tasks if is_task(t, "late-images")),
        reports=found.reports, communications=found.communications, answered=answers(row), held=sorted_.held,
        read_with=None if row.read_with is None else frozenset(row.read_with.split()),
    )  # fmt: skip
    return Gathered(_with_times(facts, row, now, settings), sorted_.unjoined, sorted_.kept_out)


def _of_order(order_id: str) -> list[Question]:
    order = f"ServiceRequest/{order_id}"
    return [
        _by_id("ServiceRequest", [order_id]),
        ("DetectedIssue", {"implicated": order}),
        ("Task", {"focus": order}),
        *((kind, {"based-on": order}) for kind in _BASED_ON),
    ]


def _of_patient(patient_id: str | None) -> list[Question]:
    """Ask for a patient and what the chart holds: laboratory results, allergies, conditions, devices, medicines."""
    if patient_id is None:
        return []
    return [_by_id("Patient", [patient_id]), *((kind, {"patient": f"Patient/{patient_id}"}) for kind in _CHART)]


def _by_id(resource_type: str, ids: Iterable[str]) -> Question:
    return resource_type, {"_id": ",".join(ids)}


async def _people(fhir: FhirClient, patient_id: str | None, patients: Iterable[Json]) -> list[Json]:
    """Return the patient of an order and everybody merged with it; the last one is who counts.

    `replaced-by` alone says that two are one, as in the record's searches; `replaces` only says where to look.
    """
    known = {str(patient["id"]): patient for patient in patients}
    asked = {patient_id}
    for _ in range(_MERGE_STEPS):
        linked = {other for p in known.values() for kind in ("replaced-by", "replaces") for other in _linked(p, kind)}
        wanted = sorted(linked - asked)
        if not wanted:
            break
        asked |= set(wanted)
        known |= {str(patient["id"]): patient for patient in await fhir.search(*_by_id("Patient", wanted))}
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


def _sort_studies(images: Iterable[Json], row: CaseRow, people: Sequence[Json]) -> _Sorted:
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


async def material(fhir: FhirClient, names: Iterable[str], facts: Facts) -> list[Json]:
    """Return the resources that a question takes under names of the stage table, asking the record once."""
    listed = list(names)
    questions = {name: _questions(name, facts) for name in listed}
    found = iter(await fhir.searches([one for name in listed for one in questions[name]]))
    answered = {name: [resource for _ in questions[name] for resource in next(found)] for name in listed}
    return [resource for name in listed for resource in _taken(name, answered[name], facts)]


def _questions(name: str, facts: Facts) -> list[Question]:
    """Return what the record is asked for a name, beyond the facts; nothing where they hold it."""
    of_patient = {"patient": f"Patient/{facts.patient['id']}"} if facts.patient else None
    match name:
        case "tasks_of_all":
            return [("Task", {"status": _OPEN_TASK, "_include": "Task:focus"})]
        case "roster":
            return [(kind, {}) for kind in ("Practitioner", "PractitionerRole", "Schedule", "Slot")]
        case "day_appointments":
            day = str((facts.open_appointment or {}).get("start", ""))[:10]
            return [("Appointment", {"date": day})] if day else []
    return [(kind, of_patient) for kind in _OF_PATIENT.get(name, ())] if of_patient else []


def _taken(name: str, found: list[Json], facts: Facts) -> list[Json]:
    """Return of what was found, or of the facts, what is meant by a name."""
    match name:
        case "tasks_of_all":
            tasks = [t for t in found if t["resourceType"] == "Task" and is_task(t, "read")]
            orders = {reference_id(t.get("focus"), "ServiceRequest") for t in tasks}
            of_tasks = (r for r in found if r["resourceType"] == "ServiceRequest" and r["id"] in orders)
            return [*tasks, *sorted(of_tasks, key=lambda order: str(order["id"]))]
        case "prior_reports":
            here = {r["id"] for r in facts.reports}
            return [r for r in found if r["id"] not in here and r.get("status") in _SIGNED]
        case "prior_studies":
            here = {s["id"] for s in facts.studies}
            return [s for s in found if s["id"] not in here]
        case "past_appointments" | "day_appointments" | "roster" | "visits" | "earlier":
            return found
    value = getattr(facts, name)
    return [] if value is None else [value] if isinstance(value, dict) else list(value)
