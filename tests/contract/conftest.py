"""A house of all rooms in this process, on free ports."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import ports


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path / "data")
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    async with open_house(settings, site, room_settings=ports(free_port(), free_port())) as house:
        yield house
