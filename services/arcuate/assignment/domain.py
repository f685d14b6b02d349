"""Readers, cases, what a reading would cost, and which rule excludes whom: pure decisions, whole minutes and whole points.

The planning problem is the one of `tools/assignment/README.md` (section 1) in the shared material, with three additions that
are zero there: minutes that a reader already holds, a fair turn, and the wish not to move a case that was already given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum


class Priority(IntEnum):
    """How soon a case must be read; smaller is sooner."""

    CRITICAL = 0
    URGENT = 1
    ROUTINE = 2

    @property
    def word(self) -> str:
        """Return the word that a reader reads."""
        return self.name.lower()


@dataclass(frozen=True)
class Reader:
    """One person who reads, as far as one planning step needs to know.

    Attributes:
        skill: Level 0 to 3 by field; a field that is not named has level 0.
        sites: Sites that the reader may read for; None means every site.
        speed: Per cent of nominal minutes (100 = nominal); never shown to anybody.
        capacity: Minutes left on shift, from now.
        available: Minutes from now until the shift begins (0: on shift).
        held: Minutes of cases in hand that this step does not move.
        carried: Minutes read in the days that count for a fair turn.
    """

    id: str
    name: str
    skill: Mapping[str, int]
    sites: frozenset[str] | None
    capacity: int
    available: int = 0
    trainee: bool = False
    speed: int = 100
    held: int = 0
    carried: int = 0

    def level(self, subject: str) -> int:
        """Return the reader's level in a field."""
        return self.skill.get(subject, 0)


@dataclass(frozen=True)
class Case:
    """One reading to be given to somebody.

    Attributes:
        minutes: Nominal minutes of reading.
        subject: The field that the case belongs to (a code of `urn:arcuate:cs:skill`).
        need: Least level, hard.
        want: Wished level, soft.
        due: Minutes from now until it should be read; negative when late.
        site: Where it was made; None when unknown (then no site rule applies).
        prior: Reader of the earlier study.
        now_with: Reader to whom an earlier step gave it; moving it costs a little.
        refused_by: Readers who handed it back.
    """

    id: str
    minutes: int
    subject: str
    priority: Priority
    need: int
    want: int
    due: int
    site: str | None = None
    prior: str | None = None
    now_with: str | None = None
    refused_by: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Weights:
    """Points; smaller is better. One point is worth about a minute of a routine case that comes too late."""

    expertise: tuple[int, int, int] = (120, 80, 40)
    """A missing level of the wished skill, by priority."""
    continuity: int = 30
    """Another reader than that of the prior study, when that one is here."""
    late: tuple[int, int, int] = (20, 4, 1)
    """A minute that the reader comes on shift after the case is due, by priority."""
    late_cap: int = 480
    unassigned: tuple[int, int, int] = (20_000, 4_000, 800)
    """A case left over, by priority."""
    load1: int = 2
    """A minute of load above the target share of the shift."""
    load2: int = 6
    """A minute more than ten points above the target share, on top of `load1`."""
    target: int = 83
    """The share of a shift's minutes that should be given out, per cent."""
    turn: int = 0
    """An hour carried above the mean of all readers, up to `turn_cap` hours."""
    turn_cap: int = 8
    move: int = 0
    """Taking an unopened case from the reader who was given it."""


@dataclass(frozen=True)
class Problem:
    """One planning step."""

    readers: Sequence[Reader]
    cases: Sequence[Case]
    weights: Weights = field(default_factory=Weights)

    def reader(self, reader_id: str) -> Reader:
        """Return a reader of this problem."""
        return next(r for r in self.readers if r.id == reader_id)


@dataclass(frozen=True)
class Exclusion:
    """Why a reader may not take a case: the rule's code and a sentence for people."""

    reader: str
    rule: str
    sentence: str


@dataclass(frozen=True)
class Price:
    """What a reading costs, in points, by reason."""

    expertise: int
    continuity: int
    late: int
    turn: int
    move: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.expertise + self.continuity + self.late + self.turn + self.move


def shortfall(reader: Reader, case: Case) -> int:
    """Return how many levels are missing to the wished skill."""
    return max(0, case.want - reader.level(case.subject))


def reading_minutes(reader: Reader, case: Case) -> int:
    """Return the expected minutes of this reader for this case: 20 per cent more for each missing level."""
    return (case.minutes * reader.speed * (100 + 20 * shortfall(reader, case)) + 5000) // 10000


def thresholds(reader: Reader, weights: Weights) -> tuple[int, int]:
    """Return the minutes at which load begins to cost, and at which it costs more."""
    return reader.capacity * weights.target // 100, reader.capacity * (weights.target + 10) // 100


def load_points(reader: Reader, used: int, weights: Weights) -> int:
    """Return the points of a reader's load; `used` includes the minutes held."""
    first, second = thresholds(reader, weights)
    return weights.load1 * max(0, used - first) + weights.load2 * max(0, used - second)


def fair_turn(readers: Sequence[Reader], weights: Weights) -> dict[str, int]:
    """Return the points by which each reader's turn comes later: whole hours carried above the mean, capped."""
    if not readers or weights.turn == 0:
        return {r.id: 0 for r in readers}
    mean = sum(r.carried for r in readers) / len(readers)
    return {r.id: weights.turn * min(weights.turn_cap, max(0, int((r.carried - mean) // 60))) for r in readers}


@dataclass(frozen=True)
class Tariff:
    """What the prices of one planning step depend on besides reader and case."""

    weights: Weights
    here: frozenset[str]
    turn: Mapping[str, int]


def tariff(problem: Problem) -> Tariff:
    """Return the tariff of a planning step."""
    return Tariff(
        problem.weights, frozenset(r.id for r in problem.readers), fair_turn(problem.readers, problem.weights)
    )


def price(reader: Reader, case: Case, terms: Tariff) -> Price:
    """Return what it costs that this reader reads this case, without load."""
    weights, priority = terms.weights, case.priority
    late = min(weights.late_cap, max(0, reader.available - case.due))
    return Price(
        expertise=weights.expertise[priority] * shortfall(reader, case),
        continuity=weights.continuity if case.prior in terms.here and case.prior != reader.id else 0,
        late=weights.late[priority] * late,
        turn=terms.turn[reader.id],
        move=weights.move if case.now_with in terms.here and case.now_with != reader.id else 0,
    )


def exclusion(reader: Reader, case: Case, used: int | None = None) -> Exclusion | None:
    """Return the rule that excludes the reader from the case, or None.

    Args:
        used: Minutes already given to the reader in this step; None leaves the room on the shift out of the question.
    """

    level = reader.level(case.subject)
    asked = reading_minutes(reader, case)
    rules = (
        (reader.id in case.refused_by, "handed-back", "handed it back"),
        (
            reader.sites is not None and case.site is not None and case.site not in reader.sites,
            "site", "may not read for this site",
        ),
        (level < case.need, "skill", f"level {level} in {case.subject}, {case.need} needed"),
        (reader.trainee and case.priority is Priority.CRITICAL, "trainee", "critical cases do not go to a trainee"),
        (reader.capacity <= 0, "shift", "not on shift"),
        (
            used is not None and used + asked > reader.capacity,
            "capacity", f"{asked} min asked, {max(0, reader.capacity - (used or 0))} left on the shift",
        ),
    )  # fmt: skip
    return next((Exclusion(reader.id, rule, f"{reader.name}: {why}") for broken, rule, why in rules if broken), None)


def used_minutes(problem: Problem, assign: Mapping[str, str | None]) -> dict[str, int]:
    """Return each reader's minutes, held ones included, under an assignment of case ids to reader ids."""
    readers = {r.id: r for r in problem.readers}
    used = {r.id: r.held for r in problem.readers}
    for case in problem.cases:
        given = assign.get(case.id)
        if given in readers:
            used[given] += reading_minutes(readers[given], case)
    return used


def faults(problem: Problem, assign: Mapping[str, str | None]) -> list[str]:
    """Return why an assignment breaks a hard rule; empty when it breaks none."""
    readers, found = {r.id: r for r in problem.readers}, []
    for case in problem.cases:
        given = assign.get(case.id)
        if given is None:
            continue
        if given not in readers:
            found.append(f"{case.id}: unknown reader {given}")
        elif broken := exclusion(readers[given], case):
            found.append(f"{case.id}: {broken.rule}")
    received = {given for given in assign.values() if given is not None}
    for reader_id, used in used_minutes(problem, assign).items():
        # Whoever holds too much already, by a person's choice, breaks no rule of ours as long as we add nothing.
        if used > readers[reader_id].capacity and reader_id in received:
            found.append(f"{reader_id}: {used} of {readers[reader_id].capacity} min")
    return found


def objective(problem: Problem, assign: Mapping[str, str | None]) -> int:
    """Return the points of an assignment: readings, cases left over, and load; smaller is better."""
    readers, terms = {r.id: r for r in problem.readers}, tariff(problem)
    points = 0
    for case in problem.cases:
        given = assign.get(case.id)
        points += (
            problem.weights.unassigned[case.priority] if given is None else price(readers[given], case, terms).total
        )
    used = used_minutes(problem, assign)
    return points + sum(load_points(r, used[r.id], problem.weights) for r in problem.readers)


def aged(priority: Priority, due: int, ageing_min: int) -> Priority:
    """Return the priority as planning sees it: a routine case close to its due time counts as urgent, so that it does not starve.

    The order's own priority is never changed.
    """
    if priority is Priority.ROUTINE and due <= ageing_min:
        return Priority.URGENT
    return priority


def reading_order(case: Case) -> tuple[bool, int, int, str]:
    """Return the key by which a list is read: critical first, then by due time, so that an old routine case is not passed for ever."""
    return (case.priority is not Priority.CRITICAL, case.due, int(case.priority), case.id)
