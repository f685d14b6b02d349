"""A training's curve: rows as CSV for programs, the same as SVG for eyes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HEADINGS = ("step", "minutes", "loss", "held_out_dice")
WIDTH, HEIGHT, EDGE = 640, 320, 44


@dataclass(frozen=True)
class Row:
    """One judgement: after how many steps and minutes, the running loss, Dice on the held-out windows."""

    step: int
    minutes: float
    loss: float
    dice: float


def read_curve(path: Path) -> list[Row]:
    """All rows of a curve, with or without its headings; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row and row[0] != HEADINGS[0]]
    return [Row(int(step), float(minutes), float(loss), float(dice)) for step, minutes, loss, dice in rows]


def write_curve(folder: Path, rows: Sequence[Row]) -> None:
    """curve.csv and curve.svg."""
    with (folder / "curve.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADINGS)
        writer.writerows([r.step, f"{r.minutes:.2f}", f"{r.loss:.4f}", f"{r.dice:.4f}"] for r in rows)
    (folder / "curve.svg").write_text(_drawn(rows), encoding="utf-8")


def _drawn(rows: Sequence[Row]) -> str:
    steps = max((r.step for r in rows), default=1)
    top = max((r.loss for r in rows), default=1.0)
    x = [EDGE + (WIDTH - 2 * EDGE) * r.step / steps for r in rows]
    dice = " ".join(f"{a:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * r.dice:.1f}" for a, r in zip(x, rows, strict=True))
    loss = " ".join(
        f"{a:.1f},{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * r.loss / top:.1f}" for a, r in zip(x, rows, strict=True)
    )
    ticks = "".join(
        f'<text x="8" y="{HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * t + 4:.0f}">{t:.1f}</text>'
        for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{ticks}'
        f'<polyline points="{dice}" fill="none" stroke="#0a5" stroke-width="2"/>'
        f'<polyline points="{loss}" fill="none" stroke="#888" stroke-width="1.5"/>'
        f'<text x="{EDGE}" y="{HEIGHT - 12}">step 0 to {steps}; green: lesion Dice on held-out synthetic windows; '
        f"grey: loss, top of the scale {top:.2f}</text></svg>\n"
    )
