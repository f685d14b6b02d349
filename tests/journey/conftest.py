"""A whole house on free ports, with the outside world around it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from journey_world import World, apart, in_one_program
from outside import Sink, free_port


@pytest.fixture(params=["one program on SQLite", "a program a room on PostgreSQL"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The same world around both ways to run the house."""
    ports = [free_port() for _ in range(4)]
    async with Sink(ports[2]).open() as dictation, Sink(ports[3]).open() as reports:
        if request.param.startswith("one"):
            async with in_one_program(tmp_path, ports, dictation, reports) as world:
                yield world
        else:
            postgres_url, caddy = request.getfixturevalue("postgres_url"), request.getfixturevalue("caddy")
            async with apart(tmp_path, ports, dictation, reports, postgres_url, caddy) as world:
                yield world
