"""The world around a house: a sender, a dictation and a report receiver that speak MLLP over real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, MllpClient, frame

START = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


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


@dataclass
class World:
    """The house and everybody around it."""

    fhir: FhirClient
    http: httpx.AsyncClient
    dictation: Sink
    reports: Sink
    mllp_port: int
    dicom_port: int
    pass_images_wait: Callable[[], None]

    async def send(self, message: str) -> str:
        """Send one HL7 message as a RIS would; return its acknowledgement code."""
        async with MllpClient("127.0.0.1", self.mllp_port, 20) as client:
            answer = await client.send(message.encode())
        return answer.decode().split("MSA|")[1][:2]

    async def case(self, accession: str) -> dict[str, Any] | None:
        """Return the ledger's row of an accession number."""
        cases = (await self.http.get("/journey/cases")).json()["cases"]
        return next((case for case in cases if case["accession"] == accession), None)

    async def until(self, accession: str, stage: str, limit_s: float = 90) -> dict[str, Any]:
        """Return the case once it stands at a stage."""
        return await self.until_case(accession, lambda case: case["stage"] == stage, limit_s)

    async def until_case(
        self, accession: str, fits: Callable[[dict[str, Any]], bool], limit_s: float = 90
    ) -> dict[str, Any]:
        """Return the case once it fits; fails with where it stands instead."""
        case: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(limit_s):
                while case is None or not fits(case):
                    await asyncio.sleep(0.05)
                    case = await self.case(accession)
        except TimeoutError:
            steps = [f"{s['stage']}: {s['note']}" for s in (case or {}).get("steps", [])]
            pytest.fail(
                f"{accession} stands at {case and case['stage']}, waits for {case and case['waits_for']}; {steps}"
            )
        return case
