"""Lists as readers see them, over the real record."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient, call_operation
from arcuate.kernel.settings import SiteSettings

Json = dict[str, Any]


async def load(fhir: FhirClient, resources: list[Json]) -> dict[str, str]:
    """Write resources in one transaction; returns the record's id by the id that the test gave."""
    urls = {f"{r['resourceType']}/{r['id']}": f"urn:uuid:{uuid.uuid4()}" for r in resources}
    entries = []
    for resource in resources:
        text = json.dumps({k: v for k, v in resource.items() if k not in ("id", "meta")})
        for name, url in urls.items():
            text = text.replace(f'"{name}"', f'"{url}"')
        entries.append(
            bundles.Entry(
                "POST", resource["resourceType"], json.loads(text), urls[f"{resource['resourceType']}/{resource['id']}"]
            )
        )
    answer = await fhir.transaction(bundles.transaction(entries))
    places = [str(entry["response"]["location"]).split("/_history")[0] for entry in answer["entry"]]
    return {r["id"]: place.split("/")[-1] for r, place in zip(resources, places, strict=True)}


@pytest.fixture
async def house(tmp_path: Path, department: Any) -> AsyncIterator[House]:
    settings, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Zurich")
    async with open_house(
        settings, site, rooms=["access", "record", "assignment"], clock=ManualClock(department.now)
    ) as opened:
        yield opened


async def test_a_plan_written_to_the_record_stands_on_the_readers_list_and_what_nobody_has_on_the_shared_one(
    house: House, department: Any
) -> None:
    http = house.contexts["assignment"].http
    fhir = FhirClient(http)
    cases = [
        *department.case("late", due=-10),
        *department.case("soon", due=30, priority="urgent"),
        *department.case("stat", due=50, priority="stat"),
        *department.case("nobody", exam="MRI orbits"),
    ]
    patients = [{"resourceType": "Patient", "id": f"patient-{c['id']}"} for c in cases if c["resourceType"] == "Task"]
    ids = await load(fhir, [*patients, *department.person("a", {"spine": 2}), *cases])
    ours = {logical_id: name for name, logical_id in ids.items()}
    roster = [r for kind in ("Practitioner", "PractitionerRole", "Schedule", "Slot") for r in await fhir.search(kind)]
    tasks = await fhir.search("Task", {"_include": "Task:focus"})
    answer = await call_operation(http, "/assignment/Task/$assign", bundles.collection([*tasks, *roster]))
    for task in bundles.of_type(answer, "Task"):
        await fhir.update(task, task["meta"]["versionId"])

    mine = (await http.get(f"/assignment/worklists/{ids['a']}")).json()
    shared = (await http.get("/assignment/worklists/shared")).json()

    assert [ours[c["task_id"]] for c in mine["cases"]] == ["stat", "late", "soon"]
    assert mine["minutes"] == 33
    assert mine["cases"][0]["why"] == "the only one here who may read spine"
    assert {line["label"] for line in mine["cases"][0]["receipt"]} >= {"must", "due", "load", "next-best", "plan"}
    assert [(ours[c["task_id"]], c["why"]) for c in shared["cases"]] == [("nobody", "shared list")]


async def test_a_reader_without_cases_has_an_empty_list(house: House) -> None:
    answer = (await house.contexts["assignment"].http.get("/assignment/worklists/nobody")).json()

    assert (answer["cases"], answer["total"]) == ([], 0)
