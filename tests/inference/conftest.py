"""The inference room in process with the shipped models, or with a copy of them that a test may damage."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from arcuate.house import House, HouseSettings, open_house
from arcuate.inference.settings import InferenceSettings
from arcuate.kernel.settings import SiteSettings

SHIPPED = Path(__file__).parents[2] / "models"
FINDER = "brain-finder"

Opened = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A copy of the finder that a test may change."""
    shutil.copytree(SHIPPED / FINDER, tmp_path / "models" / FINDER)
    return tmp_path / "models"


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Opens a house of access and inference over a folder of models."""

    @asynccontextmanager
    async def open_one(models_dir: Path, settings: InferenceSettings | None = None) -> AsyncIterator[House]:
        home = HouseSettings(data_dir=tmp_path / "data", models_dir=models_dir)
        rooms = {"inference": settings or InferenceSettings(threads=1)}
        async with open_house(
            home, SiteSettings(time_zone="Europe/Zurich"), rooms=["access", "inference"], room_settings=rooms
        ) as house:
            yield house

    return open_one


@pytest.fixture
async def http(opened: Opened, models: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A room's client to the inference room."""
    async with opened(models) as house:
        yield house.contexts["inference"].http
