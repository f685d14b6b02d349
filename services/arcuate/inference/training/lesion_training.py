"""Training of wm-lesions: `arcuate train wm-lesions`. Resumable at any moment; ships the best state with its curve.

The curve is curve.csv (and curve.svg to look at) beside the weights: step, minutes, loss, Dice of lesions on windows of
label maps that are never trained on. Weights and the lesions' logit are chosen by that Dice alone, on synthetic images.
"""

from __future__ import annotations

import csv
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from arcuate.inference.training import checkpoint, labels, lesion_maps, maps
from arcuate.inference.training.checkpoint import Average, Progress
from arcuate.inference.training.lesion_curve import Row, read_curve, write_curve
from arcuate.inference.training.lesion_generator import LESION, REACH, WINDOW, LesionRenderer
from arcuate.inference.training.lesion_maps import Places
from arcuate.inference.training.lesion_network import CLASSES, new_lesions
from arcuate.inference.training.phases import Phase
from arcuate.inference.training.train import HELD_OUT, LONGEST_STEP_S, Place, rate_at
from arcuate.kernel.errors import BadInput

NAME = "wm-lesions"
PHASE = Phase("lesions", "lesions", WINDOW, REACH, 2e-3, 60)
KEPT = "checkpoint.safetensors"
SAVE_EVERY_S = 120.0
JUDGE_EVERY_S = 240.0
JUDGED_WINDOWS, SHIPPED_WINDOWS = 24, 72
BIASES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""Tried on the held-out windows: what is added to the lesions' logit, since the loss weighs lesions up."""

CLASS_WEIGHTS = (0.3, 3.0, 1.0, 0.7, 1.0, 1.0, 1.0, 1.0)
OTHERS = 0.3
REMEMBERED, REUSED = 64, 0.6
"""Windows kept, and the share of steps that use one of them again, mirrored or not and a little brighter or darker: rendering
costs as much as a step."""


@dataclass(frozen=True)
class Verdict:
    """Dice of lesions over all held-out windows together, and the bias that gives it."""

    dice: float
    bias: float


def train_lesions(
    models_dir: Path, labelmaps: Path, cache: Path, minutes: float, say: Callable[[str], None], phase: Phase = PHASE
) -> Path:
    """Trains `minutes` more from where the training stands, then writes models/wm-lesions/; returns that folder.

    Raises:
        BadInput: No label maps.
    """
    if not any(labelmaps.glob("*.nii.gz")):
        raise BadInput("No label maps (*.nii.gz) here", where=str(labelmaps), todo="Name their folder with --from.")
    place, folder = Place(labelmaps, cache / "labelmaps", cache / "training"), models_dir / NAME
    _restore(folder, place, phase, say)
    trained, held_out = prepared(place)
    _run(phase, place, trained, held_out, minutes, say)
    return ship(models_dir, place, held_out, phase)


def prepared(place: Place) -> tuple[list[Places], list[Places]]:
    """The maps to train on and those held out."""
    scheme = labels.load()
    everything = [
        lesion_maps.places(held, place.cache, scheme) for held in maps.prepare(place.labelmaps, place.cache, scheme)
    ]
    return everything[:-HELD_OUT], everything[-HELD_OUT:]


def ship(models_dir: Path, place: Place, held_out: Sequence[Places], phase: Phase = PHASE) -> Path:
    """Exports the best state so far, with the newest checkpoint and the curve beside it."""
    from arcuate.inference.training.lesion_export import export_lesions

    folder = models_dir / NAME
    if place.best(phase).exists():
        net = new_lesions()
        average = Average(net)
        progress = checkpoint.load(place.best(phase), net, average, None)
        verdict = judge(average.into(net), held_out, phase, SHIPPED_WINDOWS)
        export_lesions(folder, net, verdict.bias, replace(progress, best=verdict.dice), phase)
    if place.checkpoint(phase).exists():
        shutil.copyfile(place.checkpoint(phase), folder / KEPT)
        write_curve(folder, read_curve(_curve(place)))
    return folder


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Weighted cross-entropy of all classes plus soft Dice of the lesions; logits (1, classes, ...), target (...)."""
    wanted = target.reshape(-1)
    # All voxels of lesions and a part of the others, which say nearly the same as their neighbours.
    index = ((wanted == LESION) | (torch.rand(wanted.shape) < OTHERS)).nonzero().squeeze(1)
    wanted = wanted[index]
    rows = logits[0].permute(1, 2, 3, 0).reshape(-1, logits.shape[1])[index]
    importance = torch.where(wanted == LESION, 1.0, 1 / OTHERS)
    weight = torch.tensor(CLASS_WEIGHTS)[wanted] * importance
    entropy = (functional.cross_entropy(rows, wanted, reduction="none") * weight).sum() / weight.sum()
    lesion = wanted == LESION
    if int(lesion.sum()) < 5:
        return entropy
    p = torch.softmax(rows, 1)[:, LESION]
    dice = (2 * p[lesion].sum() + 5) / ((p * importance).sum() + lesion.sum() + 5)
    return entropy + 1 - dice


def judge(net: nn.Module, held_out: Sequence[Places], phase: Phase = PHASE, windows: int = JUDGED_WINDOWS) -> Verdict:
    """Dice of lesions on the same windows each time, with the bias of the lesions' logit that is best there."""
    random = torch.Generator().manual_seed(77)
    renderer = LesionRenderer(labels.load(), phase.grid)
    both, sizes = torch.zeros(len(BIASES)), torch.zeros(len(BIASES))
    net.eval()
    with torch.no_grad():
        for number in range(windows):
            image, target = renderer.window(held_out[number % len(held_out)], random, phase.reach)
            logits = net(image.contiguous(memory_format=torch.channels_last_3d))[0]
            others = torch.logsumexp(torch.cat([logits[:LESION], logits[LESION + 1 :]]), 0)
            for k, bias in enumerate(BIASES):
                found = logits[LESION] + bias > others
                both[k] += (found & (target == LESION)).sum()
                sizes[k] += found.sum() + (target == LESION).sum()
    net.train()
    dice = 2 * both / sizes.clamp_min(1)
    best = int(dice.argmax())
    return Verdict(float(dice[best]), BIASES[best])


class _Windows:
    """Fresh and remembered windows."""

    def __init__(
        self, renderer: LesionRenderer, trained: Sequence[Places], random: torch.Generator, phase: Phase
    ) -> None:
        self._renderer, self._trained, self._random, self._phase = renderer, trained, random, phase
        self._kept: list[tuple[Tensor, Tensor]] = []

    def next(self) -> tuple[Tensor, Tensor]:
        """Image and target of a step."""
        chance, mirror, bright = torch.rand(3, generator=self._random).tolist()
        if len(self._kept) == REMEMBERED and chance < REUSED:
            image, target = self._kept[int(torch.randint(REMEMBERED, (), generator=self._random))]
            if mirror < 0.5:
                image, target = image.flip(2), target.flip(0)
            return image * (0.94 + 0.12 * bright), target
        one = self._trained[int(torch.randint(len(self._trained), (), generator=self._random))]
        made = self._renderer.window(one, self._random, self._phase.reach)
        self._kept = [*self._kept[-(REMEMBERED - 1) :], made]
        return made


def _run(
    phase: Phase, place: Place, trained: Sequence[Places], held_out: Sequence[Places], minutes: float,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    net = new_lesions()
    average = Average(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=phase.rate, weight_decay=1e-2)
    progress = Progress(phase.name)
    if place.checkpoint(phase).exists():
        progress = checkpoint.load(place.checkpoint(phase), net, average, optimiser)
    judged = new_lesions()
    if place.best(phase).exists():
        # What the generator renders may have changed since: the best so far is judged by today's renderings.
        best = Average(judged)
        checkpoint.load(place.best(phase), judged, best, None)
        progress = replace(progress, best=judge(best.into(judged), held_out, phase).dice)
        say(f"{phase.name}: the best so far has held-out Dice {progress.best:.4f}")
    random = torch.Generator().manual_seed(1 + progress.steps)
    windows = _Windows(LesionRenderer(labels.load(), phase.grid), trained, random, phase)
    until = progress.seconds + minutes * 60
    saved = decided = progress.seconds
    running = 0.0
    while progress.seconds < until:
        began = time.monotonic()
        for group in optimiser.param_groups:
            group["lr"] = rate_at(phase, progress)
        image, target = windows.next()
        value = loss_of(net(image.contiguous(memory_format=torch.channels_last_3d)), target)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update(net)
        now = float(value.detach())
        if not math.isfinite(now):
            raise ArithmeticError(f"the loss is not a number at step {progress.steps}: lower the rate")
        running = now if running == 0 else 0.98 * running + 0.02 * now
        spent = min(time.monotonic() - began, LONGEST_STEP_S)
        progress = replace(progress, steps=progress.steps + 1, seconds=progress.seconds + spent)
        last = progress.seconds >= until
        if progress.seconds - decided > JUDGE_EVERY_S or last:
            decided = progress.seconds
            found = judge(average.into(judged), held_out, phase)
            write_row(place, Row(progress.steps, progress.seconds / 60, running, found.dice))
            say(f"{phase.name}: step {progress.steps}, {progress.seconds / 60:.1f} min, loss {running:.3f}, "
                f"held-out lesion Dice {found.dice:.4f} (bias {found.bias:+.1f})")  # fmt: skip
            if found.dice > progress.best:
                progress = replace(progress, best=found.dice)
                checkpoint.save(place.best(phase), net, average, optimiser, progress)
        if progress.seconds - saved > SAVE_EVERY_S or last:
            saved = progress.seconds
            checkpoint.save(place.checkpoint(phase), net, average, optimiser, progress)


def write_row(place: Place, row: Row) -> None:
    """Adds one judgement to the curve in the cache."""
    path = _curve(place)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([row.step, f"{row.minutes:.2f}", f"{row.loss:.4f}", f"{row.dice:.4f}"])


def _curve(place: Place) -> Path:
    return place.checkpoints / "lesions-curve.csv"


def _restore(folder: Path, place: Place, phase: Phase, say: Callable[[str], None]) -> None:
    """Takes the checkpoint and the curve kept with the model where the cache has none as far."""
    kept, here = folder / KEPT, place.checkpoint(phase)
    if not kept.exists():
        return
    stands = checkpoint.progress_of(kept)
    if here.exists() and checkpoint.progress_of(here).steps >= stands.steps:
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kept, here)
    _curve(place).unlink(missing_ok=True)
    for row in read_curve(folder / "curve.csv"):
        write_row(place, row)
    say(f"{NAME}: going on from step {stands.steps}, {stands.seconds / 60:.0f} minutes so far")


assert len(CLASS_WEIGHTS) == len(CLASSES)
