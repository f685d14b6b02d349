"""What lesions are painted by: each label map's tissues in the lesion network's terms, and distances that say where one may lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from arcuate.inference.training.labels import LabelScheme
from arcuate.inference.training.lesion_network import CLASSES
from arcuate.inference.training.maps import PreparedMap

FORMAT = 1
QUARTER_MM = 4.0  # distances are kept in quarters of a millimetre, at most 63 mm
SPOTS = 3000
NEAR_MM = 20.0  # half of the windows lie round white matter near the ventricles, where most lesions are

VENTRICLES = {4, 5, 43, 44, 136, 137, 163, 164}
LATERAL_BODY = {4, 43, 136, 163}
FLUIDS = {14, 15, 24, 72, 212}
CORTEX = {3, 42}
WHITE = {2, 41, 25, 57, 30, 62}
LESION = {25, 57}
DEEP_GREY = {10, 11, 12, 13, 17, 18, 26, 28, 49, 50, 51, 52, 53, 54, 58, 60}
INFRATENTORIAL = {7, 8, 16, 46, 47}
INFRATENTORIAL_WHITE = {7, 16, 46}
_CLASS_SETS = {
    "ventricle": VENTRICLES, "fluid": FLUIDS, "cortex": CORTEX, "white": WHITE, "deep_grey": DEEP_GREY,
    "infratentorial": INFRATENTORIAL,
}  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Beside a PreparedMap, on its voxels: (x, y, z) bytes of quarters of a millimetre to the lateral ventricles and to cortex;
    spots (n, 3): some voxels of white matter, above and below the tentorium; volumes: ml of brain and ventricles by source index."""

    held: PreparedMap
    to_ventricle: Tensor
    to_cortex: Tensor
    spots: Tensor
    volumes: Tensor


def table_of(scheme: LabelScheme, labels: set[int]) -> Tensor:
    """Which source indices are among these labels, as a table of booleans."""
    return torch.tensor([int(label) in labels for label in scheme.source])


def class_table(scheme: LabelScheme) -> Tensor:
    """Source index -> class of the lesion network, lesions of the map as white matter."""
    table = torch.zeros(len(scheme.source), dtype=torch.long)
    for name, labels in _CLASS_SETS.items():
        table[table_of(scheme, labels)] = CLASSES.index(name)
    return table


def places(held: PreparedMap, cache: Path, scheme: LabelScheme) -> Places:
    """Distances of one map; slow the first time (about five seconds), from `cache` afterwards."""
    cache.mkdir(parents=True, exist_ok=True)
    cached = cache / f"{held.name}.lesions.{FORMAT}.npz"
    if not cached.exists():
        index = held.index.numpy()
        part = cached.with_suffix(".part.npz")
        ventricle = _distance(index, table_of(scheme, LATERAL_BODY).numpy())
        np.savez_compressed(part, ventricle=ventricle, cortex=_distance(index, table_of(scheme, CORTEX).numpy()))
        part.replace(cached)
    with np.load(cached) as kept:
        white = table_of(scheme, WHITE | INFRATENTORIAL_WHITE)[held.index.long()]
        near = white & (torch.from_numpy(kept["ventricle"]) < NEAR_MM * QUARTER_MM)
        spots = torch.cat([_some(white), _some(near)])
        counts = torch.bincount(held.index.reshape(-1).long(), minlength=len(scheme.source)) / 1000
        of_class = class_table(scheme)
        volumes = torch.where((of_class > 0) & (of_class != CLASSES.index("fluid")), counts, 0.0)
        return Places(held, torch.from_numpy(kept["ventricle"]), torch.from_numpy(kept["cortex"]), spots, volumes)


def _some(mask: Tensor) -> Tensor:
    places = mask.nonzero()
    return places[:: max(1, len(places) // SPOTS)][:SPOTS]


def _distance(index: NDArray[np.int32], table: NDArray[np.bool_]) -> NDArray[np.uint8]:
    found = np.full(index.shape, 255, np.uint8)
    brain = index > 0
    mask = table[index]
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not mask.any():
        return found
    box = tuple(
        slice(max(0, int(span[0]) - 60), min(n, int(span[-1]) + 60)) for span, n in zip(spans, index.shape, strict=True)
    )
    mm = ndimage.distance_transform_edt(~mask[box])
    found[box] = np.clip(np.round(mm * QUARTER_MM), 0, 255).astype(np.uint8)
    return np.where(brain, found, 255).astype(np.uint8)
