"""Grey matter without a label of its own: where it lies in a label map, and how bright a sample makes it (unlabelled.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

TABLE = Path(__file__).with_name("unlabelled.toml")
WHITE = (2, 41)
PATCHES = 4
"""Parts of a place that a sample gives a brightness of their own: real tissue is streaky."""
PATCH_MM = 3.0


@dataclass(frozen=True)
class Kind:
    """One sort of place: FreeSurfer numbers for left and right, distances in mm, the tissue that it resembles."""

    name: str
    near: tuple[tuple[int, ...], ...]
    and_near: tuple[tuple[int, ...], ...]
    within_mm: float
    like: str
    most: float


@cache
def load() -> tuple[Kind, ...]:
    """The places of unlabelled.toml, in order."""
    told = tomllib.loads(TABLE.read_text(encoding="utf-8"))["place"]
    sides = [[tuple(tuple(side) for side in row.get(key, [])) for key in ("near", "and_near")] for row in told]
    return tuple(
        Kind(row["name"], near, beside, float(row["within_mm"]), row["like"], float(row["most"]))
        for row, (near, beside) in zip(told, sides, strict=True)
    )


def places(labels: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """Number the places of a label map at 1 mm: 0 none, else 1 + kind * PATCHES + patch."""
    found = np.zeros(labels.shape, np.uint8)
    if not np.isin(labels, WHITE).any():
        return found
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(labels.shape, np.float32), PATCH_MM)
    edges = np.quantile(noise[::4, ::4, ::4], np.arange(1, PATCHES) / PATCHES)
    for number, kind in enumerate(load()):
        for side, white in enumerate(WHITE):
            near = _within(labels, kind.near[side], kind.within_mm)
            if kind.and_near:
                near &= _within(labels, kind.and_near[side], kind.within_mm)
            chosen = near & (labels == white) & (found == 0)
            found[chosen] = 1 + number * PATCHES + np.searchsorted(edges, noise[chosen])
    return found


def _within(labels: NDArray[np.uint8], wanted: tuple[int, ...], mm: float) -> NDArray[np.bool_]:
    there = np.isin(labels, wanted)
    near = np.zeros(labels.shape, np.bool_)
    margin = int(mm) + 2
    for spans in ndimage.find_objects(there.astype(np.uint8)):
        box = tuple(slice(max(0, span.start - margin), span.stop + margin) for span in spans)
        near[box] = ndimage.distance_transform_edt(~there[box]) <= mm
    return near
