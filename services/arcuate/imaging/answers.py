"""A network's two answers of one brain, on grids that lie half a voxel apart, joined at half its voxel.

The second is that of the mirror image, brought back. Between two voxels of the one grid lies a voxel of the other, so that both
together know borders finer than either, without asking the network more often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.sampling import Floats, doubled

FULL = 2 * 255
"""Probability 1 as `at` gives it; `raised` gives 64 times that, which fits 16 bits."""
RAISED = 64 * FULL
NOTHING = 25  # of FULL: a class that is nowhere more likely is not looked at


@dataclass(frozen=True)
class Answers:
    """plain, later: probabilities times 255 (classes, x, y, z) uint8; `later` starts half a voxel later along each axis."""

    plain: NDArray[np.uint8]
    later: NDArray[np.uint8]

    @classmethod
    def of(cls, plain: NDArray[np.uint8], mirror: NDArray[np.uint8], swapped: NDArray[np.int64]) -> Answers:
        """From the answer of the mirror image as the network gave it; swapped: the class of each in the mirror."""
        return cls(plain, mirror[swapped][:, ::-1])

    @cached_property
    def beside(self) -> NDArray[np.uint8]:
        """`later` on the voxels of `plain`: the mean of the eight round each."""
        made = np.zeros_like(self.later)
        for k, values in enumerate(self.later):
            if values.any():
                total = _edge_before(values.astype(np.uint16))
                total = total[1:] + total[:-1]
                total = total[:, 1:] + total[:, :-1]
                made[k] = (total[:, :, 1:] + total[:, :, :-1] + 4) >> 3
        return made

    def at(self, k: int) -> NDArray[np.uint16]:
        """The probability of class k on the network's voxels, 0 to FULL."""
        return np.add(self.plain[k], self.beside[k], dtype=np.uint16)

    def raised(self, k: int, box: tuple[slice, ...]) -> NDArray[np.uint16]:
        """The probability of class k at half the voxel, 0 to RAISED, in a part of the grid."""
        finer = doubled(self.plain[k][box].astype(np.uint16))
        other = doubled(self.later[k][box].astype(np.uint16))
        finer += _edge_before(other)[:-1, :-1, :-1]
        return finer

    def labels(
        self, classes: NDArray[np.int64], weight: Callable[[int, tuple[slice, ...]], Floats] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Most probable class at half the voxel, and its probability, 0 to RAISED; in whole numbers, the same everywhere.

        `weight` (class, part of the finer grid) multiplies probabilities before they are compared.
        """
        everywhere = (slice(None),) * 3
        best: NDArray[Any] = self.raised(0, everywhere)
        if weight is not None:
            best = best * weight(0, everywhere)
        found = np.zeros(best.shape, np.uint8)
        for k in range(1, len(classes)):
            box = self._where(k)
            if box is None:
                continue
            finer: NDArray[Any] = self.raised(k, box)
            wide = tuple(slice(2 * b.start, 2 * b.stop) for b in box)
            if weight is not None:
                finer = finer * weight(k, wide)
            better = finer > best[wide]
            best[wide][better] = finer[better]
            found[wide][better] = classes[k]
        return found, best

    def _where(self, k: int) -> tuple[slice, ...] | None:
        """The part of the grid where class k is likely at all, a voxel wider; None where it nowhere is."""
        likely = self.at(k) > NOTHING
        spans = [np.flatnonzero(likely.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
        if not all(span.size for span in spans):
            return None
        return tuple(slice(max(0, s[0] - 1), min(n, s[-1] + 2)) for s, n in zip(spans, likely.shape, strict=True))


def _edge_before(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The first voxel along each axis once more before it."""
    return np.pad(values, ((1, 0),) * 3, mode="edge")
