"""From a volume to labelled structures: brain finder, then the segmenter, on grids made from the affine alone.

The networks know tensors only; everything they need to know of space happens here. Work is done in a frame of its own:
three axes to Right, Anterior and Superior, turned at most `MAX_TURN_DEGREES` so that they run along the voxel axes
(nothing is resampled twice), else along the world's axes. Labels come from the probabilities of the volume and its
mirror image, joined from 2 mm to 1 mm (answers.py); volumes are counted from those labels at 1 mm (volumetry.py).
"""

from __future__ import annotations

import asyncio
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import balance, interval, refining, sampling, slices, uncertainty, volumetry
from arcuate.imaging import quality as judging
from arcuate.imaging.answers import FULL, RAISED, Answers
from arcuate.imaging.brain_finder import Brain, find_brain
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.network import Network, checked, load_model
from arcuate.imaging.pipelines import Infer, Volume, named
from arcuate.imaging.sampling import Floats, Frame
from arcuate.imaging.uncertainty import Uncertainty
from arcuate.imaging.volumetry import CSF, Checked, Labelled, Segmentation

REFUSED_SPACING_MM = 8.0
TURNED = " turned over"
"""What the version of a network ends with in a result, where dark and bright were exchanged for it."""
ROUND_BRAIN_MM = 5.0
"""Kept round the finder's brain when dark and bright are exchanged in a head with skull."""
FLUID = 0.17  # of white matter's brightness: what the brightest becomes there, as fluid in the T1-like images of training (generator.py)
ROUND_GRID_MM = 8.0
"""Kept on each side of the finder's brain inside the grid that is labelled: fluid up to the skull."""
WIDEST = 1.25
"""200 x 240 x 200 mm: what a finder takes for a larger brain is none, and would only take memory."""
FADING_VOXELS = 8
"""Over so many, the windows of a large brain go over into each other."""
PIPELINE = "brain-volumes"
RULES = Path(__file__).with_name("segmentation.toml")


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
    weights = balance.load(models_dir, segmenter)
    # Another way from its answers to labels, or a head turned over, is another measurement: never compared with this one.
    version = f"{segmenter.used.version} r{rules['revision']}{TURNED if turned_over else ''}"
    checked_on = Checked(
        judging.load_fit(models_dir, segmenter.used.name), interval.load(models_dir, segmenter.used.name, version)
    )
    labelled = await _label(
        volume, frame, brain, infer, segmenter, weights, turned_over, own_ranges=checked_on.intervals is None
    )
    used = (finder.used, replace(segmenter.used, version=version))
    return await asyncio.to_thread(volumetry.measure, volume, frame, labelled, brain, rules, used, checked_on)


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


async def _label(
    volume: Volume,
    frame: Frame,
    brain: Brain,
    infer: Infer,
    model: Network,
    weights: Floats,
    turned_over: bool,
    own_ranges: bool,
) -> Labelled:
    """Ask the network for the box round the brain and, half a voxel further, for its mirror image, and join both answers.

    `own_ranges`: how much of each volume the network is sure of is wanted, for want of intervals.
    """
    factor = round(model.voxel_mm)  # 2 or 4: the network's voxel in steps of 1 mm
    half = factor // 2
    shape = tuple(factor * n for n in grid_of(brain, model))
    origin = sampling.aligned(frame, brain.centre - (np.array(shape) - 1) / 2)

    def sampled() -> Floats:
        data, affine = slices.made_fine(*sampling.blocked(volume.data, volume.affine, 0.5))
        wide = tuple(n + half for n in shape)
        found = sampling.sampled(data, Frame(frame.turn, np.linalg.inv(affine)), origin, wide, 1.0)
        return _over(found, brain, origin) if turned_over else found

    def picture(first: int) -> Floats:
        image = np.ascontiguousarray(fine[tuple(slice(first, first + n) for n in shape)])
        for _ in range(half):
            image = sampling.halved(image)
        return sampling.scaled(image)

    fine = await asyncio.to_thread(sampled)
    plain = await _asked(await asyncio.to_thread(picture, 0), infer, model)
    later = await asyncio.to_thread(picture, half)
    mirror = await _asked(np.ascontiguousarray(later[::-1]), infer, model)

    def joined() -> Labelled:
        answers = Answers.of(plain, mirror, model.swapped)
        labels, certainty = answers.labels(model.classes)
        if factor == 2 and volume.longest_mm <= refining.THICKEST_MM:
            seen = fine[tuple(slice(n) for n in shape)]
            brightness = refining.look(seen, labels, certainty, model.classes, RAISED)
            if brightness is not None:
                labels, _ = answers.labels(model.classes, lambda k, where: weights[k] * brightness.of(k, where))
        for axis in range(3):
            labels = labels.repeat(half, axis)
        entropy = uncertainty.entropy(answers.at, len(model.classes), FULL)
        for axis in range(3):
            entropy = entropy.repeat(factor, axis)
        groups = volumetry.groups([int(label) for label in model.classes]) if own_ranges else ()
        doubt = Uncertainty(entropy, uncertainty.ranges(answers.at, FULL, model.voxel_mm**3 / 1000, groups))
        left_out = [k for k, label in enumerate(model.classes) if label in (0, CSF)]
        return Labelled(labels, origin, doubt, turned_over, *judging.agreement(plain, answers.beside, left_out))

    return await asyncio.to_thread(joined)


def grid_of(brain: Brain, model: Network) -> tuple[int, int, int]:
    """Voxels of the grid to label: the network's own, wider only where the brain is too large for it, and at most `WIDEST` of it.

    A wider grid is never given to the network at once: its norms are taken over the whole grid, so that more empty space round
    the brain than in training makes small structures too large (putamen by 12, pallidum by 21 % on one synthetic head).
    """
    wanted = np.ceil((brain.size + 2 * ROUND_GRID_MM) / model.voxel_mm / 2).astype(int) * 2
    x, y, z = (max(n, min(int(w), int(WIDEST * n) // 2 * 2)) for n, w in zip(model.shape, wanted, strict=True))
    return x, y, z


async def _asked(image: Floats, infer: Infer, model: Network) -> NDArray[np.uint8]:
    """Probabilities (classes, x, y, z) of a grid: window by window where it is larger than the network's, faded into each other."""
    if image.shape == model.shape:
        return checked(await infer(model.used.name, {"image": image[None, None]}), model)[0]
    total = np.zeros((len(model.classes), *image.shape), np.float32)
    weights = np.zeros(image.shape, np.float32)
    ramps = [np.minimum(np.minimum(np.arange(n) + 1, n - np.arange(n)), FADING_VOXELS) for n in model.shape]
    fade = np.einsum("i,j,k->ijk", *ramps).astype(np.float32)
    for window in sampling.windows(image.shape, model.shape):
        part = np.ascontiguousarray(image[window])
        found = checked(await infer(model.used.name, {"image": part[None, None]}), model)[0]
        total[(slice(None), *window)] += fade * found
        weights[window] += fade
    total /= weights
    return np.rint(total, out=total).astype(np.uint8)


def _over(image: Floats, brain: Brain, origin: NDArray[np.float64]) -> Floats:
    """The brain with dark and bright exchanged, nothing round it: a T2-weighted head gets the order of a T1-weighted one.

    At 1 mm, before voxels are joined: a voxel that the edge of the brain fills by half is between it and nothing, not bright.

    Args:
        image: On a grid of 1 mm; origin: the work coordinate of its voxel 0, mm.
    """
    image = sampling.scaled(image)
    body = image > 0.04
    if not brain.stripped:
        distance = ndimage.distance_transform_edt(~brain.mask).astype(np.float32) * brain.step
        offset = (origin - brain.start) / brain.step - 0.5
        near = ndimage.affine_transform(
            distance, np.full(3, 1.0 / brain.step), offset, output_shape=image.shape, order=1, mode="nearest"
        )
        body &= near < ROUND_BRAIN_MM
    low, high = (float(v) for v in np.quantile(image[body][::8], (0.01, 0.99))) if body.any() else (0.0, 1.0)
    turned = np.clip((high - low) * FLUID / (1 - FLUID) + high - image, 0.02, None)
    return np.where(body, turned, 0).astype(np.float32)
