"""What the scheduler does next: harm first, then minutes; each with one button."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.dashboard.domain.board import Free, Lane, Limits, State, Visit, state_of
from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.words import percent

TimeOf = Callable[[datetime], str]


@dataclass(frozen=True)
class Todo:
    """One thing to do next, with its one button.

    Attributes:
        visit: The visit that the button shows; empty when it leads to `href`.
        weight: Larger comes first: harm first, then minutes.
    """

    mark: Mark
    title: str
    text: str
    label: str
    visit: str = ""
    href: str = ""
    weight: float = 0.0


@dataclass(frozen=True)
class Held:
    """A case that a person must look at before it goes on."""

    case: str
    accession: str
    why: str


def do_next(day: Sequence[Lane], held: Sequence[Held], now: datetime, limits: Limits, time_of: TimeOf) -> list[Todo]:
    """Return what to do, harm first, then by minutes that would be lost."""
    todos = [
        Todo(Mark.STOP, "Images held: not sure whose", f"Accession {h.accession}: {h.why}.", "Look", href=f"/case/{h.case}", weight=5000)
        for h in held
    ]  # fmt: skip
    for lane in day:
        for visit in lane.visits:
            if (todo := _visit_todo(visit, state_of(visit, now, limits), now, time_of)) is not None:
                todos.append(todo)
        todos += [todo for gap in lane.free if (todo := _free_todo(gap, day, time_of)) is not None]
        if lane.late >= limits.late_min:
            todos += _late_todo(lane, now, time_of)
    return sorted(todos, key=lambda t: -t.weight)


def _visit_todo(visit: Visit, state: State, now: datetime, time_of: TimeOf) -> Todo | None:
    if visit.asked is not None:
        return None
    head = f"{visit.short} {time_of(visit.start)}"
    soon = max(0.0, 600 - (visit.start - now).total_seconds() / 60)
    if state is State.FLAGGED and visit.severe is not None:
        return Todo(
            Mark.STOP, f"{head}: {visit.severe.title}", visit.severe.fix, "See fix", visit.id, weight=3000 + soon
        )
    if state is State.LATE:
        past = int((now - visit.start).total_seconds() // 60)
        how = f"Call {visit.phone}." if visit.phone else "No phone number on file."
        return Todo(
            Mark.LOOK, f"{head}: not here", f"{past} min past the slot. {how}", "Show", visit.id, weight=2000 + past
        )
    if state is State.RISK and visit.chance is not None:
        why = visit.chance.reasons[0].sentence if visit.chance.reasons else ""
        how = "phone on file" if visit.phone else "no phone number on file"
        text = ", ".join(part for part in (why, how) if part) + "."
        weight = 1000 + visit.chance.value * visit.minutes
        title = f"{head}: {percent(visit.chance.value)} may not come"
        return Todo(Mark.LOOK, title, text[:1].upper() + text[1:], "Help", visit.id, weight=weight)
    return None


def _late_todo(lane: Lane, now: datetime, time_of: TimeOf) -> list[Todo]:
    following = next((v for v in lane.visits if v.began is None and v.ended is None and (v.is_open or v.is_here)), None)
    if following is None or following.asked is not None:
        return []
    begin = following.start + timedelta(minutes=lane.late)
    title = f"{following.short} would start {time_of(begin)}"
    return [
        Todo(
            Mark.LOOK,
            title,
            f"{lane.scanner} runs {lane.late} min late.",
            "Show",
            following.id,
            weight=1200 + lane.late,
        )
    ]


def _free_todo(gap: Free, day: Sequence[Lane], time_of: TimeOf) -> Todo | None:
    """Free time that nobody can use is no task."""
    fitting = movable(gap, day)
    if not fitting:
        return None
    first = f"{fitting[0].short}, {time_of(fitting[0].start)}"
    text = f"{first}, would fit." if len(fitting) == 1 else f"{len(fitting)} later visits would fit; first {first}."
    title = f"{gap.minutes} min free on {gap.scanner}, {time_of(gap.start)}"
    return Todo(Mark.NEXT, title, text, "Show move", fitting[0].id, weight=300 + gap.minutes)


def movable(gap: Free, day: Sequence[Lane]) -> list[Visit]:
    """Return later visits of the same kind of scanner that fit into a gap, earliest first.

    The visit that follows the gap is none of them: to move it would only move the gap.
    """
    kind = _kind(gap.scanner)
    fitting = [
        v for lane in day for v in lane.visits
        if _kind(lane.scanner) == kind and v.is_open and v.asked is None and v.start > gap.start and v.minutes <= gap.minutes
        and not (v.scanner == gap.scanner and v.start == gap.end)
    ]  # fmt: skip
    return sorted(fitting, key=lambda v: v.start)


def places_for(visit: Visit, day: Sequence[Lane], now: datetime) -> list[Free]:
    """Return gaps of today into which a visit could move, earliest first."""
    kind = _kind(visit.scanner)
    gaps = [
        g
        for lane in day
        for g in lane.free
        if _kind(g.scanner) == kind and g.minutes >= visit.minutes and g.start > now
    ]
    return sorted(gaps, key=lambda g: (g.start, g.scanner))


def _kind(scanner: str) -> str:
    """Return what a scanner is, as far as its name tells: the letters it begins with ("MR2": "MR")."""
    letters = "".join(c for c in scanner if c.isalpha() or c == " ").split()
    return letters[0].upper() if letters else scanner


def more_minutes(visit: Visit, now: datetime) -> str:
    """Return how long somebody who is here may still wait, in words."""
    waited = visit.waited(now)
    if visit.wait is None or waited is None:
        return "no forecast of the wait"
    left = [max(0.0, q - waited) for q in (visit.wait.p10, visit.wait.p50, visit.wait.p90)]
    if left[2] <= 0:
        return f"longer than forecast ({visit.wait.p10:.0f} to {visit.wait.p90:.0f} min)"
    about = "any minute" if left[1] < 1 else f"about {left[1]:.0f} more"
    return f"{about} ({left[0]:.0f} to {left[2]:.0f})"
