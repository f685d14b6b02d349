"""Outcomes over the real record's feed, on both kinds of database."""

import json
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from arcuate.house import HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient, call_operation
from arcuate.kernel.settings import SiteSettings
from arcuate.scheduling import store
from arcuate.scheduling.settings import SchedulingSettings

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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_visit_in_the_record_settles_the_forecast_that_was_made_for_it(
    request: pytest.FixtureRequest, people: Any, tmp_path: Path, kind: str
) -> None:
    url = str(request.getfixturevalue("postgres_url")) if kind == "postgresql" else ""
    clock = ManualClock(people.now)
    settings = HouseSettings(data_dir=tmp_path / "data", models_dir=tmp_path / "none", database_url=url)
    async with open_house(
        settings, SiteSettings(time_zone="Europe/Zurich"), rooms=["access", "record", "scheduling"], clock=clock,
        room_settings={"scheduling": SchedulingSettings(feed=False)},
    ) as house:  # fmt: skip
        context = house.contexts["scheduling"]
        fhir = FhirClient(context.http)
        place = {"resourceType": "Location", "id": "mr1", "name": "MR1"}
        start = people.now + timedelta(hours=30)
        ids = await load(fhir, [people.patient(), place, people.order(), people.booking(start)])
        booked, patient = await fhir.read("Appointment", ids["asked"]), await fhir.read("Patient", ids["p"])
        bundle = bundles.collection([booked, patient])
        await call_operation(context.http, "/scheduling/Appointment/$predict-attendance", bundle)
        clock.advance(31 * 3600)
        await fhir.update({**booked, "status": "noshow"}, booked["meta"]["versionId"])
        feed = house.rooms["scheduling"].app.state.desk.feed
        await feed.catch_up()
        await feed.catch_up()

        rows = await context.database.read(lambda session: store.forecasts(session, ids["asked"]))
        assert [row.outcome for row in rows] == ["no-show"]
        assert (await context.database.read(store.own_counts))["no-show"] == (1, 1)
