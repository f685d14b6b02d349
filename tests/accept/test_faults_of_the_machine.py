"""What the machine can do to the gateway: a disk that fails, no descriptors left, a sender that never ends, a sender on two replicas."""

import asyncio
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.accept.programs import family, gateway, memory_kib
from tests.conftest import program
from tests.gateway.conftest import START, open_site
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient

MIB = 1024 * 1024
_FLUSHES = 5  # messages, each with a flush of its own; a door dies with its third


async def _made(data: Path) -> None:
    """Let a first start make the databases."""
    async with gateway(data):
        pass


async def _code(client: MllpClient, message: str) -> str:
    answer = ack.read(await client.send(message.encode()))
    return answer.code if answer else ""


@pytest.mark.long
@pytest.mark.parametrize(
    ("calls", "error", "when"),
    [("fdatasync,fsync", "EIO", "3..5"), ("pwrite64", "EROFS", "8+")],
    ids=["a flush fails", "the file system is read-only"],
)
async def test_f042_what_is_not_written_is_never_acknowledged_positively_and_what_was_is_there(
    tmp_path: Path, strace: str, calls: str, error: str, when: str
) -> None:
    """In each door some calls on the journal's log fail (strace injects the error): each door ends, and the next goes on."""
    await _made(tmp_path / "data")
    failing = (
        strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(tmp_path / "data/gateway/door.db-wal"),
        "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={when}",
    )  # fmt: skip
    codes: list[tuple[str, str]] = []
    doors: set[int] = set()
    async with gateway(tmp_path / "data", before=failing) as (pid, port), asyncio.timeout(200):
        for number in range(_FLUSHES):
            message = order(f"ACC{number}", f"1{number}", placer=f"P{number}", control_id=f"N{number}")
            while codes[-1:] != [(f"N{number}", "AA")]:
                doors |= set(family(pid)[2:])
                with suppress(Unavailable):
                    async with MllpClient("127.0.0.1", port, 20) as client:
                        codes.append((f"N{number}", await _code(client, message)))
                await asyncio.sleep(0.1)
    assert error in (tmp_path / "trace").read_text()
    refused = {code for _, code in codes if code != "AA"}
    assert refused == {"AR"}
    assert [one for one, code in codes if code == "AA"] == [f"N{number}" for number in range(_FLUSHES)]
    assert len(doors) > 1  # a process whose flush failed is not asked to flush again

    async with open_site(tmp_path / "data", GatewaySettings(port=0), start=datetime.now(UTC)) as site:
        site.clock.advance(120)
        await site.settle()
        journal = await site.journal()
        assert [row["control_id"] for row in journal] == [f"N{number}" for number in range(_FLUSHES)]
        for number in range(_FLUSHES):
            assert (await site.order(f"ACC{number}"))["meta"]["versionId"] == "1"


@pytest.mark.long
async def test_f042_a_flush_of_the_record_that_fails_loses_and_doubles_nothing(tmp_path: Path, strace: str) -> None:
    """The record's log cannot be flushed for a while: what was acknowledged waits in the journal, and is applied once in the end."""
    await _made(tmp_path / "data")
    failing = (
        strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(tmp_path / "data/record/record.db-wal"),
        "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO:when=2..4",
    )  # fmt: skip
    async with gateway(tmp_path / "data", before=failing) as (_, port):
        async with MllpClient("127.0.0.1", port, 20) as client:
            for number in range(_FLUSHES):
                message = order(f"ACC{number}", f"1{number}", placer=f"P{number}", control_id=f"N{number}")
                assert await _code(client, message) == "AA"
        async with asyncio.timeout(60):
            while (tmp_path / "trace").read_text().count("EIO") < 2:
                await asyncio.sleep(0.1)
    async with open_site(tmp_path / "data", GatewaySettings(port=0), start=datetime.now(UTC)) as site:
        site.clock.advance(120)
        await site.settle()
        assert await site.errors() == []
        for number in range(_FLUSHES):
            assert (await site.order(f"ACC{number}"))["meta"]["versionId"] == "1"


async def test_f049_with_no_descriptors_left_who_is_connected_goes_on_and_afterwards_all_may_come(
    tmp_path: Path,
) -> None:
    limited = (program("prlimit", "util-linux"), "--nofile=48:48")
    async with gateway(tmp_path / "data", before=limited) as (_, port):
        async with MllpClient("127.0.0.1", port, 20) as first:
            assert await _code(first, order(control_id="A0")) == "AA"
            others = [await _connect(port, f"127.0.0.{2 + number % 6}") for number in range(60)]
            assert await _code(first, order(control_id="A1", control="XO")) == "AA"
        for other in others:
            other.close()
        async with asyncio.timeout(30):
            while True:
                with suppress(Unavailable):
                    async with MllpClient("127.0.0.1", port, 5) as late:
                        if await _code(late, order("ACC2", "200", placer="P2", control_id="A2")) == "AA":
                            break
                await asyncio.sleep(0.2)


async def _connect(port: int, address: str) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    made.bind((address, 0))
    with suppress(OSError):
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
    return made


async def test_f011_a_stream_without_end_is_refused_and_takes_no_memory(tmp_path: Path) -> None:
    """A gibibyte is offered; 64 MiB are taken. Who sends does not read meanwhile, as the rudest sender would."""
    async with gateway(tmp_path / "data") as (pid, port):
        async with MllpClient("127.0.0.1", port, 20) as client:
            assert await _code(client, order(control_id="A0")) == "AA"
        before, most = memory_kib(pid), 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x0b" + order(control_id="A1").encode() + b"OBX|1|ED|||")
        offered = 0
        with suppress(ConnectionError):
            while offered < 1024 * MIB:
                writer.write(b"x" * MIB)
                await writer.drain()
                offered += MIB
                if offered % (8 * MIB) == 0:
                    most = max(most, memory_kib(pid))
        assert offered < 1024 * MIB  # it was closed long before
        with suppress(ConnectionError):
            assert b"MSA|AA" not in await reader.read(MIB)
        writer.close()
        assert most - before <= 64 * 1024
        async with MllpClient("127.0.0.1", port, 20) as client:
            assert await _code(client, order("ACC2", "200", placer="P2", control_id="A2")) == "AA"


async def test_f006_the_same_message_at_two_replicas_at_once_is_stored_once_and_has_one_effect(
    tmp_path: Path, postgres_url: str
) -> None:
    settings = GatewaySettings(port=0)
    async with (
        open_site(tmp_path / "data", settings, postgres_url, start=START) as one,
        open_site(tmp_path / "data", settings, postgres_url, start=START) as two,
    ):
        for number in range(10):
            message = order(f"ACC{number}", f"1{number}", placer=f"P{number}", control_id=f"N{number}")
            answers = await asyncio.gather(one.send(message), two.send(message), one.send(message))
            assert answers == [["AA"], ["AA"], ["AA"]]
        await asyncio.gather(one.settle(), two.settle())
        journal = await one.journal()
        assert sorted(row["control_id"] for row in journal) == sorted(f"N{number}" for number in range(10))
        for number in range(10):
            assert (await two.order(f"ACC{number}"))["meta"]["versionId"] == "1"
