"""A head CT, read: haemorrhage, midline shift, ventricles. Start here; pure, from voxels to numbers.

The way: a grid of 1 mm (work.py), the cavity of the skull (cavity.py), where things usually lie (atlas.py), blood by trees (candidates.py,
trees.py, blood.py), ventricles and shift by rules (ventricles.py). What it cannot do stands in models/head-ct/card.md. It never says that a
head is normal.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.ct import atlas, blood, cavity, midline, tissue, trees, ventricles
from arcuate.imaging.ct.work import Work, prepared, rules
from arcuate.imaging.pipelines import Volume

BLOOD, VENTRICLES = 1, 2


@dataclass(frozen=True)
class HeadCt:
    """What was read.

    blood_ml: all haemorrhage found; 0 means that none was found, not that there is none. shift_mm: of the septum pellucidum, to the
    patient's right positive; None where it was not found. evans: None likewise. ventricle_ml: lateral and third ventricles.
    labels (x, y, z) on `work`: 0, BLOOD, VENTRICLES. warnings: what makes it less sure, in words.
    """

    work: Work
    labels: NDArray[np.uint8]
    blood_ml: float
    blood_parts: tuple[float, ...]
    dense_ml: float
    shift_mm: float | None
    ventricle_ml: float | None
    evans: float | None
    cavity_ml: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What the model head-ct knows: where things usually lie, and the trees that tell blood."""

    atlas: atlas.Atlas
    trees: trees.Trees

    @property
    def sha256(self) -> str:
        """Of everything that the reading knows, for passports."""
        return hashlib.sha256(f"{self.atlas.sha256}{self.trees.sha256}".encode()).hexdigest()


def load(models_dir: Path) -> Known:
    """Read the model.

    Raises:
        NotMeasurable: It is not installed, or its files are not those that model.toml names.
    """
    return Known(atlas.load(models_dir), trees.load(models_dir))


def read(volume: Volume, known: Known) -> HeadCt:
    """Read a head CT in HU.

    Raises:
        NotMeasurable: No whole skull, or sizes that no head has.
    """
    work = prepared(volume)
    room = cavity.find(work)
    chances = known.atlas.on(room)
    seen = tissue.tissue(work, room)
    bled = blood.find(work, room, chances, seen, known.trees)
    room = midline.refined(room, seen)
    spaces = ventricles.find(work, room, chances, seen, bled.mask)
    labels = np.zeros(room.mask.shape, np.uint8)
    labels[spaces.mask] = VENTRICLES
    labels[bled.mask] = BLOOD
    told = rules()["ventricles"]
    sized = told["low"] <= spaces.ml <= told["high"]
    return HeadCt(
        work, labels, round(bled.ml, 2), bled.parts, round(bled.dense_ml, 2), spaces.shift_mm if sized else None,
        round(spaces.ml, 2) if sized else None, spaces.evans if sized else None, round(room.ml, 1),
        tuple(_warnings(work, room, bled, sized)),
    )  # fmt: skip


def _warnings(work: Work, room: cavity.Cavity, bled: blood.Blood, sized: bool) -> list[str]:
    told = []
    if room.bridged:
        told.append("Part of the skull is missing; it was bridged, and the volumes beside it are less sure.")
    if work.slice_mm > 3:
        told.append(f"Slices of {work.slice_mm:.1f} mm: blood thinner than a slice is missed.")
    if bled.dense_ml > 2:
        told.append(
            f"{bled.dense_ml:.1f} ml inside the skull are denser than blood (lime, metal, contrast agent) and were left out."
        )
    if not sized:
        told.append(
            "The ventricles were not found: too small, filled, or pushed away. No index and no shift are given."
        )
    return told
