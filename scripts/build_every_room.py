"""Build every room's app with what is installed, and ask each for its health."""

import asyncio
import sys
from pathlib import Path

import httpx

from arcuate.house import ROOMS, HouseSettings, HouseTransport, open_house
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import ports


async def main(folder: Path) -> None:
    settings = HouseSettings(data_dir=folder)
    async with open_house(settings, SiteSettings(), room_settings=ports(0, 0)) as house:
        for name in ROOMS:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(house.rooms[name].app), base_url="http://house"
            ) as http:
                answer = (await http.get("/health")).json()
            assert answer == {"status": "alive", "room": name}, answer
        async with httpx.AsyncClient(transport=HouseTransport(house), base_url="http://house") as http:
            assert (await http.get("/fhir/metadata")).json()["resourceType"] == "CapabilityStatement"
    print(f"{len(ROOMS)} rooms built without torch: {', '.join(ROOMS)}")


asyncio.run(main(Path(sys.argv[1])))
