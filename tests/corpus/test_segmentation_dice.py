"""The shipped networks on scans with manual labels, judged by the corpus's own scorer. Never trained on, never chosen by."""

import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from arcuate.house import HouseSettings, open_house
from arcuate.imaging.evaluation import compare, mean_dice, read_scheme
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.pipelines import Infer, Volume
from arcuate.imaging.segmentation import segment
from arcuate.kernel.settings import SiteSettings

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
async def infer(tmp_path: Path) -> AsyncIterator[Infer]:
    home, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Zurich")
    async with open_house(home, site, rooms=["access", "inference"]) as house:
        yield OipClient(house.contexts["inference"].http)


@pytest.mark.long
async def test_dice_by_side_is_at_least_what_was_asked(shared: Path, infer: Infer, tmp_path: Path) -> None:
    imaging = shared / "data" / "imaging"
    spec = importlib.util.spec_from_file_location("score", imaging / "score.py")
    assert spec and spec.loader
    scorer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scorer)
    means = []
    for subject in ("sub-1000", "sub-1113", "sub-1125"):
        scan = nib.load(imaging / "t1_manual" / f"{subject}_T1w_brain.nii.gz")
        manual = nib.load(imaging / "t1_manual" / f"{subject}_dseg.nii.gz")
        made = await segment(Volume(np.asarray(scan.dataobj, np.float32), scan.affine), infer, MODELS)
        assert made.quality.stripped and "intracranial" in made.not_measured
        judged = scorer.score(
            nib.Nifti1Image(made.labels, scan.affine),
            manual,
            "freesurfer",
            "neuromorphometrics",
            by_side=True,
            hausdorff=False,
        )
        means.append(judged["mean"]["dice"])
        schemes = imaging / "schemes"
        counted = {name for name, in_mean in scorer.load_structures() if in_mean}
        own = compare(
            subject, made.labels, read_scheme(schemes / "freesurfer.csv"), np.asarray(manual.dataobj),
            read_scheme(schemes / "neuromorphometrics.csv"), counted, 0.001,
        )  # fmt: skip
        assert mean_dice(own) == pytest.approx(judged["mean"]["dice"], abs=1e-3), (
            "our own evaluation says something else"
        )
    (tmp_path / "dice.json").write_text(json.dumps(means))
    assert np.mean(means) >= 0.70, means
