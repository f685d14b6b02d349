"""Whatever valid or mangled FHIR comes, the check answers: no order is left without an answer because a field was odd."""

import copy
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arcuate.protocoling.chart import Chart
from arcuate.protocoling.rulebook import Rulebook
from arcuate.protocoling.service import examine

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
VIGNETTES = [
    json.loads(line) for line in Path(__file__).with_name("own_vignettes.jsonl").read_text("utf-8").splitlines()
]
FIELDS = {
    "observations": "Observation", "conditions": "Condition", "devices": "Device", "allergies": "AllergyIntolerance",
    "medications": "MedicationStatement", "orders": "ServiceRequest", "studies": "ImagingStudy", "reports": "DiagnosticReport",
    "appointments": "Appointment", "encounters": "Encounter",
}  # fmt: skip

odd = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.decimals(allow_nan=False, allow_infinity=False), st.text(max_size=40),
    st.sampled_from(["0000", "9999-12-31", "2026-13-40", "-1", "1e999", "Patient/", "\x00", "no pacemaker", "L R L R", "19"]),
    st.lists(st.text(max_size=5), max_size=2), st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)  # fmt: skip


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*at, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            found += paths(inner, (*at, n))
    return found


def mangle(value: Any, where: tuple[Any, ...], put: Any, drop: bool) -> None:
    for step in where[:-1]:
        value = value[step]
    if drop and isinstance(value, dict):
        del value[where[-1]]
    else:
        value[where[-1]] = put


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_mangled_charts_are_answered(made: ModuleType, rulebook: Rulebook, data: st.DataObject) -> None:
    vignette = data.draw(st.sampled_from(VIGNETTES))
    charted = made.chart_of(vignette, NOW)
    everything = {"order": made.order_of(vignette), "patient": made.patient_of(vignette, NOW), **charted}
    everything = copy.deepcopy(everything)
    for _ in range(data.draw(st.integers(1, 4))):
        places = [p for p in paths(everything) if len(p) > 1 and not (len(p) == 2 and p[0] not in {"order", "patient"})]
        mangle(everything, data.draw(st.sampled_from(places)), data.draw(odd), data.draw(st.booleans()))
    kinds = {field: tuple(r for r in everything[kind] if isinstance(r, dict)) for field, kind in FIELDS.items()}
    missing = data.draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=3))
    chart = Chart(
        everything["order"], NOW, everything["patient"], **{k: None if k in missing else v for k, v in kinds.items()}
    )

    decision = examine(chart, rulebook, lambda: True)

    assert not [u for u in decision.undecided if "failed" in u.why]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=400), code=st.text(max_size=12))
def test_any_indication_and_any_code_are_answered(rulebook: Rulebook, text: str, code: str) -> None:
    order = {
        "resourceType": "ServiceRequest", "id": "x", "status": "active", "intent": "order", "subject": {"reference": "Patient/p1"},
        "code": {"coding": [{"code": code}], "text": text}, "reasonCode": [{"text": text}], "quantityQuantity": {"value": Decimal("1.10")},
    }  # fmt: skip
    examine(Chart(order, NOW), rulebook, lambda: True)
