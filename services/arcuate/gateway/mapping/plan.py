"""From a message to what must be looked up for it, and from what was found to the entries of a transaction. Pure."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

from arcuate.gateway.mapping import al1, datatypes, mrg, order, pid, pv1, report, sch
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.groups import PatientGroup, patient_groups
from arcuate.gateway.mapping.model import ContentFault, Mapped, Standing, identity_conflict, token
from arcuate.gateway.profile import Profile
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.hl7v2 import timestamps
from arcuate.kernel.hl7v2.message import Message, Segment


@cache
def events() -> Mapping[str, Any]:
    """Return `events.toml`."""
    return tomllib.loads(resources.files("arcuate.gateway").joinpath("events.toml").read_text("utf-8"))


def use_of(kind: str, event: str) -> str:
    """Return what is done with a type and event: a use of `events.toml`, `ignored`, `acknowledgement` or `unknown`."""
    table = events()
    if kind in table["known"]["acknowledgements"]:
        return "acknowledgement"
    if use := table["use"].get(f"{kind}^{event}"):
        return str(use)
    needs_event = not event and any(name.startswith(f"{kind}^") for name in table["use"])
    return "unknown" if needs_event or kind not in table["known"]["types"] else "ignored"


def use_of_message(message: Message) -> str:
    """Return what is done with a message; one of no known type that holds MSA answers us, and must never be answered in turn."""
    use = use_of(*message_type(message))
    return "acknowledgement" if use == "unknown" and message.first("MSA") is not None else use


@dataclass(frozen=True)
class Context:
    """A message with all that its mapping needs to know beside it."""

    message: Message
    profile: Profile
    sender: Sender
    event: str
    at: datetime
    received: datetime

    @classmethod
    def of(cls, message: Message, profile: Profile, site: ZoneInfo, received: datetime) -> "Context":
        """Return the context; a message without a usable MSH-7 happened when it was received."""
        sender = Sender(
            datatypes.one_line(message.value("MSH-3")), datatypes.one_line(message.value("MSH-4")), profile.zone(site),
            profile.procedures, profile.places,
        )  # fmt: skip
        try:
            sent = timestamps.parse(message.value("MSH-7"), sender.zone).instant
        except BadInput:
            sent = None
        return cls(message, profile, sender, message_type(message)[1], sent or received, received)


def message_type(message: Message) -> tuple[str, str]:
    """Return MSH-9.1 and MSH-9.2; an event that is missing there stands in EVN-1 of old messages, or there is but one."""
    kind, event = message.value("MSH-9.1").strip(), message.value("MSH-9.2").strip()
    return kind, event or message.value("EVN-1").strip() or events()["alone"].get(kind, "")


@dataclass(frozen=True)
class Named:
    """A patient as a message names them.

    Attributes:
        tokens: The numbers.
        stated: Gives what else it says of them, as a Patient; asked only where a number is not known.
        beside: For a number that is merged away: the numbers of who survives.
    """

    tokens: tuple[str, ...]
    stated: Callable[[], Json]
    beside: tuple[str, ...] = ()


@dataclass
class Needs:
    """Identifier tokens to look up: patients one by one (a merged one answers for its number), the others by type.

    `of_patients` are types of which all that belongs to these patients is wanted; `named` says what else is known of each patient.
    """

    patients: list[str] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)
    of_patients: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(default_factory=dict)

    def add(self, resource_type: str, wanted: Sequence[str]) -> None:
        """Ask for more."""
        listed = self.others.setdefault(resource_type, [])
        listed += [one for one in wanted if one not in listed]

    def add_patient(self, keys: Sequence[Json], stated: Callable[[], Json], beside: Sequence[Json] = ()) -> None:
        """Ask for the patient of these identifiers."""
        self.patients += [one for key in keys if (one := token(key)) not in self.patients]
        self.named.append(Named(tuple(map(token, keys)), stated, tuple(map(token, beside))))


def needs(use: str, context: Context) -> Needs:
    """Return what the record must be asked before the message can be mapped.

    Raises:
        ContentFault: The message lacks what identifies its patient, order or booking.
    """
    found = Needs()
    message, profile, sender = context.message, context.profile, context.sender
    for segment in message.all("PID"):
        found.add_patient(pid.keys_of(segment, profile, sender), partial(pid.patient, {}, segment, profile, sender))
    for survivor, gone in mrg.pairs(message) if use in ("merge", "renumber") else []:
        beside = pid.keys_of(survivor, profile, sender)
        found.add_patient(
            mrg.keys_of(gone, profile, sender), partial(pid.patient, {}, survivor, profile, sender), beside
        )
    for segment in message.all("PV1"):
        visit = pv1.number(segment, sender)
        found.add("Encounter", [token(visit)] if visit else [])
    if use in ("registration", "order", "problem"):
        found.of_patients += al1.wanted(_statements(message, use))
    if use == "unmerge":
        found.of_patients.append("ServiceRequest")
    if use == "document":
        for numbers in report.document_numbers(message, profile, sender):
            found.add("ServiceRequest", numbers.tokens)
            found.add("DiagnosticReport", _own(numbers, use, sender))
    if use in ("order", "report"):
        for group in (one for patient in patient_groups(message) for one in patient.orders):
            numbers = order.numbers(group.segments, profile, sender)
            found.add("ServiceRequest", numbers.tokens)
            found.add("Procedure" if use == "order" else "DiagnosticReport", _own(numbers, use, sender))
    if use == "booking":
        booking = sch.read(message, sender)
        found.add("Appointment", booking.tokens)
        found.add("ServiceRequest", booking.orders)
        found.add("Location", [token(place["identifier"][0]) for place in sch.places(booking, sender)])
    return found


def _statements(message: Message, use: str) -> list[Segment]:
    """AL1, IAM, PRB and DG1 that speak of the patient: DG1 of an order is its indication."""
    spoken = {"registration": ("AL1", "IAM", "PRB", "DG1"), "problem": ("PRB",)}.get(use, ("AL1", "IAM", "PRB"))
    return [segment for segment in message if segment.id in spoken]


def _own(numbers: order.Numbers, use: str, sender: Sender) -> list[str]:
    if use == "order":
        own = numbers.accession or numbers.filler or numbers.placer
        return [token(own)] if own else []
    if not numbers.stated:
        return []
    return [token(one) for one in report.own_identifiers((numbers,), sender)]


def apply(use: str, context: Context, standing: Standing) -> tuple[Mapped, list[ContentFault]]:
    """Return what a message becomes. Faults of one patient's part of a result leave the other parts alone (row 025).

    Raises:
        ContentFault: The whole message waits for a person.
    """
    match use:
        case "registration":
            return _registration(context, standing), []
        case "problem":
            return _problems(context, standing), []
        case "merge":
            pairs = mrg.pairs(context.message)
            merged = [mrg.apply(*pair, context.profile, context.sender, standing, context.received) for pair in pairs]
            return _together(merged), []
        case "renumber":
            pairs = mrg.pairs(context.message)
            return _together([mrg.renumber(*pair, context.profile, context.sender, standing) for pair in pairs]), []
        case "unmerge":
            return mrg.undo(context.message, context.profile, context.sender, standing), []
        case "document":
            return _document(context, standing), []
        case "order":
            return _orders(context, standing), []
        case "booking":
            return _booking(context, standing), []
        case _:
            return _reports(context, standing)


def _pid(group: PatientGroup) -> Segment:
    if group.pid is None:
        raise ContentFault("no patient", "There is no PID segment", "PID", "100")
    return group.pid


def _together(parts: Sequence[Mapped]) -> Mapped:
    """Return several parts as one; what each part changes is its own, so nothing is listed twice."""
    entries: list[Entry] = []
    for entry in (entry for part in parts for entry in part.entries):
        if entry not in entries:
            entries.append(entry)
    return Mapped(
        entries,
        list(dict.fromkeys(word for part in parts for word in part.made)),
        [one for part in parts for one in part.orders],
        [one for part in parts for one in part.waits],
        {key: at for part in parts for key, at in part.marks.items()},
        "; ".join(dict.fromkeys(part.note for part in parts if part.note)),
        all(part.stale for part in parts) if parts else False,
    )


def _registration(context: Context, standing: Standing) -> Mapped:
    group, table = patient_groups(context.message)[0], events()
    who = pid.person(_pid(group), context.profile, context.sender, standing, registration=True)
    parts = [Mapped(who.entries, who.made)]
    if context.event not in table["person"]["events"]:
        status = table["visit"].get(context.event, "")
        parts.append(pv1.change(group.first("PV1"), who, context.sender, standing, status, context.at))
    parts.append(al1.apply(_statements(context.message, "registration"), who, context.sender, standing))
    return _together(parts)


def _problems(context: Context, standing: Standing) -> Mapped:
    """PPR: problems of a patient; who they are is not what it is about, and another patient's problems are not taken."""
    group = patient_groups(context.message)[0]
    stated = _statements(context.message, "problem")
    if not stated:
        raise ContentFault("no problem", "A message about problems needs PRB", "PRB", "100")
    who = pid.person(_pid(group), context.profile, context.sender, standing, registration=False)
    said = al1.apply(stated, who, context.sender, standing)
    return _together([Mapped(who.entries, who.made), said]) if said.entries else said


def _orders(context: Context, standing: Standing) -> Mapped:
    groups = patient_groups(context.message)
    profile, sender = context.profile, context.sender
    if len({tuple(map(token, pid.keys_of(_pid(group), profile, sender))) for group in groups}) > 1:
        raise identity_conflict("One order message names two patients", "PID-3")
    orders = [one for group in groups for one in group.orders]
    if orders and all(one.is_other_order for one in orders):
        return Mapped(note="This is no order for an exam (no OBR)", stale=True)
    if not orders:
        raise ContentFault("no order", "There is neither ORC nor OBR", "ORC", "100")
    changes = order.joined([order.read(one, profile, sender, context.at) for one in orders if not one.is_other_order])
    who = pid.person(_pid(groups[0]), profile, sender, standing, registration=False)
    visit, visited = pv1.encounter(groups[0].first("PV1"), who, sender, standing)
    taken: set[str] = set()
    parts = [order.apply(change, who, visit, profile, sender, standing, taken) for change in changes]
    if not any(part.entries for part in parts):
        return _together(parts)  # a cancellation of what is not known makes nobody known either
    said = al1.apply(_statements(context.message, "order"), who, sender, standing)
    return _together([Mapped([*who.entries, *visited], who.made), *parts, said])


def _document(context: Context, standing: Standing) -> Mapped:
    profile, sender = context.profile, context.sender
    group = patient_groups(context.message)[0]
    statement = report.read_document(context.message, profile, sender)
    if statement is None:
        return Mapped(stale=True, note="A document without the number of an order")
    who = pid.person(_pid(group), profile, sender, standing, registration=False)
    part = report.apply(statement, who, profile, sender, standing, context.at)
    return _together([Mapped(who.entries, who.made), part]) if part.entries else part


def _booking(context: Context, standing: Standing) -> Mapped:
    profile, sender = context.profile, context.sender
    booking = sch.read(context.message, sender)
    group = patient_groups(context.message)[0]
    who = pid.person(_pid(group), profile, sender, standing, registration=False)
    rule = events()["booking"].get(context.event, "")
    part = sch.apply(booking, context.event, rule, context.at, who, profile, sender, standing)
    if part.stale:
        return part
    return _together([Mapped(who.entries, who.made), part])


def _reports(context: Context, standing: Standing) -> tuple[Mapped, list[ContentFault]]:
    parts: list[Mapped] = []
    faults: list[ContentFault] = []
    for group in _by_patient(context):
        try:
            parts.append(_report_group(group, context, standing))
        except ContentFault as fault:
            faults.append(fault)
    if not parts:
        raise faults[0]
    return _together(parts), faults


def _by_patient(context: Context) -> list[PatientGroup]:
    """Groups of the same patient are one: senders repeat PID before each order."""
    found: dict[tuple[str, ...], PatientGroup] = {}
    for group in patient_groups(context.message):
        keys = pid.keys_of(group.pid, context.profile, context.sender) if group.pid is not None else []
        known = found.setdefault(tuple(map(token, keys)), group)
        if known is not group:
            known.orders += group.orders
    return list(found.values())


def _report_group(group: PatientGroup, context: Context, standing: Standing) -> Mapped:
    profile, sender = context.profile, context.sender
    statements = report.read(group.orders, profile, sender)
    who = pid.person(group.pid, profile, sender, standing, registration=False) if group.pid is not None else None
    parts = [report.apply(one, who, profile, sender, standing, context.at) for one in statements]
    if who is not None and any(part.entries for part in parts):
        parts.insert(0, Mapped(who.entries, who.made))
    return _together(parts)
