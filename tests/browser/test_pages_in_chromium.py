"""Every page in a real browser: accessible, whole, silent in the console, complete without script; worked by keys, and told what is new."""

import department
import pytest
from browser_world import LOW, WIDE, Screen, Theatre, order_message, settle

from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEDULER, READER = ("Scheduler-02", Role.SCHEDULER), (department.READER, Role.RADIOLOGIST)
ENGINEER, ADMIN = ("Integration-03", Role.INTEGRATION), ("Admin-01", Role.ADMIN)
QUALITY = ("Quality-04", Role.QUALITY)
# Who looks, and by page what must be in sight on a low window too: the main act, or the first row.
PAGES = {
    "scheduler": (SCHEDULER, {
        "/today": "#next .button.primary", "/cases": "#rows tbody th", "/help": "#why .chance", "/me": ".button.primary",
        "/case/{held}": "#side .button.danger",
    }),
    "reader": (READER, {
        "/list": "#why .button.primary", "/case/{case}": ".summary .button.primary", "/case/{case}/measurements": "#chosen .button.primary",
        "/case/{held}/measurements": "#values .button",
    }),
    "engineer": (ENGINEER, {
        "/connections": "#side h2", "/reconciler": "#why .button.primary", "/errors/{parked}": ".button.primary",
    }),
    "admin": (ADMIN, {"/start": "#steps .now"}),
    "quality": (QUALITY, {"/models": "#side h2"}),
    "nobody": ((), {"/sign-in": ".button.primary"}),
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
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/today")
        await screen.page.keyboard.press("Shift+D")
        await screen.page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")

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
    "reader": (READER, {
        "/list": "8 volumes, not reviewed", "/case/{case}": "Right hippocampus: 2.31 mL", "/case/{case}/measurements": "8 of 8 not reviewed",
    }),
    "engineer": (ENGINEER, {"/connections": "No connection since", "/errors/{parked}": "DOE-0455^TEST"}),
}  # fmt: skip


@pytest.mark.parametrize("who", WITHOUT_SCRIPT)
async def test_pages_show_their_content_without_script(stage: Theatre, who: str) -> None:
    person, pages = WITHOUT_SCRIPT[who]
    async with stage.screen(*person, script=False) as screen:
        for path, text in pages.items():
            await screen.open(place(stage, path))

            assert text in " ".join((await screen.page.locator("main").inner_text()).split())


async def press(screen: Screen, *keys: str) -> None:
    """Press keys one after the other."""
    for key in keys:
        await screen.page.keyboard.press(key)


async def reads(screen: Screen, selector: str, text: str) -> None:
    """Wait until a part of the page reads so."""
    await screen.page.locator(selector).filter(has_text=text).first.wait_for()


async def tab_to(screen: Screen, selector: str, most: int = 60) -> None:
    """Go on by the tab key until an element has the focus; every stop on the way can be seen."""
    for _ in range(most):
        await press(screen, "Tab")
        if await screen.page.evaluate("css => document.activeElement.matches(css)", selector):
            return
        assert await screen.focus_is_seen(), await screen.focused()
    pytest.fail(f"{selector} is not reached by the tab key")


async def test_the_first_stop_leads_past_the_top_bar(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/today")

        await press(screen, "Tab")
        assert await screen.focused() == "To the content"
        assert await screen.focus_is_seen()
        await press(screen, "Enter")

        assert await screen.focused() == "main"


async def test_a_scheduler_works_the_board_by_keys_alone(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/today")
        await press(screen, "2")
        await reads(screen, "#picked h2", "Doe-0434, Test")

        await press(screen, "j", "ArrowRight", "ArrowDown")
        slot = await screen.focused()
        assert slot.startswith("v-")
        name = await screen.page.locator(f"#{slot} b").inner_text()
        await press(screen, "Enter")
        await reads(screen, "#picked h2", name)

        await press(screen, "3")
        await reads(screen, "#picked h2", "Doe-0430, Test")
        await tab_to(screen, "#picked input[name=reason]")
        await screen.page.keyboard.type("asked for another time")
        await tab_to(screen, "#picked button[value=reschedule]")
        await press(screen, "Enter")
        await reads(screen, "#said", "Asked the RIS to move.")
        assert screen.complaints == []


async def test_the_board_as_a_list_is_one_key_away(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/today")
        await press(screen, "v")
        await reads(screen, "#board table", "Doe-0434, Test")


async def test_a_reader_moves_opens_takes_and_hands_back_by_keys(stage: Theatre) -> None:
    async with stage.screen(*READER) as screen:
        await screen.open("/list")
        await press(screen, "j", "j")
        row = await screen.focused()
        name = await screen.page.locator(f"#{row}").inner_text()
        await reads(screen, "#why", name)
        await press(screen, "k", "j", "Enter")
        await screen.page.wait_for_url("**/case/*")
        await reads(screen, "h1", name)

        await press(screen, "t")
        await reads(screen, "#said", "The case is yours.")
        await press(screen, "t")
        await reads(screen, "#said", "Handed back.")
        await press(screen, "Escape")
        await screen.page.wait_for_url("**/list*")
        assert screen.complaints == []


async def test_a_reader_judges_values_by_keys_and_the_next_one_comes(stage: Theatre) -> None:
    async with stage.screen(*READER) as screen:
        await screen.open(f"/case/{stage.case}/measurements?at=amygdala-right")
        await press(screen, "j", "k", "a")
        await reads(screen, "#judged", "Amygdala, right: 1.31 mL accepted.")
        await reads(screen, "#chosen h2", "Amygdala, left")
        await screen.page.wait_for_function("() => document.activeElement.textContent === 'Amygdala, left'")
        await press(screen, "x")
        await screen.page.keyboard.type("runs into the hippocampus")
        await press(screen, "Enter")
        await reads(screen, "#judged", "Amygdala, left rejected.")
        await press(screen, "u")
        await reads(screen, "#judged", "Amygdala, left: taken back.")
        await press(screen, "o")
        await reads(screen, "#picture [aria-current]", "Fill")
        await press(screen, "Escape")
        await screen.page.wait_for_url(lambda url: url.endswith(stage.case))
        await press(screen, "m")
        await screen.page.wait_for_url("**/measurements")
        assert screen.complaints == []


async def test_letters_act_outside_of_fields_only_and_a_search_stays_out_of_the_address(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/today")
        await press(screen, "/")
        await screen.page.keyboard.type("Doe-0435")
        assert screen.page.url.endswith("/today")
        await press(screen, "Enter")
        await reads(screen, "#rows", "SYN-26-0435")

        assert screen.page.url == f"{stage.address}/cases"


async def test_all_keys_are_told_and_letters_can_be_switched_off(stage: Theatre) -> None:
    async with stage.screen("Scheduler-09", Role.SCHEDULER) as screen:
        await screen.open("/today")
        await press(screen, "?")
        await reads(screen, "dialog[open]", "move over slots")
        await press(screen, "Escape")
        await screen.open("/me")
        await screen.page.get_by_role("button", name="Switch letter keys off").click()
        await screen.open("/today")
        await press(screen, "v", "?")

        assert screen.page.url.endswith("/today")
        assert await screen.page.locator("dialog[open]").count() == 0


async def test_a_new_order_appears_without_loading_the_page_again(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/cases")
        await screen.page.evaluate("() => { window.notLoadedAgain = true; }")
        await reads(screen, "#age", "Live")

        await stage.house.send(order_message("0470"))

        await reads(screen, "#rows", "SYN-26-0470")
        assert await screen.page.evaluate("() => window.notLoadedAgain === true")
        assert screen.complaints == []


async def test_what_is_new_waits_while_somebody_works_and_the_focus_stays(stage: Theatre) -> None:
    async with stage.screen(*SCHEDULER) as screen:
        await screen.open("/cases")
        await reads(screen, "#age", "Live")
        await press(screen, "j", "j")
        row = await screen.focused()

        await stage.house.send(order_message("0471"))
        await reads(screen, "#changes", "show")
        assert await screen.page.locator("#rows").filter(has_text="SYN-26-0471").count() == 0
        await press(screen, ".")

        await reads(screen, "#rows", "SYN-26-0471")
        assert await screen.focused() == row


async def test_a_parked_message_is_replayed_once_even_if_two_people_press(stage: Theatre) -> None:
    async with (
        stage.screen("Integration-03", Role.INTEGRATION) as one,
        stage.screen("Integration-04", Role.INTEGRATION) as other,
    ):
        for screen in (one, other):
            await screen.open(f"/errors/{stage.parked}")
            await press(screen, "e")
            await screen.page.keyboard.type("19710203")
            await reads(screen, "#difference ins", "19710203")
            await press(screen, "Escape")
        await press(one, "r")
        await reads(one, "#said", "The mended copy is replayed.")
        await press(other, "r")
        await reads(other, "#said", "Not done:")

        found = await stage.house.fhir.search("Patient", {"identifier": "SYN0455"})
        assert [p["birthDate"] for p in found] == ["1971-02-03"]


async def test_a_key_acts_on_the_row_under_the_hand_and_on_no_other(stage: Theatre) -> None:
    async with stage.screen("Reader-07", Role.RADIOLOGIST) as screen:
        await screen.open("/list?show=all")
        await screen.page.locator("#rows [data-row]").nth(1).wait_for()
        await screen.page.route("**/list/why/**", lambda route: route.abort())
        await press(screen, "j")
        await press(screen, "t", "t")

        assert await screen.page.locator("#said").inner_text() == ""
