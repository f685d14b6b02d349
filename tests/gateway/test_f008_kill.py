"""kill -9 during intake (row 008): what was acknowledged is there after the restart, once, in order, and applied once.

Five kills on each database in the test run; `make accept` sets ARCUATE_ACCEPT=1 and plays 200 on each.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.accept.sizes import size
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient

ROUNDS = size(5, 200)
SENDERS = 4


@dataclass
class Hospital:
    """Stop-and-wait senders: each repeats its message until it is acknowledged, then goes on to the next change of its order."""

    sent: dict[str, str] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    next_number: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(SENDERS), 0))

    async def send(self, sender: int, port: int) -> None:
        with contextlib.suppress(Unavailable):
            async with MllpClient("127.0.0.1", port, 20) as client:
                while True:
                    number = self.next_number[sender]
                    control_id = f"S{sender}N{number}"
                    message = order(
                        f"ACC{sender}", f"10{sender}", placer=f"P{sender}", control="XO" if number else "NW", control_id=control_id,
                        when=f"2026{number // 28 % 12 + 1:02d}{number % 28 + 1:02d}1100", name=f"Doe{sender}^Jane",
                    )  # fmt: skip
                    self.sent.setdefault(control_id, message)
                    answer = ack.read(await client.send(message.encode()))
                    assert answer is not None and answer.code == "AA"
                    self.acknowledged.append(control_id)
                    self.next_number[sender] += 1


@dataclass
class Programs:
    """Makes programs one after the other, each a process of its own (see `program.py`)."""

    maker: asyncio.subprocess.Process

    async def _says(self) -> str:
        """Return its next word; the programs' logs are passed over."""
        assert self.maker.stdout is not None
        async with asyncio.timeout(120):
            while line := (await self.maker.stdout.readline()).decode().strip():
                if line == "ended" or line.isdigit():
                    return line
        raise AssertionError("the maker of programs has ended")

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[tuple[int, int]]:
        """Run one; yields its process number and its port."""
        assert self.maker.stdin is not None
        self.maker.stdin.write(b"\n")
        number = int(await self._says())
        try:
            yield number, int(await self._says())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(number, signal.SIGKILL)
            assert await self._says() == "ended"


@contextlib.asynccontextmanager
async def programs(data: Path, url: str) -> AsyncIterator[Programs]:
    here = Path(__file__).parent / "program.py"
    maker = await asyncio.create_subprocess_exec(
        sys.executable, str(here), str(data), url, "again", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Programs(maker)
    finally:
        maker.kill()
        await maker.wait()


def _door_of(program: int) -> int:
    """The process number of the HL7 door, the only child of the program."""
    return int(Path(f"/proc/{program}/task/{program}/children").read_text().split()[0])


def _kill(victim: str, program: int) -> None:
    match victim:
        case "door":
            os.kill(_door_of(program), signal.SIGKILL)
        case "program":
            os.kill(program, signal.SIGKILL)
        case _:
            os.killpg(program, signal.SIGKILL)


async def _work(hospital: Hospital, port: int, chance: random.Random, kill: Callable[[], None]) -> None:
    """Let everybody send until each got one more acknowledgement, kill at a random moment, and wait for the senders to notice."""
    before = len(hospital.acknowledged)
    while True:
        senders = [asyncio.create_task(hospital.send(sender, port)) for sender in range(SENDERS)]
        while len(hospital.acknowledged) < before + SENDERS and not all(one.done() for one in senders):
            await asyncio.sleep(0.005)
        if len(hospital.acknowledged) >= before + SENDERS:
            break
        await asyncio.gather(*senders)  # the door is being opened again
        await asyncio.sleep(0.02)
    await asyncio.sleep(chance.uniform(0.0, 0.06))  # thousands are acknowledged a second, and all are mapped in the end
    kill()
    await asyncio.gather(*senders)


@pytest.mark.timeout(size(300, 7200))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_f008_nothing_acknowledged_is_lost_doubled_or_reordered(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = str(request.getfixturevalue("postgres_url")) if kind == "postgresql" else ""
    hospital, chance = Hospital(), random.Random(2026)
    kills = 0
    async with programs(tmp_path / "data", url) as made:
        while kills < ROUNDS:
            async with made.one() as (process, port):
                victim = "door"  # the program opens a door that died again, on the same port
                while victim == "door" and kills < ROUNDS:
                    victim = chance.choice(("door", "program", "everything"))
                    await _work(hospital, port, chance, partial(_kill, victim, process))
                    kills += 1
                    if kills % 20 == 0:
                        print(f"{kind}: {kills} kills, {len(hospital.acknowledged)} acknowledged", flush=True)

    async with open_site(tmp_path / "data", GatewaySettings(port=0), url, start=datetime.now(UTC)) as site:
        for sender in range(SENDERS):  # what the kill has cut off is sent again
            control_id = f"S{sender}N{hospital.next_number[sender]}"
            assert await site.send(hospital.sent[control_id]) == ["AA"]
        await _everything_once_and_in_order(site, hospital)
    print(
        f"{kind}: after {kills} kills {len(hospital.acknowledged)} acknowledged, 0 lost, 0 doubled, 0 reordered, all applied"
    )


async def _everything_once_and_in_order(site: Site, hospital: Hospital) -> None:
    site.clock.advance(120)  # the killed program's leases run out
    await site.settle()
    rows = await _journal(site)
    ids = [str(row["control_id"]) for row in rows]
    assert sorted(ids) == sorted(hospital.sent)
    assert set(hospital.acknowledged) <= set(ids)
    states = {message["state"] for row in rows for message in row["messages"]}  # type: ignore[attr-defined]
    assert states == {"applied"}, [(one["cause"], one["reason"]) for one in await site.errors()]
    for sender in range(SENDERS):
        mine = [int(one.split("N")[1]) for one in ids if one.startswith(f"S{sender}N")]
        assert mine == sorted(mine)
        request = await site.order(f"ACC{sender}")
        number = max(mine)
        assert request["occurrenceDateTime"].startswith(f"2026-{number // 28 % 12 + 1:02d}-{number % 28 + 1:02d}")
        assert request["meta"]["versionId"] == str(len(mine))


async def _journal(site: Site) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    before = ""
    while True:
        page = await site.get(f"/gateway/journal?limit=200{before}")
        found += page["items"]
        if page["before"] is None:
            return found[::-1]
        before = f"&before={page['before']}"
