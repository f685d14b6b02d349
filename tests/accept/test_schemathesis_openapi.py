"""Whatever is sent to the doors of gateway, record and journey: an answer, and never a server error.

The operations come from the OpenAPI description that the running rooms give of themselves; schemathesis makes the requests, right and wrong.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from tests.accept.sizes import size
from tests.contract.conftest import free_port

from arcuate.gateway.settings import GatewaySettings
from arcuate.house import House, HouseSettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import running

ROOMS = ("gateway", "record", "journey")
EXAMPLES = size(3, 200)
LONGEST_S = 30.0  # an answer later than this is a hang


@dataclass
class Served:
    """Three rooms and the sign-in on a port."""

    house: House
    address: str
    headers: dict[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    settings = HouseSettings(data_dir=tmp_path_factory.mktemp("house") / "data", port=free_port())
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    rooms, own = ("access", *ROOMS), {"gateway": GatewaySettings(port=0)}
    async with running(settings, site, rooms=rooms, room_settings=own) as (house, _):
        key = house.rooms["access"].app.state.access.signing_key
        who = Principal("tester", frozenset({Role.INTEGRATION, Role.LEAD, Role.ADMIN}), "tester", "Tester")
        token = tokens.issue(key, "urn:arcuate:access", who, SystemClock().now(), 86400)
        yield Served(house, settings.address, {"Authorization": f"Bearer {token}"})


@pytest.mark.timeout(size(300, 7200))
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("room", ROOMS)
async def test_no_request_that_the_description_allows_or_forbids_is_a_server_error(served: Served, room: str) -> None:
    schema = schemathesis.openapi.from_dict(served.house.rooms[room].app.openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    assert operations
    wrong: dict[str, str] = {}
    with requests.Session() as session:
        for operation in operations:
            if found := await asyncio.to_thread(_play, operation, served, session):
                wrong[f"{operation.method.upper()} {operation.path}"] = found

    assert wrong == {}


def _play(operation: Any, served: Served, session: requests.Session) -> str:
    """Return the first server error of an operation: status, request and answer, or nothing."""
    errors: list[str] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=operation.as_strategy())
    def play(case: Any) -> None:
        answer = case.call(base_url=served.address, session=session, headers=served.headers, timeout=LONGEST_S)
        if answer.status_code >= 500:
            errors.append(f"{answer.status_code} to {case.as_curl_command()[:600]}: {answer.text[:300]}")

    play()
    return errors[0] if errors else ""
