"""Training of a model, phase by phase, resumable at any moment: `arcuate train NAME`.

Start from a clean cache with nothing but label maps; killed and started again, it goes on from the last checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from arcuate.inference.training import checkpoint, labels, maps, network
from arcuate.inference.training.checkpoint import Average, Progress
from arcuate.inference.training.generator import Range, Renderer, uniform
from arcuate.inference.training.lesion_network import new_lesions
from arcuate.inference.training.loss import chosen_voxels, combined
from arcuate.inference.training.maps import PreparedMap
from arcuate.inference.training.phases import PLANS, Phase

HELD_OUT = 2
"""The last maps by name are never trained on; weights are chosen by them."""

SAVE_EVERY_S = 120.0
JUDGE_EVERY_S = 300.0
LONGEST_STEP_S = 30.0
"""More than this is no training: the process was stopped for a while."""

WARM_UP_STEPS = 50
SLOWING_STEPS = 2000.0

LEAST_RATE = 0.01
"""Share of the rate at the end of settling."""

PRIOR_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Tried on the held-out maps: corrected too far, an unsure network forgets its small structures; too little, they swell."""

AS_GOOD = 0.002
"""Dice that does not tell two shares apart."""


@dataclass(frozen=True)
class Place:
    """Folders of a training: label maps in, cache of prepared maps, checkpoints."""

    labelmaps: Path
    cache: Path
    checkpoints: Path

    def checkpoint(self, phase: Phase) -> Path:
        """The newest state of a phase."""
        return self.checkpoints / f"{phase.name}.safetensors"

    def settling(self, phase: Phase) -> Path:
        """The newest state of a phase's settling, which goes its own way from the phase's newest state."""
        return self.checkpoints / f"{phase.name}-settling.safetensors"

    def best(self, phase: Phase) -> Path:
        """The state of a phase with the best held-out Dice."""
        return self.checkpoints / f"{phase.name}-best.safetensors"


_FINER: dict[str, type[network.Grown]] = {"grown": network.Grown, "wide": network.Wide}


def build(kind: str) -> nn.Module:
    """A new network: finder, core, grown, wide or lesions."""
    if kind == "lesions":
        return new_lesions()
    classes = len(labels.load().classes)
    made: nn.Module = network.new_finder() if kind == "finder" else network.new_core(classes)
    if kind in _FINER:
        assert isinstance(made, network.Core)
        made = _FINER[kind](made)
    return made.to(memory_format=torch.channels_last_3d)


def targets_of(kind: str, target: Tensor) -> Tensor:
    """The finder knows brain (outer CSF left out) and the rest only."""
    if kind != "finder":
        return target
    csf = labels.load().classes.index(24)
    return ((target > 0) & (target != csf)).long()


@cache
def multiplies_bfloat16(cpu: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bfloat16 itself: forward and back then take 0.49 in place of 0.77 s of one core."""
    return cpu.exists() and {"avx512_bf16", "amx_bf16"} & set(cpu.read_text(encoding="utf-8").split()) != set()


def loss_of(net: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    """Loss on the chosen voxels; of a grown network the finest layer answers there only."""
    index, importance = chosen_voxels(target)
    with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
        logits = _logits(net, image, target, index)
    return combined(logits, target.reshape(-1)[index], importance)


def _logits(net: nn.Module, image: Tensor, target: Tensor, index: Tensor) -> Tensor:
    """A row for each voxel of `index`."""
    if not isinstance(net, network.Grown):
        logits: Tensor = net(image)
        return logits[0].flatten(1).t()[index]
    fine, coarse = net.parts(image)
    rows = fine[0].permute(1, 2, 3, 0).reshape(-1, fine.shape[1])[index]
    _, ny, nz = target.shape
    x, y, z = index // (ny * nz), index // nz % ny, index % nz
    below = ((x // 2) * (ny // 2) + y // 2) * (nz // 2) + z // 2
    head = functional.linear(rows, net.head.weight.flatten(1), net.head.bias)
    return head + coarse[0].permute(1, 2, 3, 0).reshape(-1, coarse.shape[1])[below]


def class_prior(held: Sequence[PreparedMap], kind: str) -> Tensor:
    """What is added to the logits when answering: log of the root that the loss divided by (see loss.py)."""
    scheme = labels.load()
    table = torch.from_numpy(scheme.class_of)
    counts = torch.zeros(len(scheme.classes))
    for one in held:
        counts += torch.bincount(table[one.index.reshape(-1).long()], minlength=len(counts)) / 8.0 / len(held)
    if kind == "finder":
        csf = scheme.classes.index(24)
        brain = counts[1:].sum() - counts[csf]
        counts = torch.stack([counts.sum() - brain, brain]) / 8.0
    else:
        counts[0] = 400_000
    prior = 0.5 * torch.log(counts + 200.0)
    return prior - prior.mean()


@dataclass(frozen=True)
class Verdict:
    """Mean Dice on held-out maps, the share of the class prior that gives it (see class_prior), and by how much volumes are off
    then: mean over classes of the absolute logarithm of found to true volume."""

    dice: float
    share: float
    volume_error: float


def judge(net: nn.Module, prior: Tensor, renderer: Renderer, held: Sequence[PreparedMap], phase: Phase) -> Verdict:
    """Judge on renderings of the held-out maps, always the same ones.

    Of the shares of the prior whose Dice is as good as the best's (within `AS_GOOD`) the one with the truest volumes is taken.
    """
    random = torch.Generator().manual_seed(20)
    narrow = replace(phase.reach, thick=0.0, cut=0.0, contrast=0.0)
    # Each weighting is judged as often; of one alone, every map twice.
    weightings = narrow.weightings if len(narrow.weightings) > 1 else narrow.weightings * 2 * len(held)
    n = prior.numel()
    counts = {share: torch.zeros(3, len(weightings), n) for share in PRIOR_SHARES}  # true, found, both
    net.eval()
    with torch.no_grad():
        for number, weighting in enumerate(weightings):
            one = held[number % len(held)]
            image, target = renderer.sample(one, replace(narrow, weightings=(weighting,)), random)
            target = targets_of(phase.network, target).reshape(-1)
            logits = net(image.to(memory_format=torch.channels_last_3d))
            for share, counted in counts.items():
                found = (logits + share * prior.reshape(1, -1, 1, 1, 1)).argmax(1).reshape(-1)
                for row, voxels in enumerate((target, found, target[target == found])):
                    counted[row, number] = torch.bincount(voxels, minlength=n).float()
    net.train()
    verdicts = [_verdict(share, counted[:, :, 1:]) for share, counted in counts.items()]
    best = max(v.dice for v in verdicts)
    return min((v for v in verdicts if v.dice >= best - AS_GOOD), key=lambda v: v.volume_error)


def _verdict(share: float, counted: Tensor) -> Verdict:
    true, found, both = counted
    dice = (2 * both / (true + found).clamp_min(1)).mean()
    ratio = (found.sum(0) + 1) / (true.sum(0) + 1)
    return Verdict(float(dice), share, float(ratio.log().abs().mean()))


def rate_at(phase: Phase, progress: Progress) -> float:
    """Learning rate: a short warm-up, then falling with the root of the steps, so that no end need be known.

    While it settles it falls evenly to `LEAST_RATE` besides: steps that become smaller take out what single samples left in the weights
    (A. Haegele et al., Scaling laws and compute-optimal training beyond fixed training durations, 2024).
    """
    rate = phase.rate * min(1.0, (progress.steps + 1) / WARM_UP_STEPS) / math.sqrt(1 + progress.steps / SLOWING_STEPS)
    if not progress.settles_until:
        return rate
    left = (progress.settles_until - progress.seconds) / (progress.settles_until - progress.settles_from)
    return rate * max(LEAST_RATE, left)


def reach_at(phase: Phase, progress: Progress, random: torch.Generator) -> Range:
    """How far the generator goes in this step (see Phase.widen_steps)."""
    wide = 1.0 if phase.widen_steps == 0 else 0.1 + 0.9 * progress.steps / phase.widen_steps
    return phase.reach if uniform(random, 0, 1) < wide else replace(phase.reach, contrast=0.0, weightings=("t1",))


def step(net: nn.Module, optimiser: torch.optim.Optimizer, average: Average) -> None:
    """Take a step along the gradient, cut to a norm of 5; none where it is no number, which would stay in the weights for good."""
    norm = nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    if torch.isfinite(norm):
        optimiser.step()
        average.update(net)


def run_phase(
    phase: Phase,
    place: Place,
    start: nn.Module,
    all_maps: list[PreparedMap],
    minutes: float,
    say: Callable[[str], None],
    at_least: float | None = None,
    settles: bool = False,
) -> None:
    """Trains one phase until its wall time is `minutes`, from its checkpoint where there is one.

    Args:
        at_least: Held-out Dice that the weights must pass to be called the best; without it the first weights are the best so far.
        settles: The rate falls to nothing until then. What comes of it can be the best, but the phase's own state stays where it was:
            more training goes on from there.
    """
    net, average = start, Average(start)
    optimiser = torch.optim.AdamW(net.parameters(), lr=phase.rate, weight_decay=1e-2)
    newest = place.settling(phase) if settles else place.checkpoint(phase)
    state = newest if newest.exists() else place.checkpoint(phase)
    progress = checkpoint.load(state, net, average, optimiser) if state.exists() else Progress(phase.name)
    progress = replace(progress, best=max(progress.best, at_least or 0.0))
    if settles and not progress.settles_until:
        progress = replace(progress, settles_from=progress.seconds, settles_until=minutes * 60)
    until = progress.settles_until or minutes * 60
    renderer = Renderer(labels.load(), phase.grid)
    trained, held_out = all_maps[:-HELD_OUT], all_maps[-HELD_OUT:]
    prior = class_prior(trained, phase.network)
    random = torch.Generator().manual_seed(1 + progress.steps)
    judged = build(phase.network)
    if place.best(phase).exists():
        found = _best_so_far(phase, place, judged, prior, renderer, held_out)
        progress = replace(progress, best=max(found.dice, at_least or 0.0))
        say(f"{phase.name}: the best so far has held-out Dice {found.dice:.4f}")
    saved = decided = progress.seconds
    running = 0.0
    while progress.seconds < until:
        began = time.monotonic()
        for group in optimiser.param_groups:
            group["lr"] = rate_at(phase, progress)
        one = trained[int(torch.randint(len(trained), (), generator=random))]
        image, target = renderer.sample(one, reach_at(phase, progress, random), random)
        value = loss_of(net, image.to(memory_format=torch.channels_last_3d), targets_of(phase.network, target))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        step(net, optimiser, average)
        now = float(value.detach())
        running = now if running == 0 else 0.98 * running + 0.02 * now
        progress = replace(
            progress, steps=progress.steps + 1, seconds=progress.seconds + min(time.monotonic() - began, LONGEST_STEP_S)
        )
        last = progress.seconds >= until
        if progress.seconds - decided > JUDGE_EVERY_S or last:
            decided = progress.seconds
            found = judge(average.into(judged), prior, renderer, held_out, phase)
            say(f"{phase.name}: step {progress.steps}, {progress.seconds / 60:.1f} min, held-out Dice {found.dice:.4f}")
            if found.dice > progress.best or (at_least is None and not place.best(phase).exists()):
                progress = replace(progress, best=found.dice)
                checkpoint.save(place.best(phase), net, average, optimiser, progress)
        if progress.seconds - saved > SAVE_EVERY_S or last:
            saved = progress.seconds
            checkpoint.save(newest, net, average, optimiser, progress)
            say(f"{phase.name}: step {progress.steps}, {progress.seconds / 60:.1f} min, loss {running:.3f}")
    if settles:
        newest.unlink(missing_ok=True)


def _best_so_far(
    phase: Phase, place: Place, judged: nn.Module, prior: Tensor, renderer: Renderer, held: Sequence[PreparedMap]
) -> Verdict:
    """Judge the best state again: what the generator renders may have changed since."""
    best = Average(judged)
    checkpoint.load(place.best(phase), judged, best, None)
    return judge(best.into(judged), prior, renderer, held, phase)


def train(
    name: str,
    place: Place,
    minutes: float | None,
    say: Callable[[str], None],
    at_least: float | None = None,
    settles: bool = False,
) -> None:
    """Runs the phases of model `name` from the latest one that has a checkpoint.

    minutes: how long from now, half of it at most for a phase that is not the last; None: to the end of the plan. at_least, settles: of
    the last phase, see `run_phase`.
    """
    all_maps = maps.prepare(place.labelmaps, place.cache, labels.load())
    plan = PLANS[name]
    first = max((i for i, phase in enumerate(plan) if place.checkpoint(phase).exists()), default=0)
    for number, phase in enumerate(plan[first:], first):
        so_far = (
            checkpoint.progress_of(place.checkpoint(phase)).seconds / 60 if place.checkpoint(phase).exists() else 0.0
        )
        until = phase.minutes
        if minutes is not None:
            share = minutes if phase is plan[-1] else min(minutes / 2, max(0.0, phase.minutes - so_far))
            until, minutes = so_far + share, minutes - share
        start = _start(phase, place, plan[number - 1] if number else None)
        last = phase is plan[-1]
        run_phase(phase, place, start, all_maps, until, say, at_least if last else None, settles and last)


def _start(phase: Phase, place: Place, before: Phase | None) -> nn.Module:
    """A new network; one that begins with another model has its weights, a grown or wide one those of the phase before at its best,
    unless its own checkpoint will fill it."""
    net = build(phase.network)
    if phase.begins_with and not place.checkpoint(phase).exists():
        average = Average(net)
        checkpoint.load(place.checkpoint(PLANS[phase.begins_with][-1]), net, average, None)
        return average.into(net)
    if before is not None and not place.checkpoint(phase).exists():
        small = build(before.network)
        average = Average(small)
        state = place.best(before) if place.best(before).exists() else place.checkpoint(before)
        checkpoint.load(state, small, average, None)
        _take_over(net, average.into(small))
    return net


def _take_over(net: nn.Module, small: nn.Module) -> None:
    if isinstance(net, network.Wide) and isinstance(small, network.Grown):
        net.widened(small, torch.Generator().manual_seed(1))
    elif isinstance(net, network.Grown):
        net.core.load_state_dict(small.state_dict())
