"""Every HL7 file of the corpus over the wire: answered, kept byte for byte, and mapped to valid FHIR; a table says what became of what."""

import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import Site, open_site

from arcuate.gateway import journal
from arcuate.gateway.sending import send_files
from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.fhir import strict
from arcuate.kernel.hl7v2 import header
from arcuate.kernel.hl7v2.message import Message, split

KINDS = (
    "Patient", "Encounter", "ServiceRequest", "Procedure", "Appointment", "Location", "Observation", "DiagnosticReport", "Provenance",
    "AllergyIntolerance", "Condition",
)  # fmt: skip


def content(path: Path) -> bytes:
    """What must be in the journal: the file, without the framing bytes that three of them hold."""
    raw = path.read_bytes()
    return raw[1:].split(b"\x1c")[0] if raw.startswith(b"\x0b") else raw


def table(what: str, told: Iterable[tuple[str, dict[str, Any]]]) -> str:
    """Markdown: how many messages of each name (type or source) were applied, set aside and parked, and why the parked ones were."""
    states: dict[str, Counter[str]] = defaultdict(Counter)
    causes: dict[str, Counter[str]] = defaultdict(Counter)
    for name, message in told:
        states[name][message["state"]] += 1
        if message["state"] == "parked":
            causes[name][message["cause"] or message["note"] or "no reason"] += 1
    columns = sorted({state for counts in states.values() for state in counts})
    lines = [
        f"| {what} | messages | {' | '.join(columns)} | parked because |",
        "|---|" + "---:|" * (len(columns) + 1) + "---|",
    ]
    for name in sorted(states):
        counts = " | ".join(str(states[name][state] or "") for state in columns)
        why = ", ".join(f"{cause} {number}" for cause, number in causes[name].most_common())
        lines.append(f"| {name} | {states[name].total()} | {counts} | {why} |")
    return "\n".join(lines)


@dataclass
class Played:
    """The corpus, sent."""

    site: Site
    files: list[Path]
    codes: dict[str, int]
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def files(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "hl7v2" / "messages").glob("*/*.hl7"))


@pytest.fixture
async def played(files: list[Path], tmp_path: Path) -> AsyncIterator[Played]:
    async with open_site(tmp_path / "data", GatewaySettings(port=0)) as site:
        codes = await send_files(files, "127.0.0.1", site.port, lambda line: None, silence_s=0.02)
        await site.settle()
        rows: list[dict[str, Any]] = []
        before = ""
        while True:
            page = await site.get(f"/gateway/journal?limit=200{before}")
            rows += page["items"]
            if page["before"] is None:
                break
            before = f"&before={page['before']}"
        yield Played(site, files, codes, rows[::-1])


def test_every_file_is_read_without_losing_a_byte(files: list[Path]) -> None:
    for path in files:
        raw = content(path)
        assert Message.parse(raw).encode() == raw, path.name
        for one in split(raw).messages:
            assert Message.parse(one).encode() == one, path.name


async def test_every_file_is_answered_kept_and_mapped_to_valid_fhir(
    played: Played, shared: Path, tmp_path: Path
) -> None:
    by_type = ((message["kind"] or "(none)", message) for row in played.rows for message in row["messages"])
    print("\n" + table("type", by_type))
    both = zip(played.files, played.rows, strict=True)
    print("\n" + table("source", ((path.parent.name, message) for path, row in both for message in row["messages"])))
    print(played.codes)
    await _answers(played)
    _export(played, tmp_path / "export")
    await _events(played)
    await _referee(played, shared, tmp_path / "fhir.ndjson")


async def _answers(played: Played) -> None:
    """One frame a file; acknowledgements are not answered, frames without MSH are refused, everything else is taken."""
    assert len(played.rows) == len(played.files)
    for path, row in zip(played.files, played.rows, strict=True):
        heads = [header.read(one) for one in split(content(path)).messages]
        first = heads[0] if heads else None
        if first is None:
            assert row["answer"] == "AR", path.name
        elif all(head is not None and head.type[0] == "ACK" for head in heads) or _answers_us(path):
            assert row["answer"] == "", path.name
        elif first.enhanced:
            assert row["answer"] == "CA", path.name
        else:
            assert row["answer"] == "AA", path.name
        assert len(row["messages"]) == max(1, len(heads)), path.name
        assert all(message["state"] != "waiting" for message in row["messages"]), path.name


def _answers_us(path: Path) -> bool:
    """An MSA under an MSH-9 that cannot name a message type (three letters): an acknowledgement whose header is broken."""
    lines = content(path).replace(b"\n", b"\r").split(b"\r")
    kind = (lines[0].split(b"|") + [b""] * 9)[8].split(b"^")[0]
    return any(line.startswith(b"MSA|") for line in lines) and not (len(kind) == 3 and kind.isalpha())


def _export(played: Played, folder: Path) -> None:
    assert journal.export(played.site.parts.context.database, folder) == len(played.files)
    for number, path in enumerate(played.files, 1):
        assert (folder / f"{number:08d}.hl7").read_bytes() == content(path), path.name


async def _events(played: Played) -> None:
    """Whatever is not applied says why, in words; and what is applied is found under the message's own numbers."""
    by_file = {path.name: row for path, row in zip(played.files, played.rows, strict=True)}
    for row in played.rows:
        for message in row["messages"]:
            if message["state"] in ("parked", "unmatched", "ignored", "kept"):
                assert message["reason"] or message["note"], row["number"]
    assert by_file["pacsbridge_0010_ORM-O01.hl7"]["messages"][0]["state"] == "applied"
    for name, accession in (
        ("dcm4chee2_0002_ORM-O01.hl7", "MOF5000"), ("dcm4che_0006_OMI-O23.hl7", "AccessionNumber"), ("pacsbridge_0010_ORM-O01.hl7", "ACC001"),
        ("cosyte_0065_ORM-O01.hl7", "AC-VS-001"), ("mirth_0018_ORM-O01.hl7", "20061213-0007"),
        ("lfh_0033_ORM-O01.hl7", "ACCESSION_a42990b7-4155-4404-81ef-e85158caed72"),
    ):  # fmt: skip
        assert by_file[name]["messages"][0]["state"] == "applied", name
        assert (await played.site.order(accession))["intent"] == "order", name
    patient = await played.site.find("Patient", identifier="urn:arcuate:id:patient:ADT1|583020")
    assert (
        patient[0]["name"][0] == {"family": "WHITE", "given": ["CHARLES"]} and patient[0]["birthDate"] == "1998-07-04"
    )


async def _referee(played: Played, shared: Path, path: Path) -> None:
    folder = shared / "tools" / "fhir-referee"
    with path.open("wb") as file:
        for kind in KINDS:
            for resource in await played.site.fhir.search(kind, {"_count": "200"}):
                file.write(strict.dumps(resource) + b"\n")
    judged = subprocess.run(
        [str(folder / "fhir-referee"), str(path), "--level", "error", "--local-system", "urn:arcuate:"],
        capture_output=True,
        text=True,
        check=False,
    )
    if judged.returncode == 3:
        pytest.skip("the referee is not set up (setup.sh)")
    print(judged.stdout.splitlines()[-1])
    assert judged.returncode == 0, judged.stdout[-3000:]
