"""Pregnancy: what the record and the indication say of it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from arcuate.kernel.codes import CS_LOINC, CS_SNOMED
from arcuate.protocoling.chart import Chart, Stated
from arcuate.protocoling.domain import ABSENT, Absent, Evidence
from arcuate.protocoling.resources import (
    Json,
    codes_of,
    days_between,
    number,
    reference_of,
    string,
    void,
    when,
    words_of,
)
from arcuate.protocoling.statements import said_weeks

STATUS = "82810-3"
GESTATION = frozenset({"18185-9", "11884-4", "49051-6"})
HCG = frozenset({"2106-3", "2118-8", "19080-1", "21198-7", "2110-5", "20415-6"})
_PREGNANT, _NOT, _NEGATIVE, _POSITIVE = "77386006", "60001007", "260385009", "10828004"
_NEGATIVE_LASTS_DAYS = 10
_HCG_NEGATIVE_BELOW = 5


@dataclass(frozen=True)
class Pregnancy:
    """Facts for rules.

    Attributes:
        state: `pregnant`, `possible`, `not`, `impossible`; ABSENT when nothing is on file; None when nobody could look.
        weeks: Weeks of gestation, if stated.
    """

    state: str | Absent | None
    weeks: int | None
    evidence: tuple[Evidence, ...] = ()


def pregnancy(chart: Chart, stated: Stated) -> Pregnancy:
    """Return what is known; the indication's own words count before the record, an older record less than a newer one."""
    if string((chart.patient or {}).get("gender")) == "male":
        return Pregnancy("impossible", None)
    weeks = said_weeks(stated.reading.text)
    by_text = _by_text(stated, weeks)
    if by_text in {"pregnant", "possible"}:
        return Pregnancy(by_text, weeks, (Evidence(_words(by_text, weeks)),))
    by_record = _by_record(chart)
    if by_text == "not" and (by_record is None or by_record[0] != "pregnant"):
        return Pregnancy("not", None, (Evidence("not pregnant by the indication"),))
    if by_record is not None and by_record[0] == "pregnant" and stated.reading.says("after delivery"):
        return Pregnancy(ABSENT, None, (Evidence("delivered by the indication; the record still says pregnant"),))
    if by_record is not None and by_record[0] == "pregnant":
        return Pregnancy("pregnant", by_record[2], (by_record[1],))
    if stated.asks("pregnant") and "pregnant" in stated.coded and not stated.reading.says("after delivery"):
        return Pregnancy("pregnant", None, (Evidence("a code of pregnancy on the order"),))
    if stated.has("cannot be pregnant"):
        return Pregnancy("impossible", None, (Evidence("a state in which pregnancy is impossible is on file"),))
    if by_record is not None:
        return Pregnancy(by_record[0], None, (by_record[1],))
    if chart.observations is None or chart.conditions is None:
        return Pregnancy(None, None)
    return Pregnancy(ABSENT, None, (Evidence("no pregnancy status on file"),))


def _words(state: str, weeks: int | None) -> str:
    at = f", {weeks} weeks" if weeks else ""
    return f"pregnant{at} by the indication" if state == "pregnant" else "pregnancy possible by the indication"


def _by_text(stated: Stated, weeks: int | None) -> str | None:
    reading = stated.reading
    if weeks is not None:
        return "pregnant"
    if reading.says("not pregnant"):
        return "not"
    if reading.says("possibly pregnant"):
        return "possible"
    mentions = reading.of("pregnant")
    if any(m.holds and not m.past and not m.removed for m in mentions) and not reading.says("after delivery"):
        return "pregnant"
    return "not" if mentions and all(m.denied for m in mentions) else None


def _by_record(chart: Chart) -> tuple[str, Evidence, int | None] | None:
    """Return the newest statement of the record that still counts, with its weeks."""
    statements = sorted(_statements(chart), key=lambda s: s[0])
    if not statements:
        return None
    _, state, evidence = statements[-1]
    return state, evidence, _weeks(chart) if state == "pregnant" else None


def _statements(chart: Chart) -> Iterator[tuple[datetime, str, Evidence]]:
    for observation in chart.observations or ():
        state = _observed(observation)
        at = when(observation, "effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued") or chart.now
        age = days_between(at, chart.now) or 0.0
        if state is None or age > (_NEGATIVE_LASTS_DAYS if state == "not" else 294):
            continue
        yield at, state, Evidence(f"{_STATED[state]}, {max(0, int(age))} days old", reference_of(observation))
    for condition in chart.conditions or ():
        if _is_pregnancy(condition):
            at = when(condition, "onsetDateTime", "recordedDate", "onsetPeriod") or chart.now
            if (days_between(at, chart.now) or 0.0) <= 294:
                yield at, "pregnant", Evidence("pregnancy on the problem list", reference_of(condition))


_STATED = {
    "pregnant": "pregnant by the record",
    "possible": "pregnancy not excluded by the record",
    "not": "negative for pregnancy",
}


def _observed(observation: Json) -> str | None:
    if void(observation) or observation.get("status") == "cancelled":
        return None
    codes = set(codes_of(observation.get("code"), CS_LOINC))
    value = observation.get("valueCodeableConcept")
    answers = set(codes_of(value, CS_SNOMED))
    words = (words_of(value) or string(observation.get("valueString"))).lower()
    if STATUS in codes:
        return _status(answers, words)
    if codes & GESTATION:
        weeks = _quantity(observation)
        return "pregnant" if weeks is not None and 0 < weeks <= 43 else None
    if codes & HCG:
        return _hcg(observation, answers, words)
    return None


def _status(answers: set[str], words: str) -> str | None:
    if _NOT in answers or _NEGATIVE in answers or "not pregnant" in words or "negative" in words:
        return "not"
    if _PREGNANT in answers or _POSITIVE in answers:
        return "pregnant"
    if any(w in words for w in ("possib", "unsure", "unknown", "maybe", "uncertain")) or "152231000119106" in answers:
        return "possible"
    return "pregnant" if "pregnan" in words else None


def _hcg(observation: Json, answers: set[str], words: str) -> str | None:
    if _NEGATIVE in answers or words.startswith("neg"):
        return "not"
    if _POSITIVE in answers or words.startswith("pos"):
        return "pregnant"
    amount = _quantity(observation)
    if amount is None:
        return None
    return "not" if amount < _HCG_NEGATIVE_BELOW else "pregnant"


def _quantity(observation: Json) -> float | None:
    quantity = observation.get("valueQuantity")
    return number(quantity.get("value")) if isinstance(quantity, dict) else None


def _is_pregnancy(condition: Json) -> bool:
    if void(condition) or codes_of(condition.get("clinicalStatus"), _CLINICAL) in (
        ["inactive"],
        ["resolved"],
        ["remission"],
    ):
        return False
    code = condition.get("code")
    if _PREGNANT in codes_of(code, CS_SNOMED):
        return True
    icd = codes_of(code, "http://hl7.org/fhir/sid/icd-10-cm")
    return any(c.startswith(("Z33.1", "Z34", "Z3A", "O")) and not c.startswith(("O8", "O9")) for c in icd)


_CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"


def _weeks(chart: Chart) -> int | None:
    for observation in chart.observations or ():
        if GESTATION & set(codes_of(observation.get("code"), CS_LOINC)):
            weeks = _quantity(observation)
            if weeks is not None and 0 < weeks <= 43:
                return int(weeks)
    return None
