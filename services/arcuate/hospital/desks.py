"""Where the hospital listens: the dictation system, a receiver of signed reports, and the RIS's inbox, each an MLLP port.

Every message is acknowledged with `AA` and handed on; what it means is for `dictation.py` and `play.py`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from arcuate.kernel.clock import Clock
from arcuate.kernel.hl7v2 import ack, header
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, frame

Handler = Callable[[bytes], Awaitable[None]]

_NUMBERS = itertools.count(1)


@dataclass
class Desk:
    """One MLLP port that acknowledges and hands on; until a handler is set, messages wait in `inbox`."""

    name: str
    clock: Clock
    port: int = 0
    handler: Handler | None = None
    inbox: list[bytes] = field(default_factory=list)
    received: int = 0

    async def attach(self, handler: Handler) -> None:
        """Give every message that came and comes to a handler, in order."""
        self.handler = handler
        waiting, self.inbox = self.inbox, []
        for payload in waiting:
            await handler(payload)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it is closed."""
        frames = FrameReader()
        try:
            while data := await reader.read(65536):
                for event in frames.feed(data):
                    if isinstance(event, Framed):
                        await self._take(event.payload, writer)
        except OSError:
            return
        finally:
            writer.close()

    async def _take(self, payload: bytes, writer: asyncio.StreamWriter) -> None:
        control_id = f"{self.name[:4].upper()}{next(_NUMBERS):09d}"
        answer = ack.build(header.read(payload), "AA", control_id, self.clock.now())
        self.received += 1
        if self.handler is None:
            self.inbox.append(payload)
        else:
            await self.handler(payload)
        writer.write(frame(answer))
        await writer.drain()


@dataclass(frozen=True)
class Desks:
    """The hospital's three listeners."""

    dictation: Desk
    report: Desk
    ris: Desk

    def receivers(self, host: str = "127.0.0.1") -> list[dict[str, str | int]]:
        """Return what the gateway's setting of receivers must say so that it finds them."""
        return [
            {
                "name": desk.name,
                "kind": desk.name,
                "host": host,
                "port": desk.port,
                "application": f"SYNTH-{desk.name.upper()}",
            }
            for desk in (self.dictation, self.report, self.ris)
        ]


@contextlib.asynccontextmanager
async def open_desks(clock: Clock, host: str = "127.0.0.1") -> AsyncIterator[Desks]:
    """Listen on three free ports until the block ends."""
    desks = [Desk(name, clock) for name in ("dictation", "report", "ris")]
    servers = []
    try:
        for desk in desks:
            server = await asyncio.start_server(desk.serve, host, 0)
            desk.port = int(server.sockets[0].getsockname()[1])
            servers.append(server)
        yield Desks(*desks)
    finally:
        for server in servers:
            server.close()
