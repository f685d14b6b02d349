"""A gateway and its record as a program of its own, to be killed: `python program.py DATA [DATABASE_URL]`; prints its port.

`python program.py DATA DATABASE_URL again` stays and makes one such program after the other by fork, for each line on its standard input,
so that a proof of hundreds of kills does not spend its time on reading the same modules: it prints the process, then the program its port.
"""

import asyncio
import os
import sys
from pathlib import Path

from arcuate.access import app as _access
from arcuate.gateway import app as _gateway
from arcuate.gateway.settings import GatewaySettings
from arcuate.house import HouseSettings, open_house
from arcuate.kernel.settings import SiteSettings
from arcuate.record import app as _record

ROOMS = (_access, _record, _gateway)  # read before the first program is made


async def main(data: Path, url: str) -> None:
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    settings = HouseSettings(data_dir=data, database_url=url)
    rooms = ("access", "record", "gateway")
    async with open_house(settings, site, rooms=rooms, room_settings={"gateway": GatewaySettings(port=0)}) as house:
        print(house.rooms["gateway"].app.state.parts.door.port, flush=True)
        await asyncio.Event().wait()


def again(data: Path, url: str) -> None:
    """Make a program for each line, and say when it has ended."""
    for _ in sys.stdin:
        made = os.fork()
        if made == 0:
            os.setsid()
            asyncio.run(main(data, url))
            os._exit(0)
        print(made, flush=True)
        os.waitpid(made, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    folder, address = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    if sys.argv[3:] == ["again"]:
        again(folder, address)
    else:
        asyncio.run(main(folder, address))
