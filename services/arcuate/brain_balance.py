"""`arcuate evaluate brain-t1 --balance`: heads of the inference room, measuring of the imaging room, weights for the classes from both."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arcuate.brain_checks import SEEN_BY, prepared
from arcuate.imaging import balance, evaluation, robustness, segmentation
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.network import load_model
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.pipelines import Volume
from arcuate.measuring import networks
from arcuate.training import BRAIN, Say

if TYPE_CHECKING:
    from arcuate.inference.training.maps import PreparedMap

ROUNDS = 4
HELD_HEADS = 8
THICK_EVERY = 3  # of the heads one is seen in slices of 5 mm
SEED = 4000
MARK = "balance"


@dataclass(frozen=True)
class Head:
    """A scan of known labels (FreeSurfer numbers)."""

    volume: Volume
    truth: NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Counted:
    """Voxels (head, class), and the mean Dice by side over the heads."""

    found: NDArray[np.float64]
    true: NDArray[np.float64]
    dice: float

    def off(self) -> float:
        """By how much volumes are off: mean over classes but the background of the absolute logarithm."""
        return float(np.abs(balance.off(self.found, self.true)[1:]).mean())


async def fit(name: str, labelmaps: Path, models: Path, say: Say) -> None:
    """Fit the weights of a network's classes on heads of the maps it was trained on; written beside the model and into its card."""
    trained, held_out = prepared(labelmaps)
    with tempfile.TemporaryDirectory(prefix="arcuate-balance-") as folder:
        tried = Path(folder)
        for described in models.glob("*/model.toml"):
            (tried / described.parent.name).mkdir()
            shutil.copy(described, tried / described.parent.name)
        model = load_model(models, name)
        weights = np.ones(len(model.classes), np.float32)
        told = {"model": name, "model_version": model.used.version, "made": f"{datetime.now(UTC):%Y-%m-%d}"}
        names = _names()
        file = tried / name / balance.FILE
        async with networks() as infer:
            heads, others = _heads(name, trained, len(trained)), _heads(name, held_out, HELD_HEADS)
            before = await _measured(others, infer, tried, name, model.classes)
            for number in range(ROUNDS):
                counted = await _measured(heads, infer, tried, name, model.classes)
                say(f"{number} of {ROUNDS}: Dice {counted.dice:.4f}, volumes off by {100 * counted.off():.1f} %")
                weights = balance.nearer(weights, balance.off(counted.found, counted.true), model.swapped)
                file.write_text(balance.written(told, weights, model.classes, names), encoding="utf-8")
            after = await _measured(others, infer, tried, name, model.classes)
        shutil.copy(file, models / name / balance.FILE)
    text = (
        f"Weights of the classes from {len(heads)} synthetic heads at 1 mm of the training maps ({', '.join(SEEN_BY[name])}), a third of "
        f"them in slices of 5 mm. On {len(others)} heads of the held-out maps: volumes off by {100 * before.off():.1f} % without and "
        f"{100 * after.off():.1f} % with them (mean over the classes, each over all heads), mean Dice by side {before.dice:.4f} and {after.dice:.4f}."
    )
    command = f"`arcuate evaluate {name} --balance --from {labelmaps.name}`"
    evaluation.put_table(models / name / "card.md", text, model.used.version, command, MARK)
    say(text)


def _heads(name: str, held: Sequence["PreparedMap"], count: int) -> list[Head]:
    from arcuate.inference.training import fine_heads, labels
    from arcuate.inference.training.generator import Grid, Renderer

    renderer = Renderer(labels.load(), Grid((1, 1, 1), 1.0))  # of it only the contrasts are used
    found = []
    for number, one in enumerate(fine_heads.heads(held, renderer, count, SEED, SEEN_BY[name])):
        seen = Volume(one.image, one.affine), one.truth.astype(np.int32)
        found.append(Head(*(robustness.in_thick_slices(*seen) if number % THICK_EVERY == 2 else seen)))
    return found


def _names() -> dict[int, str]:
    """What a label map calls each class, by its FreeSurfer number."""
    from arcuate.inference.training import labels

    scheme = labels.load()
    called = dict(zip(scheme.source.tolist(), scheme.names, strict=True))
    return {label: called[label] for label in scheme.classes}


async def _measured(
    heads: Sequence[Head], infer: OipClient, models: Path, name: str, classes: NDArray[np.int64]
) -> Counted:
    found, true, dice = [], [], []
    for head in heads:
        try:
            made = await segmentation.segment(head.volume, infer, models, BRAIN[name])
        except NotMeasurable:
            continue  # the same heads with any weights but for the odd one: it says nothing of borders
        found.append(np.bincount(made.labels.ravel(), minlength=256)[classes])
        true.append(np.bincount(head.truth.ravel(), minlength=256)[classes])
        dice.append(robustness.mean_dice(made.labels, head.truth))
    return Counted(np.array(found, np.float64), np.array(true, np.float64), float(np.mean(dice)))
