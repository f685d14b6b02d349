"""Slots held and asked for: exactly one caller wins, because all is judged and written under the writer's lock."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from arcuate.kernel import codes
from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import BadInput, Conflict, Gone, Json, NotFound, Refused
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.record import store, transactions
from arcuate.record.booking import proposals, state
from arcuate.record.booking.proposals import AUTHORITY, FreeSlot
from arcuate.record.booking.slots import Finder
from arcuate.record.booking.state import Use
from arcuate.record.booking.wanted import Booking
from arcuate.record.changes import Writer
from arcuate.record.conditions import Conditions
from arcuate.record.domain import Stored, instant, new_id
from arcuate.record.indexing import datetime_of, interval_of, micros_of
from arcuate.record.requests import Outcome

_ENDED = frozenset({"cancelled", "noshow", "entered-in-error"})
_HERE = frozenset({"arrived", "checked-in", "fulfilled"})
_REFUSED = frozenset({"rejected", "cancelled", "failed", "entered-in-error"})
_OPEN_ASKS = ("requested", "received", "accepted")
_AT_ONCE = 100

ASKED = "The RIS is asked; its own message says what becomes of it."


class Taken(Conflict):
    """The slot is not to be had any more (ITI-116: fatal, not-found)."""

    issue_type = "not-found"
    severity = "fatal"

    def __init__(self, what: str) -> None:
        super().__init__(what, where="appointment-reference", todo="Ask $find again and choose another one.")


@dataclass(frozen=True)
class _Place:
    """A proposal with its slot; `use` and `held` only where this caller has it already."""

    id: str
    free: FreeSlot
    slot: Stored
    asked: Json
    use: Use | None = None
    held: Stored | None = None


@dataclass
class Desk:
    """One operation in one transaction.

    Attributes:
        hold_s: Seconds that a hold lasts.
        outcomes: What was written.
    """

    writer: Writer
    finder: Finder
    principal: Principal
    now: datetime
    hold_s: float
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = self.writer.driver
        self.at = micros_of(self.now)
        self.owner = f"{self.principal.client} {self.principal.subject}"
        self._uses: list[Use] = []

    def hold(self, reference: Json) -> tuple[Json, str]:
        """Hold the slot of a proposal; a repeated call changes nothing.

        Returns:
            Its Appointment, which is `pending`, and until when, as a sentence.

        Raises:
            NotFound: There is no such proposal, or it has ended.
            Taken: Somebody else has the slot.
        """
        place = self._place(reference)
        if place.use is not None and place.held is not None:
            return _json(place.held), _until(place.use)
        use = self._take(place, "busy-tentative", self.at + round(self.hold_s * 1e6), None)
        made = self._put(proposals.appointment(place.free, place.asked, place.id, "pending"), None)
        self._finish()
        return made, _until(use)

    def book(self, asked: Booking) -> tuple[Json, str]:
        """Ask the RIS for the slot of a proposal, held before or not, or for a change of a booking.

        Returns:
            The Appointment as it stands, and what that means, as a sentence.

        Raises:
            NotFound: There is no such proposal or booking.
            Taken: Somebody else has the slot.
            Refused: No known patient is named, or it is too late for a change.
        """
        made, said = self._change(asked.appointment, asked.comment) if asked.appointment else self._book(asked)
        self._finish()
        return made, said

    def settle(self) -> None:
        """Free what was held too long, cancelled or moved, and forget what is over."""
        for use in state.due(self.driver, self.at, _AT_ONCE):
            self._settle(use)
        self._finish()

    def _book(self, asked: Booking) -> tuple[Json, str]:
        place = self._place(asked.reference or {})
        if place.use is not None and place.held is not None and place.use.task is not None:
            return _json(place.held), ASKED
        held = _json(place.held) if place.held else proposals.appointment(place.free, place.asked, place.id, "pending")
        booked = self._with_patient(held, asked)
        booked["identifier"] = [codes.identifier(codes.appointment_system(AUTHORITY), new_id(), "PLAC")]
        booked["created"] = instant(self.now)
        if asked.comment:
            booked["comment"] = asked.comment
        task = self._ask("book", "book", booked, asked.comment or "Booked by $book")
        self._take(place, "busy", None, task)
        return self._put(booked, place.held), ASKED

    def _place(self, reference: Json) -> _Place:
        offer_id, slot_id = proposals.parts_of(reference, self.finder.indexer.bases)
        name = proposals.proposal_id(offer_id, slot_id)
        use = state.use_of(self.driver, slot=slot_id)
        if use is not None and (use.appointment, use.owner) != (name, self.owner):
            raise Taken("Somebody else has this slot")
        held = store.current(self.driver, "Appointment", name)
        offer = state.offer(self.driver, offer_id)
        if use is None and (held is not None or offer is None or offer.until <= self.at):
            raise Gone("The proposal or its hold has ended", where="appointment-reference", todo="Ask $find again.")
        slot = store.current(self.driver, "Slot", slot_id)
        free = self._free(slot)
        status = free.slot.get("status") if free else None
        if (
            slot is None
            or free is None
            or status not in ("free", "busy-tentative" if use else "", "busy" if use else "")
        ):
            raise Taken("The slot is not free")
        if free.start <= self.at:
            raise Taken("The slot has begun")
        if use is None and self.finder.is_engaged(free):
            raise Taken("Somebody or something that the slot needs has another appointment then")
        return _Place(name, free, slot, offer.asked if offer else {}, use, held if use else None)

    def _free(self, slot: Stored | None) -> FreeSlot | None:
        if slot is None or slot.body is None:
            return None
        resource = _json(slot)
        name = reference_id(resource.get("schedule"), "Schedule")
        schedule = store.current(self.driver, "Schedule", name) if name else None
        return self.finder.free_slot(resource, _json(schedule) if schedule and schedule.body else None)

    def _take(self, place: _Place, status: str, until: int | None, task: str | None) -> Use:
        self._put({**place.free.slot, "status": status}, place.slot)
        use = Use(place.slot.id, place.id, self.owner, until, place.free.end, task, 0)
        self._uses.append(use)
        return use

    def _with_patient(self, held: Json, asked: Booking) -> Json:
        """Return the Appointment with its patient, who must be known here: patients are registered by the hospital's own messages."""
        stated = next(
            (i for p in held.get("participant") or [] if (i := reference_id(p.get("actor"), "Patient"))), None
        )
        if not asked.patient_numbers and stated is not None:
            return dict(held)
        named = self.finder.patient(None, asked.patient_numbers)
        if named is None:
            raise Refused(
                "No patient is named who is known here", where="patient-resource",
                todo="Name one by an identifier, or register the patient first.",
            )  # fmt: skip
        if stated is not None:
            if named not in Conditions(self.driver, self.finder.indexer).family([stated]):
                raise Refused("The slot was proposed for another patient", where="patient-resource", todo="Ask $find.")
            return dict(held)
        who = {"actor": codes.reference("Patient", named), "status": "accepted"}
        return {**held, "participant": [who, *held.get("participant", [])]}

    def _change(self, wanted: Json | None, comment: str) -> tuple[Json, str]:
        name = str((wanted or {}).get("id") or "")
        current = store.current(self.driver, "Appointment", name)
        if wanted is None or current is None or current.body is None:
            raise NotFound("There is no Appointment of that id", where="appointment-resource", todo="Ask $find first.")
        stored, use = _json(current), state.use_of(self.driver, appointment=name)
        cancel = wanted.get("status") == "cancelled"
        if cancel and stored.get("status") in _ENDED:
            return stored, "It was cancelled before."
        if stored.get("status") in _ENDED | _HERE:
            raise Refused(f"The appointment is {stored['status']} and cannot be changed", where="appointment-resource")
        if use is not None and use.task is None:
            return self._give_back(stored, current, use, cancel)
        if not cancel:
            wanted = self._moved(stored, wanted)
        return stored, self._asked_for("cancel" if cancel else "reschedule", wanted, stored, comment)

    def _give_back(self, stored: Json, current: Stored, use: Use, cancel: bool) -> tuple[Json, str]:
        if use.owner != self.owner:
            raise Taken("Somebody else holds this slot")
        if not cancel:
            raise Refused("A hold cannot be moved", where="appointment-resource", todo="Hold another proposal.")
        made = self._put(proposals.never_booked(stored, "The hold was given back"), current)
        self._release(use, "free")
        return made, "The hold is given back."

    def _moved(self, stored: Json, wanted: Json) -> Json:
        """Return the booking with the wished time.

        Raises:
            BadInput: No other time is wished, or it is none.
        """
        start, end = (interval_of(str(wanted.get(name, "")), self.finder.zone) for name in ("start", "end"))
        if start is None or end is None or end[0] <= start[0]:
            raise BadInput("A start and a later end belong here", where="Appointment.start", code="value")
        before = [interval_of(str(stored.get(name, "")), self.finder.zone) for name in ("start", "end")]
        if [start, end] == before:
            raise BadInput(
                "Nothing is changed", where="appointment-resource",
                todo="State another start and end, or the status cancelled.",
            )  # fmt: skip
        if start[0] <= self.at:
            raise Refused("The wished time has passed", where="Appointment.start")
        return {**stored, "start": wanted["start"], "end": wanted["end"]}

    def _asked_for(self, kind: str, about: Json, stored: Json, comment: str) -> str:
        focus = f"Appointment/{stored['id']}"
        open_asks = self.finder.resources(
            "Task", [("focus", focus), ("status", ",".join(_OPEN_ASKS)), ("code", f"{codes.CS_ASK}|")], _AT_ONCE
        )
        kinds = {one["code"]["coding"][0]["code"] for one in open_asks}
        if kind in kinds and kind == "cancel":
            return ASKED
        if kinds and kind != "cancel":
            raise Conflict("The RIS has been asked about this appointment already", todo="Wait for its answer.")
        words = "cancel" if kind == "cancel" else "move"
        self._ask(kind, words, {**stored, **about, "id": stored["id"]}, comment or f"Asked by $book: {words}")
        return f"{ASKED} The booking stays as it is until then."

    def _ask(self, kind: str, words: str, about: Json, reason: str) -> str:
        who: Json = {"identifier": {"system": transactions.PERSON_SYSTEM, "value": self.principal.subject}}
        if self.principal.name:
            who["display"] = self.principal.name
        made = {**proposals.ask(kind, words, about, who, self.now, reason), "id": new_id()}
        self._put(made, None)
        return str(made["id"])

    def _settle(self, use: Use) -> None:
        current = store.current(self.driver, "Appointment", use.appointment)
        task = store.current(self.driver, "Task", use.task) if use.task else None
        stored = _json(current) if current and current.body else {}
        status = stored.get("status", "entered-in-error")
        if status in _ENDED:
            self._release(use, "free")
        elif use.until is not None and use.until <= self.at:
            self._put(proposals.never_booked(stored, "The hold ended without a booking"), current)
            self._release(use, "free")
        elif status == "pending" and task and task.body and _json(task).get("status") in _REFUSED:
            # Whoever keeps the book did not give this time: it is not ours to offer again.
            self._put(proposals.never_booked(stored, "It was asked for and not given"), current)
            self._release(use, "busy-unavailable")
        elif self._is_elsewhere(use, stored):
            self._release(use, "free")
        elif use.ends <= self.at:
            state.forget(self.driver, use.slot)
        else:
            self._uses.append(use)

    def _is_elsewhere(self, use: Use, stored: Json) -> bool:
        slot = store.current(self.driver, "Slot", use.slot)
        free = self._free(slot)
        start = interval_of(str(stored.get("start", "")), self.finder.zone)
        return free is None or start is None or start[0] != free.start

    def _release(self, use: Use, status: str) -> None:
        slot = store.current(self.driver, "Slot", use.slot)
        resource = _json(slot) if slot and slot.body else {}
        if resource.get("status") in ("busy", "busy-tentative") and use.ends > self.at:
            self._put({**resource, "status": status}, slot)
        state.forget(self.driver, use.slot)

    def _put(self, resource: Json, current: Stored | None) -> Json:
        outcome = self.writer.put(resource, current)
        self.outcomes.append(outcome)
        made: Json = strict.loads((outcome.body or "{}").encode(), strict.HOUSE)
        return made

    def _finish(self) -> None:
        said = transactions.provenance(self.outcomes, {}, self.principal, instant(self.now))
        if said is not None:
            self.writer.add(said)
        self.writer.unit.flush()
        seen = store.last_seq(self.driver)
        for use in self._uses:
            state.put(self.driver, replace(use, seen=seen))


def _json(stored: Stored) -> Json:
    found: Json = strict.loads((stored.body or "{}").encode(), strict.HOUSE)
    return found


def _until(use: Use) -> str:
    if use.until is None:
        return ASKED
    return f"Held until {instant(datetime_of(use.until))}; book it before."
