"""Weights of the classes of a network, so that the volumes it gives come out true where the truth is known.

A loss that makes up for how small a structure is leaves small structures too large, and the brightness at 1 mm (refining.py) moves borders
again. What both leave is measured on synthetic heads of known volumes, the whole way, and taken out here: each class's probability is
multiplied by its weight before the most probable one is chosen, where brightness says something. (Elsewhere borders lie as the network draws
them, and the same weights made labels worse: mean Dice 0.836 -> 0.831 on 14 synthetic heads.)

Kept as data beside the model (`balance.toml`); heads of the training maps make it, those of the held-out maps say what it is worth.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.network import Network
from arcuate.imaging.sampling import Floats

FILE = "balance.toml"
STRIDE = 2.0
"""A weight is multiplied by so high a power of true to found volume in one round: only voxels at a border change sides."""
FURTHEST = 0.3  # of the logarithm of a volume, in one round
BOUNDS = (0.25, 4.0)
ENOUGH_VOXELS = 20
"""A head with less of a class says nothing of it."""


def load(models_dir: Path, model: Network) -> Floats:
    """Return a weight for each class of a network; 1 for each where it has none, or where they were made for other weights of it."""
    path = models_dir / model.used.name / FILE
    even = np.ones(len(model.classes), np.float32)
    if not path.is_file():
        return even
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    if told["model_version"] != model.used.version:
        return even
    return np.array([told["weights"].get(str(label), 1.0) for label in model.classes], np.float32)


def off(found: NDArray[np.float64], true: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much each class is too large: the mean over heads of the logarithm of found to true volume.

    Args:
        found, true: Voxels (head, class). A class that no head has enough of is 0.
    """
    known = true >= ENOUGH_VOXELS
    apart = np.where(known, np.log((found + 1) / (true + 1)), 0.0)
    return np.asarray(apart.sum(0) / np.maximum(known.sum(0), 1))


def nearer(weights: Floats, apart: NDArray[np.float64], mirrored: NDArray[np.int64]) -> Floats:
    """Return weights that bring volumes nearer to the true ones: those of the background stay 1, left and right have one.

    Args:
        apart: As `off` gives it; mirrored: the class that each becomes in the mirror.
    """
    both = (apart + apart[mirrored]) / 2
    made = weights * np.exp(-STRIDE * np.clip(both, -FURTHEST, FURTHEST))
    return np.clip(made / made[0], *BOUNDS).astype(np.float32)


def written(told: Mapping[str, Any], weights: Floats, classes: NDArray[np.int64], names: Mapping[int, str]) -> str:
    """Return the text of `balance.toml`."""
    lines = [
        "# What each class's probability is multiplied by before the most probable one is taken (imaging/balance.py)."
    ]
    lines += [
        "# Written by `arcuate evaluate NAME --balance --from LABELMAPS`. A new one makes other volumes: count up `revision` of"
    ]
    lines += ["# imaging/segmentation.toml with it. Keys are FreeSurfer numbers."]
    lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in told.items()]
    lines += ["", "[weights]"]
    lines += [f"{label} = {weight:.3f} # {names[int(label)]}" for label, weight in zip(classes, weights, strict=True)]
    return "\n".join(lines) + "\n"
