"""How far two scans of one person lie apart: each measured the whole way, one after the other, as a table for the model card.

Nothing is fitted to it and no limit is taken from it: `comparison.toml` holds the limits, with their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from arcuate.imaging import structures
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.volumetry import COARSE_SPACING_MM
from arcuate.kernel.codes import Laterality, Ucum

MARK = "repeat"
_SIZES_ML = (0.0, 2.0, 10.0)  # means are stated over what is larger: small structures differ more in per cent


@dataclass(frozen=True)
class Scanned:
    """One of the two scans, measured.

    Attributes:
        spacing_mm: Its voxel, longest side.
        absent: Structure code to the reason why it has no value.
    """

    name: str
    spacing_mm: float
    measured: tuple[Measured, ...]
    absent: Mapping[str, str]
    warnings: tuple[str, ...]
    quality: float | None
    model: Model


def difference(first: float, second: float) -> float:
    """Return 100 (second - first) / mean of both, in per cent."""
    return 200 * (second - first) / (first + second)


def differences(first: Scanned, second: Scanned) -> list[tuple[Measured, Measured, float]]:
    """Return what both scans have a volume of, left and right apart where a structure is paired, with the difference in per cent."""
    later = {(m.structure, m.side): m for m in second.measured}
    return [
        (m, now, difference(m.value, now.value))
        for m in first.measured
        if m.side != Laterality.BILATERAL
        and structures.part(m.structure, m.side).unit == Ucum.MILLILITRE
        and (now := later.get((m.structure, m.side))) is not None
        and m.value + now.value > 0
    ]


def table(first: Scanned, second: Scanned) -> str:
    """Return both scans side by side as Markdown: volumes, differences, their means, what is missing and what makes the case hard."""
    pairs = differences(first, second)
    lines = [
        f"| structure | side | {first.name}, mL | {second.name}, mL | difference % |",
        "|---|---|---:|---:|---:|",
        *(f"| {a.structure} | {a.side or ''} | {a.value:.2f} | {b.value:.2f} | {off:+.1f} |" for a, b, off in pairs),
    ]
    for size in _SIZES_ML:
        offs = [abs(off) for a, b, off in pairs if (a.value + b.value) / 2 > size]
        if offs:
            above = f" above {size:g} mL" if size else ""
            lines.append(f"| **mean without sign{above}** | {len(offs)} values | | | **{np.mean(offs):.1f}** |")
    return "\n".join([*lines, "", *_said(first, second)])


def _said(first: Scanned, second: Scanned) -> Sequence[str]:
    told = ["The difference is that of the second from the first, in per cent of the mean of both."]
    if first.model != second.model:
        told.append(f"Two networks measured, {_version(first)} and {_version(second)}: this is no repetition.")
    spacing = max(first.spacing_mm, second.spacing_mm)
    if spacing > COARSE_SPACING_MM:
        told.append(
            f"A hard case: slices lie up to {spacing:.1f} mm apart, and what is said below holds too. It is not the test-retest of an "
            "ordinary 3D T1, which is still to be measured."
        )
    said: dict[str, list[str]] = {}
    for one in (first, second):
        missing = (f"{code} not measured: {why}" for code, why in one.absent.items())
        quality = () if one.quality is None else (f"quality {one.quality:.2f}.",)
        for words in (*quality, *one.warnings, *missing):
            said.setdefault(words, []).append(one.name)
    return [*told, "", *(f"- {' and '.join(names)}: {words}" for words, names in said.items())]


def _version(one: Scanned) -> str:
    return f"{one.model.name} {one.model.version}"
