"""A person's word outlives a repeated question, and only that."""

from typing import Any

import pytest

from arcuate.imaging import standing
from arcuate.kernel.codes import Json


def stated(value: str = "2.31", *, weights: str = "ab", number: str = "own:hippocampus-left", **more: Any) -> Json:
    return {
        "resourceType": "Observation", "status": "preliminary", "identifier": [{"system": "s", "value": number}],
        "valueQuantity": {"value": value}, "contained": [{"resourceType": "Device", "version": [{"value": weights}]}], **more,
    }  # fmt: skip


def judged(status: str, value: str = "2.31", **more: Any) -> Json:
    said = {"url": standing.EXT_REVIEW, "extension": [{"url": "machine", "valueQuantity": {"value": "2.31"}}]}
    return stated(value, status=status, id="7", extension=[said], **more)


@pytest.mark.parametrize("word", [judged("final"), judged("corrected", "2.5"), judged("entered-in-error")])
def test_the_same_number_of_the_same_model_stays_as_judged(word: Json) -> None:
    assert standing.as_judged([stated()], [word]) == [word]


@pytest.mark.parametrize(
    ("now", "recorded"),
    [
        (stated("2.4"), judged("final")),
        (stated(weights="cd"), judged("final")),
        (stated(number="own:hippocampus-right"), judged("final")),
        (stated(), judged("preliminary")),
        (stated(), stated(status="final", id="7")),
    ],
    ids=["other-number", "other-weights", "other-side", "taken-back", "judged-elsewhere"],
)
def test_anything_else_is_stated_anew(now: Json, recorded: Json) -> None:
    assert standing.as_judged([now], [recorded]) == [now]
