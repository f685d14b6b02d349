"""An EHR: another house's record behind a token endpoint, on a real socket; a test says how it misbehaves."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from arcuate.house import House, HouseSettings, HouseTransport, open_house
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings

Fault = Callable[[Request, bytes], Response | None]


@dataclass
class OtherServer:
    """The EHR as the tests see it: `fhir` fills it; `asked` are the calls that it got; `fault` answers instead of it."""

    house: House
    fhir: FhirClient
    headers: dict[str, str]
    url: str
    keys: Callable[[], Any] = dict
    asked: list[str] = field(default_factory=list)
    fault: Fault = lambda _request, _body: None
    tokens_given: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        body = await request.body()
        answer = self.fault(request, body) or await self._own(request, body)
        if answer is None:
            answer = await self._record(request, body)
        await answer(scope, receive, send)

    async def _own(self, request: Request, body: bytes) -> Response | None:
        path = request.url.path
        if path == "/fhir/.well-known/smart-configuration":
            return JSONResponse({"token_endpoint": f"{self.url}/token"})
        if path == "/token":
            form = httpx.QueryParams(body.decode())
            claims = jwt.decode(
                form["client_assertion"], KeySet.import_key_set(self.keys()), algorithms=["ES384"]
            ).claims
            good = claims["iss"] == claims["sub"] == "arcuate-at-hosp" and claims["aud"] == f"{self.url}/token"
            self.tokens_given += good
            return JSONResponse(
                {"access_token": f"token-{self.tokens_given}", "expires_in": 300, "token_type": "bearer"},
                200 if good else 400,
            )
        if request.headers.get("authorization") != f"Bearer token-{self.tokens_given}":
            return JSONResponse(
                {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "login"}]}, 401
            )
        return None

    async def _record(self, request: Request, body: bytes) -> Response:
        self.asked.append(f"{request.method} {request.url.path}")
        transport = httpx.ASGITransport(self.house.app)
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        async with httpx.AsyncClient(transport=transport, base_url=self.url) as inside:
            kept = {name: value for name, value in request.headers.items() if name in ("content-type", "accept")}
            got = await inside.request(request.method, target, content=body, headers={**kept, **self.headers})
        return Response(got.content, got.status_code, {"content-type": got.headers["content-type"]})


@contextlib.asynccontextmanager
async def other_server(data: Path, clock: ManualClock) -> AsyncIterator[OtherServer]:
    site = SiteSettings(time_zone="Europe/Zurich")
    async with open_house(HouseSettings(data_dir=data), site, rooms=("access", "record"), clock=clock) as house:
        who = Principal("ehr", frozenset({Role.INTEGRATION, Role.ADMIN}), "ehr", "EHR")
        token = tokens.issue(
            house.rooms["access"].app.state.access.signing_key, "urn:arcuate:access", who, clock.now(), 30 * 86400
        )
        headers = {"Authorization": f"Bearer {token}"}
        inside = httpx.AsyncClient(
            transport=HouseTransport(house), base_url="http://house", headers=headers, timeout=30
        )
        listening = socket.create_server(("127.0.0.1", 0))
        made = OtherServer(house, FhirClient(inside), headers, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(made, lifespan="off", log_level="critical"))
        import asyncio

        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield made
        finally:
            server.should_exit = True
            await serving


def patient_of(number: str = "100", system: str = "http://hosp.example/mrn", **more: Any) -> Json:
    return {
        "resourceType": "Patient", "identifier": [{"system": system, "value": number}], "name": [{"family": "Doe", "given": ["Jane"]}],
        "birthDate": "1980-01-01", **more,
    }  # fmt: skip
