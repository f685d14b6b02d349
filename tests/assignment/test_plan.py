"""Promises of the planning step: feasible always, the bound is a bound, the fallback answers."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.assignment.domain import Case, Priority, Problem, Reader, Weights, faults, objective, reading_order
from arcuate.assignment.localsearch import greedy, improve
from arcuate.assignment.optimiser import plan, tabulate

FIELDS = ("spine", "brain", "vessels")
SITES = ("north", "south")


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    readers = [
        Reader(
            id=f"r{i}", name=f"Reader-{i}", skill=draw(st.dictionaries(st.sampled_from(FIELDS), st.integers(0, 3))),
            sites=draw(st.none() | st.frozensets(st.sampled_from(SITES))), capacity=draw(st.integers(0, 120)),
            available=draw(st.integers(0, 60)), trainee=draw(st.booleans()), speed=draw(st.integers(80, 140)),
            held=draw(st.integers(0, 150)), carried=draw(st.integers(0, 2000)),
        )
        for i in range(draw(st.integers(0, 4)))
    ]  # fmt: skip
    ids = st.none() | st.sampled_from(["r0", "r1", "elsewhere"])
    cases = [
        Case(
            id=f"c{i}", minutes=draw(st.integers(3, 60)), subject=draw(st.sampled_from(FIELDS)), priority=draw(st.sampled_from(Priority)),
            need=draw(st.integers(0, 2)), want=draw(st.integers(0, 3)), due=draw(st.integers(-100, 600)),
            site=draw(st.none() | st.sampled_from(SITES)), prior=draw(ids), now_with=draw(ids),
            refused_by=draw(st.frozensets(st.sampled_from(["r0", "r1"]), max_size=1)),
        )
        for i in range(draw(st.integers(0, 7)))
    ]  # fmt: skip
    return Problem(readers, cases, Weights(turn=5, move=40))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_every_plan_keeps_every_hard_rule_states_its_true_points_and_a_true_bound(problem: Problem) -> None:
    made = plan(problem, limit_s=2, gap=0.0, monotonic=time.monotonic)

    assert faults(problem, made.assign) == []
    assert set(made.assign) == {case.id for case in problem.cases}
    assert made.points == objective(problem, made.assign)
    assert made.bound is not None
    assert made.bound <= made.points


@settings(max_examples=60, deadline=None)
@given(problems())
def test_the_exact_plan_is_never_dearer_than_the_greedy_one_which_is_feasible_too(problem: Problem) -> None:
    exact = plan(problem, limit_s=2, gap=0.0, monotonic=time.monotonic)
    simple = plan(problem, limit_s=0, gap=0.0, monotonic=time.monotonic)

    assert simple.method == "greedy"
    assert faults(problem, simple.assign) == []
    assert exact.points <= simple.points


@settings(max_examples=40, deadline=None)
@given(problems())
def test_moves_and_swaps_never_make_a_plan_worse(problem: Problem) -> None:
    points = tabulate(problem)
    first = greedy(points)
    better = improve(points, first)

    assert points.feasible(better)
    assert points.of(better) <= points.of(first)


def brute_force(problem: Problem) -> int:
    best = None
    options = [None, *(r.id for r in problem.readers)]

    def walk(assign: dict[str, str | None], left: list[Case]) -> None:
        nonlocal best
        if not left:
            if not faults(problem, assign):
                value = objective(problem, assign)
                best = value if best is None else min(best, value)
            return
        for option in options:
            walk({**assign, left[0].id: option}, left[1:])

    walk({}, list(problem.cases))
    assert best is not None
    return best


@settings(max_examples=25, deadline=None)
@given(problems().filter(lambda p: len(p.readers) <= 3 and len(p.cases) <= 5))
def test_a_plan_called_exact_is_the_best_there_is(problem: Problem) -> None:
    made = plan(problem, limit_s=5, gap=0.0, monotonic=time.monotonic)

    assert made.method == "exact"
    assert made.points == brute_force(problem)


def test_f061_a_solver_without_time_falls_back_to_the_simple_plan_and_says_so() -> None:
    readers = [Reader(f"r{i}", f"Reader-{i}", {"spine": 2}, None, 240) for i in range(12)]
    cases = [Case(f"c{i}", 11 + i % 7, "spine", Priority.ROUTINE, 1, 2, 300) for i in range(150)]
    made = plan(Problem(readers, cases), limit_s=1e-9, gap=0.0, monotonic=time.monotonic)

    assert made.method == "greedy"
    assert made.reason.startswith("HiGHS gave no answer")
    assert faults(Problem(readers, cases), made.assign) == []


def test_f061_a_solver_that_fails_falls_back_to_the_simple_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no answer")

    monkeypatch.setattr("arcuate.assignment.optimiser.linprog", broken)
    problem = Problem(
        [Reader("r", "Reader", {"spine": 2}, None, 240)], [Case("c", 11, "spine", Priority.ROUTINE, 1, 2, 300)]
    )
    made = plan(problem, limit_s=1, gap=0.0, monotonic=time.monotonic)

    assert made.method == "greedy"
    assert made.assign == {"c": "r"}


def test_whoever_holds_more_than_the_shift_gets_nothing_new_and_the_others_are_planned() -> None:
    readers = [
        Reader("over", "Reader", {"spine": 3}, None, 60, held=200),
        Reader("free", "Reader", {"spine": 1}, None, 60),
    ]
    made = plan(
        Problem(readers, [Case("c", 11, "spine", Priority.ROUTINE, 1, 2, 300)]),
        limit_s=1,
        gap=0.0,
        monotonic=time.monotonic,
    )

    assert made.assign == {"c": "free"}


def test_a_list_is_read_critical_first_then_by_due_time() -> None:
    def case(name: str, priority: Priority, due: int) -> Case:
        return Case(name, 10, "brain", priority, 0, 1, due)

    cases = [
        case("urgent", Priority.URGENT, 90), case("old routine", Priority.ROUTINE, -20), case("critical", Priority.CRITICAL, 45),
    ]  # fmt: skip

    assert [c.id for c in sorted(cases, key=reading_order)] == ["critical", "old routine", "urgent"]
