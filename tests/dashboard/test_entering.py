"""Coming in: links, passwords, sessions that end, forms from elsewhere."""

from pathlib import Path

import httpx
import pytest
from dashboard_world import Department, open_department

from arcuate.dashboard.sessions import COOKIE
from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

HTML = {"Accept": "text/html"}


async def test_nobody_sees_a_page_without_signing_in(empty: Department) -> None:
    for path in (
        "/",
        "/today",
        "/list",
        "/cases",
        "/case/x",
        "/connections",
        "/errors",
        "/errors/in-1",
        "/start",
        "/me",
    ):
        answer = await empty.browser().open(path)

        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in")


async def test_opening_a_link_uses_nothing_up_but_the_button_does_once(empty: Department) -> None:
    link = await empty.link("Scheduler-02", Role.SCHEDULER)
    browser = empty.browser()

    for _ in range(2):
        page = await browser.open(f"/sign-in?token={link}")
        assert "Sign in with this link" in page.text
    first = await browser.send("/sign-in", {"link": link})
    second = await empty.browser().send("/sign-in", {"link": link})

    assert (first.status_code, first.headers["location"]) == (303, "/")
    assert second.status_code == 401
    assert "used before, or is too old" in second.text


async def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(empty: Department) -> None:
    answer = await empty.browser().send("/sign-in", {"link": await empty.link("Scheduler-02", Role.SCHEDULER)})

    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith(COOKIE)
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


async def test_what_is_stored_opens_nothing_without_the_cookie(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)
    cookie = browser.http.cookies[COOKIE]

    stored = b"".join(p.read_bytes() for p in (empty.folder / "dashboard").glob("dashboard.db*"))

    assert cookie.encode() not in stored


async def test_wrong_password_and_unknown_name_are_answered_in_the_same_words(empty: Department) -> None:
    browser = await empty.sign_in("Reader-04", Role.RADIOLOGIST)
    await browser.open("/me")
    await browser.send("/me/password", {"password": "a few good words", "again": "a few good words"})

    wrong = await empty.browser().send("/sign-in", {"name": "Reader-04", "password": "something else"})
    unknown = await empty.browser().send("/sign-in", {"name": "Reader-99", "password": "something else"})
    right = await empty.browser().send("/sign-in", {"name": "Reader-04", "password": "a few good words"})

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text.replace("Reader-04", "") == unknown.text.replace("Reader-99", "")
    assert right.status_code == 303


async def test_a_session_ends_after_a_time_without_a_key_but_not_before(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)

    empty.clock.advance(14 * 60)
    assert (await browser.open("/me")).status_code == 200
    empty.clock.advance(14 * 60)
    assert (await browser.open("/today/parts?names=facts", **{"X-Live": "1"})).status_code == 200  # the page by itself
    empty.clock.advance(2 * 60)

    assert (await browser.open("/today")).headers["location"] == "/sign-in?then=/today"


async def test_a_write_without_the_pages_mark_or_from_another_site_is_refused(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)
    await browser.open("/me")

    bare = await browser.http.post("/me/keys", data={"letters": "off"}, headers=HTML)
    foreign = await browser.send("/me/keys", {"letters": "off"}, **{"Sec-Fetch-Site": "cross-site"})

    assert bare.status_code == foreign.status_code == 400
    assert "<b>yes</b>" in (await browser.open("/me")).text


async def test_sign_out_ends_the_session_here_and_in_the_access_room(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)
    cookie = browser.http.cookies[COOKIE]
    await browser.open("/me")

    await browser.send("/sign-out")

    again = empty.browser()
    again.http.cookies.set(COOKIE, cookie)
    assert (await again.open("/me")).status_code == 303


@pytest.mark.parametrize(
    "then", ["//elsewhere.example", "https://elsewhere.example/", "/\\elsewhere.example", "javascript:alert(1)"]
)
async def test_sign_in_never_leads_to_another_site(empty: Department, then: str) -> None:
    fields = {"link": await empty.link("Scheduler-02", Role.SCHEDULER), "then": then}

    answer = await empty.browser().send("/sign-in", fields)

    assert answer.headers["location"] == "/"


@pytest.mark.parametrize(
    ("role", "page"),
    [
        (Role.SCHEDULER, "/today"),
        (Role.RADIOLOGIST, "/list"),
        (Role.LEAD, "/list"),
        (Role.QUALITY, "/cases"),
        (Role.ADMIN, "/start"),
    ],
)
async def test_each_role_begins_on_its_own_page(empty: Department, role: Role, page: str) -> None:
    browser = await empty.sign_in(f"Somebody {role}", role)

    assert (await browser.open("/")).headers["location"] == page


async def test_the_theme_is_kept_for_a_person_at_a_workstation(empty: Department) -> None:
    browser = await empty.sign_in("Reader-04", Role.RADIOLOGIST)
    assert 'data-theme="dark"' in (await browser.open("/list")).text

    await browser.send("/me/theme", {"theme": "light", "back": "/list"})

    assert 'data-theme="light"' in (await browser.open("/list")).text


async def test_when_the_access_room_is_away_the_page_says_so(tmp_path: Path) -> None:
    async with open_department(tmp_path / "data", ("record", "dashboard")) as alone:
        answer = await alone.browser().send("/sign-in", {"name": "Reader-04", "password": "x" * 12})

        assert answer.status_code == 503
        assert "does not" in answer.text


async def test_pages_carry_the_security_headers_and_no_inline_code(empty: Department) -> None:
    browser = await empty.sign_in("Everybody", *(Role(r) for r in ("scheduler", "radiologist", "integration", "admin")))
    for path in ("/today", "/list", "/cases", "/connections", "/errors", "/start", "/me", "/nowhere"):
        answer: httpx.Response = await browser.open(path)

        policy = answer.headers["content-security-policy"]
        assert "unsafe-inline" not in policy
        assert "default-src 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert " style=" not in answer.text
        assert "<script>" not in answer.text
        assert " onclick=" not in answer.text
