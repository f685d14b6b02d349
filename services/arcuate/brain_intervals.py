"""`arcuate evaluate brain-t1 --intervals`: heads of the inference room, measuring of the imaging room, how far volumes are off from both."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from arcuate.brain_checks import SEEN_BY, prepared
from arcuate.imaging import evaluation, interval, robustness, segmentation, volumetry
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.interval import Answer
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.pipelines import Volume
from arcuate.measuring import networks
from arcuate.training import BRAIN, Say

if TYPE_CHECKING:
    from arcuate.inference.training.maps import PreparedMap

HEADS, HELD_HEADS = 60, 18
THICK_EVERY = 3  # of the heads one is seen in slices of 5 mm
SEED = 8000
MARK = "intervals"


async def fit(name: str, labelmaps: Path, models: Path, say: Say) -> None:
    """Fit the intervals of a network's volumes on heads of the maps it was trained on; written beside the model and into its card."""
    trained, held_out = prepared(labelmaps)
    async with networks() as infer:
        answers, version = await _answers(name, _heads(name, trained, HEADS, SEED), infer, models, say)
        made = interval.fitted(answers)
        others, _ = await _answers(name, _heads(name, held_out, HELD_HEADS, SEED + HEADS), infer, models, say)
    told = {
        "model": name, "version": version, "made": f"{datetime.now(UTC):%Y-%m-%d}",
        "how": f"{HEADS} synthetic heads at 1 mm of the training maps ({', '.join(SEEN_BY[name])}), a third of them in slices of 5 mm",
    }  # fmt: skip
    (models / name / interval.FILE).write_text(interval.written(told, made), encoding="utf-8")
    command = f"`arcuate evaluate {name} --intervals --from {labelmaps.name}`"
    inside, count = interval.held(made, others)
    text = (
        f"80 % intervals of volumes from {told['how']}. On {HELD_HEADS} such heads of the held-out maps they hold {inside} of {count} true volumes "
        f"({100 * inside / max(count, 1):.0f} %).\n\n{_table(made)}"
    )
    evaluation.put_table(models / name / "card.md", text, version, command, MARK)
    say(text)


def _heads(
    name: str, held: Sequence["PreparedMap"], count: int, seed: int
) -> Iterator[tuple[Volume, tuple[volumetry.StructureVolume, ...]]]:
    """Yield scans and what is in them; of heads seen in thick slices what was there before they were cut."""
    from arcuate.inference.training import fine_heads, labels
    from arcuate.inference.training.generator import Grid, Renderer

    renderer = Renderer(labels.load(), Grid((1, 1, 1), 1.0))  # of it only the contrasts are used
    for number, one in enumerate(fine_heads.heads(held, renderer, count, seed, SEEN_BY[name])):
        voxel_ml = float(abs(np.linalg.det(one.affine[:3, :3]))) / 1000
        true = volumetry.counted(np.asarray(np.bincount(one.truth.ravel(), minlength=256) * voxel_ml, np.float64))
        seen = Volume(one.image, one.affine)
        if number % THICK_EVERY == 2:
            seen, _ = robustness.in_thick_slices(seen, one.truth.astype(np.int32))
        yield seen, true


async def _answers(
    name: str,
    heads: Iterator[tuple[Volume, tuple[volumetry.StructureVolume, ...]]],
    infer: OipClient,
    models: Path,
    say: Say,
) -> tuple[list[Answer], str]:
    found: list[Answer] = []
    version = ""
    for number, (volume, true) in enumerate(heads):
        try:
            made = await segmentation.segment(volume, infer, models, BRAIN[name])
        except NotMeasurable as error:
            say(f"{number}: refused ({error.refusal.what})")
            continue
        version = made.models[-1].version
        known = {(v.code, v.side): v.ml for v in true}
        found += [Answer(v.code, v.side, v.ml, known[v.code, v.side], volume.longest_mm) for v in made.volumes]
        say(f"{number}: quality {made.quality.score}")
    return found, version


def _table(made: interval.Intervals) -> str:
    """How far the true volume may lie from the one found, per cent of it, as Markdown."""
    groups = list(made.groups)
    lines = [f"| structure | {' | '.join(groups)} |", "|---|" + "---:|" * len(groups)]
    for structure in sorted({s for table in made.groups.values() for s in table}):
        ends = [made.groups[group].get(structure) for group in groups]
        cells = [f"{100 * (e[0] - 1):+.0f} to {100 * (e[1] - 1):+.0f} %" if e else "-" for e in ends]
        lines.append(f"| {structure} | {' | '.join(cells)} |")
    return "\n".join(lines)
