"""Reading models/NAME/model.toml. A folder that cannot be read is a disabled model, never a crash of the room."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcuate.inference import bundles
from arcuate.inference.domain import DATATYPES, ModelDescription, ModelLimits, ModelState, TensorSpec

DESCRIPTION = "model.toml"
SUFFIXES = (".onnx", ".safetensors", ".data")  # .data: external data of an ONNX graph, raw numbers


def models_in(folder: Path) -> dict[str, ModelState]:
    """Every network in `folder` by name; a faulty description gives a disabled model with the reason."""
    found: dict[str, ModelState] = {}
    for path in sorted(folder.glob(f"*/{DESCRIPTION}")):
        try:
            told = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            found[path.parent.name] = _disabled(path, f"its {DESCRIPTION} cannot be read: {error}")
            continue
        if "graph" not in told:
            continue  # a model of another kind, for another room
        try:
            told = bundles.completed(path.parent, told)
            found[path.parent.name] = ModelState(described(path.parent.name, told))
        except (KeyError, TypeError, ValueError) as error:
            found[path.parent.name] = _disabled(path, f"its {DESCRIPTION} lacks or misstates {error}")
    for path in sorted(folder.glob(f"*/{bundles.METADATA}")):
        name = path.parents[1].name
        if not (path.parents[1] / DESCRIPTION).exists():
            found[name] = _disabled(path.parents[1] / DESCRIPTION, bundles.missing_description(path.parents[1]))
    return found


def described(folder_name: str, told: Mapping[str, Any]) -> ModelDescription:
    """The description of a parsed model.toml; KeyError or ValueError says what is wrong with it."""
    if told["name"] != folder_name:
        raise ValueError(f"name (it says {told['name']!r} in the folder {folder_name!r})")
    # A graph that holds its weights has no file of weights beside it.
    files = {
        role: (str(told[role]["file"]), str(told[role]["sha256"])) for role in ("weights", "graph") if role in told
    }
    for file, _ in files.values():
        if Path(file).is_absolute() or ".." in Path(file).parts:
            raise ValueError(f"file {file!r}: it must lie in the model's own folder")
        if Path(file).suffix not in SUFFIXES:
            raise ValueError(f"file {file!r}: only {', '.join(SUFFIXES)} are read, nothing that could carry code")
    inputs, outputs = (tuple(_spec(tensor) for tensor in told[key]) for key in ("inputs", "outputs"))
    limits = ModelLimits(**told.get("limits", {}))
    if limits.batch > 1 and any(spec.shape[:1] != (-1,) for spec in (*inputs, *outputs)):
        raise ValueError("limits.batch: the first axis of every tensor must be -1")
    return ModelDescription(
        name=folder_name,
        version=str(told["version"]),
        inputs=inputs,
        outputs=outputs,
        files=files,
        told=told,
        limits=limits,
    )


def hash_fault(folder: Path, description: ModelDescription) -> str:
    """Empty when every file is the one that model.toml names by its sha256, else the reason."""
    for role, (file, expected) in description.files.items():
        path = folder / file
        if not path.is_file():
            return f"its {role} file {file} is missing"
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != expected:
            return f"its {role} file {file} is not the one that {DESCRIPTION} names (sha256 differs)"
    return ""


def _spec(told: Mapping[str, Any]) -> TensorSpec:
    if told["datatype"] not in DATATYPES:
        raise ValueError(f"datatype {told['datatype']!r}")
    return TensorSpec(str(told["name"]), str(told["datatype"]), tuple(int(n) for n in told["shape"]))


def _disabled(path: Path, reason: str) -> ModelState:
    return ModelState(ModelDescription(path.parent.name, "", (), (), {}, {}), reason)
