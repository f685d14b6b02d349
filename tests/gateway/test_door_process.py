"""The HL7 door in its own process: it comes back on the same port, and a stop answers what has arrived."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.gateway.messages import order

from arcuate.gateway.arrivals import Mover
from arcuate.gateway.door import Place, ProcessDoor, make
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient


@pytest.fixture
def place(tmp_path: Path) -> Place:
    database = Database(f"sqlite:///{tmp_path}/gateway.db", "gateway")
    database.migrate("arcuate.gateway")
    database.close()
    return Place(database.url, "gateway", tmp_path / "spool")


def _journal(place: Place) -> list[str]:
    database = Database(place.url, place.schema)
    try:
        Mover(database).move_all()
        return database.read_sync(
            lambda s: list(s.execute(sa.text("SELECT control_id FROM frame WHERE unread ORDER BY number")).scalars())
        )
    finally:
        database.close()


def _children() -> set[int]:
    """The processes that any thread of this program started; a thread may end while they are counted."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(int(one) for one in (task / "children").read_text().split())
    return found


async def _sent(port: int, control_id: str) -> str:
    """The code that a sender gets who tries until somebody answers."""
    for _ in range(600):
        try:
            async with MllpClient("127.0.0.1", port, 20) as client:
                said = ack.read(await client.send(order(control_id=control_id).encode()))
        except Unavailable:
            await asyncio.sleep(0.05)
        else:
            return said.code if said else ""
    pytest.fail("nobody answers")


async def test_a_door_that_dies_is_opened_again_on_its_port_and_has_lost_nothing(place: Place) -> None:
    before, stored = _children(), asyncio.Event()
    door = make(place, GatewaySettings(port=0), SystemClock(), stored.set)
    assert isinstance(door, ProcessDoor)
    async with door.open():
        port = door.port
        assert await _sent(port, "1") == "AA"
        await asyncio.wait_for(stored.wait(), 20)
        (child,) = _children() - before
        os.kill(child, signal.SIGKILL)
        assert await _sent(port, "2") == "AA"
        assert await _sent(port, "1") == "AA"  # known to the next one too
        async with asyncio.timeout(20):
            while door.seen.fault is not None:
                await asyncio.sleep(0.05)
    assert _children() - before == set()
    assert _journal(place) == ["1", "2"]


async def test_a_port_that_somebody_has_is_said_at_once(place: Place) -> None:
    first = make(place, GatewaySettings(port=0), SystemClock(), lambda: None)
    async with first.open():
        second = make(place, GatewaySettings(port=first.port), SystemClock(), lambda: None)
        with pytest.raises(OSError, match="in use"):
            async with second.open():
                pass
