"""CDS Hooks prefetch: what the service asks for, and the guard that only this patient's resources are looked at.

The service answers from prefetch alone: `fhirServer` and its token in a request are not used and not kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from arcuate.kernel.errors import BadInput, PreconditionFailed
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.resources import Json, entries, objects, string

_LABS = "98979-8,62238-1,2160-0,6301-6,777-3,2106-3,2118-8,82810-3,18185-9,29463-7"
_OF = "patient={{context.patientId}}"


@dataclass(frozen=True)
class Source:
    """One prefetch key.

    Attributes:
        kind: Resource type that it brings.
        chart: Field of `Chart` that it fills.
        template: The prefetch template.
        words: What it is, for the card that says it was missing.
    """

    kind: str
    chart: str
    template: str
    words: str


SOURCES: dict[str, Source] = {
    "patient": Source("Patient", "patient", "Patient/{{context.patientId}}", "the patient"),
    "encounters": Source("Encounter", "encounters", f"Encounter?{_OF}", "visits"),
    "observations": Source(
        "Observation",
        "observations",
        f"Observation?{_OF}&code={_LABS}",
        "laboratory results, weight and pregnancy status",
    ),
    "conditions": Source("Condition", "conditions", f"Condition?{_OF}", "conditions"),
    "devices": Source("Device", "devices", f"Device?{_OF}", "implants and devices"),
    "allergies": Source("AllergyIntolerance", "allergies", f"AllergyIntolerance?{_OF}", "allergies"),
    "statements": Source("MedicationStatement", "medications", f"MedicationStatement?{_OF}", "medicines"),
    "prescriptions": Source("MedicationRequest", "medications", f"MedicationRequest?{_OF}", "prescriptions"),
    "orders": Source("ServiceRequest", "orders", f"ServiceRequest?{_OF}", "earlier orders"),
    "studies": Source("ImagingStudy", "studies", f"ImagingStudy?{_OF}", "earlier images"),
    "reports": Source("DiagnosticReport", "reports", f"DiagnosticReport?{_OF}", "earlier reports"),
    "appointments": Source("Appointment", "appointments", f"Appointment?{_OF}", "appointments"),
}

_SUBJECT = {"Device": "patient", "AllergyIntolerance": "patient"}


@dataclass
class Received:
    """What a request brought.

    Attributes:
        found: By chart field: the resources, None while nobody sent that key.
        missing: What was not sent, null or an error, in words.
        partial: Of what only the first page came, in words.
        unattributed: Resources that name no patient and were left out.
    """

    found: dict[str, list[Json] | None] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    unattributed: int = 0


def receive(prefetch: Any, patient_id: str) -> Received:
    """Sort a request's prefetch.

    Raises:
        PreconditionFailed: A resource is about another patient.
        BadInput: `prefetch` is no object.
    """
    if prefetch is not None and not isinstance(prefetch, dict):
        raise BadInput("prefetch is an object of resources by key", where="prefetch")
    given: Json = prefetch or {}
    received = Received()
    for key, source in SOURCES.items():
        answer = given.get(key)
        if not isinstance(answer, dict) or not _usable(answer, source):
            received.missing.append(source.words)
            continue
        if answer.get("resourceType") == "Bundle" and any(
            link.get("relation") == "next" for link in objects(answer.get("link"))
        ):
            received.partial.append(source.words)
        kept = received.found.get(source.chart) or []
        received.found[source.chart] = kept
        for resource in entries(answer):
            if resource.get("resourceType") == source.kind and _belongs(resource, patient_id, key, received):
                kept.append(resource)
    return received


def _usable(answer: Json, source: Source) -> bool:
    """An OperationOutcome or another type counts as not sent, like null: nothing known is not none."""
    return (
        answer.get("resourceType") == ("Patient" if source.kind == "Patient" else "Bundle")
        and answer.get("type") != "transaction-response"
    )


def _belongs(resource: Json, patient_id: str, key: str, received: Received) -> bool:
    named = list(patients_of(resource))
    if any(name != patient_id for name in named if name):
        raise PreconditionFailed(
            "The prefetch holds a resource of another patient than context.patientId; nothing was checked",
            where=f"prefetch.{key}",
            todo="Fill the prefetch from the templates of /cds-services.",
        )
    if not any(named):
        received.unattributed += 1
        return False
    return True


def patients_of(resource: Json) -> Iterator[str]:
    """Yield the ids of the patients that a resource is about; empty for a reference that is no `Patient/id`."""
    kind = resource.get("resourceType")
    if kind == "Patient":
        yield string(resource.get("id"))
    elif kind == "Appointment":
        for participant in objects(resource.get("participant")):
            actor = participant.get("actor")
            if isinstance(actor, dict) and "Patient/" in string(actor.get("reference")):
                yield _patient_id(actor)
    else:
        subject = resource.get(_SUBJECT.get(str(kind), "subject"))
        if isinstance(subject, dict):
            yield _patient_id(subject)


def _patient_id(reference: Json) -> str:
    parts = string(reference.get("reference")).split("/_history/")[0].split("/")
    return parts[-1] if len(parts) >= 2 and parts[-2] == "Patient" else ""


def chart_of(order: Json, received: Received, now: datetime) -> Chart:
    """Return the chart of one draft order."""

    def found(name: str) -> tuple[Json, ...] | None:
        kept = received.found.get(name)
        return None if kept is None else tuple(kept)

    patient = next(iter(received.found.get("patient") or ()), None)
    # A list of medicines without the prescriptions, or the other way round, is not the whole list; it is used as far as it goes.
    return Chart(
        order=order,
        now=now,
        patient=patient,
        encounters=found("encounters"),
        observations=found("observations"),
        conditions=found("conditions"),
        devices=found("devices"),
        allergies=found("allergies"),
        medications=found("medications"),
        orders=found("orders"),
        studies=found("studies"),
        reports=found("reports"),
        appointments=found("appointments"),
        partial=tuple(received.partial),
    )
