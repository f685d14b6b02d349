"""The web door when the process has no descriptor left (row 049)."""

import asyncio
import socket
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.accept.programs import descriptors, gateway
from tests.conftest import program

from arcuate.house import HouseSettings
from arcuate.programs import bind, script_token

MOST = 96


@pytest.mark.long
async def test_f049_a_web_door_without_descriptors_says_503_and_lives_and_afterwards_serves_everybody(
    tmp_path: Path,
) -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    data, limited = tmp_path / "data", (program("prlimit", "util-linux"), f"--nofile={MOST}:{MOST}")
    code = Path(__file__).parent / "web_program.py"
    async with gateway(data, before=limited, code=code, more=(str(port),)) as (pid, _):
        token = script_token(HouseSettings(data_dir=data), "integration", timedelta(hours=1))
        headers = {"Authorization": f"Bearer {token}"}
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=20) as connected:
            body = {"resourceType": "Device"}
            assert (await connected.post("/fhir/Device", json=body)).status_code == 201
            others = [await _connected(port) for _ in range(MOST + 20)]
            async with asyncio.timeout(20):
                while descriptors(pid) < MOST:
                    await asyncio.sleep(0.05)
            for _ in range(3):
                assert (await connected.get("/fhir/Device")).status_code in (200, 503)
                assert (await connected.get("/health")).status_code == 200
            answer = await connected.post("/fhir/Device", json=body)
            assert answer.status_code in (201, 503)
        for other in others:
            other.close()
        async with asyncio.timeout(60):
            while True:
                with suppress(httpx.HTTPError):
                    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=5) as late:
                        if (await late.post("/fhir/Device", json=body)).status_code == 201:
                            break
                await asyncio.sleep(0.2)


async def _connected(port: int) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    with suppress(OSError):
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    return made
