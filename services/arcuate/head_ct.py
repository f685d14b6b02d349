"""`arcuate train head-ct` and `arcuate evaluate head-ct`: label maps and phantoms of the inference room, reading of the imaging room."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path

import numpy as np

from arcuate.imaging.ct import atlas, atlas_training, evaluation, reading, tree_training
from arcuate.imaging.ct.work import RULES
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.pipelines import Volume
from arcuate.inference.training import ct_heads, ct_phantom, ct_set
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.errors import BadInput

NAME = atlas.NAME
VERSION = "2.4"
LEAST_SCANS = 20
"""Synthetic scans without which no trees are grown, whatever the time says."""


def train(models: Path, labelmaps: Path, minutes: float, cache: Path, say: Callable[[str], None]) -> None:
    """Make the atlas from the label maps that are not held out, then phantoms of them for `minutes` (those kept in `cache` count), and
    grow the trees from all of them."""
    _need_maps(labelmaps)
    learnt = atlas_training.made(_samples(labelmaps, say))
    known, pool = learnt.atlas(VERSION), cache / NAME / tree_training.way_of_describing()
    until = time.monotonic() + 60 * minutes
    described: list[Path] = []
    loaded = lru_cache(maxsize=2)(ct_heads.load)
    for one in ct_set.training(labelmaps):
        path = pool / f"{one.seed}.npz"
        if not path.exists():
            if time.monotonic() > until and len(described) >= LEAST_SCANS:
                break
            try:
                tree_training.describe(_to_learn_from(one.head(loaded), one), known, path)
            except NotMeasurable as error:
                say(f"Synthetic scan {one.seed} was not used: {error.refusal.what}")
                continue
        described.append(path)
        if len(described) % 10 == 0:
            say(f"{len(described)} synthetic scans are described")
    trees = tree_training.grow(described, say)
    today = SystemClock().now().astimezone(UTC).date()
    say(f"{NAME} stands in {atlas_training.write(models, learnt, trees, len(described), VERSION, today)}")


def evaluate(models: Path, labelmaps: Path, seed: int, cache: Path, say: Callable[[str], None]) -> None:
    """Read the phantoms of the held-out heads and write the figures into the card; goes on where it was cut off."""
    _need_maps(labelmaps)
    known = reading.load(models)
    version = sha256(RULES.read_bytes() + known.sha256.encode()).hexdigest()[:12]
    kept = cache / NAME / f"{seed}-{version}.csv"
    try:
        evaluation.evaluate(_phantoms(labelmaps, seed), known, kept, say)
    except KeyboardInterrupt:
        say("Cut off: the card gets what was read so far; the same command goes on from there.")
    write_card(models, labelmaps, seed, kept, known.atlas.version, say)


def write_card(models: Path, labelmaps: Path, seed: int, kept: Path, version: str, say: Callable[[str], None]) -> None:
    """Write the figures of the readings that stand in `kept` into the card, and how many of the set they are."""
    scores, whole = evaluation.load(kept), sum(1 for _ in ct_set.planned(labelmaps, seed))
    short = f"Cut off after {len(scores)} of {whole} phantoms.\n\n" if len(scores) < whole else ""
    told = short + evaluation.table(scores)
    say(told)
    command = f"arcuate evaluate {NAME} --from {labelmaps.name} --seed {seed}"
    evaluation.write_card(models / NAME / "card.md", told, version, command)


def _to_learn_from(head: ct_heads.Head, one: ct_set.Planned) -> tree_training.Scan:
    made = ct_phantom.make(head, one.recipe, one.seed)
    return tree_training.Scan(made.truth.head, Volume(made.hu.astype(np.float32), made.affine), made.blood)


def _samples(labelmaps: Path, say: Callable[[str], None]) -> Iterator[atlas_training.Sample]:
    for head in ct_set.heads(labelmaps):
        say(f"{head.name}")
        channels = {
            "ventricle": head.mask(ct_heads.SUPRATENTORIAL_VENTRICLES),
            "fluid": head.mask((ct_heads.CSF, ct_heads.FOURTH, 72, 212)),
            "vein": head.mask((ct_heads.DURA,)),
        }
        yield atlas_training.Sample(head.name, head.depth > 0, channels, head.septum)


def _phantoms(labelmaps: Path, seed: int) -> Iterator[evaluation.Planned]:
    heads: dict[Path, ct_heads.Head] = {}
    for one in ct_set.planned(labelmaps, seed):
        if one.path not in heads:
            heads[one.path] = ct_heads.load(one.path)
        yield evaluation.Planned(heads[one.path].name, one.seed, partial(_made, heads[one.path], one))


def _made(head: ct_heads.Head, one: ct_set.Planned) -> evaluation.Known:
    made = ct_phantom.make(head, one.recipe, one.seed)
    truth, bleeds = made.truth, made.truth.bleeds
    volume = Volume(made.hu.astype(np.float32), made.affine)
    return evaluation.Known(
        truth.head, truth.seed, bleeds[0].kind if bleeds else "none", one.recipe.mixed, truth.protocol.slice_mm,
        truth.protocol.tilt_degrees, truth.blood_ml, truth.shift_mm, truth.ventricle_ml, truth.evans, volume,
    )  # fmt: skip


def _need_maps(labelmaps: Path) -> None:
    if not any(labelmaps.glob("*.nii.gz")):
        raise BadInput("No label maps (*.nii.gz) here", where=str(labelmaps), todo="Name their folder with --from.")
