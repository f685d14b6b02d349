"""An empty house and one with the invented day in it, each shared by the tests of a file."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))

import department
from dashboard_world import Department, open_department


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Department]:
    """A house into which nothing has come; one for all tests of a file."""
    async with open_department(tmp_path_factory.mktemp("empty")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Department]:
    """A house with the invented day in it; one for all tests of a file."""
    async with open_department(tmp_path_factory.mktemp("filled")) as made:
        await made.fhir.transaction(department.roster())
        await made.fhir.transaction(department.day())
        yield made
