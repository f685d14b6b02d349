"""The help list: who may not come in the next working days, why, and what is not known."""

import re
from collections.abc import AsyncIterator
from datetime import date, timedelta
from html import unescape

import department
import httpx
import pytest
import pytest_asyncio
from dashboard_world import Department, open_department

from arcuate.dashboard.pages.help import working_days
from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")


def words(answer: httpx.Response) -> str:
    text = re.sub(r"<(script|head)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())


async def test_the_next_working_days_leave_weekends_out() -> None:
    assert working_days(date(2026, 3, 17)) == (date(2026, 3, 18), date(2026, 3, 19), date(2026, 3, 20))
    assert working_days(date(2026, 3, 20)) == (date(2026, 3, 23), date(2026, 3, 24), date(2026, 3, 25))
    assert all(day.weekday() < 5 for n in range(14) for day in working_days(date(2026, 3, 1) + timedelta(days=n)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def booked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Department]:
    """A house with visits on Wednesday, Friday and the Monday after, and one today."""
    async with open_department(tmp_path_factory.mktemp("booked")) as made:
        for number, days, value, reason in (
            ("0601", 1, 0.12, "booked 20 days ago"), ("0602", 3, 0.41, "missed 2 of the last 3 visits"),
            ("0603", 6, 0.77, "missed all visits"), ("0604", 0, 0.66, "no telephone number on file"), ("0605", 1, 0.01, ""),
            ("0606", 1, None, ""),
        ):  # fmt: skip
            await made.fhir.transaction(department.ahead(number, days, value, reason))
        yield made


async def test_who_may_not_come_stands_first_with_the_reason_and_every_count_closes(booked: Department) -> None:
    browser = await booked.sign_in("Scheduler-02", Role.SCHEDULER)
    page = await browser.open("/help")
    said = words(page)

    listed = re.findall(r'data-row href="/help\?at=[^"]+"[^>]*>([^<]+)<', page.text)
    assert [re.sub(r"\D", "", name)[:4] for name in listed] == ["0602", "0601"]
    assert "1 likely to be missed" in said
    assert "missed 2 of the last 3 visits +9 points" in said
    assert "33 to 50" in said
    assert "2 of 3 shown, 1 with a smaller chance. 1 more without a model's chance, not ranked." in said
    assert "missed all visits" not in said

    second = re.findall(r'href="/help\?at=([^"]+)"', page.text)[1]
    part = await browser.open(f"/help/parts?names=why&at={second}")
    assert "booked 20 days ago" in words(part)


async def test_nobody_is_ranked_where_nothing_is_known(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)
    assert "Nobody to help." in words(await browser.open("/help"))


async def test_while_the_record_is_silent_the_list_says_so(booked: Department) -> None:
    browser = await booked.sign_in("Lead-01", Role.LEAD)
    await browser.open("/help")
    gone = booked.house.rooms.pop("record")
    try:
        said = words(await browser.open("/help"))
    finally:
        booked.house.rooms["record"] = gone

    assert "Who may not come cannot be shown." in said
    assert "Nobody to help" not in said
