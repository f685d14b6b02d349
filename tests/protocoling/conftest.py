"""The protocoling room in process, and vignettes made into FHIR."""

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from arcuate.kernel.auth import Authenticator, Principal, Role, tokens
from arcuate.kernel.clock import Clock, ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.fhir import strict
from arcuate.kernel.room import RoomContext
from arcuate.kernel.settings import SiteSettings
from arcuate.protocoling.app import open_room
from arcuate.protocoling.rulebook import Rulebook, load_rulebook
from arcuate.protocoling.service import Examine, examine
from arcuate.protocoling.settings import ProtocolingSettings

Json = dict[str, Any]
ISSUER = "urn:test"
KEY = ECKey.generate_key("P-256", {"kid": "test"})


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("protocoling_vignettes", Path(__file__).with_name("vignettes.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made() -> ModuleType:
    """Builders of FHIR resources from vignettes."""
    return _module()


@pytest.fixture(scope="session")
def rulebook() -> Rulebook:
    """The rules that ship."""
    return load_rulebook()


@dataclass
class Door:
    """The room as callers meet it."""

    app: Any
    clock: Clock
    database: Database

    def http(self, *roles: Role) -> httpx.AsyncClient:
        """A client with a token of these roles; without any token when none is named."""
        headers = {}
        if roles:
            token = tokens.issue(KEY, ISSUER, Principal("x", frozenset(roles), "x", ""), self.clock.now(), 10**8)
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://house", headers=headers, timeout=60)

    async def post(self, path: str, body: Json, *roles: Role) -> httpx.Response:
        """Post a body as the house writes it."""
        async with self.http(*(roles or (Role.INTEGRATION,))) as client:
            return await client.post(path, content=strict.dumps(body))

    async def sign(self, request: Json) -> Json:
        """Call the order-sign service."""
        answer = await self.post("/cds-services/arcuate-protocoling", request)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def check(self, bundle: Json) -> list[Json]:
        """Call `$check` and return the resources of the answer."""
        answer = await self.post("/protocoling/ServiceRequest/$check", bundle, Role.ROOM)
        assert answer.status_code == 200, answer.text
        return [e["resource"] for e in strict.loads(answer.content).get("entry", [])]


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
async def open_door(tmp_path: Path, clock: ManualClock, rulebook: Rulebook) -> AsyncIterator[OpenDoor]:
    """Open the room, over SQLite unless another database is given."""

    async def key_set() -> Json:
        return {"keys": [KEY.as_dict(private=False)]}

    async with AsyncExitStack() as stack:

        async def opened(looks: Examine = examine, url: str = "", **settings: Any) -> Door:
            database = Database(url or f"sqlite:///{tmp_path}/protocoling.db", schema="protocoling")
            context = RoomContext(
                "protocoling",
                tmp_path,
                tmp_path,
                tmp_path,
                clock,
                SiteSettings(time_zone="Europe/Zurich"),
                Authenticator(key_set, ISSUER, clock),
                httpx.AsyncClient(),
                database,
            )
            room = await open_room(context, ProtocolingSettings(**settings), looks, rulebook)
            stack.callback(database.close)
            await stack.enter_async_context(room.run())
            return Door(room.app, clock, database)

        yield opened


@pytest.fixture
async def door(open_door: OpenDoor) -> Door:
    """The room with its own settings."""
    return await open_door()


@pytest.fixture
def plain() -> Json:
    """An order with nothing wrong."""
    return {
        "id": "plain",
        "ordered": {"code": "MRBR0", "display": "MRI brain without contrast"},
        "priority": "routine",
        "setting": "outpatient",
        "age": 61,
        "sex": "M",
        "indication": "memory decline over 2 years",
        "icd10cm": ["R41.3"],
    }
