"""A CT scanner for phantoms: beam hardening, resolution, slice thickness, gantry tilt, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.inference.training.ct_bleeds import smooth
from arcuate.inference.training.ct_heads import Floats, Head


@dataclass(frozen=True)
class Protocol:
    """How a head was scanned.

    pixel_mm, slice_mm: in the plane; thickness and distance of slices. tilt_degrees: of the gantry, about the x axis. noise_hu:
    standard deviation in the image. hardening_hu: brightening beside bone; streak_hu: bands between the petrous bones.
    """

    pixel_mm: float
    slice_mm: float
    tilt_degrees: float
    noise_hu: float
    hardening_hu: float
    streak_hu: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, slice_mm: float | None = None) -> Protocol:
        """Draw one; thin slices get larger pixels, so that a phantom stays small."""
        thick = float(rng.choice([0.6, 1.0, 1.25, 2.5, 3.0, 5.0])) if slice_mm is None else slice_mm
        return cls(
            pixel_mm=float(rng.uniform(0.8, 1.0) if thick < 2 else rng.uniform(0.5, 0.8)),
            slice_mm=thick,
            tilt_degrees=float(rng.uniform(-22, 22)) if rng.random() < 0.35 else 0.0,
            noise_hu=float(rng.uniform(3, 8)),
            hardening_hu=float(rng.uniform(2, 9)),
            streak_hu=float(rng.uniform(0, 10)),
        )


def scan(
    head: Head, density: Floats, protocol: Protocol, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Scan a head.

    Args:
        density: HU at 1 mm (x, y, z), axes to Right, Anterior, Superior.

    Returns:
        HU (columns, rows, slices), columns to Left, rows to Posterior, and the affine to RAS mm (sheared where tilted).
    """
    image: Floats = density + _hardening(head, protocol, rng)
    image = ndimage.gaussian_filter(image, (0.55, 0.55, 0))
    image = _thick(image, protocol.slice_mm)
    affine, shape = _grid(image.shape, protocol)
    matrix, offset = affine[:3, :3], affine[:3, 3]
    made: Floats = ndimage.affine_transform(image, matrix, offset, output_shape=shape, order=1, mode="nearest")
    noise = rng.standard_normal(shape, np.float32)
    noise = ndimage.gaussian_filter(noise, (0.6, 0.6, 0))
    made += noise * np.float32(protocol.noise_hu / max(float(noise.std()), 1e-6))
    return np.clip(np.rint(made), -1024, 3071).astype(np.int16), affine


def _thick(image: Floats, slice_mm: float) -> Floats:
    """Average along z over a slice's thickness (a whole number of voxels and the parts beside them)."""
    if slice_mm <= 1:
        return image
    half = slice_mm / 2
    reach = int(np.ceil(half + 0.5))
    steps = np.arange(-reach, reach + 1)
    weights = np.clip(half + 0.5 - np.abs(steps), 0, 1)
    return np.asarray(ndimage.convolve1d(image, weights / weights.sum(), axis=2, mode="nearest"), np.float32)


def _grid(shape: tuple[int, ...], protocol: Protocol) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """Voxel to RAS mm (which are voxels of the phantom), and how many voxels cover it."""
    tilt = np.radians(protocol.tilt_degrees)
    row = np.array([0, -np.cos(tilt), -np.sin(tilt)])
    columns, rows = (int(n / protocol.pixel_mm) for n in (shape[0], shape[1] / np.cos(tilt)))
    rise = abs(np.sin(tilt)) * shape[1]
    slices = int((shape[2] + rise) / protocol.slice_mm)
    affine = np.eye(4)
    affine[:3, 0] = (-protocol.pixel_mm, 0, 0)
    affine[:3, 1] = row * protocol.pixel_mm
    affine[:3, 2] = (0, 0, protocol.slice_mm)  # the table moves level: the volume is sheared
    middle = (np.array([columns, rows, slices]) - 1) / 2
    affine[:3, 3] = (np.array(shape[:3]) - 1) / 2 - affine[:3, :3] @ middle
    return affine, (columns, rows, slices)


def _hardening(head: Head, protocol: Protocol, rng: np.random.Generator) -> Floats:
    """Brighter beside the skull; bands between the petrous bones, at the height of the cerebellum's lower half."""
    inside = head.depth > 0
    made = np.where(inside, protocol.hardening_hu * np.exp(-head.depth / 5), 0).astype(np.float32)
    y = smooth((head.labels.shape[1],), 7, rng)
    z = np.arange(head.labels.shape[2], dtype=np.float32)
    low = np.exp(-(((z - 35) / 14) ** 2))
    made += np.where(inside, np.float32(protocol.streak_hu) * 0.7 * y[None, :, None] * low, 0).astype(np.float32)
    return made
