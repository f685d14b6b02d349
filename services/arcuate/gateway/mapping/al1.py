"""AL1, IAM, DG1 and PRB to AllergyIntolerance and Condition (segments/AL1__AllergyIntolerance.csv, IAM__..., DG1__Condition.csv).

What a patient bears badly decides about contrast media, a problem about the question and the protocol. AL1 adds and changes, `""` in
AL1-3 deletes what this assigner has said, and a message without AL1 says nothing. A statement is known again by IAM-7, DG1-20 or PRB-4,
else by its code or its words. HL7 has no table for PRB (v2.5.1 chapter 12.4.2); it is read as DG1 is, with PRB-13, PRB-14, PRB-9 and
PRB-7 for how sure it is, whether it still stands, since when it does not, and when it was written down.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from arcuate.gateway.mapping import datatypes, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.model import Mapped, Standing, token, tokens
from arcuate.gateway.mapping.pid import Person
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Segment

_HL7 = "http://terminology.hl7.org/CodeSystem/"
ALLERGY, CONDITION = "AllergyIntolerance", "Condition"


@dataclass(frozen=True)
class _Layout:
    """Field numbers of a segment; 0 where it has no such field. Statements of one `space` are one list."""

    kind: str
    space: str
    code: int
    text: int
    severity: int
    reaction: int
    onset: int
    action: int
    number: int
    words: str
    recorded: int = 0
    ended: int = 0
    sure: int = 0
    stage: int = 0


_LAYOUTS = {
    "AL1": _Layout(ALLERGY, "allergy", 3, 0, 4, 5, 6, 0, 0, "allergies"),
    "IAM": _Layout(ALLERGY, "allergy", 3, 0, 4, 5, 11, 6, 7, "allergies"),
    "DG1": _Layout(CONDITION, "condition", 3, 4, 0, 0, 5, 21, 20, "diagnoses"),
    "PRB": _Layout(CONDITION, "problem", 3, 0, 0, 0, 16, 1, 4, "problems", recorded=7, ended=9, sure=13, stage=14),
}


def wanted(segments: Sequence[Segment]) -> list[str]:
    """Return the types of resources that must be known of the patient before these segments can be applied."""
    return list(dict.fromkeys(_LAYOUTS[segment.id].kind for segment in segments if segment.id in _LAYOUTS))


def apply(segments: Sequence[Segment], person: Person, sender: Sender, standing: Standing) -> Mapped:
    """Return what the segments say about the patient; a repeated statement changes nothing."""
    entries: dict[str, Entry | None] = {}
    words: set[str] = set()
    for segment in segments:
        layout = _LAYOUTS.get(segment.id)
        if layout is None:
            continue
        system = _system(layout.space, person)
        if segment[layout.code].null:
            mine = [
                one
                for one in standing.resources.get(layout.kind, ())
                if any(t.startswith(f"{system}|") for t in tokens(one))
            ]
            entries |= {f"{layout.kind}/{one['id']}": bundle.delete(layout.kind, one["id"]) for one in mine}
            words |= {layout.words} if mine else set()
            continue
        number = _number(segment, layout, system, person, sender)
        if number is not None:
            entries[number] = _entry(segment, layout, number, person, sender, standing)
            words |= {layout.words} if entries[number] is not None else set()
    return Mapped([entry for entry in entries.values() if entry is not None], sorted(words))


def _system(space: str, person: Person) -> str:
    """Statements of one assigner of patient numbers are one list."""
    authority = person.number.split("|", 1)[0].rsplit(":", 1)[-1]
    return f"urn:arcuate:id:{space}:{quote(authority, safe='%')}"


def _number(segment: Segment, layout: _Layout, system: str, person: Person, sender: Sender) -> str | None:
    concept = _concept(segment, layout, sender)
    own = datatypes.one_line(segment[layout.number].component(1)) if layout.number else ""
    if concept is None:
        return None
    coding = next(iter(concept.get("coding", [])), None)
    what = own or (coding or {}).get("code") or concept["text"].casefold()
    return f"{system}|{person.number.split('|', 1)[1]}.{what}"


def _concept(segment: Segment, layout: _Layout, sender: Sender) -> Json | None:
    concept = datatypes.cwe(segment[layout.code], sender)
    text = datatypes.clean(segment[layout.text].text) if layout.text else ""
    if concept is None:
        return {"text": text} if text else None
    return {**concept, "text": text} if text else concept


def _entry(
    segment: Segment, layout: _Layout, number: str, person: Person, sender: Sender, standing: Standing
) -> Entry | None:
    found = standing.find(layout.kind, [number])
    current = found[0] if found else {}
    system, value = number.split("|", 1)
    made: Json = {"resourceType": layout.kind, **current}
    made["identifier"] = current.get("identifier") or [{"system": system, "value": value}]
    made["code"] = _concept(segment, layout, sender)
    made.setdefault("patient" if layout.kind == ALLERGY else "subject", person.reference)
    _standing_of(made, layout, segment[layout.action].value.strip() if layout.action else "")
    onset = datatypes.ts(segment[layout.onset].value, sender, f"{segment.id}-{layout.onset}")
    if onset is not None:
        made["onsetDateTime"] = onset.fhir
    if layout.kind == ALLERGY:
        _allergy(made, segment, layout)
    if layout.stage:
        _problem(made, segment, layout, sender)
    if not current:
        return bundle.create(made, {"identifier": token(made["identifier"][0])})
    return None if made == current else bundle.update(made, version_of(current))


def _standing_of(made: Json, layout: _Layout, action: str) -> None:
    """Active, or taken back: IAM-6 and DG1-21 `D` (table 0323, 0206), PRB-1 `DE` (table 0287)."""
    name = "allergyintolerance" if layout.kind == ALLERGY else "condition"
    verification = f"{_HL7}{name}-{'verification' if layout.kind == ALLERGY else 'ver-status'}"
    if action in ("D", "DE"):
        made.pop("clinicalStatus", None)
        made["verificationStatus"] = codes.concept(verification, "entered-in-error")
    else:
        made["clinicalStatus"] = codes.concept(f"{_HL7}{name}-clinical", "active")
        made.pop("verificationStatus", None)


def _problem(made: Json, segment: Segment, layout: _Layout, sender: Sender) -> None:
    """PRB: on the problem list, with whether it still stands, how sure it is, when it was written down and when it ended."""
    made["category"] = [codes.concept(f"{_HL7}condition-category", "problem-list-item", "Problem List Item")]
    if (
        recorded := datatypes.ts(segment[layout.recorded].value, sender, f"{segment.id}-{layout.recorded}")
    ) is not None:
        made["recordedDate"] = recorded.fhir
    if "clinicalStatus" not in made:  # taken back; an end needs a clinical status (con-4)
        made.pop("abatementDateTime", None)
        return
    stage = terms.table("problem_stage").get(_word(segment, layout.stage), "active")
    ended = datatypes.ts(segment[layout.ended].value, sender, f"{segment.id}-{layout.ended}")
    if segment[layout.ended].null or (ended is None and stage == "active"):
        made.pop("abatementDateTime", None)
    elif ended is not None:
        # What has an end is over (con-4).
        made["abatementDateTime"], stage = ended.fhir, "resolved" if stage == "active" else stage
    made["clinicalStatus"] = codes.concept(f"{_HL7}condition-clinical", stage)
    if sure := terms.table("problem_certainty").get(_word(segment, layout.sure)):
        made["verificationStatus"] = codes.concept(f"{_HL7}condition-ver-status", sure)


def _word(segment: Segment, number: int) -> str:
    return (segment[number].component(2) or segment[number].value).strip().casefold()


def _allergy(made: Json, segment: Segment, layout: _Layout) -> None:
    kind = segment[2].value.strip().upper()
    if category := terms.table("allergen_category").get(kind):
        made["category"] = [category]
    if nature := terms.table("allergy_type").get(kind):
        made["type"] = nature
    severity = segment[layout.severity].value.strip().upper()
    if criticality := terms.table("allergy_criticality").get(severity):
        made["criticality"] = criticality
    told = [
        text
        for part in datatypes.repetitions(segment[layout.reaction])
        if (text := _said(part.component(2), part.text))
    ]
    if told:
        reaction: Json = {"manifestation": [{"text": text} for text in told]}
        if grade := terms.table("allergy_severity").get(severity):
            reaction["severity"] = grade
        made["reaction"] = [reaction]


def _said(display: str, whole: str) -> str:
    return datatypes.clean(display) or datatypes.clean(whole)
