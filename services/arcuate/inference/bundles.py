"""Folders in the shape of a MONAI bundle: `configs/metadata.json` describes the tensors, `models/` holds the network.

A site puts the folder under models/ and a model.toml into it that names the graph and its hash (`name`, `version`, `[graph]`); tensors
that model.toml does not state are taken from the bundle (`network_data_format`). TorchScript and pickles are never opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA = "configs/metadata.json"
# The bundle's names of types (numpy's or torch's) and the protocol's.
_DATATYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "float": "FP32", "double": "FP64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "bool": "BOOL",
}  # fmt: skip


def completed(folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """What model.toml says, with what the bundle's metadata adds; KeyError or ValueError where that is incomplete."""
    path = folder / METADATA
    if not path.is_file() or ("inputs" in told and "outputs" in told):
        return dict(told)
    metadata = json.loads(path.read_text(encoding="utf-8"))
    described = metadata["network_data_format"]
    made = {
        "inputs": [_tensor(name, tensor) for name, tensor in described["inputs"].items()],
        "outputs": [_tensor(name, tensor) for name, tensor in described["outputs"].items()],
        "task": metadata.get("task", ""),
        "population": metadata.get("intended_use", ""),
    }
    return made | dict(told)


def missing_description(folder: Path) -> str:
    """What a site has to write so that a bundle is taken."""
    graph = next(iter(sorted(folder.glob("models/*.onnx"))), None)
    if graph is None:
        return (
            "it has no models/*.onnx; TorchScript and pickled weights are not opened: "
            "export it with `python -m monai.bundle onnx_export`"
        )
    digest = hashlib.sha256(graph.read_bytes()).hexdigest()
    return (
        f'it has no model.toml: write one with name = "{folder.name}", version, and [graph] file = "models/{graph.name}", '
        f'sha256 = "{digest}" once you have checked where the file comes from'
    )


def _tensor(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """One tensor; a size that the bundle writes as "*" or a formula may be any."""
    sizes = [int(n) if isinstance(n, int) else -1 for n in told["spatial_shape"]]
    datatype = _DATATYPES.get(str(told["dtype"]).removeprefix("torch."), str(told["dtype"]))
    return {"name": name, "datatype": datatype, "shape": [-1, int(told["num_channels"]), *sizes]}
