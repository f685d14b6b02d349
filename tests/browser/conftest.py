"""A house with the invented day on a port, and a Chromium; one for all tests of a file."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))
sys.path.insert(0, str(Path(__file__).parent))

from browser_world import Theatre, theatre


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> AsyncIterator[Theatre]:
    """The house, filled and served."""
    async with theatre(tmp_path_factory.mktemp("stage"), chromium) as made:
        yield made
