"""Times, durations and values as people read them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.dashboard import words

NOW = datetime(2026, 3, 17, 12, 42, tzinfo=UTC)
SAY = words.Wording(NOW, ZoneInfo("Europe/Zurich"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.3, "0.3 s"),
        (38, "38 s"),
        (19 * 60 + 59, "19 min"),
        (92 * 60, "1 h 32"),
        (3600, "1 h 00"),
        (26 * 86400, "26 days"),
    ],
)
def test_durations_have_a_unit_and_no_dash(seconds: float, text: str) -> None:
    assert text == words.span(seconds)


def test_today_stands_without_a_date_and_other_years_with_theirs() -> None:
    assert SAY.when(NOW) == "13:42"
    assert SAY.when(NOW - timedelta(days=21)) == "24 Feb 13:42"
    assert SAY.day(NOW - timedelta(days=365)) == "17 Mar 2025"


def test_times_are_the_sites_also_across_midnight() -> None:
    late = datetime(2026, 3, 17, 23, 30, tzinfo=UTC)

    assert SAY.when(late) == "18 Mar 00:30"


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(14, "14 min"), (92, "1 h 32"), (-7, "7 min late"), (24 * 60, "tomorrow"), (3 * 24 * 60, "in 3 days")],
)
def test_what_is_left_until_due(minutes: int, text: str) -> None:
    assert text == SAY.due(NOW + timedelta(minutes=minutes))


@given(st.floats(0, 1))
def test_a_chance_is_never_certain(chance: float) -> None:
    assert 1 <= int(words.percent(chance).removesuffix(" %")) <= 99


def test_under_twenty_cases_no_figure_is_given() -> None:
    assert words.of_count(7, 19) == "too few"
    assert words.of_count(24, 58) == "24 of 58"


@pytest.mark.parametrize(("value", "text"), [("1142.4", "1,142 mL"), ("53.84", "53.8 mL"), ("2.314", "2.31 mL")])
def test_volumes_are_no_finer_than_they_can_be_known(value: str, text: str) -> None:
    assert text == words.volume(Decimal(value), "mL")


def test_what_a_list_leaves_out_is_counted() -> None:
    assert words.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_count_has_no_digits_behind_the_point_and_a_ratio_no_unit() -> None:
    assert [words.volume(Decimal(7), "{count}"), words.volume(Decimal("0.312"), "1")] == ["7", "0.31"]


@pytest.mark.parametrize("ahead_s", [0.4, 9.0, 180.0, 7200.0])
def test_f046_what_a_host_whose_clock_is_ahead_has_written_is_no_negative_time_ago(ahead_s: float) -> None:
    assert words.span(-ahead_s) == "0 s"
    assert words.span(-ahead_s, whole_minutes=True) == "0 min"
