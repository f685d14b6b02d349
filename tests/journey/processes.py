"""Every room as a process of its own, on PostgreSQL, behind Debian's Caddy with the deployment's proxy file."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
from outside import free_port

from arcuate.house import ROOMS

ROOT = Path(__file__).parents[2]
_START_S = 120.0


@contextlib.asynccontextmanager
async def rooms_apart(
    folder: Path, database_url: str, caddy: str, mllp_port: int, dicom_port: int, receivers: list[dict[str, object]]
) -> AsyncIterator[str]:
    """Start all rooms and the proxy; yields the address of the house."""
    ports = {room: free_port() for room in ROOMS}  # the proxy names all; a journey needs no page
    proxy = free_port()
    address = f"http://127.0.0.1:{proxy}"
    environment = {
        **os.environ,
        "ARCUATE_TIME_ZONE": "Europe/Zurich",
        "ARCUATE_SYNTHETIC": "true",
        "ARCUATE_DATA_DIR": str(folder),
        "ARCUATE_DATABASE_URL": database_url,
        "ARCUATE_HOUSE_URL": address,
        "ARCUATE_GATEWAY_PORT": str(mllp_port),
        "ARCUATE_GATEWAY_RECEIVERS": json.dumps(receivers),
        "ARCUATE_IMAGING_PORT": str(dicom_port),
        "ARCUATE_IMAGING_QUIET_S": "2",
        "ARCUATE_JOURNEY_IMAGES_WAIT_S": "4",
    }
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(_proxy(caddy, proxy, ports, folder))
        ports.pop("dashboard")
        for room, port in ports.items():
            command = [sys.executable, "-m", "arcuate", "serve", room, "--port", str(port)]
            with (folder / f"{room}.log").open("wb") as log:
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT))
        await _until_ready(ports, folder)
        yield address
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _proxy(caddy: str, port: int, ports: Mapping[str, int], folder: Path) -> "subprocess.Popen[bytes]":
    upstreams = {f"ARCUATE_UPSTREAM_{room.upper()}": f"127.0.0.1:{at}" for room, at in ports.items()}
    environment = {
        **os.environ,
        **upstreams,
        "ARCUATE_PROXY_LISTEN": f":{port}",
        "ARCUATE_PROXY_BIND": "127.0.0.1",
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    command = [caddy, "run", "--config", str(ROOT / "deploy" / "Caddyfile"), "--adapter", "caddyfile"]
    with (folder / "proxy.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


async def _until_ready(ports: Mapping[str, int], folder: Path) -> None:
    async with httpx.AsyncClient(timeout=5) as http:
        for room, port in ports.items():
            try:
                async with asyncio.timeout(_START_S):
                    while not await _ready(http, port):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                raise AssertionError(f"{room} is not ready: {(folder / f'{room}.log').read_text()[-1500:]}") from None


async def _ready(http: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await http.get(f"http://127.0.0.1:{port}/ready")).status_code == 200
    except httpx.HTTPError:
        return False
