"""The HL7 client and server of another project (PyPI `hl7`, John Paulett) talk with the gateway, both ways, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7.client import MLLPClient
from hl7.mllp import open_hl7_connection, start_hl7_server
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import booking, order, registration, result

from arcuate.gateway.settings import GatewaySettings, Receiver


@dataclass
class TheirServer:
    """A receiver built of their server: it acknowledges with the ACK that their library makes."""

    received: list[Any] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: Any, writer: Any) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                message = await reader.readmessage()
                self.received.append(message)
                writer.writemessage(message.create_ack())
                await writer.drain()


@pytest.fixture
async def theirs() -> AsyncIterator[TheirServer]:
    opened = TheirServer()
    server = await start_hl7_server(opened.serve, "127.0.0.1", 0, encoding="utf-8")
    opened.port = server.sockets[0].getsockname()[1]
    yield opened
    server.close()


@pytest.fixture
async def site(tmp_path: Path, theirs: TheirServer) -> AsyncIterator[Site]:
    receiver = Receiver(name="their RIS", kind="ris", host="127.0.0.1", port=theirs.port)
    settings = GatewaySettings(port=0, receivers=(receiver,), send_timeout_s=5)
    async with open_site(tmp_path / "data", settings) as opened:
        yield opened


async def test_their_asynchronous_client_sends_an_order_a_booking_and_an_update_on_one_connection(site: Site) -> None:
    reader, writer = await open_hl7_connection("127.0.0.1", site.port, encoding="utf-8")
    answers = []
    for text in (order(name="Müller^Zoë"), booking(name="Müller^Zoë"), registration()):
        writer.writemessage(hl7.parse(text))
        await writer.drain()
        answers.append(await asyncio.wait_for(reader.readmessage(), 20))
    writer.close()

    assert [str(answer.segment("MSA")[1]) for answer in answers] == ["AA"] * 3
    assert [str(answer.segment("MSA")[2]) for answer in answers] == ["1", "10", "20"]
    await site.settle()
    assert (await site.order("ACC1"))["status"] == "active"
    assert len(await site.find("Appointment")) == 1


async def test_their_blocking_client_gets_an_acknowledgement_that_their_parser_reads(site: Site) -> None:
    def send() -> list[bytes]:
        with MLLPClient("127.0.0.1", site.port, encoding="utf-8") as client:
            return [client.send_message(order()), client.send_message(hl7.parse(order()))]  # the second is a resend

    answers = [hl7.parse(raw.strip(b"\x0b\x1c\r").decode() + "\r") for raw in await asyncio.to_thread(send)]

    assert [(str(one.segment("MSA")[1]), str(one.segment("MSA")[2])) for one in answers] == [("AA", "1")] * 2
    await site.settle()
    assert len(await site.journal()) == 1


async def test_their_server_takes_our_signed_report_and_their_acknowledgement_settles_it(
    site: Site, theirs: TheirServer
) -> None:
    words = "Normal brain | no stroke & no bleed ^ 100 % \\ Zoë"
    escaped = words.replace("\\", "\\E\\").replace("|", "\\F\\").replace("^", "\\S\\").replace("&", "\\T\\")
    await site.apply(order(), result(text=escaped))
    for _ in range(3):
        await site.settle()

    assert len(theirs.received) == 1
    message = theirs.received[0]
    assert str(message.segment("MSH")[9]).startswith("ORU^R01")
    assert str(message.segment("OBR")[25]) == "F"
    assert message.unescape(str(message.segment("OBX")[5])) == words
    found = await site.find("Communication")
    assert [(one["recipient"][0]["display"], one["status"]) for one in found] == [("their RIS", "completed")]
