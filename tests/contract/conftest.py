"""A house of all rooms in this process, on free ports: one for all tests of a file, which only ask at its doors."""

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import ports


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    settings = HouseSettings(data_dir=tmp_path_factory.mktemp("house") / "data")
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    async with open_house(settings, site, room_settings=ports(free_port(), free_port())) as house:
        yield house
