"""ORC, OBR, TQ1, IPC, ZDS, NTE and DG1 to ServiceRequest and Procedure (segments/ORC__ServiceRequest.csv, OBR__ServiceRequest.csv).

One ServiceRequest an accession number. ORC-1 says what happens (profile: `order_control`), ORC-5 how far it is. IPC and ZDS have no
table at HL7: IPC-1 accession, IPC-3 study UID; ZDS-1 study UID.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from arcuate.gateway.mapping import datatypes, obx, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.groups import Group
from arcuate.gateway.mapping.model import (
    ContentFault,
    Mapped,
    Standing,
    Wait,
    WaitKind,
    identity_conflict,
    token,
    with_identifiers,
)
from arcuate.gateway.mapping.pid import Person
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Part, Segment


@dataclass(frozen=True)
class Numbers:
    """The numbers of one order; `accession` first, since it is the one that all systems share."""

    accession: Json | None
    placer: Json | None
    filler: Json | None
    study: Json | None
    group: Json | None

    @property
    def stated(self) -> list[Json]:
        """Return all numbers that identify the order."""
        return [one for one in (self.accession, self.placer, self.filler) if one is not None]

    @property
    def tokens(self) -> list[str]:
        """Return their tokens, best first."""
        return [token(one) for one in self.stated]


def numbers(segments: list[Segment], profile: Profile, sender: Sender) -> Numbers:
    """Return the numbers of an order by the sender's profile."""
    accession = datatypes.one_line(profile.value("accession", segments))
    uid = profile.value("study_uid", segments)
    return Numbers(
        codes.accession_identifier(accession) if accession else None,
        _number(profile.find("placer", segments), codes.placer_system, "PLAC", sender),
        _number(profile.find("filler", segments), codes.filler_system, "FILL", sender),
        codes.study_uid_identifier(uid) if uid else None,
        _requisition(segments, sender),
    )


def _number(found: tuple[str, Part] | None, system: Callable[[str], str], kind: str, sender: Sender) -> Json | None:
    return datatypes.ei(found[1], system(datatypes.ei_authority(found[1], sender)), kind) if found else None


def _requisition(segments: list[Segment], sender: Sender) -> Json | None:
    """ORC-4, the placer's group number; table 0203 of R4 has no code for it."""
    group = next((segment[4] for segment in segments if segment.id == "ORC" and segment[4]), None)
    value = datatypes.one_line(group.component(1)) if group is not None else ""
    if group is None or not value:
        return None
    system = codes.placer_system(datatypes.ei_authority(group, sender)) + ":group"
    return {"system": system, "value": value, "type": {"text": "Placer group number"}}


def standing_orders(found: Numbers, standing: Standing) -> list[Json]:
    """Return the orders that these numbers mean: by accession; else by placer or filler number.

    A number of the placer can stand on several accessions. Where this message states an accession, an order found by the other
    numbers is the same one only as long as it has no accession itself.
    """
    if found.accession is not None:
        exact = standing.find("ServiceRequest", [token(found.accession)])
        if exact:
            return exact
        others = standing.find("ServiceRequest", found.tokens)
        return [order for order in others if codes.accession_of(order) is None][:1]
    return standing.find("ServiceRequest", found.tokens)


@dataclass(frozen=True)
class Change:
    """One order group, read.

    Attributes:
        action: What ORC-1 means by the profile (`new`, `change`, `status`, `cancel`, `hold`, `release`, `nothing`).
        event_at: ORC-9, else the message's time.
        more: OBR of further groups with the same number: several exams under one accession.
    """

    group: Group
    numbers: Numbers
    action: str
    control: str
    state: str
    event_at: datetime
    more: tuple[Segment, ...] = ()


def read(group: Group, profile: Profile, sender: Sender, message_at: datetime) -> Change:
    """Return what a group says.

    Raises:
        ContentFault: It has no number, or an ORC-1 that is no order control code.
    """
    orc = group.first("ORC")
    found = numbers(group.segments, profile, sender)
    if not found.stated:
        raise ContentFault("no order number", "Neither ORC nor OBR nor IPC holds a number of the order", "ORC-2", "101")
    control = orc[1].value.strip() if orc is not None else ""
    action = profile.translate("order_control", control) if control else "new"
    moment = datatypes.ts(orc[9].value, sender, "ORC-9") if orc is not None else None
    instant = moment.instant if moment else None
    state = orc[5].value.strip() if orc is not None else ""
    return Change(group, found, action or "nothing", control, state, instant or message_at)


def joined(changes: Sequence[Change]) -> list[Change]:
    """Return one change an order: groups with the same number are one order with several exams."""
    found: list[Change] = []
    for change in changes:
        place = next((n for n, one in enumerate(found) if one.numbers.tokens[0] == change.numbers.tokens[0]), None)
        if place is None:
            found.append(change)
            continue
        first = found[place]
        rest = [segment for segment in change.group.segments if segment.id not in ("ORC", "OBR")]
        more = tuple(change.group.all("OBR"))
        found[place] = replace(first, group=Group([*first.group.segments, *rest]), more=(*first.more, *more))
    return found


def apply(
    change: Change, person: Person, encounter: Json | None, profile: Profile, sender: Sender, standing: Standing,
    taken: set[str],
) -> Mapped:  # fmt: skip
    """Return what one order group becomes; `taken` are the ids that another group of this message has changed already."""
    if change.action == "nothing":
        return Mapped(note=f"ORC-1 {change.control or 'empty'} changes no imaging order")
    found = [one for one in standing_orders(change.numbers, standing) if one["id"] not in taken]
    taken.update(one["id"] for one in found)
    for one in found:
        if not standing.is_of(one, person.current):
            raise identity_conflict("The order with this number belongs to another patient", "PID-3")
    if change.action == "cancel" and not found:
        waits = [Wait(WaitKind.CANCEL, one, change.event_at) for one in change.numbers.tokens]
        return Mapped(waits=waits, note="The order is not known yet; the cancellation is kept for it")
    if not found and change.group.first("OBR") is None:
        raise ContentFault("no exam", "A new order needs OBR", "OBR", "100")
    entries: list[Entry] = []
    made: list[str] = []
    for current in found or [{}]:
        request = _request(current, change, person, encounter, profile, sender, standing)
        supporting = _supporting(change, request, person, profile, sender)
        if supporting and "supportingInfo" not in request:
            request["supportingInfo"] = [one.reference for one in supporting]
        reference, changed = _entry(request, current, change.numbers)
        exam = _exam(change, request, reference, person, profile, sender, standing)
        entries += [*changed, *supporting, *exam]
        made += _words("order", current, changed) + (
            ["exam " + exam[0].resource["status"]] if exam and exam[0].resource else []
        )
    return Mapped(entries, made, change.numbers.tokens)


def _entry(request: Json, current: Json, found: Numbers) -> tuple[Json, list[Entry]]:
    if not current:
        entry = bundle.create(request, {"identifier": found.tokens[0]})
        return entry.reference, [entry]
    reference = codes.reference("ServiceRequest", current["id"])
    return reference, [] if request == current else [bundle.update(request, version_of(current))]


def _words(what: str, current: Json, changed: Sequence[Entry]) -> list[str]:
    return [f"{what} {'changed' if current else 'new'}"] if changed else []


def _request(
    current: Json,
    change: Change,
    person: Person,
    encounter: Json | None,
    profile: Profile,
    sender: Sender,
    standing: Standing,
) -> Json:
    found = change.numbers
    made: Json = {"resourceType": "ServiceRequest", **current}
    made["identifier"] = with_identifiers(current.get("identifier", []), [*found.stated, found.study])
    made["status"], note = _status(current, change, profile, standing)
    made["intent"] = "order"
    made.setdefault("subject", person.reference)
    if found.group is not None:
        made["requisition"] = found.group
    if encounter is not None:
        made["encounter"] = encounter
    if change.action in ("new", "change", "status"):
        _details(made, change, profile, sender)
    notes = [*current.get("note", [])]
    if note and {"text": note} not in notes:
        notes.append({"text": note})
    if notes:
        made["note"] = notes
    return made


def _status(current: Json, change: Change, profile: Profile, standing: Standing) -> tuple[str, str]:
    """Return ServiceRequest.status and a note; never backwards from completed (row 027), never alive again without a new order."""
    stands = current.get("status", "")
    if change.action == "cancel":
        if stands == "completed":
            raise ContentFault("illegal status step", "The order is completed and cannot be cancelled", "ORC-1")
        return "revoked", ""
    if change.action == "hold":
        return stands if stands in ("completed", "revoked") else "on-hold", ""
    if change.action == "release":
        return stands if stands == "completed" else "active", ""
    said = profile.translate("order_status", change.state) if change.state else None
    if change.action == "new":
        return _new_status(said or "active", stands, change, standing)
    if stands in ("completed", "revoked"):
        return stands, ""
    return said or stands or "active", ""


def _new_status(said: str, stands: str, change: Change, standing: Standing) -> tuple[str, str]:
    """A cancellation that happened at or after this order was placed counts, in whatever order the two came (row 026)."""
    cancelled = max((at for one in change.numbers.tokens if (at := standing.cancels.get(one))), default=None)
    if stands == "completed":
        return stands, ""
    if cancelled is None:
        return said, ""
    if cancelled >= change.event_at:
        return "revoked", ""
    return said, f"Placed again after a cancellation of {cancelled:%Y-%m-%d %H:%M} UTC"


def _details(made: Json, change: Change, profile: Profile, sender: Sender) -> None:
    """What the order is: empty keeps, `""` deletes."""
    group, segments = change.group, change.group.segments
    orc, obr = group.first("ORC"), group.first("OBR")
    if obr is not None and (code := _code([obr, *change.more], sender)):
        made["code"] = code
    if _is_imaging(group, change.numbers):
        made["category"] = [codes.IMAGING_CATEGORY]
    # A word that the profile does not know must not hide a STAT that stands in another place.
    said = (profile.translate("priority_map", value) for value in profile.values("priority", segments))
    priority = next((one for one in said if one), None)
    if priority:
        made["priority"] = priority
    reasons = _reasons(group, sender)
    if obr is not None and obr[31].null:
        made.pop("reasonCode", None)
    elif reasons:
        made["reasonCode"] = reasons
    who = next(
        (
            who
            for one, field in ((orc, 12), (obr, 16))
            if one is not None and (who := datatypes.xcn(one[field], sender))
        ),
        None,
    )
    if who is not None:
        made["requester"] = who
    if change.action == "new" and "authoredOn" not in made and orc is not None:
        placed = datatypes.ts(orc[9].value, sender, "ORC-9")
        if placed is not None:
            made["authoredOn"] = placed.fhir
    planned = datatypes.ts(profile.value("start", segments), sender, "TQ1-7, ORC-7.4 or OBR-6")
    if planned is not None:
        made["occurrenceDateTime"] = planned.fhir
    notes = ["\n".join(lines) for nte in group.all("NTE") if any(lines := obx.text_lines(nte[3]))]
    if notes:
        made["note"] = [{"text": text.strip()} for text in notes]


def _code(exams: Sequence[Segment], sender: Sender) -> Json | None:
    """OBR-4 and OBR-44; the texts of several exams stand together."""
    named = [(field, concept) for obr in exams for field in (4, 44) if (concept := datatypes.exam(obr[field], sender))]
    if not named:
        return None
    found = [concept for _, concept in named]
    codings = datatypes.first([coding for concept in found for coding in concept.get("coding", [])])
    texts = [concept["text"] for field, concept in named if field == 4]
    made: Json = {"coding": codings} if codings else {}
    return {**made, "text": " + ".join(dict.fromkeys(texts)) or found[0]["text"]}


def _reasons(group: Group, sender: Sender) -> list[Json]:
    """The indication as typed: OBR-31, OBR-13 and DG1-3, DG1-4."""
    found: list[Json | None] = []
    if (obr := group.first("OBR")) is not None:
        found += [datatypes.cwe(part, sender) for part in datatypes.repetitions(obr[31])]
        if text := datatypes.clean(obr[13].text):
            found.append({"text": datatypes.clean(obr[13].component(2)) or text})
    for dg1 in group.all("DG1"):
        concept = datatypes.cwe(dg1[3], sender)
        text = datatypes.clean(dg1[4].text)
        found.append(concept or ({"text": text} if text else None))
    return datatypes.first(found)


def _is_imaging(group: Group, found: Numbers) -> bool:
    obr = group.first("OBR")
    section = obr[24].value.strip().upper() if obr is not None else ""
    return found.study is not None or group.first("IPC") is not None or section in terms.codes("imaging_sections")


def _supporting(change: Change, request: Json, person: Person, profile: Profile, sender: Sender) -> list[Entry]:
    """OBX of an order: weight, creatinine and the like, which came with it."""
    if change.action not in ("new", "change"):
        return []
    about = obx.About(change.numbers.tokens[0].split("|", 1)[1], person.reference, [], request.get("authoredOn", ""))
    entries = []
    for place, segment in enumerate(change.group.all("OBX"), 1):
        made = obx.observation(segment, place, about, profile, sender) if segment[5] else None
        if made is not None and segment[2].value.strip() not in ("ED", "RP"):
            entries.append(bundle.update_where(made, {"identifier": token(made["identifier"][0])}))
    return entries


def _exam(
    change: Change, request: Json, reference: Json, person: Person, profile: Profile, sender: Sender, standing: Standing
) -> list[Entry]:
    """ORC-5 IP and CM: the exam has begun, is done. Never back from done."""
    status = profile.translate("exam_status", change.state)
    if status is None or change.action == "cancel":
        return []
    own = change.numbers.accession or change.numbers.filler or change.numbers.placer
    if own is None:
        return []
    found = standing.find("Procedure", [token(own)])
    current = found[0] if found else {}
    if current.get("status") == "completed":
        status = "completed"
    made: Json = {
        "resourceType": "Procedure",
        **current,
        "identifier": with_identifiers(current.get("identifier", []), [own]),
        "status": status,
        "subject": current.get("subject") or person.reference,
        "basedOn": [reference],
        "performedPeriod": _performed(current.get("performedPeriod", {}), status, change, sender),
    }
    if request.get("code"):
        made["code"] = request["code"]
    if not current:
        return [bundle.create(made, {"identifier": token(own)})]
    return [] if made == current else [bundle.update(made, version_of(current))]


def _performed(period: Json, status: str, change: Change, sender: Sender) -> Json:
    """The time of the event; OBR-7 and OBR-8 where they are filled and not planned times that lie after it."""
    event = change.event_at.astimezone(sender.zone).isoformat(timespec="seconds")
    begun, ended = (_happened(change, number, sender) for number in (7, 8))
    made = dict(period)
    if status == "in-progress":
        made["start"] = begun or period.get("start") or event
        return made
    if begun and "start" not in made:
        made["start"] = begun
    made["end"] = ended or period.get("end") or event
    if datatypes.is_backwards(made):
        del made["start"]  # that the exam is over is sure; the two times are not
    return made


def _happened(change: Change, number: int, sender: Sender) -> str:
    obr = change.group.first("OBR")
    moment = datatypes.ts(obr[number].value, sender, f"OBR-{number}") if obr is not None else None
    happened = moment is not None and moment.instant is not None and moment.instant <= change.event_at
    return moment.fhir if moment is not None and happened else ""
