"""A proposed Appointment: made of a Slot, its Schedule, and what was asked; its id names the offer and the slot. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from arcuate.kernel import codes
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.record.domain import instant
from arcuate.record.indexing import datetime_of

AUTHORITY = "ARCUATE"
"""Who gives the numbers of what is booked here; the RIS sends them back in SCH-1."""

_ONE_AT_A_TIME = ("Location", "Practitioner", "Device")
_SAID = ("serviceCategory", "serviceType", "specialty")


@dataclass(frozen=True)
class FreeSlot:
    """A Slot with its Schedule; times in microseconds since 1970 UTC."""

    slot: Json
    schedule: Json
    start: int
    end: int

    @property
    def actors(self) -> list[Json]:
        """Return who and what is needed."""
        found: list[Json] = self.schedule.get("actor") or []
        return found

    @property
    def exclusive(self) -> list[str]:
        """Return those of them who can have one appointment at a time, as `Type/id`."""
        return [
            f"{kind}/{found}"
            for actor in self.actors
            for kind in _ONE_AT_A_TIME
            if (found := reference_id(actor, kind)) is not None
        ]

    def said(self, name: str) -> list[Json]:
        """Return the concepts of an element; the slot's own come before its schedule's (FHIR R4, Slot.serviceType)."""
        found: list[Json] = self.slot.get(name) or self.schedule.get(name) or []
        return found


def proposal_id(offer: str, slot: str) -> str:
    """Return the id under which a slot of an offer can be held and booked; at most 64 characters."""
    return f"{offer}.{slot}"


def parts_of(reference: Json, bases: Sequence[str] = ()) -> tuple[str, str]:
    """Return offer and slot that a Reference to a proposal names.

    Raises:
        NotFound: It is no proposal of ours.
    """
    text = str(reference.get("reference") or "")
    for base in bases:
        text = text.removeprefix(f"{base}/")
    kind, slash, name = text.partition("/")
    offer, dot, slot = name.partition(".")
    if kind != "Appointment" or not slash or not dot or "/" in slot:
        raise NotFound(
            "The reference names no proposal of this server", where="appointment-reference",
            todo="Name an Appointment that $find has proposed.",
        )  # fmt: skip
    return offer, slot


def appointment(free: FreeSlot, asked: Json, logical_id: str, status: str) -> Json:
    """Return the Appointment of a slot.

    Args:
        asked: What `$find` was asked for, as it is kept with the offer (`kept`).
        status: `proposed`, or `pending` for what is held or asked of the RIS.
    """
    start, end = datetime_of(free.start), datetime_of(free.end)
    made: Json = {"resourceType": "Appointment", "id": logical_id, "status": status}
    made |= {name: found for name in _SAID if (found := free.said(name))}
    if free.slot.get("appointmentType"):
        made["appointmentType"] = free.slot["appointmentType"]
    if asked.get("reasons"):
        made["reasonCode"] = [codes.concept(one["system"], one["code"]) for one in asked["reasons"]]
    made |= {
        "start": instant(start), "end": instant(end), "minutesDuration": max(1, round((free.end - free.start) / 60e6)),
        "slot": [codes.reference("Slot", str(free.slot["id"]))],
    }  # fmt: skip
    if asked.get("order"):
        made["basedOn"] = [codes.reference("ServiceRequest", asked["order"])]
    made["participant"] = participants(free, asked.get("patient"), status)
    if asked.get("period"):
        made["requestedPeriod"] = [asked["period"]]
    return made


def participants(free: FreeSlot, patient: str | None, status: str) -> list[Json]:
    """Return the patient, and who and what is needed; these answer by the RIS."""
    found = [{"actor": actor, "status": "needs-action"} for actor in free.actors]
    if patient:
        said = "needs-action" if status == "proposed" else "accepted"
        found.insert(0, {"actor": codes.reference("Patient", patient), "status": said})
    return found or [{"type": [{"text": "whoever the slot belongs to"}], "status": "needs-action"}]


def ask(kind: str, words: str, about: Json, requester: Json, now: datetime, reason: str) -> Json:
    """Return the Task by which the RIS is asked for something about an Appointment (docs/reference/rooms.md, section 2)."""
    made: Json = {
        "resourceType": "Task", "status": "requested", "intent": "proposal",
        "code": codes.concept(codes.CS_ASK, kind, f"Ask the RIS to {words}"),
        "focus": codes.reference("Appointment", str(about["id"])), "authoredOn": instant(now), "lastModified": instant(now),
        "requester": requester, "description": reason,
    }  # fmt: skip
    patient = next((i for p in about.get("participant") or [] if (i := reference_id(p.get("actor"), "Patient"))), None)
    if patient:
        made["for"] = codes.reference("Patient", patient)
    if kind != "cancel":
        made["input"] = [{"type": {"text": name}, "valueDateTime": about[name]} for name in ("start", "end")]
    return made


def never_booked(appointment: Json, why: str) -> Json:
    """Return an Appointment that was held or asked for and came to nothing: no visit that somebody called off."""
    reason = codes.concept(codes.CS_FORECAST, "never-booked", "Never booked", why)
    return {**appointment, "status": "cancelled", "cancelationReason": reason}
