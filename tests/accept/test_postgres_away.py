"""The database server ends in the middle of the traffic and comes back, as in a failover."""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.accept.sizes import size
from tests.conftest import Cluster
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings
from arcuate.house import HouseSettings
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import bind, running, script_token

_AWAY_S = 3.0
_SYSTEM = "urn:example:machine"


async def _post(http: httpx.AsyncClient, number: int) -> list[tuple[int, float]]:
    """Create a device until it is there; returns each answer with the seconds that it took."""
    body = {"resourceType": "Device", "identifier": [{"system": _SYSTEM, "value": f"D{number}"}]}
    condition = {"If-None-Exist": f"identifier={_SYSTEM}|D{number}"}
    answers = []
    while not answers or answers[-1][0] not in (200, 201):
        began = time.monotonic()
        answer = await http.post("/fhir/Device", json=body, headers=condition)
        answers.append((answer.status_code, time.monotonic() - began))
        await asyncio.sleep(0.1)
    return answers


async def _send(port: int, number: int) -> set[str]:
    """Send an order until it is acknowledged positively; returns the codes that came."""
    message = order(f"ACC{number}", f"{number}", placer=f"P{number}", control_id=f"K{number}").encode()
    codes: set[str] = set()
    while "AA" not in codes:
        with suppress(Unavailable):
            async with MllpClient("127.0.0.1", port, 20) as client:
                answer = ack.read(await client.send(message))
                codes.add(answer.code if answer else "")
        await asyncio.sleep(0.05)
    return codes


@pytest.mark.long
async def test_f043_a_server_that_restarts_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    cluster = Cluster()
    try:
        await asyncio.to_thread(cluster.start)
        url = cluster.url.format(name="postgres")
        with bind("127.0.0.1", 0) as free:
            port = free.getsockname()[1]
        settings = HouseSettings(data_dir=tmp_path / "data", port=port, database_url=url)
        site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
        rooms, own = ("access", "record", "gateway"), {"gateway": GatewaySettings(port=0)}
        async with running(settings, site, rooms=rooms, room_settings=own) as (house, _):
            hl7 = house.rooms["gateway"].app.state.parts.door.port
            token = script_token(settings, "integration", timedelta(hours=1))
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=settings.address, headers=headers, timeout=30) as http:
                await _under_restarts(cluster, http, hl7, size(2, 10))
                await _all_there_once(http, size(2, 10) * 10)
                with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as connection:
                    left = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
                    assert left == (0,)
    finally:
        await asyncio.to_thread(cluster.remove)


async def _under_restarts(cluster: Cluster, http: httpx.AsyncClient, hl7: int, times: int) -> None:
    number = 0
    for _ in range(times):
        sending = [asyncio.create_task(_send(hl7, number + n)) for n in range(10)]
        posting = [asyncio.create_task(_post(http, number + n)) for n in range(10)]
        await asyncio.sleep(0.05)  # in the middle of them
        await asyncio.to_thread(cluster.stop)
        late = asyncio.create_task(_post(http, number + 1000))
        await asyncio.sleep(_AWAY_S)
        await asyncio.to_thread(cluster.start)
        back = time.monotonic()
        codes = set[str]().union(*await asyncio.gather(*sending))
        answers = [one for answer in await asyncio.gather(*posting, late) for one in answer]
        assert time.monotonic() - back < 30
        assert codes <= {"AA", "AR"}
        assert {status for status, _ in answers} <= {200, 201, 503}
        assert 503 in {status for status, _ in answers}
        assert max(took for status, took in answers if status == 503) < 5
        number += 10


async def _all_there_once(http: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(120):
        while (await http.get("/fhir/ServiceRequest?_summary=count")).json()["total"] < count:
            await asyncio.sleep(0.5)
    for number in range(count):
        for question in (f"Device?identifier={_SYSTEM}|D{number}", f"ServiceRequest?identifier=ACC{number}"):
            found = (await http.get(f"/fhir/{question}")).json()
            assert found["total"] == 1, question
    journal = (await http.get("/gateway/journal?limit=200")).json()["items"]
    assert sorted(row["control_id"] for row in journal) == sorted(f"K{number}" for number in range(count))
    assert {message["state"] for row in journal for message in row["messages"]} == {"applied"}
