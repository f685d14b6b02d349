"""A whole house on free ports, with the outside world around it; the tests of a module share it, each with orders of its own."""

import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

from journey_world import World, apart, in_one_program
from outside import Sink, free_port


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["one program on SQLite", "a program a room on PostgreSQL"]
)
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The same world around both ways to run the house."""
    ports, folder = [free_port() for _ in range(4)], tmp_path_factory.mktemp("house")
    async with Sink(ports[2]).open() as dictation, Sink(ports[3]).open() as reports:
        if request.param.startswith("one"):
            async with in_one_program(folder, ports, dictation, reports) as world:
                yield world
        else:
            database_url, caddy = request.getfixturevalue("module_postgres_url"), request.getfixturevalue("caddy")
            async with apart(folder, ports, dictation, reports, database_url, caddy) as world:
                yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def department(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The world around a house in one program on SQLite."""
    ports = [free_port() for _ in range(4)]
    async with (
        Sink(ports[2]).open() as dictation,
        Sink(ports[3]).open() as reports,
        in_one_program(tmp_path_factory.mktemp("house"), ports, dictation, reports) as world,
    ):
        yield world


@pytest.fixture(scope="module")
def module_postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a PostgreSQL database that the tests of a module share."""
    name = f"t{secrets.token_hex(6)}"
    admin = postgres_server.format(name="postgres").replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield postgres_server.format(name=name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
