"""The read of one resource, the question asked most: a route without the framework's machinery, with the same guard, answer and trail."""

import re
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from arcuate.kernel.web import Allow
from arcuate.record import http as door
from arcuate.record import service
from arcuate.record.policy import READERS
from arcuate.record.service import Record

_PATH = re.compile(r"/fhir/(?![_$])([^/]+)/(?![_$])([^/]+)\Z")
_OWN = frozenset({"AuditEvent"})  # has a route and rights of its own


class ReadRoute(BaseRoute):
    """`GET /fhir/{resource_type}/{logical_id}`."""

    path = "/fhir/{resource_type}/{logical_id}"
    methods = frozenset({"GET"})

    def __init__(self, record: Record) -> None:
        self._record = record
        self.guard = Allow(*READERS)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether this route serves a request."""
        if scope["type"] != "http" or scope["method"] != "GET":
            return Match.NONE, {}
        found = _PATH.match(scope["path"])
        if found is None or found[1] in _OWN:
            return Match.NONE, {}
        return Match.FULL, {"route": self, "path_params": {"resource_type": found[1], "logical_id": found[2]}}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Build no addresses: nobody asks for them by name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer: who calls, what stands there, the trail, the body."""
        request = Request(scope, receive, send)
        principal = await self.guard(request)
        asked = scope["path_params"]
        kind = door.known(self._record, asked["resource_type"])
        found = await service.read(self._record, principal, kind, door.logical(asked["logical_id"]))
        await door.version_response(found, request)(scope, receive, send)
