"""The greedy hand and its improvement by moves and swaps: the fallback that always answers, and the polish of every plan."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_ROUNDS = 30
_SWAP_CASES = 400
"""Above so many cases swaps are left out: they take the square of it."""


@dataclass(frozen=True)
class Points:
    """A planning step as tables. m readers, n cases; all whole numbers.

    Attributes:
        minutes: (m, n) minutes of reading; -1 where a rule excludes the pair.
        cost: (m, n) points of the pair.
        left_over: (n,) points of a case that nobody gets.
        capacity, held: (m,) minutes on shift, and of these already held.
        first, second: (m,) minutes at which load costs `load1`, and `load2` on top of it.
        order: Cases as the greedy hand takes them.
    """

    minutes: Ints
    cost: Ints
    left_over: Ints
    capacity: Ints
    held: Ints
    first: Ints
    second: Ints
    load1: int
    load2: int
    order: tuple[int, ...]

    def load(self, used: Ints) -> Ints:
        """Return the points of each reader's load."""
        return self.load1 * np.maximum(0, used - self.first) + self.load2 * np.maximum(0, used - self.second)

    def used(self, chosen: Ints) -> Ints:
        """Return each reader's minutes, held ones included; `chosen` holds the reader by case, -1 = left over."""
        given = np.flatnonzero(chosen >= 0)
        used = self.held.copy()
        np.add.at(used, chosen[given], self.minutes[chosen[given], given])
        return used

    def of(self, chosen: Ints) -> int:
        """Return the objective of a choice."""
        given, left = np.flatnonzero(chosen >= 0), np.flatnonzero(chosen < 0)
        return int(
            self.cost[chosen[given], given].sum() + self.left_over[left].sum() + self.load(self.used(chosen)).sum()
        )

    def feasible(self, chosen: Ints) -> bool:
        """Say whether no excluded pair is chosen and nobody got more than the shift holds."""
        given = np.flatnonzero(chosen >= 0)
        if (self.minutes[chosen[given], given] < 0).any():
            return False
        used = self.used(chosen)
        return bool((used[np.unique(chosen[given])] <= self.capacity[np.unique(chosen[given])]).all())


def greedy(points: Points) -> Ints:
    """Give each case, by priority and due time, to the reader of the least added points; ties to the least loaded."""
    n = points.minutes.shape[1]
    chosen, used = np.full(n, -1, np.int64), points.held.copy()
    share = np.maximum(points.capacity, 1)
    for j in points.order:
        after = used + points.minutes[:, j]
        fits = np.flatnonzero((points.minutes[:, j] >= 0) & (after <= points.capacity))
        if not len(fits):
            continue
        added = points.cost[:, j] + points.load(after) - points.load(used)
        best = min(fits, key=lambda r: (added[r], used[r] / share[r], r))
        chosen[j] = best
        used[best] += points.minutes[best, j]
    return chosen


def improve(points: Points, chosen: Ints) -> Ints:
    """Move single cases and swap pairs while it saves points; the result is never worse and never breaks a rule."""
    chosen = chosen.copy()
    n = points.minutes.shape[1]
    for _ in range(_ROUNDS):
        better = sum(_move(points, chosen, j) for j in points.order)
        if n <= _SWAP_CASES:
            better += sum(_swap(points, chosen, j) for j in points.order)
        if not better:
            break
    return chosen


def _move(points: Points, chosen: Ints, j: int) -> bool:
    """Give case j to whoever makes the plan cheapest; a case left over finds a place where there is one."""
    here, minutes = int(chosen[j]), points.minutes[:, j]
    used = points.used(chosen)
    if here >= 0:
        used[here] -= minutes[here]
    after = used + minutes
    fits = (minutes >= 0) & (after <= points.capacity)
    if not fits.any():
        return False
    added = np.where(fits, points.cost[:, j] + points.load(after) - points.load(used), np.iinfo(np.int64).max)
    best = int(added.argmin())
    now = added[here] if here >= 0 else points.left_over[j]
    if added[best] >= now:
        return False
    chosen[j] = best
    return True


def _swap(points: Points, chosen: Ints, j: int) -> bool:
    """Swap case j with the case of another reader (or one left over) where that saves most."""
    a = int(chosen[j])
    if a < 0:
        return False
    used = points.used(chosen)
    b = chosen
    other = (b != a) & (points.minutes[a] >= 0)
    mine = np.where(b >= 0, points.minutes[b, j], 0)
    theirs = np.where(b >= 0, points.minutes[b, np.arange(len(b))], 0)
    after_a = used[a] - points.minutes[a, j] + points.minutes[a]
    after_b = used[b] - theirs + mine
    fits = other & (after_a <= points.capacity[a]) & ((b < 0) | ((mine >= 0) & (after_b <= points.capacity[b])))
    if not fits.any():
        return False
    old_b = np.where(b >= 0, points.cost[b, np.arange(len(b))], points.left_over)
    new_b = np.where(b >= 0, points.cost[b, j], points.left_over[j])
    load_a = _load_at(points, a, after_a) - _load_at(points, a, used[a])
    load_b = np.where(b >= 0, _load_at(points, b, after_b) - _load_at(points, b, used[b]), 0)
    saved = np.where(fits, points.cost[a, j] + old_b - points.cost[a] - new_b - load_a - load_b, 0)
    k = int(saved.argmax())
    if saved[k] <= 0:
        return False
    chosen[j], chosen[k] = chosen[k], a
    return True


def _load_at(points: Points, reader: int | Ints, used: Ints) -> Ints:
    first, second = points.first[reader], points.second[reader]
    return points.load1 * np.maximum(0, used - first) + points.load2 * np.maximum(0, used - second)
