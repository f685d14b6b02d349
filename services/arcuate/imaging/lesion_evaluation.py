"""How good wm-lesions is on scans whose lesions people drew: the whole shipped pipeline, with and without T1, thin and thick slices.

A data folder holds CASE_FLAIR.nii.gz with CASE_lesions.nii.gz and, where there is one, CASE_T1w.nii.gz; and pairs
CASE_time1_FLAIR, CASE_time2_FLAIR with CASE_change.nii.gz (lesions that are new or grew). Scores are never used to choose a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging.lesion_change import Reading, compare
from arcuate.imaging.lesion_places import CONNECTED
from arcuate.imaging.lesions import brain_mask, find
from arcuate.imaging.pipelines import Infer, Volume, named
from arcuate.kernel.errors import BadInput

PIPELINE = "wm-lesions"
COUNTED_VOXELS = 3
BLOCK_MM = 16.0
DRAWS = 1000
THICK_MM = 5.0
Mask = NDArray[np.bool_]
Interval = tuple[float, float]


@dataclass(frozen=True)
class LesionScore:
    """One scan. counts: reference lesions, found ones, missed ones, false ones (26-connected, any overlap is a find).

    The intervals (95 %) come from drawing blocks of the scan again: they say how far the figure hangs on single lesions, not how
    other people's scans will come out.
    """

    case: str
    how: str
    dice: float
    dice_interval: Interval
    reference_ml: float
    found_ml: float
    error_interval: Interval
    counts: tuple[int, int, int, int]

    @property
    def error(self) -> float:
        """Load error in per cent."""
        return 100 * (self.found_ml - self.reference_ml) / self.reference_ml


async def evaluate(data: Path, infer: Infer, models_dir: Path, say: Callable[[str], None]) -> list[LesionScore]:
    """Measure every case of the folder.

    Raises:
        BadInput: It holds none.
    """
    cases = sorted(p for p in data.glob("*_FLAIR.nii.gz") if _beside(p, "lesions").exists())
    pairs = sorted(p for p in data.glob("*_time1_FLAIR.nii.gz") if _other(p, "change").exists())
    if not cases and not pairs:
        raise BadInput(
            "No FLAIR with drawn lesions here",
            where=str(data),
            todo="Put CASE_FLAIR.nii.gz and CASE_lesions.nii.gz there.",
        )
    scores: list[LesionScore] = []
    models = named(PIPELINE).models
    for path in cases:
        flair, wanted = _volume(path), _volume(_beside(path, "lesions")).data > 0
        t1 = _volume(_beside(path, "T1w")) if _beside(path, "T1w").exists() else None
        runs: list[tuple[str, Volume, Volume | None, Mask]] = [("FLAIR and T1", flair, t1, wanted)] if t1 else []
        runs += [("FLAIR alone", flair, None, wanted), (f"FLAIR alone, {THICK_MM:g} mm slices", *_thick(flair, wanted))]
        for how, scan, beside, drawn in runs:
            found = await find(scan, beside, infer, models_dir, models)
            scores.append(score(path.name.removesuffix("_FLAIR.nii.gz"), how, found.mask, drawn, scan.affine))
            say(row(scores[-1]))
    for path in pairs:
        scores.append(await _pair(path, infer, models_dir))
        say(row(scores[-1]))
    return scores


def score(case: str, how: str, found: Mask, drawn: Mask, affine: NDArray[np.float64]) -> LesionScore:
    """Compare two masks on one grid."""
    ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
    both, mine, theirs = (_blocks(mask, affine) for mask in (found & drawn, found, drawn))
    used = (mine + theirs) > 0
    both, mine, theirs = both[used], mine[used], theirs[used]
    drawn_again = np.random.default_rng(1).integers(0, max(1, len(mine)), (DRAWS, max(1, len(mine))))
    a, b, c = (values[drawn_again].sum(1) if len(values) else np.zeros(DRAWS) for values in (both, mine, theirs))
    dices, errors = 2 * a / np.maximum(b + c, 1), 100 * (b - c) / np.maximum(c, 1)
    dice = 2 * float((found & drawn).sum()) / max(1.0, float(found.sum() + drawn.sum()))
    return LesionScore(
        case,
        how,
        dice,
        _middle(dices),
        float(drawn.sum()) * ml,
        float(found.sum()) * ml,
        _middle(errors),
        _counts(found, drawn),
    )


def table(scores: Sequence[LesionScore]) -> str:
    """The scores as Markdown."""
    lines = [
        "| case | how | Dice (95 %) | load drawn, mL | load found, mL | load error % (95 %) | lesions drawn | found | missed | false |",
        "|---|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(row(s) for s in scores)])


def row(s: LesionScore) -> str:
    """One line of the table."""
    drawn, hit, missed, false = s.counts
    return (
        f"| {s.case} | {s.how} | {s.dice:.3f} ({s.dice_interval[0]:.2f} to {s.dice_interval[1]:.2f}) | {s.reference_ml:.1f} | "
        f"{s.found_ml:.1f} | {s.error:+.0f} ({s.error_interval[0]:+.0f} to {s.error_interval[1]:+.0f}) | {drawn} | {hit} | {missed} | {false} |"
    )


async def _pair(path: Path, infer: Infer, models_dir: Path) -> LesionScore:
    models = named(PIPELINE).models
    before, now = _volume(path), _volume(Path(str(path).replace("_time1_", "_time2_")))
    found = [await find(scan, None, infer, models_dir, models) for scan in (before, now)]
    readings = [Reading(scan, one.mask, one.model) for scan, one in zip((before, now), found, strict=True)]
    change = compare(readings[0], readings[1], await brain_mask(now, infer, models_dir, models))
    drawn = _volume(_other(path, "change")).data > 0
    return score(path.name.split("_time1_")[0], "new and grown lesions of two dates", change.grown, drawn, now.affine)


def _thick(flair: Volume, drawn: Mask) -> tuple[Volume, None, Mask]:
    """Slices of THICK_MM along the axis nearest to the world's third: means of thin ones; a voxel is lesion where half of it is."""
    axis = int(np.abs(flair.affine[2, :3]).argmax())
    factor = max(1, round(THICK_MM / float(np.linalg.norm(flair.affine[:3, axis]))))
    n = flair.data.shape[axis] // factor

    def means(values: NDArray[Any]) -> NDArray[np.float32]:
        kept = values.take(range(n * factor), axis)
        shape = (*kept.shape[:axis], n, factor, *kept.shape[axis + 1 :])
        return kept.reshape(shape).mean(axis + 1, dtype=np.float32)

    affine = flair.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    return Volume(means(flair.data), affine), None, means(drawn) >= 0.5


def _counts(found: Mask, drawn: Mask) -> tuple[int, int, int, int]:
    theirs, mine = (_pieces(mask) for mask in (drawn, found))
    hit = len(theirs[1] & set(np.unique(theirs[0][found]).tolist()))
    false = len(mine[1] - set(np.unique(mine[0][drawn]).tolist()))
    return len(theirs[1]), hit, len(theirs[1]) - hit, false


def _pieces(mask: Mask) -> tuple[NDArray[np.int32], set[int]]:
    numbered, count = ndimage.label(mask, CONNECTED)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)
    return np.asarray(numbered, np.int32), {k for k in range(1, count + 1) if sizes[k] >= COUNTED_VOXELS}


def _blocks(mask: Mask, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxels of the mask in each block of about BLOCK_MM."""
    size = np.maximum(1, np.round(BLOCK_MM / np.linalg.norm(affine[:3, :3], axis=0))).astype(int)
    cells = np.array(mask.shape) // size + 1
    places = np.argwhere(mask) // size
    return np.bincount(np.ravel_multi_index(tuple(places.T), tuple(cells)), minlength=int(cells.prod())).astype(
        np.float64
    )


def _middle(values: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name.removesuffix('_FLAIR.nii.gz')}_{what}.nii.gz")


def _other(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name.split('_time1_')[0]}_{what}.nii.gz")


def _volume(path: Path) -> Volume:
    image = cast("SpatialImage", nibabel.load(path))
    return Volume(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, np.float64))
