"""The draft as a FHIR R4 DiagnosticReport. Pure."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from arcuate.kernel.codes import SYSTEM_DRAFT, Json, accession_identifier, accession_of, concept, identifier, quantity
from arcuate.kernel.fhir.bundle import of_type
from arcuate.reporting.domain import Measured, Values
from arcuate.reporting.drafting import exam_text

EXTENSION_PASSPORT = "urn:arcuate:ext:passport"
"""Extension on the draft, one a value: what the value is, its source and version, and how far it can be believed."""

_RADIOLOGY = "http://terminology.hl7.org/CodeSystem/v2-0074"


@dataclass(frozen=True)
class Paper:
    """A written draft.

    Attributes:
        title: Title of the template.
    """

    title: str
    code: Json
    text: str
    page: str
    at: datetime


def diagnostic_report(order: Json, request: Json, paper: Paper, values: Values) -> Json:
    """Return the DiagnosticReport, status preliminary; it has no conclusion, because nobody has drawn one."""
    accession = accession_of(order)
    made: Json = {
        "resourceType": "DiagnosticReport",
        "extension": [_passport(m) for m in values.measured],
        "identifier": [
            identifier(SYSTEM_DRAFT, draft_key(order)),
            *([accession_identifier(accession)] if accession else []),
        ],
        "basedOn": [{"reference": f"ServiceRequest/{order['id']}"}] if order.get("id") else [],
        "status": "preliminary",
        "category": [concept(_RADIOLOGY, "RAD", "Radiology")],
        "code": {"coding": [paper.code], "text": exam_text(order)},
        "subject": order.get("subject") or {},
        "effectiveDateTime": _effective(request),
        "issued": paper.at.isoformat(timespec="seconds"),
        "result": [{"reference": reference} for reference in values.results],
        "imagingStudy": [
            {"reference": f"ImagingStudy/{s['id']}"} for s in of_type(request, "ImagingStudy") if s.get("id")
        ],
        "presentedForm": [_form("text/plain", paper.text, paper), _form("text/html", paper.page, paper)],
    }
    return {name: value for name, value in made.items() if value}


def draft_key(order: Json) -> str:
    """Return the value of the draft's identifier: the accession number, or the order's id where it has none."""
    return str(accession_of(order) or order.get("id") or "order without a number")


def in_place_of(report: Json, request: Json) -> Json:
    """Return the report with id and version of the draft that it replaces, when the request holds that."""
    mine = report["identifier"][0]
    for known in of_type(request, "DiagnosticReport"):
        numbers = [(i.get("system"), i.get("value")) for i in known.get("identifier") or [] if isinstance(i, dict)]
        if (mine["system"], mine["value"]) in numbers and known.get("id"):
            version = (known.get("meta") or {}).get("versionId")
            return {**report, "id": known["id"], **({"meta": {"versionId": version}} if version else {})}
    return report


def _effective(request: Json) -> str:
    started = [str(s["started"]) for s in of_type(request, "ImagingStudy") if s.get("started")]
    return min(started, default="")


def _form(kind: str, content: str, paper: Paper) -> Json:
    data = content.encode("utf-8")
    return {
        "contentType": f"{kind}; charset=utf-8",
        "language": "en",
        "data": base64.b64encode(data).decode("ascii"),
        "size": len(data),
        "title": f"Draft: {paper.title}",
        "creation": paper.at.isoformat(timespec="seconds"),
    }


def _passport(m: Measured) -> Json:
    return {"url": EXTENSION_PASSPORT, "extension": list(_parts(m))}


def _parts(m: Measured) -> Iterator[Json]:
    passport = m.passport
    yield {"url": "field", "valueString": m.field.key}
    yield {"url": "label", "valueString": m.field.label}
    yield {"url": "value", "valueQuantity": quantity(m.amount, m.field.unit)}
    if m.source:
        yield {"url": "source", "valueReference": {"reference": m.source}}
    yield {"url": "series", "valueString": passport.series}
    yield from ({"url": "model", "valueString": model} for model in passport.models)
    yield {"url": "quality", "valueString": passport.quality}
    yield {"url": "uncertainty", "valueString": passport.uncertainty}
    yield {"url": "reviewed", "valueBoolean": bool(passport.reviewer)}
    if passport.reviewer:
        yield {"url": "reviewer", "valueString": passport.reviewer}
    if m.doubt:
        yield {"url": "doubt", "valueString": m.doubt}


def signed_of(request: Json, order: Json) -> Sequence[Json]:
    """Return the signed reports of this very order in a request."""
    own = f"ServiceRequest/{order.get('id')}"
    reports = [
        r
        for r in of_type(request, "DiagnosticReport")
        if r.get("status") in {"final", "amended", "corrected", "appended"}
    ]
    return [r for r in reports if order.get("id") and any(b.get("reference") == own for b in r.get("basedOn") or [])]
