"""A whole house in this process on free ports, with the outside world around it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.house import HouseSettings, HouseTransport, open_house
from arcuate.imaging.settings import ImagingSettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import ManualClock, SystemClock
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings

sys.path.insert(0, str(Path(__file__).parent))

from journey_world import Sink, World, free_port
from processes import rooms_apart

START = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
_TICK_S = 0.05


async def tick(clock: ManualClock) -> None:
    """Let the clock run with real time; a test may jump it forward besides."""
    while True:
        await asyncio.sleep(_TICK_S)
        clock.advance(_TICK_S)


_ROLES = frozenset({Role.INTEGRATION, Role.LEAD, Role.RADIOLOGIST, Role.ADMIN})
_TESTER = Principal("tester", _ROLES, "tester", "Tester")


@pytest.fixture(params=["one program on SQLite", "a program a room on PostgreSQL"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The same world around both ways to run the house."""
    ports = [free_port() for _ in range(4)]
    async with Sink(ports[2]).open() as dictation, Sink(ports[3]).open() as reports:
        if request.param.startswith("one"):
            async with in_one_program(tmp_path, ports, dictation, reports) as world:
                yield world
        else:
            postgres_url, caddy = request.getfixturevalue("postgres_url"), request.getfixturevalue("caddy")
            async with apart(tmp_path, ports, dictation, reports, postgres_url, caddy) as world:
                yield world


@contextlib.asynccontextmanager
async def in_one_program(folder: Path, ports: list[int], dictation: Sink, reports: Sink) -> AsyncIterator[World]:
    clock = ManualClock(START)
    receivers = tuple(Receiver.model_validate(receiver) for receiver in _receivers(ports))
    room_settings = {
        "gateway": GatewaySettings(port=ports[0], receivers=receivers),
        "imaging": ImagingSettings(port=ports[1], quiet_s=2),
    }
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    settings = HouseSettings(data_dir=folder / "data")
    ticking = asyncio.create_task(tick(clock))
    try:
        async with open_house(settings, site, clock=clock, room_settings=room_settings) as house:
            key = house.rooms["access"].app.state.access.signing_key
            token = tokens.issue(key, "urn:arcuate:access", _TESTER, clock.now(), 7 * 86400)
            http = httpx.AsyncClient(
                transport=HouseTransport(house),
                base_url="http://house",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
            yield World(FhirClient(http), http, dictation, reports, ports[0], ports[1], lambda: clock.advance(601))
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


@contextlib.asynccontextmanager
async def apart(
    folder: Path, ports: list[int], dictation: Sink, reports: Sink, database_url: str, caddy: str
) -> AsyncIterator[World]:
    async with rooms_apart(folder, database_url, caddy, ports[0], ports[1], _receivers(ports)) as address:
        key = tokens.load_or_make_key(folder / "keys" / "access-signing.json", "access")
        token = tokens.issue(key, "urn:arcuate:access", _TESTER, SystemClock().now(), 86400)
        async with httpx.AsyncClient(
            base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=30
        ) as http:
            # Here the setting of the wait is short instead of the clock being moved.
            yield World(FhirClient(http), http, dictation, reports, ports[0], ports[1], lambda: None)


def _receivers(ports: list[int]) -> list[dict[str, object]]:
    return [
        {"name": "dictation", "kind": "dictation", "host": "127.0.0.1", "port": ports[2]},
        {"name": "ehr", "kind": "report", "host": "127.0.0.1", "port": ports[3]},
    ]
