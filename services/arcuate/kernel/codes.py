"""Identifier and code systems, UCUM units, and small builders for the FHIR data types that carry them."""

from decimal import Decimal
from enum import StrEnum
from typing import Any, NewType
from urllib.parse import quote

Json = dict[str, Any]

Accession = NewType("Accession", str)

SYSTEM_ACCESSION = "urn:arcuate:id:accession"
SYSTEM_JOURNAL = "urn:arcuate:id:journal"
SYSTEM_DRAFT = "urn:arcuate:id:report:draft"
SYSTEM_DICOM_UID = "urn:dicom:uid"

CS_EXAM = "urn:arcuate:cs:exam"
CS_FLAG = "urn:arcuate:cs:flag"
CS_PROTOCOL = "urn:arcuate:cs:protocol"
CS_STRUCTURE = "urn:arcuate:cs:structure"
CS_FORECAST = "urn:arcuate:cs:forecast"
CS_SKILL = "urn:arcuate:cs:skill"
CS_RECEIPT = "urn:arcuate:cs:receipt"
CS_TASK = "urn:arcuate:cs:task"
CS_ASK = "urn:arcuate:cs:ask"
CS_DELIVERY = "urn:arcuate:cs:delivery"
CS_REFUSAL = "urn:arcuate:cs:refusal"
CS_HISTORY = "urn:arcuate:cs:history"
CS_KNOWN = "urn:arcuate:cs:known"
"""How a question about a patient was answered (List.entry.flag): `answered`, `silent`, `refused`, `no-such-patient`."""

EXT_CHANGED = "urn:arcuate:ext:changed"
"""When the system that something of the past was taken over from had last changed it (valueInstant): `meta.lastUpdated` says when we did."""

CS_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
CS_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
CS_LOINC = "http://loinc.org"
CS_SNOMED = "http://snomed.info/sct"
CS_UCUM = "http://unitsofmeasure.org"

IMAGING_CATEGORY: Json = {
    "coding": [{"system": CS_SNOMED, "code": "363679005", "display": "Imaging"}],
}


class Laterality(StrEnum):
    """Side of the body; in text always in full."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"


class Ucum(StrEnum):
    """Units that the house writes (UCUM, case sensitive)."""

    MILLILITRE = "mL"
    MILLIMETRE = "mm"
    MINUTE = "min"
    PERCENT = "%"
    ONE = "1"


def patient_system(authority: str) -> str:
    """Return the identifier system of a patient number's assigner (CX-4.1, IssuerOfPatientID, or `from.MSH-3.MSH-4`)."""
    return f"urn:arcuate:id:patient:{quote(authority, safe='')}"


def placer_system(authority: str) -> str:
    """Return the identifier system of placer order numbers."""
    return f"urn:arcuate:id:placer:{quote(authority, safe='')}"


def filler_system(authority: str) -> str:
    """Return the identifier system of filler order numbers."""
    return f"urn:arcuate:id:filler:{quote(authority, safe='')}"


def appointment_system(authority: str) -> str:
    """Return the identifier system of appointment numbers (SCH-1, SCH-2)."""
    return f"urn:arcuate:id:appointment:{quote(authority, safe='')}"


def visit_system(authority: str) -> str:
    """Return the identifier system of visit numbers (PV1-19)."""
    return f"urn:arcuate:id:visit:{quote(authority, safe='')}"


def report_system(authority: str) -> str:
    """Return the identifier system of report numbers of a sender."""
    return f"urn:arcuate:id:report:{quote(authority, safe='')}"


def job_system(room: str) -> str:
    """Return the identifier system of a room's own transactions (Bundle.identifier)."""
    return f"urn:arcuate:id:job:{quote(room, safe='')}"


def coding(system: str, code: str, display: str | None = None) -> Json:
    """Return a Coding."""
    made: Json = {"system": system, "code": code}
    if display:
        made["display"] = display
    return made


def concept(system: str, code: str, display: str | None = None, text: str | None = None) -> Json:
    """Return a CodeableConcept with one coding."""
    made: Json = {"coding": [coding(system, code, display)]}
    if text:
        made["text"] = text
    return made


def identifier(system: str, value: str, kind: str | None = None) -> Json:
    """Return an Identifier; `kind` is a code of HL7 table 0203 (`MR`, `ACSN`, `PLAC`, `FILL`, `VN`)."""
    made: Json = {"system": system, "value": value}
    if kind:
        made["type"] = concept(CS_V2_0203, kind)
    return made


def accession_identifier(value: str) -> Json:
    """Return the Identifier of an accession number."""
    return identifier(SYSTEM_ACCESSION, value, "ACSN")


def study_uid_identifier(uid: str) -> Json:
    """Return the Identifier of a DICOM Study Instance UID (FHIR R4 ImagingStudy.identifier)."""
    return {"system": SYSTEM_DICOM_UID, "value": f"urn:oid:{uid}"}


def reference(resource_type: str, logical_id: str, display: str | None = None) -> Json:
    """Return a relative Reference."""
    made: Json = {"reference": f"{resource_type}/{logical_id}"}
    if display:
        made["display"] = display
    return made


def quantity(value: Decimal | int | float | str, unit: Ucum | str) -> Json:
    """Return a Quantity in UCUM; floats become the shortest decimal that reads back equal."""
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    return {"value": number, "unit": str(unit), "system": CS_UCUM, "code": str(unit)}


def identifier_value(resource: Json, system: str) -> str | None:
    """Return the first identifier value of that system, or None."""
    identifiers = resource.get("identifier") or []
    if isinstance(identifiers, dict):
        identifiers = [identifiers]
    return next((str(i["value"]) for i in identifiers if i.get("system") == system and "value" in i), None)


def accession_of(resource: Json) -> Accession | None:
    """Return the accession number that a resource carries, or None."""
    value = identifier_value(resource, SYSTEM_ACCESSION)
    return Accession(value) if value else None


_ELSEWHERE = "urn:arcuate:id:elsewhere:"


def elsewhere_system(source: str) -> str:
    """Return the identifier system by which resources of another FHIR server are known here (value `Type/id` there)."""
    return _ELSEWHERE + quote(source, safe="")


def is_from_elsewhere(resource: Json) -> bool:
    """Say whether another FHIR server has told of a resource."""
    return any(str(one.get("system", "")).startswith(_ELSEWHERE) for one in resource.get("identifier") or [])


HISTORY_TAG: Json = {"system": CS_HISTORY, "code": "backfill", "display": "Taken over from before the start"}


def is_history(resource: Json | None) -> bool:
    """Say whether a resource was taken over from the past: it is read and learned from, and moves nothing."""
    tags = ((resource or {}).get("meta") or {}).get("tag") or []
    return any(isinstance(one, dict) and one.get("system") == CS_HISTORY for one in tags)
