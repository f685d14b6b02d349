"""How undecided a network is, voxel by voxel, from its own probabilities: where, not why, and not checked against errors.

How far a volume may be off is better told by heads of known volumes (interval.py); where there are none, by these probabilities.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 2.0  # entropy that the brightest byte stands for; two labels equally likely are 1 bit
SURE, POSSIBLE = 0.9, 0.1
Bytes8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Uncertainty:
    """What a network's probabilities say of its labels.

    Attributes:
        entropy: (i, j, k) uint8 on the grid of the labels; 255 stands for `MOST_BITS` and more.
        ranges: (structure, side) to the mL of which the network is at least 90 % and at least 10 % sure.
        intervals: (structure, side) to the mL between which the true volume lies in 8 of 10 synthetic heads.
    """

    entropy: Bytes8
    ranges: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    intervals: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


def entropy(class_at: Callable[[int], NDArray[np.uint16]], classes: int, full: int) -> Bytes8:
    """Return the entropy of each voxel's probabilities as bytes.

    Args:
        class_at: The probability of class k in whole numbers; it is asked for one class at a time, to spare memory.
        full: The number that stands for probability 1.
    """
    share = np.arange(2 * full + 1, dtype=np.float64) / full
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(share > 0, -share * np.log2(share), 0.0)
    table = np.maximum(bits, 0).astype(np.float32)
    total = table[class_at(0)]
    for k in range(1, classes):
        values = class_at(k)
        if values.any():
            total += table[values]
    scaled: Bytes8 = np.minimum(np.round(total * np.float32(255 / MOST_BITS)), 255).astype(np.uint8)
    return scaled


def ranges(
    class_at: Callable[[int], NDArray[np.uint16]],
    full: int,
    ml: float,
    groups: Iterable[tuple[tuple[str, str], Sequence[int]]],
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return for each group of classes the volume of which the network is at least 90 % and at least 10 % sure.

    Args:
        ml: Volume of a voxel.
        groups: (structure, side) and the classes that make it up.
    """
    found = {}
    for key, classes in groups:
        if not classes:
            continue
        total = class_at(classes[0]).astype(np.uint16)
        for k in classes[1:]:
            total = total + class_at(k)
        counts = (int((total >= share * full).sum()) for share in (SURE, POSSIBLE))
        low, high = (round(count * ml, 3) for count in counts)
        found[key] = (low, high)
    return found
