"""Trees that say of each candidate how likely it is blood: a first look at each voxel alone, a second at what the first said round it.

Grown on synthetic heads by tree_training.py; the second look is the auto-context of Z. Tu, X. Bai, "Auto-context and its application to
high-level vision tasks", IEEE PAMI 32, 2010.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.ct.atlas import NAME, content, description
from arcuate.imaging.ct.candidates import FEATURES, Candidates
from arcuate.imaging.ct.work import Mask
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.sampling import Floats

FILES = ("blood-first.ubj", "blood-second.ubj")
CONTEXT = (
    "chance", "chance_1", "chance_2", "chance_4", "chance_8", "part_mean", "part_size", "part_thick", "part_chance", "largest_share",
)  # fmt: skip
LIKELY = 0.3  # a first chance from which on voxels make a part
NEAR = 4.0  # mm: a candidate so near to a part is told of it
_THREADS = 2


@dataclass(frozen=True)
class Trees:
    """first: columns FEATURES. second: FEATURES and CONTEXT. sha256: of both files, for passports."""

    first: xgb.Booster
    second: xgb.Booster
    sha256: str

    def chances(self, found: Candidates) -> Floats:
        """The share of blood (0 to 1) to expect in each candidate, in their order."""
        if not found.mask.any():
            return np.zeros(0, np.float32)
        once = np.asarray(self.first.inplace_predict(found.features), np.float32)
        both = np.concatenate([found.features, context(found.mask, once, found.features[:, 0])], 1)
        return np.asarray(self.second.inplace_predict(both), np.float32)


def load(models_dir: Path) -> Trees:
    """Read the trees of the model head-ct.

    Raises:
        NotMeasurable: They are not installed, are not those that model.toml names, or suit another version.
    """
    told = description(models_dir).get("trees", {})
    return read({file: content(models_dir, file, told.get(file.removesuffix(".ubj"), "")) for file in FILES})


def read(contents: Mapping[str, bytes]) -> Trees:
    """Make the trees of their files' contents, by the names of `FILES`.

    Raises:
        NotMeasurable: They were grown for other columns than FEATURES and CONTEXT.
    """
    first, second = (_booster(contents[file]) for file in FILES)
    if first.feature_names != [*FEATURES] or second.feature_names != [*FEATURES, *CONTEXT]:
        raise refuse(
            RefusalCode.NO_MODEL, f"The trees of {NAME} were grown for other columns than this version describes voxels by",
            "Install the model of this version.",
        )  # fmt: skip
    return Trees(first, second, hashlib.sha256(b"".join(contents[file] for file in FILES)).hexdigest())


def _booster(raw: bytes) -> xgb.Booster:
    made = xgb.Booster({"nthread": _THREADS})
    made.load_model(bytearray(raw))
    return made


def context(mask: Mask, chance: Floats, dense: Floats) -> Floats:
    """Describe what a first look said round each candidate.

    Args:
        chance: Of blood, for each voxel of `mask` in its order.
        dense: HU above the brain of the same voxels.

    Returns:
        A row for each candidate, a column for each of CONTEXT.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    at = np.nonzero(mask[box])
    image, hu = np.zeros(mask[box].shape, np.float32), np.zeros(mask[box].shape, np.float32)
    image[at], hu[at] = chance, dense
    round_it = [ndimage.gaussian_filter(image, wide, truncate=3)[at] for wide in (1.0, 2.0, 4.0, 8.0)]
    return np.stack([np.asarray(c, np.float32) for c in (chance, *round_it, *_parts(image, hu, at))], 1)


def _parts(image: Floats, hu: Floats, at: tuple[NDArray[np.intp], ...]) -> list[NDArray[np.floating]]:
    """Of the likely part to which a voxel belongs, or that lies nearest: mean HU, size, thickness, mean chance, share of the largest."""
    likely = image > LIKELY
    numbered, count = ndimage.label(likely)
    if not count:
        return [np.zeros(len(at[0]))] * 5
    away, nearest = ndimage.distance_transform_edt(~likely, return_indices=True)
    owner = np.where(away <= NEAR, numbered[tuple(nearest)], 0)[at]
    sizes = np.maximum(np.bincount(numbered.ravel(), minlength=count + 1), 1)
    sums = np.bincount(numbered.ravel(), weights=image.ravel(), minlength=count + 1)
    means = np.bincount(numbered.ravel(), weights=hu.ravel(), minlength=count + 1) / sizes
    distance = ndimage.distance_transform_edt(likely)
    thick = np.append(0.0, ndimage.maximum(distance, numbered, np.arange(1, count + 1)))
    sums[0] = means[0] = 0.0  # of no part
    shares = sums / max(float(sums.max()), 1.0)
    return [column[owner] for column in (means, np.log1p(sums), thick, sums / sizes, shares)]
