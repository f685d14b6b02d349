"""Every page in a real browser: accessible, whole at its size, silent in the console, and complete without script."""

import department
import pytest
from browser_world import LOW, WIDE, Screen, Theatre, settle

from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEDULER, READER = ("Scheduler-02", Role.SCHEDULER), (department.READER, Role.RADIOLOGIST)
ENGINEER, ADMIN = ("Integration-03", Role.INTEGRATION), ("Admin-01", Role.ADMIN)
# Who looks, and by page what must be in sight on a low window too: the main act, or the first row.
PAGES = {
    "scheduler": (SCHEDULER, {
        "/today": "#next .button.primary", "/today?view=list": "#next .button.primary", "/cases": "#rows tbody th", "/me": ".button.primary",
        "/case/{held}": "#side .button.danger",
    }),
    "reader": (READER, {"/list": "#why .button.primary", "/list?show=shared": "#rows b", "/case/{case}": ".summary .button.primary"}),
    "engineer": (ENGINEER, {
        "/connections": "#side h2", "/reconciler": "#why .button.primary", "/errors": "#items [data-row]", "/errors/{parked}": ".button.primary",
        "/errors/{parked}?show=raw": "pre",
    }),
    "admin": (ADMIN, {"/start": "#steps .now"}),
    "nobody": ((), {"/sign-in": ".button.primary", "/sign-in?token=used": ".button.primary"}),
}  # fmt: skip


def place(stage: Theatre, path: str) -> str:
    """Return the address of a page."""
    return path.format(case=stage.case, held=stage.held, parked=stage.parked)


async def faults(screen: Screen, main: str) -> list[str]:
    """Return everything that is wrong with the page that is open."""
    await settle(screen)
    found = [*await screen.findings(), *(f"scrolls: {way}" for way in await screen.beyond())]
    found += [f"cut: {text}" for text in await screen.cut()]
    await screen.page.set_viewport_size(LOW)  # type: ignore[arg-type]
    if not await screen.in_sight(main):
        found.append(f"{main} is out of sight on a low window")
    found += [f"scrolls on a low window: {way}" for way in await screen.beyond()]
    await screen.page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    found += [f"console: {text}" for text in screen.complaints]
    screen.complaints.clear()
    return found


@pytest.mark.parametrize("who", PAGES)
async def test_every_page_is_accessible_whole_and_without_complaint(stage: Theatre, who: str) -> None:
    person, pages = PAGES[who]
    found = {}
    async with stage.screen(*person) as screen:
        for path, main in pages.items():
            await screen.open(place(stage, path))
            found[path] = await faults(screen, main)

    assert {path: wrong for path, wrong in found.items() if wrong} == {}


async def test_the_other_theme_is_accessible_too(stage: Theatre) -> None:
    async with stage.screen("Lead-01", Role.LEAD) as screen:
        for path in ("/today", "/list"):
            await screen.open(path)
            before = await screen.page.get_attribute("html", "data-theme")
            await screen.page.keyboard.press("Shift+D")
            await screen.page.wait_for_function("old => document.documentElement.dataset.theme !== old", arg=before)
            assert await screen.findings() == []


async def test_at_twice_the_size_nothing_is_lost_sideways(stage: Theatre) -> None:
    everybody = ("Lead-01", Role.LEAD, Role.RADIOLOGIST, Role.INTEGRATION)
    async with stage.screen(*everybody, size={"width": 683, "height": 384}) as screen:
        for path in ("/today", "/list", "/case/{case}", "/errors/{parked}"):
            await screen.open(place(stage, path))

            assert "w" not in await screen.beyond(), path
            assert await screen.cut() == [], path


WITHOUT_SCRIPT = {
    "scheduler": (SCHEDULER, {"/today": "two calls, no answer", "/cases": "SYN-26-0460"}),
    "reader": (READER, {"/list": "8 volumes, not reviewed", "/case/{case}": "Right hippocampus: 2.31 mL"}),
    "engineer": (ENGINEER, {"/connections": "No connection since", "/errors/{parked}": "DOE-0455^TEST"}),
}  # fmt: skip


@pytest.mark.parametrize("who", WITHOUT_SCRIPT)
async def test_pages_show_their_content_without_script(stage: Theatre, who: str) -> None:
    person, pages = WITHOUT_SCRIPT[who]
    async with stage.screen(*person, script=False) as screen:
        for path, text in pages.items():
            await screen.open(place(stage, path))

            assert text in " ".join((await screen.page.locator("main").inner_text()).split())
