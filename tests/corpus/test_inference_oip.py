"""The Open Inference Protocol referee against the running room."""

import asyncio
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from arcuate.house import HouseSettings, open_house
from arcuate.inference.settings import InferenceSettings
from arcuate.kernel.settings import SiteSettings


class WithToken:
    """The referee carries no token; this puts a room's before every call."""

    def __init__(self, app: ASGIApp, authorization: str) -> None:
        self._app, self._authorization = app, authorization.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", self._authorization)]}
        await self._app(scope, receive, send)


async def test_the_referee_finds_no_fault(shared: Path, tmp_path: Path) -> None:
    # The smaller network: what is judged is the protocol, and it is the same code for every model.
    model = "brain-finder"
    referee = shared / "tools" / "fhir-referee" / "validate_openinference.py"
    home, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Zurich")
    rooms = {"inference": InferenceSettings(threads=2)}
    async with open_house(home, site, rooms=["access", "inference"], room_settings=rooms) as house:
        request = house.contexts["inference"].http.build_request("GET", "/v2/models/none")
        sent = await house.contexts["inference"].http.send(request)
        app = WithToken(house.rooms["inference"].app, sent.request.headers["authorization"])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        judge = await asyncio.create_subprocess_exec(
            sys.executable, str(referee), f"http://127.0.0.1:{port}", model, "--timeout", "300",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        told, _ = await judge.communicate()
        server.should_exit = True
        await serving
    assert judge.returncode == 0, told.decode()
    assert "0 errors, 0 warnings" in told.decode(), told.decode()
