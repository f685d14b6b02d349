"""A gateway on a free port in front of a real record, and another party that sends and receives HL7."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from arcuate.gateway.app import Parts
from arcuate.gateway.door import LocalDoor
from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.gateway.tables import work
from arcuate.house import House, HouseSettings, HouseTransport, open_house
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, MllpClient, frame
from arcuate.kernel.settings import SiteSettings

START = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


@dataclass
class Site:
    """The rooms and a token for each test."""

    house: House
    clock: ManualClock
    fhir: FhirClient
    http: httpx.AsyncClient

    @property
    def parts(self) -> Parts:
        parts: Parts = self.house.rooms["gateway"].app.state.parts
        return parts

    @property
    def door(self) -> LocalDoor:
        assert isinstance(self.parts.door, LocalDoor)  # a clock of the test's own keeps it in this process
        return self.parts.door

    @property
    def port(self) -> int:
        return self.parts.door.port

    async def send(self, *messages: str | bytes) -> list[str]:
        """Send messages on one connection; returns MSA-1 of each."""
        codes = []
        async with MllpClient("127.0.0.1", self.port, 20) as client:
            for message in messages:
                raw = message.encode() if isinstance(message, str) else message
                said = ack.read(await client.send(raw))
                codes.append(said.code if said else "")
        return codes

    async def settle(self) -> None:
        """Wait until no work is due."""
        while True:
            await self.parts.drain()
            if not await self.parts.context.database.read(self._open_work):
                return
            await asyncio.sleep(0.01)

    def _open_work(self, session: Any) -> int:
        """Jobs in hand, and due ones that no earlier job of the same line holds back."""
        jobs, keys, other = work.jobs, work.keys, work.keys.alias()
        held = sa.select(keys.c.job_id).join(
            other, (other.c.key == keys.c.key) & other.c.open & (other.c.job_id < keys.c.job_id)
        )
        due = (
            (jobs.c.state == "ready")
            & (jobs.c.due <= self.clock.now())
            & ~held.where(keys.c.job_id == jobs.c.id).exists()
        )
        wanted = sa.or_(jobs.c.state == "leased", due)
        return int(session.execute(sa.select(sa.func.count()).select_from(jobs).where(wanted)).scalar_one())

    async def apply(self, *messages: str | bytes) -> list[str]:
        """Send and wait until all is applied."""
        codes = await self.send(*messages)
        await self.settle()
        return codes

    async def find(self, kind: str, **query: str) -> list[Json]:
        return await self.fhir.search(kind, {name.replace("_", "-"): value for name, value in query.items()})

    async def order(self, accession: str) -> Json:
        found = await self.find("ServiceRequest", identifier=f"urn:arcuate:id:accession|{accession}")
        assert len(found) == 1, f"{len(found)} orders for {accession}"
        return found[0]

    async def patient(self, number: str, authority: str = "HOSP") -> Json:
        found = await self.find("Patient", identifier=f"urn:arcuate:id:patient:{authority}|{number}")
        assert len(found) == 1, f"{len(found)} patients for {number}"
        return found[0]

    async def get(self, path: str) -> Any:
        response = await self.http.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def errors(self) -> list[Json]:
        found: list[Json] = (await self.get("/gateway/errors"))["items"]
        return found

    async def journal(self) -> list[Json]:
        found: list[Json] = (await self.get("/gateway/journal?limit=200"))["items"]
        return found[::-1]


@cache
def _blank() -> tempfile.TemporaryDirectory[str]:
    """Empty databases of the three rooms as their migrations leave them: made once a process, copied for each test."""
    return tempfile.TemporaryDirectory()


async def prepare(data: Path, rooms: tuple[str, ...]) -> None:
    """Make a data folder of a house that has just been opened for the first time."""
    blank = Path(_blank().name) / "data"
    if not blank.exists():
        making = blank.with_name("making")
        settings = {"gateway": GatewaySettings(port=0)}
        async with open_house(
            HouseSettings(data_dir=making),
            SiteSettings(time_zone="UTC", synthetic=True),
            rooms=rooms,
            clock=ManualClock(START),
            room_settings=settings,
        ):
            pass
        making.rename(blank)
    shutil.copytree(blank, data)


@contextlib.asynccontextmanager
async def open_site(
    data: Path, settings: GatewaySettings, url: str = "", zone: str = "Europe/Zurich", start: datetime = START
) -> AsyncIterator[Site]:
    clock = ManualClock(start)
    site = SiteSettings(time_zone=zone, synthetic=True)
    house_settings = HouseSettings(data_dir=data, database_url=url)
    rooms = ("access", "record", "gateway")
    if not url and not data.exists():
        await prepare(data, rooms)
    async with open_house(house_settings, site, rooms=rooms, clock=clock, room_settings={"gateway": settings}) as house:
        key = house.rooms["access"].app.state.access.signing_key
        who = Principal("tester", frozenset({Role.INTEGRATION, Role.ADMIN}), "tester", "Tester")
        token = tokens.issue(key, "urn:arcuate:access", who, clock.now(), 30 * 86400)
        headers = {"Authorization": f"Bearer {token}"}
        http = httpx.AsyncClient(transport=HouseTransport(house), base_url="http://house", headers=headers, timeout=30)
        yield Site(house, clock, FhirClient(http), http)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path / "data", GatewaySettings(port=0)) as opened:
        yield opened


Answering = Callable[[bytes, str], list[bytes]]


def positive(_raw: bytes, control_id: str) -> list[bytes]:
    return [f"MSH|^~\\&|SINK|X|ARCUATE|Y|20260317||ACK|A{control_id[:18]}|P|2.5.1\rMSA|AA|{control_id}\r".encode()]


@dataclass
class Sink:
    """Another party that takes our messages; `answering` says what it answers."""

    answering: Answering = positive
    received: list[bytes] = field(default_factory=list)
    port: int = 0
    server: asyncio.Server | None = None

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                for event in frames.feed(data):
                    if isinstance(event, Framed) and self.server is not None:
                        self.received.append(event.payload)
                        control_id = event.payload.split(b"\r")[0].split(b"|")[9].decode()
                        for one in self.answering(event.payload, control_id):
                            writer.write(frame(one))
                        await writer.drain()
        writer.close()


@pytest.fixture
async def sinks() -> AsyncIterator[dict[str, Sink]]:
    """A dictation, a report receiver and a RIS."""
    opened = {name: Sink() for name in ("dictation", "report", "ris")}
    for sink in opened.values():
        await sink.open()
    yield opened
    for sink in opened.values():
        await sink.close()


@pytest.fixture
async def connected(tmp_path: Path, sinks: dict[str, Sink]) -> AsyncIterator[Site]:
    """A gateway with three receivers."""
    receivers = tuple(
        Receiver.model_validate({"name": name, "kind": name, "host": "127.0.0.1", "port": sink.port})
        for name, sink in sinks.items()
    )
    settings = GatewaySettings(port=0, receivers=receivers, send_timeout_s=2)
    async with open_site(tmp_path / "data", settings) as opened:
        yield opened
