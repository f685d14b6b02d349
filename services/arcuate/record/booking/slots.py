"""Which slots are free for what `$find` asks: read in one transaction, judged by the slot, its schedule and who is engaged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from arcuate.kernel.errors import BadInput, Json, Refused
from arcuate.kernel.fhir import strict
from arcuate.record import store
from arcuate.record.booking import state
from arcuate.record.booking.proposals import FreeSlot
from arcuate.record.booking.wanted import DAYS, Token, Wanted
from arcuate.record.conditions import MANY, Conditions
from arcuate.record.domain import instant
from arcuate.record.driver import Driver
from arcuate.record.indexing import Indexer, datetime_of, interval_of
from arcuate.record.query import Pairs, Reader
from arcuate.record.search import Searcher

_AT_ONCE = 200


@dataclass(frozen=True)
class Found:
    """The slots that suit, by start; `cut` when more were free in that time than are looked at."""

    slots: list[FreeSlot]
    asked: Json
    cut: bool
    touched: tuple[tuple[str, str, str | None], ...]


@dataclass(frozen=True)
class Finder:
    """Looks for slots in a transaction."""

    driver: Driver
    indexer: Indexer
    reader: Reader
    zone: tzinfo

    def find(self, wanted: Wanted, now: int) -> Found:
        """Return the slots that suit.

        Raises:
            BadInput: A patient, order, person or place that is not known here.
        """
        asked, touched = self._asked(wanted)
        slots, cut = self._slots(wanted, now)
        schedules = self._schedules(slots)
        free = [
            found
            for slot in slots
            if (found := self.free_slot(slot, schedules.get(_schedule_of(slot)))) is not None
            and max(wanted.start, now) <= found.start
            and found.end <= wanted.end
            and self._suits(found, wanted)
        ]
        free.sort(key=lambda one: (one.start, str(one.slot["id"])))
        return Found(self._available(free), asked, cut, touched)

    def free_slot(self, slot: Json, schedule: Json | None) -> FreeSlot | None:
        """Return a slot with its times; None where these, or its schedule, say nothing."""
        start, end = (interval_of(str(slot.get(name, "")), self.zone) for name in ("start", "end"))
        if start is None or end is None or schedule is None or schedule.get("active") is False:
            return None
        return FreeSlot(slot, schedule, start[0], end[0])

    def is_engaged(self, free: FreeSlot, apart_from: str = "") -> bool:
        """Say whether somebody or something that the slot needs has another appointment at that time."""
        times = state.engaged(self.driver, free.exclusive, free.start, free.end)
        return any(name != apart_from for found in times.values() for _, _, name in found)

    def patient(self, reference: Json | None, numbers: Sequence[Json]) -> str | None:
        """Return the id of the Patient who is meant; None when nobody is named.

        Raises:
            BadInput: Nobody here is, or more than one.
        """
        if reference is None and not numbers:
            return None
        if reference is not None and reference.get("reference"):
            return self._known("Patient", reference, "patient-reference")
        given = [(reference or {}).get("identifier") or {}] if reference is not None else numbers
        found = self._ids("Patient", [("identifier", ",".join(_number(one) for one in given if one.get("value")))])
        if len(found) > 1:
            ids = Conditions(self.driver, self.indexer).family(found[:1])
            if not set(found) <= ids:
                raise BadInput("More than one patient has these numbers", where="patient", code="multiple-matches")
        return found[0] if found else None

    def _asked(self, wanted: Wanted) -> tuple[Json, tuple[tuple[str, str, str | None], ...]]:
        """Return what the proposals will say of the patient, the order and the reasons."""
        patient = self.patient(wanted.patient, wanted.patient_numbers)
        if patient is None and wanted.patient is not None:
            raise BadInput("The patient is not known here", where="patient-reference", code="not-found")
        asked: Json = {"reasons": [{"system": one.system, "code": one.code} for one in wanted.reasons]}
        touched: list[tuple[str, str, str | None]] = []
        if wanted.order is not None:
            order = self._order(wanted.order)
            whose = self.indexer.target(order.get("subject") or {})[1]
            if patient is not None and whose not in Conditions(self.driver, self.indexer).family([patient]):
                raise BadInput("The order belongs to another patient", where="referral-identifier", code="conflict")
            asked["order"], patient = str(order["id"]), patient or whose
            touched.append(("ServiceRequest", str(order["id"]), whose))
        asked["patient"] = patient
        asked["period"] = {
            name: instant(datetime_of(at)) for name, at in (("start", wanted.start), ("end", wanted.end))
        }
        return asked, (*touched, *([("Patient", patient, patient)] if patient else []))

    def _order(self, number: Json) -> Json:
        found = self.resources("ServiceRequest", [("identifier", _number(number))], 2) if number.get("value") else []
        if len(found) != 1:
            raise BadInput(
                "More than one order has this number" if found else "No order has this number",
                where="referral-identifier", code="multiple-matches" if found else "not-found",
            )  # fmt: skip
        if found[0].get("status") in ("revoked", "completed", "entered-in-error"):
            raise Refused(f"The order is {found[0]['status']}", where="referral-identifier", todo="Book another one.")
        return found[0]

    def _slots(self, wanted: Wanted, now: int) -> tuple[list[Json], bool]:
        pairs = [
            ("status", "free"), ("start", f"ge{_micros(max(wanted.start, now))}"), ("end", f"le{_micros(wanted.end)}"),
            ("_sort", "start"),
        ]  # fmt: skip
        groups = self._actors(wanted)
        if groups:
            schedules = self._ids("Schedule", [("actor", ",".join(group)) for group in groups]) if all(groups) else []
            if not schedules:
                return [], False
            pairs.append(("schedule", ",".join(f"Schedule/{one}" for one in schedules)))
        found = self.resources("Slot", pairs, MANY + 1)
        return found[:MANY], len(found) > MANY

    def _actors(self, wanted: Wanted) -> list[list[str]]:
        """Return, for each kind of actor that is wanted, the References by which a schedule may name it."""
        groups: list[list[str]] = []
        for kind, references in (wanted.actors or {}).items():
            named = [f"{kind}/{self._known(kind, one, kind.lower())}" for one in references]
            if kind == "Practitioner":
                named += self._naming("PractitionerRole", "practitioner", named)
            elif kind == "Organization":
                named = [
                    reference
                    for other in ("PractitionerRole", "HealthcareService", "Location")
                    for reference in self._naming(other, "organization", named)
                ]
            groups.append(named)
        if wanted.place:
            text = ",".join(one.replace("\\", "\\\\").replace(",", "\\,") for one in wanted.place)
            by_text = {one for name in ("address", "name") for one in self._ids("Location", [(name, text)])}
            groups.append([f"Location/{one}" for one in sorted(by_text)])
        return groups

    def _naming(self, kind: str, parameter: str, references: Iterable[str]) -> list[str]:
        return [f"{kind}/{one}" for one in self._ids(kind, [(parameter, ",".join(references))])]

    def _known(self, kind: str, reference: Json, where: str) -> str:
        """Return the id of a resource that stands here, named by its reference or by an identifier."""
        target, logical_id = self.indexer.target(reference)
        if reference.get("reference"):
            current = store.current(self.driver, kind, logical_id) if target == kind else None
            found = [logical_id] if current is not None and current.body is not None else []
        else:
            number = reference.get("identifier") or {}
            found = self._ids(kind, [("identifier", _number(number))]) if number.get("value") else []
        if len(found) != 1:
            what = "names more than one" if found else "is not known here"
            raise BadInput(f"The {kind} {what}", where=where, code="not-found")
        return found[0]

    def _schedules(self, slots: Sequence[Json]) -> dict[str, Json]:
        ids = sorted({_schedule_of(slot) for slot in slots} - {""})
        found: dict[str, Json] = {}
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            listed = self.resources("Schedule", [("_id", ",".join(part))], len(part))
            found |= {str(one["id"]): one for one in listed}
        return found

    def _suits(self, free: FreeSlot, wanted: Wanted) -> bool:
        if wanted.specialties and not _has(free.said("specialty"), wanted.specialties):
            return False
        if wanted.visit_types and not _has(free.said("serviceType"), wanted.visit_types):
            return False
        day = DAYS[datetime_of(free.start).astimezone(self.zone).weekday()]
        return not wanted.days or day in wanted.days

    def _available(self, free: Sequence[FreeSlot]) -> list[FreeSlot]:
        if not free:
            return []
        taken = state.used(self.driver, [str(one.slot["id"]) for one in free])
        actors = sorted({actor for one in free for actor in one.exclusive})
        times = state.engaged(self.driver, actors, free[0].start, max(one.end for one in free))
        return [
            one
            for one in free
            if one.slot["id"] not in taken
            and not any(
                start < one.end and end > one.start for actor in one.exclusive for start, end, _ in times[actor]
            )
        ]

    def _ids(self, kind: str, pairs: Pairs) -> list[str]:
        return [str(one["id"]) for one in self.resources(kind, pairs, MANY)]

    def resources(self, kind: str, pairs: Pairs, most: int) -> list[Json]:
        """Return the resources that match, at most so many."""
        search = replace(self.reader.read(kind, pairs, strict=True), count=most)
        hits = Searcher(self.driver, self.indexer).page(search).matches
        return [strict.loads(hit.body.encode(), strict.HOUSE) for hit in hits]


def _schedule_of(slot: Json) -> str:
    text = str((slot.get("schedule") or {}).get("reference") or "")
    return text.rpartition("/")[2] if "Schedule/" in text else ""


def _has(concepts: Iterable[Json], wanted: Sequence[Token]) -> bool:
    said = {(one.get("system"), one.get("code")) for concept in concepts for one in concept.get("coding") or []}
    return any((one.system, one.code) in said for one in wanted)


def _number(identifier: Json) -> str:
    """Return an Identifier as a token of a search."""
    parts = [str(identifier.get(name) or "") for name in ("system", "value")]
    system, value = ("".join(f"\\{c}" if c in ",|$\\" else c for c in part) for part in parts)
    return f"{system}|{value}" if system else value


def _micros(at: int) -> str:
    return datetime_of(at).isoformat(timespec="microseconds").replace("+00:00", "Z")
