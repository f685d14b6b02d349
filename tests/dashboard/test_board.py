"""What the board's slots say, and what comes first under "Do next"."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from arcuate.dashboard.domain import agenda, board
from arcuate.dashboard.domain.board import Asked, Chance, Flag, Forecast, Limits, Reason, State, Visit

NOW = datetime(2026, 3, 17, 12, 42, tzinfo=UTC)
LIMITS = Limits()
SEVERE = Flag("f", "Contrast and kidneys", "No eGFR on file.", "Ask for creatinine.", severe=True)


def clock(moment: datetime) -> str:
    return f"{moment:%H:%M}"


def visit(start: int, *, minutes: int = 30, scanner: str = "MR1", **more: Any) -> Visit:
    """Return a visit that begins so many minutes from now."""
    begins = NOW + timedelta(minutes=start)
    known: dict[str, Any] = {
        "status": "booked",
        "id": f"{scanner}{start}",
        "name": "Doe, Test",
        "short": "Doe",
        "exam": "MRI brain",
        **more,
    }
    return Visit(scanner=scanner, start=begins, end=begins + timedelta(minutes=minutes), **known)


def risk(value: float, **more: Any) -> Chance:
    return Chance(value, value - 0.05, value + 0.05, (Reason("missed 2 of 3", 9.0),), **more)


@pytest.mark.parametrize(
    ("made", "state"),
    [
        (visit(-60, status="fulfilled"), State.DONE),
        (visit(-60, status="noshow"), State.MISSED),
        (visit(-20, status="arrived", began=NOW), State.RUNNING),
        (visit(30, status="arrived"), State.HERE),
        (visit(-9), State.EXPECTED),
        (visit(-10), State.LATE),
        (visit(30, chance=risk(0.25)), State.RISK),
        (visit(30, chance=risk(0.24)), State.EXPECTED),
        (visit(30, chance=risk(0.9), flags=(SEVERE,)), State.FLAGGED),
        (visit(30, chance=risk(0.9), status="arrived"), State.HERE),
        (visit(-60, status="fulfilled", flags=(SEVERE,)), State.DONE),
    ],
)
def test_what_has_happened_counts_before_what_was_forecast(made: Visit, state: State) -> None:
    assert state == board.state_of(made, NOW, LIMITS)


def test_a_site_rate_never_marks_a_person() -> None:
    made = visit(30, chance=risk(0.9, fallback="no model"))

    assert board.state_of(made, NOW, LIMITS) is State.EXPECTED


def test_a_visit_that_the_ris_was_asked_about_says_so_until_it_is_confirmed() -> None:
    made = visit(30, chance=risk(0.9), asked=Asked("move to 15:20", NOW, "Scheduler-02", taken=False))

    assert board.note_of(made, State.RISK, NOW) == "asked: move to 15:20"
    assert agenda.do_next(board.lanes([made], NOW, LIMITS), [], NOW, LIMITS, clock) == []


def test_a_scanner_is_late_by_what_the_next_person_waits() -> None:
    running = visit(-40, minutes=35, status="arrived", began=NOW - timedelta(minutes=20), duration=Forecast(25, 35, 50))
    following = visit(0, status="arrived")

    (lane,) = board.lanes([running, following], NOW, LIMITS)

    assert lane.late == 20  # 15 more on the table and 5 to change over


def test_an_empty_scanner_that_waits_for_somebody_is_not_late() -> None:
    (lane,) = board.lanes([visit(-20)], NOW, LIMITS)

    assert lane.late == 0


def test_nothing_is_free_before_now_nor_outside_the_visits() -> None:
    (lane,) = board.lanes([visit(-100, status="fulfilled"), visit(33), visit(180)], NOW, LIMITS)

    assert [(gap.minutes, gap.start >= NOW) for gap in lane.free] == [(30, True), (117, True)]


def test_harm_comes_before_minutes() -> None:
    visits = [
        visit(60, chance=risk(0.4)), visit(150, flags=(SEVERE,)), visit(-30, scanner="MR2"),
        visit(0, scanner="CT1", status="fulfilled"), visit(90, scanner="CT1"),
    ]  # fmt: skip
    held = [agenda.Held("case", "SYN-26-1", "the patient number differs")]

    todos = agenda.do_next(board.lanes(visits, NOW, LIMITS), held, NOW, LIMITS, clock)

    assert [t.title.split(":")[0] for t in todos[:2]] == ["Images held", "Doe 15"]
    assert [t.label for t in todos[1:4]] == ["See fix", "Show", "Help"]


def test_free_time_that_nobody_can_use_is_no_task() -> None:
    day = board.lanes([visit(-40, status="fulfilled"), visit(60)], NOW, LIMITS)

    assert [t for t in agenda.do_next(day, [], NOW, LIMITS, clock) if t.label == "Show move"] == []


def test_only_a_visit_of_the_same_kind_of_scanner_that_fits_can_move() -> None:
    day = board.lanes(
        [
            visit(-40, status="fulfilled"), visit(60),  # 60 min free on MR1, from 12:45 to 13:42
            visit(200, scanner="MR2", minutes=40), visit(210, scanner="MR2", minutes=90), visit(220, scanner="CT1"),
            visit(230, scanner="MR3", status="arrived"),
        ], NOW, LIMITS,
    )  # fmt: skip
    gap = day[1].free[0]

    assert [v.id for v in agenda.movable(gap, day)] == ["MR2200"]
    assert [g.scanner for g in agenda.places_for(day[2].visits[0], day, NOW)] == ["MR1"]


def test_visits_at_the_same_time_stand_side_by_side() -> None:
    (lane,) = board.lanes([visit(0), visit(10), visit(60)], NOW, LIMITS)

    slots = board.placed(lane, board.scale_of([lane], NOW), NOW, LIMITS)

    assert [(s.column, s.columns) for s in slots] == [(0, 2), (1, 2), (0, 1)]


def test_a_wait_longer_than_forecast_is_called_so() -> None:
    waiting = visit(-10, status="arrived", arrived=NOW - timedelta(minutes=40), wait=Forecast(14, 22, 38))

    assert agenda.more_minutes(waiting, NOW) == "longer than forecast (14 to 38 min)"
    assert agenda.more_minutes(visit(0, status="arrived"), NOW) == "no forecast of the wait"


def test_every_visit_has_room_for_a_line_and_every_hour_is_inside_the_axis() -> None:
    (lane,) = board.lanes([visit(-500, minutes=5, status="fulfilled"), visit(200)], NOW, LIMITS)
    scale = board.scale_of([lane], NOW)

    assert all(s.height >= 24 for s in board.placed(lane, scale, NOW, LIMITS))
    assert all(0 <= scale.y(hour) <= scale.height for hour in scale.hours())


def test_the_board_opens_a_little_before_now_and_through_no_slot() -> None:
    day = board.lanes([visit(-75, status="fulfilled"), visit(-40, scanner="MR2"), visit(200)], NOW, LIMITS)
    scale = board.scale_of(day, NOW)

    top = board.opening_y(day, scale, NOW)

    spans = [(s.y, s.y + s.height) for lane in day for s in board.placed(lane, scale, NOW, LIMITS)]
    assert not any(y < top < bottom for y, bottom in spans)
    assert 0 < scale.y(NOW) - top < 250
