"""The HL7 door and where it runs: in a process of its own, so that nothing else in the house delays an acknowledgement.

The gateway's program opens the listening socket and hands it to the child; if the child dies, the next one takes the same socket and
senders at the most find their connection closed. The child tells on its standard output what the program must know (there is
something to sort; who is connected), and ends when its standard input does: asked by a line `stop` it first answers what it has.

A clock that is not the machine's (tests) cannot be handed to another process: then the same door runs in this one.
"""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop
from sqlalchemy import make_url

from arcuate.gateway import profile
from arcuate.gateway.arrivals import SqliteKeeper
from arcuate.gateway.intake import Intake
from arcuate.gateway.keeper import Keeper, PostgresKeeper
from arcuate.gateway.listener import Listener
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.log import configure_logging, get_logger

_BACKLOG = 256
_TELL_S = 0.25
_WAKE_S = 0.005  # at most so often, so that a burst costs the program no wake-up a message
_AGAIN_S = (0.1, 0.5, 2.0, 5.0)
_LIVED_S = 60.0  # after so long the next one is opened at once
_START_S = 120.0
_DISC_FAILED = os.EX_IOERR  # the door's exit code; whoever reads the log sees why it was opened again
_STOP_S = 20.0
_REOPENED = "The HL7 door ended and is being opened again"


@dataclass(frozen=True)
class Seen:
    """What people may know of the door: open connections by address, counts of what was no whole frame, and what is wrong."""

    open: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a door keeps what it takes."""

    url: str
    schema: str | None
    spool_dir: Path


class Door(Protocol):
    """A door that can be opened and looked at."""

    port: int

    @property
    def seen(self) -> Seen:
        """Return what people may know of it."""
        ...

    def open(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Take messages until the context is left.

        Raises:
            OSError: The port cannot be opened.
            Unavailable: The door's process does not come up.
        """
        ...


def make(place: Place, settings: GatewaySettings, clock: Clock, on_stored: Callable[[], None]) -> Door:
    """Return the room's door; `on_stored` is called when there is something to sort."""
    if isinstance(clock, SystemClock):
        return ProcessDoor(place, settings, on_stored)
    return LocalDoor(place, settings, clock, on_stored)


class LocalDoor:
    """The door in this process, on this loop and clock.

    Args:
        on_distrust: Called when the disc has failed; without it the door goes on with new handles.
    """

    def __init__(
        self, place: Place, settings: GatewaySettings, clock: Clock, on_stored: Callable[[], None],
        on_distrust: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.keeper, self._place = _keeper(place), place
        profiles = profile.load(settings.profiles_dir)
        self.intake = Intake(self.keeper, profiles, settings, clock, on_stored, on_distrust or self._open_again)
        self.listener = Listener(self.intake, settings, clock, place.spool_dir)
        self.port = 0
        self._settings = settings

    @property
    def seen(self) -> Seen:
        """Return who is connected now."""
        listener = self.listener
        addresses = Counter(one.address for one in listener.connections)
        fault = self.intake.storage_fault
        return Seen(
            addresses, dict(listener.counts), f"The last message could not be stored: {fault}" if fault else None
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take messages until the context is left."""
        with _bind(self._settings) as socket_:
            self.port = socket_.getsockname()[1]
            async with self.serve(socket_):
                yield

    def _open_again(self) -> None:
        self.keeper.close()
        self.keeper = self.intake.keeper = _keeper(self._place)

    @contextlib.asynccontextmanager
    async def serve(self, listening: socket.socket) -> AsyncIterator[None]:
        """Take messages from a socket that somebody else has opened."""
        try:
            async with self.listener.open(listening):
                yield
        finally:
            self.keeper.close()


class ProcessDoor:
    """The door in a child process, opened again whenever it ends by itself."""

    def __init__(self, place: Place, settings: GatewaySettings, on_stored: Callable[[], None]) -> None:
        self._place, self._settings, self._on_stored = place, settings, on_stored
        self.port = 0
        self.seen = Seen()
        self._log = get_logger("gateway")
        self._ready = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take messages until the context is left."""
        with _bind(self._settings) as listening:
            self.port = listening.getsockname()[1]
            stop = asyncio.Event()
            watching = asyncio.create_task(self._watch(listening, stop))
            try:
                await self._opened()
                yield
            finally:
                stop.set()
                await watching

    async def _opened(self) -> None:
        try:
            async with asyncio.timeout(_START_S):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable(f"The HL7 door did not open within {_START_S:.0f} s", todo="The log says why.") from None

    async def _watch(self, listening: socket.socket, stop: asyncio.Event) -> None:
        attempt, loop = 0, asyncio.get_running_loop()
        while True:
            began = loop.time()
            child = await self._start(listening)
            lines = asyncio.create_task(self._listen(child))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((lines, stopping), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if stop.is_set():
                await self._end(child, lines)
                return
            await child.wait()
            self.seen = Seen(counts=self.seen.counts, fault=_REOPENED)
            self._log.error("the HL7 door ended", code=child.returncode)
            attempt = 0 if loop.time() - began > _LIVED_S else attempt
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S[min(attempt, len(_AGAIN_S) - 1)]):
                    await stop.wait()
            attempt += 1
            if stop.is_set():
                return

    async def _start(self, listening: socket.socket) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "arcuate.gateway.door", str(listening.fileno()), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, pass_fds=(listening.fileno(),),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )  # fmt: skip
        assert child.stdin is not None
        config = {
            "url": self._place.url,
            "schema": self._place.schema,
            "spool_dir": str(self._place.spool_dir),
            "settings": self._settings.model_dump(mode="json"),
        }
        child.stdin.write(json.dumps(config).encode() + b"\n")
        return child

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while line := await child.stdout.readline():
            if line == b"stored\n":
                self._on_stored()
                continue
            said = json.loads(line)
            self.seen = Seen(said["open"], said["counts"], said["fault"])
            self._ready.set()

    async def _end(self, child: asyncio.subprocess.Process, lines: "asyncio.Task[None]") -> None:
        assert child.stdin is not None
        with contextlib.suppress(ConnectionError):
            child.stdin.write(b"stop\n")
            await child.stdin.drain()
        try:
            async with asyncio.timeout(_STOP_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
        await lines


def _keeper(place: Place) -> Keeper:
    """Return what keeps frames for a door; the room's database is migrated already."""
    url = make_url(place.url)
    if url.get_backend_name() == "sqlite":
        return SqliteKeeper(Path(url.database or ""))
    return PostgresKeeper(url.set(drivername="postgresql").render_as_string(hide_password=False), place.schema)


def _bind(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)


class _Teller:
    """Tells the program on standard output; a program that does not read misses nothing that it cannot ask the journal."""

    def __init__(self) -> None:
        self._waiting = False
        self._last = 0.0
        os.set_blocking(1, False)

    def stored(self) -> None:
        """Say that there is something to sort, at once after a quiet time and otherwise bundled."""
        if self._waiting:
            return
        loop = asyncio.get_running_loop()
        pause = self._last + _WAKE_S - loop.time()
        if pause <= 0:
            self._tell()
        else:
            self._waiting = True
            loop.call_later(pause, self._tell)

    def _tell(self) -> None:
        self._waiting, self._last = False, asyncio.get_running_loop().time()
        self.say(b"stored\n")

    def say(self, line: bytes) -> None:
        """Write one line, or leave it when the pipe is full."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(1, line)


async def _child(listening: socket.socket) -> None:
    commands = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    config: dict[str, Any] = json.loads(await commands.readline())
    place = Place(config["url"], config["schema"], Path(config["spool_dir"]))
    teller = _Teller()
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.call_later(
            0.1, os._exit, _DISC_FAILED
        )  # the refusals are on their way; the next door looks at the file anew

    door = LocalDoor(place, GatewaySettings(**config["settings"]), SystemClock(), teller.stored, end)
    gc.collect()
    gc.freeze()  # what stands now stands until the end: it is not looked at again and again between two messages
    async with door.serve(listening):
        telling = asyncio.create_task(_tell(door, teller))
        asked = await commands.readline()
        telling.cancel()
        if asked != b"stop\n":
            os._exit(1)  # the program is gone: what is not committed was not acknowledged either


async def _tell(door: LocalDoor, teller: _Teller) -> None:
    said = b""
    while True:
        seen = door.seen
        line = json.dumps({"open": seen.open, "counts": seen.counts, "fault": seen.fault}).encode() + b"\n"
        if line != said:
            teller.say(line)
            said = line
        await asyncio.sleep(_TELL_S)


def main() -> None:
    """Be the child: the number of the listening socket is the argument, the rest comes on standard input."""
    configure_logging()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_IGN
        )  # a terminal's Ctrl-C reaches the whole group; the program says when to stop
    uvloop.run(_child(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
