"""From labels at 1 mm to volumes in mL, and whether they can be those of a brain: refusals, structures left out, warnings.

The limits stand in segmentation.toml, the structures and their FreeSurfer numbers in structures.toml.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import quality as judging
from arcuate.imaging import sampling
from arcuate.imaging.brain_finder import Brain
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.interval import Intervals
from arcuate.imaging.network import ModelUsed
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.quality import Fit, Signals
from arcuate.imaging.sampling import Frame
from arcuate.imaging.uncertainty import Uncertainty

COARSE_SPACING_MM = 3.5
CSF = 24
STRUCTURES = Path(__file__).with_name("structures.toml")


@dataclass(frozen=True)
class StructureVolume:
    """ml of one structure and side, counted from labels at 1 mm. side: "left", "right" or "" (both, or unpaired)."""

    code: str
    side: str
    ml: float


@dataclass(frozen=True)
class Quality:
    """What is known about how far the answer can be trusted.

    brain_ml: all structures without outer fluid. touches_edge: the brain reaches the edge of the field of view (or the
    volume was cropped to it). stripped: the skull had been taken off. warnings: sentences for people. signals, score: see
    quality.py; no score where the model has no fit.
    """

    brain_ml: float
    touches_edge: bool
    stripped: bool
    warnings: tuple[str, ...]
    signals: Signals
    score: float | None = None


@dataclass(frozen=True)
class Segmentation:
    """labels (i, j, k) uint8 on the volume's own grid, FreeSurfer numbers; volumes by structure and side.

    not_measured: structure code -> why it has no volume here. uncertainty: on the same grid as the labels.
    """

    labels: NDArray[np.uint8]
    volumes: tuple[StructureVolume, ...]
    not_measured: Mapping[str, str]
    quality: Quality
    models: tuple[ModelUsed, ...]
    uncertainty: Uncertainty

    def ml(self, code: str, side: str = "") -> float | None:
        """The volume of a structure, or None where it was not measured."""
        return next((v.ml for v in self.volumes if (v.code, v.side) == (code, side)), None)


@dataclass(frozen=True)
class Labelled:
    """labels at 1 mm (x, y, z), FreeSurfer numbers; origin: the work coordinate of voxel 0; doubt on the labels' grid."""

    labels: NDArray[np.uint8]
    origin: NDArray[np.float64]
    doubt: Uncertainty
    turned_over: bool
    certainty: float
    flips: float


@dataclass(frozen=True)
class Checked:
    """What heads of known labels say of a model: of the quality of an answer, and how far its volumes may be off."""

    fit: Fit | None
    intervals: Intervals | None


def measure(
    volume: Volume,
    frame: Frame,
    labelled: Labelled,
    brain: Brain,
    rules: Mapping[str, Any],
    used: tuple[ModelUsed, ...],
    checked: Checked,
) -> Segmentation:
    """Count the labels, judge the volumes and bring labels and doubt to the volume's own grid.

    Args:
        labelled: What the segmenter gave; brain: what the finder gave; rules: segmentation.toml.

    Raises:
        NotMeasurable: The volumes cannot be those of a brain.
    """
    origin, doubt = labelled.origin, labelled.doubt
    labels = _one_piece(labelled.labels)
    inside = sampling.inside(volume.data.shape, frame, origin, labels.shape)
    labels[~inside] = 0
    seen_alike = _seen_alike(brain, labels, origin)
    voxels = np.bincount(labels.ravel(), minlength=256) / 1000.0  # 1 mm voxels to ml
    brain_ml = float(voxels[1:].sum() - voxels[CSF])
    volumes = counted(voxels)
    absent = _without_intracranial(brain.stripped, labelled.turned_over)
    volumes = tuple(v for v in volumes if v.code not in absent)
    _judge(volumes, brain_ml, rules)
    pairs = _pairs(volumes)
    volumes, doubtful, numbers = _without_doubtful(volumes, rules)
    labels[np.isin(labels, numbers)] = 0
    extent = volume.data.shape
    shown = sampling.native(extent, frame, labels, origin)
    touches = _touches(labels, inside) or _cut(shown, volume.affine)
    signals = Signals(
        labelled.certainty,
        labelled.flips,
        seen_alike,
        judging.symmetry(pairs),
        1 - len(doubtful) / len(rules["structure"]),
        judging.fineness(np.linalg.norm(volume.affine[:3, :3], axis=0)),
    )
    score = checked.fit.predicted(signals) if checked.fit else None
    poor = _poor(score, rules)
    quality = Quality(brain_ml, touches, brain.stripped, (*poor, *_warnings(volume, brain, touches)), signals, score)
    # Heads of known volumes were measured well: what they say holds of no poor measurement, and of no brain that is cut off.
    told = checked.intervals if not poor and not (touches and not brain.stripped) else None
    intervals = told.of((((v.code, v.side), v.ml) for v in volumes), volume.longest_mm) if told else {}
    seen = Uncertainty(sampling.native(extent, frame, doubt.entropy, origin), doubt.ranges, intervals)
    return Segmentation(shown, volumes, absent | doubtful, quality, used, seen)


def groups(classes: list[int]) -> Iterator[tuple[tuple[str, str], list[int]]]:
    """Yield structure and side with the network's classes that make it up."""
    for row in _structures():
        if row["code"] == "intracranial":
            yield (row["code"], ""), [k for k, label in enumerate(classes) if label]
            continue
        sides = {side: row[side] for side in ("left", "right") if side in row}
        whole = [n for numbers in sides.values() for n in numbers] + list(row.get("middle", []))
        for side, numbers in (*sides.items(), ("", whole)):
            yield (row["code"], side), [k for k, label in enumerate(classes) if label in numbers]


def _structures() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(STRUCTURES.read_text(encoding="utf-8"))["structure"]
    return [row for row in rows if "pipeline" not in row]  # what other pipelines measure is none of this one's


def _box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds all of a mask, and `margin` voxels round it where there are any."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not spans[0].size:
        return (slice(0, 0),) * 3
    return tuple(
        slice(max(0, int(s[0]) - margin), min(n, int(s[-1]) + 1 + margin))
        for s, n in zip(spans, mask.shape, strict=True)
    )


def _one_piece(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without islands apart from the largest connected piece of everything labelled."""
    box = _box(labels > 0)
    numbered, count = ndimage.label(labels[box])
    if count > 1:
        largest = int(np.bincount(numbered.ravel())[1:].argmax()) + 1
        labels = labels.copy()
        labels[box][numbered != largest] = 0
    return labels


def _seen_alike(brain: Brain, labels: NDArray[np.uint8], origin: NDArray[np.float64]) -> float:
    """Dice of the labelled brain and the finder's, on the finder's grid."""
    found = np.zeros(brain.mask.shape, np.bool_)
    places = [
        np.round(brain.start[a] + (np.arange(n) + 0.5) * brain.step - origin[a]).astype(int)
        for a, n in enumerate(brain.mask.shape)
    ]
    kept = [np.flatnonzero((at >= 0) & (at < n)) for at, n in zip(places, labels.shape, strict=True)]
    there = labels[np.ix_(*(at[inner] for at, inner in zip(places, kept, strict=True)))]
    found[np.ix_(*kept)] = (there > 0) & (there != CSF)
    return judging.overlap(found, brain.mask)


def _pairs(volumes: tuple[StructureVolume, ...]) -> list[tuple[float, float]]:
    by_key = {(v.code, v.side): v.ml for v in volumes}
    return [(ml, by_key[code, "right"]) for (code, side), ml in by_key.items() if side == "left"]


def _poor(score: float | None, rules: Mapping[str, Any]) -> tuple[str, ...]:
    if score is None or score >= rules["quality"]["warned_below"]:
        return ()
    return (f"The quality of the measurement is only {score:.2f} of 1: small structures are likely to be wrong.",)


def _touches(labels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> bool:
    """Whether at least 2 cm2 of the brain lie at the edge of the field of view."""
    brain = (labels > 0) & (labels != CSF)
    box = _box(brain, margin=1)
    at_edge = any(b.start == 0 or b.stop == n for b, n in zip(box, labels.shape, strict=True))
    if not at_edge and inside[box].all():
        return False
    near = brain[box] & ~ndimage.binary_erosion(inside[box], border_value=False)
    return int(near.sum()) > 200


def _cut(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> bool:
    """Whether at least 2 cm2 of the brain lie in the outermost voxels of the scan: of a thick slice the last mm may hold none."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    area = 0.0
    for axis in range(3):
        faces = labels.take([0, -1], axis)
        area += float(((faces > 0) & (faces != CSF)).sum() * np.delete(spacing, axis).prod())
    return area > 200


def counted(ml: NDArray[np.float64]) -> tuple[StructureVolume, ...]:
    """Return the volume of each structure and side, from mL by FreeSurfer number (256)."""
    found: list[StructureVolume] = []
    for row in _structures():
        code = row["code"]
        if code == "intracranial":
            found.append(StructureVolume(code, "", round(float(ml[1:].sum()), 3)))
            continue
        sides = {side: float(ml[row[side]].sum()) for side in ("left", "right") if side in row}
        found.extend(StructureVolume(code, side, round(one, 3)) for side, one in sides.items())
        total = sum(sides.values()) + float(ml[row.get("middle", [])].sum())
        found.append(StructureVolume(code, "", round(total, 3)))
    return tuple(found)


def _without_intracranial(stripped: bool, turned_over: bool) -> dict[str, str]:
    """Why intracranial volume cannot be measured here, if it cannot."""
    if stripped:
        return {"intracranial": "The skull and the fluid round the brain had been taken off before."}
    if turned_over:
        return {"intracranial": "The network was given the brain alone, with dark and bright exchanged."}
    return {}


def _judge(volumes: tuple[StructureVolume, ...], brain_ml: float, rules: Mapping[str, Any]) -> None:
    by_key = {(v.code, v.side): v.ml for v in volumes}
    ranges = [("brain", brain_ml, rules["brain"])]
    if ("intracranial", "") in by_key:
        ranges.append(("intracranial volume", by_key["intracranial", ""], rules["intracranial"]))
    ranges += [(rule["code"], by_key[rule["code"], ""], rule) for rule in rules["essential"]]
    for name, ml, limits in ranges:
        if not limits["low"] <= ml <= limits["high"]:
            raise _implausible(f"{name} of {ml:.0f} ml (plausible: {limits['low']:g} to {limits['high']:g} ml)")
    for code in rules["sides"]["codes"]:
        sides = sorted((by_key[code, "left"], by_key[code, "right"]))
        if sides[1] > rules["sides"]["ratio"] * max(sides[0], 1e-3):
            raise _implausible(f"{code} with {sides[0]:.0f} ml on one side and {sides[1]:.0f} ml on the other")


def _without_doubtful(
    volumes: tuple[StructureVolume, ...], rules: Mapping[str, Any]
) -> tuple[tuple[StructureVolume, ...], dict[str, str], list[int]]:
    """Volumes without structures outside their range, why those are not measured, and their label numbers."""
    limits = {rule["code"]: rule for rule in rules["structure"]}
    rows = {row["code"]: row for row in _structures()}
    doubtful: dict[str, str] = {}
    for volume in volumes:
        paired = "left" in rows[volume.code]
        if volume.code not in limits or (paired and not volume.side):
            continue
        low, high = limits[volume.code]["low"], limits[volume.code]["high"]
        if not low <= volume.ml <= high:
            doubtful[volume.code] = (
                f"The network gave {volume.ml:.1f} ml{f' on the {volume.side}' if volume.side else ''}, "
                f"outside what is plausible ({low:g} to {high:g} ml)."
            )
    numbers = [n for code in doubtful for part in ("left", "right", "middle") for n in rows[code].get(part, [])]
    return tuple(v for v in volumes if v.code not in doubtful), doubtful, numbers


def _implausible(what: str) -> Exception:
    return refuse(
        RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the measurement gave a {what}",
        "Check that the series is an MR of a whole adult head; do not use volumes of this series.",
    )  # fmt: skip


def _warnings(volume: Volume, brain: Brain, touches: bool) -> tuple[str, ...]:
    told = []
    if volume.longest_mm > COARSE_SPACING_MM:
        told.append(f"Voxels are {volume.longest_mm:.1f} mm long: volumes of small structures are not reliable.")
    if touches and not brain.stripped:
        told.append("The brain reaches the edge of the field of view: volumes may be too small.")
    if brain.stripped:
        told.append("The skull had been taken off: intracranial volume is not measured.")
    return tuple(told)
