"""MLLP (HL7 Implementation Support Guide, appendix C): frames `0B` message `1C 0D` on a byte stream, both directions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack, header
from arcuate.kernel.log import get_logger

VT, FS, CR = b"\x0b", b"\x1c", b"\r"
MIB = 1 << 20
HEAD_BYTES = 64 * 1024


def frame(raw: bytes) -> bytes:
    """The message as it goes over the wire."""
    return VT + raw + FS + CR


class Spool(Protocol):
    """Where the bytes of a frame go that is too large for memory."""

    def write(self, data: bytes) -> None: ...

    def discard(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Framed:
    """A whole frame within the limit for processing."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class FramedSpooled:
    """A whole frame over that limit: its bytes lie in `spool`."""

    spool: Spool
    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A frame over the limit for spooling; the reader takes nothing more."""

    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A frame that began and did not end; at most `HEAD_BYTES` are kept of one that was spooled."""

    payload: bytes
    size: int


Event = Framed | FramedSpooled | TooLarge | Incomplete


class _State(Enum):
    OUTSIDE = 0
    INSIDE = 1
    ENDING = 2
    CLOSED = 3


class FrameReader:
    """Cuts a stream into frames, whatever its segmentation (rows 001 to 005).

    A frame ends with `1C 0D`. `1C` without `0D` ends it when `0B` follows or the stream pauses (`pause`). `0B` inside a frame begins a
    new one; the first is incomplete. Bytes outside frames are counted in `skipped`, frames in `frames_begun`.

    Args:
        processed: Largest frame in bytes that is kept in memory and processed.
        spooled: Largest frame in bytes that is kept at all.
        spool: Makes a place for a frame between the two; without it such frames are `TooLarge`.
    """

    def __init__(
        self, processed: int = 8 * MIB, spooled: int = 64 * MIB, spool: Callable[[], Spool] | None = None
    ) -> None:
        self._processed = processed
        self._limit = spooled if spool is not None else processed
        self._make_spool = spool
        self._state = _State.OUTSIDE
        self._buffer = bytearray()
        self._size = 0
        self._spool: Spool | None = None
        self._after = b""
        self._events: list[Event] = []
        self.skipped = 0
        self.frames_begun = 0

    @property
    def begun(self) -> bool:
        """A frame has begun and not ended."""
        return self._state in (_State.INSIDE, _State.ENDING)

    @property
    def ending(self) -> bool:
        """`1C` came and its `0D` did not."""
        return self._state is _State.ENDING

    def feed(self, data: bytes) -> list[Event]:
        """What the bytes complete, in order."""
        if self._state is _State.OUTSIDE and len(data) - 3 <= self._processed and _is_one_frame(data):
            self.frames_begun += 1
            return [Framed(data[1:-2])]
        position = 0
        next_start = data.find(VT)
        while position < len(data) and self._state is not _State.CLOSED:
            if 0 <= next_start < position:
                next_start = data.find(VT, position)
            if self._state is _State.OUTSIDE:
                position = self._outside(data, position, next_start)
            elif self._state is _State.INSIDE:
                position = self._inside(data, position, next_start)
            else:
                position = self._ending(data, position)
        return self._take()

    def pause(self) -> list[Event]:
        """The stream has been silent for a second: a frame that has its `1C` is complete."""
        if self._state is _State.ENDING:
            self._complete()
            self._state = _State.OUTSIDE
        return self._take()

    def finish(self) -> list[Event]:
        """The stream has ended or its time is up: what has begun is incomplete."""
        if self.begun:
            self._drop()
        self._state = _State.CLOSED
        return self._take()

    def _outside(self, data: bytes, position: int, next_start: int) -> int:
        if next_start < 0:
            self.skipped += len(data) - position
            return len(data)
        self.skipped += next_start - position
        self._begin()
        return next_start + 1

    def _inside(self, data: bytes, position: int, next_start: int) -> int:
        end = data.find(FS, position, next_start if next_start >= 0 else len(data))
        if end >= 0:
            self._keep(data[position:end])
            if self._state is _State.INSIDE:
                self._state, self._after = _State.ENDING, b""
            return end + 1
        stop = next_start if next_start >= 0 else len(data)
        self._keep(data[position:stop])
        if next_start >= 0 and self._state is _State.INSIDE:
            self._drop()
            self._begin()
            return next_start + 1
        return stop

    def _ending(self, data: bytes, position: int) -> int:
        byte = data[position : position + 1]
        if byte == CR:
            self._complete()
            self._state = _State.OUTSIDE
        elif byte == VT:
            self._complete()
            self._begin()
        elif byte == b"\n" and not self._after:
            self._after = byte
        else:
            # The 1C was part of the content after all.
            self._state = _State.INSIDE
            self._keep(FS + self._after)
            return position
        return position + 1

    def _begin(self) -> None:
        self._state = _State.INSIDE
        self.frames_begun += 1

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._events.append(TooLarge((bytes(self._buffer) + data)[:HEAD_BYTES], self._size))
            self._forget()
            self._state = _State.CLOSED
            return
        if self._spool is None and self._size > self._processed and self._make_spool is not None:
            self._spool = self._make_spool()
            self._spool.write(bytes(self._buffer))
        if self._spool is None:
            self._buffer += data
            return
        self._spool.write(data)
        if len(self._buffer) < HEAD_BYTES:
            self._buffer += data
        del self._buffer[HEAD_BYTES:]

    def _complete(self) -> None:
        if self._spool is not None:
            self._events.append(FramedSpooled(self._spool, bytes(self._buffer), self._size))
            self._spool = None
        else:
            self._events.append(Framed(bytes(self._buffer)))
        self._forget()

    def _drop(self) -> None:
        self._events.append(Incomplete(bytes(self._buffer), self._size))
        self._forget()

    def _forget(self) -> None:
        if self._spool is not None:
            self._spool.discard()
            self._spool = None
        self._buffer = bytearray()
        self._size = 0

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _is_one_frame(data: bytes) -> bool:
    """Say whether the bytes are one whole frame and nothing else, as nearly always."""
    return data[:1] == VT and data.find(FS) == len(data) - 2 and data[-1:] == CR and data.find(VT, 1) < 0


class MllpClient:
    """Sends messages one at a time and waits for each acknowledgement (stop-and-wait).

    Args:
        timeout_s: Seconds to wait for a connection, and for an acknowledgement.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 30.0) -> None:
        self.host, self.port, self.timeout_s = host, port, timeout_s
        self.discarded = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._frames = FrameReader(MIB)
        self._waiting: list[bytes] = []
        self._one_at_a_time = asyncio.Lock()
        self._log = get_logger("mllp")

    async def __aenter__(self) -> MllpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def send(self, raw: bytes, *, application: bool = False) -> bytes:
        """Send one message and return the acknowledgement whose MSA-2 is its MSH-10.

        Others are discarded and counted (row 013). When none comes in time the connection is closed, so that a late one can never be
        taken for the answer to another message. With `application`, a `CA` is followed by the wait for the application
        acknowledgement; when that does not come, the `CA` is returned.

        Raises:
            Unavailable: No connection, or no acknowledgement in time.
        """
        mine = header.read(raw)
        control_id = mine.control_id if mine else b""
        async with self._one_at_a_time:
            commit: bytes | None = None
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._write(frame(raw))
                    while True:
                        answer = await self._next()
                        said = ack.read(answer)
                        if said is None or (control_id and said.control_id != control_id):
                            self.discarded += 1
                            self._log.warning("acknowledgement of another message discarded", port=self.port)
                        elif application and said.code == "CA":
                            commit = answer
                        else:
                            return answer
            except (OSError, EOFError, TimeoutError) as error:
                await self.close()
                if commit is not None:
                    return commit
                raise _unavailable(error, self.host, self.port) from error

    async def exchange(self, wire: bytes, wait_s: float, control_id: bytes = b"") -> bytes | None:
        """Write bytes as they stand and return the next frame (with `control_id`: that answers it), or None when none comes in time.

        Raises:
            Unavailable: No connection, or it was closed.
        """
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._write(wire)
            except (OSError, TimeoutError) as error:
                await self.close()
                raise _unavailable(error, self.host, self.port) from error
            try:
                async with asyncio.timeout(wait_s):
                    while True:
                        answer = await self._next()
                        said = ack.read(answer)
                        if not control_id or said is None or said.control_id == control_id:
                            return answer
                        self.discarded += 1
            except TimeoutError:
                return None
            except (OSError, EOFError) as error:
                await self.close()
                raise _unavailable(error, self.host, self.port) from error

    async def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()

    async def _write(self, wire: bytes) -> None:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self.host, self.port)
            self._frames, self._waiting = FrameReader(MIB), []
        self.discarded += len(self._waiting)
        self._waiting = []
        writer = self._streams[1]
        writer.write(wire)
        await writer.drain()

    async def _next(self) -> bytes:
        while not self._waiting:
            if self._streams is None:
                raise EOFError("closed")
            data = await self._streams[0].read(65536)
            if not data:
                raise EOFError("the receiver closed the connection")
            self._waiting += [event.payload for event in self._frames.feed(data) if isinstance(event, Framed)]
        return self._waiting.pop(0)


def _unavailable(error: Exception, host: str, port: int) -> Unavailable:
    if isinstance(error, TimeoutError):
        what = "No acknowledgement came in time; the connection was closed."
    elif isinstance(error, EOFError):
        what = "The receiver closed the connection without an acknowledgement."
    else:
        what = f"The receiver cannot be reached ({type(error).__name__})."
    return Unavailable(what, where=f"{host}:{port}", todo="It is sent again later.")
