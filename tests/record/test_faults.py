"""What the record does when bodies lie, disks fill up and databases go away."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import psycopg

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import ArcuateError, StorageFault

from .record_world import Replica, open_replica, patient

FHIR = {"Content-Type": "application/fhir+json"}


async def test_f030_a_stream_without_end_is_refused_before_it_is_read(replica: Replica) -> None:
    sent = 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1024:
            sent += 1
            yield b" " * 1024 * 1024

    answer = await replica.http(Role.INTEGRATION).post("/fhir/Patient", content=stream(), headers=FHIR)

    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (413, "too-long")


async def test_f030_what_is_compressed_or_announced_as_something_else_is_not_taken(replica: Replica) -> None:
    http = replica.http(Role.INTEGRATION)
    bomb = gzip.compress(b" " * 10_000_000)

    packed = await http.post("/fhir/Patient", content=bomb, headers={**FHIR, "Content-Encoding": "gzip"})
    xml = await http.post("/fhir/Patient", content=b"<Patient/>", headers={"Content-Type": "application/fhir+xml"})
    lying = await http.post("/fhir/Patient", content=b"{}", headers={**FHIR, "Content-Length": "99999999999"})

    assert [(a.status_code, a.json()["issue"][0]["code"]) for a in (packed, xml, lying)] == [
        (415, "not-supported"), (415, "not-supported"), (413, "too-long"),
    ]  # fmt: skip


async def test_f041_a_full_disk_is_503_reads_go_on_and_writes_recover_by_themselves(replica: Replica) -> None:
    http = replica.http()
    made = await replica.fhir().create(patient("1"))

    def pages(number: int) -> None:
        replica.record.database.write_sync(lambda s: s.connection().exec_driver_sql(f"PRAGMA max_page_count={number}"))

    pages(1)  # SQLite answers SQLITE_FULL from the next page on, as on a full disk
    big = patient("2", name=[{"family": "x" * 500_000}])
    refused = await http.post("/fhir/Patient", json=big)
    read = await http.get(f"/fhir/Patient/{made['id']}")
    pages(2**30)
    again = await http.post("/fhir/Patient", json=big)

    assert (refused.status_code, refused.json()["issue"][0]["code"]) == (503, "transient")
    assert refused.headers["retry-after"]
    assert (read.status_code, again.status_code) == (200, 201)
    assert len(await replica.fhir().search("Patient")) == 2


async def test_f043_connections_cut_by_the_server_are_503_or_kept_once_and_it_recovers(
    postgres_url: str, tmp_path: Any, clock: ManualClock, stack: Any
) -> None:
    replica = await open_replica(postgres_url, tmp_path / "r", clock, stack)
    fhir, stop = replica.fhir(), asyncio.Event()
    kept: list[str] = []
    lost = 0

    async def write(worker: int) -> None:
        nonlocal lost
        number = 0
        while not stop.is_set():
            number += 1
            name = f"{worker}-{number}"
            try:
                await fhir.create(patient(name), {"identifier": f"urn:arcuate:id:patient:TEST|{name}"})
                kept.append(name)
            except (StorageFault, ArcuateError):
                lost += 1

    workers = [asyncio.create_task(write(n)) for n in range(4)]
    address = postgres_url.replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(address, autocommit=True) as admin:
        for _ in range(6):
            await asyncio.sleep(0.2)
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    stop.set()
    await asyncio.gather(*workers)

    stored = [one["identifier"][0]["value"] for one in await fhir.search("Patient", {"_count": "200"})]
    assert set(kept) <= set(stored) and len(stored) == len(set(stored))
    assert (await replica.http().post("/fhir/Patient", json=patient("after"))).status_code == 201
