"""Nearest cases: by proportions alone, the same whatever the head's size, and far is said where a brain lies outside the training."""

import pytest

from arcuate.imaging import nearest
from arcuate.imaging.nearest import Case


def changed(volumes: dict[str, float], **factors: float) -> dict[str, float]:
    return {code: ml * factors.get(code.replace("-", "_"), 1.0) for code, ml in volumes.items()}


def test_a_map_of_the_training_is_nearest_to_itself_also_as_a_larger_head() -> None:
    one = nearest.training()[4]
    larger = {code: 1.2 * ml for code, ml in one.volumes.items()}
    found = nearest.find(larger, [])
    assert found is not None and found.site == () and not found.far
    assert (found.training[0].key, found.training[0].distance) == (one.key, pytest.approx(0, abs=1e-9))
    assert [near.distance for near in found.training] == sorted(near.distance for near in found.training)


def test_a_brain_unlike_all_is_called_far_and_what_is_unlike_is_named() -> None:
    mine = changed(dict(nearest.training()[0].volumes), hippocampus=0.2, thalamus=2.5)
    found = nearest.find(mine, [Case("study", changed(mine, caudate=1.1))])
    assert found is not None and found.far
    told = nearest.told(found)
    assert {d["structure"] for d in told["training"][0]["differs"]} <= {"hippocampus", "thalamus"}
    (site,) = told["site"]
    assert site["key"] == "study" and site["differs"][0] == {
        "structure": "caudate",
        "name": "Caudate nucleus",
        "percent": -9,
    }
    assert "where, not why" in told["caveat"]


def test_a_brain_with_a_structure_missing_is_not_compared_and_such_studies_are_left_out() -> None:
    whole = dict(nearest.training()[0].volumes)
    partial = {code: ml for code, ml in whole.items() if code != "thalamus"}
    assert nearest.find(partial, []) is None
    found = nearest.find(whole, [Case("partial", partial), Case("whole", whole)])
    assert found is not None and [near.key for near in found.site] == ["whole"]


def test_volumes_of_a_kept_measurement_are_those_of_both_sides_together() -> None:
    told = [
        {"structure": "thalamus", "side": side, "ml": ml} for side, ml in (("left", 5), ("right", 6), ("bilateral", 11))
    ]
    summary = {"volumes": [*told, {"structure": "brainstem", "side": None, "ml": 20}]}
    assert nearest.volumes_of(summary) == {"thalamus": 11.0, "brainstem": 20.0}
