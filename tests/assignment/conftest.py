"""Small rosters and cases as FHIR resources, and the room itself, for the tests of this room."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from arcuate.house import HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import call_operation
from arcuate.kernel.settings import SiteSettings

Json = dict[str, Any]

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)  # 10:00 in Zurich


def stamp(minutes: float) -> str:
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def person(
    name: str, skill: dict[str, int], shift: tuple[float, float] | None = (-60, 300), *, trainee: bool = False,
    sites: tuple[str, ...] = (),
) -> list[Json]:  # fmt: skip
    role: Json = {
        "resourceType": "PractitionerRole", "id": f"role-{name}", "active": True, "practitioner": {"reference": f"Practitioner/{name}"},
        "specialty": [
            {
                "extension": [{"url": "urn:arcuate:ext:skill-level", "valueInteger": level}],
                "coding": [{"system": "urn:arcuate:cs:skill", "code": field}],
            }
            for field, level in skill.items()
        ],
    }  # fmt: skip
    if trainee:
        role["code"] = [{"coding": [{"system": "urn:arcuate:cs:task", "code": "trainee"}]}]
    if sites:
        role["location"] = [{"reference": f"Location/{site}"} for site in sites]
    found: list[Json] = [
        {"resourceType": "Practitioner", "id": name, "active": True, "name": [{"text": f"Reader-{name}"}]}, role,
        {"resourceType": "Schedule", "id": f"schedule-{name}", "active": True, "actor": [{"reference": f"PractitionerRole/role-{name}"}]},
    ]  # fmt: skip
    if shift:
        found.append({
            "resourceType": "Slot", "id": f"slot-{name}", "schedule": {"reference": f"Schedule/schedule-{name}"}, "status": "free",
            "start": stamp(shift[0]), "end": stamp(shift[1]),
        })  # fmt: skip
    return found


def case(
    name: str, *, exam: str = "MRI lumbar spine without contrast", priority: str = "routine", due: float = 240, site: str | None = None,
    **task: Any,
) -> list[Json]:  # fmt: skip
    order: Json = {
        "resourceType": "ServiceRequest", "id": f"order-{name}", "status": "active", "intent": "order", "code": {"text": exam},
        "subject": {"reference": f"Patient/patient-{name}"},
    }  # fmt: skip
    if site:
        order["locationReference"] = [{"reference": f"Location/{site}"}]
    return [order, {
        "resourceType": "Task", "id": name, "meta": {"versionId": "1"}, "status": "ready", "intent": "order", "priority": priority,
        "code": {"coding": [{"system": "urn:arcuate:cs:task", "code": "read"}]}, "focus": {"reference": f"ServiceRequest/order-{name}"},
        "for": {"reference": f"Patient/patient-{name}"}, "restriction": {"period": {"end": stamp(due)}}, **task,
    }]  # fmt: skip


def owned(name: str, *, by_plan: bool) -> Json:
    owner = {"reference": f"Practitioner/{name}"}
    given = {"type": {"coding": [{"system": "urn:arcuate:cs:receipt", "code": "given-to"}]}, "valueReference": owner}
    return {"owner": owner, **({"output": [given]} if by_plan else {})}


def sentences(task: Json) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for output in task.get("output", []):
        if "valueString" in output:
            found.setdefault(output["type"]["coding"][0]["code"], []).append(output["valueString"])
    return found


@pytest.fixture
def department() -> SimpleNamespace:
    """Builders of resources; times in minutes from `now`."""
    return SimpleNamespace(now=NOW, stamp=stamp, person=person, case=case, owned=owned, sentences=sentences)


class Desk:
    """The running room as journey meets it: through its web door."""

    def __init__(self, http: httpx.AsyncClient, clock: ManualClock) -> None:
        self.http, self.clock = http, clock

    async def assign(self, *resources: list[Json]) -> dict[str, Json]:
        """Return the changed Tasks by id."""
        sent = bundles.collection([one for group in resources for one in group])
        answer = await call_operation(self.http, "/assignment/Task/$assign", sent)
        return {task["id"]: task for task in bundles.of_type(answer, "Task")}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """The room in process, with the access room that checks its callers."""
    clock = ManualClock(NOW)
    settings, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Zurich")
    async with open_house(settings, site, rooms=["access", "assignment"], clock=clock) as house:
        yield Desk(house.contexts["assignment"].http, clock)
