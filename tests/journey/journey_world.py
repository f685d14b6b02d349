"""The world around a house, run in one program or a program a room."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from outside import Sink
from processes import rooms_apart
from sqlmodel import Session

from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.house import ROOMS, House, HouseSettings, HouseTransport, open_house
from arcuate.imaging.settings import ImagingSettings
from arcuate.journey.app import feed_of
from arcuate.journey.service import take_changes
from arcuate.journey.tables import WORK
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import ManualClock, SystemClock
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings


@dataclass
class World:
    """The house and everybody around it."""

    fhir: FhirClient
    http: httpx.AsyncClient
    dictation: Sink
    reports: Sink
    mllp_port: int
    dicom_port: int
    pass_images_wait: Callable[[], None]
    advance: Callable[[float], None]

    async def send(self, message: str) -> str:
        """Send one HL7 message as a RIS would; return its acknowledgement code."""
        async with MllpClient("127.0.0.1", self.mllp_port, 20) as client:
            answer = await client.send(message.encode())
        return answer.decode().split("MSA|")[1][:2]

    async def send_images(self, storescu: str, folder: Path) -> None:
        """Send what lies in a folder as a scanner would."""
        command = [storescu, "-aec", "ARCUATE", "127.0.0.1", str(self.dicom_port), "+sd", "+r", str(folder)]
        await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)

    async def case(self, accession: str) -> dict[str, Any] | None:
        """Return the ledger's row of an accession number."""
        cases = (await self.http.get("/journey/cases")).json()["cases"]
        return next((case for case in cases if case["accession"] == accession), None)

    async def until(self, accession: str, stage: str, limit_s: float = 90) -> dict[str, Any]:
        """Return the case once it stands at a stage."""
        return await self.until_case(accession, lambda case: case["stage"] == stage, limit_s)

    async def until_case(
        self, accession: str, fits: Callable[[dict[str, Any]], bool], limit_s: float = 90
    ) -> dict[str, Any]:
        """Return the case once it fits; fails with where it stands instead."""
        case: dict[str, Any] | None = None
        pause = _TICK_S
        try:
            async with asyncio.timeout(limit_s):
                while case is None or not fits(case):
                    await asyncio.sleep(pause)
                    pause = min(_LONGEST_PAUSE_S, pause * 1.2)  # asking costs the house time that it needs for the case
                    case = await self.case(accession)
        except TimeoutError:
            steps = [f"{s['stage']}: {s['note']}" for s in (case or {}).get("steps", [])]
            pytest.fail(
                f"{accession} stands at {case and case['stage']}, waits for {case and case['waits_for']}; {steps}"
            )
        return case


async def settle(house: House) -> None:
    """Let journey take all changes and do all that is due; its own worker and watcher run beside this."""
    room, context = house.rooms["journey"].app.state, house.contexts["journey"]
    jobs = WORK.jobs

    def busy(session: Session) -> bool:
        due = sa.or_(jobs.c.state == "leased", sa.and_(jobs.c.state == "ready", jobs.c.due <= context.clock.now()))
        return session.execute(sa.select(jobs.c.id).where(due).limit(1)).first() is not None

    quiet = 0
    while quiet < _QUIET_LOOKS:
        seen = 0
        async for change in feed_of(room.journey).available():
            await take_changes(room.journey, [change])
            seen += 1
        await room.worker.drain()
        quiet = 0 if seen or await context.database.read(busy) else quiet + 1
        await asyncio.sleep(0.01)


def house_client(house: House) -> httpx.AsyncClient:
    """A client of a house in this program, for somebody who may do everything."""
    key = house.rooms["access"].app.state.access.signing_key
    principal = Principal("t", frozenset({Role.INTEGRATION, Role.LEAD, Role.ADMIN, Role.ROOM}), "t", "Tester")
    token = tokens.issue(key, "urn:arcuate:access", principal, house.contexts["access"].clock.now(), 7 * 86400)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=HouseTransport(house), base_url="http://house", headers=headers, timeout=30)


START = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
_TICK_S = 0.05
_LONGEST_PAUSE_S = 0.5
_QUIET_LOOKS = 3
_ROOMS = [room for room in ROOMS if room != "dashboard"]  # a journey needs no page


async def tick(clock: ManualClock) -> None:
    """Let the clock run with real time; a test may jump it forward besides."""
    while True:
        await asyncio.sleep(_TICK_S)
        clock.advance(_TICK_S)


_ROLES = frozenset({Role.INTEGRATION, Role.LEAD, Role.RADIOLOGIST, Role.ADMIN})
_TESTER = Principal("tester", _ROLES, "tester", "Tester")


@contextlib.asynccontextmanager
async def in_one_program(folder: Path, ports: list[int], dictation: Sink, reports: Sink) -> AsyncIterator[World]:
    clock = ManualClock(START)
    receivers = tuple(Receiver.model_validate(receiver) for receiver in _receivers(ports))
    room_settings = {
        "gateway": GatewaySettings(port=ports[0], receivers=receivers),
        "imaging": ImagingSettings(port=ports[1], quiet_s=0.5),
    }
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    settings = HouseSettings(data_dir=folder / "data")
    ticking = asyncio.create_task(tick(clock))
    try:
        async with open_house(settings, site, rooms=_ROOMS, clock=clock, room_settings=room_settings) as house:
            key = house.rooms["access"].app.state.access.signing_key
            token = tokens.issue(key, "urn:arcuate:access", _TESTER, clock.now(), 7 * 86400)
            http = httpx.AsyncClient(
                transport=HouseTransport(house),
                base_url="http://house",
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            )
            yield World(
                FhirClient(http),
                http,
                dictation,
                reports,
                ports[0],
                ports[1],
                lambda: clock.advance(601),
                clock.advance,
            )
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
            yield World(FhirClient(http), http, dictation, reports, ports[0], ports[1], lambda: None, lambda _: None)


def _receivers(ports: list[int]) -> list[dict[str, object]]:
    return [
        {"name": "dictation", "kind": "dictation", "host": "127.0.0.1", "port": ports[2]},
        {"name": "ehr", "kind": "report", "host": "127.0.0.1", "port": ports[3]},
    ]
