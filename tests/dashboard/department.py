"""A small invented department as the doors and rooms would write it: one Tuesday at 13:42, four scanners, one reader.

All people are called Doe with a number. Times are of the site (Europe/Zurich) on 17 March 2026.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from arcuate.kernel import codes
from arcuate.kernel.fhir import bundle

Json = dict[str, Any]

ZONE = ZoneInfo("Europe/Zurich")
NOW = datetime(2026, 3, 17, 13, 42, tzinfo=ZONE).astimezone(UTC)
READER = "Reader-04"
_EXT = "urn:arcuate:ext:"


@dataclass(frozen=True)
class Visit:
    """One row of the day: `state` is done, missed, running, here, booked or cancelled; `chance` of not coming."""

    number: str
    scanner: str
    start: str
    minutes: int
    exam: str
    state: str = "booked"
    chance: float | None = None
    reason: str = ""
    waits: tuple[int, int, int] | None = None
    waited: int = 0
    begun: str = ""
    flag: tuple[str, str, str] | None = None
    priority: str = "routine"


KIDNEY = ("contrast-renal", "Contrast and kidneys", "No eGFR is on file for an exam with contrast.")

DAY = (
    Visit("0402", "MR1", "12:50", 35, "MRI brain without contrast", "done", begun="12:59"),
    Visit("0407", "MR1", "13:25", 35, "MRI brain tumour, with contrast", "running", begun="13:29"),
    Visit("0421", "MR1", "14:10", 30, "MRI brain MS", "here", waits=(14, 22, 38), waited=19),
    Visit(
        "0426", "MR1", "14:50", 25, "MRI internal auditory canals, with contrast", "here", waits=(58, 70, 90), waited=6
    ),
    Visit("0430", "MR1", "15:20", 35, "MRI brain epilepsy", chance=0.38, reason="two calls, no answer"),
    Visit("0433", "MR1", "16:00", 30, "MRI pituitary, with contrast", chance=0.09),
    Visit("0436", "MR1", "16:40", 40, "MRI brain MS", chance=0.29, reason="booked 94 days ago"),
    Visit("0441", "MR1", "17:30", 30, "MRI brain without contrast", chance=0.06),
    Visit("0403", "MR2", "12:40", 30, "MRI lumbar spine", "missed"),
    Visit("0408", "MR2", "13:20", 35, "MRI brain, pacemaker", "running", begun="13:20"),
    Visit("0422", "MR2", "14:05", 35, "MRI lumbar spine", chance=0.11),
    Visit("0431", "MR2", "15:30", 35, "MRI thoracic spine", chance=0.08),
    Visit("0434", "MR2", "16:10", 40, "MRI brain metastases, with contrast", chance=0.05, flag=KIDNEY),
    Visit("0438", "MR2", "16:55", 35, "MRI cervical spine", chance=0.14),
    Visit("0404", "MR3", "12:50", 30, "MRA head", "done", begun="12:50", priority="urgent"),
    Visit("0409", "MR3", "13:35", 35, "MRI brain stroke", "running", begun="13:35"),
    Visit("0423", "MR3", "14:15", 40, "MRI brain epilepsy", chance=0.07),
    Visit("0432", "MR3", "15:50", 35, "MRI brain ARIA check", chance=0.04),
    Visit("0435", "MR3", "16:30", 40, "MRI orbits, with contrast", chance=0.27, reason="two of four missed"),
    Visit("0439", "MR3", "17:15", 35, "MRI brain MS", chance=0.12),
    Visit("0406", "CT1", "12:55", 20, "CTA head and neck", "done", begun="12:55"),
    Visit("0410", "CT1", "13:20", 15, "CT head", "done", begun="13:20", priority="stat"),
    Visit("0444", "CT1", "13:38", 15, "CT head", "running", begun="13:38"),
    Visit("0424", "CT1", "14:00", 20, "CTA head and neck", "here", waits=(10, 16, 24), waited=6),
    Visit("0427", "CT1", "14:30", 15, "CT head", chance=0.13),
    Visit("0428", "CT1", "15:00", 20, "CT perfusion", chance=0.05),
    Visit("0437", "CT1", "15:40", 15, "CT head", chance=0.10),
    Visit("0440", "CT1", "16:20", 20, "CTA head and neck", chance=0.09),
    Visit("0450", "CT1", "16:50", 20, "CT head", "cancelled"),
)

STATUS = {
    "done": "fulfilled",
    "running": "arrived",
    "here": "arrived",
    "missed": "noshow",
    "booked": "booked",
    "cancelled": "cancelled",
}


def at(text: str) -> datetime:
    """Return a time of the day."""
    hour, minute = text.split(":")
    return datetime(2026, 3, 17, int(hour), int(minute), tzinfo=ZONE)


def stamp(moment: datetime) -> str:
    """Return FHIR's text of an instant."""
    return moment.isoformat(timespec="seconds")


def patient(number: str) -> Json:
    """Return Doe with a number."""
    return {
        "resourceType": "Patient", "active": True, "identifier": [codes.identifier(codes.patient_system("NG"), f"SYN{number}", "MR")],
        "name": [{"use": "official", "family": f"Doe-{number}", "given": ["Test"]}], "gender": "female", "birthDate": "1987-05-11",
        "telecom": [{"system": "phone", "use": "mobile", "value": f"+000 555 0{number}"}],
    }  # fmt: skip


def order(number: str, exam: str, subject: Json, *, priority: str = "routine", days: int = 21) -> Json:
    """Return the order of a visit."""
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "priority": priority, "subject": subject,
        "identifier": [codes.accession_identifier(f"SYN-26-{number}")], "code": {"text": exam},
        "requester": {"display": "Referrer-118"}, "authoredOn": stamp(NOW - timedelta(days=days)),
        "reasonCode": [{"text": "headache, worse since March; rule out mass"}],
    }  # fmt: skip


def forecast(value: float, reason: str, appointment: Json, subject: Json) -> Json:
    """Return the chance of not coming as the scheduling room writes it."""
    low, high = round(max(0.01, value - 0.08) * 100), round((value + 0.09) * 100)
    made: Json = {
        "resourceType": "RiskAssessment", "status": "final", "subject": subject, "basis": [appointment],
        "identifier": [codes.identifier(codes.job_system("scheduling"), f"attendance-{appointment['reference']}")],
        "method": {"coding": [{"system": "urn:arcuate:cs:model", "code": "attendance"}], "text": "attendance 0.1"},
        "code": codes.concept(codes.CS_FORECAST, "attendance"), "occurrenceDateTime": stamp(NOW),
        "prediction": [{
            "outcome": codes.concept(codes.CS_FORECAST, "no-show"), "probabilityDecimal": value,
            "extension": [{
                "url": f"{_EXT}interval",
                "valueRange": {"low": codes.quantity(low, "%"), "high": codes.quantity(high, "%")},
            }],
        }],
    }  # fmt: skip
    if reason:
        parts = [
            {"url": "outcome", "valueCode": "no-show"},
            {"url": "sentence", "valueString": reason},
            {"url": "points", "valueDecimal": 9.0},
        ]
        made["note"] = [{"text": reason, "extension": [{"url": f"{_EXT}reason", "extension": parts}]}]
    return made


def minutes(kind: str, values: tuple[int, int, int], appointment: Json, subject: Json) -> Json:
    """Return a forecast of minutes as the scheduling room writes it."""
    return {
        "resourceType": "Observation", "status": "final", "subject": subject, "focus": [appointment],
        "identifier": [codes.identifier(codes.job_system("scheduling"), f"{kind}-{appointment['reference']}")],
        "code": codes.concept(codes.CS_FORECAST, kind), "effectiveDateTime": stamp(NOW),
        "component": [
            {"code": codes.concept(codes.CS_FORECAST, name), "valueQuantity": codes.quantity(value, "min")}
            for name, value in zip(("p10", "p50", "p90"), values, strict=True)
        ],
    }  # fmt: skip


def flag(visit: Visit, request: Json, subject: Json) -> Json:
    """Return an interruptive flag with its fix."""
    assert visit.flag is not None
    code, display, detail = visit.flag
    return {
        "resourceType": "DetectedIssue", "status": "final", "severity": "high", "code": codes.concept(codes.CS_FLAG, code, display),
        "identifier": [codes.identifier("urn:arcuate:id:flag", f"renal-1/3/{visit.number}")], "patient": subject,
        "implicated": [request], "detail": detail, "identifiedDateTime": stamp(NOW),
        "mitigation": [{"action": {"text": "Ask for creatinine; the laboratory is open until 15:30."}}],
    }  # fmt: skip


def day(visits: tuple[Visit, ...] = DAY) -> Json:
    """Return a transaction with a whole day."""
    places: dict[str, bundle.Entry] = {}
    entries: list[bundle.Entry] = []
    for visit in visits:
        if visit.scanner not in places:
            places[visit.scanner] = bundle.create(
                {"resourceType": "Location", "status": "active", "name": visit.scanner}
            )
        entries += _visit(visit, places[visit.scanner].reference)
    return bundle.transaction([*places.values(), *entries])


def ahead(number: str, days: int, chance: float | None, reason: str = "") -> Json:
    """Return a transaction with one visit some days from now; without a chance the site's rate is stated, as scheduling does then."""
    start = NOW + timedelta(days=days, hours=2)
    person = bundle.create(patient(number))
    booking = bundle.create({
        "resourceType": "Appointment", "status": "booked", "start": stamp(start), "minutesDuration": 30, "description": "MRI brain",
        "end": stamp(start + timedelta(minutes=30)), "participant": [{"actor": person.reference, "status": "accepted"}],
    })  # fmt: skip
    stated = forecast(0.08 if chance is None else chance, reason, booking.reference, person.reference)
    if chance is None:
        stated["method"] = codes.concept("urn:arcuate:cs:model", "fallback")
    return bundle.transaction([person, booking, bundle.create(stated)])


def _visit(visit: Visit, place: Json) -> Iterator[bundle.Entry]:
    person = bundle.create(patient(visit.number))
    request = bundle.create(order(visit.number, visit.exam, person.reference, priority=visit.priority))
    yield from (person, request)
    start = at(visit.start)
    booking = bundle.create({
        "resourceType": "Appointment", "status": STATUS[visit.state], "start": stamp(start), "minutesDuration": visit.minutes,
        "end": stamp(start + timedelta(minutes=visit.minutes)), "created": stamp(NOW - timedelta(days=14)),
        "identifier": [codes.identifier(codes.appointment_system("NG"), f"A{visit.number}", "PLAC")],
        "basedOn": [request.reference],
        "participant": [{"actor": person.reference, "status": "accepted"}, {"actor": place, "status": "accepted"}],
    })  # fmt: skip
    yield booking
    if visit.state in ("done", "running"):
        yield bundle.create(_exam(visit, request.reference, person.reference))
    if visit.state == "here":
        yield bundle.create({
            "resourceType": "Encounter", "status": "arrived", "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
            "subject": person.reference, "appointment": [booking.reference],
            "period": {"start": stamp(NOW - timedelta(minutes=visit.waited))},
        })  # fmt: skip
    if visit.chance is not None:
        yield bundle.create(forecast(visit.chance, visit.reason, booking.reference, person.reference))
    if visit.waits is not None:
        yield bundle.create(minutes("wait", visit.waits, booking.reference, person.reference))
    if visit.flag is not None:
        yield bundle.create(flag(visit, request.reference, person.reference))


def _exam(visit: Visit, request: Json, subject: Json) -> Json:
    begun = at(visit.begun)
    period = {"start": stamp(begun)}
    if visit.state == "done":
        period["end"] = stamp(begun + timedelta(minutes=visit.minutes - 5))
    return {
        "resourceType": "Procedure", "status": "completed" if visit.state == "done" else "in-progress", "subject": subject,
        "basedOn": [request], "identifier": [codes.accession_identifier(f"SYN-26-{visit.number}")], "performedPeriod": period,
    }  # fmt: skip


def roster() -> Json:
    """Return one reader on shift all day."""
    person = bundle.create({"resourceType": "Practitioner", "active": True, "name": [{"text": READER}]})
    role = bundle.create({
        "resourceType": "PractitionerRole", "active": True, "practitioner": person.reference,
        "specialty": [codes.concept(codes.CS_SKILL, skill) for skill in ("brain", "spine", "vessels", "head-neck")],
    })  # fmt: skip
    schedule = bundle.create({"resourceType": "Schedule", "active": True, "actor": [person.reference]})
    shift = {"start": stamp(at("07:00")), "end": stamp(at("19:00"))}
    slot = bundle.create({"resourceType": "Slot", "status": "free", "schedule": schedule.reference, **shift})
    return bundle.transaction([person, role, schedule, slot])


def measurements(request: Json, subject: Json, study: Json, values: dict[tuple[str, str], float]) -> Iterator[Json]:
    """Return volumes as the imaging room writes them, none of them reviewed; keys are structure and side."""
    sides = {"left": "7771000", "right": "24028007"}
    for (structure, side), value in values.items():
        name = structure.replace("-", " ")
        site: list[Json] = [codes.coding(codes.CS_SNOMED, "12738006", name)]
        if side:
            site.append(codes.coding(codes.CS_SNOMED, sides[side], side))
        yield {
            "resourceType": "Observation", "status": "preliminary", "subject": subject, "basedOn": [request], "derivedFrom": [study],
            "identifier": [codes.identifier(codes.job_system("imaging"), f"{structure}-{side}")],
            "contained": [{"resourceType": "Device", "id": "model", "deviceName": [{"name": "brain-t1", "type": "model-name"}]}],
            "code": {"coding": [codes.coding(codes.CS_STRUCTURE, structure, name.capitalize())], "text": f"{side} {name}, volume".strip()},
            "bodySite": {"coding": site, "text": f"{side} {name}".strip().capitalize()},
            "valueQuantity": codes.quantity(value, "mL"), "device": {"reference": "#model", "display": "brain-t1 0.1"},
            "note": [{"text": "Research use only."}], "issued": stamp(NOW),
        }  # fmt: skip


def study(number: str, *, request: Json | None = None, subject: Json | None = None, said: Json | None = None) -> Json:
    """Return the images of an accession: joined to an order, or with the person that they state themselves."""
    made: Json = {
        "resourceType": "ImagingStudy", "status": "available", "numberOfSeries": 1, "numberOfInstances": 176,
        "identifier": [codes.study_uid_identifier(f"2.25.{number}"), codes.accession_identifier(f"SYN-26-{number}")],
        "description": "MRI brain", "subject": subject or {"reference": "#said"},
    }  # fmt: skip
    if request is not None:
        made["basedOn"] = [request]
    if said is not None:
        made["contained"] = [{**said, "id": "said"}]
    return made
