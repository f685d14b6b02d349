"""Small pictures as SVG made here: positions are attributes, colours are classes, the label holds the message (design page, section 9)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_RING = 8.0


def _svg(width: str, height: int, label: str, body: str, *, kind: str, box: str = "") -> Markup:
    view = f' viewBox="{box}"' if box else ""
    return Markup(  # noqa: S704 - every text in it is escaped below
        f'<svg class="chart {kind}" width="{width}" height="{height}"{view} role="img" aria-label="{escape(label)}" '
        f'focusable="false">{body}</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def range_bar(
    low: float, middle: float, high: float, limit: float, label: str, *, now: float | None = None, width: int = 104
) -> Markup:
    """Return a range on a line from 0 to `limit`: band for the 80 % interval, tick for the middle, pointer for now."""
    inner = width - 4

    def at(value: float) -> float:
        return 2 + inner * min(max(value, 0.0), limit) / limit if limit > 0 else 2

    x, end = at(low), at(high)
    body = (
        f'<line class="c-axis" x1="2" x2="{width - 2}" y1="12.5" y2="12.5"/>'
        f'<rect class="c-range" x="{_n(x)}" y="3" width="{_n(max(3.0, end - x))}" height="9" rx="1.5"/>'
        f'<line class="c-tick" x1="{_n(at(middle))}" x2="{_n(at(middle))}" y1="1" y2="13"/>'
    )
    if now is not None:
        p = at(now)
        body += f'<path class="c-now" d="M{_n(p)} 9.5l4 6.5h-8z"/>'
    return _svg(str(width), 17, label, body, kind="range")


def due_ring(share: float, tone: str, label: str) -> Markup:
    """Return the share of the time used as a ring; `tone` is "", "look" or "stop"."""
    used = min(max(share, 0.0), 1.0) * 2 * math.pi * _RING
    rest = 2 * math.pi * _RING - used
    body = (
        f'<circle class="c-ring" cx="11" cy="11" r="{_n(_RING)}"/>'
        f'<circle class="c-used" cx="11" cy="11" r="{_n(_RING)}" stroke-dasharray="{used:.2f} {rest:.2f}" '
        'transform="rotate(-90 11 11)"/>'
    )
    return _svg("22", 22, label, body, kind=f"ring {tone}".strip())


def spark(counts: Sequence[int], label: str, width: int = 150, height: int = 24) -> Markup:
    """Return counts over even steps of time as a line with its end marked; drawn from zero."""
    top = max(max(counts, default=0), 1)
    step = (width - 8) / max(1, len(counts) - 1)
    points = [(3 + i * step, height - 4 - (height - 8) * c / top) for i, c in enumerate(counts)]
    line = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    x, y = points[-1]
    body = f'<polyline class="c-line" points="{line}"/><circle class="c-end" cx="{_n(x)}" cy="{_n(y)}" r="2.5"/>'
    return _svg(str(width), height, label, body, kind="spark")


@dataclass(frozen=True)
class Stop:
    """One stop of the stage line.

    Attributes:
        state: done, now, parked, skipped or ahead.
        when: Time, or why there is none.
        since: Time between the stop before and this one, in words.
        late: The way to this stop took longer than it should.
    """

    name: str
    state: str
    when: str = ""
    since: str = ""
    late: bool = False


def stage_line(stops: Sequence[Stop], label: str) -> Markup:
    """Return the way of a case as stops on a line; widths are shares, so that the text keeps its size."""
    cell = 100 / len(stops)
    body = [_leg(stops[i], i, cell) for i in range(1, len(stops))]
    body += [_stop(stop, (i + 0.5) * cell) for i, stop in enumerate(stops)]
    return _svg("100%", 70, label, "".join(body), kind="stages")


def _leg(stop: Stop, index: int, cell: float) -> str:
    kind = "c-leg late" if stop.late else "c-leg" if stop.state in ("done", "now", "parked") else "c-leg ahead"
    begin, end = (index - 0.5) * cell, (index + 0.5) * cell
    words = (
        f'<text class="c-since{" late" if stop.late else ""}" x="{_n(index * cell)}%" y="12">{escape(stop.since)}</text>'
        if stop.since else ""
    )  # fmt: skip
    return f'<line class="{kind}" x1="{_n(begin)}%" x2="{_n(end)}%" y1="22" y2="22"/>{words}'


def _stop(stop: Stop, x: float) -> str:
    inner = {
        "done": '<circle class="c-done" r="8"/><path class="c-check" d="M-3.6 .2l2.5 2.6 4.8-5.2"/>',
        "now": '<circle class="c-here" r="8"/><circle class="c-core" r="3"/>',
        "parked": '<path class="c-stop" d="M-3.7-9h7.4L9-3.7v7.4L3.7 9h-7.4L-9 3.7v-7.4z"/><path class="c-bang" d="M0-5v6M0 3.6v1.6"/>',
        "skipped": '<circle class="c-skipped" r="7"/>',
        "ahead": '<circle class="c-ahead" r="7"/>',
    }[stop.state]
    # Nested svg elements carry the share of the width; what is inside is drawn around its own zero.
    mark = f'<svg class="over" x="{_n(x)}%" y="22">{inner}</svg>'
    return (
        f'{mark}<text class="c-name {stop.state}" x="{_n(x)}%" y="48">{escape(stop.name)}</text>'
        f'<text class="c-when" x="{_n(x)}%" y="64">{escape(stop.when)}</text>'
    )
