"""What the commands do: running the house, sign-in links, tokens, the journal, measuring from a folder."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from pydantic_settings import BaseSettings

from arcuate.house import ISSUER, ROOMS, House, HouseSettings, database_of, open_house, wait_until_ready
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.auth.roles import PEOPLE
from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.errors import BadInput, Conflict, NotFound
from arcuate.kernel.log import configure_logging
from arcuate.kernel.settings import RoomSettings, SettingLine, SiteSettings, describe

if TYPE_CHECKING:
    from arcuate.gateway.backfill import Counts, Standing

Say = Callable[[str], None]

_ADDRESS = "address"
"""File of the data folder: where the pages of the house that ran there last are found."""


async def run_house(
    settings: HouseSettings, *, rooms: Sequence[str] = ROOMS, mllp_port: int | None = None, dicom_port: int | None = None, say: Say,
) -> None:  # fmt: skip
    """Run rooms until the program is told to stop (SIGTERM, Ctrl-C)."""
    configure_logging(settings.log_level, settings.log_form)
    site = SiteSettings()
    first_start = not (settings.data_dir / "access" / "access.db").exists() and not settings.database_url
    async with running(settings, site, rooms=rooms, room_settings=ports(mllp_port, dicom_port)) as (house, server):
        if "access" in house.rooms and first_start:
            say(f"Address       {settings.address}")
            say(f"Data          {settings.data_dir.resolve()}")
            say(f"Sign in once  {await new_link(house, settings)}")
        elif len(rooms) > 1:
            say(f"Address       {settings.address}   (arcuate signin prints a sign-in link)")
        say("ready")
        await server


def ports(mllp_port: int | None, dicom_port: int | None) -> dict[str, RoomSettings]:
    """Return the settings of the rooms whose ports were named on the command line."""
    from arcuate.gateway.settings import GatewaySettings
    from arcuate.imaging.settings import ImagingSettings

    named: dict[str, RoomSettings] = {}
    if mllp_port is not None:
        named["gateway"] = GatewaySettings(port=mllp_port)
    if dicom_port is not None:
        named["imaging"] = ImagingSettings(port=dicom_port)
    return named


@contextlib.asynccontextmanager
async def running(
    settings: HouseSettings, site: SiteSettings, *, rooms: Sequence[str] = ROOMS, clock: Clock | None = None,
    room_settings: dict[str, RoomSettings] | None = None,
) -> AsyncIterator[tuple[House, "asyncio.Task[None]"]]:  # fmt: skip
    """Open a house with its web server; yields once every door is open. The task ends when the program is told to stop."""
    listening = bind(settings.host, settings.port)
    async with open_house(settings, site, rooms=rooms, clock=clock, room_settings=room_settings) as house:
        config = uvicorn.Config(
            house.app,
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=5,
            server_header=False,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            await wait_until_ready(house)
            if "dashboard" in rooms:
                (settings.data_dir / _ADDRESS).write_text(settings.address, encoding="utf-8")
            yield house, serving
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """A server that ends by itself when it is told to: the doors are closed in order and the program exits with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and Ctrl-C as the wish to end; uvicorn's own handling raises them again afterwards."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, self, "should_exit", True)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        Conflict: The port is in use, or not ours to open.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        why = (
            "is used by another program" if error.errno == errno.EADDRINUSE else f"cannot be opened ({error.strerror})"
        )
        raise Conflict(
            f"Port {port} on {host} {why}", todo="Stop that program, or choose another port with --port."
        ) from error
    listening.listen(256)
    return listening


async def new_link(house: House, settings: HouseSettings) -> str:
    """Return a one-time sign-in link of the first administrator."""
    from arcuate.access import service

    access = house.rooms["access"].app.state.access
    person = await service.first_person(access, [str(role) for role in PEOPLE])
    return f"{settings.address}/sign-in?token={await service.new_link(access, person.id)}"


async def sign_in_link(settings: HouseSettings) -> str:
    """Return a new one-time link of the first administrator, from the data folder."""
    from arcuate import access as package
    from arcuate.access import service
    from arcuate.access.settings import AccessSettings

    _existing(settings)
    database = database_of("access", settings)
    try:
        database.migrate(package)
        access = service.make(database, SystemClock(), AccessSettings(), settings.data_dir.resolve() / "keys")
        person = await service.first_person(access, [str(role) for role in PEOPLE])
        told = settings.data_dir / _ADDRESS
        address = told.read_text(encoding="utf-8") if told.exists() else settings.address
        return f"{address}/sign-in?token={await service.new_link(access, person.id)}"
    finally:
        database.close()


def script_token(settings: HouseSettings, role: str, lifetime: timedelta) -> str:
    """Return a bearer token of a role, signed with the house's key (whoever can read the key may).

    Raises:
        BadInput: No such role.
    """
    if role not in {str(known) for known in PEOPLE}:
        raise BadInput(f"There is no role {role!r}", todo=f"Roles are: {', '.join(PEOPLE)}.")
    _existing(settings)
    key = tokens.load_or_make_key(settings.data_dir.resolve() / "keys" / "access-signing.json", "access")
    principal = Principal("script", frozenset({Role(role)}), "script", "Script")
    return tokens.issue(key, ISSUER, principal, SystemClock().now(), int(lifetime.total_seconds()))


def _existing(settings: HouseSettings) -> None:
    if not (settings.data_dir / "keys").is_dir():
        raise NotFound(
            f"No house has run with {settings.data_dir.resolve()}",
            todo="Start one with: arcuate up, or name its folder with --data.",
        )


def journal_lines(settings: HouseSettings) -> Iterator[str]:
    """Yield one line a frame that came in."""
    from arcuate.gateway import journal

    _existing(settings)
    with contextlib.closing(database_of("gateway", settings)) as database:
        yield from journal.lines(database)


def journal_bytes(settings: HouseSettings, number: int) -> bytes:
    """Return one frame, byte for byte."""
    from arcuate.gateway import journal

    _existing(settings)
    with contextlib.closing(database_of("gateway", settings)) as database:
        return journal.raw(database, number)


def journal_export(settings: HouseSettings, folder: Path) -> int:
    """Write every frame to a folder; returns how many."""
    from arcuate.gateway import journal

    _existing(settings)
    with contextlib.closing(database_of("gateway", settings)) as database:
        return journal.export(database, folder)


async def backfill(
    settings: HouseSettings, paths: Sequence[Path], mapping: Path | None, source: str, watch: "Callable[[Counts], None]"
) -> "tuple[Counts, Standing]":  # fmt: skip
    """Read past years into the journal; a running house maps them, else this program does, with every door closed.

    Raises:
        BadInput: A path or the mapping of columns cannot be read.
    """
    from arcuate.gateway import columns, profile
    from arcuate.gateway.backfill import Backfill, Working
    from arcuate.gateway.settings import GatewaySettings

    site, own = SiteSettings(), GatewaySettings()
    table = columns.load(mapping, site.zone) if mapping is not None else None
    async with contextlib.AsyncExitStack() as stack:
        working, database = None, None
        try:
            rooms = ("access", "record", "gateway")
            house = await stack.enter_async_context(open_house(settings, site, rooms=rooms, at_rest=("gateway",)))
            parts = house.rooms["gateway"].app.state.parts
            working, database = Working(parts.sorter, parts.mapper), house.contexts["gateway"].database
        except Conflict:  # the folder is in use: the house that runs there does the work
            database = stack.enter_context(contextlib.closing(database_of("gateway", settings)))
        run = Backfill(database, profile.load(own.profiles_dir), SystemClock(), own.processed_bytes, working, watch)
        return run.counts, await run.run(paths, table, source)


def all_settings() -> Iterator[tuple[str, list[SettingLine]]]:
    """Yield every setting, by room."""
    groups: list[tuple[str, BaseSettings]] = [("site", SiteSettings()), ("house", HouseSettings())]
    for room in (*ROOMS, "hospital"):
        module = import_module(f"arcuate.{room}.settings")
        groups += [
            (room, kind())
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, RoomSettings) and kind.__module__ == module.__name__
        ]
    for name, group in groups:
        yield name, list(describe(group))
