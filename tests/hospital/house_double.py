"""The other party for the hospital: a small house that speaks HL7 over TCP, DICOM and FHIR over HTTP, and keeps what it got."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import AE, evt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from arcuate.kernel.fhir import strict
from arcuate.kernel.hl7v2 import ack, build, header
from arcuate.kernel.hl7v2.build import segment
from arcuate.kernel.hl7v2.message import Message
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, MllpClient, frame


@dataclass
class House:
    """What came in, and where to reach it."""

    mllp: tuple[str, int] = ("127.0.0.1", 0)
    dicom: tuple[str, int] = ("127.0.0.1", 0)
    fhir_base: str = ""
    messages: list[bytes] = field(default_factory=list)
    images: list[Dataset] = field(default_factory=list)
    bundles: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    answer: str = "AA"
    silent_for: int = 0  # so many messages are kept but not answered: the connection is closed instead

    def kinds(self) -> list[str]:
        """Return MSH-9 of everything that came, as `ORM^O01`."""
        return ["^".join(found.type) if (found := header.read(raw)) else "?" for raw in self.messages]

    def kinds_of(self, number: str) -> list[str]:
        """Return MSH-9 of the messages that name an accession or appointment."""
        return [kind for kind, raw in zip(self.kinds(), self.messages, strict=True) if number.encode() in raw]

    def of(self, accession: str) -> list[Message]:
        """Return the messages that name an accession, in order."""
        return [Message.parse(raw) for raw in self.messages if accession.encode() in raw]


async def _serve_mllp(house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    frames = FrameReader()
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            for event in frames.feed(data):
                if isinstance(event, Framed):
                    house.messages.append(event.payload)
                    if house.silent_for > 0:
                        house.silent_for -= 1
                        writer.close()
                        return
                    code: Any = house.answer
                    number = f"H{len(house.messages)}"
                    writer.write(frame(ack.build(header.read(event.payload), code, number, datetime.now(UTC))))
                    await writer.drain()
    writer.close()


def _fhir(house: House) -> Starlette:
    async def transaction(request: Request) -> Response:
        house.tokens.add(request.headers.get("authorization", ""))
        bundle = strict.loads(await request.body(), strict.HOUSE)
        house.bundles.append(bundle)
        answer = {"resourceType": "Bundle", "type": "transaction-response"}
        return Response(strict.dumps(answer), media_type="application/fhir+json")

    return Starlette(routes=[Route("/fhir", transaction, methods=["POST"])])


@contextlib.asynccontextmanager
async def open_house() -> AsyncIterator[House]:
    """Open the three doors on free ports."""
    house = House()
    mllp = await asyncio.start_server(lambda r, w: _serve_mllp(house, r, w), "127.0.0.1", 0)
    house.mllp = ("127.0.0.1", mllp.sockets[0].getsockname()[1])
    entity = AE(ae_title="ARCUATE")
    entity.add_supported_context(MRImageStorage)
    # Runs in pynetdicom's thread; appending to a list is safe there.
    store = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, lambda e: house.images.append(e.dataset) or 0x0000)],
    )
    house.dicom = ("127.0.0.1", store.socket.getsockname()[1])
    listening = socket.create_server(("127.0.0.1", 0))
    house.fhir_base = f"http://127.0.0.1:{listening.getsockname()[1]}/fhir"
    server = uvicorn.Server(uvicorn.Config(_fhir(house), log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield house
    finally:
        server.should_exit = True
        await serving
        store.shutdown()
        mllp.close()


def draft_message(accession: str, patient: str, lines: list[str], *, sent: datetime, control_id: str) -> bytes:
    """Return a draft as the house sends it to dictation."""
    envelope = build.Envelope("ORU", "R01", "ORU_R01", control_id, sent, UTC)
    obx = [
        segment("OBX", {1: str(n), 2: "TX", 3: ("18748-4", "Study", "LN"), 5: line, 11: "P"})
        for n, line in enumerate(lines, 1)
    ]
    obr = segment(
        "OBR", {1: "1", 3: accession, 4: ("X", "MRI", "99ARC"), 18: accession, 25: "P", 32: (("", "Reader-02"),)}
    )
    return build.message(envelope, [segment("PID", {1: "1", 3: (patient, "", "", "SYNTH", "MR")}), obr, *obx])


async def send_to(port: int, raw: bytes) -> ack.Answer:
    """Send one message to a desk and return its answer."""
    async with MllpClient("127.0.0.1", port, timeout_s=10) as client:
        answer = ack.read(await client.send(raw))
    assert answer is not None
    return answer
