"""Kidney function: the last eGFR and its age, acute injury by creatinine, who needs a result at all. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.kernel.codes import CS_LOINC
from arcuate.protocoling.chart import Chart, Stated
from arcuate.protocoling.department import Department
from arcuate.protocoling.domain import ABSENT, Absent, Evidence
from arcuate.protocoling.resources import (
    Json,
    age_years,
    codes_of,
    days_between,
    number,
    reference_of,
    string,
    void,
    when,
)
from arcuate.protocoling.statements import said_creatinine, said_egfr

EGFR = frozenset(
    {
        "98979-8",
        "62238-1",
        "33914-3",
        "48642-3",
        "48643-1",
        "77147-7",
        "88293-6",
        "88294-4",
        "69405-9",
        "50210-4",
        "70969-1",
    }
)
CREATININE = frozenset({"2160-0", "38483-4", "14682-9", "59826-8", "77140-2"})
_UMOL_PER_MG = 88.42


@dataclass(frozen=True)
class Result:
    """One laboratory result: value in the unit of its kind (eGFR mL/min/1.73 m2, creatinine mg/dL)."""

    value: float
    at: datetime
    reference: str


@dataclass(frozen=True)
class Kidneys:
    """Facts for rules.

    Attributes:
        egfr: Last known eGFR; ABSENT when none is on file; None when results were not sent.
        egfr_age_days: Its age; ABSENT when it stands in the text without a date.
        egfr_from: `laboratory`, `creatinine` (computed by CKD-EPI 2021) or `text`.
        acute: Acute injury now: a condition, the text, or creatinine risen by the department's ratio.
        acute_recent: Acute injury within the last 30 days, even if it is over.
    """

    egfr: float | Absent | None
    egfr_age_days: float | Absent | None
    egfr_from: str
    egfr_words: str
    acute: bool | None
    acute_recent: bool | None
    evidence: tuple[Evidence, ...] = ()


def kidneys(chart: Chart, stated: Stated, department: Department) -> Kidneys:
    """Return the facts about the kidneys."""
    egfr = sorted(results(chart, EGFR), key=lambda r: r.at)
    creatinine = sorted(results(chart, CREATININE), key=lambda r: r.at)
    last, source = (egfr[-1], "laboratory") if egfr else (None, "")
    if creatinine and (last is None or creatinine[-1].at - last.at > timedelta(days=1)):
        computed = ckd_epi_2021(creatinine[-1].value, *_age_sex(chart))
        if computed is not None:
            last, source = Result(computed, creatinine[-1].at, creatinine[-1].reference), "creatinine"
    risen = rise(creatinine, chart.now, department)
    acute = stated.has("acute kidney injury")
    if risen is not None:
        acute = True
    recent = True if acute or _recently_over(chart, stated) else acute
    if last is None:
        return _from_text(chart, stated, acute, recent)
    age = max(0.0, days_between(last.at, chart.now) or 0.0)
    words = f"eGFR {last.value:.0f} mL/min/1.73 m2, {_days(age)} old" + (
        ", computed from creatinine" if source == "creatinine" else ""
    )
    evidence = [Evidence(words, last.reference)]
    if risen is not None:
        evidence.append(
            Evidence(f"creatinine rose from {risen[0].value:.1f} to {risen[1].value:.1f} mg/dL", risen[1].reference)
        )
    return Kidneys(round(last.value, 1), age, source, words, acute, recent, tuple(evidence))


def _from_text(chart: Chart, stated: Stated, acute: bool | None, recent: bool | None) -> Kidneys:
    said = said_egfr(stated.reading.text)
    if said is not None:
        words = f"eGFR {said.value:.0f} by the indication, without a date"
        return Kidneys(said.value, ABSENT, "text", words, acute, recent, (Evidence(words),))
    creatinine = said_creatinine(stated.reading.text)
    computed = ckd_epi_2021(creatinine.value, *_age_sex(chart)) if creatinine else None
    if computed is not None:
        words = f"eGFR {computed:.0f} computed from the creatinine in the indication, without a date"
        return Kidneys(round(computed, 1), ABSENT, "text", words, acute, recent, (Evidence(words),))
    unknown = chart.observations is None
    words = "eGFR not sent" if unknown else "no eGFR on file"
    return Kidneys(
        None if unknown else ABSENT, None if unknown else ABSENT, "", words, acute, recent, (Evidence(words),)
    )


def _days(age: float) -> str:
    whole = int(age)
    return "less than a day" if whole < 1 else "1 day" if whole == 1 else f"{whole} days"


def _age_sex(chart: Chart) -> tuple[float | None, str]:
    patient = chart.patient or {}
    return age_years(patient.get("birthDate"), chart.now), string(patient.get("gender"))


def ckd_epi_2021(creatinine_mg_dl: float, age: float | None, sex: str) -> float | None:
    """Return the eGFR by CKD-EPI 2021 (mL/min/1.73 m2); None for children, unknown age or sex, or a value out of range."""
    if age is None or age < 18 or sex not in {"male", "female"} or not 0.1 <= creatinine_mg_dl <= 30:
        return None
    kappa, alpha = (0.7, -0.241) if sex == "female" else (0.9, -0.302)
    ratio = creatinine_mg_dl / kappa
    made = 142 * float(min(ratio, 1.0) ** alpha) * float(max(ratio, 1.0) ** -1.200) * 0.9938**age
    return made * 1.012 if sex == "female" else made


def rise(creatinine: list[Result], now: datetime, department: Department) -> tuple[Result, Result] | None:
    """Return (baseline, last) when the last creatinine of the past 30 days has risen by the department's ratio in a year."""
    if len(creatinine) < 2 or now - creatinine[-1].at > timedelta(days=department.egfr_max_age_days):
        return None
    last = creatinine[-1]
    earlier = [r for r in creatinine[:-1] if last.at - r.at <= timedelta(days=365) and r.value > 0]
    if not earlier:
        return None
    baseline = min(earlier, key=lambda r: r.value)
    return (baseline, last) if last.value / baseline.value >= department.aki_creatinine_ratio else None


def _recently_over(chart: Chart, stated: Stated) -> bool:
    """Return whether an acute kidney injury ended or was recorded within the last 30 days."""
    if "acute kidney injury" not in stated.past:
        return False
    for condition in chart.conditions or ():
        ended = days_between(
            when(condition, "abatementDateTime", "abatementPeriod", "recordedDate", "onsetDateTime"), chart.now
        )
        if ended is not None and 0 <= ended <= 30:
            return True
    return False


def results(chart: Chart, loinc: frozenset[str]) -> Iterator[Result]:
    """Yield the usable results of these LOINC codes; creatinine in umol/L is converted to mg/dL."""
    for observation in chart.observations or ():
        if (
            void(observation)
            or observation.get("status") == "cancelled"
            or not loinc & set(codes_of(observation.get("code"), CS_LOINC))
        ):
            continue
        at = when(observation, "effectiveDateTime", "effectiveInstant", "effectivePeriod", "issued")
        value = _value(observation)
        if at is not None and value is not None and at <= chart.now + timedelta(hours=1):
            yield Result(value, at, reference_of(observation))


def _value(observation: Json) -> float | None:
    quantity = observation.get("valueQuantity")
    if not isinstance(quantity, dict):
        return None
    value = number(quantity.get("value"))
    if value is None or value < 0:
        return None
    unit = (string(quantity.get("code")) or string(quantity.get("unit"))).lower()
    if unit in {"umol/l", "µmol/l", "μmol/l"}:
        return value / _UMOL_PER_MG
    # "<15" says: below 15. ">60" says: above 60.
    sign = {"<": -1, ">": 1}.get(string(quantity.get("comparator")), 0)
    return value + sign
