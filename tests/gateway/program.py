"""A gateway and its record as a program of its own, to be killed: `python program.py DATA [DATABASE_URL]`; prints its port."""

import asyncio
import sys
from pathlib import Path

from arcuate.gateway.settings import GatewaySettings
from arcuate.house import HouseSettings, open_house
from arcuate.kernel.settings import SiteSettings


async def main(data: Path, url: str) -> None:
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    settings = HouseSettings(data_dir=data, database_url=url)
    rooms = ("access", "record", "gateway")
    async with open_house(settings, site, rooms=rooms, room_settings={"gateway": GatewaySettings(port=0)}) as house:
        print(house.rooms["gateway"].app.state.parts.door.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
