"""MLLP framing (rows 001 to 005, 011, 013): whatever the segmentation, the frames are the same."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2.mllp import (
    Event,
    Framed,
    FramedSpooled,
    FrameReader,
    Incomplete,
    MllpClient,
    TooLarge,
    frame,
)

BODY = b"MSH|^~\\&|A|B|C|D|||ORM^O01|7|P|2.5\rPID|1\r"
CONTENT = st.binary(max_size=60).map(lambda raw: raw.replace(b"\x0b", b"").replace(b"\x1c", b""))


def payloads(events: list[Event]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Framed)]


@given(
    st.lists(st.tuples(CONTENT, st.sampled_from([b"", b"\x00", b"\r\n", b"junk"])), max_size=6),
    st.randoms(use_true_random=False),
)
def test_f001_f002_any_segmentation_gives_the_same_frames(parts: list[tuple[bytes, bytes]], random: object) -> None:
    wire = b"".join(between + frame(body) for body, between in parts)
    reader, got, position = FrameReader(), [], 0
    while position < len(wire):
        step = random.randint(1, 9)  # type: ignore[attr-defined]
        got += payloads(reader.feed(wire[position : position + step]))
        position += step

    assert got == [body for body, _ in parts]
    assert reader.skipped == sum(len(between) for _, between in parts)
    assert not reader.begun


def test_f003_a_frame_cut_off_is_incomplete() -> None:
    reader = FrameReader()

    assert reader.feed(frame(BODY)[:20]) == []
    assert reader.begun
    assert reader.finish() == [Incomplete(BODY[:19], 19)]


def test_f005_the_carriage_return_may_lack_when_a_new_frame_or_silence_follows() -> None:
    reader = FrameReader()

    assert payloads(reader.feed(b"\x0bone\x1c\x0btwo\x1c")) == [b"one"]
    assert reader.ending
    assert payloads(reader.pause()) == [b"two"]
    assert payloads(reader.feed(b"\r" + frame(b"three"))) == [b"three"]
    assert payloads(reader.feed(b"\x0bfour\x1c\n")) == []
    assert payloads(reader.pause()) == [b"four"]


def test_f005_a_new_start_block_before_the_end_makes_the_first_part_incomplete() -> None:
    assert FrameReader().feed(b"\x0bfirst\x0bsecond\x1c\r") == [Incomplete(b"first", 5), Framed(b"second")]


def test_f005_an_end_character_inside_the_content_is_content() -> None:
    assert payloads(FrameReader().feed(b"\x0ba\x1cb\x1c\nc\x1c\r")) == [b"a\x1cb\x1c\nc"]


def test_f005_bytes_outside_frames_are_counted() -> None:
    reader = FrameReader()

    assert payloads(reader.feed(b"hello\r\n" + frame(BODY) + b"\x00\x00")) == [BODY]
    assert reader.skipped == 9


@dataclass
class Memory:
    data: bytearray = field(default_factory=bytearray)
    discarded: bool = False

    def write(self, data: bytes) -> None:
        self.data += data

    def discard(self) -> None:
        self.discarded = True


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("size", [99, 100, 101, 299, 300, 301])
def test_f011_limits_hold_to_the_byte(size: int, step: int) -> None:
    spools: list[Memory] = []

    def make() -> Memory:
        spools.append(Memory())
        return spools[-1]

    reader, wire, events = FrameReader(100, 300, make), frame(b"x" * size), []
    for position in range(0, len(wire), step):
        events += reader.feed(wire[position : position + step])

    if size <= 100:
        assert events == [Framed(b"x" * size)]
    elif size <= 300:
        assert isinstance(events[0], FramedSpooled) and events[0].size == size
        assert bytes(spools[0].data) == b"x" * size
    else:
        assert isinstance(events[0], TooLarge) and len(events) == 1
        assert spools[0].discarded if spools else True


async def _server(*answers: bytes) -> tuple[asyncio.Server, int]:
    """Another party: answers each frame with the next of these bytes."""
    queue = list(answers)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        while data := await reader.read(1000):
            for _ in payloads(frames.feed(data)):
                for byte in queue.pop(0) if queue else b"":
                    writer.write(bytes([byte]))
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_f001_a_fragmented_acknowledgement_is_put_together() -> None:
    ack = b"MSH|^~\\&|X\rMSA|AA|7\r"
    server, port = await _server(frame(ack))
    async with server, MllpClient("127.0.0.1", port, 5) as client:
        assert await client.send(BODY) == ack


async def test_f013_the_acknowledgement_of_another_message_is_discarded() -> None:
    other, mine = frame(b"MSH|^~\\&|X\rMSA|AA|6\r"), frame(b"MSH|^~\\&|X\rMSA|AE|7\r")
    server, port = await _server(other + mine)
    async with server, MllpClient("127.0.0.1", port, 5) as client:
        assert b"MSA|AE|7" in await client.send(BODY)
        assert client.discarded == 1


async def test_f013_without_an_answer_in_time_the_connection_is_closed() -> None:
    server, port = await _server(b"", frame(b"MSH|^~\\&|X\rMSA|AA|7\r"))
    async with server, MllpClient("127.0.0.1", port, 0.05) as client:
        with pytest.raises(Unavailable, match="in time"):
            await client.send(BODY)
        client.timeout_s = 5
        assert b"MSA|AA|7" in await client.send(BODY)


async def test_a_commit_acknowledgement_is_no_proof_of_processing() -> None:
    server, port = await _server(frame(b"MSH|^~\\&|X\rMSA|CA|7\r") + frame(b"MSH|^~\\&|X\rMSA|AE|7\r"))
    async with server, MllpClient("127.0.0.1", port, 5) as client:
        assert b"MSA|AE|7" in await client.send(BODY, application=True)


async def test_nobody_listening_says_so() -> None:
    server, port = await _server()
    server.close()
    await server.wait_closed()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await MllpClient("127.0.0.1", port, 1).send(BODY)
