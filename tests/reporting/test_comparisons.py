"""Comparisons and a reader's word in the draft's values: nothing is compared that a person has changed, nothing rejected is printed."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.codes import CS_SNOMED, CS_STRUCTURE, Json, coding
from arcuate.reporting.comparisons import CS_COMPARISON
from arcuate.reporting.measurements import values_of
from arcuate.reporting.passport import EXT_REVIEW
from arcuate.reporting.templates import load_templates

SIDES = {"left": "7771000", "right": "24028007", "bilateral": "51440002"}
TEMPLATES = Path(__file__).parents[2] / "templates"


def component(kind: str, percent: float, limit: float, judged: str, words: str) -> Json:
    return {
        "code": {"coding": [coding(CS_COMPARISON, kind)], "text": words}, "valueQuantity": {"value": percent, "code": "%"},
        "interpretation": [{"coding": [coding(CS_COMPARISON, judged)]}],
        "referenceRange": [{"high": {"value": limit}, "text": "Measurement error. Somebody 2023"}],
    }  # fmt: skip


def volume(side: str, ml: float, *components: Json, status: str = "preliminary", **more: Any) -> Json:
    return {
        "resourceType": "Observation", "id": side, "status": status, "code": {"coding": [coding(CS_STRUCTURE, "hippocampus")]},
        "bodySite": {"coding": [coding(CS_SNOMED, SIDES[side])], "text": f"{side.capitalize()} hippocampus".replace("Bilateral", "Both sides,")},
        "valueQuantity": {"value": Decimal(str(ml)), "code": "mL", "unit": "mL"}, "component": list(components), **more,
    }  # fmt: skip


BEYOND = component("asymmetry", -29.0, 14.55, "beyond-measurement-error", "Asymmetry")
WITHIN = component("change", -8.0, 29.25, "within-measurement-error", "Change since 2025-01-05, same model and version")


def values(*observations: Json) -> Any:
    fields = next(t.fields for t in load_templates(TEMPLATES).templates if t.name == "brain-mri-volumetry")
    request = {"resourceType": "Bundle", "entry": [{"resource": o} for o in observations]}
    return values_of(fields, request, ())


def test_what_lies_beyond_is_a_sentence_what_lies_within_is_counted_together() -> None:
    found = values(volume("left", 3.1, WITHIN), volume("right", 2.3, WITHIN), volume("bilateral", 5.4, BEYOND)).compared
    assert found.beyond == ("Hippocampus: right 29 % smaller than left (measurement error up to 14.55 %)",)
    assert found.within == (
        "Change since 2025-01-05, same model and version: within measurement error (29.25 %): Left hippocampus, Right hippocampus",
    )
    assert found.sources == ("Measurement error. Somebody 2023",)


@pytest.mark.parametrize("status", ["corrected", "entered-in-error"])
def test_a_pair_of_which_a_person_changed_a_side_is_compared_no_more(status: str) -> None:
    found = values(volume("left", 3.1, status=status), volume("right", 2.3), volume("bilateral", 5.4, BEYOND)).compared
    assert found.beyond == found.within == ()


def judged(act: str, **parts: Any) -> dict[str, Any]:
    said = [{"url": "act", "valueCode": act}, *({"url": k, **v} for k, v in parts.items())]
    return {"extension": [{"url": EXT_REVIEW, "extension": said}], "performer": [{"display": "Reader-04"}]}


def test_a_correction_says_what_the_machine_had_given() -> None:
    machine = {"valueQuantity": {"value": Decimal("3.1"), "unit": "mL"}}
    found = values(volume("left", 2.9, status="corrected", **judged("corrected", machine=machine)))
    one = next(m for m in found.measured if m.field.key == "hippocampus-left")
    assert (one.shown, one.passport.state) == ("2.90 mL", "corrected by Reader-04, the machine gave 3.1 mL")


def test_a_rejected_value_is_missing_with_the_readers_reason() -> None:
    reason = {"valueString": "outline runs into the amygdala"}
    found = values(
        volume("left", 3.1, status="entered-in-error", **judged("rejected", reason=reason)), volume("right", 2.3)
    )
    missing = {m.field.key: m.reason for m in found.missing}
    assert missing["hippocampus-left"] == "rejected by Reader-04: outline runs into the amygdala"
    assert missing["amygdala-left"] == "not among the values of this measurement"
