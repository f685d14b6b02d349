"""PV1 to Encounter (segments/PV1__Encounter.csv). A visit without a number has no identity and is not kept."""

from datetime import datetime

from arcuate.gateway.mapping import datatypes, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.model import Mapped, Standing, token, with_identifiers
from arcuate.gateway.mapping.pid import Person
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Segment

_ROLES = {7: "ATND", 8: "REF", 9: "CON", 17: "ADM"}


def number(pv1: Segment | None, sender: Sender) -> Json | None:
    """Return the visit number, PV1-19."""
    if pv1 is None:
        return None
    value = datatypes.one_line(pv1[19].component(1))
    authority = datatypes.hd_authority(pv1[19], 4, sender)
    return codes.identifier(codes.visit_system(authority), value, "VN") if value else None


def encounter(
    pv1: Segment | None, person: Person, sender: Sender, standing: Standing, status: str = ""
) -> tuple[Json | None, list[Entry]]:
    """Return a Reference to the visit and the change.

    `status` is what the event says; without one (orders, A08) a known visit keeps its own, and an order changes no known visit.
    """
    visit = number(pv1, sender)
    if pv1 is None or visit is None:
        return None, []
    found = standing.find("Encounter", [token(visit)])
    current = found[0] if found else {}
    if current and not standing.is_of(current, person.current):
        # The number is used again for somebody else: the visit of the other person is left as it is.
        return None, []
    made = _encounter(current, pv1, visit, person, sender, status)
    if not current:
        entry = bundle.create(made, {"identifier": token(visit)})
        return entry.reference, [entry]
    reference = codes.reference("Encounter", current["id"])
    return reference, [] if made == current else [bundle.update(made, version_of(current))]


def change(
    pv1: Segment | None, person: Person, sender: Sender, standing: Standing, status: str, message_at: datetime
) -> Mapped:
    """Return what an event does to the visit; an event that is older than the last one applied changes nothing."""
    visit = number(pv1, sender)
    if visit is None:
        return Mapped()
    mark = f"visit|{sender.authority}|{token(visit)}"
    if (newest := standing.marks.get(mark)) and newest > message_at:
        return Mapped(note="A newer event of this visit has been applied already")
    _, entries = encounter(pv1, person, sender, standing, status)
    return Mapped(entries, ["visit"] if entries else [], marks={mark: message_at})


def _encounter(current: Json, pv1: Segment, visit: Json, person: Person, sender: Sender, status: str) -> Json:
    made: Json = {"resourceType": "Encounter", **current}
    made["identifier"] = with_identifiers(current.get("identifier", []), [visit])
    reopened = status == "reopened"
    status = "in-progress" if reopened else status
    ended = None if reopened else datatypes.ts(pv1[45].value, sender, "PV1-45")
    made["status"] = "finished" if ended and status != "cancelled" else status or current.get("status") or _status(pv1)
    made["class"] = _class(pv1) or current.get("class") or _coding("AMB", "ambulatory")
    made["subject"] = current.get("subject") or person.reference
    begun = datatypes.ts(pv1[44].value, sender, "PV1-44")
    period = dict(current.get("period", {}))
    if reopened or pv1[45].null:
        period.pop("end", None)
    period |= {name: moment.fhir for name, moment in (("start", begun), ("end", ended)) if moment}
    if datatypes.is_backwards(period):
        del period[
            "end"
        ]  # one of the two is wrong: that the visit began is the less bold claim, and per-1 would refuse the message
    made.pop("period", None)
    if period:
        made["period"] = period
    place = datatypes.pl(pv1[3], sender)
    if place is not None:
        made["location"] = [{"location": {"display": place["name"]}, "status": "active"}]
    people = [_participant(pv1, place, role, sender) for place, role in _ROLES.items()]
    if stated := datatypes.first(people):
        made["participant"] = stated
    _administrative(made, pv1, sender)
    return made


def _administrative(made: Json, pv1: Segment, sender: Sender) -> None:
    """How a visit began, ended and is served: PV1-4, PV1-10, PV1-13 to PV1-16, PV1-36, PV1-37. Empty keeps, `""` deletes."""
    for field, table, name, several in ((4, "0007", "type", True), (10, "0069", "serviceType", False)):
        concept = datatypes.coded(pv1[field], table, sender)
        if pv1[field].null:
            made.pop(name, None)
        elif concept:
            made[name] = [concept] if several else concept
    stay = dict(made.get("hospitalization", {}))
    for field, table, name, several in (
        (13, "0092", "reAdmission", False), (14, "0023", "admitSource", False), (15, "0009", "specialArrangement", True),
        (16, "0099", "specialCourtesy", True), (36, "0112", "dischargeDisposition", False), (38, "0114", "dietPreference", True),
    ):  # fmt: skip
        concept = datatypes.coded(pv1[field], table, sender)
        if pv1[field].null:
            stay.pop(name, None)
        elif concept:
            stay[name] = [concept] if several else concept
    made.pop("hospitalization", None)
    if stay:
        made["hospitalization"] = stay


def _status(pv1: Segment) -> str:
    """Who lies in the house is there; of the others a message that is not about the visit does not know."""
    known = {"I": "in-progress", "E": "in-progress", "P": "planned"}
    return known.get(pv1[2].value.strip()[:1], "unknown")


def _class(pv1: Segment) -> Json | None:
    code = pv1[2].value.strip()
    found = terms.table("encounter_class").get(code)
    return _coding(found[0], found[1]) if found else None


def _coding(code: str, display: str) -> Json:
    return codes.coding(terms.CLASS_SYSTEM, code, display)


def _participant(pv1: Segment, field: int, role: str, sender: Sender) -> Json | None:
    who = datatypes.xcn(pv1[field], sender)
    if who is None:
        return None
    return {
        "type": [codes.concept("http://terminology.hl7.org/CodeSystem/v3-ParticipationType", role)],
        "individual": who,
    }
