"""Which rooms run here and how they are wired: the only place, beside the command line, that knows them all."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arcuate.kernel.auth import Authenticator, tokens
from arcuate.kernel.auth.client import RoomAuth
from arcuate.kernel.background import Loops
from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.db import Database, skew
from arcuate.kernel.errors import Conflict, NotFound, Unavailable
from arcuate.kernel.fhir import strict
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.settings import RoomSettings, SiteSettings
from arcuate.kernel.web import error_response

# Each room, with the path prefixes that it serves; the proxy of compose.yaml routes by the same table. The order is the order of opening.
PATHS: Mapping[str, tuple[str, ...]] = {
    "access": ("/auth",),
    "record": ("/fhir",),
    "gateway": ("/gateway",),
    "inference": ("/v2",),
    "imaging": ("/imaging", "/dicom-web"),
    "scheduling": ("/scheduling",),
    "protocoling": ("/protocoling", "/cds-services"),
    "assignment": ("/assignment",),
    "reporting": ("/reporting", "/mrrt"),
    "journey": ("/journey",),
    "dashboard": ("/",),
}
ROOMS = tuple(PATHS)
_NAME_AT = {prefix: name for name, prefixes in PATHS.items() for prefix in prefixes}  # each prefix is one segment
ISSUER = "urn:arcuate:access"

_ROOT = Path(__file__).resolve().parents[2]


class HouseSettings(BaseSettings):
    """Where the house stands."""

    model_config = SettingsConfigDict(env_prefix="ARCUATE_", frozen=True, extra="ignore")

    data_dir: Annotated[Path, "Folder of all data; one running house locks it."] = Path("data")
    host: Annotated[str, "Address on which the web pages and interfaces are served; loopback unless you change it."] = (
        "127.0.0.1"
    )
    port: Annotated[int, "Port of the web pages and interfaces."] = 8080
    database_url: Annotated[str, "PostgreSQL URL (one schema a room); empty: SQLite files in the data folder."] = ""
    house_url: Annotated[
        str, "Address of the reverse proxy through which a room reaches the rooms that run elsewhere."
    ] = ""
    public_url: Annotated[str, "Address that people use, for links; empty: made from host and port."] = ""
    models_dir: Annotated[Path, "Folder of the models."] = _ROOT / "models"
    templates_dir: Annotated[Path, "Folder of the report templates."] = _ROOT / "templates"
    log_level: Annotated[str, "Least severity that is logged: DEBUG, INFO, WARNING or ERROR."] = "WARNING"
    log_form: Annotated[str, "Form of the log: console (text) or json (one object a line)."] = "console"

    @property
    def address(self) -> str:
        """Return the address that people use."""
        return self.public_url or f"http://{self.host}:{self.port}"


@dataclass
class House:
    """The rooms that run in this program, and one web app over them.

    Attributes:
        rooms: Built rooms by name.
        app: Routes each request to its room by path.
        contexts: What each room was given; for tests and the command line.
    """

    settings: HouseSettings
    rooms: dict[str, Room] = field(default_factory=dict)
    contexts: dict[str, RoomContext] = field(default_factory=dict)

    @property
    def app(self) -> "PathRouter":
        """Return the web app of all rooms here."""
        return PathRouter(self)

    def room_at(self, path: str) -> Room | None:
        """Return the room here that serves a path (longest prefix)."""
        name = room_name_at(path)
        return self.rooms.get(name)

    def waiting(self) -> list[str]:
        """Return the reasons of rooms that are not ready."""
        return [f"{room.name}: {reason}" for room in self.rooms.values() if (reason := room.ready())]

    def stopped(self) -> list[str]:
        """Return which inner loops of the rooms have ended and are only just begun again."""
        return [f"{name}: {fault}" for name, context in self.contexts.items() if (fault := context.loops.fault())]


def room_name_at(path: str) -> str:
    """Return the name of the room that serves a path."""
    return _NAME_AT.get("/" + path[1:].partition("/")[0], "dashboard")


class PathRouter:
    """The web app of the house: hands a request to the room that its path names, unchanged."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await _no_lifespan(receive, send)
            return
        app = self._app_for(scope["path"])
        await app(scope, receive, send)

    def _app_for(self, path: str) -> ASGIApp:
        if path == "/health":
            stopped = self._house.stopped()
            seen = {"status": "not alive" if stopped else "alive", "rooms": list(self._house.rooms)}
            return JSONResponse({**seen, "reasons": stopped} if stopped else seen, 503 if stopped else 200)
        if path == "/ready":
            waiting = self._house.waiting()
            return JSONResponse(
                {"status": "waiting" if waiting else "ready", "reasons": waiting}, 503 if waiting else 200
            )
        room = self._house.room_at(path)
        if room is None and len(self._house.rooms) == 1:
            room = next(iter(self._house.rooms.values()))
        if room is None:
            return error_response(NotFound(f"The room {room_name_at(path)} does not run here"))
        return room.app


async def _no_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class _Parts(httpx.AsyncByteStream):
    """The body of an answer in process, in the parts in which the room gave it: tensors of many MB are not copied."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def kept_from(self, app: ASGIApp) -> ASGIApp:
        """Return the app with the bodies of its answers kept here instead of sent on."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def keep(message: Message) -> None:
                if message["type"] == "http.response.body" and scope["method"] != "HEAD":
                    self._parts.append(message.get("body", b""))
                    message = {**message, "body": b""}
                await send(message)

            await app(scope, receive, keep)

        return watched

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part

    async def aclose(self) -> None:
        """Let them go: a response and its stream hold each other until the garbage collector comes by."""
        self._parts.clear()


class HouseTransport(httpx.AsyncBaseTransport):
    """Carries a room's calls: in process where the other room runs here, else over HTTP through the proxy."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._outside: httpx.AsyncHTTPTransport | None = (
            None  # made when first needed: it reads the system's certificates
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        name = room_name_at(request.url.path)
        room = self._house.rooms.get(name)
        if room is not None:
            parts = _Parts()
            transport = httpx.ASGITransport(parts.kept_from(room.app), raise_app_exceptions=False)
            response = await transport.handle_async_request(request)
            response.stream = parts
            return response
        if not self._house.settings.house_url:
            raise Unavailable(
                f"The room {name} does not run here", todo="Set ARCUATE_HOUSE_URL to the address of the proxy."
            )
        base = httpx.URL(self._house.settings.house_url)
        request.url = request.url.copy_with(scheme=base.scheme, host=base.host, port=base.port)
        request.headers["Host"] = base.netloc.decode()
        if self._outside is None:
            self._outside = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=50))
        return await self._outside.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections to other programs."""
        if self._outside is not None:
            await self._outside.aclose()


@contextlib.asynccontextmanager
async def open_house(
    settings: HouseSettings, site: SiteSettings, *, rooms: Sequence[str] = ROOMS, clock: Clock | None = None,
    room_settings: Mapping[str, RoomSettings] | None = None, at_rest: Sequence[str] = (),
) -> AsyncIterator[House]:  # fmt: skip
    """Build and open rooms, with every door and worker; close them in reverse at exit.

    Args:
        rooms: Which rooms run here.
        room_settings: Settings of single rooms that differ from the environment.
        at_rest: Rooms that are built and not run: their doors stay closed.

    Raises:
        BadInput: The site states no time zone.
        Conflict: Another house uses the data folder.
    """
    _ = site.zone  # a site without a zone does not open
    clock = clock or SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        if not settings.database_url:  # replicas on PostgreSQL share work by leases instead
            stack.enter_context(locked(settings.data_dir, rooms))
        house = House(settings)
        transport = HouseTransport(house)
        stack.push_async_callback(transport.aclose)
        authenticator = Authenticator(_key_source(transport), ISSUER, clock)
        for name in sorted(rooms, key=ROOMS.index):
            context = _context(name, settings, site, clock, authenticator, transport)
            stack.callback(context.database.close)
            opener = import_module(f"arcuate.{name}.app").open_room
            house.rooms[name] = await opener(context, (room_settings or {}).get(name))
            house.contexts[name] = context
        if settings.database_url and isinstance(clock, SystemClock) and house.contexts:
            first = next(iter(house.contexts.values()))
            look = partial(skew.watch, first.database, clock, get_logger(first.name))
            await stack.enter_async_context(first.loops.run("clock", look))
        for name in [name for name in house.rooms if name not in at_rest]:
            await stack.enter_async_context(house.rooms[name].run())
        yield house


def _context(
    name: str,
    settings: HouseSettings,
    site: SiteSettings,
    clock: Clock,
    authenticator: Authenticator,
    transport: HouseTransport,
) -> RoomContext:
    folder = settings.data_dir.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    key = tokens.load_or_make_key(settings.data_dir.resolve() / "keys" / f"{name}.json", name)
    bare = httpx.AsyncClient(transport=transport, base_url="http://house", timeout=30)
    http = httpx.AsyncClient(
        transport=transport, base_url="http://house", timeout=60, auth=RoomAuth(name, key, bare, clock)
    )
    return RoomContext(
        name,
        folder,
        settings.models_dir,
        settings.templates_dir,
        clock,
        site,
        authenticator,
        http,
        database_of(name, settings),
        Loops(name),
    )


def database_of(name: str, settings: HouseSettings) -> Database:
    """Return the database of a room: its schema in PostgreSQL, or its own SQLite file."""
    if settings.database_url:
        return Database(settings.database_url, schema=name)
    return Database(f"sqlite:///{settings.data_dir.resolve() / name / (name + '.db')}")


def _key_source(transport: HouseTransport) -> Any:
    bare = httpx.AsyncClient(transport=transport, base_url="http://house", timeout=10)

    async def fetch() -> dict[str, Any]:
        try:
            response = await bare.get("/auth/jwks")
        except httpx.HTTPError as error:
            raise Unavailable("The access room does not answer, so no token can be checked") from error
        return strict.loads(response.content)

    return fetch


@contextlib.contextmanager
def locked(data_dir: Path, rooms: Sequence[str]) -> Iterator[None]:
    """Hold the data folder: the whole house one lock, a single room its own."""
    data_dir.mkdir(parents=True, exist_ok=True)
    names = ["house.lock"] if len(rooms) > 1 else [f"{rooms[0]}.lock"]
    held: list[IO[str]] = []
    file: IO[str]
    try:
        for name in names:
            file = (data_dir / name).open("a+", encoding="ascii")
            held.append(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise Conflict(
                    f"The data folder {data_dir} is in use by another Arcuate (process {file.read().strip() or 'unknown'})",
                    todo="Stop that one, or name another folder with --data.",
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield
    finally:
        for file in held:
            file.close()


async def wait_until_ready(house: House, limit_s: float = 60.0) -> None:
    """Wait until every room says that it is ready.

    Raises:
        Unavailable: Names the rooms that are not, and why.
    """
    async with contextlib.AsyncExitStack():
        for _ in range(round(limit_s / 0.05)):
            if not (waiting := house.waiting()):
                return
            await asyncio.sleep(0.05)
    raise Unavailable(f"Not ready after {limit_s:.0f} s: {'; '.join(waiting)}")
