"""A record of its own for each test, on both kinds of database where a test asks for it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.clock import Clock, ManualClock
from arcuate.kernel.fhir.client import FhirClient

from .record_world import Replica, open_replica


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def replica(tmp_path: Path, clock: ManualClock, stack: AsyncExitStack) -> Replica:
    """A record on SQLite."""
    return await open_replica(f"sqlite:///{tmp_path}/record/record.db", tmp_path / "record", clock, stack)


@pytest.fixture
async def any_replica(database_url: str, tmp_path: Path, clock: ManualClock, stack: AsyncExitStack) -> Replica:
    """A record on SQLite, then one on PostgreSQL."""
    return await open_replica(database_url, tmp_path / "record", clock, stack)


@pytest.fixture
def two_replicas(database_url: str, tmp_path: Path, stack: AsyncExitStack) -> Callable[[Clock], Any]:
    """Open two records over one database."""

    async def opened(clock: Clock) -> tuple[Replica, Replica]:
        first = await open_replica(database_url, tmp_path / "one", clock, stack)
        return first, await open_replica(database_url, tmp_path / "one", clock, stack)

    return opened


@pytest.fixture
def fhir(replica: Replica) -> FhirClient:
    """A room's client."""
    return replica.fhir()
