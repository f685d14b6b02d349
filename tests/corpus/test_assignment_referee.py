"""Every Task that assignment changes passes the independent FHIR referee."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from arcuate.assignment.cases import load_fields
from arcuate.assignment.service import Planner, assign
from arcuate.assignment.settings import AssignmentSettings
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir import strict

Json = dict[str, Any]
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


def _task(name: str, priority: str, due: datetime) -> Json:
    return {
        "resourceType": "Task", "id": name, "status": "ready", "intent": "order", "priority": priority,
        "code": {"coding": [{"system": "urn:arcuate:cs:task", "code": "read"}]}, "focus": {"reference": "ServiceRequest/o1"},
        "for": {"reference": "Patient/p1"}, "restriction": {"period": {"end": due.isoformat()}},
    }  # fmt: skip


def test_given_and_waiting_tasks_pass_the_referee(shared: Path, tmp_path: Path) -> None:
    settings = AssignmentSettings()
    planner = Planner(
        load_fields(),
        settings.weights(),
        settings.limits(),
        timedelta(hours=16),
        2.0,
        0.001,
        ZoneInfo("Europe/Zurich"),
        time.monotonic,
    )
    roster: list[Json] = [
        {"resourceType": "Practitioner", "id": "r1", "name": [{"text": "Reader-01"}]},
        {
            "resourceType": "PractitionerRole", "id": "pr1", "practitioner": {"reference": "Practitioner/r1"},
            "code": [{"coding": [{"system": "urn:arcuate:cs:task", "code": "trainee"}]}],
            "specialty": [
                {
                    "extension": [{"url": "urn:arcuate:ext:skill-level", "valueInteger": 2}],
                    "coding": [{"system": "urn:arcuate:cs:skill", "code": "spine"}],
                }
            ],
        },
        {"resourceType": "Schedule", "id": "s1", "actor": [{"reference": "PractitionerRole/pr1"}]},
        {
            "resourceType": "Slot", "id": "t1", "schedule": {"reference": "Schedule/s1"}, "status": "free",
            "start": NOW.isoformat(), "end": (NOW + timedelta(hours=6)).isoformat(),
        },
        {
            "resourceType": "ServiceRequest", "id": "o1", "status": "active", "intent": "order", "code": {"text": "MRI lumbar spine"},
            "subject": {"reference": "Patient/p1"},
        },
    ]  # fmt: skip
    tasks = [_task("given", "routine", NOW + timedelta(hours=4)), _task("waits", "stat", NOW - timedelta(minutes=5))]
    made = assign([*roster, *tasks], planner, NOW, {})
    assert {t["id"]: "owner" in t for t in made.tasks} == {"given": True, "waits": False}

    file = tmp_path / "tasks.json"
    file.write_bytes(strict.dumps(bundles.collection([*made.tasks, *roster])))
    judged = subprocess.run(
        [shared / "tools" / "fhir-referee" / "fhir-referee", "--local-system", "urn:arcuate:", file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if judged.returncode == 3:
        pytest.skip("the referee is not set up (setup.sh beside it)")

    assert judged.returncode == 0, judged.stdout
