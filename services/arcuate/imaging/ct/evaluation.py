"""How good the reading of head CT is on phantoms whose blood, shift and ventricles are known: errors by kind and size, false alarms.

A phantom's reading is kept as a line of CSV, so that a long evaluation can be cut off and gone on with. Phantoms are synthetic: the
figures say how the measurement works, not how good it is on patients.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcuate.imaging.ct import reading
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.evaluation import BEGIN, END
from arcuate.imaging.pipelines import Volume

SIZES = ((1.0, 5.0), (5.0, 25.0), (25.0, 101.0))
WITHIN_SHARE, WITHIN_ML = 0.10, 2.0  # the house's aim for volumes on phantoms


_NUMBERS = frozenset({
    "slice_mm", "tilt", "true_ml", "found_ml", "true_shift", "found_shift", "true_ventricles", "found_ventricles",
    "true_evans", "found_evans",
})  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A phantom to be read: its scan, and what is true of it. kind: `none` without blood, `several` with more than one kind."""

    head: str
    seed: int
    kind: str
    mixed: bool
    slice_mm: float
    tilt: float
    blood_ml: float
    shift_mm: float
    ventricle_ml: float
    evans: float
    scan: Volume


@dataclass(frozen=True)
class Planned:
    """A phantom that is made when it is needed."""

    head: str
    seed: int
    make: Callable[[], Known]


@dataclass(frozen=True)
class Score:
    """One phantom's truth and reading; nan where nothing was given, `refused` where it was not read."""

    head: str
    seed: int
    kind: str
    mixed: bool
    slice_mm: float
    tilt: float
    true_ml: float
    found_ml: float
    true_shift: float
    found_shift: float
    true_ventricles: float
    found_ventricles: float
    true_evans: float
    found_evans: float
    refused: str

    @property
    def error_ml(self) -> float:
        """Found less true."""
        return self.found_ml - self.true_ml

    @property
    def within(self) -> bool:
        """Whether the volume is off by at most 10 % or 2 mL, whichever is more."""
        return abs(self.error_ml) <= max(WITHIN_ML, WITHIN_SHARE * self.true_ml)


def score(known: Known, model: reading.Known) -> Score:
    """Read one phantom."""
    truth = (known.head, known.seed, known.kind, known.mixed, known.slice_mm, known.tilt)
    try:
        found = reading.read(known.scan, model)
    except NotMeasurable as error:
        nan = float("nan")
        return Score(
            *truth,
            known.blood_ml,
            nan,
            known.shift_mm,
            nan,
            known.ventricle_ml,
            nan,
            known.evans,
            nan,
            str(error.refusal.code),
        )
    given = [float("nan") if v is None else float(v) for v in (found.shift_mm, found.ventricle_ml, found.evans)]
    return Score(
        *truth,
        known.blood_ml,
        found.blood_ml,
        known.shift_mm,
        given[0],
        known.ventricle_ml,
        given[1],
        known.evans,
        given[2],
        "",
    )


def evaluate(phantoms: Iterable[Planned], model: reading.Known, kept: Path, say: Callable[[str], None]) -> list[Score]:
    """Read all phantoms; those whose reading stands in the file `kept` are not read again."""
    done = {(s.head, s.seed): s for s in load(kept)}
    scores: list[Score] = []
    for one in phantoms:
        made = done.get((one.head, one.seed))
        if made is None:
            made = score(one.make(), model)
            _append(kept, made)
            say(f"{made.head} {made.seed} {made.kind}: {made.true_ml:.1f} ml, found {made.found_ml:.1f}")
        scores.append(made)
    return scores


def load(kept: Path) -> list[Score]:
    """Return the readings of a file; none where there is no file."""
    if not kept.exists():
        return []
    with kept.open(newline="", encoding="utf-8") as file:
        return [_score(row) for row in csv.DictReader(file)]


def _score(row: dict[str, str]) -> Score:
    n = {f.name: float(row[f.name]) for f in fields(Score) if f.name in _NUMBERS}
    return Score(
        row["head"], int(row["seed"]), row["kind"], row["mixed"] == "True", n["slice_mm"], n["tilt"], n["true_ml"], n["found_ml"],
        n["true_shift"], n["found_shift"], n["true_ventricles"], n["found_ventricles"], n["true_evans"], n["found_evans"],
        row["refused"],
    )  # fmt: skip


def _append(kept: Path, made: Score) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = not kept.exists()
    with kept.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Score)])
        if new:
            writer.writeheader()
        writer.writerow(asdict(made))


def table(scores: Sequence[Score]) -> str:
    """Return the figures as Markdown."""
    read_ones = [s for s in scores if not s.refused]
    bled = [s for s in read_ones if s.true_ml > 0]
    pure = [s for s in bled if not s.mixed]
    lines = [
        f"{len(scores)} phantoms of {len({s.head for s in scores})} heads, {len(scores) - len(read_ones)} refused. "
        "Intervals: 95 %, by resampling heads, then phantoms.",
        "",
        "| haemorrhage | true mL | phantoms | found | median error mL | 90 % of errors at most mL | within 10 % or 2 mL |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for kind in dict.fromkeys(s.kind for s in pure):
        for low, high in SIZES:
            some = [s for s in pure if s.kind == kind and low <= s.true_ml < high]
            lines.append(_row(kind, f"{low:g} to {min(high, 100):g}", some))
    lines.append(_row("**all, acute**", "", pure))
    lines.append(_row("mixed density (part as dark as brain)", "", [s for s in bled if s.mixed]))
    lines += ["", *_false_alarms([s for s in read_ones if s.true_ml == 0]), "", *_others(read_ones)]
    return "\n".join(line for line in lines if line is not None and not line.endswith("| 0 | | | | |"))


def _row(kind: str, size: str, of: Sequence[Score]) -> str:
    if not of:
        return f"| {kind} | {size} | 0 | | | | |"
    errors = np.array([s.error_ml for s in of])
    found = sum(s.found_ml > 0 for s in of)
    low, high = interval(of, lambda some: float(np.mean([s.within for s in some])))
    share = np.mean([s.within for s in of])
    return (
        f"| {kind} | {size} | {len(of)} | {found} | {np.median(errors):+.1f} | {np.quantile(np.abs(errors), 0.9):.1f} | "
        f"{share:.0%} ({low:.0%} to {high:.0%}) |"
    )


def _false_alarms(clean: Sequence[Score]) -> list[str]:
    if not clean:
        return []
    wrong = [s for s in clean if s.found_ml > 0]
    most = max((s.found_ml for s in wrong), default=0.0)
    return [
        f"**Heads without blood** (with lime in choroid plexus, pineal gland, falx, basal ganglia in part of them): blood was said in "
        f"{len(wrong)} of {len(clean)}, at most {most:.1f} mL; 5 mL or more, which would bring a reading forward, in "
        f"{sum(s.found_ml >= 5 for s in wrong)}."
    ]


def _others(scores: Sequence[Score]) -> list[str]:
    lines = [
        "| value | phantoms | not given | mean error | mean absolute error (95 %) | 90 % at most |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, unit, pairs in (
        ("midline shift", "mm", [(abs(s.true_shift), abs(s.found_shift), s) for s in scores]),
        ("lateral and third ventricles", "mL", [(s.true_ventricles, s.found_ventricles, s) for s in scores]),
        ("Evans index", "", [(s.true_evans, s.found_evans, s) for s in scores]),
    ):
        given = [(found - true, s) for true, found, s in pairs if not np.isnan(found)]
        if not given:
            continue
        off = np.array([e for e, _ in given])
        low, high = _interval_of_errors(given)
        digits = 3 if name == "Evans index" else 1
        lines.append(
            f"| {name} {unit} | {len(pairs)} | {len(pairs) - len(given)} | {off.mean():+.{digits}f} | "
            f"{np.abs(off).mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f}) | {np.quantile(np.abs(off), 0.9):.{digits}f} |"
        )
    large = [s for s in scores if abs(s.true_shift) >= 5 and not np.isnan(s.found_shift)]
    if large:
        seen = sum(abs(s.found_shift) >= 5 for s in large)
        lines += [
            "",
            f"Of {len(large)} shifts of 5 mm or more that were given a value, {seen} were given 5 mm or more.",
        ]
    return lines


def _interval_of_errors(given: Sequence[tuple[float, Score]]) -> tuple[float, float]:
    error = {(s.head, s.seed): abs(e) for e, s in given}
    return interval([s for _, s in given], lambda some: float(np.mean([error[s.head, s.seed] for s in some])))


def interval(scores: Sequence[Score], of: Callable[[Sequence[Score]], float], times: int = 400) -> tuple[float, float]:
    """Return the 95 % interval of a figure by resampling heads and, within them, phantoms (seeded)."""
    rng = np.random.default_rng(1)
    by_head: dict[str, list[Score]] = {}
    for s in scores:
        by_head.setdefault(s.head, []).append(s)
    heads = list(by_head.values())
    drawn: list[float] = []
    for _ in range(times):
        some: list[Score] = []
        for k in rng.integers(len(heads), size=len(heads)):
            group = heads[int(k)]
            picks: NDArray[np.int64] = rng.integers(len(group), size=len(group))
            some += [group[int(i)] for i in picks]
        drawn.append(of(some))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def write_card(card: Path, told: str, version: str, command: str) -> None:
    """Put the figures between the marks of the model card, in place of those before."""
    text = card.read_text(encoding="utf-8")
    made = f"{BEGIN}\nVersion {version}, measured on {datetime.now(UTC):%Y-%m-%d} with `{command}`.\n\n{told}\n{END}"
    replaced, count = re.subn(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: made, text, flags=re.S)
    card.write_text(replaced if count else f"{text.rstrip()}\n\n{made}\n", encoding="utf-8")
