"""The shipped lesion network on FLAIRs with drawn lesions. Never trained on, never chosen by: floors below what its card states."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from arcuate.house import HouseSettings, open_house
from arcuate.imaging.lesion_evaluation import evaluate
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.pipelines import Infer
from arcuate.kernel.settings import SiteSettings

MODELS = Path(__file__).parents[2] / "models"
FLOORS = {("ms-19", "FLAIR and T1"): 0.55, ("ms-26", "FLAIR and T1"): 0.6, ("ms-26", "FLAIR alone"): 0.6}


@pytest.fixture
async def infer(tmp_path: Path) -> AsyncIterator[Infer]:
    home, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Zurich")
    async with open_house(home, site, rooms=["access", "inference"]) as house:
        yield OipClient(house.contexts["inference"].http)


@pytest.mark.long
async def test_lesions_are_found_at_least_as_well_as_the_card_says(shared: Path, infer: Infer) -> None:
    scores = await evaluate(shared / "data" / "imaging" / "flair_lesions", infer, MODELS, print)
    dice = {(s.case, s.how): s.dice for s in scores}
    assert {key: dice[key] for key, floor in FLOORS.items() if dice[key] < floor} == {}
    assert any(s.case == "mslong-01" and s.dice > 0.4 for s in scores)
