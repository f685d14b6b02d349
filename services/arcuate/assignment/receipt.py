"""Sentences that say why a reader has a case, what the next best would have cost, or why nobody has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from arcuate.assignment.domain import (
    Case,
    Exclusion,
    Price,
    Priority,
    Problem,
    Reader,
    exclusion,
    load_points,
    price,
    reading_minutes,
    shortfall,
    tariff,
    used_minutes,
)
from arcuate.assignment.optimiser import Plan

_SHOWN = 4
_PARTS = {
    "expertise": "the wished skill",
    "continuity": "who read the prior study",
    "late": "coming on shift after it is due",
    "turn": "a fair turn",
    "move": "leaving it where it is",
}


@dataclass(frozen=True)
class Line:
    """One row of a receipt: the label's code (`urn:arcuate:cs:receipt`) and a sentence."""

    label: str
    sentence: str


@dataclass(frozen=True)
class Moment:
    """When the plan was made, and the site's zone, for times in sentences."""

    now: datetime
    zone: ZoneInfo

    def clock(self, minutes: int) -> str:
        """Return the local clock time so many minutes from now; with the day if it is not today."""
        local_now, then = self.now.astimezone(self.zone), (self.now + timedelta(minutes=minutes)).astimezone(self.zone)
        return f"{then:%H:%M}" if then.date() == local_now.date() else f"{then:%a %d %b %H:%M}"


def given(problem: Problem, plan: Plan, case: Case, moment: Moment, *, raised: bool, machine: str = "") -> list[Line]:
    """Return the receipt of a case that somebody got.

    Args:
        raised: The case counted as more urgent than its order says, because its due time is near.
        machine: Why a machine brought it forward; empty where none did.
    """
    reader = problem.reader(str(plan.assign[case.id]))
    able = [r for r in problem.readers if exclusion(r, case) is None]
    used = used_minutes(problem, plan.assign)
    lines = [
        Line("why", _why(problem, case, reader, able)),
        Line("must", _must(case, reader, able)),
        Line("due", due_sentence(case.due, moment)),
        Line("load", _load(reader, able, used)),
    ]
    if case.prior is not None:
        lines.append(Line("continuity", _continuity(problem, case, reader)))
    if machine:
        lines.append(Line("raised", machine))
    if raised:
        lines.append(Line("raised", "near its due time, so it counts as urgent; the order's own priority is unchanged"))
    lines.append(Line("next-best", _next_best(problem, plan, case, reader, used)))
    lines.append(Line("plan", plan_sentence(plan)))
    return lines


def left_over(problem: Problem, plan: Plan, case: Case) -> list[Exclusion]:
    """Return the rule that kept each reader from a case that nobody got.

    The sentences hold no figure that changes by itself, so that the same state makes the same sentence.
    """
    used = used_minutes(problem, plan.assign)
    found = []
    for reader in problem.readers:
        broken = exclusion(reader, case, used[reader.id])
        if broken is None:
            broken = Exclusion(reader.id, "overload", f"{reader.name}: the shift would be overloaded")
        elif broken.rule == "capacity":
            broken = Exclusion(reader.id, "capacity", f"{reader.name}: no room on this shift")
        found.append(broken)
    return found


def due_sentence(due: int, moment: Moment) -> str:
    """Return when a case is due and how long that is from now."""
    if due < 0:
        return f"due {moment.clock(due)}, {span(-due)} late when given"
    return f"due {moment.clock(due)}, {span(due)} after it was given"


def plan_sentence(plan: Plan) -> str:
    """Return how the plan was made and how far it can be from the best."""
    if plan.method == "greedy":
        return f"simple plan by priority and due time: {plan.reason}"
    gap = plan.gap
    if gap is None or gap < 0.0005:
        return "no better plan exists under the agreed weights"
    return f"at most {gap * 100:.1f} % from the best plan under the agreed weights"


def span(minutes: int) -> str:
    """Return a duration as people write it."""
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d}"
    days = minutes // 1440
    return f"{days} day" if days == 1 else f"{days} days"


def _why(problem: Problem, case: Case, reader: Reader, able: Sequence[Reader]) -> str:
    if case.prior == reader.id:
        return "prior with this reader"
    if len(able) == 1:
        return f"the only one here who may read {case.subject}"
    best = max(r.level(case.subject) for r in able)
    if reader.level(case.subject) == best and any(r.level(case.subject) < best for r in able):
        return f"{case.subject} reader on shift"
    return "next in turn"


def _must(case: Case, reader: Reader, able: Sequence[Reader]) -> str:
    others = [r.name for r in able if r.id != reader.id]
    names = ", ".join([reader.name, *others[: _SHOWN - 1]]) + (
        f" and {len(others) - _SHOWN + 1} more" if len(others) >= _SHOWN else ""
    )
    needed = f"{case.subject} at level {case.need}" if case.need else case.subject
    site = " and this site" if case.site is not None else ""
    return f"{needed}{site}, on shift: {names}"


def _load(reader: Reader, able: Sequence[Reader], used: Mapping[str, int]) -> str:
    others = sorted((r for r in able if r.id != reader.id), key=lambda r: (used[r.id] - r.capacity, r.id))[:2]
    return ", ".join(f"{r.name} {used[r.id]} of {r.capacity} min" for r in [reader, *others])


def _continuity(problem: Problem, case: Case, reader: Reader) -> str:
    if case.prior == reader.id:
        return f"{reader.name} read the prior study"
    earlier = next((r for r in problem.readers if r.id == case.prior), None)
    if earlier is None:
        return "who read the prior study is not on the roster"
    broken = exclusion(earlier, case)
    if broken is not None:
        return f"{earlier.name} read the prior study but could not take it: {broken.sentence.split(': ', 1)[1]}"
    return f"{earlier.name} read the prior study; giving it there would have cost more elsewhere"


def _next_best(problem: Problem, plan: Plan, case: Case, reader: Reader, used: Mapping[str, int]) -> str:
    """Compare with every other reader who still has room, all other cases staying where they are."""
    terms = tariff(problem)
    mine = price(reader, case, terms)
    minutes = reading_minutes(reader, case)
    relief = load_points(reader, used[reader.id], problem.weights) - load_points(
        reader, used[reader.id] - minutes, problem.weights
    )
    options = []
    for other in problem.readers:
        if other.id == reader.id or exclusion(other, case, used[other.id]) is not None:
            continue
        theirs = price(other, case, terms)
        after = used[other.id] + reading_minutes(other, case)
        load = load_points(other, after, problem.weights) - load_points(other, used[other.id], problem.weights) - relief
        options.append((theirs.total + load - mine.total, other.id, other, theirs, load))
    if not options:
        return "nobody else could take it now"
    more, _, other, theirs, load = min(options)
    if more == 0:
        return f"{other.name} would have done as well"
    reasons = _differences(mine, theirs, load, case, other)
    why = f" ({reasons})" if reasons else ""
    return f"{other.name} would have cost {abs(more)} points {'more' if more > 0 else 'less'}{why}"


def _differences(mine: Price, theirs: Price, load: int, case: Case, other: Reader) -> str:
    parts = [(getattr(theirs, name) - getattr(mine, name), words) for name, words in _PARTS.items()]
    parts.append((load, "load"))
    missing = shortfall(other, case)
    words = {
        "the wished skill": f"the wished skill, {missing} level{'s' if missing > 1 else ''} short"
        if missing
        else "the wished skill"
    }
    ordered = sorted((p for p in parts if p[0]), key=lambda p: -abs(p[0]))
    return ", ".join(f"{words.get(text, text)} {points:+d}" for points, text in ordered)


def is_raised(stated: Priority, planned: Priority) -> bool:
    """Say whether planning saw a case as more urgent than its order says."""
    return planned < stated
