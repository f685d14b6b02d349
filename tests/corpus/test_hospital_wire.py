"""The referees of the corpus judge what the synthetic hospital sends and writes."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from arcuate.hospital.history import write_history
from arcuate.hospital.messages import Writer
from arcuate.hospital.morning import Kind, make_morning
from arcuate.hospital.priors import past_entries
from arcuate.hospital.readers import roster_entries
from arcuate.hospital.settings import HospitalSettings
from arcuate.hospital.telling import tell
from arcuate.kernel.fhir import bundle, strict

NOON = datetime(2026, 3, 17, 11, 0, tzinfo=UTC)
ZURICH = ZoneInfo("Europe/Zurich")


def _judge(shared: Path, *arguments: str | Path) -> None:
    tool = shared / "tools" / "fhir-referee" / "fhir-referee"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("the referee is not set up (tools/fhir-referee/setup.sh)")
    errors = [line for line in done.stdout.splitlines() if "| error |" in line]
    assert done.returncode == 0, errors[:5] or done.stderr


def test_hl7_messages_of_a_morning_pass(shared: Path, tmp_path: Path) -> None:
    morning, writer = make_morning(7, NOON, ZURICH), Writer(ZURICH)
    told = ("memory", "missed", "kidney", "side", "moved", "stroke", "pacemaker")
    said = [
        raw for step in morning.steps if step.case.key in told and step.kind is not Kind.IMAGES
        for raw in tell(step, step.case.slot, writer).messages
    ]  # fmt: skip
    case = morning.cases[0]
    said.append(writer.final_report(case, NOON, ["FINDINGS: a & b | c", "", "x"], "Invented.", "Reader-01"))
    said.append(writer.laboratory(case, NOON, 55))
    for number, raw in enumerate(said):
        (tmp_path / f"{number:04d}.hl7").write_bytes(raw)
    _judge(shared, "hl7", "--unique", *sorted(tmp_path.iterdir()))


def test_roster_and_past_pass_as_fhir(shared: Path, tmp_path: Path) -> None:
    morning = make_morning(7, NOON, ZURICH)
    for name, entries in (("roster", roster_entries(morning.readers)), ("past", past_entries(morning.cases))):
        (tmp_path / f"{name}.json").write_bytes(strict.dumps(bundle.transaction(entries)))
    _judge(shared, "--local-system", "urn:arcuate:", tmp_path)


def test_the_history_passes_as_fhir_and_is_whole(shared: Path, tmp_path: Path) -> None:
    write_history(tmp_path, HospitalSettings(), seed=7, months=1)
    _judge(shared, "--closed", "--local-system", "urn:arcuate:", tmp_path)
