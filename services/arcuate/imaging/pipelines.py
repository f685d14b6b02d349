"""Which model measures which series (`pipelines.toml`), and what a measuring module takes and gives.

A pipeline is: series chosen by rules, tensors made of them, networks asked, and a Finding. Everything after a Finding
(Observations, SEG, SR, pictures, the durable job) is the same for all.
"""

import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging import series
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.domain import Instance, Unreadable
from arcuate.imaging.series import Choice
from arcuate.imaging.structures import ConceptCode
from arcuate.imaging.uncertainty import Uncertainty
from arcuate.kernel.errors import NotFound

Infer = Callable[[str, Mapping[str, NDArray[Any]]], Awaitable[Mapping[str, NDArray[Any]]]]
TABLE = files("arcuate.imaging").joinpath("pipelines.toml")
REVIEW, SHADOW = "review", "shadow"


@dataclass(frozen=True)
class Pipeline:
    """One row of `pipelines.toml`; its head says what the members mean."""

    name: str
    title: str
    mode: str
    asked_by: tuple[Mapping[str, Any], ...]
    method: str
    models: Mapping[str, str]
    rules: tuple[str, ...]
    inputs: Mapping[str, str]
    optional: tuple[str, ...]
    site: ConceptCode
    procedure: ConceptCode
    series_number: int
    seg_label: str
    seg_title: str
    sr_title: str
    said_method: str
    limits: str
    otherwise: Mapping[str, str] = field(default_factory=dict)

    @property
    def first_input(self) -> str:
        """The role whose grid the results lie on."""
        return next(iter(self.inputs))

    def asked(self, found: Sequence[Instance | Unreadable]) -> bool:
        """Whether a series of the study asks for it."""
        return series.held(found, self.asked_by, self.inputs[self.first_input])


@dataclass(frozen=True)
class Volume:
    """A scan: data (i, j, k) float32 in the scan's own values (CT: HU) and the affine (4, 4) from voxel to RAS+ mm."""

    data: NDArray[np.float32]
    affine: NDArray[np.float64]

    @property
    def longest_mm(self) -> float:
        """The longest side of a voxel."""
        return float(np.linalg.norm(self.affine[:3, :3], axis=0).max())


@dataclass(frozen=True)
class Scan:
    """What a method is given for one role. choice: which series and why; None for a NIfTI file."""

    choice: Choice | None
    volume: Volume


@dataclass(frozen=True)
class Finding:
    """What a method gives.

    Attributes:
        labels: (i, j, k) uint8 on the first input's own grid; numbers of `structures.toml`.
        measured: Values; their units stand in `structures.toml`.
        absent: Structure code to the reason why it has no value.
        warnings: What makes the values less sure, in words.
        model: The model that measured, with those that helped.
        uncertainty: How undecided the network was, where the method keeps its probabilities.
        quality: From 0 to 1, what is to be expected of the labels (`quality.py`), where the method can say.
        model_reason: Why this model measured, where there was a choice.
    """

    labels: NDArray[np.uint8]
    measured: tuple[Measured, ...]
    absent: Mapping[str, str]
    warnings: tuple[str, ...]
    model: Model
    uncertainty: Uncertainty | None = None
    quality: float | None = None
    model_reason: str = ""


class Method(Protocol):
    """A measuring module: scans by role, in; a Finding, out. Raises NotMeasurable with a reason for a technologist."""

    async def __call__(
        self, pipeline: Pipeline, scans: Mapping[str, Scan], infer: Infer, models_dir: Path
    ) -> Finding: ...


@cache
def pipelines() -> tuple[Pipeline, ...]:
    """Return all pipelines in the order of the table."""
    rows = tomllib.loads(TABLE.read_text("utf-8"))["pipeline"]
    return tuple(
        Pipeline(
            **row
            | {key: tuple(row[key]) for key in ("asked_by", "rules", "optional")}
            | {key: ConceptCode(**row[key]) for key in ("site", "procedure")}
        )
        for row in rows
    )


def named(name: str) -> Pipeline:
    """Return one pipeline.

    Raises:
        NotFound: There is none of this name.
    """
    found = next((p for p in pipelines() if p.name == name), None)
    if found is None:
        known = ", ".join(p.name for p in pipelines())
        raise NotFound(f"There is no pipeline {name!r}", todo=f"Pipelines here: {known}.")
    return found


def asked_by(found: Sequence[Instance | Unreadable]) -> tuple[Pipeline, ...]:
    """Return the pipelines that measure a study; the first one, which then says why not, where no series asks for any."""
    return tuple(p for p in pipelines() if p.asked(found)) or pipelines()[:1]
