"""Making the atlas of head-ct from labelled heads: chances in coordinates of the cavity, smoothed for shifts and other heads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import ndimage

from arcuate.imaging.ct.atlas import CHANNELS, NAME, Atlas, place
from arcuate.imaging.ct.cavity import Cavity, plane_of
from arcuate.imaging.ct.work import Mask

LOW, STEP, SHAPE = (-1.1, -1.1, -0.1), 0.05, (45, 45, 48)
_BLUR = (1.6, 1.0, 1.0)  # steps of the grid: wider sideways, since a midline can be pushed


@dataclass(frozen=True)
class Sample:
    """A labelled head at 1 mm: cavity, masks of the channels (`CHANNELS`), the septum's place (voxels)."""

    name: str
    cavity: Mask
    channels: Mapping[str, Mask]
    septum: tuple[float, float, float]


def learn(samples: Iterable[Sample]) -> tuple[NDArray[np.uint8], tuple[float, float, float], list[str]]:
    """Return the chances (channel, x, y, z) of 255, where the septum is expected, and the names of the heads."""
    total = np.zeros((len(CHANNELS), *SHAPE))
    seen = np.zeros(SHAPE)
    septa, names = [], []
    for sample in samples:
        cavity = Cavity(sample.cavity, np.zeros(0, np.float32), plane_of(sample.cavity), False)
        middle, scale = place(cavity)
        places = np.argwhere(sample.cavity)
        x = places[:, 0] - cavity.midline(places[:, 1], places[:, 2])
        at = np.stack([x / scale[0], (places[:, 1] - middle[1]) / scale[1], (middle[2] - places[:, 2]) / scale[2]], 1)
        cell = np.clip(np.rint((at - LOW) / STEP).astype(int), 0, np.array(SHAPE) - 1)
        flat = np.ravel_multi_index(tuple(cell.T), SHAPE)
        count = np.prod(SHAPE, dtype=int)
        seen += np.bincount(flat, minlength=count).reshape(SHAPE)
        for k, channel in enumerate(CHANNELS):
            inside = sample.channels[channel][tuple(places.T)]
            total[k] += np.bincount(flat[inside], minlength=count).reshape(SHAPE)
        sx, sy, sz = sample.septum
        septa.append(
            (
                (sx - cavity.midline(np.array(sy), np.array(sz))) / scale[0],
                (sy - middle[1]) / scale[1],
                (middle[2] - sz) / scale[2],
            )
        )
        names.append(sample.name)
    mirrored = total + total[:, ::-1]  # left and right are given the same chances
    both = seen + seen[::-1]
    blurred = np.stack([ndimage.gaussian_filter(c, _BLUR) for c in mirrored])
    chance = blurred / np.maximum(ndimage.gaussian_filter(both, _BLUR), 1e-3)
    _, y, z = np.median(np.array(septa, np.float64), 0)
    return np.clip(np.rint(255 * chance), 0, 255).astype(np.uint8), (0.0, float(y), float(z)), names


@dataclass(frozen=True)
class Learnt:
    """An atlas that was made: the content of weights.safetensors, where the septum is expected, and from how many heads."""

    content: bytes
    septum: tuple[float, float, float]
    heads: int

    def atlas(self, version: str) -> Atlas:
        """The atlas itself."""
        sha256 = hashlib.sha256(self.content).hexdigest()
        return Atlas(load_tensors(self.content)["chances"], LOW, STEP, self.septum, NAME, version, sha256)


def made(samples: Iterable[Sample]) -> Learnt:
    """Make an atlas."""
    chances, septum, names = learn(samples)
    x, y, z = (round(v, 4) for v in septum)
    return Learnt(save_tensors({"chances": np.ascontiguousarray(chances)}), (x, y, z), len(names))


def write(models_dir: Path, learnt: Learnt, trees: Mapping[str, bytes], scans: int, version: str, today: date) -> Path:
    """Write weights.safetensors, the trees (file name to content, grown from so many scans) and model.toml of head-ct; returns the folder."""
    folder = models_dir / NAME
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in trees.items()}
    for name, content in (("weights.safetensors", learnt.content), *trees.items()):
        (folder / name).write_bytes(content)
    (folder / "model.toml").write_text(
        _DESCRIPTION.format(
            version=version, heads=learnt.heads, scans=scans, exported=today.isoformat(), low=list(LOW), step=STEP,
            septum=list(learnt.septum), sha256=hashlib.sha256(learnt.content).hexdigest(),
            trees="\n".join(f'{name.removesuffix(".ubj")} = "{sha256}"' for name, sha256 in hashes.items()),
        ),
        encoding="utf-8",
    )  # fmt: skip
    return folder


_DESCRIPTION = """# Written by `arcuate train head-ct`; read card.md for how good it is, on what, and what it must not be used for.
name = "head-ct"
version = "{version}"
task = "Haemorrhage volume, midline shift, ventricles and Evans index on a head CT without contrast agent"
population = "Adults; grown from {scans} synthetic scans of {heads} heads, measured on synthetic CT only; not validated on patients"
licence = "Apache-2.0"
kind = "blood by boosted trees on Hounsfield units, the rest by rules (imaging/ct/measure.toml) with an atlas; no network"
shadow = true
exported = "{exported}"

[grid]
# chances of ventricle, other fluid, vein (first axis), of 255, in coordinates of the cranial cavity (imaging/ct/atlas.py)
low = {low}
step = {step}
septum = {septum}

[weights]
file = "weights.safetensors"
sha256 = "{sha256}"

[trees]
# sha256 of each file NAME.ubj
{trees}
"""
