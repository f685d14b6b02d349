"""What this room knows: tensors, model descriptions and the data types of the Open Inference Protocol. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from arcuate.kernel.errors import BadInput, TooLarge

Tensor = NDArray[Any]

DATATYPES: Mapping[str, DTypeLike] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
"""Datatypes of the protocol (REST, "Tensor Data Types") that this server takes, little-endian in binary form."""


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor as a model declares it; -1 in shape stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy's type."""
        return np.dtype(DATATYPES[self.datatype])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape may be given."""
        return len(shape) == len(self.shape) and all(s in (-1, n) for s, n in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class ModelLimits:
    """What a model may take: the table `[limits]` of model.toml.

    Attributes:
        seconds: After which its process is stopped; 0: as the settings say.
        memory_mib: Of one call, on top of what the process has; 0: no limit.
        waiting: Requests that may wait for it; one more is refused.
        batch: Rows (first axis) of requests that are computed together; above 1 only where the model declares its first
            axes as -1. Sums may then round otherwise than alone: equal bytes are promised for 1 only.
        priority: Of a request that states none; 1 is first.
    """

    seconds: float = 0.0
    memory_mib: int = 0
    waiting: int = 64
    batch: int = 1
    priority: int = 5


@dataclass(frozen=True)
class ModelDescription:
    """What model.toml says. files: role (weights, graph) -> (file in its folder, sha256). told: the whole file."""

    name: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: Mapping[str, tuple[str, str]]
    told: Mapping[str, Any]
    limits: ModelLimits = ModelLimits()


@dataclass(frozen=True)
class ModelState:
    """A model that stands in models/: `reason` is empty when it answers, else says why it is disabled."""

    description: ModelDescription
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return not self.reason


def checked_inputs(description: ModelDescription, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs in the model's order; BadInput names what is missing, unknown or of the wrong form."""
    declared = {spec.name: spec for spec in description.inputs}
    for name in given:
        if name not in declared:
            raise BadInput(f"{description.name} has no input {name!r}", todo=f"It takes: {', '.join(declared)}.")
    found = {}
    for name, spec in declared.items():
        if name not in given:
            raise BadInput(f"The input {name!r} is missing", todo=f"{description.name} needs: {', '.join(declared)}.")
        tensor = given[name]
        if tensor.dtype != spec.dtype:
            raise BadInput(f"The input {name!r} has another datatype than {spec.datatype}", where=name)
        if not spec.fits(tensor.shape):
            raise BadInput(f"The input {name!r} has shape {list(tensor.shape)}, not {list(spec.shape)}", where=name)
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise BadInput(f"The input {name!r} holds values that are not finite numbers", where=name)
        found[name] = tensor
    return found


def element_count(shape: tuple[int, ...], limit: int) -> int:
    """Number of elements of a shape that a caller states; refuses negative and absurd ones before memory is taken."""
    if any(n < 0 for n in shape):
        raise BadInput(f"The shape {list(shape)} has a negative size")
    count = math.prod(shape)
    if count > limit:
        raise TooLarge(f"A tensor of {count} elements is over the limit of {limit}")
    return count
