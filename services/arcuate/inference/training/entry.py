"""What `arcuate train NAME` calls: go on from where the model's training stands, ship the best, keep the state with it."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

from arcuate.inference.training import checkpoint, labels, maps
from arcuate.inference.training.export import export
from arcuate.inference.training.phases import PLANS
from arcuate.inference.training.train import Place, train
from arcuate.kernel.errors import BadInput

KEPT = "checkpoint.safetensors"
"""The state of a model's last phase, beside its weights: training goes on from it on any machine."""


def train_model(
    name: str,
    models_dir: Path,
    labelmaps: Path,
    cache: Path,
    minutes: float | None,
    say: Callable[[str], None],
    settles: bool = False,
) -> Path:
    """Trains `minutes` more (None: the plan's whole time), then writes models/NAME/; returns that folder.

    `cache` keeps prepared label maps and checkpoints between runs; it may be deleted. `settles`: the learning rate falls to nothing in
    these minutes, for the weights that are shipped; the state that training goes on from stays as it was.

    Raises:
        BadInput: No such model, or no label maps.
    """
    if name not in PLANS:
        raise BadInput(f"There is no training for {name!r}", todo=f"Known: {', '.join(PLANS)}.")
    if not any(labelmaps.glob("*.nii.gz")):
        raise BadInput(
            "No label maps (*.nii.gz) here", where=str(labelmaps), todo="Name their folder with --labelmaps."
        )
    place = Place(labelmaps, cache / "labelmaps", cache / "training")
    for one in (PLANS[name][0].begins_with, name):
        if one:
            restore(one, models_dir, place, say)
    train(name, place, minutes, say, _shipped_dice(models_dir / name), settles)
    if not any(place.best(phase).exists() for phase in PLANS[name]) and (models_dir / name / "model.toml").exists():
        say(f"{name}: nothing better than the shipped weights was found; they stay, training can go on")
    return ship(name, models_dir, place)


def _shipped_dice(folder: Path) -> float | None:
    """Held-out Dice of the weights that lie in a model's folder, if there are any."""
    described = folder / "model.toml"
    return float(tomllib.loads(described.read_text(encoding="utf-8"))["held_out_dice"]) if described.exists() else None


def ship(name: str, models_dir: Path, place: Place) -> Path:
    """Exports the best state so far and keeps the newest checkpoint beside it, without training.

    Where training went on from a kept checkpoint and found nothing better, the weights that lie there are the best.
    """
    folder, last = models_dir / name, PLANS[name][-1]
    if any(place.best(phase).exists() for phase in PLANS[name]) or not (folder / "model.toml").exists():
        folder = export(name, place, models_dir, maps.prepare(place.labelmaps, place.cache, labels.load()))
    if place.checkpoint(last).exists():
        shutil.copyfile(place.checkpoint(last), folder / KEPT)
    return folder


def restore(name: str, models_dir: Path, place: Place, say: Callable[[str], None]) -> None:
    """Takes the checkpoint kept with the model where the cache has none as far."""
    kept = models_dir / name / KEPT
    if not kept.exists():
        return
    stands = checkpoint.progress_of(kept)
    here = place.checkpoint(next(phase for phase in PLANS[name] if phase.name == stands.phase))
    if here.exists() and checkpoint.progress_of(here).steps >= stands.steps:
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, here)
    say(f"{name}: going on from step {stands.steps}, {stands.seconds / 60:.0f} minutes so far")
