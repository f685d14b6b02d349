"""What a profile makes of sample messages, before it goes live: nothing is stored, nothing is sent.

Each message is read by itself against an empty record; a result is shown as though its orders were known. The lines hold patient data: they are
for the person at the keyboard, who has the messages anyway.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from arcuate.gateway.mapping import datatypes, order, plan
from arcuate.gateway.mapping import report as report_mapping
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.groups import patient_groups
from arcuate.gateway.mapping.model import ContentFault, Mapped, Standing
from arcuate.gateway.mapping.plan import Context
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import inspect
from arcuate.kernel.hl7v2.message import Field, Message, split

_WIDTH = 12


@dataclass(frozen=True)
class Preview:
    """One message: its type, its sender, what it would become, what it says in words, and where its fields disagree."""

    kind: str
    sender: str
    outcome: str
    lines: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def preview(raw: bytes, profile: Profile, zone: ZoneInfo) -> list[Preview]:
    """Return what the profile makes of each message of a frame."""
    return [_one(one, profile, zone) for one in split(raw).messages or (raw,)]


def report(paths: Iterable[Path], profile: Profile, zone: ZoneInfo) -> Iterator[str]:
    """Yield the lines of a preview of files, and a count of outcomes at the end."""
    counts: Counter[str] = Counter()
    for path in paths:
        for one in preview(path.read_bytes(), profile, zone):
            counts[one.outcome.split(":")[0]] += 1
            yield f"{path.name}  {one.kind or 'no type'}  {one.sender}  {one.outcome}"
            yield from (f"    {line}" for line in one.lines)
            yield from (f"    {'doubt':{_WIDTH}}{doubt}" for doubt in one.doubts)
    yield "  ".join(f"{outcome} {number}" for outcome, number in counts.most_common())


def _one(raw: bytes, profile: Profile, zone: ZoneInfo) -> Preview:
    message = profile.parse(raw)
    kind, event = plan.message_type(message)
    name, use = f"{kind}^{event}" if event else kind, plan.use_of_message(message)
    sender = f"{message.value('MSH-3')}|{message.value('MSH-4')}"
    doubts = (
        []
        if profile.fits(message.value("MSH-3").strip(), message.value("MSH-4").strip())
        else ["not a sender of this profile"]
    )
    found = inspect.faults(message)
    doubts += [fault.words for fault in found if not fault.grave]
    grave = next((fault for fault in found if fault.grave), None)
    if grave is not None or use == "unknown":
        words = f"parked: {grave.words} ({grave.location})" if grave else "parked: unknown message type"
        return Preview(name, sender, words, (), tuple(doubts))
    if use in ("ignored", "acknowledgement"):
        return Preview(name, sender, "not used", (), tuple(doubts))
    context = Context.of(message, profile, zone, datetime.now(UTC))
    try:
        mapped, faults = plan.apply(use, context, standing(use, context))
    except ContentFault as fault:
        return Preview(name, sender, f"parked: {fault.what} ({fault.where})", (), tuple(doubts))
    doubts += [f"parked in part: {fault.what} ({fault.where})" for fault in faults] + _disagreements(message, profile)
    doubts += _unmapped(message, profile, context.sender)
    return Preview(name, sender, _outcome(mapped), tuple(_lines(mapped)), tuple(doubts))


def _outcome(mapped: Mapped) -> str:
    if mapped.entries:
        return "applied: " + "; ".join(mapped.made)
    return "waits: " + mapped.note if mapped.waits else "nothing: " + mapped.note


def standing(use: str, context: Context) -> Standing:
    """Return an empty record; for results one with the orders that they name."""
    if use not in ("report", "document"):
        return Standing()
    needs = plan.needs(use, context)
    patient: Json = {"resourceType": "Patient", "id": "1", "meta": {"versionId": "1"}}
    orders = [
        {"resourceType": "ServiceRequest", "id": str(place), "identifier": numbers.stated, "subject": {"reference": "Patient/1"}}
        for place, numbers in enumerate(_orders(use, context))
    ]  # fmt: skip
    known = dict.fromkeys(needs.patients, patient)
    return Standing(known, known, resources={"ServiceRequest": orders})


def _orders(use: str, context: Context) -> list[order.Numbers]:
    if use == "document":
        return report_mapping.document_numbers(context.message, context.profile, context.sender)
    groups = [group for patient in patient_groups(context.message) for group in patient.orders]
    found = [order.numbers(group.segments, context.profile, context.sender) for group in groups]
    return [numbers for numbers in found if numbers.stated]


def _lines(mapped: Mapped) -> Iterator[str]:
    for resource in (entry.resource for entry in mapped.entries if entry.resource):
        if (known := _WORDS.get(resource["resourceType"])) is not None:
            yield f"{known[0]:{_WIDTH}}{known[1](resource)}"


def _numbers(resource: Json) -> str:
    listed = resource.get("identifier", [])
    return ", ".join(
        f"{one.get('value')} ({str(one.get('system', '')).removeprefix('urn:arcuate:id:')})" for one in listed
    )


def _patient(one: Json) -> str:
    names = " / ".join(f"{name.get('family', '')}, {' '.join(name.get('given', []))}" for name in one.get("name", []))
    return f"{_numbers(one)}; {names}; born {one.get('birthDate', 'not stated')}; {one.get('gender', 'sex not stated')}"


def _order(one: Json) -> str:
    reasons = " / ".join(reason.get("text", "") for reason in one.get("reasonCode", []))
    return (
        f"{_numbers(one)}; {one['status']}; {one.get('priority', 'no priority')}; {_exams([one.get('code') or {}])}; "
        f"planned {one.get('occurrenceDateTime', 'not stated')}; indication: {reasons or 'none'}"
    )


def _booking(one: Json) -> str:
    exams = f"{_exams(one['serviceType'])}; " if "serviceType" in one else ""
    return f"{_numbers(one)}; {exams}{one['status']}; {one.get('start', 'no start')} to {one.get('end', 'no end')}"


def _exams(concepts: Sequence[Json]) -> str:
    """Each exam with its codes; the house's own (`procedure_map`) are named so."""
    return ", ".join(f"{concept.get('text', 'no exam')}{_codes(concept)}" for concept in concepts)


def _codes(concept: Json) -> str:
    listed = concept.get("coding", [])
    words = [("house " if one["system"] == codes.CS_EXAM else "") + one["code"] for one in listed]
    return f" [{', '.join(words)}]" if words else ""


def _report(one: Json) -> str:
    forms = one.get("presentedForm", [])
    kinds = ", ".join(str(form.get("contentType") or form.get("url")) for form in forms)
    plain = next((form for form in forms if str(form.get("contentType", "")).startswith("text/plain")), {"data": ""})
    text = base64.b64decode(plain["data"]).decode("utf-8", "replace")[:60]
    values = len(one.get("result", []))
    return f"{_numbers(one)}; {one['status']}; {len(one['basedOn'])} order(s); {values} value(s); {kinds}; begins: {text!r}"


def _value(one: Json) -> str:
    said = next((one[name] for name in one if name.startswith("value")), "no value")
    return f"{(one.get('code') or {}).get('text', '')} = {said}"


def _plain(one: Json) -> str:
    return f"{_numbers(one)}; {one['status']}"


def _place(one: Json) -> str:
    return f"{_numbers(one)}; {one['name']}"


def _visit(one: Json) -> str:
    places = [place["location"]["display"] for place in one.get("location", [])]
    return "; ".join([_plain(one), *places])


def _name(one: Json) -> str:
    return str(one["code"].get("text", ""))


_WORDS = {
    "Patient": ("patient", _patient), "Encounter": ("visit", _visit), "Location": ("place", _place),
    "ServiceRequest": ("order", _order), "Procedure": ("exam", _plain),
    "Appointment": ("booking", _booking), "DiagnosticReport": ("report", _report), "Observation": ("value", _value),
    "AllergyIntolerance": ("allergy", _name), "Condition": ("diagnosis", _name),
}  # fmt: skip


# Fields whose codes a map of the profile translates.
_CODED = (
    ("ORC", 1, "order_control"), ("ORC", 5, "order_status"), ("SCH", 25, "booking_status"), ("OBX", 11, "observation_status"),
    ("OBR", 25, "result_status"), ("TXA", 17, "document_status"),
)  # fmt: skip
_EXAMS, _PLACES = {"OBR": 4, "AIS": 3}, {"PV1": 3, "AIL": 3}


def _unmapped(message: Message, profile: Profile, sender: Sender) -> list[str]:
    """Codes that the profile's maps don't know: statuses, and exams and places where the profile maps any."""
    found = []
    for segment in message:
        for name, number, table in _CODED:
            if (
                segment.id == name
                and (code := segment[number].value.strip())
                and profile.translate(table, code) is None
            ):
                found.append(f"{name}-{number} {code} is not in {table}")
        exam, place = _EXAMS.get(segment.id, 0), _PLACES.get(segment.id, 0)
        if exam and sender.procedures and (word := _unknown_exam(segment[exam], sender)):
            found.append(f"{segment.id}-{exam} {word} is not in procedure_map")
        if place and sender.places and (word := _unknown_place(segment[place], sender)):
            found.append(f"{segment.id}-{place} {word} is not in location_map")
    return list(dict.fromkeys(found))


def _unknown_exam(field: Field, sender: Sender) -> str:
    made = datatypes.exam(field, sender) or {}
    known = any(one["system"] == codes.CS_EXAM for one in made.get("coding", []))
    return "" if known else str(made.get("text", ""))


def _unknown_place(field: Field, sender: Sender) -> str:
    place = datatypes.pl(field, replace(sender, places={}))
    sent = str(place["identifier"][0]["value"]) if place else ""
    return "" if sent in sender.places else sent


def _disagreements(message: Message, profile: Profile) -> list[str]:
    """Two places of the profile that hold different values for the same thing: a sender's habit that may be missed."""
    found = []
    groups = [group.segments for patient in patient_groups(message) for group in patient.orders]
    for what, places in (("accession", groups), ("start", groups), ("booking_start", [list(message)])):
        for segments in places:
            values = {str(source.place): said[0] for source in profile.sources[what] if (said := source.find(segments))}
            if len(set(values.values())) > 1:
                taken, *others = [f"{place} {value}" for place, value in values.items()]
                found.append(f"{what}: {taken} was taken, not {', '.join(dict.fromkeys(others))}")
    return list(dict.fromkeys(found))
