"""What the description of a network (models/NAME/model.toml) says that matters in space, and the form of its answers."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.domain import RefusalCode, refuse


@dataclass(frozen=True)
class ModelUsed:
    """Which network answered."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Network:
    """What model.toml says that matters here. shape: voxels of the grid; swapped[k]: class k in the mirror."""

    used: ModelUsed
    shape: tuple[int, int, int]
    voxel_mm: float
    classes: NDArray[np.int64]
    swapped: NDArray[np.int64]


def load_model(models_dir: Path, name: str) -> Network:
    """Read a network's description; refused where it is not installed."""
    path = models_dir / name / "model.toml"
    if not path.is_file():
        raise refuse(RefusalCode.NO_MODEL, f"The model {name} is not installed", f"Install it in {path.parent.name}/.")
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    x, y, z = told["inputs"][0]["shape"][2:]
    classes = np.array(told["grid"]["classes"])
    mirror = {int(a): int(b) for a, b in told["grid"].get("mirror", [])}
    mirror |= {b: a for a, b in mirror.items()}
    where = {int(label): k for k, label in enumerate(classes)}
    swapped = np.array([where[mirror.get(int(label), int(label))] for label in classes])
    used = ModelUsed(told["name"], told["version"], told["weights"]["sha256"])
    return Network(used, (x, y, z), float(told["grid"]["voxel_mm"]), classes, swapped)


def checked(answer: Mapping[str, NDArray[Any]], model: Network) -> NDArray[np.uint8]:
    """The answer's probabilities (1, classes, x, y, z) as bytes; refused where they are no probabilities."""
    found = answer.get("probabilities")
    if found is None or found.shape != (1, len(model.classes), *model.shape) or found.dtype != np.uint8:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"The model {model.used.name} answered in a form that its description does not state",
            "Have the inference service and the folder models/ brought to the same version.",
        )  # fmt: skip
    total = found[0, :, ::5, ::5, ::5].sum(0, dtype=np.int64)
    if total.min() < 200 or total.max() > 310:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"The model {model.used.name} answered values that are no probabilities",
            "Have the inference service checked.",
        )  # fmt: skip
    return found
