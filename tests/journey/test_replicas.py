"""Two replicas of the journey room on one PostgreSQL share the cases; one that was stuck past its lease writes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_world import house_client, tick

from arcuate.house import House, HouseSettings, HouseTransport, open_house
from arcuate.journey.app import open_room
from arcuate.journey.turns import Turns
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.codes import accession_identifier, identifier, reference
from arcuate.kernel.db import Database
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings

SITE = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
START = datetime(2026, 3, 17, 9, tzinfo=UTC)
CHECK = "/protocoling/ServiceRequest/$check"
LEASE_S = 121


@dataclass
class Replica:
    """One replica's way to the other rooms: its questions are counted, and can be held back."""

    asked: int = 0
    may_ask: asyncio.Event = field(default_factory=asyncio.Event)
    has_asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_request(self, request: httpx.Request) -> None:
        if request.url.path == CHECK:
            self.asked += 1
            self.has_asked.set()
            await self.may_ask.wait()


@dataclass
class Two:
    house: House
    clock: ManualClock
    first: Replica
    second: Replica
    open_second: Callable[[], Any]


@pytest.fixture
async def two(tmp_path: Path, postgres_url: str) -> AsyncIterator[Two]:
    """A house with one replica open, and a second one to be opened."""
    clock = ManualClock(START)
    settings = HouseSettings(data_dir=tmp_path / "data", database_url=postgres_url)
    first, second = Replica(), Replica()
    async with open_house(settings, SITE, rooms=["access", "record", "protocoling", "journey"], clock=clock) as house:
        context = house.contexts["journey"]
        context.http.event_hooks = {"request": [first.on_request]}
        http = httpx.AsyncClient(
            transport=HouseTransport(house), base_url="http://house", timeout=60, auth=context.http.auth,
            event_hooks={"request": [second.on_request]},
        )  # fmt: skip
        database = Database(postgres_url, schema="journey")
        room = await open_room(replace(context, http=http, database=database))
        ticking = asyncio.create_task(tick(clock))
        try:
            yield Two(house, clock, first, second, room.run)
        finally:
            ticking.cancel()
            first.may_ask.set()
            database.close()


async def order(fhir: FhirClient, accession: str) -> None:
    patient = await fhir.create(
        {"resourceType": "Patient", "identifier": [identifier("urn:arcuate:id:patient:SYNTH", accession, "MR")]}
    )
    await fhir.create({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "identifier": [accession_identifier(accession)],
        "subject": reference("Patient", patient["id"]), "code": {"text": "MRI brain without contrast"},
    })  # fmt: skip


async def all_at(http: httpx.AsyncClient, stage: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(90):
        while True:
            cases = (await http.get("/journey/cases")).json()["cases"]
            if [case["stage"] for case in cases] == [stage] * count:
                return list(cases)
            await asyncio.sleep(0.05)


def checks(case: dict[str, Any]) -> int:
    return sum(step["stage"] == "check" for step in case["steps"])


async def test_f044_two_replicas_share_the_cases_and_each_is_checked_once(two: Two) -> None:
    two.second.may_ask.set()
    http = house_client(two.house)
    async with two.open_second():
        for number in range(12):
            await order(FhirClient(http), f"R{number:03}")
        async with asyncio.timeout(60):  # one replica alone would wait for ever behind its six questions
            await two.first.has_asked.wait()
            await two.second.has_asked.wait()
        two.first.may_ask.set()
        cases = await all_at(http, "checked", 12)

    assert [checks(case) for case in cases] == [1] * 12
    assert two.first.asked + two.second.asked == 12
    flags = await FhirClient(http).search("DetectedIssue")
    assert len({flag["identifier"][0]["value"] for flag in flags}) == len(flags)


async def test_f045_a_replica_that_was_stuck_past_its_lease_writes_nothing_and_the_successors_result_stands(
    two: Two,
) -> None:
    http = house_client(two.house)
    await order(FhirClient(http), "R100")
    async with asyncio.timeout(60):
        await two.first.has_asked.wait()

    two.second.may_ask.set()
    two.clock.advance(LEASE_S)
    async with two.open_second():
        [case] = await all_at(http, "checked", 1)
        two.first.may_ask.set()  # the stuck one wakes up and wants to write
        await asyncio.sleep(1)
        [after] = await all_at(http, "checked", 1)

    assert two.second.asked  # on a slow machine its own lease may run out too: it then asks again
    assert after["steps"][: len(case["steps"])] == case["steps"]
    assert checks(after) == 1


async def test_f044_one_replica_at_a_time_has_a_turn_and_another_takes_it_when_it_has_run_out(
    two: Two, postgres_url: str
) -> None:
    database = Database(postgres_url, schema="journey")
    one, other = Turns(database, two.clock), Turns(database, two.clock)
    assert await one.take("roster", 60)
    assert not await other.take("roster", 60)
    assert await one.take("roster", 60)
    two.clock.advance(61)
    assert await other.take("roster", 60)
    assert not await database.write(lambda s: one.mine(s, "roster"))
    await other.end("roster")
    assert await one.take("roster", 60)
    database.close()
