"""The shipping form of a training: weights.safetensors, graph.onnx and model.toml in models/NAME/.

The graph holds no weights: its initialisers point into weights.safetensors (ONNX external data with offsets), so that
one file of weights serves both engines and one hash covers them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.external_data_helper import set_external_data
from safetensors.torch import save_file
from torch import nn

from arcuate.inference.training import checkpoint, labels
from arcuate.inference.training.checkpoint import Average, Progress
from arcuate.inference.training.generator import Renderer
from arcuate.inference.training.maps import PreparedMap
from arcuate.inference.training.network import Shipped
from arcuate.inference.training.phases import PLANS, SHIPPED, Phase, ShippedModel
from arcuate.inference.training.train import HELD_OUT, Place, build, class_prior, judge

WEIGHTS = "weights.safetensors"
GRAPH = "graph.onnx"


def export(name: str, place: Place, models: Path, all_maps: list[PreparedMap]) -> Path:
    """Writes the best state of the last phase that has one; returns the model's folder.

    How far the class prior of training is taken out is chosen on the held-out maps.
    """
    phase = next((p for p in reversed(PLANS[name]) if place.best(p).exists()), None)
    if phase is None:
        raise FileNotFoundError(f"no checkpoint of {name} in {place.checkpoints}: run `arcuate train {name}` first")
    net = build(phase.network)
    average = Average(net)
    progress = checkpoint.load(place.best(phase), net, average, None)
    trained, held_out = all_maps[:-HELD_OUT], all_maps[-HELD_OUT:]
    prior = class_prior(trained, phase.network)
    verdict = judge(average.into(net), prior, Renderer(labels.load(), phase.grid), held_out, phase)
    progress = replace(progress, best=verdict.dice)
    shipped = Shipped(net, verdict.share * prior).eval()
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    told = SHIPPED[name]
    shape = told.shape if phase.grid.voxel == told.voxel else tuple(n // 2 for n in told.shape)
    tensors = {key: value.detach().contiguous().float() for key, value in shipped.state_dict().items()}
    with tempfile.TemporaryDirectory(dir=folder) as made:
        save_file(tensors, Path(made) / WEIGHTS)
        write_graph(shipped, shape, Path(made))
        text = _description(name, told, phase, progress, shape, prior.numel(), Path(made))
        (Path(made) / "model.toml").write_text(text, encoding="utf-8")
        for file in (WEIGHTS, GRAPH, "model.toml"):
            (Path(made) / file).chmod(0o644)
            (Path(made) / file).replace(folder / file)
    return folder


def write_graph(shipped: nn.Module, shape: tuple[int, ...], folder: Path, channels: int = 1) -> None:
    """Writes graph.onnx, whose weights are those of weights.safetensors in the same folder."""
    example = torch.zeros(1, channels, *shape)
    program = torch.onnx.export(
        shipped, (example,), input_names=["image"], output_names=["probabilities"], dynamo=True, verbose=False
    )
    assert program is not None
    model = program.model_proto
    offsets = _offsets(folder / WEIGHTS)
    for tensor in model.graph.initializer:
        if tensor.name in offsets:
            start, end = offsets[tensor.name]
            if end - start != len(tensor.raw_data):
                raise ValueError(f"{tensor.name}: the exporter changed this weight; it cannot be shared with {WEIGHTS}")
            set_external_data(tensor, WEIGHTS, offset=start, length=end - start)
            tensor.ClearField("raw_data")
    left = sum(len(tensor.raw_data) for tensor in model.graph.initializer if not tensor.external_data)
    if left > 100_000:
        raise ValueError(f"{left} bytes of weights would lie in the graph, apart from {WEIGHTS}")
    # Names of Python modules and files of the exporting machine are no part of a model.
    for node in (*model.graph.node, *(n for f in model.functions for n in f.node)):
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.metadata_props[:]
    onnx.save(model, folder / GRAPH)


def _offsets(path: Path) -> dict[str, tuple[int, int]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: (8 + length + entry["data_offsets"][0], 8 + length + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _description(
    name: str, told: ShippedModel, phase: Phase, progress: Progress, shape: tuple[int, ...], classes: int, folder: Path
) -> str:
    plan = PLANS[name]
    settled = "s" if progress.settles_until else ""
    version = f"{plan.index(phase)}.{progress.steps}{settled}"
    grid: dict[str, Any] = {"voxel_mm": phase.grid.voxel, "classes": [0, 1]}
    if classes > 2:
        scheme = labels.load()
        grid["classes"] = list(scheme.classes)
        pairs = [[a, scheme.classes[int(scheme.swapped[k])]] for k, a in enumerate(scheme.classes)]
        grid["mirror"] = [pair for pair in pairs if pair[0] < pair[1]]
    trained = f"{phase.name}, {progress.steps} steps, {progress.seconds / 60:.0f} minutes on a CPU"
    if settled:
        trained += f", the last {(progress.seconds - progress.settles_from) / 60:.0f} of them settling"
    return "\n".join(
        [
            "# Written by the export of a training; read card.md for how good it is and on whom.",
            f'name = "{name}"',
            f'version = "{version}"',
            f'task = "{told.task}"',
            f'population = "{told.population}"',
            'licence = "Apache-2.0"',
            f'trained = "{trained}"',
            f"held_out_dice = {progress.best:.4f}",
            f'exported = "{datetime.now(UTC):%Y-%m-%d}"',
            "",
            "[[inputs]]",
            'name = "image"',
            'datatype = "FP32"',
            f"shape = {json.dumps([1, 1, *shape])}",
            'meaning = "intensities, minimum to 99 % percentile of the body as 0 to 1; axes to Right, Anterior, Superior"',
            "",
            "[[outputs]]",
            'name = "probabilities"',
            'datatype = "UINT8"',
            f"shape = {json.dumps([1, classes, *shape])}",
            'meaning = "probability of each class times 255"',
            "",
            "[grid]",
            "# classes: FreeSurfer numbers in the order of the output's second axis; mirror: left and right of a pair",
            *(f"{key} = {json.dumps(value)}" for key, value in grid.items()),
            "",
            "[weights]",
            f'file = "{WEIGHTS}"',
            f'sha256 = "{sha256(folder / WEIGHTS)}"',
            "",
            "[graph]",
            f'file = "{GRAPH}"',
            f'sha256 = "{sha256(folder / GRAPH)}"',
            "",
            "[torch]",
            f'network = "{phase.network}"',
            "",
        ]
    )
