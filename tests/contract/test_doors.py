"""Every route of every room: who may enter stands in a file, and nobody else does."""

import asyncio
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from arcuate.house import House, HouseTransport
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.auth.roles import PEOPLE
from arcuate.kernel.web import Allow

pytestmark = pytest.mark.asyncio(loop_scope="module")

MATRIX = Path(__file__).parent / "doors.csv"


def doors(house: House) -> Iterator[tuple[str, str, str, str]]:
    """Yield room, method, path and who may enter, of each route."""
    for name, room in house.rooms.items():
        for route in room.app.routes:
            guards = (
                [d.call for d in route.dependant.dependencies]
                if isinstance(route, APIRoute)
                else [getattr(route, "guard", None)]
            )
            allow = next((g for g in guards if isinstance(g, Allow)), None)
            who = "everybody" if allow is None else " ".join(sorted(allow.roles)) or "rooms only"
            for method in sorted(getattr(route, "methods", None) or {"GET"}):
                yield name, method, str(getattr(route, "path", "")), who


def client(house: House, role: Role | None) -> httpx.AsyncClient:
    headers = {}
    if role is not None:
        key = house.rooms["access"].app.state.access.signing_key
        clock = house.contexts["access"].clock
        principal = Principal("tester", frozenset({role}), "tester")
        headers["Authorization"] = f"Bearer {tokens.issue(key, 'urn:arcuate:access', principal, clock.now())}"
    return httpx.AsyncClient(transport=HouseTransport(house), base_url="http://house", headers=headers)


async def test_f077_the_matrix_of_routes_and_roles_is_kept_as_a_file(house: House) -> None:
    """A new or changed route fails here until a person has written who may enter; `python tests/contract/test_doors.py` proposes the file."""
    with MATRIX.open(newline="", encoding="utf-8") as file:
        kept = [tuple(row) for row in csv.reader(file)][1:]

    assert sorted(doors(house)) == sorted(kept)


async def test_f077_without_a_token_only_the_open_doors_open(house: House) -> None:
    async with client(house, None) as http:
        for room, method, path, who in doors(house):
            if who == "everybody" or path in ("/health", "/ready", "/metrics") or room == "dashboard":
                continue
            answer = await http.request(method, path.replace("{", "").replace("}", "").replace(":path", ""))
            assert answer.status_code == 401, f"{method} {path} answered {answer.status_code}"
            if method != "HEAD" and room != "inference":  # the Open Inference Protocol has errors of its own form
                assert answer.json()["issue"][0]["code"] == "login"


async def test_f077_a_token_without_the_role_is_refused(house: House) -> None:
    for role in PEOPLE:
        async with client(house, role) as http:
            for room, method, path, who in doors(house):
                if who == "everybody" or role in who.split() or path in ("/metrics",) or room == "dashboard":
                    continue
                answer = await http.request(method, path.replace("{", "").replace("}", "").replace(":path", ""))
                assert answer.status_code == 403, f"{role} {method} {path} answered {answer.status_code}"


async def propose() -> None:
    """Write the file as the routes stand now, for a person to read."""
    from arcuate.house import HouseSettings, open_house
    from arcuate.kernel.settings import SiteSettings
    from arcuate.programs import ports

    with tempfile.TemporaryDirectory() as folder:
        settings = HouseSettings(data_dir=Path(folder))
        async with open_house(settings, SiteSettings(time_zone="Europe/Zurich"), room_settings=ports(0, 0)) as house:
            rows = sorted(doors(house))
    with MATRIX.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("room", "method", "path", "who"), *rows])


if __name__ == "__main__":
    asyncio.run(propose())
