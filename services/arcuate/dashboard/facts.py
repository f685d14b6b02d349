"""Single facts out of FHIR resources, read leniently: what is missing is None or empty, never invented."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.bundle import reference_id

EXT = "urn:arcuate:ext:"
_SEXES = {"male": "man", "female": "woman"}


def instant(text: Any) -> datetime | None:
    """Return a FHIR instant or dateTime with a zone; None where there is none, or only a date."""
    if not isinstance(text, str) or "T" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def codes(concept: Json | None, system: str) -> list[str]:
    """Return the codes of one system in a CodeableConcept."""
    return [str(c["code"]) for c in (concept or {}).get("coding") or [] if c.get("system") == system and "code" in c]


def has_code(concept: Json | None, system: str, code: str) -> bool:
    """Return whether a CodeableConcept carries a code."""
    return code in codes(concept, system)


def text_of(concept: Json | None) -> str:
    """Return a CodeableConcept in words."""
    if not concept:
        return ""
    codings = concept.get("coding") or []
    return str(concept.get("text") or next((c.get("display") or c.get("code") for c in codings), "") or "")


def by_reference(resources: Iterable[Json]) -> dict[str, Json]:
    """Return resources by `Type/id`."""
    return {f"{r['resourceType']}/{r.get('id')}": r for r in resources}


def of_type(resources: Iterable[Json], resource_type: str) -> list[Json]:
    """Return the resources of a type."""
    return [r for r in resources if r.get("resourceType") == resource_type]


def target(reference: Json | None) -> str:
    """Return what a Reference names as `Type/id`, or an empty text."""
    return str((reference or {}).get("reference") or "").split("/_history")[0]


def participant(appointment: Json, resource_type: str) -> str | None:
    """Return the id of the first participant of a type."""
    actors = (p.get("actor") for p in appointment.get("participant") or [])
    return next((found for a in actors if (found := reference_id(a, resource_type))), None)


def person_name(patient: Json | None) -> str:
    """Return a person's name for a list: "Family, Given"; the number where no name is known."""
    if not patient:
        return "not in the record"
    names: list[Json] = [n for n in patient.get("name") or [] if n.get("use") != "old"]
    for name in sorted(names, key=lambda n: n.get("use") not in ("official", None)):
        family, given = str(name.get("family") or "").strip(), " ".join(name.get("given") or []).strip()
        if family or given:
            return ", ".join(part for part in (family, given) if part)
        if name.get("text"):
            return str(name["text"])
    numbers = [str(i["value"]) for i in patient.get("identifier") or [] if i.get("value")]
    return f"no name ({numbers[0]})" if numbers else "no name"


def short_name(patient: Json | None) -> str:
    """Return a person's family name where a slot is too small for more."""
    return person_name(patient).split(",", maxsplit=1)[0]


def person_line(patient: Json | None, on: date) -> str:
    """Return sex and age: "woman, 38 y"; what is not known is left out."""
    patient = patient or {}
    years = age(patient, on)
    parts = [_SEXES.get(str(patient.get("gender")), ""), f"{years} y" if years is not None else ""]
    return ", ".join(part for part in parts if part)


def age(patient: Json, on: date) -> int | None:
    """Return whole years, or None."""
    try:
        born = date.fromisoformat(str(patient.get("birthDate")))
    except ValueError:
        return None
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))


def phone(patient: Json | None) -> str:
    """Return the number under which a person can be called, or an empty text."""
    points = [t for t in (patient or {}).get("telecom") or [] if t.get("system") in ("phone", "sms") and t.get("value")]
    points.sort(key=lambda t: t.get("use") != "mobile")
    return str(points[0]["value"]) if points else ""


def exam_name(order: Json | None, appointment: Json | None = None) -> str:
    """Return the exam as people call it."""
    named = text_of((order or {}).get("code"))
    if named:
        return named
    services = (appointment or {}).get("serviceType") or []
    return text_of(services[0]) if services else "exam not named"


def short_exam(name: str) -> str:
    """Return an exam's name for a slot: contrast in one word."""
    for long, short in (
        ("without and with contrast", "contrast"), ("without contrast", ""), ("with contrast", "contrast"),
    ):  # fmt: skip
        if long in name:
            head = name.replace(long, "").strip(" ,")
            return f"{head}, {short}" if short else head
    return name


def extension(resource: Mapping[str, Any], name: str) -> Json | None:
    """Return an extension of the house by its short name."""
    return next((e for e in resource.get("extension") or [] if e.get("url") == EXT + name), None)


def component_minutes(observation: Json, code: str) -> float | None:
    """Return a component's minutes."""
    for component in observation.get("component") or []:
        if any(c.get("code") == code for c in (component.get("code") or {}).get("coding") or []):
            value = (component.get("valueQuantity") or {}).get("value")
            return None if value is None else float(value)
    return None


def attached_text(report: Json, kind: str = "text/plain") -> str:
    """Return a report's text, or an empty text."""
    for form in report.get("presentedForm") or []:
        if str(form.get("contentType", "")).startswith(kind) and form.get("data"):
            try:
                return base64.b64decode(str(form["data"])).decode("utf-8", "replace")
            except (binascii.Error, ValueError):
                return ""
    return ""


def version(resource: Json) -> str:
    """Return `meta.versionId`."""
    return str((resource.get("meta") or {}).get("versionId") or "")


def updated(resource: Json) -> datetime | None:
    """Return `meta.lastUpdated`."""
    return instant((resource.get("meta") or {}).get("lastUpdated"))
