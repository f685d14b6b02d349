"""A T1-weighted picture of a label map: tissue brightness, partial volume, shading and noise."""

import tomllib
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from arcuate.hospital.heads.shape import Floats, Labels

Pixels = npt.NDArray[np.uint16]

WHITE_VALUE = 1000
"""Stored value of undisturbed white matter; 12 bits are enough for what is brighter."""

_BLUR_MM = 0.55
_SHADING_GRID = 4


def load_brightness() -> tuple[Floats, Floats]:
    """Return mean and spread by label (256 values each), as shares of white matter."""
    table = tomllib.loads((files("arcuate.hospital.heads") / "intensities.toml").read_text(encoding="utf-8"))
    mean, spread = np.zeros(256, np.float32), np.zeros(256, np.float32)
    for row in table.values():
        mean[row["labels"]], spread[row["labels"]] = row["mean"], row["spread"]
    return mean, spread


def render_t1(labels: Labels, seed: int, *, noise: float = 0.025, shading: float = 0.12) -> Pixels:
    """Return the picture of a label map on the same grid, 12 bits in 16.

    Args:
        labels: 1 mm RAS labels, shape (x, y, z).
        seed: Same seed, same noise.
        noise: SD of the Rician noise as a share of white matter.
        shading: SD of the coil's smooth multiplicative shading (in logarithm).
    """
    rng = np.random.default_rng([seed, 78])
    mean, spread = load_brightness()
    # A scanner's voxel mixes what lies in it and a little of its neighbours: a narrow point spread gives partial volume.
    picture = ndimage.gaussian_filter(mean[labels], _BLUR_MM, output=np.float32)
    texture = rng.standard_normal(labels.shape, dtype=np.float32)
    picture += spread[labels] * texture
    picture *= _shading(labels.shape, shading, rng)
    real = picture + noise * rng.standard_normal(labels.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(labels.shape, dtype=np.float32)
    magnitude = np.sqrt(real * real + imaginary * imaginary)
    return np.clip(np.round(magnitude * WHITE_VALUE), 0, 4095).astype(np.uint16)


def _shading(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> Floats:
    coarse = rng.normal(0, sd, (_SHADING_GRID,) * 3).astype(np.float32)
    zoomed: Floats = coarse
    for axis, n in enumerate(shape):
        places = np.linspace(0, _SHADING_GRID - 1, n)
        base = np.minimum(places.astype(int), _SHADING_GRID - 2)
        part = (places - base).astype(np.float32)
        part = (3 * part**2 - 2 * part**3).reshape([-1 if i == axis else 1 for i in range(3)])
        zoomed = np.take(zoomed, base, axis) * (1 - part) + np.take(zoomed, base + 1, axis) * part
    return np.asarray(np.exp(zoomed), dtype=np.float32)
