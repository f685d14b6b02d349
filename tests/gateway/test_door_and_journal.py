"""The door (rows 001 to 007, 011): whole frames are stored once and answered in order, and nothing else is."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import order

from arcuate.gateway import journal
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, frame


class Wire:
    """A sender that writes what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._frames, self._waiting = FrameReader(), list[bytes]()

    @classmethod
    async def to(cls, site: Site) -> "Wire":
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, limit_s: float = 20) -> ack.Answer:
        async with asyncio.timeout(limit_s):
            while not self._waiting:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._waiting += [event.payload for event in self._frames.feed(data) if isinstance(event, Framed)]
        said = ack.read(self._waiting.pop(0))
        assert said is not None
        return said

    async def is_closed(self, limit_s: float = 20) -> bool:
        async with asyncio.timeout(limit_s):
            with contextlib.suppress(ConnectionError):
                return not await self.reader.read(1)
        return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


async def tick(site: Site, seconds: float) -> None:
    """Let the house's clock run; the door's timer looks four times a second."""
    for _ in range(round(seconds / 0.25) + 1):
        site.clock.advance(0.25)
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)


async def transport(site: Site, kind: str) -> int:
    for _ in range(200):
        counted: int = (await site.get("/gateway/connections"))["transport"].get(kind, 0)
        if counted:
            return counted
        await asyncio.sleep(0.01)
    return 0


async def test_f001_an_order_sent_byte_by_byte_is_stored_once_and_answered_once(site: Site) -> None:
    wire = await Wire.to(site)
    sent = frame(order().encode())
    for byte in sent[:-2]:
        await wire.write(bytes([byte]))
    await wire.write(sent[-2:])

    assert (await wire.answer()).code == "AA"
    assert [row["size"] for row in await site.journal()] == [len(order())]
    await site.settle()
    assert (await site.order("ACC1"))["status"] == "active"
    wire.close()


async def test_f002_fifty_frames_in_one_packet_are_stored_and_answered_in_order(site: Site) -> None:
    wire = await Wire.to(site)
    ids = [f"M{n}" for n in range(50)]
    await wire.write(b"".join(frame(order(f"ACC{n}", control_id=one).encode()) for n, one in enumerate(ids)))
    assert [(await wire.answer()).control_id.decode() for _ in ids] == ids

    for one in ("N1", "N2", "N3"):  # the connection is still good, whatever stands between the frames
        await wire.write(b"\x00\r\n" + frame(order(f"X{one}", control_id=one).encode()))
        assert (await wire.answer()).control_id.decode() == one
    assert [row["control_id"] for row in await site.journal()] == [*ids, "N1", "N2", "N3"]
    wire.close()


@pytest.mark.parametrize("reset", [False, True])
async def test_f003_half_a_frame_is_not_processed_and_its_resend_is_processed_once(site: Site, reset: bool) -> None:
    sent = frame(order().encode())
    wire = await Wire.to(site)
    await wire.write(sent[: len(sent) * 6 // 10])
    for _ in range(200):
        if any(connection._reader.begun for connection in site.door.listener.connections):
            break
        await asyncio.sleep(0.01)
    wire.reset() if reset else wire.close()

    assert await transport(site, "incomplete") == 1
    assert await site.journal() == []
    assert await site.apply(order()) == ["AA"]
    assert len(await site.find("ServiceRequest")) == 1
    assert await site.errors() == []


async def test_f004_a_begun_frame_that_never_ends_is_closed_after_its_time_and_others_go_on(site: Site) -> None:
    slow = [await Wire.to(site) for _ in range(15)]
    for wire in slow:
        await wire.write(b"\x0bMSH|^~")
    for second in range(6):  # one byte every five seconds does not buy more time
        await tick(site, 5)
        for wire in slow:
            with contextlib.suppress(ConnectionError):
                await wire.write(b"x")
        assert await site.send(order(f"A{second}", control_id=f"{second}")) == ["AA"]
    await tick(site, 1)

    assert all([await wire.is_closed() for wire in slow])
    assert len(await site.journal()) == 6


async def test_f005_an_end_block_without_its_return_is_complete_after_a_pause(site: Site) -> None:
    wire = await Wire.to(site)
    await wire.write(frame(order(control_id="A").encode())[:-1] + frame(order(control_id="B").encode())[:-1])
    assert (await wire.answer()).control_id == b"A"
    await tick(site, 1.5)
    assert (await wire.answer()).control_id == b"B"
    wire.close()


async def test_f005_a_new_start_block_keeps_the_first_part_and_processes_the_second(site: Site) -> None:
    wire = await Wire.to(site)
    await wire.write(b"\x0bMSH|^~\\&|half a mess" + frame(order(control_id="B").encode()))
    assert (await wire.answer()).control_id == b"B"
    assert await transport(site, "incomplete") == 1
    assert len(await site.journal()) == 1
    wire.close()


async def test_f006_a_resend_gets_the_same_answer_and_has_one_effect(site: Site) -> None:
    first = await Wire.to(site)
    await first.write(frame(order().encode()))
    first.close()  # the answer is lost
    again = order(at="20260317100000").replace("|20260317100000||ORM", "|20260317100777||ORM")
    assert await site.apply(again, again) == ["AA", "AA"]

    rows = await site.journal()
    assert [row["resends"] for row in rows] == [2]
    history = await site.fhir.read("ServiceRequest", (await site.order("ACC1"))["id"])
    assert history["meta"]["versionId"] == "1"


async def test_f006_the_same_message_on_parallel_connections_is_stored_once(site: Site) -> None:
    answers = await asyncio.gather(*(site.send(order()) for _ in range(12)))
    await site.settle()

    assert {code for codes in answers for code in codes} == {"AA"}
    assert [row["resends"] for row in await site.journal()] == [11]
    assert len(await site.find("ServiceRequest")) == 1


async def test_f007_the_same_control_id_with_other_content_is_a_new_message(site: Site) -> None:
    assert await site.apply(order("ACC1"), order("ACC2", placer="P2")) == ["AA", "AA"]

    assert [row["warning"] for row in await site.journal()] == ["", "control id reused"]
    assert len(await site.find("ServiceRequest")) == 2


async def test_without_a_control_id_only_the_last_message_of_the_sender_can_be_repeated(site: Site) -> None:
    one, two = order("ACC1", control_id=""), order("ACC2", placer="P2", control_id="")
    await site.apply(one, one, two, one)

    assert [row["resends"] for row in await site.journal()] == [1, 0, 0]


async def test_a_change_and_its_undoing_are_not_taken_for_resends(site: Site) -> None:
    a, b = order(control_id="1"), order(control_id="2", control="XO", when="20260319110000")
    back = order(control_id="3", control="XO", at="20260317103000")
    await site.apply(a, b, back)

    assert len(await site.journal()) == 3
    assert (await site.order("ACC1"))["occurrenceDateTime"].startswith("2026-03-18")


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[Site]:
    """A door with small limits: 2,000 bytes are processed, 20,000 kept; 3 connections an address."""
    settings = GatewaySettings(
        port=0, processed_bytes=2000, spooled_bytes=20000, connections=4, connections_per_address=3, idle_s=60
    )
    async with open_site(tmp_path / "data", settings) as opened:
        yield opened


def of_size(size: int, control_id: str) -> bytes:
    raw = order(f"S{size}", control_id=control_id).encode() + b"NTE|1||"
    return raw + b"x" * (size - len(raw))


@pytest.mark.parametrize(("size", "state"), [(1999, "applied"), (2000, "applied"), (2001, "parked"), (20000, "parked")])
async def test_f011_a_large_message_is_kept_whole_and_parked(
    small: Site, size: int, state: str, tmp_path: Path
) -> None:
    raw = of_size(size, "1")
    assert await small.apply(raw) == ["AA"]

    rows = await small.journal()
    assert [(row["size"], row["messages"][0]["state"]) for row in rows] == [(size, state)]
    content = await small.http.get("/gateway/journal/1/raw")
    assert content.content == raw
    assert journal.export(small.parts.context.database, tmp_path / "out") == 1
    assert (tmp_path / "out" / "00000001.hl7").read_bytes() == raw
    assert await small.apply(raw) == ["AA"]
    assert [row["resends"] for row in await small.journal()] == [1]
    spooled = list(small.parts.gateway.spool_dir.glob("*")) if small.parts.gateway.spool_dir.exists() else []
    assert len(spooled) == (1 if size > 2000 else 0)


async def test_f011_a_message_over_the_limit_is_refused_without_reading_it_all(small: Site) -> None:
    wire = await Wire.to(small)
    with contextlib.suppress(ConnectionError):
        await wire.write(b"\x0b" + of_size(20001, "9") + b"y" * 1_000_000)
    said = await wire.answer()

    assert (said.code, said.control_id) == ("AR", b"9")
    assert said.text == "Message over 20000 bytes"
    assert await wire.is_closed()
    row = (await small.journal())[0]
    assert row["messages"][0]["cause"] == "too large" and row["answer"] == "AR"


async def test_connections_over_the_limit_are_closed_at_once_and_idle_ones_after_their_time(small: Site) -> None:
    wires = [await Wire.to(small) for _ in range(3)]
    await wires[0].write(frame(order().encode()))
    assert (await wires[0].answer()).code == "AA"
    fourth = await Wire.to(small)
    assert await fourth.is_closed()
    assert await transport(small, "refused") == 1

    await tick(small, 61)
    assert all([await wire.is_closed() for wire in wires])


async def test_what_has_arrived_whole_is_stored_and_answered_when_the_door_closes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with open_site(data, GatewaySettings(port=0)) as site:
        wire = await Wire.to(site)
        await wire.write(b"".join(frame(order(f"ACC{n}", control_id=f"{n}").encode()) for n in range(40)))
        assert (await wire.answer()).control_id == b"0"
    answered = 1
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            await wire.answer(5)
            answered += 1
    async with open_site(data, GatewaySettings(port=0)) as site:
        assert len(await site.journal()) == answered
        await site.settle()
        assert len(await site.find("ServiceRequest")) == answered
