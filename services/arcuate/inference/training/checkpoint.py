"""Where a training stands: weights, their moving average, the optimiser's moments and the counters, in safetensors.

Moments are kept as bfloat16, so that a checkpoint is small enough to be kept beside the model.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

EMA_DECAY = 0.997


@dataclass(frozen=True)
class Progress:
    """Counters of one phase. seconds is wall time in training steps; best is the best held-out Dice so far.

    settles_from, settles_until: between which seconds the learning rate falls to nothing; 0 where it does not.
    """

    phase: str
    steps: int = 0
    seconds: float = 0.0
    best: float = 0.0
    settles_from: float = 0.0
    settles_until: float = 0.0


class Average:
    """Moving average of a network's parameters; young averages forget faster."""

    def __init__(self, network: nn.Module) -> None:
        self.values = {name: value.detach().clone() for name, value in network.named_parameters()}
        self.updates = 0

    def update(self, network: nn.Module) -> None:
        """Takes one step's parameters in."""
        self.updates += 1
        decay = min(EMA_DECAY, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            for name, value in network.named_parameters():
                self.values[name].lerp_(value, 1 - decay)

    def into(self, network: nn.Module) -> nn.Module:
        """Copies the average into `network`."""
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(self.values[name])
        return network


def save(
    path: Path, network: nn.Module, average: Average, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Writes beside and renames, so that a kill leaves the old checkpoint whole."""
    tensors: dict[str, Tensor] = {}
    for name, value in network.named_parameters():
        tensors[f"weights.{name}"] = value.detach().contiguous()
        tensors[f"average.{name}"] = average.values[name].contiguous()
        moments = optimiser.state.get(value, {})
        for key in ("exp_avg", "exp_avg_sq"):
            if key in moments:
                tensors[f"{key}.{name}"] = moments[key].to(torch.bfloat16).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    metadata = {"progress": json.dumps(asdict(replace(progress))), "updates": str(average.updates)}
    save_file(tensors, part, metadata=metadata)
    part.replace(path)


def progress_of(path: Path) -> Progress:
    """The counters alone."""
    with safe_open(path, "pt") as held:
        return Progress(**json.loads((held.metadata() or {})["progress"]))


def load(path: Path, network: nn.Module, average: Average, optimiser: torch.optim.Optimizer | None) -> Progress:
    """Fills network, average and optimiser; raises KeyError where the file is of another network."""
    with safe_open(path, "pt") as held, torch.no_grad():
        names = set(held.keys())
        metadata = held.metadata() or {}
        progress = Progress(**json.loads(metadata["progress"]))
        average.updates = int(metadata["updates"])
        for name, value in network.named_parameters():
            value.copy_(held.get_tensor(f"weights.{name}"))
            average.values[name].copy_(held.get_tensor(f"average.{name}"))
            if optimiser is not None and f"exp_avg.{name}" in names:
                optimiser.state[value] = {
                    "step": torch.tensor(float(progress.steps)),
                    "exp_avg": held.get_tensor(f"exp_avg.{name}").float().clone(),
                    "exp_avg_sq": held.get_tensor(f"exp_avg_sq.{name}").float().clone(),
                }
    return progress
