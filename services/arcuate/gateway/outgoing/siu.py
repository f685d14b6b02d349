"""Appointment to SIU (HL7 v2.5.1 chapter 10.4): what changed at our doors, for systems that keep a book beside ours.

S12 a new booking, S13 another time, S14 anything else of it, S15 cancelled, S17 booked in error, S26 the patient did not come.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from arcuate.gateway.outgoing import oru, srm, states
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.hl7v2.build import Value, segment

_TOLD = ("start", "end", "minutesDuration", "status", "serviceType", "appointmentType", "reasonCode", "comment")
_ACTION = {"S12": "A", "S13": "U", "S14": "U"}


@dataclass(frozen=True)
class Content:
    """Everything that one message says; `places` are Locations, `own_number` says where ours stands if there is none of theirs."""

    appointment: Json
    patient: Json
    order: Json | None
    places: Sequence[Json]
    own_number: str = "filler"


def event(before: Json | None, now: Json) -> str:
    """Return the event that a change of an Appointment is, or the empty string where nobody outside need know."""
    status, stood = str(now.get("status")), str((before or {}).get("status", ""))
    gone = states.said("gone", status)
    if not states.said("booking", stood) or states.said("gone", stood):
        # It was no booking: now it is one, or it still is none.
        return "S12" if states.said("booking", status) and not gone else ""
    if gone or not states.said("booking", status):
        return gone or "S15"  # back on a waiting list: the booked time is free
    assert before is not None
    if any(before.get(name) != now.get(name) for name in ("start", "end")):
        return "S13"
    changed = any(before.get(name) != now.get(name) for name in _TOLD) or _places(before) != _places(now)
    return "S14" if changed else ""


def _places(appointment: Json) -> list[str]:
    actors = (str((one.get("actor") or {}).get("reference", "")) for one in appointment.get("participant", []))
    return [actor for actor in actors if actor.startswith("Location/")]


def message(envelope: build.Envelope, content: Content) -> bytes:
    """Return the message."""
    lines = [_sch(content), oru.pid(content.patient), segment("RGS", {1: "1"})]
    action = _ACTION.get(envelope.event, "D")
    services = content.appointment.get("serviceType") or [{"text": "Imaging"}]
    lines += [_ais(place, service, content.appointment, action) for place, service in enumerate(services, 1)]
    lines += [
        segment("AIL", {1: str(place), 2: action, 3: oru.place(location)})
        for place, location in enumerate(content.places, 1)
    ]
    return build.message(envelope, lines)


def _sch(content: Content) -> str:
    appointment = content.appointment
    placer, filler = (srm.appointment_number(appointment, kind) for kind in ("PLAC", "FILL"))
    ours = (str(appointment["id"]), "ARCUATE")
    reason: Json = appointment.get("cancelationReason") or next(iter(appointment.get("reasonCode", [])), {})
    fields: dict[int, Value] = {
        # Where the other system has given a number, that one names the booking; ours does where it was made here.
        1: ours if content.own_number == "placer" and not (placer[0] or filler[0]) else placer,
        2: ours if content.own_number == "filler" and not filler[0] else filler,
        6: ("", states.said("booking", str(appointment["status"])) or "Cancelled"),
        16: ("", "Arcuate"),
        20: ("", "Arcuate"),
        25: states.said("booking", str(appointment["status"])) or "Cancelled",
    }
    if reason:
        fields[7] = ("", str(reason.get("text") or oru.coded(reason)[1]))
    if kind := appointment.get("appointmentType"):
        fields[8] = oru.coded(kind)
    minutes = str(appointment.get("minutesDuration") or "")
    if minutes:
        fields |= {9: minutes, 10: "min"}
    times = [oru.time_of(str(appointment[name])) if appointment.get(name) else "" for name in ("start", "end")]
    if any(times):
        fields[11] = ("", "", f"M{minutes}" if minutes else "", *times)
    if content.order is not None:
        order_placer, order_filler, _ = oru.numbers(content.order)
        fields |= {26: order_placer, 27: order_filler}
    return segment("SCH", fields)


def _ais(place: int, service: Json, appointment: Json, action: str) -> str:
    fields: dict[int, Value] = {1: str(place), 2: action, 3: oru.coded(service)}
    if start := appointment.get("start"):
        fields[4] = oru.time_of(str(start))
    if minutes := appointment.get("minutesDuration"):
        fields |= {7: str(minutes), 8: "min"}
    return segment("AIS", fields)
