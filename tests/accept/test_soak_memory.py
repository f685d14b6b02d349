"""Hours in small: the gateway and the record under steady traffic keep their memory and their descriptors (ten minutes under `make accept`)."""

import asyncio
import statistics
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.accept.programs import descriptors, gateway, memory_kib
from tests.accept.sizes import size
from tests.gateway.messages import order, registration

from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient

SECONDS = size(20, 600)
SENDERS, PATIENTS, PAUSE_S = 4, 50, 0.05
GROWTH = 0.10  # of the memory, from the first third's end to the last part


async def _send(sender: int, port: int, end: float, sent: list[int]) -> None:
    """Come, send a few messages, go; now and then leave in the middle of a frame."""
    while time.monotonic() < end:
        with suppress(Unavailable):
            async with MllpClient("127.0.0.1", port, 30) as client:
                for _ in range(10):
                    number = sent[sender]
                    sent[sender] += 1
                    patient = f"{sender}{number % PATIENTS:03d}"
                    control_id = f"S{sender}N{number}"
                    if number % 3:
                        message = registration(patient=patient, control_id=control_id)
                    else:
                        when = f"2026{number // 28 % 12 + 1:02d}{number % 28 + 1:02d}1100"
                        message = order(f"A{patient}", patient, placer=f"P{patient}", control_id=control_id, when=when)
                    answer = ack.read(await client.send(message.encode()))
                    assert answer is not None and answer.code == "AA"
                    await asyncio.sleep(PAUSE_S)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x0bMSH|^~\\&|HALF")
        writer.close()


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 300)
async def test_steady_traffic_leaves_memory_and_descriptors_flat(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    async with gateway(tmp_path / "data") as (pid, port):
        began, sent = time.monotonic(), [0] * SENDERS
        senders = [asyncio.create_task(_send(sender, port, began + SECONDS, sent)) for sender in range(SENDERS)]
        while time.monotonic() < began + SECONDS:
            await asyncio.sleep(SECONDS / 120)
            seen.append((memory_kib(pid), descriptors(pid)))
        await asyncio.gather(*senders)

    third = len(seen) // 3
    early, late = seen[third : 2 * third], seen[-third:]
    memory = [statistics.median(kib for kib, _ in part) for part in (early, late)]
    files = [max(found for _, found in part) for part in (early, late)]
    print(
        f"{sum(sent)} messages in {SECONDS} s; MiB {memory[0] / 1024:.1f} -> {memory[1] / 1024:.1f}; descriptors {files[0]} -> {files[1]}"
    )
    assert sum(sent) > SECONDS * SENDERS
    assert memory[1] <= memory[0] * (1 + GROWTH)
    assert files[1] <= files[0] + SENDERS
