"""Nearest cases: which measured studies of this site, and which label maps of the training, have a brain most like this one.

Likeness is that of proportions alone: the logarithm of each structure's share of all of them, in units of how much that share
varies between the training's maps. It tells nothing of texture, lesions or disease, and it explains no value. Pure but for the
table: training_maps.csv holds volumes in mL counted in the 18 label maps that brain-t1 was trained on (SynthSeg project,
`data/training_label_maps`, Apache-2.0; `python -m arcuate.imaging.nearest FOLDER` counts them again).
"""

import csv
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import stdev
from typing import Any

import nibabel
import numpy as np

from arcuate.imaging import structures

TABLE = "training_maps.csv"
HELD_OUT = 2  # the last maps were kept out of the training (inference/training/train.py)
CAVEAT = (
    "Near in the proportions of structures, not in looks or disease. It explains no value; and the map of doubt, as any saliency map, "
    "shows where, not why."
)
_TOLD = 3

Volumes = Mapping[str, float]
Shares = Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """A brain to compare with. key: the map's name, or the study's id in the record."""

    key: str
    volumes: Volumes


@dataclass(frozen=True)
class Near:
    """One of the nearest. distance: in standard deviations between the training's maps; differs: what is most unlike, in per cent here
    against there, the most unlike first."""

    key: str
    distance: float
    differs: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Nearest:
    """The nearest maps and studies. limit: the largest distance from a map of the training to its nearest fellow."""

    training: tuple[Near, ...]
    site: tuple[Near, ...]
    limit: float

    @property
    def far(self) -> bool:
        """Whether the brain lies farther from everything trained on than those lie from each other."""
        return self.training[0].distance > self.limit


@cache
def training() -> tuple[Case, ...]:
    """Return the maps that the network was trained on."""
    rows = csv.DictReader(files("arcuate.imaging").joinpath(TABLE).read_text("utf-8").splitlines())
    return tuple(Case(row.pop("map"), {code: float(ml) for code, ml in row.items()}) for row in rows)


def codes() -> tuple[str, ...]:
    """Return the structures that are compared, whole (both sides together)."""
    return tuple(training()[0].volumes)


def find(mine: Volumes, site: Iterable[Case], most: int = _TOLD) -> Nearest | None:
    """Return the nearest maps and studies; None where a structure has no volume here. Studies that lack one are left out."""
    here, maps = _shares(mine), training()
    if here is None:
        return None
    known = [(case, shares) for case in maps if (shares := _shares(case.volumes)) is not None]
    spread = {code: stdev(shares[code] for _, shares in known) for code in codes()}
    others = [(case, shares) for case in site if (shares := _shares(case.volumes)) is not None]

    def ranked(cases: Sequence[tuple[Case, Shares]]) -> tuple[Near, ...]:
        made = [Near(case.key, _distance(here, there, spread), _differs(here, there, spread)) for case, there in cases]
        return tuple(sorted(made, key=lambda near: (near.distance, near.key))[:most])

    limit = max(min(_distance(a, b, spread) for other, b in known if other is not case) for case, a in known)
    return Nearest(ranked(known), ranked(others), limit)


def _shares(volumes: Volumes) -> Shares | None:
    """Return the logarithm of each structure's share of all that are compared; None where one is missing."""
    if any(volumes.get(code, 0.0) <= 0 for code in codes()):
        return None
    whole = sum(volumes[code] for code in codes())
    return {code: math.log(volumes[code] / whole) for code in codes()}


def _distance(a: Shares, b: Shares, spread: Volumes) -> float:
    return math.sqrt(sum(((a[code] - b[code]) / spread[code]) ** 2 for code in codes()) / len(codes()))


def _differs(a: Shares, b: Shares, spread: Volumes) -> tuple[tuple[str, float], ...]:
    most = sorted(codes(), key=lambda code: (-abs(a[code] - b[code]) / spread[code], code))[:2]
    return tuple((code, 100 * (math.exp(a[code] - b[code]) - 1)) for code in most)


def volumes_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the whole volumes (mL) of a measurement as the room keeps it."""
    return {v["structure"]: float(v["ml"]) for v in summary.get("volumes") or () if v["side"] in (None, "bilateral")}


def told(found: Nearest) -> dict[str, Any]:
    """Return the nearest cases as JSON."""
    names = {p.structure: p.name for p in structures.parts()}

    def one(near: Near) -> dict[str, Any]:
        unlike = [{"structure": code, "name": names[code], "percent": round(percent)} for code, percent in near.differs]
        return {"key": near.key, "distance": round(near.distance, 2), "differs": unlike}

    return {
        "training": [one(near) for near in found.training],
        "site": [one(near) for near in found.site],
        "limit": round(found.limit, 2),
        "far": found.far,
        "caveat": CAVEAT,
        "structures": len(codes()),
    }


def count(folder: Path) -> str:
    """Return the table: volumes in mL of each label map of a folder but those held out of the training."""
    parts = {code: [p for p in structures.parts() if p.structure == code and p.side != "bilateral"] for code in codes()}
    lines = [",".join(("map", *codes()))]
    for path in sorted(folder.glob("*.nii.gz"))[:-HELD_OUT]:
        image: Any = nibabel.load(path)
        voxels = np.bincount(np.asarray(image.dataobj).astype(np.int64).ravel(), minlength=256)
        ml = abs(float(np.linalg.det(image.affine[:3, :3]))) / 1000
        sums = (sum(int(voxels[n]) for p in parts[code] for n in p.labels) * ml for code in codes())
        lines.append(",".join((path.name.removesuffix(".nii.gz"), *(f"{value:.3f}" for value in sums))))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(count(Path(sys.argv[1])) + "\n")
