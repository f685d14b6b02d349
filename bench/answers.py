"""From an HL7 message to the answers over FHIR: an order to its flags, a booking to its risk, an exam that is done to its reader.

The house runs as it is, without the rooms that need images. Each case is one synthetic patient with three messages; one case goes before
them and is not counted, because what is loaded for the first message is loaded once. When an answer was visible first is read from
`meta.lastUpdated` of its first version afterwards, so that asking costs the house nothing; the record sets it just before the commit.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from arcuate.house import HouseSettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.programs import ports, running
from bench.fhir import ISSUER, cpu_of

ROOMS = ("access", "record", "gateway", "journey", "protocoling", "scheduling", "assignment")
RATES = (1.0, 200.0)  # messages a second
SECONDS = {1.0: 45, 200.0: 0.6}
CONNECTIONS = 16
PATIENCE_S = 900.0
_FIRST = 99_999  # the case that is not counted
_ANSWERS = {"order": ("DetectedIssue", "patient"), "booking": ("RiskAssessment", "subject"), "exam": ("Task", "for")}
_NAMES = {
    "order": "order to flags (DetectedIssue)",
    "booking": "booking to risk (RiskAssessment)",
    "exam": "exam done to reader (Task)",
}


@dataclass
class Run:
    """What one rate gave: seconds from each message to its answer, by what was sent; CPU of the program a message."""

    rate: float
    messages: int
    latencies: dict[str, list[float]] = field(default_factory=dict)
    unanswered: int = 0
    cpu_ms: float = 0.0
    wall_s: float = 0.0


def report() -> None:
    """Print how long the answers to HL7 messages take at a quiet rate and at 200 messages a second."""
    print("| messages/s | sent | what | p50 s | p99 s | not answered | answered/s | CPU ms a message, all rooms |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|")
    for rate in RATES:
        run = _measure(rate, max(3, int(rate * SECONDS[rate])))
        for what, found in run.latencies.items():
            print(
                f"| {rate:g} | {run.messages} | {_NAMES[what]} | {_at(found, 0.5)} | {_at(found, 0.99)} | {run.unanswered} "
                f"| {run.messages / run.wall_s:.1f} | {run.cpu_ms:.0f} |"
            )


def _at(found: Sequence[float], share: float) -> str:
    return f"{sorted(found)[min(len(found) - 1, int(len(found) * share))]:.3f}" if found else "-"


def _measure(rate: float, messages: int) -> Run:
    run = Run(rate, messages // 3 * 3)
    with tempfile.TemporaryDirectory() as folder, house(Path(folder)) as running_house:
        key = tokens.load_or_make_key(Path(folder) / "keys" / "access-signing.json", "access")
        who = Principal("bench", frozenset({Role.ROOM}), "bench")
        token = tokens.issue(key, ISSUER, who, datetime.now(UTC), 7200)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{running_house.web_port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        ) as client:
            _answered(client, asyncio.run(_send(running_house.hl7_port, 10, [_FIRST])))
            before, begun = cpu_of(running_house.pid), time.monotonic()
            sent = asyncio.run(_send(running_house.hl7_port, rate, range(run.messages // 3)))
            run.latencies = _answered(client, sent)
            run.wall_s = time.monotonic() - begun
            run.cpu_ms = 1000 * (cpu_of(running_house.pid) - before) / run.messages
    run.unanswered = run.messages - sum(map(len, run.latencies.values()))
    return run


async def _send(port: int, rate: float, cases: Sequence[int]) -> dict[tuple[str, str], datetime]:
    """Send each case's messages one after the other, at a steady rate; returns when each was due, by patient and kind."""
    due: dict[tuple[str, str], datetime] = {}
    lines = [list(enumerate(cases))[start::CONNECTIONS] for start in range(CONNECTIONS)]
    zero, start = datetime.now(UTC), time.monotonic()

    async def sender(numbers: list[tuple[int, int]]) -> None:
        async with MllpClient("127.0.0.1", port, 60) as client:
            for turn, number in numbers:
                for place, (what, message) in enumerate(_messages(number, zero)):
                    at = (turn * 3 + place) / rate
                    await asyncio.sleep(max(0.0, start + at - time.monotonic()))
                    due[f"S{number:05d}", what] = zero + timedelta(seconds=at)
                    answer = await client.send(message.encode())
                    if b"MSA|AA" not in answer:
                        raise SystemExit("A message was not acknowledged")

    await asyncio.gather(*(sender(numbers) for numbers in lines if numbers))
    return due


def _messages(number: int, now: datetime) -> list[tuple[str, str]]:
    """An order for a scan with contrast whose kidney values nobody has, its booking, and that the exam is done."""
    at, start = f"{now:%Y%m%d%H%M}00+0000", f"{now + timedelta(hours=1):%Y%m%d%H%M}00+0000"
    accession, name = f"B{number:05d}", f"S{number:05d}"
    pid = f"PID|1||{name}^^^SYNTH^MR||Synthetic-{number}^Ada||19500102|F"

    def hl7(kind: str, suffix: str, *segments: str) -> str:
        msh = f"MSH|^~\\&|RIS|SYNTH|ARCUATE|X|{at}||{kind}|{accession}-{suffix}|P|2.5.1"
        return "\r".join((msh, *segments)) + "\r"

    def order(control: str, state: str, suffix: str) -> str:
        orc = f"ORC|{control}|P{accession}^RIS|{accession}^RIS||{state}||||{at}|||1234^Referrer^Synthetic"
        obr = (
            f"OBR|1|P{accession}^RIS|{accession}^RIS|CTABDC^CT abdomen with contrast^L|||||||||||||||{accession}|RP1|SPS1||||CT|||"
            f"^^^{start}^^R||||Abdominal pain, metformin"
        )
        return hl7("ORM^O01^ORM_O01", suffix, pid, "PV1|1|O|CT", orc, obr)

    booking = hl7(
        "SIU^S12^SIU_S12", "2",
        f"SCH|K{accession}^RIS|K{accession}^RIS||||ROUTINE^Routine|CTABDC^CT abdomen||20|min|^^^{start}|||||1234^Desk||||1234^Desk|||||Booked"
        f"|P{accession}^RIS|{accession}^RIS",
        pid, "RGS|1|A", f"AIS|1|A|CTABDC^CT abdomen^L|{start}", f"AIL|1|A|CT1^^^SYNTH||||{start}",
    )  # fmt: skip
    return [("order", order("NW", "SC", "1")), ("booking", booking), ("exam", order("SC", "CM", "3"))]


def _answered(client: httpx.Client, sent: dict[tuple[str, str], datetime]) -> dict[str, list[float]]:
    """Wait until every message has its answer, or nothing has come for a minute; returns seconds by what was sent."""
    until, quiet, before = time.monotonic() + PATIENCE_S, time.monotonic(), -1
    while True:
        time.sleep(min(5.0, 0.5 + len(sent) / 100))
        counts = [_count(client, kind) for kind, _ in _ANSWERS.values()]
        if sum(counts) != before:
            before, quiet = sum(counts), time.monotonic()
        over = time.monotonic() > min(until, quiet + 60)
        if over or min(counts) * 3 >= len(sent):  # the versions are read only when they may be all there
            found = _found(client, sent)
            if over or sum(map(len, found.values())) >= len(sent):
                return found


def _found(client: httpx.Client, sent: dict[tuple[str, str], datetime]) -> dict[str, list[float]]:
    names = {f"Patient/{one['id']}": one["identifier"][0]["value"] for one in _all(client, "Patient")}
    found: dict[str, list[float]] = {}
    for what, (kind, refers) in _ANSWERS.items():
        first: dict[str, datetime] = {}
        for one in _all(client, f"{kind}/_history"):
            if kind == "Task" and not one.get("owner") and not one.get("statusReason"):
                continue  # that it is to be read, and not yet by whom, or why by nobody
            name, at = (
                names.get(one.get(refers, {}).get("reference", ""), ""),
                datetime.fromisoformat(one["meta"]["lastUpdated"]),
            )
            first[name] = min(at, first.get(name, at))
        found[what] = [(at - sent[name, what]).total_seconds() for name, at in first.items() if (name, what) in sent]
    return found


def _count(client: httpx.Client, kind: str) -> int:
    answer = client.get(f"/fhir/{kind}", params={"_summary": "count"})
    return int(answer.raise_for_status().json()["total"])


def _all(client: httpx.Client, place: str) -> Iterator[Json]:
    url: str | None = f"/fhir/{place}?_count=200"
    while url:
        page: dict[str, Any] = client.get(url).raise_for_status().json()
        yield from (entry["resource"] for entry in page.get("entry", ()) if "resource" in entry)
        url = next((link["url"] for link in page.get("link", ()) if link["relation"] == "next"), None)


@dataclass(frozen=True)
class Running:
    """A house at work: its process, the process of its HL7 door, and their ports."""

    pid: int
    door: int
    web_port: int
    hl7_port: int


@contextmanager
def house(folder: Path) -> Iterator[Running]:
    """Run the rooms until the context is left."""
    web, mllp = _free_port(), _free_port()
    environment = {
        **os.environ, "ARCUATE_TIME_ZONE": "Europe/Zurich", "ARCUATE_SYNTHETIC": "true", "ARCUATE_JOURNEY_IMAGES_WAIT_S": "0",
        "ARCUATE_GATEWAY_CONNECTIONS_PER_ADDRESS": "64",
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.answers", str(folder), str(web), str(mllp)]
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("The house does not open")
        children = " ".join(task.read_text() for task in Path(f"/proc/{process.pid}/task").glob("*/children"))
        yield Running(process.pid, int(children.split()[0]), web, mllp)  # the door is its only child
    finally:
        process.terminate()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _serve(folder: Path, web: int, mllp: int) -> None:
    from arcuate.kernel.settings import SiteSettings

    settings = HouseSettings(data_dir=folder, port=web)
    async with running(settings, SiteSettings(), rooms=ROOMS, room_settings=ports(mllp, None)) as (_, server):
        print("ready", flush=True)
        await server


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
    else:
        report()
