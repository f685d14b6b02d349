"""Conditions of rules: what may be written, and three-valued logic."""

import ast
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import BadInput
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.facts import gather
from arcuate.protocoling.interpreter import _all, _not, parse
from arcuate.protocoling.rulebook import Rulebook, load_rulebook

CONCEPTS = {"seizure", "stroke"}


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os').system('true')",
        "exam.__class__",
        "exam.region.upper()",
        "renal.egfr.real",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "says(seizure)",
        "says('plague')",
        "runs('seizure')",
        "exam.colour == 'red'",
        "stated.reading",
        "f'{exam.region}'",
        "renal.egfr + 1 > 2",
        "2 ** 9999999",
        "exam.region is None",
        "says()",
        "known(30)",
        "exam.modality ==",
        "x = 1",
        "(" * 300 + "1" + ")" * 300,
        "says('seizure') or " * 200 + "True",
        "",
    ],
)
def test_what_is_no_condition_is_refused_when_rules_are_read(source: str) -> None:
    with pytest.raises(BadInput):
        parse(source, CONCEPTS, "test.toml, rule x")


@given(st.text(max_size=80))
def test_any_text_is_either_a_condition_or_refused(source: str) -> None:
    try:
        parse(source, CONCEPTS, "test")
    except BadInput:
        return
    ast.parse(f"({source})", mode="eval")


three = st.sampled_from([True, False, None])


@given(three, three)
def test_unknown_never_becomes_false_or_true_by_itself(a: bool | None, b: bool | None) -> None:
    both = _all([a, b])
    assert both is (False if False in (a, b) else None if None in (a, b) else True)
    assert _not(_not(a)) is a


def test_a_fact_that_nobody_could_look_up_leaves_a_rule_undecided(
    made: ModuleType, rulebook: Rulebook, clock: ManualClock
) -> None:
    vignette: dict[str, Any] = {
        "ordered": {"code": "CTNK1"},
        "age": 70,
        "sex": "M",
        "indication": "neck mass",
        "setting": "outpatient",
    }
    patient = made.patient_of(vignette, clock.now())
    unknown = gather(Chart(made.order_of(vignette), clock.now(), patient), rulebook.knowledge)
    empty = gather(
        Chart(made.order_of(vignette), clock.now(), patient, observations=(), conditions=()), rulebook.knowledge
    )
    condition = parse("renal.egfr < site.iodinated_act_below_egfr", (), "test")

    assert condition.holds(unknown) is None
    assert condition.holds(empty) is False
    assert parse("absent(renal.egfr)", (), "test").holds(empty) is True
    assert parse("absent(renal.egfr)", (), "test").holds(unknown) is None


RULE = """
[[rule]]
id = "one"
version = 1
class = "mri_safety"
severity = "passive"
when = ["exam.modality == 'MR'"]
sentence = "MR of the {exam.region}."
fix = "Nothing."
source = "test"
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("mri_safety", "magnets", "magnets"),
        ('"passive"', '"loud"', "loud"),
        ('source = "test"', "", "source"),
        ("{exam.region}", "{exam.secret}", "exam.secret"),
        ('fix = "Nothing."', 'fix = "Nothing."\naction = "explode"', "explode"),
        ('fix = "Nothing."', 'fix = "Nothing."\ncolour = "red"', "colour"),
        ('source = "test"', 'source = "test"\nreplaces = ["two"]', "two"),
        ("[[rule]]", "[[rule", "cannot be read"),
    ],
)
def test_a_broken_rule_says_what_is_wrong_and_where(
    tmp_path: Path, rulebook: Rulebook, old: str, new: str, named: str
) -> None:
    (tmp_path / "mine.toml").write_text(RULE.replace(old, new), "utf-8")
    with pytest.raises(BadInput) as refused:
        load_rulebook(tmp_path, knowledge=rulebook.knowledge)
    assert named in str(refused.value)


def test_a_good_rule_is_read(tmp_path: Path, rulebook: Rulebook) -> None:
    (tmp_path / "mine.toml").write_text(RULE, "utf-8")
    assert [r.id for r in load_rulebook(tmp_path, knowledge=rulebook.knowledge).rules] == ["one"]


def test_one_broken_rule_does_not_silence_the_others(made: ModuleType, rulebook: Rulebook, clock: ManualClock) -> None:
    from dataclasses import replace

    class Broken:
        def holds(self, facts: object) -> bool:
            raise RuntimeError("inner fault")

    broken = replace(rulebook.rules[0], when=(Broken(),))  # type: ignore[arg-type]
    book = replace(rulebook, rules=(broken, *rulebook.rules[1:]))
    vignette = {
        "ordered": {"code": "MRBR0"},
        "age": 70,
        "sex": "M",
        "indication": "memory loss, has a pacemaker",
        "icd10cm": [],
    }
    chart = Chart(
        made.order_of(vignette),
        clock.now(),
        made.patient_of(vignette, clock.now()),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
        (),
    )

    decision = book.decide(gather(chart, book.knowledge))

    assert "mr-unidentified-implant" in {f.rule for f in decision.flags}
    assert any("failed inside" in u.why for u in decision.undecided)
