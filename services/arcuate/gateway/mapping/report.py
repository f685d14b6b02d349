"""ORU^R01 and MDM to DiagnosticReport and Observation (segments/OBR__DiagnosticReport.csv, OBX__Observation.csv).

One report a filler number; several OBR of which only one carries content are one report on several orders (row 027). A report whose
order is not known waits (row 028). A preliminary text that comes after the signed one changes nothing.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from arcuate.gateway.mapping import datatypes, obx, order, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.groups import Group, patient_groups
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
from arcuate.gateway.mapping.order import Numbers
from arcuate.gateway.mapping.pid import Person
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Message, Segment

SIGNED = ("final", "amended", "corrected", "appended")
_UNSIGNED = ("registered", "partial", "preliminary")


@dataclass(frozen=True)
class Statement:
    """What one report of a message says: its OBR, the orders that it answers, and its OBX.

    Attributes:
        txa: TXA of a document (MDM), None in a result.
        addendum: The text is added to the one that stands (T06), instead of replacing it.
        notes: NTE, each with the OBX (or OBR) behind which it stands.
    """

    obr: Segment
    orders: tuple[Numbers, ...]
    obx: tuple[Segment, ...]
    txa: Segment | None = None
    addendum: bool = False
    notes: tuple[tuple[Segment, str], ...] = ()

    @property
    def tokens(self) -> list[str]:
        """Return the tokens of all its orders."""
        return [one for numbers in self.orders for one in numbers.tokens]


def read(groups: Sequence[Group], profile: Profile, sender: Sender) -> list[Statement]:
    """Return the reports of one patient's groups.

    Raises:
        ContentFault: There is no OBR, or none with a number.
    """
    found: list[Statement] = []
    for group in groups:
        obr = group.first("OBR")
        if obr is None:
            continue
        numbers = order.numbers(group.segments, profile, sender)
        if numbers.stated:
            _join(found, Statement(obr, (numbers,), tuple(group.all("OBX")), notes=_notes(group, obr)))
    if not found:
        where = "OBR-3" if any(group.first("OBR") for group in groups) else "OBR"
        raise ContentFault("no order number", "No OBR with a number of the order", where, "101")
    told = [one for one in found if one.obx or one.notes]
    if len(told) == 1 and len(found) > 1:
        others = tuple(numbers for one in found if one is not told[0] for numbers in one.orders)
        return [replace(told[0], orders=(*told[0].orders, *others))]
    return told or found


def _notes(group: Group, obr: Segment) -> tuple[tuple[Segment, str], ...]:
    """Comments (NTE) of a result: what stands behind an OBX is about that value, what stands before is about the report."""
    found: list[tuple[Segment, str]] = []
    about = obr
    for segment in group.segments:
        if segment.id in ("OBR", "OBX"):
            about = segment
        if segment.id == "NTE" and (text := "\n".join(obx.text_lines(segment[3])).strip()):
            found.append((about, text))
    return tuple(found)


def document_numbers(message: Message, profile: Profile, sender: Sender) -> list[Numbers]:
    """Return the numbers of the orders that a document answers: its ORC and OBR, else TXA-14 and TXA-15."""
    groups = [group for patient in patient_groups(message) for group in patient.orders]
    found = [numbers for group in groups if (numbers := order.numbers(group.segments, profile, sender)).stated]
    txa = message.first("TXA")
    if found or txa is None:
        return found
    numbers = order.numbers([_as_obr(txa)], profile, sender)
    return [numbers] if numbers.stated else []


def _as_obr(txa: Segment) -> Segment:
    """TXA as OBR: document type, placer and filler number stand in other fields there (chapter 9.6.1)."""
    fields = [
        "OBR",
        "1",
        txa.raw(14),
        txa.raw(15),
        txa.raw(2),
        "",
        "",
        txa.raw(4),
        *[""] * 14,
        txa.raw(7) or txa.raw(6),
    ]
    return Segment("OBR", txa.context.delimiters.field.join(fields), "", txa.context)


def read_document(message: Message, profile: Profile, sender: Sender) -> Statement | None:
    """Return the report that a document is; None when it names no order: other documents of a hospital are not kept here.

    Raises:
        ContentFault: There is no TXA.
    """
    txa = message.first("TXA")
    if txa is None:
        raise ContentFault("no document", "A document needs TXA", "TXA", "100")
    numbers = document_numbers(message, profile, sender)
    if not numbers:
        return None
    obr = message.first("OBR") or _as_obr(txa)
    return Statement(obr, tuple(numbers), tuple(message.all("OBX")), txa, message_event(message) == "T06")


def message_event(message: Message) -> str:
    """Return MSH-9.2."""
    return message.value("MSH-9.2").strip()


def _join(found: list[Statement], one: Statement) -> None:
    """Groups with the same number are one report."""
    for place, other in enumerate(found):
        if other.orders[0].tokens[0] == one.orders[0].tokens[0]:
            found[place] = replace(other, obx=(*other.obx, *one.obx), notes=(*other.notes, *one.notes))
            return
    found.append(one)


def own_identifiers(orders: Sequence[Numbers], sender: Sender) -> list[Json]:
    """Return the report's identifiers: the filler's number under the sender, one for each order."""
    own = [one for numbers in orders if (one := numbers.filler or numbers.accession or numbers.placer)]
    system = codes.report_system(sender.authority)
    return with_identifiers([], [codes.identifier(system, str(one["value"]), "FILL") for one in own])


def apply(
    statement: Statement,
    person: Person | None,
    profile: Profile,
    sender: Sender,
    standing: Standing,
    message_at: datetime,
) -> Mapped:
    """Return what one report becomes. `person` is None where the message names no patient: then the order must be known."""
    known: list[Json] = []
    waits: list[Wait] = []
    for numbers in statement.orders:
        found = order.standing_orders(numbers, standing)
        known += [one for one in found if one not in known]
        if not found:
            waits += [Wait(WaitKind.RESULT, one, message_at) for one in numbers.tokens]
    for one in known:
        if person is not None and not standing.is_of(one, person.current):
            raise identity_conflict("The order of this result belongs to another patient", "PID-3")
    if not known and person is not None and _is_laboratory(statement):
        return _laboratory(statement, person, profile, sender)
    if not known:
        return Mapped(waits=waits, note="No order with this number is known; the result waits for it")
    return _report(statement, known, waits, profile, sender, standing, message_at)


def _is_laboratory(statement: Statement) -> bool:
    """OBR-24 says so; or it does not say imaging, and all there is are values of which one is coded in LOINC."""
    section = statement.obr[24].value.strip().upper()
    if section in terms.codes("laboratory_sections"):
        return True
    if section in terms.codes("imaging_sections") or statement.txa is not None:
        return False
    kinds = {segment[2].value.strip().upper() for segment in statement.obx}
    return not kinds & {"TX", "FT", "ED", "RP"} and any(_is_laboratory_value(segment) for segment in statement.obx)


def _is_laboratory_value(segment: Segment) -> bool:
    if segment[2].value.strip().upper() not in ("NM", "SN"):
        return False
    coded = ((segment[3].component(code), segment[3].component(code + 2).strip().upper()) for code in (1, 4))
    return any(system == "LN" and terms.is_loinc(code.strip()) for code, system in coded)


def _laboratory(statement: Statement, person: Person, profile: Profile, sender: Sender) -> Mapped:
    """A laboratory's values (eGFR, creatinine) belong to the patient, whatever order they answer."""
    content = obx.read(statement.obx, profile)
    drawn = datatypes.ts(statement.obr[7].value, sender, "OBR-7")
    number = str(own_identifiers(statement.orders, sender)[0]["value"])
    about = obx.About(number, person.reference, [], drawn.fhir if drawn else "")
    values = _listed(content, about, statement, profile, sender)
    if not values:
        return Mapped(stale=True, note="A laboratory's message without values that are used here")
    return Mapped(values, ["laboratory values"])


def _report(
    statement: Statement, known: Sequence[Json], waits: list[Wait], profile: Profile, sender: Sender, standing: Standing,
    message_at: datetime,
) -> Mapped:  # fmt: skip
    numbers = own_identifiers(statement.orders, sender)
    found = standing.find("DiagnosticReport", [token(one) for one in numbers])
    current = found[0] if found else {}
    status = _status(statement, profile)
    mark = f"report|{sender.authority}|{token(numbers[0])}"
    if current.get("status") in SIGNED and status in _UNSIGNED:
        return Mapped(waits=waits, stale=True, note=f"A {status} report after the signed one changes nothing")
    if (newest := standing.marks.get(mark)) and newest > message_at:
        return Mapped(waits=waits, stale=True, note="A newer version of this report has been applied already")
    content = _with_notes(obx.read(statement.obx, profile), statement)
    if statement.addendum:
        content = replace(content, text=_added(_standing_text(current), content.text))
    based_on = [codes.reference("ServiceRequest", one["id"]) for one in known]
    made = _diagnostic_report(current, statement, numbers, status, content, based_on, known[0], sender, message_at)
    values = _values(content, made, based_on, statement, profile, sender)
    if values:
        made["result"] = [entry.reference for entry in values]
    if _same(made, current, values):
        return Mapped(waits=waits, note="Nothing new in this report")
    entry = (
        bundle.update(made, version_of(current)) if current else bundle.create(made, {"identifier": token(numbers[0])})
    )
    words = [f"report {'changed' if current else 'new'} ({status})"]
    return Mapped([*values, entry], words, waits=waits, marks={mark: message_at})


def _with_notes(content: obx.Result, statement: Statement) -> obx.Result:
    """Some senders write the report itself into NTE; what is no comment on a value stands under the text."""
    values = [id(one) for one in content.values]
    said = [text for about, text in statement.notes if id(about) not in values and text not in content.text]
    return replace(content, text="\n\n".join(part for part in (content.text, *said) if part)) if said else content


def _same(made: Json, current: Json, values: Sequence[Entry]) -> bool:
    return made == current and not values


def _status(statement: Statement, profile: Profile) -> str:
    """TXA-17 of a document; OBR-25, else the least certain OBX-11 (7.4.1.25)."""
    if statement.txa is not None and (stated := profile.translate("document_status", statement.txa[17].value)):
        return "appended" if statement.addendum and stated == "final" else stated
    said = profile.translate("result_status", statement.obr[25].value.strip()) if statement.obr[25] else None
    if said:
        return said
    lines = {segment[11].value.strip() for segment in statement.obx} - {"", "D", "N", "O", "X"}
    if lines & {"P", "R", "S", "I"}:
        return "preliminary"
    if "C" in lines:
        return "corrected"
    return "final" if lines else "unknown"


def _diagnostic_report(
    current: Json, statement: Statement, numbers: list[Json], status: str, content: obx.Result, based_on: list[Json],
    request: Json, sender: Sender, message_at: datetime,
) -> Json:  # fmt: skip
    obr = statement.obr
    made: Json = {"resourceType": "DiagnosticReport", **current}
    made["identifier"] = with_identifiers(current.get("identifier", []), numbers)
    made["status"] = status
    made["basedOn"] = datatypes.first([*current.get("basedOn", []), *based_on])
    made["subject"] = request["subject"]
    made["code"] = datatypes.exam(obr[4], sender) or request.get("code") or {"text": "Report"}
    if section := datatypes.coded(obr[24], "0074", sender):
        made["category"] = [section]
    if "encounter" in request:
        made["encounter"] = request["encounter"]
    if moment := datatypes.ts(obr[7].value, sender, "OBR-7"):
        made["effectiveDateTime"] = moment.fhir
    reported = _time_of_report(obr, sender)
    made["issued"] = reported or message_at.astimezone(sender.zone).isoformat(timespec="seconds")
    people = datatypes.first([_interpreter(obr, number) for number in (32, 33)])
    if people:
        made["resultsInterpreter"] = people
    forms = _forms(content)
    if forms:
        made["presentedForm"] = forms
    if content.conclusion:
        made["conclusion"] = content.conclusion
    elif content.text and not statement.addendum:
        made.pop("conclusion", None)  # the words of an earlier version: this one says it otherwise, or no more
    return made


def _time_of_report(obr: Segment, sender: Sender) -> str:
    """OBR-22 where it is a time: senders with fields shifted by one write a status there."""
    text = obr[22].value.strip()
    moment = datatypes.ts(text, sender, "OBR-22") if text[:4].isdigit() else None
    return moment.fhir if moment is not None and moment.instant is not None else ""


def _standing_text(report: Json) -> str:
    """The text of the report that stands, as `_forms` wrote it."""
    forms = [one for one in report.get("presentedForm", []) if str(one.get("contentType", "")).startswith("text/plain")]
    return base64.b64decode(forms[0].get("data", "")).decode("utf-8", "replace") if forms else ""


def _added(standing: str, addendum: str) -> str:
    """An addendum follows the text; applied twice it stands there once."""
    if not standing or addendum in standing:
        return standing or addendum
    return f"{standing}\n\nADDENDUM\n{addendum}"


def _interpreter(obr: Segment, number: int) -> Json | None:
    """NDL: the person is its first component; some senders write components where subcomponents belong."""
    field = obr[number]
    if obr.context.delimiters.subcomponent and obr.context.delimiters.subcomponent in field.raw.split("^")[0]:
        pieces = [datatypes.one_line(field.component(1, place)) for place in (3, 4, 2)]
    else:
        pieces = [datatypes.one_line(field.component(place)) for place in (3, 4, 2)]
    display = " ".join(piece for piece in pieces if piece) or datatypes.one_line(field.component(1))
    return {"display": display} if display else None


def _forms(content: obx.Result) -> list[Json]:
    forms: list[Json] = []
    if content.text:
        data = base64.b64encode(content.text.encode("utf-8", "replace")).decode()
        forms.append({"contentType": "text/plain; charset=utf-8", "data": data})
    return [*forms, *content.documents]


def _values(
    content: obx.Result, made: Json, based_on: Sequence[Json], statement: Statement, profile: Profile, sender: Sender
) -> list[Entry]:  # fmt: skip
    number = str(made["identifier"][0]["value"])
    about = obx.About(number, made["subject"], based_on, made.get("effectiveDateTime", ""))
    return _listed(content, about, statement, profile, sender)


def _listed(
    content: obx.Result, about: obx.About, statement: Statement, profile: Profile, sender: Sender
) -> list[Entry]:  # fmt: skip
    listed = []
    for place, segment in enumerate(content.values, 1):
        value = obx.observation(segment, place, about, profile, sender)
        if value is not None:
            if notes := [{"text": text} for one, text in statement.notes if one is segment]:
                value["note"] = notes
            listed.append(bundle.update_where(value, {"identifier": token(value["identifier"][0])}))
    return listed
