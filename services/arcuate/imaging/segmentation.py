"""From a volume to labelled structures: brain finder, then the segmenter, on grids made from the affine alone.

The networks know tensors only; everything they need to know of space happens here. Work is done in a frame of its own:
three axes to Right, Anterior and Superior, turned at most `MAX_TURN_DEGREES` so that they run along the voxel axes
(nothing is resampled twice), else along the world's axes. Labels come from probabilities that are averaged over the
volume and its mirror image and raised from 2 mm to 1 mm; volumes are counted from those labels at 1 mm.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import quality as judging
from arcuate.imaging import refining, sampling, uncertainty
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.pipelines import Infer, Volume, named
from arcuate.imaging.quality import Fit, Signals
from arcuate.imaging.sampling import Floats, Frame
from arcuate.imaging.uncertainty import Uncertainty

COARSE_SPACING_MM = 3.5
REFUSED_SPACING_MM = 8.0
CSF = 24
TURNED = " turned over"
"""What the version of a network ends with in a result, where dark and bright were exchanged for it."""
ROUND_BRAIN_MM = 5.0  # kept round the finder's brain when its contrast is turned over
PIPELINE = "brain-volumes"
RULES = Path(__file__).with_name("segmentation.toml")
STRUCTURES = Path(__file__).with_name("structures.toml")


@dataclass(frozen=True)
class StructureVolume:
    """ml of one structure and side, counted from labels at 1 mm. side: "left", "right" or "" (both, or unpaired)."""

    code: str
    side: str
    ml: float


@dataclass(frozen=True)
class ModelUsed:
    """Which network answered."""

    name: str
    version: str
    sha256: str


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
class Network:
    """What model.toml says that matters here. shape: voxels of the grid; swapped[k]: class k in the mirror."""

    used: ModelUsed
    shape: tuple[int, int, int]
    voxel_mm: float
    classes: NDArray[np.int64]
    swapped: NDArray[np.int64]


async def segment(
    volume: Volume, infer: Infer, models_dir: Path, role: str = "segmenter", turned_over: bool = False
) -> Segmentation:
    """Finds the brain, labels it and measures it.

    `infer` answers a model's named inputs with its named outputs (see oip_client.py); `role` says which network of
    pipelines.toml labels; `turned_over`: it is given the brain with dark and bright exchanged (see `_over`). Raises NotMeasurable, with the
    reason, for a volume that cannot be measured and for an answer that is not plausible; what `infer` raises passes
    through.
    """
    rules = tomllib.loads(RULES.read_text(encoding="utf-8"))
    models = named(PIPELINE).models
    finder, segmenter = (load_model(models_dir, models[role]) for role in ("finder", role))
    check(volume)
    frame = await asyncio.to_thread(sampling.working_frame, volume.affine)
    brain = await find_brain(volume, frame, infer, finder)
    labelled = await _label(volume, frame, brain, infer, segmenter, turned_over)
    # What it gives for a head turned over is another measurement: never compared with that of the same network on a T1.
    version = f"{segmenter.used.version}{TURNED if turned_over else ''}"
    used = (finder.used, replace(segmenter.used, version=version))
    fit = judging.load_fit(models_dir, segmenter.used.name)
    return await asyncio.to_thread(_measure, volume, frame, labelled, brain, rules, used, fit)


def check(volume: Volume, wanted: str = "3D T1-weighted series with voxels near 1 mm") -> None:
    """Refuse what is no scan of a whole brain; `wanted` is the series to use instead."""
    data, affine = volume.data, volume.affine
    if data.ndim != 3 or min(data.shape) < 2:
        raise refuse(RefusalCode.NOT_SUITED, f"This is no 3D volume: its shape is {data.shape}", "Send a 3D series.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise refuse(RefusalCode.ORIENTATION, "Voxel size or orientation is not known", "Send the original series.")
    low, high = float(data.min()), float(data.max())
    if not (np.isfinite(low) and np.isfinite(high)):  # a NaN anywhere makes both NaN
        share = 100 * (1 - np.isfinite(data).mean())
        raise refuse(
            RefusalCode.DAMAGED,
            f"{share:.1f} % of the voxels are not numbers",
            "Export the series again from its source.",
        )
    if high - low <= 0:
        raise refuse(RefusalCode.EMPTY, "The image is empty: all voxels have one value", "Send the original series.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.max() > REFUSED_SPACING_MM:
        raise refuse(
            RefusalCode.NOT_SUITED, f"The slices lie {spacing.max():.1f} mm apart: too far for volumes",
            f"Use a {wanted}.",
        )  # fmt: skip
    extent = spacing * data.shape
    if extent.min() < 60:
        raise refuse(
            RefusalCode.NOT_SUITED, f"The field of view is only {extent.min():.0f} mm wide in one direction",
            "Use a series that covers the whole brain.",
        )  # fmt: skip


def load_model(models_dir: Path, name: str) -> Network:
    """Read a network's description; refused where it is not installed."""
    path = models_dir / name / "model.toml"
    if not path.is_file():
        raise refuse(RefusalCode.NO_MODEL, f"The model {name} is not installed", f"Install it in {path.parent.name}/.")
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    x, y, z = told["inputs"][0]["shape"][2:]
    classes = np.array(told["grid"]["classes"])
    mirror = {int(a): int(b) for a, b in told["grid"].get("mirror", [])}
    mirror |= {b: a for a, b in mirror.items()}
    where = {int(label): k for k, label in enumerate(classes)}
    swapped = np.array([where[mirror.get(int(label), int(label))] for label in classes])
    used = ModelUsed(told["name"], told["version"], told["weights"]["sha256"])
    return Network(used, (x, y, z), float(told["grid"]["voxel_mm"]), classes, swapped)


# ---- the brain finder ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Brain:
    """Where the brain lies: middle of its bounding box, and its mask (x, y, z) on the finder's grid, whose voxel (i, j, k) has its
    centre at start + (index + 0.5) * step; all in work mm."""

    centre: NDArray[np.float64]
    ml: float
    stripped: bool
    mask: NDArray[np.bool_]
    start: NDArray[np.float64]
    step: float


async def find_brain(volume: Volume, frame: Frame, infer: Infer, model: Network) -> Brain:
    """Find the brain with the network for heads of any contrast; refused where there is none."""
    data, affine = await asyncio.to_thread(sampling.blocked, volume.data, volume.affine, model.voxel_mm / 2)
    inner = Frame(frame.turn, np.linalg.inv(affine))
    corners = sampling.corners(volume.data.shape, volume.affine, frame)
    low, high = corners.min(0), corners.max(0)
    step = model.voxel_mm
    shape = np.array(model.shape)
    size = np.maximum(shape, np.ceil((high - low) / step).astype(int))
    start = (low + high) / 2 - size * step / 2
    image = await asyncio.to_thread(
        lambda: sampling.halved(sampling.sampled(data, inner, start + step / 4, tuple(2 * size), step / 2))
    )
    mask = np.zeros(image.shape, np.float32)
    for window in sampling.windows(image.shape, model.shape):
        answer = await infer(model.used.name, {"image": sampling.scaled(image[window])[None, None]})
        found = checked(answer, model)[0, 1]
        mask[window] = np.maximum(mask[window], found)
    return _brain_of(mask >= 128, image, start, step)


def _brain_of(mask: NDArray[np.bool_], image: Floats, start: NDArray[np.float64], step: float) -> Brain:
    numbered, count = ndimage.label(mask)
    sizes = np.bincount(numbered.ravel())[1:] if count else np.array([0])
    ml = float(sizes.max()) * step**3 / 1000
    if ml < 300:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, "No brain was found in the image",
            "Check that this is a T1-weighted series of a head; if it is, report it as not measurable.",
        )  # fmt: skip
    brain = numbered == int(sizes.argmax()) + 1
    places = np.argwhere(brain)
    low, high = np.quantile(places, 0.002, axis=0), np.quantile(places, 0.998, axis=0)
    centre = start + ((low + high) / 2 + 0.5) * step
    distance = ndimage.distance_transform_edt(~brain) * step
    shell = image[(distance > 8) & (distance < 20)]
    level = image.min() + 0.08 * (np.quantile(image[brain], 0.9) - image.min())
    return Brain(centre, ml, bool((shell > level).mean() < 0.12), brain, start, step)


# ---- the segmenter ------------------------------------------------------------------------------------------------------


def checked(answer: Mapping[str, NDArray[Any]], model: Network) -> NDArray[np.uint8]:
    """The answer's probabilities (1, classes, x, y, z) as bytes; refused where they are no probabilities."""
    found = answer.get("probabilities")
    if found is None or found.shape != (1, len(model.classes), *model.shape) or found.dtype != np.uint8:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"The model {model.used.name} answered in a form that its description does not state",
            "Have the inference service and the folder models/ brought to the same version.",
        )  # fmt: skip
    total = found[0, :, ::5, ::5, ::5].sum(0, dtype=np.int64)
    if total.min() < 200 or total.max() > 310:
        raise refuse(
            RefusalCode.NOT_PLAUSIBLE, f"The model {model.used.name} answered values that are no probabilities",
            "Have the inference service checked.",
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Labelled:
    """labels at 1 mm (x, y, z), FreeSurfer numbers; origin: the work coordinate of voxel 0; doubt on the labels' grid."""

    labels: NDArray[np.uint8]
    origin: NDArray[np.float64]
    doubt: Uncertainty
    turned_over: bool
    certainty: float
    flips: float


async def _label(
    volume: Volume, frame: Frame, brain: Brain, infer: Infer, model: Network, turned_over: bool
) -> _Labelled:
    """Ask the network for the box round the brain and for its mirror image, and join both answers."""
    factor = round(model.voxel_mm)  # 2 or 4: the network's voxel in steps of 1 mm
    shape = tuple(factor * n for n in model.shape)
    origin = sampling.aligned(frame, brain.centre - (np.array(shape) - 1) / 2)

    def picture() -> tuple[Floats, Floats]:
        data, affine = sampling.blocked(volume.data, volume.affine, 0.5)
        fine = sampling.sampled(data, Frame(frame.turn, np.linalg.inv(affine)), origin, shape, 1.0)
        image = fine
        for _ in range(factor // 2):
            image = sampling.halved(image)
        image = sampling.scaled(image)
        if not turned_over:
            return fine, image
        return fine.max() - fine, _over(image, brain, origin + (factor - 1) / 2, factor)

    fine, image = await asyncio.to_thread(picture)
    plain = checked(await infer(model.used.name, {"image": image[None, None]}), model)[0]
    mirrored = np.ascontiguousarray(image[::-1])
    other = checked(await infer(model.used.name, {"image": mirrored[None, None]}), model)[0]

    def class_at(k: int) -> NDArray[np.uint16]:
        both: NDArray[np.uint16] = plain[k].astype(np.uint16) + other[model.swapped[k], ::-1]
        return both

    def joined() -> _Labelled:
        labels, certainty = sampling.raised(class_at, model.classes, model.shape)
        if factor == 2 and np.linalg.norm(volume.affine[:3, :3], axis=0).max() <= refining.THIN_MM:
            seen = refining.look(fine, labels, certainty, model.classes, 64 * 2 * 255)
            if seen is not None:
                labels, _ = sampling.raised(class_at, model.classes, model.shape, seen.of)
        for axis in range(3):
            labels = labels.repeat(factor // 2, axis)
        entropy = uncertainty.entropy(class_at, len(model.classes), 2 * 255)
        for axis in range(3):
            entropy = entropy.repeat(factor, axis)
        groups = _groups([int(label) for label in model.classes])
        doubt = Uncertainty(entropy, uncertainty.ranges(class_at, 2 * 255, model.voxel_mm**3 / 1000, groups))
        left_out = [k for k, label in enumerate(model.classes) if label in (0, CSF)]
        return _Labelled(labels, origin, doubt, turned_over, *judging.agreement(plain, other, model.swapped, left_out))

    return await asyncio.to_thread(joined)


def _over(image: Floats, brain: Brain, first: NDArray[np.float64], step: float) -> Floats:
    """The brain with dark and bright exchanged, nothing round it: a T2-weighted head gets the order of a T1-weighted one.

    Args:
        image: On the network's grid, 0 to about 1; first: the work coordinate of its voxel 0, mm; step: its voxel, mm.
    """
    distance = ndimage.distance_transform_edt(~brain.mask).astype(np.float32) * brain.step
    offset = (first - brain.start) / brain.step - 0.5
    near = ndimage.affine_transform(
        distance, np.full(3, step / brain.step), offset, output_shape=image.shape, order=1, mode="nearest"
    )
    body = (near < ROUND_BRAIN_MM) & (image > 0.04)
    low, high = (float(v) for v in np.quantile(image[body], (0.01, 0.99))) if body.any() else (0.0, 1.0)
    turned = np.clip(low + high - image, 0.02, None)
    return sampling.scaled(np.where(body, turned, 0).astype(np.float32))


def _groups(classes: list[int]) -> Iterator[tuple[tuple[str, str], list[int]]]:
    """Yield structure and side with the network's classes that make it up."""
    for row in _structures():
        if row["code"] == "intracranial":
            yield (row["code"], ""), [k for k, label in enumerate(classes) if label]
            continue
        sides = {side: row[side] for side in ("left", "right") if side in row}
        whole = [n for numbers in sides.values() for n in numbers] + list(row.get("middle", []))
        for side, numbers in (*sides.items(), ("", whole)):
            yield (row["code"], side), [k for k, label in enumerate(classes) if label in numbers]


# ---- volumes and their judgement ----------------------------------------------------------------------------------------


def _measure(
    volume: Volume,
    frame: Frame,
    labelled: _Labelled,
    brain: Brain,
    rules: Mapping[str, Any],
    used: tuple[ModelUsed, ...],
    fit: Fit | None,
) -> Segmentation:
    origin, doubt = labelled.origin, labelled.doubt
    labels = _one_piece(labelled.labels)
    inside = sampling.inside(volume.data.shape, frame, origin, labels.shape)
    labels[~inside] = 0
    seen_alike = _seen_alike(brain, labels, origin)
    voxels = np.bincount(labels.ravel(), minlength=256) / 1000.0  # 1 mm voxels to ml
    brain_ml = float(voxels[1:].sum() - voxels[CSF])
    volumes, absent = _volumes(voxels, brain.stripped, labelled.turned_over)
    _judge(volumes, brain_ml, rules)
    pairs = _pairs(volumes)
    volumes, doubtful, numbers = _without_doubtful(volumes, rules)
    labels[np.isin(labels, numbers)] = 0
    touches = _touches(labels, inside)
    signals = Signals(
        labelled.certainty,
        labelled.flips,
        seen_alike,
        judging.symmetry(pairs),
        1 - len(doubtful) / len(rules["structure"]),
    )
    score = fit.predicted(signals) if fit else None
    warnings = (*_poor(score, rules), *_warnings(volume, brain, touches))
    quality = Quality(brain_ml, touches, brain.stripped, warnings, signals, score)
    extent = volume.data.shape
    shown = Uncertainty(sampling.native(extent, frame, doubt.entropy, origin), doubt.ranges)
    return Segmentation(
        sampling.native(extent, frame, labels, origin), volumes, absent | doubtful, quality, used, shown
    )


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


def _volumes(
    voxels: NDArray[np.float64], stripped: bool, turned_over: bool
) -> tuple[tuple[StructureVolume, ...], dict[str, str]]:
    found: list[StructureVolume] = []
    absent: dict[str, str] = {}
    for row in _structures():
        code = row["code"]
        if code == "intracranial":
            if stripped:
                absent[code] = "The skull and the fluid round the brain had been taken off before."
            elif turned_over:
                absent[code] = "The network was given the brain alone, with dark and bright exchanged."
            else:
                found.append(StructureVolume(code, "", round(float(voxels[1:].sum()), 3)))
            continue
        sides = {side: float(voxels[row[side]].sum()) for side in ("left", "right") if side in row}
        found.extend(StructureVolume(code, side, round(ml, 3)) for side, ml in sides.items())
        total = sum(sides.values()) + float(voxels[row.get("middle", [])].sum())
        found.append(StructureVolume(code, "", round(total, 3)))
    return tuple(found), absent


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


def _structures() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads(STRUCTURES.read_text(encoding="utf-8"))["structure"]
    return [row for row in rows if "pipeline" not in row]  # what other pipelines measure is none of this one's


def _implausible(what: str) -> Exception:
    return refuse(
        RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the measurement gave a {what}",
        "Check that the series is an MR of a whole adult head; do not use volumes of this series.",
    )  # fmt: skip


def _warnings(volume: Volume, brain: Brain, touches: bool) -> tuple[str, ...]:
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    told = []
    if spacing.max() > COARSE_SPACING_MM:
        told.append(f"Voxels are {spacing.max():.1f} mm long: volumes of small structures are not reliable.")
    if touches and not brain.stripped:
        told.append("The brain reaches the edge of the field of view: volumes may be too small.")
    if brain.stripped:
        told.append("The skull had been taken off: intracranial volume is not measured.")
    return tuple(told)
