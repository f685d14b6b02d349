"""Tests of the corpus; the world around a house is the journeys' own."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "journey"))

from journey_world import World, in_one_program
from outside import Sink, free_port


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A house in one program on SQLite, with a dictation and a receiver of reports."""
    ports = [free_port() for _ in range(4)]
    async with (
        Sink(ports[2]).open() as dictation,
        Sink(ports[3]).open() as reports,
        in_one_program(tmp_path, ports, dictation, reports) as world,
    ):
        yield world
