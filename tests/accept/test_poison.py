"""Messages whose mapping ends the program, computes without end or takes all memory (row 015)."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.accept.programs import Ended, gateway
from tests.conftest import program
from tests.gateway.conftest import open_site
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient

POISONED = Path(__file__).parent / "poisoned.py"
POISONS = {
    "ends": "The program ended or was stuck 3 times while it worked on this",
    "loops": "It was stopped after 0.3 s of computing",
    "swallows": "MemoryError in map",
}


def _states(data: Path) -> list[str]:
    database = Database(f"sqlite:///{data}/gateway/gateway.db")
    try:
        return database.read_sync(
            lambda s: [str(row[0]) for row in s.execute(sa.select(sa.column("state")).select_from(sa.table("message")))]
        )
    finally:
        database.close()


async def _send(port: int, control_ids: list[str]) -> None:
    for number, control_id in enumerate(control_ids):
        message = order(f"ACC{number}", f"1{number}", placer=f"P{number}", control_id=control_id).encode()
        with suppress(Unavailable):
            async with MllpClient("127.0.0.1", port, 20) as client:
                answer = ack.read(await client.send(message))
                assert answer is not None and answer.code == "AA"


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f015_a_mapping_that_ends_the_process_loops_or_takes_all_memory_is_parked_and_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCUATE_GATEWAY_MAPPING_S", "0.3")
    data = tmp_path / "data"
    names = [name for poison in POISONS for name in (f"before {poison}", poison, f"after {poison}")]
    limited = (program("prlimit", "util-linux"), f"--as={6 << 30}")
    starts = 0
    async with asyncio.timeout(500):
        while True:  # as whatever looks after the program does: it is started again each time that it ended
            starts += 1
            with suppress(Ended):  # with the message still in hand it ends before its door is open
                async with gateway(data, before=limited, code=POISONED) as (pid, port):
                    await _send(port, names)  # what was sent before is answered again and applied once
                    while Path(f"/proc/{pid}/exe").exists() and not _all_told(data, len(names)):
                        await asyncio.sleep(0.2)
            if _all_told(data, len(names)):
                break
    assert starts >= 3

    async with open_site(data, GatewaySettings(port=0), start=datetime.now(UTC)) as site:
        await site.settle()
        assert {names[one["journal"] - 1]: one["reason"] for one in await site.errors()} == POISONS
        for number, name in enumerate(names):
            found = await site.find("ServiceRequest", identifier=f"urn:arcuate:id:accession|ACC{number}")
            assert len(found) == (0 if name in POISONS else 1), name


def _all_told(data: Path, count: int) -> bool:
    """Say whether every message is applied or waits for a person."""
    states = _states(data)
    return len(states) == count and set(states) <= {"applied", "parked"}
