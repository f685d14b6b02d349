"""Where a lesion ends, by the FLAIR's own brightness: the network's grid of 1.5 mm leaves the border open.

A voxel beside a lesion is lesion as far as it is as bright as the lesions that the network is sure of, and not as the white matter
round it; half way between is the border. The odds that the network gives are multiplied by how much better a voxel's brightness
suits the one than the other, within bounds, so that brightness alone makes no lesion. As the growing of lesions in P. Schmidt et al.,
NeuroImage 59, 2012, 3774, with the network's answer as the seed. Rules: lesions.toml, `border`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import lesion_places, sampling
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.sampling import Floats, Frame

SURELY_WHITE, SURELY_NO_LESION = 0.85, 0.03
ENOUGH_VOXELS = 30
CONSIDERED = 0.01
"""What the network gives less is not looked at: even the largest weight would not make it a lesion."""


def weighed(
    lesion: Floats, p: Floats, flair: Volume, grid: lesion_places.WorkGrid, limits: Mapping[str, Any]
) -> Floats:
    """The probability of lesion on the FLAIR's voxels, with their brightness taken into account.

    Args:
        lesion: (i, j, k) the network's probability on the FLAIR's voxels; p: (classes, x, y, z) of all classes on the network's grid.

    Returns:
        `lesion` itself where too little is sure, or lesions are hardly brighter than white matter.
    """
    white = (p[lesion_places.WHITE] > SURELY_WHITE) & (p[lesion_places.LESION] < SURELY_NO_LESION)
    sure = next((s for s in limits["sure"] if (lesion > s).sum() >= ENOUGH_VOXELS), None)
    if sure is None or white.sum() < ENOUGH_VOXELS:
        return lesion
    (box,) = ndimage.find_objects((lesion > CONSIDERED).astype(np.uint8))
    low = float(flair.data.min())
    level = _white_level(flair, low, white, grid, limits["even_over_mm"])
    around = sampling.on_voxels(level, grid.frame, grid.origin, grid.step, box, "nearest")
    bright = (flair.data[box] - low) / np.maximum(around, 1e-6)
    inside = lesion[box]
    middle = float(np.median(bright[inside > sure]))
    if middle < limits["brighter"]:
        return lesion
    width = limits["width"] * (middle - 1)
    # What is brighter than lesions is as much a lesion as they, and what is darker than white matter as little.
    from_lesion = np.clip((middle - bright) / width, 0, None) ** 2
    from_white = np.clip((bright - 1) / width, 0, None) ** 2
    most = limits["furthest"]
    gain = np.exp(0.5 * limits["weight"] * (np.minimum(from_white, most) - np.minimum(from_lesion, most)))
    made = lesion.copy()
    made[box] = inside * gain / (inside * gain + 1 - inside)
    return made


def _white_level(
    flair: Volume, low: float, white: NDArray[np.bool_], grid: lesion_places.WorkGrid, sigma_mm: float
) -> Floats:
    """How bright white matter is round each voxel of the network's grid; far from any, as in the whole head."""
    data, affine = sampling.blocked(flair.data, flair.affine, grid.step)
    image = sampling.sampled(
        data - low, Frame(grid.frame.turn, np.linalg.inv(affine)), grid.origin, grid.shape, grid.step
    )
    everywhere = float(np.median(image[white]))
    sigma = sigma_mm / grid.step
    near = ndimage.gaussian_filter(white.astype(np.float32), sigma, truncate=2.5)
    sums = ndimage.gaussian_filter(np.where(white, image, 0).astype(np.float32), sigma, truncate=2.5)
    # A little of the whole head's level goes in, which decides only where hardly any white matter is near.
    level: Floats = (sums + 1e-3 * everywhere) / (near + 1e-3)
    return level
