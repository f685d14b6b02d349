"""The planning step: cases to readers at the least points, by HiGHS where time allows, by a greedy hand otherwise.

Method, in order, each step only improving on the one before:

1. greedy: cases by priority and due time, each to the reader of the least added points, then moves and swaps while they help;
2. the linear relaxation gives a lower bound, so that every plan can state its gap;
3. what came out whole in it is kept, the rest is solved exactly (small), then moves and swaps again;
4. on large problems parts of the plan, a quarter of its cases at a time, are freed and solved again exactly, for half of the time;
5. pairs whose reduced cost exceeds the distance between the best plan and the bound cannot be in a better plan; what is left is
   solved exactly by HiGHS until the time limit or the gap is reached.

A plan that breaks a hard rule is never returned: the last check falls back to the greedy plan, which cannot break one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from arcuate.assignment.domain import Problem, exclusion, faults, price, reading_minutes, tariff, thresholds
from arcuate.assignment.localsearch import Points, greedy, improve

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Matrix = Any  # scipy.sparse; the stubs of linprog know only dense arrays

_WHOLE = 1e-6
_SMALL = 700
"""Up to so many pairs the exact method needs no help."""
_FREED = 0.25
_NEAR = 100.0
"""Points of reduced cost up to which a freed case may go to another reader."""
_SLICE_S = 0.6


@dataclass(frozen=True)
class Plan:
    """What a planning step decided.

    Attributes:
        assign: Reader id by case id; None = left over.
        points: The objective.
        bound: No plan costs less; None when it was not computed.
        method: `exact` (proved within the asked gap), `time limit` (the best found in time) or `greedy` (the fallback).
        reason: Why the fallback answered; empty otherwise.
    """

    assign: dict[str, str | None]
    points: int
    bound: int | None
    method: str
    reason: str = ""

    @property
    def gap(self) -> float | None:
        """Return (points - bound) / bound, or None where no bound is known or it is zero."""
        if self.bound is None or self.bound <= 0:
            return 0.0 if self.bound == self.points else None
        return (self.points - self.bound) / self.bound


@dataclass(frozen=True)
class Answer:
    """A solution of the bare problem: reader index by case (-1 = left over), with its points and a lower bound."""

    chosen: Ints
    points: int
    bound: int | None
    exact: bool
    reason: str = ""


def plan(problem: Problem, *, limit_s: float, gap: float, monotonic: Callable[[], float]) -> Plan:
    """Give the cases to the readers.

    Args:
        limit_s: Seconds that the exact method may take; 0 asks for the greedy plan.
        gap: Relative distance to the bound at which the exact method may stop.
        monotonic: Seconds that never run backwards.
    """
    points = tabulate(problem)
    answer = solve(points, limit_s=limit_s, gap=gap, monotonic=monotonic)
    made = _plan(problem, answer)
    if faults(problem, made.assign):  # never seen; the check is cheap and the promise is hard
        chosen = improve(points, greedy(points))
        made = _plan(problem, Answer(chosen, points.of(chosen), None, False, "the exact plan broke a rule"))
    return made


def _plan(problem: Problem, answer: Answer) -> Plan:
    assign = {
        case.id: problem.readers[int(reader)].id if reader >= 0 else None
        for case, reader in zip(problem.cases, answer.chosen, strict=True)
    }
    method = "greedy" if answer.reason else "exact" if answer.exact else "time limit"
    return Plan(assign, answer.points, answer.bound, method, answer.reason)


def tabulate(problem: Problem) -> Points:
    """Return the problem as tables: minutes and points by reader and case."""
    m, n, terms = len(problem.readers), len(problem.cases), tariff(problem)
    minutes, cost = np.full((m, n), -1, np.int64), np.zeros((m, n), np.int64)
    for r, reader in enumerate(problem.readers):
        for j, case in enumerate(problem.cases):
            if exclusion(reader, case, reader.held) is None:
                minutes[r, j] = reading_minutes(reader, case)
                cost[r, j] = price(reader, case, terms).total
    marks = np.array([thresholds(r, problem.weights) for r in problem.readers], np.int64).reshape(m, 2)
    cases = problem.cases
    return Points(
        minutes=minutes,
        cost=cost,
        left_over=np.array([problem.weights.unassigned[c.priority] for c in cases], np.int64),
        capacity=np.array([r.capacity for r in problem.readers], np.int64),
        held=np.array([r.held for r in problem.readers], np.int64),
        first=marks[:, 0],
        second=marks[:, 1],
        load1=problem.weights.load1,
        load2=problem.weights.load2,
        order=tuple(sorted(range(n), key=lambda j: (cases[j].priority, cases[j].due, j))),
    )


def solve(points: Points, *, limit_s: float, gap: float, monotonic: Callable[[], float]) -> Answer:
    """Solve the bare problem; the answer is feasible always."""
    best = improve(points, greedy(points))
    value = points.of(best)
    if limit_s <= 0 or not points.minutes.size:
        return Answer(
            best, value, None if limit_s <= 0 else value, limit_s > 0, "no time was given" if limit_s <= 0 else ""
        )
    until = monotonic() + limit_s
    try:
        model = _Model(points)
        relaxed = model.relax(limit_s)
        bound = math.ceil(relaxed.value - 1e-6)
        rounded = improve(points, model.round(relaxed, until - monotonic()))
        if points.of(rounded) < value:
            best, value = rounded, points.of(rounded)
        if len(model.reader) > _SMALL:
            best = model.renew(
                relaxed, best, bound, gap, until=monotonic() + (until - monotonic()) / 2, monotonic=monotonic
            )
            value = points.of(best)
        if _close(value, bound, gap):
            return Answer(best, value, bound, True)
        found, proved = model.finish(relaxed, value, max(0.05, until - monotonic()), gap)
    except (_Failed, ValueError, MemoryError) as error:
        return Answer(best, value, None, False, f"HiGHS gave no answer ({error})")
    if found is not None:
        found = improve(points, found)
        if points.of(found) < value:
            best, value = found, points.of(found)
    bound = min(value, max(bound, math.ceil(proved - 1e-6)))
    return Answer(best, value, bound, _close(value, bound, gap))


def _close(value: int, bound: int, gap: float) -> bool:
    return value - bound <= gap * max(1, bound)


class _Failed(Exception):
    """The solver came back without an answer."""


@dataclass(frozen=True)
class _Relaxed:
    value: float
    share: Floats  # by pair
    reduced: Floats  # reduced cost by pair


class _Model:
    """The mixed-integer model. Columns: pairs, cases left over, load above the first mark, load above the second."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.reader, self.case = np.nonzero(points.minutes >= 0)
        self.minutes = points.minutes[self.reader, self.case].astype(float)
        self.cost = points.cost[self.reader, self.case].astype(float)

    def relax(self, limit_s: float) -> _Relaxed:
        """Solve the linear relaxation."""
        k = len(self.reader)
        c, one, use, right = self._parts(np.arange(k))
        n = self.points.minutes.shape[1]
        # Each case once and nothing negative: no upper bounds are needed.
        answer = linprog(
            c, A_eq=one, b_eq=np.ones(n), A_ub=use, b_ub=right, bounds=(0, None), method="highs", options={"time_limit": limit_s}
        )  # fmt: skip
        if answer.status != 0 or answer.fun is None or answer.x is None:
            raise _Failed(f"relaxation: status {answer.status}")
        return _Relaxed(float(answer.fun), answer.x[:k], answer.lower.marginals[:k])

    def round(self, relaxed: _Relaxed, limit_s: float) -> Ints:
        """Keep what came out whole, solve the rest exactly."""
        whole = relaxed.share > 1 - _WHOLE
        n = self.points.minutes.shape[1]
        chosen = np.full(n, -1, np.int64)
        chosen[self.case[whole]] = self.reader[whole]
        open_cases = chosen < 0
        columns = np.flatnonzero(open_cases[self.case] | whole)
        answer, _ = self._milp(columns, min(1.0, max(0.05, limit_s)), 1e-4, fixed=whole[columns])
        return chosen if answer is None else answer

    def renew(
        self, relaxed: _Relaxed, chosen: Ints, bound: int, gap: float, *, until: float, monotonic: Callable[[], float]
    ) -> Ints:
        """Free a quarter of the cases at random (seeded) and solve them again, while there is time and room to gain."""
        points, source = self.points, np.random.default_rng(0)
        best, value, slice_s = chosen, points.of(chosen), _SLICE_S
        while (left := until - monotonic()) > 0 and not _close(value, bound, gap):
            free = (best < 0) | (source.random(len(best)) < _FREED)
            now = best[self.case] == self.reader
            columns = np.flatnonzero(now | (free[self.case] & (relaxed.reduced <= _NEAR)))
            stays = (now & ~free[self.case])[columns]
            found, _ = self._milp(columns, min(slice_s, left), 1e-3, fixed=stays)
            # The plan at hand is one answer to this part: nothing as good means that the slice was too short (a busy machine).
            if found is None or points.of(found) > value:
                slice_s *= 1.5
            if found is not None:
                found = improve(points, found)
                if points.of(found) < value:
                    best, value = found, points.of(found)
        return best

    def finish(self, relaxed: _Relaxed, value: int, limit_s: float, gap: float) -> tuple[Ints | None, float]:
        """Solve exactly over the pairs that can be part of a better plan; returns the plan and the proved bound."""
        room = value - relaxed.value
        columns = np.flatnonzero(relaxed.reduced <= room + 1e-6)
        answer, proved = self._milp(columns, limit_s, gap)
        # A plan outside these pairs costs at least `value`, so the bound holds up to it.
        return answer, min(proved, float(value))

    def _milp(
        self, columns: Ints, limit_s: float, gap: float, fixed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Ints | None, float]:
        c, one, use, right = self._parts(columns)
        k, (m, n) = len(columns), self.points.minutes.shape
        low = np.zeros(len(c))
        if fixed is not None:
            low[:k] = fixed
        high = np.r_[np.ones(k + n), np.full(2 * m, np.inf)]
        answer = milp(
            c, bounds=Bounds(low, high), integrality=np.r_[np.ones(k + n), np.zeros(2 * m)],
            constraints=[LinearConstraint(one, np.ones(n), np.ones(n)), LinearConstraint(use, -np.inf, right)],
            options={"time_limit": limit_s, "mip_rel_gap": gap},
        )  # fmt: skip
        proved = answer.mip_dual_bound
        proved = -math.inf if proved is None or not math.isfinite(proved) else float(proved)
        if answer.x is None:
            return None, proved
        chosen = np.full(n, -1, np.int64)
        taken = columns[answer.x[:k] > 0.5]
        chosen[self.case[taken]] = self.reader[taken]
        return (chosen if self.points.feasible(chosen) else None), proved

    def _parts(self, columns: Ints) -> tuple[Floats, Matrix, Matrix, Floats]:
        """Return the cost row, the rows "each case once", the rows of minutes, and the right side of the latter."""
        points = self.points
        m, n = points.minutes.shape
        k = len(columns)
        reader, case = self.reader[columns], self.case[columns]
        c = np.r_[
            self.cost[columns],
            points.left_over.astype(float),
            np.full(m, float(points.load1)),
            np.full(m, float(points.load2)),
        ]
        at = np.arange(k)
        once = sparse.csr_matrix((np.ones(k), (case, at)), (n, k))
        one: Matrix = sparse.hstack([once, sparse.identity(n), sparse.csr_matrix((n, 2 * m))])
        minutes = sparse.csr_matrix((self.minutes[columns], (reader, at)), (m, k))
        rest, none, over = sparse.csr_matrix((m, n)), sparse.csr_matrix((m, m)), -sparse.identity(m)
        use: Matrix = sparse.vstack([
            sparse.hstack([minutes, rest, none, none]),
            sparse.hstack([minutes, rest, over, none]),
            sparse.hstack([minutes, rest, none, over]),
        ])  # fmt: skip
        # Somebody who holds more than the shift has left gets nothing new; that is no reason for the whole plan to fail.
        left = np.maximum(points.capacity - points.held, 0)
        right = np.r_[left, points.first - points.held, points.second - points.held].astype(float)
        return c, one.tocsr(), use.tocsr(), right
