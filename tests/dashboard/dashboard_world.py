"""A real house without its specialist rooms, filled with the invented department, and people who sign in to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import department
import httpx

from arcuate.access import service as access_service
from arcuate.access import store as access_store
from arcuate.dashboard.settings import DashboardSettings
from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.house import House, HouseSettings, HouseTransport, open_house
from arcuate.journey.settings import JourneySettings
from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.settings import SiteSettings

ROOMS = ("access", "record", "gateway", "assignment", "journey", "dashboard")
_TICK_S = 0.05


@dataclass
class Browser:
    """A person's browser without a screen: keeps cookies, sends forms with the page's own mark."""

    http: httpx.AsyncClient
    csrf: str = ""

    async def open(self, path: str, **headers: str) -> httpx.Response:
        """Open a page."""
        answer = await self.http.get(path, headers={"Accept": "text/html", "Sec-Fetch-Site": "same-origin", **headers})
        if 'name="csrf" value="' in answer.text:
            self.csrf = answer.text.split('name="csrf" value="', 1)[1].split('"', 1)[0]
        return answer

    async def send(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> httpx.Response:
        """Send a form of the last page."""
        sent = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", **headers}
        return await self.http.post(path, data={"csrf": self.csrf, **(fields or {})}, headers=sent)


@dataclass
class Department:
    """The house, its record as a room sees it, and a way to sign people in."""

    house: House
    clock: ManualClock
    fhir: FhirClient
    folder: Path
    address: str = "http://house"
    browsers: list[httpx.AsyncClient] = field(default_factory=list)

    async def link(self, name: str, *roles: Role) -> str:
        """Return a one-time sign-in secret of a person, who is added if they are new."""
        access = self.house.rooms["access"].app.state.access
        known = {person.name: person for person in await access.database.read(access_store.people)}
        person = known.get(name) or await access_service.add_person(access, name, [str(role) for role in roles])
        return await access_service.new_link(access, person.id)

    def browser(self) -> Browser:
        """Return a browser in which nobody is signed in."""
        http = httpx.AsyncClient(
            transport=HouseTransport(self.house), base_url=self.address, timeout=30, follow_redirects=False
        )
        self.browsers.append(http)
        return Browser(http)

    async def sign_in(self, name: str, *roles: Role) -> Browser:
        """Return a browser in which a new person has signed in."""
        browser = self.browser()
        answer = await browser.send("/sign-in", {"link": await self.link(name, *roles)})
        assert answer.status_code == 303, answer.text
        return browser

    async def settled(self, holds: Callable[[dict[str, Any]], bool], limit_s: float = 20) -> dict[str, Any]:
        """Wait until the ledger shows something, and return it by accession number."""
        ledger: dict[str, Any] = {}
        async with asyncio.timeout(limit_s):
            while True:
                answer = await self.rooms_http.get("/journey/cases")
                ledger = {c["accession"]: c for c in answer.json()["cases"]}
                if holds(ledger):
                    return ledger
                await asyncio.sleep(0.05)

    async def send(self, *messages: bytes) -> None:
        """Send HL7 messages as a RIS would."""
        async with MllpClient("127.0.0.1", self.house.rooms["gateway"].app.state.parts.door.port) as client:
            for message in messages:
                await client.send(message)

    @property
    def rooms_http(self) -> httpx.AsyncClient:
        """Return a client that acts as a room."""
        return self.house.contexts["dashboard"].http


async def _tick(clock: ManualClock) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        clock.advance(_TICK_S)


@contextlib.asynccontextmanager
async def open_department(
    folder: Path,
    rooms: tuple[str, ...] = ROOMS,
    *,
    synthetic: bool = True,
    receivers: tuple[Receiver, ...] = (),
) -> AsyncIterator[Department]:
    """Open an empty house at 13:42 of the invented day; its clock runs."""
    clock = ManualClock(department.NOW)
    ticking = asyncio.create_task(_tick(clock))
    site = SiteSettings(time_zone="Europe/Zurich", site_name="Northgate", synthetic=synthetic)
    room_settings = {
        "gateway": GatewaySettings(port=0, receivers=receivers),
        "dashboard": DashboardSettings(part_limit_s=10),
        "journey": JourneySettings(images_wait_s=1, measuring_wait_s=1),
    }
    try:
        async with open_house(
            HouseSettings(data_dir=folder), site, rooms=rooms, clock=clock, room_settings=room_settings
        ) as house:
            made = Department(house, clock, FhirClient(house.contexts["dashboard"].http, clock=clock), folder)
            try:
                yield made
            finally:
                for http in made.browsers:
                    await http.aclose()
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
