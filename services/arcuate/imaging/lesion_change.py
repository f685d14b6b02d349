"""What changed between two FLAIRs of one person: new, enlarged and resolved lesions, beyond what measuring twice explains.

The earlier scan is brought onto the later one by a rigid registration. A lesion is new (or resolved) where the other date has
none within `border_mm`, and the place itself became brighter (or darker) than noise explains; it is enlarged where it grew by
more than the smallest lesion beyond that border. Everything else is within measurement error. Rules: lesions.toml, [change].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import lesions
from arcuate.imaging.comparison import WITHIN
from arcuate.imaging.derived import RESEARCH_USE, Model
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.lesion_places import CONNECTED
from arcuate.imaging.lesion_registration import Rigid, register, resampled
from arcuate.imaging.pipelines import Volume

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Reading:
    """What one date gave. mask (i, j, k): voxels of lesions on the FLAIR's own grid."""

    flair: Volume
    mask: Mask
    model: Model

    @property
    def ml(self) -> float:
        """All lesions together."""
        return float(self.mask.sum()) * float(abs(np.linalg.det(self.flair.affine[:3, :3]))) / 1000


class Kind(StrEnum):
    """What became of a lesion."""

    NEW = "new"
    ENLARGED = "enlarged"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Changed:
    """One lesion that changed. ml: of a new one all of it, of an enlarged one what grew, of a resolved one what there was.
    centre: RAS+ mm of the later scan; place: as of the lesion (of a resolved one, where it was)."""

    kind: Kind
    ml: float
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class Change:
    """Two dates compared. grown (i, j, k): voxels of the later scan that are new or grown lesion; gone: of resolved ones."""

    before_ml: float
    now_ml: float
    lesions: tuple[Changed, ...]
    grown: Mask
    gone: Mask
    rigid: Rigid

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(i, j, k) on the later FLAIR: 1 new or grown, 2 resolved."""
        return (self.grown + 2 * (self.gone & ~self.grown)).astype(np.uint8)

    def count(self, kind: Kind) -> int:
        """How many lesions of a kind."""
        return sum(lesion.kind is kind for lesion in self.lesions)

    @property
    def words(self) -> str:
        """The result as a sentence."""
        load = f"{self.before_ml:.2f} mL before, {self.now_ml:.2f} mL now"
        if not self.lesions:
            return f"Lesion load {load}: {WITHIN}. {RESEARCH_USE}; to be reviewed by a person."
        told = ", ".join(f"{self.count(kind)} {kind}" for kind in Kind)
        return (
            f"Lesion load {load}; lesions beyond measurement error: {told}. {RESEARCH_USE}; to be reviewed by a person."
        )

    def summary(self) -> dict[str, Any]:
        """The comparison as JSON."""
        return {
            "research_use": RESEARCH_USE,
            "words": self.words,
            "load_before_ml": round(self.before_ml, 3),
            "load_now_ml": round(self.now_ml, 3),
            "counts": {str(kind): self.count(kind) for kind in Kind},
            "lesions": [
                {"kind": str(one.kind), "ml": round(one.ml, 3), "centre_ras_mm": [round(c, 1) for c in one.centre]}
                for one in self.lesions
            ],
            "registration_correlation": round(self.rigid.correlation, 4),
        }


def compare(before: Reading, now: Reading, brain: Mask) -> Change:
    """Compare two dates.

    Args:
        brain: (i, j, k) on the later FLAIR (lesions.brain_mask): what the two are registered by.

    Raises:
        NotMeasurable: They are not by one model, or the scans do not fit on each other.
    """
    if before.model != now.model:
        raise refuse(
            RefusalCode.NOT_SUITED,
            "The two dates were measured by different models",
            "Measure both with the same model.",
        )
    rules = lesions.rules()["change"]
    rigid = register(now.flair, brain, before.flair)
    if rigid.correlation < rules["correlation"]:
        raise refuse(
            RefusalCode.NOT_SUITED,
            f"The two scans do not fit on each other (correlation {rigid.correlation:.2f})",
            "Check that both are FLAIRs of the same person.",
        )
    earlier = resampled(Volume(before.mask.astype(np.float32), before.flair.affine), now.flair, rigid) >= 0.5
    shown = resampled(before.flair, now.flair, rigid)
    difference, noise = _difference(now.flair, shown, brain, earlier | now.mask)
    return _judged(before.ml, now, earlier, difference / noise, rigid, rules)


def _judged(
    before_ml: float, now: Reading, earlier: Mask, brighter: NDArray[np.float32], rigid: Rigid, rules: Mapping[str, Any]
) -> Change:
    affine = now.flair.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    voxel_mm3, smallest = float(abs(np.linalg.det(affine[:3, :3]))), float(lesions.rules()["smallest_mm3"])
    near_earlier = _within(earlier, rules["border_mm"], spacing)
    near_now = _within(now.mask, rules["border_mm"], spacing)
    grown, gone = np.zeros_like(earlier), np.zeros_like(earlier)
    made: list[Changed] = []

    def add(kind: Kind, part: Mask, into: Mask) -> None:
        into |= part
        places = np.argwhere(part)
        x, y, z = (float(v) for v in places.mean(0) @ affine[:3, :3].T + affine[:3, 3])
        made.append(Changed(kind, len(places) * voxel_mm3 / 1000, (x, y, z)))

    numbered, count = ndimage.label(now.mask, CONNECTED)
    for number in range(1, count + 1):
        one = numbered == number
        kind = Kind.ENLARGED if (one & earlier).any() else Kind.NEW
        part = one & ~near_earlier if kind is Kind.ENLARGED or (one & near_earlier).any() else one
        if part.sum() * voxel_mm3 >= smallest and brighter[part].mean() >= rules["brightness"]:
            add(kind, part, grown)
    numbered, count = ndimage.label(earlier, CONNECTED)
    for number in range(1, count + 1):
        one = numbered == number
        if (one & near_now).any() or one.sum() * voxel_mm3 < smallest:
            continue
        if brighter[one].mean() <= -rules["brightness"]:
            add(Kind.RESOLVED, one, gone)
    made.sort(key=lambda lesion: (list(Kind).index(lesion.kind), -lesion.ml))
    return Change(before_ml, now.ml, tuple(made), grown, gone, rigid)


def _difference(
    now: Volume, before: NDArray[np.float32], brain: Mask, lesion: Mask
) -> tuple[NDArray[np.float32], float]:
    """The later scan less the earlier one, both in units of their brain's median and freed of slow drifts; and the robust
    spread of that difference in the brain outside lesions."""
    spacing = np.linalg.norm(now.affine[:3, :3], axis=0)
    plain = brain & ~lesion & (before > 0) & (now.data > 0)
    pair = [data / max(float(np.median(data[plain])), 1e-6) for data in (np.asarray(now.data, np.float32), before)]
    made = np.asarray(pair[0] - pair[1], np.float32)
    weight = plain.astype(np.float32)
    wide = 15.0 / spacing  # a coil's field changes over more than that
    drift = ndimage.gaussian_filter(made * weight, wide) / np.maximum(ndimage.gaussian_filter(weight, wide), 1e-3)
    made = ndimage.gaussian_filter(np.where(brain, made - drift, 0), 0.7 / spacing)
    values = made[plain]
    return made, max(float(1.4826 * np.median(np.abs(values - np.median(values)))), 1e-4)


def _within(mask: Mask, mm: float, spacing: NDArray[np.float64]) -> Mask:
    if not mask.any():
        return mask
    near: Mask = ndimage.distance_transform_edt(~mask, sampling=spacing) <= mm
    return near
