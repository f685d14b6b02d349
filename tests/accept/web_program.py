"""Access and record with their web door as a program of its own: `python web_program.py DATA PORT`; prints a line when it is open."""

import asyncio
import sys
from pathlib import Path

from arcuate.house import HouseSettings
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import running


async def main(data: Path, port: int) -> None:
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    async with running(HouseSettings(data_dir=data, port=port), site, rooms=("access", "record")) as (_, serving):
        print(port, flush=True)
        await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
