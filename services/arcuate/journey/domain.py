"""Where a case stands: derived from the facts that are there, never from the order in which they came.

So events may come late, twice or in the wrong order, and the end state is the same.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

Json = dict[str, Any]

_OPEN_BOOKING = frozenset({"booked", "arrived", "checked-in"})
_ASKED_FOR = frozenset({"pending", "proposed"})
_HERE = frozenset({"arrived", "checked-in", "fulfilled"})
_SIGNED = frozenset({"final", "amended", "corrected", "appended"})
_ENDED_TASK = frozenset({"completed", "cancelled", "rejected", "failed", "entered-in-error"})


class End(StrEnum):
    """How a case can end or stop besides its stages."""

    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PARKED = "parked"


@dataclass(frozen=True)
class Answered:
    """What a room has answered so far.

    Attributes:
        fingerprint: Of the resources that the question followed.
        at: When it was answered, or given up.
        given_up: True when this is not yet the answer: the time limit passed, or a room answered by its fallback for now.
        again: Not asked again before; None where a change or a timer alone says when.
    """

    fingerprint: str
    at: datetime
    given_up: bool = False
    again: datetime | None = None


@dataclass(frozen=True)
class Facts:
    """All that is known of one case now.

    Attributes:
        studies: ImagingStudies that are joined to the order.
        observations: Measurements of these studies.
        chart: Laboratory results, allergies, conditions and devices of the patient.
        answered: Last answer by name of the question.
        images_overdue: True when images were awaited for the set time after the exam.
        expired: True when an appointment was missed and no new one came within the set time.
        held: Why a person must say whose some images are; empty when nobody must. See `blocked`.
        people: All Patient records of this person: more than one after a merge. `patient` is the one who counts.
        late: Tasks that tell a reader of images that came after the report was signed.
        read_with: The images (see `images_of`) that were there when the report was signed; None until then.
    """

    order: Json | None = None
    patient: Json | None = None
    appointments: tuple[Json, ...] = ()
    procedures: tuple[Json, ...] = ()
    studies: tuple[Json, ...] = ()
    observations: tuple[Json, ...] = ()
    chart: tuple[Json, ...] = ()
    flags: tuple[Json, ...] = ()
    tasks: tuple[Json, ...] = ()
    reports: tuple[Json, ...] = ()
    communications: tuple[Json, ...] = ()
    answered: Mapping[str, Answered] = field(default_factory=dict)
    images_overdue: bool = False
    expired: bool = False
    held: str = ""
    people: tuple[Json, ...] = ()
    late: tuple[Json, ...] = ()
    read_with: frozenset[str] | None = None

    @property
    def open_appointment(self) -> Json | None:
        """The booking that counts: the latest that is still open."""
        open_ones = [a for a in self.appointments if a.get("status") in _OPEN_BOOKING]
        return max(open_ones, key=lambda a: (str(a.get("start", "")), str(a.get("id")))) if open_ones else None

    @property
    def booking_asked(self) -> bool:
        """Whether a slot is held or asked of the RIS, which has not confirmed it yet."""
        return any(a.get("status") in _ASKED_FOR for a in self.appointments)

    @property
    def open_task(self) -> Json | None:
        """The reading task of this case that is not ended."""
        return next((t for t in self.tasks if t.get("status") not in _ENDED_TASK), None)

    @property
    def is_given(self) -> bool:
        """Whether a reader holds the case, or held it until it was read."""
        return any(t.get("owner") and t.get("status") not in ("cancelled", "rejected", "failed") for t in self.tasks)

    @property
    def draft(self) -> Json | None:
        """The draft report."""
        return next((r for r in self.reports if r.get("status") == "preliminary"), None)

    @property
    def signed_reports(self) -> tuple[Json, ...]:
        """Reports that a person has signed."""
        return tuple(r for r in self.reports if r.get("status") in _SIGNED)


def has_order(facts: Facts) -> bool:
    """An order stands in the record."""
    return facts.order is not None


def order_active(facts: Facts) -> bool:
    """The order is neither cancelled nor held by a conflict."""
    return (
        facts.order is not None
        and facts.order.get("status") not in ("revoked", "entered-in-error")
        and not facts.expired
    )


def checked(facts: Facts) -> bool:
    """The order was checked, or the check was given up for now."""
    return has_order(facts) and "check" in facts.answered


def booking_open(facts: Facts) -> bool:
    """An appointment is booked and lies ahead."""
    appointment = facts.open_appointment
    return appointment is not None and appointment.get("status") == "booked"


def visit_open(facts: Facts) -> bool:
    """A visit is ahead or under way: its wait can still be told, and better once the patient is here."""
    return facts.open_appointment is not None and not scanned(facts)


def booked(facts: Facts) -> bool:
    """An appointment stands, or the patient came without one."""
    return (
        facts.open_appointment is not None
        or any(a.get("status") in _HERE for a in facts.appointments)
        or arrived(facts)
    )


def arrived(facts: Facts) -> bool:
    """The patient is or was here."""
    return any(a.get("status") in _HERE for a in facts.appointments) or bool(facts.procedures) or scanned(facts)


def scanned(facts: Facts) -> bool:
    """The exam is done: the RIS says so, or its images are here."""
    return any(p.get("status") == "completed" for p in facts.procedures) or has_images(facts) or signed(facts)


def has_images(facts: Facts) -> bool:
    """Images are joined to the order."""
    return bool(facts.studies)


def quantified(facts: Facts) -> bool:
    """Measured, refused, given up, or the images are overdue."""
    return scanned(facts) and (
        "quantify" in facts.answered or (facts.images_overdue and not has_images(facts)) or signed(facts)
    )


def blocked(facts: Facts) -> bool:
    """Whether the doubt about images keeps the case from being read: it has no images besides those in doubt."""
    return bool(facts.held) and not has_images(facts) and not signed(facts)


def ready_to_read(facts: Facts) -> bool:
    """The case can go to a reader."""
    return quantified(facts) and not blocked(facts)


def assigned(facts: Facts) -> bool:
    """A reader holds the case, or the shared list does."""
    return ready_to_read(facts) and ("assign" in facts.answered or facts.is_given or signed(facts))


def drafted(facts: Facts) -> bool:
    """A draft stands."""
    return assigned(facts) and (facts.draft is not None or signed(facts))


def signed(facts: Facts) -> bool:
    """A signed report came in."""
    return bool(facts.signed_reports)


def not_signed(facts: Facts) -> bool:
    """No signed report yet."""
    return not signed(facts)


def before_reading(facts: Facts) -> bool:
    """Flags still help: nothing is signed."""
    return not_signed(facts)


def nobody_reads(facts: Facts) -> bool:
    """No reader holds the case."""
    return not facts.is_given


def delivered(facts: Facts) -> bool:
    """A receiver has acknowledged the signed report, and nobody who holds it still waits for a newer version of it."""
    lines = _deliveries(facts)
    holds = [[c.get("status") == "completed" for c in line] for line in lines]
    return any(line[-1] for line in holds) and not any(any(line) and not line[-1] for line in holds)


def refused_delivery(facts: Facts) -> bool:
    """A receiver has refused the signed report: its message waits for a person."""
    return any(line[-1].get("status") == "on-hold" for line in _deliveries(facts))


def _deliveries(facts: Facts) -> list[list[Json]]:
    """The deliveries of each signed report to each receiver, oldest first."""
    ids = {f"DiagnosticReport/{r['id']}" for r in facts.signed_reports}
    lines: dict[tuple[str, str], list[Json]] = {}
    for communication in sorted(facts.communications, key=_number):
        recipient = next((str(r.get("display", "")) for r in communication.get("recipient", ())), "")
        for about in communication.get("about", ()):
            report = str(about.get("reference", "")).split("/_history")[0]
            if report in ids:
                lines.setdefault((report, recipient), []).append(communication)
    return list(lines.values())


def _number(communication: Json) -> tuple[int, str]:
    """The gateway numbers what goes out (`out-7`); others are told apart by their time."""
    value = next((str(i.get("value", "")) for i in communication.get("identifier", ())), "")
    digits = value.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0, str(communication.get("sent", ""))


def images_of(studies: Iterable[Json]) -> frozenset[str]:
    """Return what images stand there, as `id:instances`: a late series makes it another."""
    return frozenset(f"{s.get('id')}:{s.get('numberOfInstances', 0)}" for s in studies)


def late_images(facts: Facts) -> frozenset[str]:
    """Images that came after the report was signed."""
    return frozenset() if facts.read_with is None else images_of(facts.studies) - facts.read_with


def open_late_task(facts: Facts) -> bool:
    """A reader has not yet looked at images that came after the report."""
    return any(t.get("status") not in _ENDED_TASK for t in facts.late)


CONDITIONS: Mapping[str, Callable[[Facts], bool]] = {
    f.__name__: f
    for f in (
        has_order, order_active, checked, booking_open, visit_open, booked, arrived, scanned, has_images, quantified, ready_to_read,
        assigned, drafted,
        signed, not_signed, before_reading, nobody_reads, delivered,
    )
}  # fmt: skip


def fingerprint(resources: Iterable[Json]) -> str:
    """Return a short mark of a set of resources in their versions; the order does not matter."""
    versions = sorted(f"{r['resourceType']}/{r.get('id')}/{r.get('meta', {}).get('versionId')}" for r in resources)
    return hashlib.sha256("|".join(versions).encode()).hexdigest()[:16]


def conflict_of(people: Iterable[Json], said: Json) -> str:
    """Return why a statement fits none of a person's records (several after a merge), or an empty text."""
    conflicts = [same_person(known, said) for known in people]
    return "" if "" in conflicts else next(iter(conflicts), "the order names no known patient")


def same_person(known: Json, said: Json) -> str:
    """Return why two statements of a person conflict, or an empty text.

    The number must agree where both state one under the same assigner (or one of them states no assigner); name and birth date
    may not BOTH disagree (house rule of identity).
    """
    known_numbers = {(i.get("system"), i.get("value")) for i in known.get("identifier", ())}
    values = {value for _, value in known_numbers}
    for number in said.get("identifier", ()):
        system, value = number.get("system"), number.get("value")
        same_assigner = {v for s, v in known_numbers if s == system}
        if value not in (same_assigner or values):
            return "the patient number differs"
    name_differs = _differs(_names(known), _names(said))
    birth_differs = _differs({str(known.get("birthDate") or "")} - {""}, {str(said.get("birthDate") or "")} - {""})
    return "name and birth date both differ" if name_differs and birth_differs else ""


def _differs(one: set[str], other: set[str]) -> bool:
    return bool(one) and bool(other) and not one & other


def _names(patient: Json) -> set[str]:
    return {str(name.get("family", "")).strip().casefold() for name in patient.get("name", ()) if name.get("family")}


def visit_end(facts: Facts) -> datetime | None:
    """When the booked visit ends."""
    appointment = facts.open_appointment or {}
    return instant(appointment.get("end") or appointment.get("start"))


def reading_end(facts: Facts) -> datetime | None:
    """Until when the case is to be read, as its Task says."""
    task = facts.open_task or {}
    return instant(task.get("restriction", {}).get("period", {}).get("end"))


COUNTS_FROM: Mapping[str, Callable[[Facts], datetime | None]] = {"visit_end": visit_end, "reading_due": reading_end}


def instant(text: object) -> datetime | None:
    """Return a FHIR instant or dateTime with a zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def priority_group(order: Json | None) -> str:
    """Return `stat`, `urgent` or `routine`: the groups by which time limits differ."""
    priority = str((order or {}).get("priority") or "routine")
    return "urgent" if priority == "asap" else priority if priority in ("stat", "urgent") else "routine"


def reading_due(order: Json, since: datetime, minutes: Mapping[str, float]) -> datetime:
    """Return until when a case is to be read, by its order's priority (`stat`, `asap`, `urgent`, `routine`)."""
    return since + timedelta(minutes=minutes.get(str(order.get("priority") or "routine"), minutes["routine"]))
