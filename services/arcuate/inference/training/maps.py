"""Label maps, prepared once into a cache folder: indices and unlabelled grey matter at 1 mm, distance to the brain at 2 mm, its centre."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import nibabel
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from arcuate.inference.training import unlabelled
from arcuate.inference.training.labels import LabelScheme

CACHE_FORMAT = 2


@dataclass(frozen=True)
class PreparedMap:
    """One label map in RAS at 1 mm; every side even.

    index (x, y, z) int32: source indices of labels.LabelScheme. distance (x/2, y/2, z/2) float32: mm to the surface of
    the brain (ventricles included, outer CSF not), negative inside, at the centres of 2x2x2 blocks. centre: voxel
    coordinates of the middle of the brain's bounding box. unlabelled (x, y, z) uint8: places of unlabelled.py.
    """

    name: str
    index: Tensor
    distance: Tensor
    centre: tuple[float, float, float]
    unlabelled: Tensor


def prepare(folder: Path, cache: Path, scheme: LabelScheme) -> list[PreparedMap]:
    """All *.nii.gz of `folder`, in the order of their names; slow the first time, from `cache` afterwards."""
    cache.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob("*.nii.gz"))
    if not found:
        raise FileNotFoundError(f"no label maps (*.nii.gz) in {folder}: give the folder with --labelmaps")
    return [_one(path, cache / f"{path.name}.{CACHE_FORMAT}.npz", scheme) for path in found]


def _one(path: Path, cached: Path, scheme: LabelScheme) -> PreparedMap:
    if not cached.exists():
        image = cast("SpatialImage", nibabel.as_closest_canonical(nibabel.load(path)))
        found = np.asarray(image.dataobj).astype(np.uint8)
        found = np.pad(found, [(0, side % 2) for side in found.shape])
        index = scheme.index_table()[found]
        distance, centre = _brain(index, scheme)
        part = cached.with_suffix(".part.npz")
        np.savez_compressed(part, index=index, distance=distance, centre=centre, unlabelled=unlabelled.places(found))
        part.replace(cached)
    with np.load(cached) as held:
        return PreparedMap(
            name=path.name.removesuffix(".nii.gz"),
            index=torch.from_numpy(held["index"].astype(np.int32)),
            distance=torch.from_numpy(held["distance"].astype(np.float32)),
            centre=cast("tuple[float, float, float]", tuple(float(c) for c in held["centre"])),
            unlabelled=torch.from_numpy(held["unlabelled"]),
        )


def _brain(index: NDArray[np.uint8], scheme: LabelScheme) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
    trained = np.array(scheme.classes)[scheme.class_of]
    of_brain = (trained > 0) & (trained != 24)
    mask = of_brain[index]
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    centre = np.array([(span[0] + span[-1]) / 2 for span in spans])
    halved = mask.reshape(mask.shape[0] // 2, 2, mask.shape[1] // 2, 2, mask.shape[2] // 2, 2).mean((1, 3, 5)) >= 0.5
    outside = ndimage.distance_transform_edt(~halved) * 2.0
    inside = ndimage.distance_transform_edt(halved) * 2.0
    return (outside - inside).astype(np.float16), centre
