"""Calls to the other rooms for a person, in parallel and with a time limit; what misses it says so in its place."""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import httpx

from arcuate.dashboard.domain.frame import Silent
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import ArcuateError, Forbidden, Json, NotFound, Unauthenticated, Unavailable, from_outcome
from arcuate.kernel.fhir.client import FhirClient

T = TypeVar("T")
_HOP_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection"})


class _ForPerson(httpx.AsyncBaseTransport):
    """Sends each request through the room's own client; the Authorization header that it carries is the person's."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._http.send(request)
        headers = [(k, v) for k, v in response.headers.items() if k not in _HOP_HEADERS]
        return httpx.Response(response.status_code, headers=headers, content=response.content)


def client_for(http: httpx.AsyncClient, token: str) -> httpx.AsyncClient:
    """Return a client that acts for the person of a token, whose rights are the rooms' to judge."""
    return httpx.AsyncClient(
        transport=_ForPerson(http), base_url=http.base_url, timeout=http.timeout, trust_env=False,
        headers={"Authorization": f"Bearer {token}"},
    )  # fmt: skip


@dataclass(frozen=True)
class Part(Generic[T]):
    """What a room answered, or why nothing stands here.

    Attributes:
        value: The answer; None when there is none.
        silent: What people read instead; None when the room answered.
    """

    value: T | None = None
    silent: Silent | None = None

    def or_else(self, otherwise: T) -> T:
        """Return the answer, or something else where there is none."""
        return otherwise if self.value is None else self.value


@dataclass
class Silences:
    """Since when each room does not answer, as this program has seen it."""

    clock: Clock
    since: dict[str, datetime] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)

    def heard(self, room: str) -> None:
        """A room has answered."""
        self.since.pop(room, None)
        self.away.discard(room)

    def missed(self, room: str) -> datetime:
        """A room has not answered; returns since when."""
        return self.since.setdefault(room, self.clock.now())


@dataclass(frozen=True)
class Rooms:
    """The other rooms as one person may see them.

    Attributes:
        limit_s: Time that one part of a page may take.
    """

    http: httpx.AsyncClient
    silences: Silences
    limit_s: float

    @property
    def fhir(self) -> FhirClient:
        """The record, for this person."""
        return FhirClient(self.http)

    async def part(self, room: str, call: Awaitable[T], instead: str = "") -> Part[T]:
        """Wait for an answer as long as a part may take.

        Args:
            room: Whom we ask, as people know it.
            instead: What is shown instead when it does not answer.

        Raises:
            Unauthenticated: The session has ended.
        """
        try:
            value = await asyncio.wait_for(call, self.limit_s)
        except Unauthenticated:
            raise
        except (Forbidden, NotFound) as error:
            self.silences.heard(room)
            return Part(silent=Silent(room, None, str(error), asked_again=False))
        except TimeoutError:
            return Part(silent=Silent(room, self.silences.missed(room), instead, slow=room not in self.silences.away))
        except (Unavailable, httpx.HTTPError):
            self.silences.away.add(room)
            return Part(silent=Silent(room, self.silences.missed(room), instead))
        except ArcuateError as error:
            return Part(silent=Silent(room, self.silences.missed(room), error.what))
        self.silences.heard(room)
        return Part(value)

    async def get(self, path: str, query: Mapping[str, str | int] | None = None) -> Any:
        """Return the JSON of a room's own page (not FHIR); numbers as decimals."""
        return _body(await self._send("GET", path, params=dict(query or {})))

    async def get_bytes(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """Return a picture or a file of a room."""
        response = await self._send("GET", path, params=dict(query or {}))
        if not response.is_success:
            raise _fault(response)
        return response.content

    async def post(self, path: str, body: Json | None = None) -> Any:
        """Send JSON to a room and return what it answers."""
        return _body(await self._send("POST", path, json=body or {}))

    async def post_text(self, path: str, text: str) -> Any:
        """Send a message's text to a room and return what it answers."""
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        return _body(await self._send("POST", path, content=text.encode(), headers=headers))

    async def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            return await self.http.request(method, path, **given)
        except httpx.HTTPError as error:
            raise Unavailable("The room does not answer", where=path.split("?", maxsplit=1)[0]) from error


def _body(response: httpx.Response) -> Any:
    if not response.is_success:
        raise _fault(response)
    return json.loads(response.content, parse_float=Decimal) if response.content else {}


def _fault(response: httpx.Response) -> ArcuateError:
    try:
        outcome = json.loads(response.content)
    except ValueError:
        outcome = None
    return from_outcome(response.status_code, outcome if isinstance(outcome, dict) else None)
