"""A machine that a site has switched on may bring a reading forward; it never puts one back, and does it once."""

from datetime import UTC, datetime
from typing import Any

import pytest

from arcuate.journey.raising import raised, sentence

NOW = datetime(2026, 3, 17, 9, tzinfo=UTC)
MINUTES = {"stat": 60.0, "urgent": 240.0, "asap": 240.0, "routine": 1440.0}
WORDS = "Haemorrhage of 34.1 mL found by a machine (head-ct 1.0), not reviewed by anybody"


def observation(status: str = "preliminary", code: str = "read-sooner") -> dict[str, Any]:
    return {
        "resourceType": "Observation", "id": "o1", "status": status,
        "interpretation": [{"coding": [{"system": "urn:arcuate:cs:urgency", "code": code}], "text": WORDS}],
    }  # fmt: skip


def task(priority: str | None = "routine", end: str | None = "2026-03-18T09:00:00+00:00") -> dict[str, Any]:
    made: dict[str, Any] = {"resourceType": "Task", "id": "t1", "status": "ready"}
    if priority:
        made["priority"] = priority
    if end:
        made["restriction"] = {"period": {"end": end}}
    return made


@pytest.mark.parametrize("priority", ["routine", None])
def test_a_routine_reading_becomes_urgent_and_says_that_a_machine_said_so(priority: str | None) -> None:
    made = raised(task(priority), [observation()], NOW, MINUTES)
    assert made is not None and made["priority"] == "urgent"
    assert WORDS in sentence(made) and "The order said routine" in sentence(made)
    assert made["reasonReference"] == {"reference": "Observation/o1"}
    assert made["restriction"]["period"]["end"] == "2026-03-17T13:00:00+00:00"


@pytest.mark.parametrize("priority", ["urgent", "asap", "stat"])
def test_a_priority_is_never_lowered_nor_rewritten(priority: str) -> None:
    assert raised(task(priority), [observation()], NOW, MINUTES) is None


def test_an_earlier_due_time_stays() -> None:
    made = raised(task(end="2026-03-17T09:30:00+00:00"), [observation()], NOW, MINUTES)
    assert made is not None and made["restriction"]["period"]["end"] == "2026-03-17T09:30:00+00:00"


def test_it_is_done_once_and_a_person_may_put_it_back() -> None:
    made = raised(task(), [observation()], NOW, MINUTES)
    assert made is not None
    assert raised({**made, "priority": "routine"}, [observation()], NOW, MINUTES) is None


@pytest.mark.parametrize("status", ["cancelled", "entered-in-error", "final"])
def test_what_was_taken_back_or_judged_asks_for_nothing(status: str) -> None:
    assert raised(task(), [observation(status)], NOW, MINUTES) is None


def test_other_words_of_a_measurement_ask_for_nothing() -> None:
    assert raised(task(), [observation(code="within-measurement-error"), {"id": "o2"}], NOW, MINUTES) is None
