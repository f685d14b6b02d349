"""How good a segmenter is on scans with manual labels: the whole shipped pipeline, Dice by structure and side.

A data folder holds pairs SUBJECT_T1w*.nii.gz and SUBJECT_dseg.nii.gz; the label schemes (label, name, structure, side)
are CSV files in its folder `schemes`, or in the one beside it. Scores are never used to choose a model.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from arcuate.imaging.pipelines import Infer, Volume
from arcuate.imaging.segmentation import segment
from arcuate.kernel.errors import BadInput

Key = tuple[str, str]  # structure, side

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Score:
    """Agreement of one structure and side in one scan.

    in_mean: it counts for the mean (structures.csv). interval: the one that goes with the found volume, mL.
    """

    subject: str
    structure: str
    side: str
    dice: float
    reference_ml: float
    found_ml: float
    in_mean: bool
    interval: tuple[float, float] | None = None


async def evaluate(
    data: Path,
    infer: Infer,
    models_dir: Path,
    say: Callable[[str], None],
    scheme: str = "neuromorphometrics",
    role: str = "segmenter",
) -> list[Score]:
    """Segments every scan of the folder and compares it, side by side, with its manual labels.

    Raises:
        BadInput: The folder lacks scans, labels or schemes.
    """
    schemes = next((folder for folder in (data / "schemes", data.parent / "schemes") if folder.is_dir()), None)
    pairs = sorted((path, _reference(path)) for path in data.glob("*_T1w*.nii.gz"))
    if schemes is None or not pairs:
        raise BadInput(
            "No scans with manual labels and label schemes here", where=str(data),
            todo="The folder needs *_T1w*.nii.gz, *_dseg.nii.gz and schemes/*.csv inside or beside it.",
        )  # fmt: skip
    reference_table, found_table = read_scheme(schemes / f"{scheme}.csv"), read_scheme(schemes / "freesurfer.csv")
    in_mean = counted(schemes)
    scores: list[Score] = []
    for scan, manual in pairs:
        image = cast("SpatialImage", nibabel.load(scan))
        affine = cast("NDArray[np.float64]", np.asarray(image.affine, np.float64))
        made = await segment(Volume(np.asarray(image.dataobj, np.float32), affine), infer, models_dir, role)
        labels = np.asarray(cast("SpatialImage", nibabel.load(manual)).dataobj).astype(np.int64)
        if labels.shape != made.labels.shape:
            raise BadInput("Scan and manual labels have different grids", where=manual.name)
        voxel_ml = float(abs(np.linalg.det(affine[:3, :3]))) / 1000
        subject = scan.name.split("_T1w")[0]
        new = [
            replace(score, interval=made.uncertainty.intervals.get((score.structure, score.side)))
            for score in compare(subject, made.labels, found_table, labels, reference_table, in_mean, voxel_ml)
        ]
        say(f"{subject}: mean Dice {mean_dice(new):.3f}")
        scores += new
    return scores


def counted(schemes: Path) -> set[str]:
    """Structures that enter the mean, by the table of a folder of schemes."""
    return {row["structure"] for row in _rows(schemes / "structures.csv") if row["in_mean"] == "1"}


def compare(
    subject: str,
    found: NDArray[Any],
    found_table: Mapping[int, Key],
    reference: NDArray[Any],
    reference_table: Mapping[int, Key],
    counted: set[str],
    voxel_ml: float,
) -> list[Score]:
    """Dice of every structure and side that the reference has and the scheme of the answer knows."""
    keys = sorted(set(reference_table.values()) & set(found_table.values()))
    a, b = _coded(reference, reference_table, keys), _coded(found, found_table, keys)
    size = len(keys) + 1
    in_a, in_b = np.bincount(a.ravel(), minlength=size), np.bincount(b.ravel(), minlength=size)
    both = np.bincount(a[a == b], minlength=size)
    return [
        Score(
            subject, structure, side, 2 * float(both[k]) / float(in_a[k] + in_b[k]),
            float(in_a[k]) * voxel_ml, float(in_b[k]) * voxel_ml, structure in counted,
        )
        for k, (structure, side) in enumerate(keys, 1)
        if in_a[k] > 0
    ]  # fmt: skip


def mean_dice(scores: Sequence[Score]) -> float:
    """Mean over the structures that count, each scan and side alike."""
    return float(np.mean([s.dice for s in scores if s.in_mean]))


def read_scheme(path: Path) -> dict[int, Key]:
    """Label -> structure and side of a scheme; labels without a structure are left out."""
    return {int(row["label"]): (row["structure"], row["side"]) for row in _rows(path) if row["structure"]}


def table(scores: Sequence[Score]) -> str:
    """Dice and signed volume error of each structure and side, a column a scan, as Markdown."""
    subjects = sorted({s.subject for s in scores})
    by_key = {(s.structure, s.side, s.subject): s for s in scores}
    lines = [
        f"| structure | side | {' | '.join(f'Dice {subject}' for subject in subjects)} | mean Dice | mean volume error % |",
        "|---|---|" + "---:|" * (len(subjects) + 2),
    ]
    for structure, side in dict.fromkeys((s.structure, s.side) for s in scores):
        row = [by_key[structure, side, subject] for subject in subjects if (structure, side, subject) in by_key]
        error = float(np.mean([100 * (s.found_ml - s.reference_ml) / s.reference_ml for s in row]))
        cells = [f"{s.dice:.3f}" for s in row]
        mark = "" if row[0].in_mean else " (not in the mean)"
        mean = float(np.mean([s.dice for s in row]))
        lines.append(f"| {structure}{mark} | {side} | {' | '.join(cells)} | {mean:.3f} | {error:+.0f} |")
    means = [f"**{mean_dice([s for s in scores if s.subject == subject]):.3f}**" for subject in subjects]
    lines.append(f"| **mean of those counted** | by side | {' | '.join(means)} | **{mean_dice(scores):.3f}** | |")
    known = [(s.reference_ml, s.interval) for s in scores if s.interval is not None]
    if known:
        inside = sum(low <= drawn <= high for drawn, (low, high) in known)
        lines += [
            "",
            f"{inside} of {len(known)} drawn volumes lie in the interval given with the found one: it was made on synthetic heads.",
        ]
    return "\n".join(lines)


def write_card(card: Path, scores: Sequence[Score], version: str, command: str) -> None:
    """Puts the table between the marks of a model card, in place of the one before."""
    put_table(card, table(scores), version, f"`{command}` (ONNX Runtime engine, whole pipeline, sides scored apart)")


def put_table(card: Path, made: str, version: str, how: str, mark: str = "measured") -> None:
    """Puts any table between the marks of that name in a model card, in place of the one before."""
    begin, end = (f"<!-- {mark}: {where} -->" for where in ("begin", "end"))
    text = card.read_text(encoding="utf-8")
    told = f"{begin}\nVersion {version}, measured on {datetime.now(UTC):%Y-%m-%d} with {how}.\n\n{made}\n{end}"
    replaced, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda _: told, text, flags=re.S)
    card.write_text(replaced if count else f"{text.rstrip()}\n\n{told}\n", encoding="utf-8")


def _reference(scan: Path) -> Path:
    path = scan.with_name(f"{scan.name.split('_T1w')[0]}_dseg.nii.gz")
    if not path.exists():
        raise BadInput("A scan has no manual labels", where=scan.name, todo=f"Put {path.name} beside it.")
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _coded(labels: NDArray[Any], scheme: Mapping[int, Key], keys: Sequence[Key]) -> NDArray[np.int64]:
    codes = np.zeros(max(int(labels.max()), *scheme) + 1, np.int64)
    for label, key in scheme.items():
        if key in keys:
            codes[label] = keys.index(key) + 1
    coded: NDArray[np.int64] = codes[labels]
    return coded
