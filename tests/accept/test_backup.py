"""A house on SQLite files is copied under load, put back on an empty machine and goes on where it stood."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.conftest import ROOT
from tests.gateway.messages import order

from arcuate.backup import backup, restore
from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.house import HouseSettings
from arcuate.kernel.errors import BadInput, Conflict
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import bind, running, script_token

NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)


@asynccontextmanager
async def house(data: Path, receiver: int) -> AsyncIterator[tuple[HouseSettings, httpx.AsyncClient, int]]:
    """Access, record and gateway as `arcuate` runs them; status messages go to a port."""
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    settings = HouseSettings(data_dir=data, port=port)
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    ris = Receiver(name="ris", kind="report", host="127.0.0.1", port=receiver, also=("ORM",))
    own = {"gateway": GatewaySettings(port=0, receivers=(ris,))}
    async with running(settings, site, rooms=("access", "record", "gateway"), room_settings=own) as (opened, _):
        token = script_token(settings, "integration", timedelta(hours=1))
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=settings.address, headers=headers, timeout=30) as http:
            yield settings, http, opened.rooms["gateway"].app.state.parts.door.port


async def _sent(hl7: int, first: int, last: int) -> None:
    async with MllpClient("127.0.0.1", hl7, 20) as client:
        for number in range(first, last):
            message = order(f"ACC{number}", f"{number}", placer=f"P{number}", control_id=f"K{number}")
            answer = ack.read(await client.send(message.encode()))
            assert answer is not None and answer.code == "AA"


async def _applied(http: httpx.AsyncClient) -> list[str]:
    """Wait until everything in the journal is applied; returns the control ids."""
    async with asyncio.timeout(60):
        while True:
            items = (await http.get("/gateway/journal?limit=500")).json()["items"]
            if {m["state"] for one in items for m in one["messages"]} <= {"applied"}:
                return sorted(one["control_id"] for one in items)
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_f048_a_copy_of_a_running_house_is_of_one_instant_and_sends_nothing_until_a_person_says_so(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    with bind("127.0.0.1", 0) as nobody:
        dead = nobody.getsockname()[1]
    async with house(tmp_path / "data", dead) as (settings, _, hl7):
        await _sent(hl7, 0, 10)
        sending = asyncio.create_task(_sent(hl7, 10, 60))
        await asyncio.to_thread(backup, settings, tmp_path / "copy", NOW, lines.append)
        await sending
        with pytest.raises(Conflict, match="exists already"):
            backup(settings, tmp_path / "copy", NOW, lines.append)

    restore(HouseSettings(data_dir=tmp_path / "new"), tmp_path / "copy", NOW, lines.append)
    async with house(tmp_path / "new", dead) as (_, http, hl7):
        kept = await _applied(http)
        assert set(kept) >= {f"K{number}" for number in range(10)}
        assert kept == sorted(f"K{number}" for number in range(len(kept)))
        halted = (await http.get("/gateway/connections")).json()["halted"]
        assert halted["since"].startswith("2026-03-17T09:00") and "restored" in halted["reason"]
        # What the copy lacks is sent again by those who sent it, under numbers that the record has never seen with other content.
        await _sent(hl7, len(kept), 60)
        assert len(await _applied(http)) == 60
        found = await http.get("/fhir/ServiceRequest?_summary=count")
        assert found.json()["total"] == 60
        assert (await http.post("/gateway/sending/release")).json() == {"released": True}
        assert (await http.get("/gateway/connections")).json()["halted"] is None


def _copied(folder: Path) -> HouseSettings:
    """Return the settings of a house without a room that has run; its backup lies in `copy`."""
    settings = HouseSettings(data_dir=folder / "data", database_url="")
    (folder / "data" / "keys").mkdir(parents=True)
    (folder / "data" / "keys" / "one.json").write_text("{}", encoding="utf-8")
    backup(settings, folder / "copy", NOW, print)
    return settings


@pytest.mark.parametrize("harm", ["missing", "changed", "unlisted", "outside"])
def test_f048_a_backup_that_is_not_whole_is_refused_before_anything_is_restored(tmp_path: Path, harm: str) -> None:
    _copied(tmp_path)
    key, listing = tmp_path / "copy" / "keys" / "one.json", tmp_path / "copy" / "backup.json"
    if harm == "missing":
        key.unlink()
    elif harm == "changed":
        key.write_text("{ }", encoding="utf-8")
    elif harm == "unlisted":
        listing.unlink()
    else:
        listing.write_text(json.dumps({"files": {"../../data/keys/one.json": "0"}}), encoding="utf-8")
    new = tmp_path / "new"
    with pytest.raises(BadInput):
        restore(HouseSettings(data_dir=new), tmp_path / "copy", NOW, print)
    assert not new.exists()


def test_f048_a_backup_is_put_only_into_an_empty_folder(tmp_path: Path) -> None:
    settings = _copied(tmp_path)
    with pytest.raises(Conflict, match="not empty"):
        restore(settings, tmp_path / "copy", NOW, print)


def test_a_house_on_postgresql_is_told_what_to_use_instead(tmp_path: Path) -> None:
    settings = HouseSettings(data_dir=tmp_path, database_url="postgresql+psycopg://nobody@/none")
    with pytest.raises(BadInput) as caught:
        backup(settings, tmp_path / "copy", NOW, print)
    assert "pg_dump" in str(caught.value.todo) and (ROOT / "docs/howto/backup.md").is_file()
