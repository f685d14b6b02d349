"""Single facts: kidneys, implants, reactions, pregnancy, sides by code, earlier exams."""

from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from arcuate.kernel.clock import ManualClock
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.domain import ABSENT
from arcuate.protocoling.facts import Facts, gather
from arcuate.protocoling.kidney import ckd_epi_2021
from arcuate.protocoling.question import icd_side
from arcuate.protocoling.rulebook import Rulebook

Json = dict[str, Any]


@pytest.fixture
def facts_of(made: ModuleType, rulebook: Rulebook, clock: ManualClock) -> Any:
    def facts(vignette: Json, **changed: Any) -> Facts:
        vignette = {"ordered": {"code": "CTNK1"}, "age": 60, "sex": "M", "indication": "neck mass", **vignette}
        kinds = made.chart_of(vignette, clock.now())
        chart: dict[str, Any] = {
            "order": made.order_of(vignette), "now": clock.now(), "patient": made.patient_of(vignette, clock.now()),
            "encounters": tuple(kinds["Encounter"]), "observations": tuple(kinds["Observation"]), "conditions": tuple(kinds["Condition"]),
            "devices": tuple(kinds["Device"]), "allergies": tuple(kinds["AllergyIntolerance"]),
            "medications": tuple(kinds["MedicationStatement"]), "orders": tuple(kinds["ServiceRequest"]), "studies": (),
            "reports": tuple(kinds["DiagnosticReport"]), "appointments": tuple(kinds["Appointment"]),
        }  # fmt: skip
        return gather(Chart(**(chart | changed)), rulebook.knowledge)

    return facts


@pytest.mark.parametrize(
    ("creatinine", "age", "sex", "egfr"),
    # Values of the published CKD-EPI 2021 equation, computed by hand from its constants.
    [
        (1.0, 50, "male", 92),
        (1.0, 50, "female", 69),
        (2.5, 70, "male", 27),
        (0.6, 30, "female", 124),
        (4.0, 60, "female", 12),
    ],
)
def test_egfr_from_creatinine(creatinine: float, age: float, sex: str, egfr: int) -> None:
    computed = ckd_epi_2021(creatinine, age, sex)
    assert computed is not None
    assert round(computed) == pytest.approx(egfr, abs=1)


def test_no_egfr_is_computed_for_a_child() -> None:
    assert ckd_epi_2021(0.5, 9, "male") is None


def lab(code: str, value: float, unit: str, days: float) -> Json:
    return {"loinc": code, "value": value, "unit": unit, "days_ago": days}


def test_the_newest_result_counts_and_its_age_is_said(facts_of: Any) -> None:
    facts = facts_of({"labs": [lab("98979-8", 80, "mL/min/{1.73_m2}", 90), lab("62238-1", 41, "mL/min/{1.73_m2}", 3)]})
    assert facts.renal.egfr == 41
    assert "3 days old" in facts.renal.egfr_words


def test_a_newer_creatinine_counts_before_an_older_egfr(facts_of: Any) -> None:
    facts = facts_of({"labs": [lab("98979-8", 80, "mL/min/{1.73_m2}", 90), lab("2160-0", 353.68, "umol/L", 3)]})
    assert facts.renal.egfr_from == "creatinine"
    assert facts.renal.egfr < 25


def test_a_result_of_the_future_or_in_error_does_not_count(facts_of: Any, clock: ManualClock, made: ModuleType) -> None:
    late = made.observations_of({"labs": [lab("98979-8", 12, "mL/min/{1.73_m2}", -5)]}, clock.now())
    wrong = made.observations_of({"labs": [lab("98979-8", 12, "mL/min/{1.73_m2}", 5)]}, clock.now())
    wrong[0]["status"] = "entered-in-error"
    assert facts_of({}, observations=(*late, *wrong)).renal.egfr is ABSENT


def test_nothing_sent_is_not_none_on_file(facts_of: Any) -> None:
    assert facts_of({}).renal.egfr is ABSENT
    assert facts_of({}, observations=None).renal.egfr is None
    assert facts_of({"ordered": {"code": "MRBR0"}}, devices=None).implants.unidentified is None
    assert facts_of({"ordered": {"code": "MRBR0"}}).implants.unidentified == ()


@pytest.mark.parametrize(
    ("device", "text", "group"),
    [
        ("Pacemaker", "headache", "unidentified"),
        ("Pacemaker, MR conditional", "headache", "uncleared"),
        ("Pacemaker, MR conditional", "headache, device clinic ok for 1.5T", "cleared"),
        ("Pacemaker, MR conditional", "headache, clearance pending", "uncleared"),
        ("Pacemaker, not MR conditional", "headache", "unsafe"),
        ("LVAD", "headache, MR safety cleared", "unsafe"),
        ("", "headache, denies pacemaker", None),
        ("", "headache, pacemaker removed 2019", None),
        ("", "headache, father has a pacemaker", None),
        ("", "headache, leads capped, pacemaker removed", "unsafe"),
        ("", "capsule endoscopy 3 d ago, not passed", "unsafe"),
        ("", "capsule endoscopy, capsule passed", None),
        ("Coronary stent", "headache", None),
        ("Total hip arthroplasty, titanium", "headache", None),
    ],
)
def test_implants(facts_of: Any, device: str, text: str, group: str | None) -> None:
    found = facts_of(
        {"ordered": {"code": "MRBR0"}, "indication": text, "devices": [{"text": device}] if device else []}
    ).implants
    groups = {
        name
        for name in ("unsafe", "unidentified", "uncleared", "metal", "eye", "steps", "cleared")
        if getattr(found, name)
    }
    assert groups == ({group} if group else set())


@pytest.mark.parametrize(
    ("allergy", "same_class"),
    [
        ({"text": "Iodinated contrast", "reaction": "anaphylaxis", "severity": "severe"}, "severe"),
        ({"text": "Omnipaque", "reaction": "facial swelling"}, "moderate"),
        ({"text": "IV dye", "reaction": "a few hives", "severity": "mild"}, "mild"),
        ({"text": "Contrast media", "snomed": "293637006"}, "unknown"),
        ({"text": "CT contrast", "reaction": "nausea, felt warm"}, "none"),
        ({"text": "Gadobutrol", "reaction": "anaphylaxis", "severity": "severe"}, "none"),
        ({"text": "Shellfish", "reaction": "anaphylaxis", "severity": "severe"}, "none"),
        ({"text": "Povidone-iodine", "reaction": "rash", "severity": "severe"}, "none"),
    ],
)
def test_reactions_count_for_their_own_class_only(facts_of: Any, allergy: Json, same_class: str) -> None:
    assert facts_of({"allergies": [allergy]}).reaction.same_class == same_class


@pytest.mark.parametrize(
    ("vignette", "state"),
    [
        ({"indication": "ha, 9 wks pregnant"}, "pregnant"),
        ({"indication": "ha, not pregnant"}, "not"),
        ({"indication": "ha, late period"}, "possible"),
        ({"indication": "ha, s/p hysterectomy"}, "impossible"),
        ({"indication": "ha, 3 wks postpartum", "pregnancy": {"status": "pregnant"}}, ABSENT),
        ({"indication": "ha", "pregnancy": {"status": "pregnant", "weeks": 8}}, "pregnant"),
        ({"indication": "ha", "pregnancy": {"status": "not pregnant"}}, "not"),
        ({"indication": "ha"}, ABSENT),
        ({"indication": "ha", "sex": "M"}, "impossible"),
    ],
)
def test_pregnancy(facts_of: Any, vignette: Json, state: Any) -> None:
    found = facts_of({"sex": "F", "age": 30, **vignette}).pregnancy.state
    assert found == state or (state is ABSENT and found in (ABSENT, "not"))


@pytest.mark.parametrize(
    ("code", "side"),
    [
        ("I65.21", ("carotid", "right")), ("I65.22", ("carotid", "left")), ("H90.41", ("ear", "right")), ("I63.512", ("brain", "left")),
        ("M54.31", ("leg", "right")), ("G81.94", ("body", "left")), ("H46.13", ("eye", "bilateral")), ("R51.9", None), ("M79.604", None),
    ],
)  # fmt: skip
def test_side_of_a_diagnosis_code(rulebook: Rulebook, code: str, side: Any) -> None:
    assert icd_side(code, rulebook.knowledge.regions) == side


def test_a_patient_born_in_a_year_only_has_an_age(facts_of: Any, clock: ManualClock) -> None:
    year = (clock.now() - timedelta(days=365 * 50)).year
    assert facts_of({}, patient={"resourceType": "Patient", "id": "p1", "birthDate": str(year)}).patient.age == 50
    assert facts_of({}, patient={"resourceType": "Patient", "id": "p1"}).patient.age is None
