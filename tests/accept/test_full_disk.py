"""A file system that is really full: a small one of its own, filled to the last byte, and emptied again."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings
from arcuate.house import HouseSettings
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import bind, running, script_token

PATIENT = {"resourceType": "Patient", "active": True}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@dataclass(frozen=True)
class Doors:
    """The doors of a house on the small disk."""

    http: httpx.AsyncClient
    room: httpx.AsyncClient
    hl7: int

    async def code(self, message: str) -> str:
        """Send one message and return the code of its acknowledgement; empty where none came."""
        with suppress(Unavailable):
            async with MllpClient("127.0.0.1", self.hl7, 20) as client:
                answer = ack.read(await client.send(message.encode()))
                return answer.code if answer else ""
        return ""


@pytest.fixture
async def doors(small_disk: Path) -> AsyncIterator[Doors]:
    """Access, record and gateway as `arcuate` runs them, with their data on the small disk."""
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    settings = HouseSettings(data_dir=small_disk / "data", port=port)
    rooms = ("access", "record", "gateway")
    async with running(settings, site, rooms=rooms, room_settings={"gateway": GatewaySettings(port=0)}) as (house, _):
        token = script_token(settings, "integration", timedelta(hours=1))
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=settings.address, headers=headers, timeout=30) as http:
            room = house.contexts["gateway"].http
            yield Doors(http, room, house.rooms["gateway"].app.state.parts.door.port)


def fill(place: Path) -> Path:
    """Fill a file system to the last byte; returns the file that takes the room."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    assert os.statvfs(place).f_bavail == 0
    return ballast


@pytest.mark.long
async def test_f041_on_a_full_disk_nothing_is_acknowledged_reading_goes_on_and_it_recovers_alone(
    doors: Doors, small_disk: Path
) -> None:
    assert await doors.code(order(control_id="A0")) == "AA"
    first = await doors.http.post("/fhir/Patient", json=PATIENT)
    assert first.status_code == 201
    where = f"/fhir/Patient/{first.json()['id']}"

    ballast = fill(small_disk)
    large = (
        "NTE|1||" + "x" * 60_000 + "\r"
    )  # what small messages need may fit into pages that the databases have already
    refused = [await doors.code(order(f"F{n}", f"9{n}", placer=f"F{n}", control_id=f"F{n}") + large) for n in range(60)]
    assert refused[-1] in ("AR", "")
    wordy = {**PATIENT, "address": [{"text": "x" * 60_000}]}
    answers = [await doors.http.post("/fhir/Patient", json=wordy) for _ in range(60)]
    assert answers[-1].status_code == 503
    assert answers[-1].json()["issue"][0]["code"] == "transient"
    # Rooms read on, and with them people's pages; a script's reading waits for its line in the audit trail, which cannot be written.
    assert (await doors.room.get(where)).json()["active"] is True
    assert (await doors.http.get(where)).status_code == 503
    waiting = await doors.http.get("/ready")
    assert waiting.status_code == 503
    assert any("stored" in reason for reason in waiting.json()["reasons"])

    ballast.unlink()
    async with asyncio.timeout(60):
        while await doors.code(order("ACC2", "200", placer="P2", control_id="A2")) != "AA":
            await asyncio.sleep(0.2)
        while (await doors.http.post("/fhir/Patient", json=PATIENT)).status_code != 201:
            await asyncio.sleep(0.2)
        while (await doors.http.get("/ready")).status_code != 200:
            await asyncio.sleep(0.2)
    # What was acknowledged is there, what was refused may be sent again and is taken once.
    again = [order(f"F{n}", f"9{n}", placer=f"F{n}", control_id=f"F{n}") + large for n in (0, 59)]
    assert [await doors.code(message) for message in again] == ["AA", "AA"]
    journal = (await doors.http.get("/gateway/journal?limit=200")).json()
    seen = [row["control_id"] for row in journal["items"]]
    acknowledged = {"A0", *(f"F{n}" for n, code in enumerate(refused) if code == "AA"), "A2", "F0", "F59"}
    assert sorted(acknowledged) == sorted(seen)
