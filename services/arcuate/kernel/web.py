"""The web-app factory: default-deny authentication, errors as OperationOutcome, security headers, health, readiness, metrics."""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcuate.kernel.auth import Authenticator, Principal, Role
from arcuate.kernel.errors import (
    ArcuateError,
    BadInput,
    Defect,
    Forbidden,
    TooLarge,
    Unavailable,
    from_outcome,
    operation_outcome,
)
from arcuate.kernel.fhir import strict
from arcuate.kernel.log import get_logger

Json = dict[str, Any]

FHIR_JSON = "application/fhir+json"
OUTSIDE_BODY = 5 * 1024 * 1024
ROOM_BODY = 64 * 1024 * 1024

_FHIR_TYPE = (b"content-type", FHIR_JSON.encode())

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_SECURITY_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Allow:
    """The dependency that names who may use a route."""

    def __init__(self, *roles: Role) -> None:
        self.roles = roles

    async def __call__(self, request: Request) -> Principal:
        """Authenticate and check the role.

        Raises:
            Unauthenticated: No valid token.
            Forbidden: None of the roles is held.
        """
        authenticator: Authenticator = request.app.state.authenticator
        principal = await authenticator.authenticate(header(request, b"authorization"))
        request.state.principal = principal
        if not principal.may(*self.roles):
            needed = ", ".join(self.roles) or "room"
            raise Forbidden(f"This needs one of the roles: {needed}", todo="Ask an administrator for the role.")
        return principal


def header(request: Request, name: bytes) -> str | None:
    """Return a header by its name in small letters; the first where it stands several times."""
    for given, value in request.scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


async def _open() -> None:
    """Discovery, health and sign-in need no token."""


def allow(*roles: Role) -> Any:
    """Return the dependency for `dependencies=[...]` of a route; without a role only rooms are admitted."""
    return Depends(Allow(*roles))


open_to_all: Any = Depends(_open)


def principal_of(request: Request) -> Principal:
    """Return the caller whom `allow` has admitted."""
    principal: Principal = request.state.principal
    return principal


def unguarded_routes(app: FastAPI) -> list[str]:
    """Return the paths of routes that neither name a role nor are declared open."""
    found = []
    for route in app.routes:
        calls = (
            [d.call for d in route.dependant.dependencies]
            if isinstance(route, APIRoute)
            else [getattr(route, "guard", None)]
        )
        if not any(isinstance(call, Allow) or call is _open for call in calls):
            found.append(str(getattr(route, "path", route)))
    return found


async def read_body(request: Request, limit: int | None = None) -> bytes:
    """Return the body, refusing it as soon as it grows over the limit (callers from outside 5 MiB, rooms 64 MiB).

    Raises:
        TooLarge: More bytes than the limit.
    """
    if limit is None:
        principal: Principal | None = getattr(request.state, "principal", None)
        limit = ROOM_BODY if principal is not None and principal.is_room else OUTSIDE_BODY
    if int(header(request, b"content-length") or 0) > limit:
        raise TooLarge(f"The body is larger than {limit} bytes", todo="Send less at once.")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes", todo="Send less at once.")
        if part:  # the last one is empty: with it a body that came whole would be copied
            parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, limit: int | None = None) -> Json:
    """Return the body through the strict JSON gate.

    Raises:
        BadInput: It is no JSON object, or breaks a rule of the gate.
    """
    return strict.loads(await read_body(request, limit))


class FhirText(Response):
    """FHIR JSON that is text already, with headers that are bytes already: what is answered most."""

    def __init__(self, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [*headers, _FHIR_TYPE, (b"content-length", b"%d" % len(body))]


def fhir_response(resource: Json, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a resource as application/fhir+json, decimals digit for digit."""
    return Response(strict.dumps(resource), status_code=status, media_type=FHIR_JSON, headers=headers)


def error_response(error: ArcuateError) -> Response:
    """Return the OperationOutcome of an error with its HTTP status."""
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Unavailable) else None
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return fhir_response(operation_outcome(error), error.status, headers)


class QuickRoute(BaseRoute):
    """A route for what is asked most: served without the framework's machinery, with the same guard, errors, headers and counts.

    Args:
        method: One HTTP method.
        path: As the framework writes it, for listings and counts.
        pattern: Matches the whole path; its groups are given to the endpoint.
        guard: Who may.
        endpoint: Takes the request and the groups.
    """

    def __init__(
        self, method: str, path: str, pattern: str, guard: Allow, endpoint: Callable[..., Awaitable[Response]]
    ) -> None:
        self.methods = frozenset({method})
        self.path, self.guard, self.endpoint = path, guard, endpoint
        self.match = re.compile(pattern + r"\Z").match

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Leave to the framework what the app did not serve already."""
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Build no addresses: nobody asks for them by name."""
        raise NoMatchFound(name, path_params)


class _Counts:
    """Request counts and times by route (never by path)."""

    def __init__(self, requests: Counter, seconds: Histogram) -> None:
        self._requests, self._seconds = requests, seconds
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        known = self._known.get((route, method, status))
        if known is None:
            known = self._requests.labels(route, method, status), self._seconds.labels(route)
            self._known[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)


class RoomApp(FastAPI):
    """A room's web app; its quick routes are looked at before the framework's."""

    counts: _Counts
    room: str = ""

    def add_quick(self, route: QuickRoute) -> None:
        """Add a quick route."""
        self.router.routes.append(route)
        for method in route.methods:
            self._quick.setdefault(method, []).append(route)

    def __init__(self, **settings: Any) -> None:
        self._quick: dict[str, list[QuickRoute]] = {}
        super().__init__(**settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            for route in self._quick.get(scope["method"], ()):
                if found := route.match(scope["path"]):
                    await self._serve(route, found.groups(), scope, receive, send)
                    return
        await super().__call__(scope, receive, send)

    async def _serve(
        self, route: QuickRoute, asked: tuple[str, ...], scope: Scope, receive: Receive, send: Send
    ) -> None:
        began, status = time.perf_counter(), 500
        scope["app"] = self
        request = Request(scope, receive, send)
        try:
            try:
                await route.guard(request)
                response = await route.endpoint(request, *asked)
            except ArcuateError as error:
                response = error_response(error)
            except Exception as error:  # noqa: BLE001 - told with a number under which the log names it
                response = _defect_response(self.room, error, route.path)
            status = response.status_code
            response.raw_headers += _SECURITY_HEADERS
            await response(scope, receive, send)
        finally:
            self.counts.count(route.path, scope["method"], status, time.perf_counter() - began)


class _Guarded:
    """Outermost layer: security headers on every answer, counts."""

    def __init__(self, app: ASGIApp, counts: _Counts) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [*message.get("headers", ())]
                names = {name for name, _ in given}
                message["headers"] = given + [header for header in _SECURITY_HEADERS if header[0] not in names]
            await send(message)

        try:
            await self._app(scope, receive, secured)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            self._counts.count(route, scope["method"], status, time.perf_counter() - began)


def create_app(context: Any, title: str, ready: Callable[[], str | None] | None = None) -> RoomApp:
    """Return a room's web app with the routes that every room has.

    Args:
        context: The room's `RoomContext`.
        title: Name of the room's interface.
        ready: Returns None, or the reason why the room is not ready.
    """
    app = RoomApp(title=title, docs_url=None, redoc_url=None, openapi_url=None, default_response_class=JSONResponse)
    app.state.authenticator = context.authenticator
    registry = CollectorRegistry()
    app.state.metrics = registry
    requests = Counter(
        "arcuate_requests_total", "Requests by route and status.", ["route", "method", "status"], registry=registry
    )
    seconds = Histogram(
        "arcuate_request_seconds", "Seconds from request to answer, by route.", ["route"], registry=registry
    )
    app.counts, app.room = _Counts(requests, seconds), context.name
    app.add_middleware(_Guarded, counts=app.counts)
    _add_error_handlers(app, context.name)

    @app.get("/health", dependencies=[open_to_all])
    async def health() -> Response:
        if fault := context.loops.fault():
            return JSONResponse({"status": "not alive", "room": context.name, "reason": fault}, 503)
        return JSONResponse({"status": "alive", "room": context.name})

    @app.get("/ready", dependencies=[open_to_all])
    async def readiness() -> Response:
        reason = ready() if ready else None
        return JSONResponse({"status": "waiting" if reason else "ready", "reason": reason}, 503 if reason else 200)

    @app.get("/metrics", dependencies=[allow(Role.INTEGRATION, Role.QUALITY, Role.ADMIN)])
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _add_error_handlers(app: FastAPI, room: str) -> None:
    @app.exception_handler(ArcuateError)
    async def known(_request: Request, error: ArcuateError) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        # The values are left out: they can hold patient data.
        first = error.errors()[0]
        return error_response(
            BadInput(str(first.get("msg", "Invalid request")), where=".".join(str(p) for p in first.get("loc", ())))
        )

    @app.exception_handler(HTTPException)
    async def http(_request: Request, error: HTTPException) -> Response:
        return error_response(from_outcome(error.status_code, {"issue": [{"diagnostics": str(error.detail)}]}))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        return _defect_response(room, error, getattr(request.scope.get("route"), "path", ""))


def _defect_response(room: str, error: Exception, route: str) -> Response:
    number = secrets.token_hex(4)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno}" if trace is not None else ""
    get_logger(room).error("defect", number=number, error=type(error).__name__, where=where, route=route)
    return error_response(
        Defect(f"Something is wrong in this software; reference {number}", todo="Tell whoever runs it this reference.")
    )
