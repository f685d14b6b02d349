"""Entries of the trail as FHIR AuditEvent (R4, 6.4), read-only."""

from arcuate.kernel.errors import Json
from arcuate.record.audit.trail import Kept
from arcuate.record.domain import instant
from arcuate.record.indexing import datetime_of
from arcuate.record.transactions import CLIENT_SYSTEM, PERSON_SYSTEM

_ACTIONS = {
    "create": "C",
    "update": "U",
    "delete": "D",
    "read": "R",
    "vread": "R",
    "transaction": "E",
    "batch": "E",
    "patch": "U",
    "operation": "E",
}
_SHOWN = 200


def audit_event(kept: Kept) -> Json:
    """Return an entry as an AuditEvent; its id is the entry's number."""
    entry = kept.entry
    made: Json = {
        "resourceType": "AuditEvent",
        "id": str(kept.number),
        "type": {
            "system": "http://terminology.hl7.org/CodeSystem/audit-event-type",
            "code": "rest",
            "display": "RESTful Operation",
        },
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": entry.interaction}],
        "action": _ACTIONS.get(entry.interaction, "R"),
        "recorded": instant(datetime_of(entry.at)),
        "outcome": entry.outcome,
        "agent": _agents(kept),
        "source": {"observer": {"display": "Arcuate record"}},
    }
    entities: list[Json] = [{"what": {"reference": target}} for target in entry.targets[:_SHOWN]]
    # Role 1 is Patient, type 1 a person (tables object-role and audit-entity-type).
    entities += [
        {
            "what": {"reference": f"Patient/{patient}"},
            "role": {"system": "http://terminology.hl7.org/CodeSystem/object-role", "code": "1", "display": "Patient"},
        }
        for patient in entry.patients[:_SHOWN]
        if f"Patient/{patient}" not in entry.targets
    ]
    if entry.detail:
        entities.append({"name": entry.detail if entry.interaction == "operation" else f"search by {entry.detail}"})
    if entities:
        made["entity"] = entities
    return made


def _agents(kept: Kept) -> list[Json]:
    entry = kept.entry
    program: Json = {
        "who": {"identifier": {"system": CLIENT_SYSTEM, "value": entry.client}}, "requestor": entry.person == entry.client,
    }  # fmt: skip
    if entry.person == entry.client:
        return [program]
    person: Json = {"who": {"identifier": {"system": PERSON_SYSTEM, "value": entry.person}}, "requestor": True}
    if entry.name:
        person["name"] = entry.name
    return [person, program]
