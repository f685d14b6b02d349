"""This room's facts as FHIR R4 resources: the study as received, the volumes, the refusal. Pure: facts in, resources out."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from arcuate.imaging import structures
from arcuate.imaging.domain import Instance, Refusal
from arcuate.imaging.pipelines import Pipeline
from arcuate.imaging.structures import SIDE_CODES, Part
from arcuate.kernel.codes import (
    CS_DICOM,
    CS_REFUSAL,
    CS_SNOMED,
    CS_STRUCTURE,
    IMAGING_CATEGORY,
    Json,
    Laterality,
    accession_identifier,
    coding,
    concept,
    identifier,
    job_system,
    patient_system,
    quantity,
    reference,
    study_uid_identifier,
)

CS_UNCERTAINTY = "urn:arcuate:cs:uncertainty"
INTERVAL = "80 % interval of synthetic heads of known volumes; volumes drawn on real heads lie outside it more often"
EXT_SCANNER = "urn:arcuate:ext:scanner"
_GENDER = {"M": "male", "F": "female", "O": "other"}
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"


@dataclass(frozen=True)
class Said:
    """What the images state of the person and the examination."""

    person: tuple[str, str, str, str]
    sex: str
    accession: str
    date: str
    time: str
    description: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Said":
        """Return the statement kept with a study."""
        number, issuer, name, birth = said["person"]
        texts = (
            str(said.get(k, "")).strip()
            for k in ("PatientSex", "AccessionNumber", "StudyDate", "StudyTime", "StudyDescription")
        )
        return cls((number, issuer, name, birth), *texts)


INCOMPLETE = "Images are known to be missing: "


def imaging_study(uid: str, said: Said, instances: Sequence[Instance], zone: ZoneInfo, missing: str = "") -> Json:
    """Return the ImagingStudy of a received study; `subject` is the contained Patient that the images state.

    Args:
        missing: What is known to lack, in words.
    """
    made: Json = {
        "resourceType": "ImagingStudy",
        "contained": [_said_patient(said)],
        "identifier": [study_uid_identifier(uid)] + ([accession_identifier(said.accession)] if said.accession else []),
        "status": "available",
        "subject": {"reference": "#said"},
    }
    return made | content(said, instances, zone) | _notes({}, missing)


def content(said: Said, instances: Sequence[Instance], zone: ZoneInfo) -> Json:
    """Return the elements that follow from the images alone: what a late series changes."""
    grouped: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        grouped[instance.series_uid].append(instance)
    series = [_series(uid, group, zone) for uid, group in sorted(grouped.items())]
    series.sort(key=lambda s: (s.get("number", 10**9), s["uid"]))
    modalities = sorted({i.text("Modality") for i in instances if i.text("Modality")})
    made: Json = {
        "modality": [coding(CS_DICOM, m) for m in modalities],
        "numberOfSeries": len(series),
        "numberOfInstances": len(instances),
        "series": series,
        "started": when(said.date, said.time, zone),
        "description": said.description,
    }
    return {k: v for k, v in made.items() if v or isinstance(v, int)}


def refresh(existing: Json, said: Said, instances: Sequence[Instance], zone: ZoneInfo, missing: str = "") -> Json:
    """Return the record's ImagingStudy with what the images say now; who it belongs to stays as it was joined."""
    kept = {k: v for k, v in existing.items() if k != "note"}
    return {**kept, "status": "available", **content(said, instances, zone), **_notes(existing, missing)}


def _notes(existing: Json, missing: str) -> Json:
    """Return the notes of others, and one on what is known to lack."""
    notes = [note for note in existing.get("note") or [] if not str(note.get("text", "")).startswith(INCOMPLETE)]
    notes += [{"text": f"{INCOMPLETE}{missing}."}] if missing else []
    return {"note": notes} if notes else {}


def when(date: str, time: str, zone: ZoneInfo) -> str:
    """Return a DICOM date and time (PS3.5 DA, TM; local time of the site) as FHIR dateTime, or nothing."""
    digits = time.split(".", maxsplit=1)[0].replace(":", "")
    for form, text in (("%Y%m%d%H%M%S", date + digits), ("%Y%m%d%H%M", date + digits)):
        try:
            return datetime.strptime(text, form).replace(tzinfo=zone).isoformat()
        except ValueError:
            continue
    return _date(date)


def observations(
    summary: Mapping[str, Any], study: Json, order: Json | None, own_id: str, finished: datetime, started: str
) -> list[Json]:
    """Return one Observation for each measured structure and side, in the unit of the structure.

    Args:
        summary: A measurement as `quantify.summary` gives it.
        study: The ImagingStudy of the request; the Observations refer to it and to its subject.
        own_id: The study's id in this room: it makes the identifiers, so that a new measurement replaces the old one.
    """
    told = [*summary["volumes"], *summary.get("values", ())]
    return [_observation(v, summary, study, order, own_id, finished, started) for v in told]


def refusal(reason: Refusal, study: Json, order: Json | None, own_id: str, at: datetime, pipeline: Pipeline) -> Json:
    """Return the Observation that says why the study was not measured."""
    notes = [reason.what.rstrip(".") + ".", reason.todo]
    return _shared(study, order, own_id, pipeline.name, at) | {
        "status": "preliminary",
        "code": concept(CS_STRUCTURE, pipeline.name, pipeline.title, pipeline.title),
        "bodySite": concept(pipeline.site.system, pipeline.site.value, pipeline.site.meaning),
        "dataAbsentReason": {
            "coding": [coding(_ABSENT, "not-performed", "Not Performed"), coding(CS_REFUSAL, reason.code, reason.what)],
            "text": reason.what,
        },
        "note": [{"text": text} for text in notes if text],
    }


def withdrawn(key: str, study: Json, order: Json | None, own_id: str, at: datetime, pipeline: Pipeline) -> Json:
    """Return the Observation that takes back one of an earlier measurement of the same study."""
    part = next((p for p in structures.parts() if p.key == key), None)
    code = _code(part) if part else concept(CS_STRUCTURE, pipeline.name, pipeline.title, pipeline.title)
    return _shared(study, order, own_id, key, at) | {
        "status": "cancelled",
        "code": code,
        "dataAbsentReason": concept(_ABSENT, "not-performed", "Not Performed"),
        "note": [{"text": "Replaced: the images of the study, or the model, have changed since."}],
    }


def _said_patient(said: Said) -> Json:
    number, issuer, name, birth = said.person
    made: Json = {"resourceType": "Patient", "id": "said"}
    if number:
        made["identifier"] = [_patient_number(number, issuer)]
    if name and "\ufffd" not in name:
        made["name"] = [_human_name(name)]
    if day := _date(birth):
        made["birthDate"] = day
    if said.sex in _GENDER:
        made["gender"] = _GENDER[said.sex]
    return made


def _patient_number(number: str, issuer: str) -> Json:
    if issuer:
        return identifier(patient_system(issuer), number, "MR")
    # The images name no assigner: none is made up.
    return {k: v for k, v in identifier("", number, "MR").items() if k != "system"}


def _human_name(name: str) -> Json:
    """Return a person name (PS3.5 6.2.1.2: family^given^middle^prefix^suffix, alphabetic group) as HumanName."""
    parts = [part.strip() for part in name.split("=", maxsplit=1)[0].split("^")] + [""] * 5
    family, given, middle, prefix, suffix = parts[:5]
    made = {
        "family": family,
        "given": [text for text in (given, middle) if text],
        "prefix": [prefix] if prefix else [],
        "suffix": [suffix] if suffix else [],
    }
    return {k: v for k, v in made.items() if v} or {"text": name}


def _date(text: str) -> str:
    try:
        return datetime.strptime(text, "%Y%m%d").date().isoformat()
    except ValueError:
        return ""


def _series(uid: str, group: Sequence[Instance], zone: ZoneInfo) -> Json:
    first = min(group, key=lambda i: i.number("InstanceNumber") or 0)
    number = first.number("SeriesNumber")
    made: Json = {
        "uid": uid,
        "number": int(number) if number is not None and number >= 0 else None,
        "modality": coding(CS_DICOM, first.text("Modality") or "OT"),
        "description": first.text("SeriesDescription").strip(),
        "numberOfInstances": len(group),
        "started": when(first.text("SeriesDate"), first.text("SeriesTime"), zone),
    }
    return {k: v for k, v in made.items() if v is not None and v != ""}


def _shared(study: Json, order: Json | None, own_id: str, key: str, at: datetime) -> Json:
    made: Json = {
        "resourceType": "Observation",
        "identifier": [identifier(job_system("imaging"), f"{own_id}:{key}")],
        "category": [
            concept("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging"),
            IMAGING_CATEGORY,
        ],
        "issued": at.isoformat(timespec="seconds"),
    }
    subject = study.get("subject") or {}
    if str(subject.get("reference", "")).startswith("Patient/"):
        made["subject"] = {"reference": subject["reference"]}
    if order and order.get("id"):
        made["basedOn"] = [reference("ServiceRequest", order["id"])]
    if study.get("id"):
        made["derivedFrom"] = [reference("ImagingStudy", study["id"])]
    return made


def _observation(
    value: Mapping[str, Any], summary: Mapping[str, Any], study: Json, order: Json | None, own_id: str, finished: datetime,
    started: str,
) -> Json:  # fmt: skip
    part = structures.part(value["structure"], Laterality(value["side"]) if value["side"] else None)
    model = summary["models"][0]
    made = _shared(study, order, own_id, part.key, finished) | {
        "contained": [_device(summary["models"])],
        "status": "preliminary",
        "code": _code(part),
        "valueQuantity": quantity(Decimal(str(value["ml"] if "ml" in value else value["value"])), part.unit),
        "bodySite": _site(part),
        "method": _method(part, summary["method"]),
        "device": {"reference": "#model", "display": f"{model['name']} {model['version']}"},
        "note": [{"text": summary["research_use"]}, *({"text": warning} for warning in summary["warnings"])],
    }
    if component := _range(summary, part):
        made["component"] = component
    if (quality := summary.get("quality")) is not None:
        made["note"].append(
            {"text": f"Quality of the measurement {quality:.2f} of 1 (expected agreement with a drawing)."}
        )
    if reason := summary.get("model_reason"):
        made["note"].append({"text": f"Measured by {reason}"})
    if series := summary.get("series"):
        made["note"].append({"text": f"Measured on {series['reason']}."})
        if series.get("scanner"):
            made["extension"] = [{"url": EXT_SCANNER, "valueString": series["scanner"]}]
    return made | ({"effectiveDateTime": started} if started else {})


def _range(summary: Mapping[str, Any], part: Part) -> list[Json]:
    """Return as components between what the value lies: by heads of known volumes, else by what the network is sure of."""
    if stated := (summary.get("intervals") or {}).get(part.key):
        told = [("p10", "10th percentile", INTERVAL), ("p90", "90th percentile", INTERVAL)]
    elif stated := (summary.get("ranges") or {}).get(part.key):
        told = [
            (code, words, f"What the network is {words} of")
            for code, words in (("sure", "at least 90 % sure"), ("possible", "at least 10 % sure"))
        ]
    else:
        return []
    return [
        {
            "code": {"coding": [coding(CS_UNCERTAINTY, code, words)], "text": text},
            "valueQuantity": quantity(Decimal(str(value)), part.unit),
        }
        for (code, words, text), value in zip(told, stated, strict=True)
    ]


def _code(part: Part) -> Json:
    what = part.measures
    named = what != structures.VOLUME or part.title.endswith("volume")
    return {
        "coding": [coding(CS_STRUCTURE, part.structure, part.name), coding(what.system, what.value, what.meaning)],
        "text": part.title if named else f"{part.title}, volume",
    }


def _method(part: Part, words: str) -> Json:
    if part.measures != structures.VOLUME:
        return {"text": words}
    return concept(CS_DICOM, "126030", "Sum of segmented voxel method for volume", words)


def _site(part: Part) -> Json:
    """Return structure and side: R4 has one bodySite, so the side is its second coding (SNOMED CT, DICOM CID 244)."""
    made: Json = {"coding": [coding(part.volume.system, part.volume.value, part.volume.meaning)], "text": part.title}
    if part.side:
        made["coding"].append(coding(CS_SNOMED, *SIDE_CODES[part.side]))
    return made


def _device(models: Sequence[Mapping[str, str]]) -> Json:
    first = models[0]
    versions = [
        line
        for model in models
        for line in (
            {"type": {"text": f"{model['name']} version"}, "value": model["version"]},
            {"type": {"text": f"{model['name']} weights SHA-256"}, "value": model["sha256"]},
        )
    ]
    return {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": "Arcuate",
        "deviceName": [{"name": first["name"], "type": "model-name"}],
        "version": versions,
        "note": [{"text": "Research use only."}],
    }
