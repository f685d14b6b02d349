"""Vignettes (one order with its chart as short facts) made into FHIR R4 resources, as an EHR would send them."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

PATIENT = "p1"
_LOINC = "http://loinc.org"
_SCT = "http://snomed.info/sct"
_ICD = "http://hl7.org/fhir/sid/icd-10-cm"
_EXAM = "urn:arcuate:cs:exam"


def order_of(vignette: Json, status: str = "draft") -> Json:
    """The ServiceRequest of a vignette."""
    reasons: list[Json] = [{"text": vignette["indication"]}] if vignette.get("indication", "").strip() else []
    reasons += [{"coding": [{"system": _ICD, "code": code}]} for code in vignette.get("icd10cm", [])]
    order: Json = {
        "resourceType": "ServiceRequest",
        "id": "draft-1",
        "status": status,
        "intent": "order",
        "priority": vignette.get("priority", "routine"),
        "code": {"coding": [{"system": _EXAM, **vignette["ordered"]}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
    }
    if reasons:
        order["reasonCode"] = reasons
    return order


def patient_of(vignette: Json, now: datetime) -> Json:
    """The Patient, of the stated age at that time."""
    born = now - timedelta(days=vignette["age"] * 365.25 + 40)
    return {
        "resourceType": "Patient",
        "id": PATIENT,
        "gender": {"M": "male", "F": "female"}[vignette["sex"]],
        "birthDate": born.date().isoformat(),
    }


def _observation(number: int, loinc: str, days_ago: float, now: datetime, **value: Any) -> Json:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": _LOINC, "code": loinc}]},
        "subject": {"reference": f"Patient/{PATIENT}"},
        "effectiveDateTime": _when(now, days_ago),
        **value,
    }


def _when(now: datetime, days_ago: float) -> str:
    return (now - timedelta(days=days_ago)).astimezone(UTC).isoformat()


def observations_of(vignette: Json, now: datetime) -> list[Json]:
    """Laboratory results, weight and pregnancy status."""
    made: list[Json] = []
    for lab in vignette.get("labs", []):
        quantity = {
            "value": lab["value"],
            "unit": lab["unit"],
            "system": "http://unitsofmeasure.org",
            "code": lab["unit"],
        }
        made.append(_observation(len(made), lab["loinc"], lab["days_ago"], now, valueQuantity=quantity))
    if vignette.get("weight_kg"):
        quantity = {"value": vignette["weight_kg"], "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"}
        made.append(_observation(len(made), "29463-7", 1, now, valueQuantity=quantity))
    pregnancy = vignette.get("pregnancy") or {}
    if status := pregnancy.get("status"):
        code, text = {"pregnant": ("77386006", "Pregnant"), "not pregnant": ("60001007", "Not pregnant")}.get(
            status, ("", status)
        )
        concept: Json = {"text": text} if not code else {"coding": [{"system": _SCT, "code": code}], "text": text}
        made.append(_observation(len(made), "82810-3", 1, now, valueCodeableConcept=concept))
    if pregnancy.get("weeks"):
        quantity = {"value": pregnancy["weeks"], "unit": "wk", "system": "http://unitsofmeasure.org", "code": "wk"}
        made.append(_observation(len(made), "18185-9", 1, now, valueQuantity=quantity))
    return made


def _concept(entry: Json) -> Json:
    made: Json = {"text": entry["text"]} if entry.get("text") else {}
    codes = [
        (_SCT, entry.get("snomed")),
        (_ICD, entry.get("icd10cm")),
        ("http://www.nlm.nih.gov/research/umls/rxnorm", entry.get("rxnorm")),
    ]
    coded = [{"system": system, "code": code} for system, code in codes if code]
    if coded:
        made["coding"] = coded
    return made


def chart_of(vignette: Json, now: datetime) -> dict[str, list[Json]]:
    """Everything else, by resource type."""
    subject = {"reference": f"Patient/{PATIENT}"}
    setting = {"outpatient": "AMB", "inpatient": "IMP", "ed": "EMER"}[vignette.get("setting", "outpatient")]
    act = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
    charted: dict[str, list[Json]] = {
        "Encounter": [
            {
                "resourceType": "Encounter",
                "id": "e1",
                "status": "in-progress",
                "class": {"system": act, "code": setting},
                "subject": subject,
            }
        ],
        "Observation": observations_of(vignette, now),
        "Condition": [],
        "Device": [],
        "AllergyIntolerance": [],
        "MedicationStatement": [],
        "MedicationRequest": [],
        "ServiceRequest": [],
        "ImagingStudy": [],
        "DiagnosticReport": [],
        "Appointment": [],
    }
    clinical = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    for n, entry in enumerate(vignette.get("conditions", [])):
        row = {"text": entry} if isinstance(entry, str) else entry
        status = {"coding": [{"system": clinical, "code": row.get("status", "active")}]}
        charted["Condition"].append(
            {
                "resourceType": "Condition",
                "id": f"c{n}",
                "clinicalStatus": status,
                "code": _concept(row),
                "subject": subject,
            }
        )
    for n, entry in enumerate(vignette.get("devices", [])):
        charted["Device"].append(
            {"resourceType": "Device", "id": f"d{n}", "status": "active", "type": _concept(entry), "patient": subject}
        )
    for n, entry in enumerate(vignette.get("allergies", [])):
        charted["AllergyIntolerance"].append(_allergy(n, entry, subject))
    for n, entry in enumerate(vignette.get("medications", [])):
        row = {"text": entry} if isinstance(entry, str) else entry
        charted["MedicationStatement"].append(
            {
                "resourceType": "MedicationStatement",
                "id": f"m{n}",
                "status": "active",
                "medicationCodeableConcept": _concept(row),
                "subject": subject,
            }
        )
    for n, entry in enumerate(vignette.get("priors", [])):
        _add_prior(charted, n, entry, now, subject)
    return charted


def _allergy(number: int, entry: Json, subject: Json) -> Json:
    made: Json = {"resourceType": "AllergyIntolerance", "id": f"a{number}", "patient": subject, "code": _concept(entry)}
    clinical = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical"
    made["clinicalStatus"] = {"coding": [{"system": clinical, "code": "active"}]}
    if entry.get("reaction"):
        made["reaction"] = [{"manifestation": [{"text": entry["reaction"]}]}]
        if entry.get("severity"):
            made["reaction"][0]["severity"] = entry["severity"]
    return made


def _add_prior(charted: dict[str, list[Json]], number: int, entry: Json, now: datetime, subject: Json) -> None:
    """A prior: {code, days_ago, status?, report?}; in the future it is booked."""
    concept = {"coding": [{"system": _EXAM, "code": entry["code"]}]}
    booked = entry["days_ago"] < 0
    charted["ServiceRequest"].append(
        {
            "resourceType": "ServiceRequest",
            "id": f"sr{number}",
            "status": "active" if booked else "completed",
            "intent": "order",
            "code": concept,
            "subject": subject,
            "authoredOn": _when(now, max(entry["days_ago"], 1)),
            "occurrenceDateTime": _when(now, entry["days_ago"]),
        }
    )
    based = [{"reference": f"ServiceRequest/sr{number}"}]
    if booked:
        person = [{"actor": subject, "status": "accepted"}]
        start = _when(now, entry["days_ago"])
        end = _when(now, entry["days_ago"] - 0.02)
        charted["Appointment"].append(
            {
                "resourceType": "Appointment",
                "id": f"ap{number}",
                "status": "booked",
                "basedOn": based,
                "start": start,
                "end": end,
                "participant": person,
            }
        )
    elif entry.get("report"):
        charted["DiagnosticReport"].append(
            {
                "resourceType": "DiagnosticReport",
                "id": f"dr{number}",
                "status": "final",
                "code": concept,
                "subject": subject,
                "basedOn": based,
                "effectiveDateTime": _when(now, entry["days_ago"]),
                "conclusion": entry["report"],
            }
        )


def bundle_of(vignette: Json, now: datetime) -> Json:
    """The collection Bundle of `$check`: the order to be checked first."""
    charted = chart_of(vignette, now)
    resources = [
        order_of(vignette, "active"),
        patient_of(vignette, now),
        *(r for found in charted.values() for r in found),
    ]
    return _bundle("collection", resources)


def searchset(resources: list[Json]) -> Json:
    """A search answer."""
    return {**_bundle("searchset", resources), "total": len(resources)}


def _bundle(kind: str, resources: list[Json]) -> Json:
    base = "https://ehr.example.org/fhir"
    made: Json = {"resourceType": "Bundle", "type": kind}
    if resources:
        made["entry"] = [{"fullUrl": f"{base}/{r['resourceType']}/{r['id']}", "resource": r} for r in resources]
    return made


def hook_request(vignette: Json, now: datetime, prefetch: dict[str, str]) -> Json:
    """The `order-sign` request, its prefetch filled from the service's own templates."""
    charted = chart_of(vignette, now)
    filled: Json = {}
    for key, template in prefetch.items():
        kind = template.split("?")[0].split("/")[0]
        filled[key] = patient_of(vignette, now) if kind == "Patient" else searchset(charted[kind])
    orders = _bundle("collection", [order_of(vignette)])
    return {
        "hook": "order-sign",
        "hookInstance": str(uuid.uuid4()),
        "prefetch": filled,
        "context": {"userId": "Practitioner/u1", "patientId": PATIENT, "draftOrders": orders},
    }
