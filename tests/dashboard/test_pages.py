"""What stands on the pages when real rooms answer, and what when they do not. The specialist rooms do not run here."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import department
import httpx
import pytest
import pytest_asyncio
from dashboard_world import Browser, Department

from arcuate.kernel import codes
from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = {"HX-Request": "true"}


def words(answer: httpx.Response) -> str:
    """Return a page's text as it is read."""
    text = re.sub(r"<(script|head)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).replace(" ,", ",").split())


@pytest_asyncio.fixture(loop_scope="module")
async def scheduler(filled: Department) -> AsyncIterator[Browser]:
    yield await filled.sign_in("Scheduler-02", Role.SCHEDULER)


@pytest_asyncio.fixture(loop_scope="module")
async def reader(filled: Department) -> AsyncIterator[Browser]:
    yield await filled.sign_in(department.READER, Role.RADIOLOGIST)


async def visit_of(filled: Department, number: str) -> dict[str, Any]:
    """Return the appointment of Doe with that number."""
    found = await filled.fhir.search("Appointment", {"identifier": f"{codes.appointment_system('NG')}|A{number}"})
    return found[0]


async def case_of(filled: Department, number: str, browser: Browser) -> str:
    """Return the id of a case."""
    ledger = await filled.settled(lambda found: f"SYN-26-{number}" in found)
    return str(ledger[f"SYN-26-{number}"]["id"])


async def test_the_board_says_who_is_where_and_why(filled: Department, scheduler: Browser) -> None:
    said = words(await scheduler.open("/today"))

    assert "Today, Tue 17 Mar" in said
    assert "13:25 Doe-0407 MRI brain tumour, contrast on table 13 of 35 min" in said
    assert "15:20 Doe-0430 38 % MRI brain epilepsy two calls, no answer" in said
    assert "16:10 Doe-0434 5 % MRI brain metastases, contrast Contrast and kidneys" in said
    assert "12:40 Doe-0403 MRI lumbar spine did not come" in said
    assert "here, waits 19 min" in said
    assert "started 9 min late" in said
    assert "28 visits on 4 scanners; 1 cancelled, not shown." in said


async def test_the_board_puts_harm_first_and_each_task_has_one_button(scheduler: Browser) -> None:
    page = await scheduler.open("/today")
    tasks = page.text.split('<ol class="todos"', 1)[1].split("</ol>")[0]

    titles = re.findall(r"<b>(.*?)</b>", tasks)
    assert titles[0] == "Doe-0434 16:10: Contrast and kidneys"
    assert "38 % may not come" in titles[1]
    assert len(re.findall('class="button', tasks)) == len(titles) == 4


async def test_who_waits_is_shown_with_what_is_still_to_come(scheduler: Browser) -> None:
    said = words(await scheduler.open("/today"))

    assert "Waiting here 3" in said
    assert "Doe-0421 MR1 about 3 more (0 to 19) 19 min" in said


async def test_a_room_that_is_away_is_named_with_what_is_shown_instead(scheduler: Browser) -> None:
    said = words(await scheduler.open("/today"))

    assert re.search(r"Scheduling does not answer since \d\d:\d\d\. (Waits are counted|Chances shown)", said)


async def test_a_slot_opens_beside_the_board_with_the_fix_and_the_phone(filled: Department, scheduler: Browser) -> None:
    visit = await visit_of(filled, "0434")

    said = words(await scheduler.open(f"/today?visit={visit['id']}", **SCRIPT))

    assert "Doe-0434, Test 16:10, MR2, 40 min" in said
    assert "No eGFR is on file for an exam with contrast. Fix: Ask for creatinine" in said
    assert "Call +000 555 00434" in said


async def test_asking_the_ris_changes_nothing_until_the_ris_confirms(filled: Department, scheduler: Browser) -> None:
    visit = await visit_of(filled, "0433")
    await scheduler.open("/today")
    fields = {"kind": "reschedule", "to": department.stamp(department.at("14:45")), "reason": "slot is free earlier"}

    answer = await scheduler.send(f"/today/visit/{visit['id']}/ask", fields, **SCRIPT)
    again = await scheduler.send(f"/today/visit/{visit['id']}/ask", fields, **SCRIPT)

    assert "Asked the RIS to move to 14:45. The booking stays as it is" in words(answer)
    assert "Not done: The RIS has been asked about this visit already" in words(again)
    (task,) = await filled.fhir.search("Task", {"focus": f"Appointment/{visit['id']}"})
    assert task["status"] == "requested"
    assert task["code"]["coding"][0]["code"] == "reschedule"
    assert task["requester"]["display"] == "Scheduler-02"
    assert (await visit_of(filled, "0433"))["start"] == visit["start"]
    assert "asked: move to 14:45" in words(await scheduler.open("/today"))


async def test_asking_without_a_reason_is_refused_in_words(filled: Department, scheduler: Browser) -> None:
    visit = await visit_of(filled, "0441")
    await scheduler.open("/today")

    answer = await scheduler.send(f"/today/visit/{visit['id']}/ask", {"kind": "cancel", "reason": " "}, **SCRIPT)

    assert "Not done: Say why, in a few words." in words(answer)


async def test_the_same_facts_stand_in_a_list(scheduler: Browser) -> None:
    said = words(await scheduler.open("/today?view=list"))

    assert "15:20 Doe-0430, Test MRI brain epilepsy MR1 38 % two calls, no answer" in said


async def test_an_empty_board_says_what_comes_next(empty: Department) -> None:
    browser = await empty.sign_in("Scheduler-02", Role.SCHEDULER)

    said = words(await browser.open("/today"))

    assert "No visits today." in said
    assert "first steps" in said


async def test_a_scanned_case_is_in_its_readers_list_with_the_reason(filled: Department, reader: Browser) -> None:
    await _given(filled, "0402")

    said = words(await reader.open("/list"))

    assert "My list" in said
    assert "Doe-0402, Test MRI brain" in said
    assert "No images yet" in said
    assert "Why me" in said
    assert "Due due " in said


async def test_taking_a_case_shows_others_a_lock_and_they_may_take_over(filled: Department, reader: Browser) -> None:
    task = await _given(filled, "0402")
    await reader.open("/list")
    taken = await reader.send(f"/list/{task['id']}/take", {"version": task["meta"]["versionId"]}, **SCRIPT)
    other = await filled.sign_in("Reader-07", Role.RADIOLOGIST)

    seen = words(await other.open("/list?show=all"))
    refused = await other.send(f"/list/{task['id']}/take", {"version": ""}, **SCRIPT)
    over = await other.send(f"/list/{task['id']}/take-over", {"version": ""}, **SCRIPT)

    assert "The case is yours." in words(taken)
    assert f"{department.READER} since 13:4" in seen
    assert f"Not done: {department.READER} has this case open" in words(refused)
    assert f"Taken over from {department.READER}." in words(over)
    stored = await filled.fhir.read("Task", str(task["id"]))
    assert stored["owner"]["display"] == "Reader-07"
    assert f"Taken over from {department.READER} by Reader-07" in stored["note"][-1]["text"]


async def test_an_act_on_a_stale_version_is_refused(filled: Department, reader: Browser) -> None:
    task = await _given(filled, "0404")
    await reader.open("/list")

    answer = await reader.send(f"/list/{task['id']}/take", {"version": "0"}, **SCRIPT)

    assert "Not saved: somebody else changed this meanwhile." in words(answer)


async def test_a_case_that_is_handed_back_goes_to_somebody_else(filled: Department, reader: Browser) -> None:
    task = await _given(filled, "0406")
    await reader.open("/list")
    await reader.send(f"/list/{task['id']}/take", {"version": task["meta"]["versionId"]}, **SCRIPT)

    answer = await reader.send(f"/list/{task['id']}/hand-back", {"version": ""}, **SCRIPT)

    assert "Handed back." in words(answer)
    stored = await filled.fhir.read("Task", str(task["id"]))
    assert stored["status"] == "ready"
    assert "handed-back" in str(stored["output"])


async def test_an_empty_list_says_what_to_do(empty: Department) -> None:
    browser = await empty.sign_in(department.READER, Role.RADIOLOGIST)

    assert "Nothing waits to be read." in words(await browser.open("/list?show=all"))
    assert "Your list is empty." in words(await browser.open("/list?show=mine"))


async def test_the_case_page_tells_the_way_of_the_order(filled: Department, reader: Browser) -> None:
    case = await case_of(filled, "0402", reader)

    said = words(await reader.open(f"/case/{case}"))

    assert "Doe-0402, Test" in said
    assert "accession SYN-26-0402" in said
    assert "Ordered: 24 Feb 13:42" in said
    assert "Scanned: 12:59 to 13:29" in said
    assert "Ordered by Referrer-118 MRI brain without contrast" in said
    assert "headache, worse since March; rule out mass" in said
    assert "No draft yet." in said


async def test_measured_values_are_marked_until_a_person_has_accepted_them(filled: Department, reader: Browser) -> None:
    case = await case_of(filled, "0410", reader)
    order = await _order(filled, "0410")
    reference, subject = codes.reference("ServiceRequest", order["id"]), order["subject"]
    images = await filled.fhir.create(department.study("0410", request=reference, subject=subject))
    values = {("hippocampus", "right"): 2.31, ("hippocampus", "left"): 2.74, ("third-ventricle", ""): 1.2}
    for one in department.measurements(reference, subject, codes.reference("ImagingStudy", images["id"]), values):
        await filled.fhir.create(one)

    page = await reader.open(f"/case/{case}")

    said = words(page)
    assert "3 not reviewed" in said
    assert "Hippocampus 2.31 mL 2.74 mL left 17 % larger" in said
    assert "Third ventricle 1.20 mL" in said
    assert page.text.count('class="machine-value"') == 2


async def test_held_images_show_both_identities_and_a_person_releases_them(filled: Department) -> None:
    lead = await filled.sign_in("Lead-01", Role.LEAD)
    said = {**department.patient("0999"), "name": [{"family": "Else"}], "birthDate": "1950-01-01"}
    await filled.fhir.create(department.study("0423", said=said))
    ledger = await filled.settled(lambda found: bool(found["SYN-26-0423"]["held"]))
    case = ledger["SYN-26-0423"]["id"]

    board = words(await lead.open("/today"))
    page = words(await lead.open(f"/case/{case}"))
    without = words(await lead.send(f"/case/{case}/release", {"reason": ""}, **SCRIPT))
    released = words(await lead.send(f"/case/{case}/release", {"reason": "name changed by marriage"}, **SCRIPT))

    assert "Images held: not sure whose" in board
    assert "order images Number SYN0423 SYN0999 Name Doe-0423, Test Else" in page
    assert "Not done: Say why you are sure" in without
    assert "Released." in released
    await filled.settled(lambda found: not found["SYN-26-0423"]["held"])


async def test_a_search_finds_by_name_and_number_and_leaves_nothing_in_the_address(
    filled: Department, scheduler: Browser
) -> None:
    await case_of(filled, "0435", scheduler)
    await scheduler.open("/cases")

    for query in ("Doe-0435", "SYN-26-0435", "SYN0435"):
        answer = await scheduler.send("/cases", {"q": query})
        assert "SYN-26-0435" in words(answer), query
        assert "1 found" in words(answer), query
        assert answer.url.path == "/cases"
        assert not answer.url.query

    nothing = await scheduler.send("/cases", {"q": "Nobody"})
    assert "Nothing was found." in words(nothing)


async def test_no_name_stands_in_a_title(filled: Department, reader: Browser) -> None:
    case = await case_of(filled, "0402", reader)
    for path in ("/today", "/list", "/cases", f"/case/{case}"):
        title = re.search(r"<title>(.*?)</title>", (await reader.open(path)).text)
        assert title is not None
        assert "Doe" not in title.group(1)


async def test_a_wrong_address_and_a_missing_right_are_explained(filled: Department, scheduler: Browser) -> None:
    nowhere, no_case = await scheduler.open("/nowhere"), await scheduler.open("/case/0000")
    connections = await scheduler.open("/connections")

    assert nowhere.status_code == no_case.status_code == 404
    assert "There is nothing here" in words(nowhere)
    assert "There is no such case, or you may not see it" in words(no_case)
    assert "This needs one of the roles: integration" in words(connections)


async def test_connections_account_for_every_message_and_a_parked_one_can_be_mended(empty: Department) -> None:
    browser = await empty.sign_in("Integration-03", Role.INTEGRATION)
    assert "Nothing parked." in words(await browser.open("/errors"))
    await empty.send(BAD)
    parked = await _until_parked(empty)

    connections = words(await browser.open("/connections"))
    listed = words(await browser.open("/errors"))
    opened = await browser.open(f"/errors/{parked['id']}")

    assert "1 message parked" in connections
    assert "1 in, 1 accounted for" in connections
    assert "DOE" not in listed
    assert "Open a message at the left." in listed
    assert "DOE^SYN" in words(opened)
    assert 'class="bad"' in opened.text
    await _mends(empty, browser, parked)


async def _mends(empty: Department, browser: Browser, parked: dict[str, Any]) -> None:
    tried = await browser.send(f"/errors/{parked['id']}/try", {"value": "19710203"}, **SCRIPT)
    aside = await browser.send(f"/errors/{parked['id']}/discard", {"reason": ""}, **SCRIPT)
    mended = await browser.send(f"/errors/{parked['id']}/mend", {"value": "19710203"}, **SCRIPT)

    assert "<ins>19710203</ins>" in tried.text
    assert "Not done: A message is set aside only with a reason" in words(aside)
    assert "The mended copy is replayed." in words(mended)
    async with asyncio.timeout(20):
        while not await empty.fhir.search("Patient", {"identifier": "SYN0455"}):
            await asyncio.sleep(0.05)
    assert "Nothing parked. 1 in, 1 accounted for." in words(await browser.open("/errors"))


async def test_the_first_steps_close_one_by_one(empty: Department) -> None:
    browser = await empty.sign_in("Admin-01", Role.ADMIN)

    said = words(await browser.open("/start"))

    assert "You can sign in Admin-01." in said
    assert "no booking yet" in said
    assert "Measurements after step 6" in said
    assert "Order checks not now: protocoling is silent" in said


async def test_parts_come_alone_and_say_when_they_were_made(filled: Department, scheduler: Browser) -> None:
    answer = await scheduler.open("/today/parts?names=facts,waiting", **{"X-Live": "1"})

    assert re.match(r"\d\d:\d\d", answer.headers["x-made"])
    assert 'id="facts"' in answer.text
    assert 'id="waiting"' in answer.text
    assert "<html" not in answer.text


BAD = (
    b"MSH|^~\\&|RIS|NG|ARCUATE|NG|20260317131604||ORM^O01|71183|P|2.3.1\r"
    b"PID|1||SYN0455^^^NG^MR||DOE^SYN||19710231|F\r"
    b"PV1|1|O|NEURO^^^NG\rORC|NW|P-90311|A-90311\rOBR|1|P-90311|A-90311|MRIAC2^MRI internal auditory canals^L\r"
)


async def _until_parked(empty: Department) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            found = (await empty.rooms_http.get("/gateway/errors")).json()["items"]
            if found:
                return dict(found[0])
            await asyncio.sleep(0.05)


async def _order(filled: Department, number: str) -> dict[str, Any]:
    found = await filled.fhir.search("ServiceRequest", {"identifier": f"{codes.SYSTEM_ACCESSION}|SYN-26-{number}"})
    return found[0]


async def _given(filled: Department, number: str) -> dict[str, Any]:
    """Return the reading Task of a case once a reader has it."""
    order = await _order(filled, number)
    async with asyncio.timeout(30):
        while True:
            for task in await filled.fhir.search("Task", {"focus": f"ServiceRequest/{order['id']}"}):
                if task.get("owner"):
                    return task
            await asyncio.sleep(0.1)
