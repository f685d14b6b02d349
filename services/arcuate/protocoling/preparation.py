"""What must be ready before the scan: weight against the table, coagulation for a puncture, keeping still. Pure."""

from dataclasses import dataclass
from datetime import datetime

from arcuate.kernel.codes import CS_LOINC
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.domain import ABSENT, Absent, Evidence
from arcuate.protocoling.resources import Json, codes_of, number, objects, reference_of, string, void, when

_WEIGHT, _INR, _PLATELETS = (
    frozenset({"29463-7", "3141-9", "8335-2"}),
    frozenset({"6301-6", "34714-6"}),
    frozenset({"777-3", "26515-7"}),
)
_LB = 0.45359237


@dataclass(frozen=True)
class Preparation:
    """Facts for rules; ABSENT when no result is on file, None when results were not sent."""

    weight_kg: float | Absent | None
    inr: float | Absent | None
    platelets: float | Absent | None
    evidence: tuple[Evidence, ...] = ()


def preparation(chart: Chart) -> Preparation:
    """Return the newest weight, INR and platelet count (10*3/uL)."""
    weight, inr, platelets = (_newest(chart, codes) for codes in (_WEIGHT, _INR, _PLATELETS))
    named = ((weight, "weight", "kg"), (inr, "INR", ""), (platelets, "platelets", "10*3/uL"))
    evidence = tuple(Evidence(f"{name} {value[0]:g} {unit}".strip(), value[1]) for value, name, unit in named if value)
    missing = None if chart.observations is None else ABSENT
    return Preparation(
        weight[0] if weight else missing, inr[0] if inr else missing, platelets[0] if platelets else missing, evidence
    )


def _newest(chart: Chart, loinc: frozenset[str]) -> tuple[float, str] | None:
    best: tuple[datetime, float, str] | None = None
    for observation in chart.observations or ():
        if (
            void(observation)
            or observation.get("status") == "cancelled"
            or not loinc & set(codes_of(observation.get("code"), CS_LOINC))
        ):
            continue
        at = when(observation, "effectiveDateTime", "effectivePeriod", "effectiveInstant", "issued")
        value = _amount(observation)
        if value is not None and at is not None and (best is None or at >= best[0]):
            best = at, value, reference_of(observation)
    return (best[1], best[2]) if best else None


def _amount(observation: Json) -> float | None:
    for quantity in objects(observation.get("valueQuantity")):
        value = number(quantity.get("value"))
        unit = (string(quantity.get("code")) or string(quantity.get("unit"))).lower()
        if value is None or value < 0:
            return None
        if unit in {"[lb_av]", "lb", "lbs"}:
            return value * _LB
        if unit == "g" and value > 1000:
            return value / 1000
        # Platelets per microlitre or per cubic millimetre.
        return value / 1000 if unit in {"/ul", "/mm3", "{cells}/ul", "{#}/ul"} else value
    return None
