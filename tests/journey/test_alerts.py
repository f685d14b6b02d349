"""One alert when a room or a connection fails, with its cause, and one when it works again."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from journey_world import house_client, settle
from sqlmodel import Session

from arcuate import journey as package
from arcuate.house import House, HouseSettings, open_house
from arcuate.journey import alerts
from arcuate.journey.alerts import Seen
from arcuate.journey.settings import JourneySettings
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.settings import SiteSettings

SITE = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
SETTINGS = JourneySettings()
START = datetime(2026, 3, 17, 9, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/journey.db")
    database.migrate(package)
    return database


def looks(database: Database, causes: list[str], every_s: float = 15) -> list[str]:
    """Look again and again; return what people were told."""
    told = []
    for number, cause in enumerate(causes):
        now = START + timedelta(seconds=number * every_s)

        def write(session: Session, cause: str = cause, now: datetime = now) -> str:
            return alerts.judge(session, Seen("imaging", "room", cause), now, SETTINGS)

        if what := database.write_sync(write):
            told.append(what)
    return told


def test_f092_a_room_that_fails_and_works_in_turns_a_hundred_times_is_one_alert_and_one_recovery(
    database: Database,
) -> None:
    assert looks(database, ["no answer", ""] * 100 + [""] * 10) == ["alert", "recovered"]
    open_ones, recovered = database.read_sync(alerts.listed)
    assert not open_ones
    assert [(one.name, one.cause, one.failures) for one in recovered] == [("imaging", "no answer", 100)]


def test_f092_a_short_pause_is_told_to_nobody(database: Database) -> None:
    assert looks(database, ["no answer", "", "", "", "", "", "", "no answer", "", "", "", "", ""]) == []
    assert database.read_sync(alerts.listed) == ([], [])


def test_what_fails_again_after_its_recovery_is_a_new_alert(database: Database) -> None:
    assert looks(database, ["no answer"] * 6 + [""] * 6 + ["answers 503"] * 6) == ["alert", "recovered", "alert"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = ManualClock(START)
    settings = HouseSettings(data_dir=tmp_path / "data")
    async with open_house(settings, SITE, rooms=["access", "record", "protocoling", "journey"], clock=clock) as house:
        yield house


async def told(http: httpx.AsyncClient) -> tuple[list[str], list[str]]:
    body = (await http.get("/journey/alerts")).json()
    return [one["name"] for one in body["open"]], [one["name"] for one in body["recovered"]]


async def test_f092_a_room_that_goes_away_and_comes_back_is_told_once_each_with_what_happens_meanwhile(
    house: House,
) -> None:
    clock = house.contexts["journey"].clock
    assert isinstance(clock, ManualClock)
    http = house_client(house)

    async def pass_time(looks: int) -> None:
        for _ in range(looks):
            clock.advance(16)
            await settle(house)

    await pass_time(4)
    assert "protocoling" not in (await told(http))[0]
    gone = house.rooms.pop("protocoling")
    await pass_time(5)
    body = (await http.get("/journey/alerts")).json()
    [alert] = [one for one in body["open"] if one["name"] == "protocoling"]
    assert alert["cause"]
    assert "unchecked" in alert["meanwhile"]

    house.rooms["protocoling"] = gone
    await pass_time(6)
    open_names, recovered = await told(http)
    assert "protocoling" not in open_names
    assert recovered == ["protocoling"]
