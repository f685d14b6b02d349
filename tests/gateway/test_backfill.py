"""Past years are read into the journal, marked, and move nothing; a run that was stopped goes on, and nothing stands twice."""

import asyncio
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import prepare
from tests.gateway.messages import booking, order, registration, result

from arcuate.gateway import archive, columns
from arcuate.gateway.backfill import Counts, Standing
from arcuate.gateway.columns import Columns
from arcuate.gateway.outgoing import compose
from arcuate.gateway.settings import GatewaySettings
from arcuate.house import House, HouseSettings, HouseTransport, open_house
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.codes import is_history
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2.mllp import MllpClient, frame
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import backfill
from arcuate.scheduling.domain import Outcome
from arcuate.scheduling.visits import read_history

EXAMPLE = Path(columns.__file__).with_name("columns.toml")


@pytest.fixture(autouse=True)
def _site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCUATE_TIME_ZONE", "Europe/Zurich")
    monkeypatch.setenv("ARCUATE_GATEWAY_PORT", "0")


async def take(data: Path, *paths: Path, mapping: Path | None = None) -> tuple[Counts, Standing]:
    if not data.exists():
        await prepare(data, ("access", "record", "gateway"))
    return await backfill(HouseSettings(data_dir=data), paths, mapping, "ehr", lambda _: None)


@asynccontextmanager
async def house_of(data: Path) -> AsyncIterator[tuple[House, FhirClient, httpx.AsyncClient]]:
    site = SiteSettings(time_zone="Europe/Zurich")
    if not data.exists():
        await prepare(data, ("access", "record", "gateway"))
    async with open_house(
        HouseSettings(data_dir=data), site, rooms=("access", "record", "gateway"), room_settings={"gateway": GatewaySettings(port=0)}
    ) as house:  # fmt: skip
        key = house.rooms["access"].app.state.access.signing_key
        who = Principal("tester", frozenset({Role.INTEGRATION, Role.ADMIN}), "tester", "Tester")
        token = tokens.issue(key, "urn:arcuate:access", who, datetime.now(UTC), 86400)
        transport = HouseTransport(house)
        http = httpx.AsyncClient(
            transport=transport, base_url="http://house", headers={"Authorization": f"Bearer {token}"}, timeout=30
        )
        yield house, FhirClient(http), http


def past_of(number: int) -> list[str]:
    """One patient's order, booking that was kept, and report of 2024."""
    acc, who, at = f"H{number}", str(9000 + number), f"2024030{1 + number % 9}100000"
    return [
        registration(patient=who, control_id=f"a{number}", at=at),
        order(acc, who, at=at, control_id=f"o{number}", placer=f"HP{number}"),
        booking(number=f"HB{number}", patient=who, accession=acc, at=at, start="20240320110000", control_id=f"b{number}"),
        booking("S14", f"HB{number}", who, accession=acc, status="Complete", at="20240320120000", start="20240320110000", control_id=f"c{number}"),
        result(acc, who, at="20240321080000", control_id=f"r{number}"),
    ]  # fmt: skip


async def test_the_past_is_there_and_moves_nothing_until_a_live_message_names_it(tmp_path: Path) -> None:
    archive_file = tmp_path / "2024.hl7"
    archive_file.write_text(
        "\r\n".join(one.replace("\r", "\r\n") for one in past_of(1)) + "\r\nMSH|^~\\&|X|Y|||2024||ZZZ^Z9|9|P|2.5\r\n"
    )
    counts, standing = await take(tmp_path / "data", archive_file)
    assert (counts.read, counts.new) == (6, 6)
    assert standing.states == {"applied": 5, "parked": 1}
    assert list(standing.causes.values()) == [1]
    again, same = await take(tmp_path / "data", archive_file)
    assert (again.read, again.new, again.known) == (6, 0, 6)
    assert same == standing
    async with house_of(tmp_path / "data") as (house, fhir, http):
        held: list[Json] = [
            one
            for kind in ("Patient", "ServiceRequest", "Appointment", "DiagnosticReport")
            for one in await fhir.search(kind)
        ]
        assert len(held) == 4
        assert all(is_history(one) for one in held)
        parts = house.rooms["gateway"].app.state.parts
        changes = [change async for change in parts.feed.available()]
        assert not [change for change in changes if compose.wanted(change)]
        connections = (await http.get("/gateway/connections")).json()
        assert connections["senders"] == []
        errors = (await http.get("/gateway/errors")).json()
        assert [one["cause"].endswith("unknown message type") for one in errors["items"]] == [True]
        async with MllpClient("127.0.0.1", parts.door.port, 20) as client:
            await client.send(
                order("H1", "9001", control="XO", at="20260317100000", control_id="live", placer="HP1").encode()
            )
        await _until(parts)
        (now,) = await fhir.search("ServiceRequest")
        assert not is_history(now)
        assert len(await fhir.search("Patient")) == 1


async def _until(parts: Any) -> None:
    for _ in range(200):
        await parts.drain()
        counts = await parts.context.database.read(
            lambda s: __import__("arcuate.gateway.views", fromlist=["counts"]).counts(s)
        )
        if not counts.get("waiting"):
            return
        await asyncio.sleep(0.02)


@pytest.mark.long
async def test_what_live_messages_have_written_is_not_changed_by_the_past(tmp_path: Path) -> None:
    async with house_of(tmp_path / "data") as (house, fhir, _):
        parts = house.rooms["gateway"].app.state.parts
        async with MllpClient("127.0.0.1", parts.door.port, 20) as client:
            for one in (
                registration(patient="9001", pid="9001^^^HOSP^MR||Newer^Name||19800101|F"),
                order("H1", "9001", name="Newer^Name", placer="HP1"),
            ):
                await client.send(one.encode())
        await _until(parts)
        before = [*await fhir.search("Patient"), *await fhir.search("ServiceRequest")]
        # A running house does the work itself.
        (tmp_path / "old.hl7").write_text(
            "".join(
                [
                    registration(patient="9001", at="20190101000000"),
                    order("H1", "9001", control="CA", at="20190101000000", placer="HP1"),
                ]
            )
        )
        _, standing = await take(tmp_path / "data", tmp_path / "old.hl7")
        assert standing.states == {"ignored": 2}
        assert [*await fhir.search("Patient"), *await fhir.search("ServiceRequest")] == before


def test_files_of_many_shapes_hold_the_same_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_FREE_BYTES", 1024 * 1024)
    sent = [one.encode() for one in past_of(1)]
    plain = b"".join(sent)
    shapes = {
        "cr.hl7": plain, "crlf.txt": plain.replace(b"\r", b"\r\n"), "blank.hl7": b"\r\n\r\n".join(sent), "bom.hl7": b"\xef\xbb\xbf" + plain,
        "mllp.bin": b"".join(frame(one) for one in sent), "batch.hl7": b"FHS|^~\\&|X\rBHS|^~\\&|X\r" + plain + b"BTS|5\rFTS|1\r",
    }  # fmt: skip
    folder = tmp_path / "in"
    folder.mkdir()
    for name, data in shapes.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a/cr.hl7", plain)
        packed.writestr("b.hl7.gz", gzip.compress(plain))
    with tarfile.open(folder / "t.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("x/cr.hl7")
        info.size = len(plain)
        tar.addfile(info, io.BytesIO(plain))
    (folder / "g.hl7.gz").write_bytes(gzip.compress(plain))
    (folder / "bomb.gz").write_bytes(gzip.compress(bytes(3 * 1024 * 1024)))
    (folder / "broken.zip").write_bytes(b"PK\x03\x04nothing")
    refused: list[tuple[str, str]] = []
    found: dict[str, list[bytes]] = {}
    for file in archive.files([folder], refused):
        try:
            found[file.name] = [raw for raw, _ in archive.messages(file.stream, 8 << 20)]
        except BadInput as error:
            refused.append((file.name, error.what))
    expected = [one.strip() for one in sent]
    for name in (*shapes, "z.zip/a/cr.hl7", "z.zip/b.hl7.gz", "t.tar.gz/x/cr.hl7", "g.hl7.gz"):
        assert [one.strip(b"\r\n\xef\xbb\xbf").replace(b"\r\n", b"\r") for one in found[name]] == expected, name
    assert {name for name, _ in refused} == {"bomb.gz", "broken.zip"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([one.encode() for one in past_of(3)]), max_size=6), st.integers(1, 900))
def test_however_a_file_comes_in_pieces_its_messages_are_the_same(sent: list[bytes], step: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(step, size) if size and size > 0 else step)

    assert [raw for raw, _ in archive.messages(Slow(b"".join(sent)), 1 << 20)] == sent


def test_a_message_over_the_limit_is_given_by_its_beginning_with_its_size() -> None:
    huge = order("H9").encode() + b"OBX|1|ED|||" + b"A" * 3_000_000 + b"\r"
    found = list(archive.messages(io.BytesIO(huge + order("H8").encode()), 1_000_000))
    assert [(len(raw), size) for raw, size in found] == [(1_000_000, len(huge)), (len(order("H8")), len(order("H8")))]


TABLE = """MRN,LastName,FirstName,DOB,Sex,Mobile,Accession,ExamCode,ExamName,Priority,Indication,OrderedAt,BookingNo,BookedAt,Start,Minutes,Scanner,Status,ChangedAt,ArrivedAt,BeganAt,EndedAt,ReportText,ReportedAt
1,Doe,Jane,1980-01-01,F,,A1,MRBR0,MR Brain,R,Headache,2024-02-01 08:00,B1,2024-02-01 09:00,2024-03-20 11:00,30,MR1,DONE,2024-03-20 12:00,2024-03-20 10:50,2024-03-20 11:05,2024-03-20 11:31,Normal.,2024-03-21 08:00
1,Doe,Jane,1980-01-01,F,,A2,MRBR0,MR Brain,R,,2024-04-01 08:00,B2,2024-04-01 09:00,2024-05-20 11:00,30,MR1,NOSHOW,2024-05-20 12:00,,,,,
1,Doe,Jane,1980-01-01,F,,A3,MRBR0,MR Brain,R,,2024-06-01 08:00,B3,2024-06-01 09:00,2024-07-20 11:00,30,MR1,CANCELLED,2024-07-20 08:00,,,,,
1,Doe,Jane,1980-01-01,F,,A4,MRBR0,MR Brain,R,,2024-08-01 08:00,B4,2024-08-01 09:00,2024-09-20 11:00,30,MR1,CANCELLED,2024-08-20 08:00,,,,,
2,Roe,Richard,1990-01-01,M,,A5,MRBR0,MR Brain,R,,2024-08-01 08:00,B5,2024-08-01 09:00,2024-09-21 11:00,30,MR1,WHAT,2024-08-20 08:00,,,,,
"""  # noqa: E501


async def test_a_table_of_visits_becomes_a_history_that_training_reads_with_its_own_times(tmp_path: Path) -> None:
    (tmp_path / "visits.csv").write_text(TABLE)
    data = tmp_path / "data"
    with pytest.raises(BadInput, match="mapping of its columns"):
        await take(data, tmp_path / "visits.csv")
    counts, standing = await take(data, tmp_path / "visits.csv", mapping=EXAMPLE)
    assert (counts.read, standing.states) == (5, {"applied": 4, "parked": 1})
    async with house_of(data) as (_, fhir, http):
        out = tmp_path / "out"
        out.mkdir()
        for kind in ("Patient", "ServiceRequest", "Appointment", "Encounter", "Procedure"):
            (out / f"{kind}.ndjson").write_text(
                "".join(json.dumps(one, default=str) + "\n" for one in await fhir.search(kind))
            )
        (error,) = (await http.get("/gateway/errors")).json()["items"]
        assert "status 'WHAT'" in error["reason"]
        shown = (await http.get(f"/gateway/errors/{error['id']}")).json()
        assert "Roe" in shown["text"]
    visits = read_history(out)
    assert [one.outcome for one in visits] == [
        Outcome.ATTENDED,
        Outcome.NO_SHOW,
        Outcome.LATE_CANCEL,
        Outcome.EARLY_CANCEL,
    ]
    assert [one.known_at and one.known_at.date().isoformat() for one in visits] == [
        "2024-03-20",
        "2024-05-20",
        "2024-07-20",
        "2024-08-20",
    ]
    assert visits[0].arrived is not None
    assert visits[0].ended is not None
    assert len({one.patient for one in visits}) == 1


def bulk(folder: Path) -> None:
    folder.mkdir()
    jane, acsn = {"reference": "Patient/p1"}, {"coding": [{"code": "ACSN"}]}
    number = {"system": "urn:arcuate:id:patient:HOSP", "value": "100", "type": {"coding": [{"code": "MR"}]}}
    value = {"resourceType": "Observation", "status": "final", "code": {"text": "eGFR"}}
    lines: dict[str, list[Json]] = {
        "Patient": [{"resourceType": "Patient", "id": "p1", "identifier": [number], "birthDate": "1980-01-01", "name": [{"family": "Doe"}]}],
        "Observation": [
            {**value, "id": "o1", "subject": jane, "performer": [{"reference": "Practitioner/x"}]},
            {**value, "id": "o2", "subject": {"reference": "Patient/nobody"}},
        ],
        "ServiceRequest": [
            {"resourceType": "ServiceRequest", "id": "s1", "status": "completed", "intent": "order", "subject": jane,
             "identifier": [{"system": "http://ris.example/acc", "value": "ACC1", "type": acsn}]},
        ],
        "Coverage": [{"resourceType": "Coverage", "id": "c"}],
    }  # fmt: skip
    for kind, listed in lines.items():
        (folder / f"1.{kind}.ndjson").write_text("".join(json.dumps(one) + "\n" for one in listed))
    (folder / "2.Condition.ndjson").write_text("{no json\n")


@pytest.mark.long
async def test_bulk_data_joins_what_hl7_told_and_what_names_nobody_waits_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "o.hl7").write_text(order("ACC1", "100", at="20240301100000"))
    bulk(tmp_path / "bulk")
    counts, standing = await take(tmp_path / "data", tmp_path / "o.hl7", tmp_path / "bulk")
    assert counts.unused == {"Coverage": 1}
    assert standing.states == {"applied": 4, "parked": 2}
    assert standing.causes == {"no patient": 1, "unreadable": 1}
    async with house_of(tmp_path / "data") as (_, fhir, _http):
        (patient,) = await fhir.search("Patient")
        (request,) = await fhir.search("ServiceRequest")
        (value,) = await fhir.search("Observation")
        assert value["subject"]["reference"] == f"Patient/{patient['id']}" == request["subject"]["reference"]
        assert value["performer"][0]["identifier"]["value"] == "Practitioner/x"
        assert request["code"]["text"]  # the words of the HL7 order stand
    counts, same = await take(tmp_path / "data", tmp_path / "o.hl7", tmp_path / "bulk")
    assert (counts.new, same) == (0, standing)


@pytest.mark.long
def test_a_run_that_is_killed_goes_on_and_nothing_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "many.hl7").write_text("".join(message for number in range(30) for message in past_of(number)))
    command = [
        sys.executable,
        "-m",
        "arcuate",
        "backfill",
        str(tmp_path / "many.hl7"),
        "--data",
        str(tmp_path / "data"),
    ]
    journal = tmp_path / "data" / "gateway" / "gateway.db"
    for pause in (0.2, 0.4):
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=os.environ
        )
        until = time.monotonic() + 60
        while not _some_mapped(journal) and time.monotonic() < until and running.poll() is None:
            time.sleep(0.02)
        time.sleep(pause)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "All of the past: applied 150" in done.stdout, done.stdout

    async def held() -> dict[str, int]:
        async with house_of(tmp_path / "data") as (_, fhir, _http):
            return {
                kind: len(await fhir.search(kind))
                for kind in ("Patient", "ServiceRequest", "Appointment", "DiagnosticReport")
            }

    assert asyncio.run(held()) == {"Patient": 30, "ServiceRequest": 30, "Appointment": 30, "DiagnosticReport": 30}


def _some_mapped(journal: Path) -> bool:
    import sqlite3

    if not journal.exists():
        return False
    try:
        with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as reading:
            return bool(reading.execute("SELECT 1 FROM message WHERE state = 'applied' LIMIT 1").fetchone())
    except sqlite3.Error:
        return False


def test_a_mapping_of_columns_that_is_wrong_is_told_before_anything_is_read(tmp_path: Path) -> None:
    zone = SiteSettings(time_zone="Europe/Zurich").zone
    assert isinstance(columns.load(EXAMPLE, zone), Columns)
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[table]\nsource = "x"\n[columns]\npatient_number = "MRN"\nshoe_size = "Shoe"\n')
    with pytest.raises(BadInput, match="shoe_size"):
        columns.load(wrong, zone)
