"""Where ventricles, other fluid and veins usually lie: chances from label maps in coordinates of the cavity, kept with the model.

Coordinates: x from the midline, y from the middle, both in halves of the cavity's width and length; z down from its top, in halves of
its width. `place` makes them for any head, the same way when the atlas is made and when it is asked.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from scipy import ndimage

from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.sampling import Floats

NAME = "head-ct"
CHANNELS = ("ventricle", "fluid", "vein")


@dataclass(frozen=True)
class Atlas:
    """chances (channel, x, y, z) uint8 of 255, a grid of `step` in cavity coordinates from `low`. name, version, sha256: passport."""

    chances: NDArray[np.uint8]
    low: tuple[float, float, float]
    step: float
    septum: tuple[float, float, float]
    name: str
    version: str
    sha256: str

    def on(self, cavity: Cavity) -> Chances:
        """The chances on a head's own grid, where it has a cavity."""
        box = ndimage.find_objects(cavity.mask.astype(np.uint8))[0]
        middle, scale = place(cavity)
        ranges = [np.arange(b.start, b.stop, dtype=np.float64) for b in box]
        x, y, z = ranges
        line = cavity.midline(y[:, None], z[None, :])
        u = (x[:, None, None] - line[None]) / scale[0]
        v = np.broadcast_to(((y - middle[1]) / scale[1])[None, :, None], u.shape)
        w = np.broadcast_to(((middle[2] - z) / scale[2])[None, None, :], u.shape)
        at = [(c - low) / self.step for c, low in zip((u, v, w), self.low, strict=True)]
        found = {}
        for channel, name in enumerate(CHANNELS):
            whole = np.zeros(cavity.mask.shape, np.float32)
            whole[box] = ndimage.map_coordinates(self.chances[channel], at, np.float32, order=1) / 255
            found[name] = whole
        septum = (
            self.septum[0] * scale[0],
            middle[1] + self.septum[1] * scale[1],
            middle[2] - self.septum[2] * scale[2],
        )
        return Chances(found["ventricle"], found["fluid"], found["vein"], septum)


@dataclass(frozen=True)
class Chances:
    """Chances on a head's grid. septum: x from the midline, y and z in voxels, where the septum pellucidum is expected."""

    ventricle: Floats
    fluid: Floats
    vein: Floats
    septum: tuple[float, float, float]


def place(cavity: Cavity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return origin and scale (voxels) of a cavity's coordinates: the middle of its widest part, its top."""
    upper = np.flatnonzero(cavity.mask.any((0, 1)))
    top = float(upper[-1])
    slab = cavity.mask[:, :, max(0, int(top) - 90) : int(top) + 1]
    spans = []
    for axis in (0, 1):
        counts = slab.sum(tuple({0, 1, 2} - {axis}))
        kept = np.flatnonzero(counts > 60)
        spans.append((float(kept[0]), float(kept[-1])))
    width, length = ((high - low) / 2 for low, high in spans)
    middle = np.array([sum(spans[0]) / 2, sum(spans[1]) / 2, top])
    return middle, np.array([width, length, width])


def description(models_dir: Path) -> dict[str, Any]:
    """Read model.toml of head-ct.

    Raises:
        NotMeasurable: It is not installed.
    """
    try:
        return tomllib.loads((models_dir / NAME / "model.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise refuse(
            RefusalCode.NO_MODEL, f"The model {NAME} is not installed", f"Install it in {NAME}/ of the models."
        ) from error


def content(models_dir: Path, file: str, sha256: str) -> bytes:
    """Read a file of head-ct.

    Raises:
        NotMeasurable: It is not there, or is not the one that model.toml names.
    """
    try:
        found = (models_dir / NAME / file).read_bytes()
    except OSError as error:
        raise refuse(RefusalCode.NO_MODEL, f"{file} of {NAME} is not installed", "Install the model again.") from error
    if hashlib.sha256(found).hexdigest() != sha256:
        raise refuse(
            RefusalCode.NO_MODEL, f"{file} of {NAME} is not the one that its model.toml names (sha256 differs)",
            "Install the model again.",
        )  # fmt: skip
    return found


def load(models_dir: Path) -> Atlas:
    """Read the atlas of the model head-ct.

    Raises:
        NotMeasurable: It is not installed, or its file is not the one that model.toml names.
    """
    told = description(models_dir)
    grid, weights = told["grid"], told["weights"]
    return Atlas(
        load_tensors(content(models_dir, weights["file"], weights["sha256"]))["chances"],
        cast("tuple[float, float, float]", tuple(grid["low"])), float(grid["step"]),
        cast("tuple[float, float, float]", tuple(grid["septum"])), str(told["name"]), str(told["version"]), weights["sha256"],
    )  # fmt: skip
