"""Numbers in context: nothing is called a difference that measurement error explains, nothing compared across models."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.imaging import comparison, resources
from arcuate.kernel.codes import Json

STUDY = {"id": "s", "subject": {"reference": "Patient/p"}}
ML = st.floats(0.1, 900)


def volumes(left: float, right: float, day: str = "2026-03-01", **model: str) -> list[Json]:
    used = {"name": "brain-t1", "version": "1", "sha256": "ab"} | model
    told: list[dict[str, Any]] = [
        {"structure": "hippocampus", "side": side, "ml": ml}
        for side, ml in (("left", left), ("right", right), ("bilateral", left + right))
    ]
    summary = {"models": [used], "method": "m", "research_use": "r", "warnings": [], "volumes": told}
    return resources.observations(summary, STUDY, None, "own", datetime(2026, 4, 1, tzinfo=UTC), day)


def said(made: list[Json]) -> list[tuple[str, str, str, float]]:
    return [
        (
            o["bodySite"]["text"], c["code"]["coding"][0]["code"], c["interpretation"][0]["text"],
            float(c["valueQuantity"]["value"]),
        )
        for o in made
        for c in o.get("component", [])
        if "interpretation" in c
    ]  # fmt: skip


def test_a_small_asymmetry_is_within_measurement_error_a_large_one_beyond() -> None:
    assert said(comparison.in_context(volumes(3.0, 3.3), [])) == [
        ("Both sides, hippocampus", "asymmetry", "within measurement error", 9.5)
    ]
    assert said(comparison.in_context(volumes(4.0, 3.0), []))[0][2:] == ("beyond measurement error", -28.6)


@given(ML, ML)
def test_asymmetry_changes_its_sign_in_the_mirror_and_stays_within_200_per_cent(left: float, right: float) -> None:
    assert comparison.asymmetry(left, right) == pytest.approx(-comparison.asymmetry(right, left))
    assert abs(comparison.asymmetry(left, right)) <= 200


def test_a_change_is_told_for_each_side_with_its_date_and_its_limit() -> None:
    made = comparison.in_context(volumes(2.0, 3.0), volumes(3.0, 3.1, "2025-01-05T10:00:00+01:00"))
    changes = [s for s in said(made) if s[1] == "change"]
    assert changes == [
        ("Left hippocampus", "change", "beyond measurement error", -33.3),
        ("Right hippocampus", "change", "within measurement error", -3.2),
        ("Both sides, hippocampus", "change", "within measurement error", -18.0),
    ]
    told = made[0]["component"][0]
    assert "2025-01-05" in told["code"]["text"]
    assert "PMC10497452" in told["referenceRange"][0]["text"] and "not measured" in told["referenceRange"][0]["text"]


def on(scanner: str, made: list[Json]) -> list[Json]:
    return [o | {"extension": [{"url": resources.EXT_SCANNER, "valueString": scanner}]} for o in made]


@pytest.mark.parametrize(("then", "now", "limit"), [("A, 1", "A, 1", 14.55), ("A, 1", "A, 2", 29.25), ("", "", 29.25)])
def test_the_limit_is_that_of_the_pair_of_scanners(then: str, now: str, limit: float) -> None:
    earlier = on(then, volumes(3.0, 3.0, "2025-01-05"))
    change, before = comparison.in_context(on(now, volumes(3.6, 3.0)), earlier)[0]["component"]

    assert float(change["referenceRange"][0]["high"]["value"]) == limit
    assert ("same scanner" in change["code"]["text"]) == (limit == 14.55)
    assert change["extension"] == before["extension"] == [{"url": comparison.EXT_SINCE, "valueDate": "2025-01-05"}]
    assert (float(before["valueQuantity"]["value"]), before["code"]["text"]) == (3.0, "Value of 2025-01-05")


def test_what_stands_in_a_component_already_stays() -> None:
    made = [o | {"component": [{"code": {"text": "kept"}}]} for o in volumes(3.0, 3.3)]
    assert [o["component"][0]["code"]["text"] for o in comparison.in_context(made, [])] == ["kept"] * 3


@pytest.mark.parametrize(
    "earlier",
    [
        volumes(3.0, 3.0, "2025-01-05", version="2"),
        volumes(3.0, 3.0, "2025-01-05", sha256="cd"),
        volumes(3.0, 3.0, "2026-03-01"),
        volumes(3.0, 3.0, "2026-05-01"),
        volumes(3.0, 3.0, ""),
        [o | {"status": "cancelled"} for o in volumes(3.0, 3.0, "2025-01-05")],
        [{"resourceType": "Observation", "status": "final", "valueQuantity": {"value": 3}}],
        [{"resourceType": "Observation", "status": "final"}],
    ],
    ids=["version", "weights", "same-day", "later", "undated", "taken-back", "of-something-else", "without-value"],
)
def test_nothing_else_is_compared(earlier: list[Json]) -> None:
    assert [s for s in said(comparison.in_context(volumes(2.0, 2.0), earlier)) if s[1] == "change"] == []


def test_of_several_earlier_measurements_the_last_one_counts() -> None:
    earlier = volumes(9.0, 9.0, "2019-01-01") + volumes(4.0, 4.0, "2025-06-01") + volumes(8.0, 8.0, "2020-01-01")
    assert {s[3] for s in said(comparison.in_context(volumes(2.0, 2.0), earlier)) if s[1] == "change"} == {-50.0}
