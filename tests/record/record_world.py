"""A running record, reached as rooms, scripts and people reach it; and small synthetic resources."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from arcuate.kernel.auth import Authenticator, Principal, Role, tokens
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.room import RoomContext
from arcuate.kernel.settings import SiteSettings
from arcuate.record.app import open_room
from arcuate.record.service import Record
from arcuate.record.settings import RecordSettings

ISSUER = "urn:arcuate:access"
KEY = tokens.new_key("test")


@dataclass
class Replica:
    """One running record."""

    record: Record
    transport: httpx.ASGITransport
    clock: Clock
    app: Any = None
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def http(self, *roles: Role, person: str = "") -> httpx.AsyncClient:
        """Return a client with the token of a room, or of a person or script with these roles."""
        client = "dashboard" if person else "script" if roles else "journey"
        principal = Principal(
            person or client, frozenset(roles or (Role.ROOM,)), client, f"Name of {person}" if person else ""
        )
        token = tokens.issue(KEY, ISSUER, principal, self.clock.now(), 10**8)
        made = httpx.AsyncClient(
            transport=self.transport, base_url="http://house", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        self.clients.append(made)
        return made

    def fhir(self, *roles: Role, person: str = "") -> FhirClient:
        """Return a FHIR client; a room's when no role is named."""
        return FhirClient(self.http(*roles, person=person))


def _nobody(request: httpx.Request) -> httpx.Response:
    """The record calls no other room."""
    raise AssertionError(f"the record called {request.url.path}")


async def open_replica(url: str, folder: Path, clock: Clock, stack: AsyncExitStack, **settings: Any) -> Replica:
    """Open a record over a database; it closes with the stack."""

    async def key_set() -> dict[str, Any]:
        return {"keys": [KEY.as_dict(private=False)]}

    folder.mkdir(parents=True, exist_ok=True)
    context = RoomContext(
        "record", folder, folder, folder, clock, SiteSettings(time_zone="Europe/Zurich", site_name="Test"),
        Authenticator(key_set, ISSUER, clock), httpx.AsyncClient(transport=httpx.MockTransport(_nobody)), Database(url, schema="record"),
    )  # fmt: skip
    room = await open_room(context, RecordSettings(**settings))
    stack.callback(context.database.close)
    await stack.enter_async_context(room.run())
    return Replica(room.app.state.record, httpx.ASGITransport(room.app, raise_app_exceptions=False), clock, room.app)


def patient(number: str = "1", **more: Any) -> dict[str, Any]:
    """Return a synthetic Patient."""
    return {
        "resourceType": "Patient", "identifier": [{"system": "urn:arcuate:id:patient:TEST", "value": number}],
        "name": [{"family": "Muster", "given": ["Anna"]}], **more,
    }  # fmt: skip


def order(subject: str, accession: str = "A1", **more: Any) -> dict[str, Any]:
    """Return a synthetic ServiceRequest."""
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": {"reference": subject},
        "identifier": [{"system": "urn:arcuate:id:accession", "value": accession}], **more,
    }  # fmt: skip
