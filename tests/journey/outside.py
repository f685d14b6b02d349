"""The outside world: a system that takes our messages over MLLP, on a real socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, frame


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sink:
    """A system that takes our messages over MLLP and acknowledges each (`AA`), as a dictation or an EHR would."""

    port: int
    received: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Sink"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        while data := await reader.read(65536):
            for event in frames.feed(data):
                if isinstance(event, Framed):
                    text = event.payload.decode()
                    control = text.split("\r")[0].split("|")[9]
                    writer.write(
                        frame(
                            f"MSH|^~\\&|SINK|X|ARCUATE|Y|20260317||ACK|A{control}|P|2.5.1\rMSA|AA|{control}\r".encode()
                        )
                    )
                    self.received.append(text)
                    self.arrived.set()
        writer.close()

    async def next(self, having: Callable[[str], bool], limit_s: float = 60) -> str:
        """Return the first message that fits, waiting for it."""
        async with asyncio.timeout(limit_s):
            while True:
                if found := next((m for m in self.received if having(m)), None):
                    return found
                self.arrived.clear()
                await self.arrived.wait()
