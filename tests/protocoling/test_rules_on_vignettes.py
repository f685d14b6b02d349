"""The rules on orders written for this project (own_vignettes.jsonl): what is flagged, what is not, which protocol.

The set was written by the author of the rules, so it shows that they do what they say, not how good they are elsewhere.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from arcuate.kernel.clock import ManualClock
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.domain import Decision
from arcuate.protocoling.rulebook import Rulebook
from arcuate.protocoling.service import examine

VIGNETTES = [
    json.loads(line) for line in Path(__file__).with_name("own_vignettes.jsonl").read_text("utf-8").splitlines()
]


def decide(vignette: dict[str, Any], made: ModuleType, rulebook: Rulebook, clock: ManualClock) -> Decision:
    charted = {kind: tuple(found) for kind, found in made.chart_of(vignette, clock.now()).items()}
    chart = Chart(
        made.order_of(vignette), clock.now(), made.patient_of(vignette, clock.now()), charted["Encounter"], charted["Observation"],
        charted["Condition"], charted["Device"], charted["AllergyIntolerance"], charted["MedicationStatement"], charted["ServiceRequest"],
        charted["ImagingStudy"], charted["DiagnosticReport"], charted["Appointment"],
    )  # fmt: skip
    return examine(chart, rulebook, lambda: True)


@pytest.mark.parametrize(
    "vignette", VIGNETTES, ids=lambda v: f"{v['id']} {v['ordered']['code']} {v['indication'][:50]}"
)
def test_flags_and_protocol(vignette: dict[str, Any], made: ModuleType, rulebook: Rulebook, clock: ManualClock) -> None:
    expected = vignette["expected"]

    decision = decide(vignette, made, rulebook, clock)

    wanted = {(f["class"], f["severity"]) for f in expected["flags"]}
    got = {(str(f.flag_class), str(f.severity)) for f in decision.flags}
    tolerated = {(name, "passive") for name in expected["tolerated"]}
    assert wanted <= got
    assert got - wanted <= tolerated
    assert decision.suggestion is not None
    assert decision.suggestion.name in expected["protocols"]


def test_every_exam_of_the_catalogue_gets_a_protocol(made: ModuleType, rulebook: Rulebook, clock: ManualClock) -> None:
    for code in rulebook.knowledge.catalogue.exams:
        vignette = {
            "ordered": {"code": code},
            "age": 40,
            "sex": "M",
            "indication": "follow-up of a known finding, stable",
        }
        assert decide(vignette, made, rulebook, clock).suggestion is not None, code


def test_every_rule_names_its_source_and_its_fix(rulebook: Rulebook) -> None:
    assert len(rulebook.rules) >= 12
    for rule in rulebook.rules:
        assert rule.source, rule.id
        assert rule.fix.sentence, rule.id
        assert rule.version >= 1
