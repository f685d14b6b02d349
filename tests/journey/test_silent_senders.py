"""A sender that speaks at this time of the week and does not is one alert; a quiet night is none."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from journey_world import house_client, settle
from sqlmodel import Session

from arcuate import journey as package
from arcuate.gateway.settings import GatewaySettings
from arcuate.house import House, HouseSettings, open_house
from arcuate.journey.hearing import Sender, hear
from arcuate.journey.settings import JourneySettings
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings

SETTINGS = JourneySettings()
MONDAY = datetime(2026, 3, 16, tzinfo=UTC)
LOOK = timedelta(minutes=5)


class Department:
    """A RIS that sends a message every five minutes from 7 to 18 o'clock, and the looks at it."""

    def __init__(self, session: Session) -> None:
        self.session, self.sent, self.last = session, 0, MONDAY
        self.causes: list[tuple[datetime, str]] = []

    def watch(self, begin: datetime, end: datetime, *, mute: bool = False, every: int = 1) -> None:
        """Look every five minutes; `every` says how often one of them has brought a message."""
        now, looks = begin, 0
        while now < end:
            looks += 1
            if not mute and 7 <= now.hour < 18 and looks % every == 0:
                self.sent, self.last = self.sent + 1, now
            [found] = hear(self.session, [Sender("RIS|SITE", self.sent, self.last)], now, SETTINGS)
            if found.cause:
                self.causes.append((now, found.cause))
            now += LOOK


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/journey.db")
    database.migrate(package)
    return database


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


def causes(database: Database, *watches: tuple[datetime, datetime, bool], every: int = 1) -> list[tuple[datetime, str]]:
    def write(session: Session) -> list[tuple[datetime, str]]:
        department = Department(session)
        for begin, end, mute in watches:
            department.watch(begin, end, mute=mute, every=every)
        return department.causes

    return database.write_sync(write)


def test_f092_a_sender_muted_at_ten_is_noticed_an_hour_later_and_forgotten_when_it_speaks(database: Database) -> None:
    found = causes(
        database,
        (at(0, 6), at(0, 19), False),
        (at(7, 6), at(7, 10), False),
        (at(7, 10), at(7, 12), True),
        (at(7, 12), at(7, 13), False),
    )
    assert found[0][0] in (at(7, 10, 55), at(7, 11))
    assert "in the same hours of earlier weeks it sent about 12" in found[0][1]
    assert found[-1][0] == at(7, 11, 55)


def test_f092_a_quiet_night_is_no_silence(database: Database) -> None:
    assert not causes(database, (at(0, 15), at(0, 19), False), (at(7, 15), at(8, 6), False))


def test_until_a_week_is_known_the_day_before_counts(database: Database) -> None:
    found = causes(database, (at(0, 6), at(0, 19), False), (at(1, 6), at(1, 9), False), (at(1, 9), at(1, 11), True))
    assert found
    assert "of the day before" in found[0][1]


def test_a_sender_of_few_messages_is_never_called_silent(database: Database) -> None:
    assert not causes(database, (at(0, 6), at(0, 19), False), (at(7, 6), at(7, 16), True), every=30)


def test_time_in_which_nobody_listened_is_no_silence_of_the_sender(database: Database) -> None:
    found = causes(
        database, (at(0, 6), at(0, 19), False), (at(7, 6), at(7, 9), False), (at(7, 14), at(7, 14, 50), True)
    )
    assert not found


def test_a_new_sender_is_never_called_silent_before_it_is_known(database: Database) -> None:
    assert not causes(database, (at(0, 9), at(0, 18), True))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path / "data")
    site = SiteSettings(time_zone="UTC", synthetic=True)
    async with open_house(
        settings, site, rooms=["access", "record", "gateway", "journey"], clock=ManualClock(at(0, 9)),
        room_settings={"gateway": GatewaySettings(port=0)},
    ) as house:  # fmt: skip
        yield house


@pytest.mark.long
async def test_f092_a_silent_sender_is_one_alert_with_what_to_do_and_recovers_when_it_speaks(house: House) -> None:
    clock, http = house.contexts["journey"].clock, house_client(house)
    assert isinstance(clock, ManualClock)
    port = (await http.get("/gateway/connections")).json()["door"]["port"]

    async def send(*numbers: int) -> None:
        async with MllpClient("127.0.0.1", port, 20) as client:
            for n in numbers:
                await client.send(f"MSH|^~\\&|RIS|SITE|A|B|20260316||ADT^A08|{n}|P|2.5.1\rPID|1||S1^^^SYNTH\r".encode())

    async def pass_minutes(minutes: int) -> None:
        for _ in range(minutes // 4):
            clock.advance(240)
            await settle(house)

    async def alerts() -> tuple[list[dict[str, str]], list[str]]:
        body = (await http.get("/journey/alerts")).json()
        return [one for one in body["open"] if one["kind"] == "sender"], [one["name"] for one in body["recovered"]]

    await send(0)
    await pass_minutes(4)  # from here on it is known
    await send(*range(1, 13))
    await pass_minutes(8)
    clock.advance(86400 - 12 * 60)
    await settle(house)
    await send(20)
    await pass_minutes(72)

    [alert], _ = await alerts()
    assert alert["name"] == "sender RIS at SITE"
    assert alert["cause"].startswith("no message for ")
    assert "ask at the sender" in alert["meanwhile"]

    await send(21)
    await pass_minutes(8)
    open_ones, recovered = await alerts()
    assert (open_ones, "sender RIS at SITE" in recovered) == ([], True)
