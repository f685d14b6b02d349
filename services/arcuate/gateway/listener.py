"""The MLLP door: connections, their limits and the order of answers. What a frame means is decided by `intake`."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from arcuate.gateway.domain import Answer
from arcuate.gateway.intake import Intake
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.spool import Spool
from arcuate.kernel.clock import Clock
from arcuate.kernel.hl7v2.mllp import HEAD_BYTES, Event, Framed, FramedSpooled, FrameReader, Incomplete, TooLarge
from arcuate.kernel.log import get_logger

_READ_AHEAD = 64  # frames that wait on one connection before its sender is no longer read
_TICK_S = 0.25
_DRAIN_S = 10.0

Note = Callable[[str, str, int, bytes], Awaitable[None]]


@dataclass
class Peer:
    """One connection, for people."""

    address: str
    since: datetime
    sender: str = ""
    frames: int = 0


class Listener:
    """Takes frames from all senders.

    Args:
        note: Keeps what is no whole frame: kind, peer, size, bytes.
    """

    def __init__(self, intake: Intake, settings: GatewaySettings, clock: Clock, spool_dir: Path, note: Note) -> None:
        self.intake, self.settings, self.clock, self.spool_dir = intake, settings, clock, spool_dir
        self.note = note
        self.counts: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.port = 0
        self._notes: set[asyncio.Task[None]] = set()
        self.log = get_logger("gateway")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Listen until the context is left; what has arrived whole by then is stored and answered."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), self.settings.host, self.settings.port, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            server.close()
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
            await self._drain()

    async def _drain(self) -> None:
        for connection in list(self.connections):
            connection.stop_reading()
        working = [connection.worker for connection in list(self.connections) if connection.worker is not None]
        if working:
            await asyncio.wait(working, timeout=_DRAIN_S)
        for connection in list(self.connections):
            connection.close()
        if self._notes:
            await asyncio.wait(list(self._notes), timeout=_DRAIN_S)

    async def _sweep(self) -> None:
        """One timer for all: begun frames, pauses, idle connections. The monotonic clock decides (row 017)."""
        while True:
            await self.clock.sleep(_TICK_S)
            now = self.clock.monotonic()
            for connection in list(self.connections):
                connection.look_at_the_clock(now)

    def admit(self, address: str) -> bool:
        """Say whether one more connection from this address is within the limits."""
        same = sum(connection.address == address for connection in self.connections)
        return len(self.connections) < self.settings.connections and same < self.settings.connections_per_address

    def keep_note(self, kind: str, peer: str, size: int, raw: bytes) -> None:
        """Count and keep what is no whole frame."""
        self.counts[kind] += 1
        task = asyncio.get_running_loop().create_task(self._note(kind, peer, size, raw))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _note(self, kind: str, peer: str, size: int, raw: bytes) -> None:
        try:
            await self.note(kind, peer, size, raw)
        except Exception as error:  # noqa: BLE001 - a note that cannot be kept must not end the door
            self.log.warning("transport note not kept", kind=kind, error=type(error).__name__)


class Connection(asyncio.Protocol):
    """One sender: frames in, answers out in the same order."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.address = ""
        self.worker: asyncio.Task[None] | None = None
        self.peer = Peer("", listener.clock.now())
        self._transport: Any = None
        settings = listener.settings
        self._reader = FrameReader(settings.processed_bytes, settings.spooled_bytes, lambda: Spool(listener.spool_dir))
        self._waiting: deque[Event] = deque()
        self._heard = self._begun = listener.clock.monotonic()
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the sender, or close at once."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = self.peer.address = str(peer[0]) if peer else "unknown"
        if not self.listener.admit(self.address):
            self.listener.keep_note("refused", self.address, 0, b"")
            self._transport.abort()
            return
        self.listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; whole frames go to the worker."""
        begun = self._reader.frames_begun
        self._heard = self.listener.clock.monotonic()
        self._take(self._reader.feed(data))
        if self._reader.frames_begun != begun:
            self._begun = self._heard

    def eof_received(self) -> bool:
        """The sender has said all: what it sent whole is still answered."""
        self._take(self._reader.finish())
        self._closing = True
        if self.worker is None:
            self.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep what was begun, let the worker finish its commit."""
        self._take(self._reader.finish(), lost=True)
        self.listener.connections.discard(self)
        self._writable.set()
        if self._reader.skipped:
            self.listener.keep_note("outside frames", self.address, self._reader.skipped, b"")
        if self.worker is None:
            self._transport = None

    def pause_writing(self) -> None:
        """The sender does not read its answers."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable.set()

    def look_at_the_clock(self, now: float) -> None:
        """Close what takes too long; complete a frame that has its end block but for the carriage return."""
        settings = self.listener.settings
        if self._reader.ending and now - self._heard >= settings.pause_s:
            self._take(self._reader.pause())
        elif self._reader.begun and now - self._begun >= settings.frame_s:
            self.listener.log.warning("connection closed: a frame did not end", peer=self.address)
            self._take(self._reader.finish())
            self.close()
        elif not self._reader.begun and self.worker is None and now - self._heard >= settings.idle_s:
            self.close()

    def stop_reading(self) -> None:
        """Take nothing more (the house closes)."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._closing = True

    def close(self) -> None:
        """Close after what is written."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def _take(self, events: list[Event], *, lost: bool = False) -> None:
        for event in events:
            if isinstance(event, Incomplete):
                self.listener.keep_note("incomplete", self.address, event.size, event.payload[:HEAD_BYTES])
            else:
                self._waiting.append(event)
        if self._waiting and self.worker is None:
            self.worker = asyncio.get_running_loop().create_task(self._work())
        if len(self._waiting) > _READ_AHEAD and self._reading and not lost:
            self._reading = False
            self._transport.pause_reading()

    async def _work(self) -> None:
        """Store and answer one frame after the other."""
        try:
            while self._waiting:
                answer = await self._handle(self._waiting.popleft())
                self.peer.frames += 1
                await self._writable.wait()
                if answer.wire and self._transport is not None and not self._transport.is_closing():
                    self._transport.write(answer.wire)
                if answer.close:
                    self._waiting.clear()
                    self.close()
                    return
                if not self._reading and len(self._waiting) <= _READ_AHEAD // 2 and not self._closing:
                    self._reading = True
                    self._transport.resume_reading()
            if self._closing:
                self.close()
        finally:
            self.worker = None

    async def _handle(self, event: Event) -> Answer:
        intake, address = self.listener.intake, self.address
        if isinstance(event, Framed):
            return await intake.take(event.payload, address)
        if isinstance(event, FramedSpooled):
            return await self._spooled(event)
        assert isinstance(event, TooLarge)
        return replace(await intake.refuse(event.head, event.size, address), close=True)

    async def _spooled(self, event: FramedSpooled) -> Answer:
        spool = event.spool
        assert isinstance(spool, Spool)
        try:
            await asyncio.to_thread(spool.keep)
            digest = await asyncio.to_thread(spool.digest, event.head)
        except OSError as error:
            spool.discard()
            self.listener.log.error("frame not spooled", error=type(error).__name__)
            return self.listener.intake.not_stored(event.head, error)
        intake = self.listener.intake
        answer, referred = await intake.take_spooled(spool.name, event.head, event.size, digest, self.address)
        if not referred:
            spool.discard()
        return answer
