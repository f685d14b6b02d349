"""The shipping form of wm-lesions: weights.safetensors, graph.onnx and model.toml, as the other networks have them."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from arcuate.inference.training.checkpoint import Progress
from arcuate.inference.training.export import GRAPH, WEIGHTS, sha256, write_graph
from arcuate.inference.training.lesion_generator import LESION, MIDDLE
from arcuate.inference.training.lesion_network import CLASSES
from arcuate.inference.training.network import Shipped
from arcuate.inference.training.phases import Phase

NAME = "wm-lesions"


def export_lesions(folder: Path, net: nn.Module, bias: float, progress: Progress, phase: Phase) -> Path:
    """Writes the model; `bias` is added to the lesions' logit. Files are replaced only when all are made."""
    prior = torch.zeros(len(CLASSES))
    prior[LESION] = bias
    shipped = Shipped(net, prior).eval()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().contiguous().float() for key, value in shipped.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder) as made:
        save_file(tensors, Path(made) / WEIGHTS)
        write_graph(shipped, phase.grid.shape, Path(made), channels=2)
        (Path(made) / "model.toml").write_text(_description(progress, phase, Path(made)), encoding="utf-8")
        for file in (WEIGHTS, GRAPH, "model.toml"):
            (Path(made) / file).chmod(0o644)
            (Path(made) / file).replace(folder / file)
    return folder


def _description(progress: Progress, phase: Phase, folder: Path) -> str:
    shape = list(phase.grid.shape)
    size = " x ".join(f"{n * phase.grid.voxel:g}" for n in shape)
    return f"""# Written by the export of a training; read card.md for how good it is and on whom.
name = "{NAME}"
version = "0.{progress.steps}"
task = "Find white-matter lesions in a FLAIR, with the T1 of the same head where there is one, window of {size} mm"
population = "Adults, FLAIR of the head with or without skull; trained on synthetic images only"
licence = "Apache-2.0"
trained = "{phase.name}, {progress.steps} steps, {progress.seconds / 60:.0f} minutes on a CPU"
held_out_dice = {progress.best:.4f}
exported = "{datetime.now(UTC):%Y-%m-%d}"

[[inputs]]
name = "image"
datatype = "FP32"
shape = {json.dumps([1, 2, *shape])}
meaning = "FLAIR, then T1 or zeros; the brain's median as {MIDDLE:g}; axes to Right, Anterior, Superior"

[[outputs]]
name = "probabilities"
datatype = "UINT8"
shape = {json.dumps([1, len(CLASSES), *shape])}
meaning = "probability of each class times 255"

[grid]
# names: what each class of the output's second axis is; only "lesion" is an answer, the others say where it lies
voxel_mm = {phase.grid.voxel}
classes = {json.dumps(list(range(len(CLASSES))))}
names = {json.dumps(list(CLASSES))}

[weights]
file = "{WEIGHTS}"
sha256 = "{sha256(folder / WEIGHTS)}"

[graph]
file = "{GRAPH}"
sha256 = "{sha256(folder / GRAPH)}"

[torch]
network = "{phase.network}"
"""
