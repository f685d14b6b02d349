"""`arcuate evaluate brain-t1 --quality`, `--robust`, `--contrasts` and `--repeat`: heads of the inference room, measuring of the imaging room."""

import asyncio
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arcuate.house import HouseSettings
from arcuate.imaging import contrast, evaluation, quality, repeatability, robustness, segmentation
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.quality import Signals
from arcuate.imaging.quantify import quantify
from arcuate.imaging.repeatability import Scanned
from arcuate.kernel.errors import BadInput
from arcuate.measuring import networks
from arcuate.training import BRAIN

if TYPE_CHECKING:
    from arcuate.inference.training.generator import Range
    from arcuate.inference.training.maps import PreparedMap

Say = Callable[[str], None]

SEEN_BY = {"brain-t1": ("t1",), "brain-any": ("t1", "t2", "flair", "pd")}
"""Weightings of the heads at 1 mm that a network's volumes are judged on: those that it is chosen for."""
SHAPE, VOXEL = (100, 116, 100), 2.0
EACH = 18  # renderings of each held-out map
THICK_EVERY = 3  # of them one is seen in thick slices
QUALITY, CONTRASTS = "quality", "contrasts"


def _ranges() -> list["Range"]:
    """What is rendered in turn: from what the T1 network was made for to what it must fail on."""
    from arcuate.inference.training.generator import Range

    plain = Range(shift=10.0)
    hard = replace(plain, bias=1.0, thick=0.8, blur=0.8, gamma=0.5, rotation=16.0, cut=0.5)
    return [plain, hard, replace(plain, contrast=1.0), replace(hard, contrast=0.5), plain, replace(plain, thick=1.0)]


def prepared(labelmaps: Path) -> tuple[list["PreparedMap"], list["PreparedMap"]]:
    """Return the maps that networks are trained on, and those held out."""
    from arcuate.inference.training import labels, maps
    from arcuate.inference.training.train import HELD_OUT

    found = maps.prepare(labelmaps, Path(".cache"), labels.load())
    return found[:-HELD_OUT], found[-HELD_OUT:]


def _heads(
    held: Sequence["PreparedMap"], each: int, ranges: Sequence["Range"]
) -> Iterator[tuple[str, Volume, np.ndarray]]:
    """Yield map, rendered scan and true labels (FreeSurfer numbers) of the maps that no network was trained on."""
    import torch

    from arcuate.inference.training import labels
    from arcuate.inference.training.generator import Grid, Renderer

    scheme = labels.load()
    renderer = Renderer(scheme, Grid(SHAPE, VOXEL))
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2 * VOXEL
    for number, one in enumerate(held):
        random = torch.Generator().manual_seed(700 + number)
        for k in range(each):
            image, target = renderer.sample(one, ranges[(k + number) % len(ranges)], random)
            truth = np.array(scheme.classes, np.uint8)[target.numpy()]
            yield one.name, Volume(image[0, 0].numpy(), affine), truth


async def calibrate(name: str, labelmaps: Path, models: Path, say: Say, each: int = EACH) -> None:
    """Fit the quality score of a network on renderings of held-out label maps; written beside the model and into its card."""
    found: list[tuple[str, Signals, float]] = []
    refused = 0
    async with networks() as infer:
        for number, (which, seen, true) in enumerate(_heads(prepared(labelmaps)[1], each, _ranges())):
            thick = number % THICK_EVERY == 1
            volume, truth = robustness.in_thick_slices(seen, true) if thick else (seen, true)
            try:
                made = await segmentation.segment(volume, infer, models, BRAIN[name])
            except NotMeasurable as error:
                refused += 1
                say(f"{number}: refused ({error.refusal.what})")
                continue
            dice = robustness.mean_dice(made.labels, truth)
            found.append((which, made.quality.signals, dice))
            say(f"{number}: {which}: Dice {dice:.3f}, {made.quality.signals}")
    version = str(tomllib.loads((models / name / "model.toml").read_text(encoding="utf-8"))["version"])
    intercept, weights = quality.fitted([s for _, s, _ in found], [d for _, _, d in found])
    rank, off = robustness.held_apart(found)
    told = {
        "model": name, "model_version": version, "made": f"{datetime.now(UTC):%Y-%m-%d}",
        "how": f"{len(found)} renderings of 2 held-out label maps at 2 mm, a third in slices of 6 mm, T1-like to free contrast; mean Dice by side of "
        "the measured structures; ridge regression", "refused": refused,
        "rank_correlation": round(rank, 3), "mean_error": round(off, 3),
    }  # fmt: skip
    (models / name / quality.FIT).write_text(quality.written(told, intercept, weights), encoding="utf-8")
    dices = np.array([d for _, _, d in found])
    text = (
        f"{len(found)} synthetic renderings of the held-out maps (Dice {dices.min():.2f} to {dices.max():.2f}; {refused} more "
        f"were refused). Fitted on one map and tried on the other: rank correlation with the true mean Dice {rank:.2f}, mean "
        f"error {off:.3f}."
    )
    command = f"`arcuate evaluate {name} --quality --from {labelmaps.name}`"
    evaluation.put_table(models / name / "card.md", text, version, command, QUALITY)
    say(text)


async def robust(name: str, data: Path, models: Path, say: Say) -> None:
    """Measure degraded copies of real scans; the table goes into the model's card."""
    began = time.monotonic()
    async with networks() as infer:
        # The T1 network's table is that of the whole way, with the choice of the network in it.
        role = None if name == "brain-t1" else BRAIN[name]
        trials = await robustness.tried(data, infer, models, role, say)
    made = robustness.table(trials)
    say(made)
    version = str(tomllib.loads((models / name / "model.toml").read_text(encoding="utf-8"))["version"])
    command = f"`arcuate evaluate {name} --robust --from {data.name}`"
    evaluation.put_table(models / name / "card.md", made, version, command, robustness.MARK)
    say(f"{time.monotonic() - began:.0f} s")


async def contrasts(name: str, labelmaps: Path, models: Path, say: Say) -> None:
    """Try every candidate of the choice on every weighting, rendered from held-out maps; the table goes into the card."""
    from arcuate.inference.training.generator import WEIGHTINGS, Range

    ways = contrast.candidates(tomllib.loads(segmentation.RULES.read_text(encoding="utf-8")))
    lines = [f"| weighting (synthetic) | {' | '.join(way.name for way in ways)} |", "|---|" + "---:|" * len(ways)]
    _, held = prepared(labelmaps)
    async with networks() as infer:
        for weighting in WEIGHTINGS:
            reach = Range(shift=10.0, cut=0.0, weightings=(weighting,))
            heads = list(_heads(held, 1, [replace(reach, stripped=1.0), replace(reach, stripped=0.0)]))
            cells = []
            for way in ways:
                found = [await _tried(volume, truth, infer, models, way) for _, volume, truth in heads]
                known = [dice for dice, _ in found if dice is not None]
                scores = [score for _, score in found if score is not None]
                cells.append(
                    f"{np.mean(known):.2f} ({np.mean(scores) if scores else 0:.2f}; {len(found) - len(known)})"
                    if known
                    else "-"
                )
            lines.append(f"| {weighting} | {' | '.join(cells)} |")
            say(lines[-1])
    version = str(tomllib.loads((models / name / "model.toml").read_text(encoding="utf-8"))["version"])
    text = "\n".join(
        [*lines, "", "Mean Dice by side over two renderings, one without skull (mean quality; how many were refused)."]
    )
    command = f"`arcuate evaluate {name} --contrasts --from {labelmaps.name}`"
    evaluation.put_table(models / name / "card.md", text, version, command, CONTRASTS)


async def _tried(
    volume: Volume, truth: np.ndarray, infer: OipClient, models: Path, way: contrast.Candidate
) -> tuple[float | None, float | None]:
    try:
        made = await segmentation.segment(volume, infer, models, way.role, way.turned_over)
    except NotMeasurable:
        return None, None
    return robustness.mean_dice(made.labels, truth), made.quality.score


async def _repeated(name: str, scans: tuple[Path, Path], models: Path, say: Say) -> None:
    found: list[Scanned] = []
    async with networks() as infer:
        for path in scans:
            made = (await quantify(path, None, models, infer, pipeline=segmentation.PIPELINE)).measurement
            finding = made.finding
            if finding.model.name != name:
                raise BadInput(
                    f"{path.name} is measured by {finding.model.name}, not by {name}",
                    todo="Name scans of a weighting that suits it.",
                )
            spacing = made.volume.longest_mm
            found.append(
                Scanned(
                    path.name, spacing, finding.measured, finding.absent, made.warnings, finding.quality, finding.model
                )
            )
    text = repeatability.table(*found)
    say(text)
    told = " ".join(path.name for path in scans)
    command = f"`arcuate evaluate {name} --repeat {told}`"
    evaluation.put_table(models / name / "card.md", text, found[0].model.version, command, repeatability.MARK)


def repeat(name: str, scans: tuple[Path, Path], say: Say) -> None:
    """Measure two scans of one person, folders or files, the whole way; the table of differences goes into the model's card.

    Raises:
        BadInput: No such network, or one that does not measure these scans.
        NotMeasurable: One of them cannot be measured, with the reason.
    """
    if name not in BRAIN:
        raise BadInput(f"{name} measures no brain volumes", todo=f"Known: {', '.join(BRAIN)}.")
    asyncio.run(_repeated(name, scans, HouseSettings().models_dir, say))


def run(name: str, source: Path, models: Path, say: Say, what: str) -> None:
    """Do one of the three that read a folder."""
    asyncio.run({QUALITY: calibrate, CONTRASTS: contrasts}.get(what, robust)(name, source, models, say))
