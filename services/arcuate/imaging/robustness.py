"""How a measurement of the brain bears what happens to scans: the same real head turned, resampled, noisy, uneven, thick, inverted, mirrored.

Each copy takes the whole way of a NIfTI file (`contrast.py`), so that the choice of the network is tried too. Scores choose
nothing: they are written into the model card.
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
from scipy.stats import spearmanr

from arcuate.imaging import contrast, evaluation, quality, structures
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.pipelines import Infer, Scan, Volume
from arcuate.imaging.quality import Signals
from arcuate.imaging.segmentation import segment
from arcuate.imaging.volumetry import Segmentation
from arcuate.kernel.errors import BadInput

MARK = "robust"
PLAIN, MIRRORED, AGAIN = "plain", "mirrored", "again"
_NEXT_TO = 0.10  # Dice of a mirrored head's labels, turned back, below which sides would have been mixed
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Copy:
    """A degraded copy of a scan, and the manual labels on its grid (None where left and right are exchanged)."""

    name: str
    volume: Volume
    manual: Labels


@dataclass(frozen=True)
class Trial:
    """What came of one copy of one scan.

    Attributes:
        volumes: Structure and side to mL; empty where the copy was refused.
        alike: Dice by side with the labels of the plain scan, where the grids are the same.
        model, refused: Which network measured; why it was refused, or nothing.
    """

    subject: str
    copy: str
    volumes: dict[tuple[str, str], float]
    dice: float | None
    quality: float | None
    alike: float | None
    model: str = ""
    refused: str = ""


def copies(volume: Volume, manual: Labels) -> list[Copy]:
    """Return the copies of one scan; the same each time."""
    data, affine = volume.data, volume.affine
    random = np.random.default_rng(4)
    body = data > data.min()
    top = float(np.quantile(data[body], 0.99))
    noise = (0.05 * top * random.standard_normal(data.shape)).astype(np.float32)
    axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in data.shape]
    field = np.exp(0.3 * axes[0][:, None, None] * axes[2][None, None, :] + 0.25 * axes[1][None, :, None])
    inverted = np.where(body, top * 1.05 - np.minimum(data, top * 1.05) + 0.05 * top, 0).astype(np.float32)
    return [
        Copy(PLAIN, volume, manual),
        Copy("turned 10 degrees", *_turned(volume, manual)),
        _resampled(volume, manual, (1.25, 1.25, 1.25), "resampled to 1.25 mm"),
        _resampled(volume, manual, (0.8, 1.1, 1.4), "resampled to 0.8 x 1.1 x 1.4 mm"),
        Copy("noise 5 %", Volume(np.maximum(data + noise * body, 0), affine), manual),
        Copy("uneven field", Volume((data * field).astype(np.float32), affine), manual),
        Copy("slices of 5 mm", *in_thick_slices(volume, manual)),
        Copy("inverted inside the brain", Volume(inverted, affine), manual),
        Copy(MIRRORED, Volume(np.ascontiguousarray(data[::-1]), affine), manual[::-1]),
        Copy(AGAIN, volume, manual),
    ]


def _turned(volume: Volume, manual: Labels) -> tuple[Volume, Labels]:
    """The head turned by 10 degrees about an oblique axis through the middle of the volume, on the same grid."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    axis = np.array([1.0, 0.5, 0.8]) / np.linalg.norm([1.0, 0.5, 0.8])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.radians(10)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix = np.diag(1 / spacing) @ turn @ np.diag(spacing)
    middle = (np.array(manual.shape) - 1) / 2
    offset = middle - matrix @ middle
    data = ndimage.affine_transform(volume.data, matrix, offset, output=np.float32, order=3, cval=0)
    labels = ndimage.affine_transform(manual, matrix, offset, output=np.int32, order=0, cval=0)
    return Volume(np.maximum(data, volume.data.min()), volume.affine), labels


def _resampled(volume: Volume, manual: Labels, spacing: tuple[float, float, float], name: str) -> Copy:
    old = np.linalg.norm(volume.affine[:3, :3], axis=0)
    step = np.array(spacing) / old
    shape = tuple(int(n) for n in np.ceil(np.array(volume.data.shape) / step))
    affine = volume.affine.copy()
    affine[:3, :3] = affine[:3, :3] * step
    data = ndimage.affine_transform(volume.data, np.diag(step), output_shape=shape, order=1, cval=0)
    labels = ndimage.affine_transform(manual, np.diag(step), output_shape=shape, order=0, cval=0)
    return Copy(name, Volume(data, affine), labels)


def in_thick_slices(volume: Volume, manual: Labels) -> tuple[Volume, Labels]:
    """Return means of about 5 mm along the axis nearest to the body's long one; labels are those of the slice in the middle."""
    axis = int(np.abs(volume.affine[2, :3]).argmax())
    factor = round(5 / float(np.linalg.norm(volume.affine[:3, axis]))) | 1  # odd: there is a slice in the middle
    n = volume.data.shape[axis] // factor
    moved = np.moveaxis(volume.data, axis, 0)[: n * factor]
    means = moved.reshape(n, factor, *moved.shape[1:]).mean(1, dtype=np.float32)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (factor - 1) / 2
    affine[:3, axis] *= factor
    labels = np.moveaxis(np.moveaxis(manual, axis, 0)[factor // 2 : n * factor : factor], 0, axis)
    return Volume(np.ascontiguousarray(np.moveaxis(means, 0, axis)), affine), labels


async def tried(
    data: Path, infer: Infer, models_dir: Path, role: str | None, say: Callable[[str], None]
) -> list[Trial]:
    """Measure every copy of every scan of a folder (see `evaluation.evaluate`).

    Args:
        role: None lets the picture choose the network, as for a file; else the one that is used.

    Raises:
        BadInput: No scans with manual labels.
    """
    scans = sorted(data.glob("*_T1w*.nii.gz"))
    if not scans:
        raise BadInput("No scans with manual labels here", where=str(data), todo="Name a folder of *_T1w*.nii.gz.")
    found: list[Trial] = []
    for path in scans:
        image = cast("SpatialImage", nibabel.load(path))
        affine = np.asarray(image.affine, np.float64)
        subject = path.name.split("_T1w")[0]
        manual = np.asarray(cast("SpatialImage", nibabel.load(path.with_name(f"{subject}_dseg.nii.gz"))).dataobj)
        scorer = _Scorer(data, subject)
        plain: Segmentation | None = None
        for copy in copies(Volume(np.asarray(image.dataobj, np.float32), affine), manual.astype(np.int32)):
            try:
                if role is None:
                    made, way = await contrast.labelled(Scan(None, copy.volume), infer, models_dir)
                else:
                    made, way = await segment(copy.volume, infer, models_dir, role), role
            except NotMeasurable as error:
                found.append(Trial(subject, copy.name, {}, None, None, None, refused=error.refusal.what))
                say(f"{subject}, {copy.name}: refused: {error.refusal.what}")
                continue
            plain = plain or made
            found.append(_trial(subject, copy, made, plain, scorer, way))
            say(f"{subject}, {copy.name}: Dice {found[-1].dice}, quality {found[-1].quality}; {way}")
    return found


class _Scorer:
    """Dice by side against manual labels, as the evaluation reckons it."""

    def __init__(self, data: Path, subject: str) -> None:
        schemes = next(folder for folder in (data / "schemes", data.parent / "schemes") if folder.is_dir())
        self._reference = evaluation.read_scheme(schemes / "neuromorphometrics.csv")
        self._found = evaluation.read_scheme(schemes / "freesurfer.csv")
        self._counted = evaluation.counted(schemes)
        self._subject = subject

    def dice(self, found: Labels, manual: Labels) -> float:
        scores = evaluation.compare(self._subject, found, self._found, manual, self._reference, self._counted, 0.001)
        return round(evaluation.mean_dice(scores), 3)


def _trial(subject: str, copy: Copy, made: Segmentation, plain: Segmentation, scorer: _Scorer, way: str) -> Trial:
    volumes = {(v.code, v.side): v.ml for v in made.volumes}
    if copy.name == MIRRORED:
        # What the affine calls left is the person's right: turned back, with the sides exchanged, it must be the plain scan's.
        turned = _sides_exchanged(made.labels[::-1])
        alike: float | None = mean_dice(turned, plain.labels)
        dice = scorer.dice(turned, copy.manual[::-1])
        other = {"left": "right", "right": "left", "": ""}
        volumes = {(code, other[side]): ml for (code, side), ml in volumes.items()}
    else:
        same = made.labels.shape == plain.labels.shape and copy.name == AGAIN
        alike = float(np.array_equal(made.labels, plain.labels)) if same else None
        dice = scorer.dice(made.labels, copy.manual)
    return Trial(subject, copy.name, volumes, dice, made.quality.score, alike, way.split(",", maxsplit=1)[0])


def _sides_exchanged(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.arange(256, dtype=np.uint8)
    for part in structures.parts():
        if part.side == "left":
            right = next(p for p in structures.parts() if p.structure == part.structure and p.side == "right")
            for left_number, right_number in zip(part.labels, right.labels, strict=True):
                table[left_number], table[right_number] = right_number, left_number
    return table[labels]


def mean_dice(found: Labels, truth: Labels) -> float:
    """Return the mean Dice by side over the structures that are measured and that the truth holds."""
    counts = [np.bincount(labels.ravel(), minlength=256) for labels in (found, truth, found[found == truth])]
    dices = []
    for part in structures.parts():
        if part.labels and part.side != "bilateral" and part.own_segment and max(part.labels) < 256:
            here = list(part.labels)
            in_truth = int(counts[1][here].sum())
            if in_truth:
                dices.append(2 * int(counts[2][here].sum()) / (in_truth + int(counts[0][here].sum())))
    return float(np.mean(dices)) if dices else 0.0


def held_apart(found: Sequence[tuple[str, Signals, float]]) -> tuple[float, float]:
    """Return rank correlation and mean error of predictions for each group by a fit on the others."""
    predicted, true = [], []
    for name in dict.fromkeys(which for which, _, _ in found):
        rest = [(s, d) for which, s, d in found if which != name]
        if not rest:
            return 0.0, 1.0
        fit = quality.Fit("", *quality.fitted([s for s, _ in rest], [d for _, d in rest]))
        for which, signals, dice in found:
            if which == name:
                predicted.append(fit.predicted(signals))
                true.append(dice)
    return float(spearmanr(predicted, true).statistic), float(np.abs(np.array(predicted) - true).mean())


def table(trials: Sequence[Trial]) -> str:
    """Return change of volume against the plain scan in % (mean of the absolute over scans, a column a copy) as Markdown."""
    names = [n for n in dict.fromkeys(t.copy for t in trials) if n not in (PLAIN, AGAIN)]
    by = {(t.subject, t.copy): t for t in trials}
    subjects = sorted({t.subject for t in trials})
    lines = [f"| structure | side | mL | {' | '.join(names)} |", "|---|---|---:|" + "---:|" * len(names)]
    keys = dict.fromkeys(key for t in trials if t.copy == PLAIN for key in t.volumes)
    for code, side in keys:
        if side == "" and (code, "left") in keys:
            continue
        sizes = [by[s, PLAIN].volumes.get((code, side)) for s in subjects if (s, PLAIN) in by]
        known = [ml for ml in sizes if ml]
        cells = [_change([by[s, PLAIN] for s in subjects], [by[s, n] for s in subjects], (code, side)) for n in names]
        lines.append(f"| {code} | {side} | {np.mean(known):.1f} | {' | '.join(cells)} |")
    rows: Sequence[tuple[str, Callable[[Sequence[Trial]], str]]] = (
        ("mean Dice by side", lambda ts: _mean([t.dice for t in ts])),
        ("quality", lambda ts: _mean([t.quality for t in ts])),
        ("refused", lambda ts: f"{sum(bool(t.refused) for t in ts)} of {len(ts)}"),
        ("network", lambda ts: ", ".join(sorted({t.model for t in ts if t.model})) or "-"),
    )
    for title, cell in rows:
        plain = cell([by[s, PLAIN] for s in subjects])
        cells = [cell([by[s, n] for s in subjects]) for n in names]
        lines.append(f"| **{title}** | | {plain} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_said(trials)])


def _change(plain: Sequence[Trial], copy: Sequence[Trial], key: tuple[str, str]) -> str:
    changes = [
        100 * abs(c.volumes[key] - p.volumes[key]) / p.volumes[key]
        for p, c in zip(plain, copy, strict=True)
        if p.volumes.get(key) and key in c.volumes
    ]
    return f"{np.mean(changes):.1f}" if changes else "-"


def _mean(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{np.mean(known):.3f}" if known else "-"


def _said(trials: Sequence[Trial]) -> list[str]:
    """Sentences below the table: refusals, mirrored heads, the same image twice, how well quality ranks."""
    tries = [t for t in trials if t.copy != AGAIN]
    refused = [t for t in tries if t.refused]
    told = [f"Refused: {len(refused)} of {len(tries)} copies."]
    told += [f"- {t.subject}, {t.copy}: {t.refused}" for t in refused]
    mirrored = [t.alike for t in trials if t.copy == MIRRORED and t.alike is not None]
    if mirrored:
        told.append(
            f"A mirrored head comes out mirrored: turned back with the sides exchanged, its labels agree with the plain scan's "
            f"with a Dice by side of {min(mirrored):.3f} or more."
            if min(mirrored) > 1 - _NEXT_TO
            else f"A mirrored head does not come out as a clean mirror image: Dice by side {min(mirrored):.3f} at least."
        )
    again = [t.alike for t in trials if t.copy == AGAIN and t.alike is not None]
    told.append(f"The same image twice: identical labels in {sum(a == 1 for a in again)} of {len(again)} scans.")
    pairs = [(t.quality, t.dice) for t in tries if t.quality is not None and t.dice is not None]
    if len(pairs) > 3:
        rank = float(spearmanr([q for q, _ in pairs], [d for _, d in pairs]).statistic)
        error = float(np.mean([abs(q - d) for q, d in pairs]))
        told.append(
            f"Quality against the true Dice over {len(pairs)} measured copies: rank correlation {rank:.2f}, "
            f"mean difference {error:.3f} (the labelling protocols differ, so the true Dice is lower)."
        )
    return told
