"""Effects in journal order (row 014), clocks that jump (row 017), a database that goes away and comes back (row 043)."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.accept.sizes import size
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import merge, order, registration

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import Json, Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient


@pytest.mark.timeout(size(300, 3600))
async def test_f014_of_one_patient_the_last_message_wins_though_eight_are_mapped_at_a_time(site: Site) -> None:
    patients, changes = size(5, 50), size(6, 40)
    lines = [
        [
            registration(
                patient=f"{100 + p}",
                control_id=f"P{p}N{n}",
                pid=f"{100 + p}^^^HOSP^MR||Doe^Jane||19800101|F|||{n} Main St^^Town",
            )
            for n in range(changes)
        ]
        for p in range(patients)
    ]
    for start in range(0, patients, 10):  # so many senders at a time
        await asyncio.gather(*(site.send(*line) for line in lines[start : start + 10]))
    await site.settle()
    for p in range(patients):
        patient = await site.patient(f"{100 + p}")
        assert patient["address"][0]["line"] == [f"{changes - 1} Main St"]
        assert patient["meta"]["versionId"] == str(changes)


async def test_f014_a_merge_stands_in_the_line_of_both_patients(site: Site) -> None:
    await site.send(
        order("ACC1", "200"),
        registration(patient="100"),
        merge("100", "200"),
        order("ACC1", "100", control="XO", control_id="9"),
    )
    await site.settle()
    assert await site.errors() == []  # before the merge the change would have been another patient's
    assert (await site.order("ACC1"))["meta"]["versionId"] in ("1", "2")


async def test_searches_answered_at_different_moments_make_no_conflict_of_identity(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.apply(order("ACC1", "100"))
    client, send, early = site.parts.gateway.fhir, site.parts.gateway.fhir.transaction, ["Patient?"]

    async def answered(bundle: Json) -> Json:
        answer = await send(bundle)
        if early and bundle["type"] == "batch":  # its first search was answered before the patient was written
            assert bundle["entry"][0]["request"]["url"].startswith(early.pop())
            del answer["entry"][0]["resource"]["entry"]
        return answer

    monkeypatch.setattr(client, "transaction", answered)
    await site.apply(order("ACC1", "100", control="XO", control_id="2"))
    assert early == [] and await site.errors() == []
    assert (await site.order("ACC1"))["subject"] == {"reference": f"Patient/{(await site.patient('100'))['id']}"}


class JumpingClock(ManualClock):
    """The wall clock is set to another time; the monotonic one goes on."""

    jump = timedelta()

    def now(self) -> datetime:
        return super().now() + self.jump


async def test_f017_a_wall_clock_that_jumps_delays_no_answer_and_changes_no_order(site: Site) -> None:
    clock = JumpingClock(datetime(2026, 3, 17, 9, 0, tzinfo=UTC))
    clock.advance(site.clock.monotonic())
    site.door.intake._clock = clock
    site.door.listener.clock = clock
    async with MllpClient("127.0.0.1", site.port, 20) as client:
        for number, hours in enumerate((0, -2, 1, 24, -24)):
            clock.jump = timedelta(hours=hours)
            said = ack.read(
                await client.send(order(f"ACC{number}", placer=f"P{number}", control_id=f"c{number}").encode())
            )
            assert said is not None and said.code == "AA"
            clock.advance(1)
            await asyncio.sleep(0)
        assert len(site.door.listener.connections) == 1  # nothing was taken for idle or too slow
    rows = await site.journal()
    assert [row["control_id"] for row in rows] == [f"c{n}" for n in range(5)]
    assert [row["number"] for row in rows] == sorted(row["number"] for row in rows)
    again = await site.send(order("ACC0", placer="P0", control_id="c0"))
    assert again == ["AA"] and len(await site.journal()) == 5


async def test_f043_connections_cut_by_the_database_lose_and_double_nothing(tmp_path: Path, postgres_url: str) -> None:
    async with open_site(tmp_path / "data", GatewaySettings(port=0), postgres_url, start=datetime.now(UTC)) as site:
        stop = asyncio.Event()
        cutting = asyncio.create_task(_cut(postgres_url, stop))
        taken = [await _until_taken(site, n) for n in range(12)]
        stop.set()
        await cutting
        for _ in range(10):
            site.clock.advance(60)
            await site.settle()
        rows = await site.journal()
        assert sorted(row["control_id"] for row in rows) == sorted(taken)
        assert {(m["state"], m["reason"]) for row in rows for m in row["messages"]} == {("applied", "")}
        assert len(await site.find("ServiceRequest")) == 12


async def _cut(url: str, stop: asyncio.Event) -> None:
    """Ends every other connection to this database, again and again."""

    def cut(connection: Any) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        while not stop.is_set():
            await asyncio.to_thread(cut, connection)
            await asyncio.sleep(0.2)


async def _until_taken(site: Site, number: int) -> str:
    """Send one order until it is acknowledged; nothing but AA and AR may come."""
    control_id = f"K{number}"
    for _ in range(100):
        async with MllpClient("127.0.0.1", site.port, 20) as client:
            try:
                said = ack.read(
                    await client.send(
                        order(f"ACC{number}", placer=f"P{number}", patient=f"{number}", control_id=control_id).encode()
                    )
                )
            except Unavailable:
                continue
        assert said is not None and said.code in ("AA", "AR")
        if said.code == "AA":
            return control_id
    pytest.fail("never taken")
