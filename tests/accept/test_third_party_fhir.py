"""The FHIR client of another project (PyPI `fhirpy`, Beda Software) works with the record over HTTP, and the record tells its server."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound
from tests.contract.conftest import free_port

from arcuate.house import HouseSettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import running
from arcuate.record.settings import RecordSettings
from arcuate.record.subscriptions.wishes import EXTENSIONS, TOPIC

MRN = "urn:arcuate:id:patient:TEST"


@dataclass
class TheirServer:
    """A server of the other party (aiohttp) that is told what happens here."""

    taken: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.taken.append(json.loads(await request.read()))
        return web.Response()


@pytest.fixture
async def theirs() -> AsyncIterator[TheirServer]:
    opened = TheirServer()
    app = web.Application()
    app.router.add_post("/hook", opened.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    opened.port = runner.addresses[0][1]
    yield opened
    await runner.cleanup()


@pytest.fixture
async def client(tmp_path: Path, theirs: TheirServer) -> AsyncIterator[AsyncFHIRClient]:
    settings = HouseSettings(data_dir=tmp_path / "data", port=free_port())
    record = RecordSettings(subscription_hosts=f"127.0.0.1:{theirs.port}")
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    async with running(settings, site, rooms=("access", "record"), room_settings={"record": record}) as (house, _):
        key = house.rooms["access"].app.state.access.signing_key
        who = Principal("ris", frozenset({Role.INTEGRATION}), "ris")
        token = tokens.issue(key, "urn:arcuate:access", who, SystemClock().now(), 3600)
        yield AsyncFHIRClient(f"{settings.address}/fhir", authorization=f"Bearer {token}")


def patient(client: AsyncFHIRClient, number: str, **more: Any) -> Any:
    name = [{"family": "Müller", "given": ["Zoë"]}]
    return client.resource("Patient", identifier=[{"system": MRN, "value": number}], name=name, **more)


async def test_their_client_creates_reads_searches_changes_and_deletes(client: AsyncFHIRClient) -> None:
    made = patient(client, "1", birthDate="1980-01-01")
    await made.create()
    read = await client.get("Patient", made["id"])
    assert read["name"] == [{"family": "Müller", "given": ["Zoë"]}] and read["meta"]["versionId"] == "1"

    made["gender"] = "female"
    await made.save()
    found = await client.resources("Patient").search(identifier=f"{MRN}|1").get()
    assert (found["gender"], found["meta"]["versionId"]) == ("female", "2")

    order = client.resource(
        "ServiceRequest", status="active", intent="order", subject=made.to_reference(), code={"text": "MR Brain"}
    )
    await order.create()
    joined = (
        await client.resources("ServiceRequest")
        .search(patient=made["id"])
        .include("ServiceRequest", "subject")
        .fetch_raw()
    )
    assert [one["resource"]["resourceType"] for one in joined["entry"]] == ["ServiceRequest", "Patient"]

    await order.delete()
    await made.delete()
    with pytest.raises(ResourceNotFound):
        await client.get("Patient", made["id"])


async def test_their_client_walks_all_pages_and_meets_no_resource_twice(client: AsyncFHIRClient) -> None:
    for number in range(25):
        await patient(client, str(number)).create()
    found = [one["id"] async for one in client.resources("Patient").sort("_lastUpdated").limit(4)]
    assert len(found) == len(set(found)) == 25
    assert await client.resources("Patient").count() == 25


async def test_their_conditional_update_and_transaction_hold(client: AsyncFHIRClient) -> None:
    wanted = client.resources("Patient").search(identifier=f"{MRN}|7")
    first, made = await wanted.update(patient(client, "7"))
    again, made_again = await wanted.update(patient(client, "7", gender="female"))
    assert (made, made_again) == (True, False)
    assert (first["id"], again["meta"]["versionId"]) == (again["id"], "2")

    bundle = client.resource("Bundle", type="transaction", entry=[
        {"fullUrl": "urn:uuid:0b9ff9c0-3e51-4d33-b8a2-0d4f5f2b1a11", "resource": patient(client, "8").serialize(),
         "request": {"method": "POST", "url": "Patient"}},
        {"resource": {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "code": {"text": "MR Brain"},
                      "subject": {"reference": "urn:uuid:0b9ff9c0-3e51-4d33-b8a2-0d4f5f2b1a11"}},
         "request": {"method": "POST", "url": "ServiceRequest"}},
    ])  # fmt: skip
    answer = await client.execute("", data=bundle.serialize())
    assert [one["response"]["status"][:3] for one in answer["entry"]] == ["201", "201"]
    owner = await client.resources("Patient").search(identifier=f"{MRN}|8").get()
    order = await client.resources("ServiceRequest").get()
    assert order["subject"]["reference"] == f"Patient/{owner['id']}"


async def test_what_is_wrong_reaches_their_client_as_an_outcome_that_names_the_element(client: AsyncFHIRClient) -> None:
    with pytest.raises(OperationOutcome) as caught:
        await client.resource("Patient", birthDate="yesterday").create()
    assert "Patient.birthDate" in json.dumps(caught.value.resource)

    await asyncio.gather(patient(client, "9").create(), patient(client, "9").create())
    with pytest.raises(MultipleResourcesFound):
        await client.resources("Patient").search(identifier=f"{MRN}|9").get()


async def test_their_subscription_is_told_to_their_server_and_they_fetch_what_it_names(
    client: AsyncFHIRClient, theirs: TheirServer
) -> None:
    wish = client.resource(
        "Subscription", status="requested", reason="orders", criteria=f"{TOPIC}order",
        channel={"type": "rest-hook", "endpoint": f"http://127.0.0.1:{theirs.port}/hook", "payload": "application/fhir+json",
                 "_payload": {"extension": [{"url": f"{EXTENSIONS}/backport-payload-content", "valueCode": "id-only"}]}},
    )  # fmt: skip
    await wish.create()
    await _until(lambda: bool(theirs.taken))  # the handshake
    await _until_async(lambda: _active(client, wish["id"]))

    owner = patient(client, "10")
    await owner.create()
    order = client.resource(
        "ServiceRequest", status="active", intent="order", subject=owner.to_reference(), code={"text": "MR Brain"}
    )
    await order.create()
    await _until(lambda: len(theirs.taken) >= 2)

    told = client.resource("Bundle", **{key: value for key, value in theirs.taken[-1].items() if key != "resourceType"})
    assert f"ServiceRequest/{order['id']}" in json.dumps(told.serialize())


async def _active(client: AsyncFHIRClient, number: str) -> bool:
    return bool((await client.get("Subscription", number))["status"] == "active")


async def _until(true: Any) -> None:
    async def check() -> bool:
        return bool(true())

    await _until_async(check)


async def _until_async(true: Any) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.05)
