"""Between which volumes the true one lies in 8 of 10 heads whose volumes are known.

They are known of synthetic heads alone, so an interval says what the way from a scan to a volume adds, not how one person's drawing differs
from another's. How far answers lie off is measured the whole way and kept as data beside the model (`intervals.toml`); a version of the network
or of the way that it was not made with has none. The same for left and right; scans in thick slices have their own.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "intervals.toml"
BEYOND = 0.1
"""Share of true volumes beyond each end. By ranks, so that of new heads of the same kind no more are (split conformal prediction: V. Vovk, A.
Gammerman, G. Shafer, Algorithmic Learning in a Random World, 2005)."""
FINE_MM = 2.0
"""The longest side of a voxel that counts as fine: heads to measure on have 1 mm, or slices of 5 mm."""
ENOUGH = 18  # answers: with fewer, a structure has no interval

Key = tuple[str, str]  # structure, side
Ends = tuple[float, float]


@dataclass(frozen=True)
class Answer:
    """One structure of one head, mL. side: "left", "right" or "" (both, or unpaired). longest_mm: side of the scan's voxels."""

    structure: str
    side: str
    found_ml: float
    true_ml: float
    longest_mm: float

    @property
    def group(self) -> str:
        """The table that it belongs to."""
        return f"{'fine' if self.longest_mm <= FINE_MM else 'thick'}-{'side' if self.side else 'whole'}"


@dataclass(frozen=True)
class Intervals:
    """How much of a found volume the true one is, at both ends: group -> structure -> (low, high)."""

    groups: Mapping[str, Mapping[str, Ends]]

    def of(self, volumes: Iterable[tuple[Key, float]], longest_mm: float) -> dict[Key, Ends]:
        """Return the interval of each volume that has one, mL, to three significant digits: more are not known of it."""
        found = {}
        for (structure, side), ml in volumes:
            group = Answer(structure, side, ml, ml, longest_mm).group
            if (ends := self.groups.get(group, {}).get(structure)) is not None:
                found[structure, side] = (float(f"{ml * ends[0]:.3g}"), float(f"{ml * ends[1]:.3g}"))
        return found


def load(models_dir: Path, model: str, version: str) -> Intervals | None:
    """Return the intervals of a model; None where it has none, or those of another version."""
    path = models_dir / model / FILE
    if not path.is_file():
        return None
    told = tomllib.loads(path.read_text(encoding="utf-8"))
    if told["version"] != version:
        return None
    return Intervals({g: {s: (low, high) for s, (low, high) in lines.items()} for g, lines in told["true"].items()})


def fitted(answers: Iterable[Answer]) -> Intervals:
    """Return the intervals of answers on heads of known volumes."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for one in answers:
        if min(one.found_ml, one.true_ml) > 0:
            ratios.setdefault(one.group, {}).setdefault(one.structure, []).append(one.true_ml / one.found_ml)
    return Intervals({
        group: {structure: _ends(known) for structure, known in lines.items() if len(known) >= ENOUGH}
        for group, lines in sorted(ratios.items())
    })  # fmt: skip


def held(intervals: Intervals, answers: Iterable[Answer]) -> tuple[int, int]:
    """Return of how many answers the interval holds the true volume, and of how many there is one."""
    inside = count = 0
    for one in answers:
        key = (one.structure, one.side)
        ends = intervals.of([(key, one.found_ml)], one.longest_mm).get(key)
        if ends is not None:
            count += 1
            inside += ends[0] <= one.true_ml <= ends[1]
    return inside, count


def written(told: Mapping[str, Any], intervals: Intervals) -> str:
    """Return the text of `intervals.toml`."""
    lines = [
        "# How much of a volume that was found the true one is: 10th and 90th percentile over synthetic heads of known volumes"
    ]
    lines += [
        "# (imaging/interval.py). Written by `arcuate evaluate NAME --intervals --from LABELMAPS`; card.md says how often they hold."
    ]
    lines += [f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in told.items()]
    for group, table in intervals.groups.items():
        lines += ["", f"[true.{group}]", *(f"{s} = [{low:.3f}, {high:.3f}]" for s, (low, high) in table.items())]
    return "\n".join(lines) + "\n"


def _ends(ratios: list[float]) -> Ends:
    ordered = sorted(ratios)
    beyond = int(BEYOND * (len(ordered) + 1))
    return ordered[beyond - 1], ordered[-beyond]
