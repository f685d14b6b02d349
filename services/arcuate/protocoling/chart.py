"""What came with one order, sorted by kind; and which concepts it states, by words and by codes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from arcuate.kernel.codes import CS_SNOMED
from arcuate.protocoling.lexicon import Lexicon
from arcuate.protocoling.reading import Reading, read
from arcuate.protocoling.resources import Json, codes_of, codings, first_code, objects, string, text_of, void, words_of

CS_ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
CS_RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"

Found = tuple[Json, ...] | None
"""Resources of one kind; None when nobody could look for them."""


@dataclass(frozen=True)
class Chart:
    """One order and what is known around it.

    Attributes:
        order: The ServiceRequest that is checked.
        missing: Kinds that could not be looked for, in words.
        partial: Kinds of which only a first page came, in words.
    """

    order: Json
    now: datetime
    patient: Json | None = None
    encounters: Found = None
    observations: Found = None
    conditions: Found = None
    devices: Found = None
    allergies: Found = None
    medications: Found = None
    orders: Found = None
    studies: Found = None
    reports: Found = None
    appointments: Found = None
    partial: tuple[str, ...] = ()


def indication_of(order: Json) -> str:
    """Return the indication as typed: the texts of `reasonCode`, and the order's notes."""
    reasons = [text_of(reason) for reason in objects(order.get("reasonCode"))]
    notes = [string(note.get("text")) for note in objects(order.get("note"))]
    return ". ".join(t for t in (*reasons, *notes) if t.strip())


def icd_of(concepts: object) -> Iterator[str]:
    """Yield the ICD-10 codes of several CodeableConcepts."""
    for concept in objects(concepts):
        for found in codings(concept):
            if "icd-10" in string(found.get("system")) and found.get("code"):
                yield string(found["code"])


_ACTIVE = {"active", "recurrence", "relapse", "", "unknown"}


@dataclass(frozen=True)
class Stated:
    """Which concepts the order and the record state.

    Attributes:
        reading: What was understood of the indication.
        order_icd: ICD-10-CM codes on the order.
        charted: Concepts of active conditions; None when conditions were not sent.
        past: Concepts of conditions that are over.
        drugs: Concepts of medicines that are taken; None when medicines were not sent.
    """

    reading: Reading
    order_icd: tuple[str, ...]
    coded: frozenset[str]
    charted: frozenset[str] | None
    past: frozenset[str]
    drugs: frozenset[str] | None

    def asks(self, *concepts: str) -> bool:
        """Return whether the order itself states one of them, in words or by a code, and does not deny it."""
        return any(self.reading.says(c) or (c in self.coded and not self.reading.denies(c)) for c in concepts)

    def has(self, *concepts: str) -> bool | None:
        """Return whether order or record state one of them; None when it is not said and conditions were not sent."""
        if self.asks(*concepts):
            return True
        if self.charted is None:
            return None
        return any(c in self.charted and not self.reading.denies(c) for c in concepts)

    def takes(self, *concepts: str) -> bool | None:
        """Return whether one of these medicines is taken, by the medication list or the indication."""
        if any(self.reading.says(c) for c in concepts):
            return True
        return None if self.drugs is None else any(c in self.drugs for c in concepts)


def state(chart: Chart, lexicon: Lexicon) -> Stated:
    """Find every concept that the order and the record state."""
    icd = tuple(icd_of(chart.order.get("reasonCode")))
    current: set[str] = set()
    past: set[str] = set()
    for condition in chart.conditions or ():
        if void(condition):
            continue
        active = first_code(condition.get("clinicalStatus")) in _ACTIVE
        (current if active else past).update(_concepts(condition.get("code"), lexicon))
    drugs: set[str] = set()
    for medication in chart.medications or ():
        if _taken(medication):
            drugs.update(_concepts(medication.get("medicationCodeableConcept"), lexicon, drugs=True))
    return Stated(
        read(indication_of(chart.order), lexicon),
        icd,
        frozenset(name for name, concept in lexicon.concepts.items() if any(concept.has_icd(code) for code in icd)),
        None if chart.conditions is None else frozenset(current),
        frozenset(past),
        None if chart.medications is None else frozenset(drugs),
    )


def _taken(medication: Json) -> bool:
    return not void(medication) and string(medication.get("status")) not in {
        "stopped",
        "completed",
        "cancelled",
        "not-taken",
        "draft",
    }


def _concepts(concept: object, lexicon: Lexicon, *, drugs: bool = False) -> Iterator[str]:
    words = read(words_of(concept), lexicon)
    yield from (m.concept for m in words.mentions if m.holds and not m.removed)
    icd = tuple(icd_of([concept] if isinstance(concept, dict) else []))
    snomed = set(codes_of(concept, CS_SNOMED))
    rxnorm = set(codes_of(concept, CS_RXNORM))
    for name, entry in lexicon.concepts.items():
        if any(entry.has_icd(code) for code in icd) or entry.snomed & snomed or (drugs and entry.rxnorm & rxnorm):
            yield name
