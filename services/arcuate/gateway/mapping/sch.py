"""SCH, TQ1, AIS, AIL and AIP to Appointment (segments/SCH__Appointment.csv). The trigger decides where SCH-25 cannot (see events.toml)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.gateway.mapping import datatypes, obx, terms
from arcuate.gateway.mapping.datatypes import Sender
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
from arcuate.kernel.hl7v2.message import Message, Segment
from arcuate.kernel.hl7v2.timestamps import Moment

_MINUTES = {
    "": 1.0,
    "M": 1.0,
    "MIN": 1.0,
    "MINS": 1.0,
    "MINUTE": 1.0,
    "MINUTES": 1.0,
    "S": 1 / 60,
    "SEC": 1 / 60,
    "H": 60.0,
    "HR": 60.0,
}


@dataclass(frozen=True)
class Booking:
    """A schedule message, read.

    Attributes:
        numbers: SCH-2 (filler) first, since the filler keeps the book; then SCH-1.
        orders: Tokens under which the order may stand (SCH-26, SCH-27).
    """

    sch: Segment
    segments: Sequence[Segment]
    numbers: Sequence[Json]
    orders: Sequence[str]

    @property
    def tokens(self) -> list[str]:
        """Return the tokens of its numbers."""
        return [token(one) for one in self.numbers]


def read(message: Message, sender: Sender) -> Booking:
    """Return the booking of a message.

    Raises:
        ContentFault: There is no SCH, or no number in it.
    """
    sch = message.first("SCH")
    if sch is None:
        raise ContentFault("no booking", "A schedule message needs SCH", "SCH", "100")
    listed = [
        datatypes.ei(sch[field], codes.appointment_system(datatypes.ei_authority(sch[field], sender)), kind)
        for field, kind in ((2, "FILL"), (1, "PLAC"))
    ]
    numbers = [one for one in listed if one is not None]
    if not numbers:
        raise ContentFault("no booking number", "SCH-1 and SCH-2 are empty", "SCH-2", "101")
    return Booking(sch, list(message), numbers, _order_tokens(sch, sender))


def _order_tokens(sch: Segment, sender: Sender) -> list[str]:
    """SCH-27 and SCH-26: either may be the accession number (see the sender's habits), so it is asked for first."""
    found: list[str] = []
    for field, system in ((27, codes.filler_system), (26, codes.placer_system)):
        value = datatypes.one_line(sch[field].component(1))
        if value:
            found.insert(len(found) // 2, f"{codes.SYSTEM_ACCESSION}|{value}")
            found.append(f"{system(datatypes.ei_authority(sch[field], sender))}|{value}")
    return found


def apply(
    booking: Booking, event: str, rule: str, message_at: datetime, person: Person, profile: Profile, sender: Sender,
    standing: Standing,
) -> Mapped:  # fmt: skip
    """Return what a schedule message becomes. `rule` is what the event decides by itself (`cancelled`, `deleted`, `noshow`)."""
    mark = f"{sender.authority}|{booking.tokens[0]}"
    if (newest := standing.marks.get(mark)) and newest > message_at:
        return Mapped(stale=True, note="A newer message about this booking has been applied already")
    found = standing.find("Appointment", booking.tokens)
    current = found[0] if found else {}
    if current and not _has_patient(current, person, standing):
        raise identity_conflict("The booking with this number belongs to another patient", "PID-3")
    orders = standing.find("ServiceRequest", booking.orders)[:1]
    for order in orders:
        if not standing.is_of(order, person.current):
            raise identity_conflict("The order of this booking belongs to another patient", "SCH-27")
    rooms = [_place(place, standing) for place in places(booking, sender)]
    made = _appointment(current, booking, event, rule, person, [one for one, _ in rooms], orders, profile, sender)
    changed = _entry(made, current, booking)
    waits = [] if orders else [Wait(WaitKind.BOOKING, one, message_at) for one in booking.orders]
    asked = _answered(current, standing)
    words = [f"booking {'changed' if current else 'new'} ({made['status']})"] if changed else []
    new_places = [entry for _, entries in rooms for entry in entries]
    return Mapped([*new_places, *changed, *asked], words, waits=waits, marks={mark: message_at})


def _has_patient(appointment: Json, person: Person, standing: Standing) -> bool:
    actors = [participant.get("actor") or {} for participant in appointment.get("participant", [])]
    patients = [{"subject": actor} for actor in actors if str(actor.get("reference", "")).startswith("Patient/")]
    return not patients or any(standing.is_of(one, person.current) for one in patients)


def _entry(made: Json, current: Json, booking: Booking) -> list[Entry]:
    if not current:
        return [bundle.create(made, {"identifier": booking.tokens[0]})]
    return [] if made == current else [bundle.update(made, version_of(current))]


def places(booking: Booking, sender: Sender) -> list[Json]:
    """AIL-3: each place as a Location."""
    return datatypes.first([datatypes.pl(segment[3], sender) for segment in booking.segments if segment.id == "AIL"])


def _place(place: Json, standing: Standing) -> tuple[Json, list[Entry]]:
    """Return a Reference to a place, and its entry when it is not known yet."""
    number = token(place["identifier"][0])
    found = standing.find("Location", [number])
    if found:
        return codes.reference("Location", found[0]["id"]), []
    entry = bundle.create(place, {"identifier": number})
    return entry.reference, [entry]


def _appointment(
    current: Json, booking: Booking, event: str, rule: str, person: Person, places: Sequence[Json], orders: Sequence[Json],
    profile: Profile, sender: Sender,
) -> Json:  # fmt: skip
    sch = booking.sch
    made: Json = {"resourceType": "Appointment", **current}
    made["identifier"] = with_identifiers(current.get("identifier", []), booking.numbers)
    made["status"] = _status(sch, event, rule, current, profile)
    _when(made, booking, profile, sender)
    _why(made, sch, rule, sender)
    services = datatypes.first(
        [datatypes.exam(segment[3], sender) for segment in booking.segments if segment.id == "AIS"]
    )
    if services:
        made["serviceType"] = services
    if orders:
        made["basedOn"] = [codes.reference("ServiceRequest", orders[0]["id"])]
    if "created" not in made and (written := datatypes.ts(_msh_7(booking), sender, "MSH-7")):
        made["created"] = written.fhir
    notes = [line for segment in booking.segments if segment.id == "NTE" for line in obx.text_lines(segment[3]) if line]
    if notes:
        made["comment"] = "\n".join(notes)
    made["participant"] = _participants(current, booking, person, places, sender)
    return made


def _msh_7(booking: Booking) -> str:
    return next((segment[7].value for segment in booking.segments if segment.id == "MSH"), "")


def _status(sch: Segment, event: str, rule: str, current: Json, profile: Profile) -> str:
    if rule:
        return "cancelled" if rule == "deleted" else rule
    said = next(
        (code for number in (1, 2) if (code := profile.translate("booking_status", sch[25].component(number)))), None
    )
    if said:
        return said
    # S14 without a status leaves it; S12 and S13 book.
    return str(current.get("status", "booked")) if event == "S14" else "booked"


def _why(made: Json, sch: Segment, rule: str, sender: Sender) -> None:
    """SCH-6 and SCH-7. Only a cancelled or missed appointment has a cancelation reason (app-4)."""
    if made["status"] in ("cancelled", "noshow"):
        reason = datatypes.cwe(sch[6], sender) or datatypes.cwe(sch[7], sender)
        if rule == "deleted":
            error = codes.coding(terms.CANCELLATION_SYSTEM, "oth-err", "Other: Error")
            reason = {"coding": [error], "text": (reason or {}).get("text", "Deleted: booked in error")}
        if reason:
            made["cancelationReason"] = reason
    else:
        made.pop("cancelationReason", None)
        if reason := datatypes.cwe(sch[7], sender):
            made["reasonCode"] = [reason]
    if kind := datatypes.cwe(sch[8], sender):
        made["appointmentType"] = kind


def _when(made: Json, booking: Booking, profile: Profile, sender: Sender) -> None:
    """Start, end and minutes; what the message does not state stays.

    Raises:
        ContentFault: A booking without any time.
    """
    segments = list(booking.segments)
    start = datatypes.ts(profile.value("booking_start", segments), sender, "TQ1-7, SCH-11.4 or AIS-4")
    end = datatypes.ts(profile.value("booking_end", segments), sender, "TQ1-8 or SCH-11.5")
    minutes = _minutes(booking, start, end)
    if start is not None and start.instant is not None:
        made["start"] = start.fhir
        length = timedelta(minutes=minutes or _length(end, start) or made.get("minutesDuration", 0))
        if length:
            made["end"] = (start.instant + length).astimezone(start.zone).isoformat(timespec="seconds")
            made["minutesDuration"] = max(1, round(length / timedelta(minutes=1)))
        else:
            made["end"] = start.fhir
    elif minutes and "start" not in made:
        made["minutesDuration"] = minutes
    if "start" not in made and made["status"] not in ("cancelled", "waitlist"):
        raise ContentFault("no time of booking", "No start time in TQ1-7, SCH-11.4, AIS-4 or AIL-6", "SCH-11", "101")


def _length(end: Moment | None, start: Moment) -> float:
    if end is None or end.instant is None or start.instant is None or end.instant <= start.instant:
        return 0
    return (end.instant - start.instant) / timedelta(minutes=1)


def _minutes(booking: Booking, start: Moment | None, end: Moment | None) -> int:
    """SCH-9 with its unit, else AIS-7 with its unit; an end that the message states counts before both."""
    if start is not None and (stated := _length(end, start)):
        return round(stated)
    ais = next((segment for segment in booking.segments if segment.id == "AIS"), None)
    for segment, length, unit in ((booking.sch, 9, 10), (ais, 7, 8)):
        if segment is None or (number := datatypes.nm(segment[length].value)) is None:
            continue
        name = segment[unit].value.strip() or segment[length].component(2).strip()
        factor = _MINUTES.get(name.upper(), 0.0)
        if factor and (minutes := round(float(number) * factor)) > 0:
            return minutes
    return 0


def _participants(
    current: Json, booking: Booking, person: Person, places: Sequence[Json], sender: Sender
) -> list[Json]:
    """Patient, places (AIL) and people (AIP); places and people stay when the message names none."""
    kept = current.get("participant", [])
    stated = [{"actor": place, "status": "accepted"} for place in places]
    people = datatypes.first([datatypes.xcn(segment[3], sender) for segment in booking.segments if segment.id == "AIP"])
    stated += [{"actor": one, "status": "accepted"} for one in people]
    others = stated or [one for one in kept if not _is_patient(one)]
    patients = [one for one in kept if _is_patient(one)]
    return [*(patients or [{"actor": person.reference, "status": "accepted"}]), *others]


def _is_patient(participant: Json) -> bool:
    return str((participant.get("actor") or {}).get("reference", "")).startswith("Patient/")


def _answered(current: Json, standing: Standing) -> list[Entry]:
    """What our pages asked the RIS for this booking is done with its message."""
    if not current:
        return []
    mine = f"Appointment/{current['id']}"
    asked = [task for task in standing.resources.get("Task", ()) if (task.get("focus") or {}).get("reference") == mine]
    return [bundle.update({**task, "status": "completed"}, version_of(task)) for task in asked]
