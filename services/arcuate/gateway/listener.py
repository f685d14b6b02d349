"""MLLP connections, their limits and the order of answers. What a frame means is decided by `intake`."""

import asyncio
import contextlib
import socket
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from arcuate.gateway.domain import Answer
from arcuate.gateway.intake import Intake
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.spool import Spool
from arcuate.kernel.background import Loops
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import StorageFault
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.hl7v2.mllp import HEAD_BYTES, Event, Framed, FramedSpooled, FrameReader, Incomplete, TooLarge
from arcuate.kernel.log import get_logger

_READ_AHEAD = 64  # frames that wait on one connection before its sender is no longer read
_TICK_S = 0.25
_DRAIN_S = 10.0


class Listener:
    """Takes frames from all senders."""

    def __init__(self, intake: Intake, settings: GatewaySettings, clock: Clock, spool_dir: Path) -> None:
        self.intake, self.settings, self.clock, self.spool_dir = intake, settings, clock, spool_dir
        self.counts: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.log = get_logger("gateway")

    @contextlib.asynccontextmanager
    async def open(self, door: socket.socket) -> AsyncIterator[None]:
        """Take connections from a listening socket until the context is left; what has arrived whole by then is stored and answered."""
        server = await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=door)
        async with Loops("gateway").run("clock of the connections", self._sweep):
            try:
                yield
            finally:
                server.close()
                await self._drain()

    async def _drain(self) -> None:
        for connection in list(self.connections):
            connection.stop_reading()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                for connection in list(self.connections):
                    await connection.at_rest.wait()
        for connection in list(self.connections):
            connection.close()

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
        try:
            self.intake.keeper.note(self.clock.now(), peer, kind, size, raw)
        except StorageFault as error:
            self.log.warning("transport note not kept", kind=kind, reason=error.what)


class Connection(asyncio.Protocol):
    """One sender: frames in, answers out in the same order."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.address = ""
        self.at_rest = asyncio.Event()
        self.at_rest.set()
        self._transport: Any = None
        settings = listener.settings
        self._reader = FrameReader(settings.processed_bytes, settings.spooled_bytes, lambda: Spool(listener.spool_dir))
        self._waiting: deque[Event] = deque()
        self._unanswered = 0
        self._spooling: asyncio.Task[None] | None = None
        self._heard = self._begun = listener.clock.monotonic()
        self._reading = self._writable = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the sender, or close at once."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "unknown"
        if not self.listener.admit(self.address):
            self.listener.keep_note("refused", self.address, 0, b"")
            self._transport.abort()
            return
        self.listener.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; whole frames are stored and answered in their order."""
        begun = self._reader.frames_begun
        self._heard = self.listener.clock.monotonic()
        self._take(self._reader.feed(data))
        if self._reader.frames_begun != begun:
            self._begun = self._heard

    def eof_received(self) -> bool:
        """The sender has said all: what it sent whole is still answered."""
        self._take(self._reader.finish())
        self._closing = True
        self._rest()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep what was begun; what arrived whole is still stored."""
        self._transport, self._writable = None, True
        self._take(self._reader.finish())
        self.listener.connections.discard(self)
        if self._reader.skipped:
            self.listener.keep_note("outside frames", self.address, self._reader.skipped, b"")

    def pause_writing(self) -> None:
        """The sender does not read its answers: nothing more of it is stored until it does."""
        self._writable = False

    def resume_writing(self) -> None:
        """It reads again."""
        self._writable = True
        self._store()

    def look_at_the_clock(self, now: float) -> None:
        """Close what takes too long; complete a frame that has its end block but for the carriage return."""
        settings = self.listener.settings
        if self._reader.ending and now - self._heard >= settings.pause_s:
            self._take(self._reader.pause())
        elif self._reader.begun and now - self._begun >= settings.frame_s:
            self.listener.log.warning("connection closed: a frame did not end", peer=self.address)
            self._take(self._reader.finish())
            self.close()
        elif not self._reader.begun and self.at_rest.is_set() and now - self._heard >= settings.idle_s:
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

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Incomplete):
                self.listener.keep_note("incomplete", self.address, event.size, event.payload[:HEAD_BYTES])
            else:
                self._waiting.append(event)
        self._store()

    def _store(self) -> None:
        """Hand frames on in order; one that lies in a spool file holds up those behind it until it is on the disc."""
        intake = self.listener.intake
        while self._waiting and self._writable and self._spooling is None and self._unanswered < _READ_AHEAD:
            event = self._waiting.popleft()
            self._unanswered += 1
            self.at_rest.clear()
            if isinstance(event, Framed):
                intake.take(event.payload, self.address, self._answer)
            elif isinstance(event, FramedSpooled):
                self._spooling = asyncio.get_running_loop().create_task(self._spool(event))
            else:
                assert isinstance(event, TooLarge)
                intake.refuse(event.head, event.size, self.address, self._refused)
        if len(self._waiting) > _READ_AHEAD and self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def _refused(self, answer: Answer, own: bool) -> None:
        self._answer(replace(answer, close=True), own)

    def _answer(self, answer: Answer, own: bool) -> None:
        """Write the answer to the oldest frame that has none."""
        self._unanswered -= 1
        if answer.wire and self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer.wire)
        if answer.close:
            self._waiting.clear()
            self.close()
        self._store()
        if not self._reading and len(self._waiting) <= _READ_AHEAD // 2 and not self._closing and self._transport:
            self._reading = True
            self._transport.resume_reading()
        self._rest()

    def _rest(self) -> None:
        if not self._unanswered and not self._waiting:
            self.at_rest.set()
            if self._closing:
                self.close()

    async def _spool(self, event: FramedSpooled) -> None:
        spool, intake = event.spool, self.listener.intake
        assert isinstance(spool, Spool)
        try:
            await asyncio.to_thread(spool.keep)
            digest = await asyncio.to_thread(spool.digest, event.head)
        except OSError as error:
            spool.discard()
            self.listener.log.error("frame not spooled", error=type(error).__name__)
            self._spooling = None
            self._answer(intake.not_stored(headers.read(event.head), error), False)
            return

        def answered(answer: Answer, own: bool) -> None:
            if not own:
                spool.discard()
            self._spooling = None
            self._answer(answer, own)

        intake.take_spooled(spool.name, event.head, event.size, digest, self.address, answered)
