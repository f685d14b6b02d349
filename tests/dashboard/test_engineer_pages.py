"""Pages of the integration engineer: what stands still, what failed and was told once, what a ledger says without names."""

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import department
import httpx
import pytest
import pytest_asyncio
from dashboard_world import Browser, Department, open_department

from arcuate.dashboard.domain.frame import Viewer
from arcuate.dashboard.pages.errors import Opened, Parked, load_words, parked_items
from arcuate.dashboard.pages.ledger import case_line
from arcuate.dashboard.render import Frame
from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

_LOSER = 'name="patient" value="'
SCRIPT = {"HX-Request": "true"}
NO_TIME = (
    b"MSH|^~\\&|RIS|NG|ARCUATE|NG|20260317131604||ORM^O01|71184|P|2.3.1\r"
    b"PID|1||SYN0456^^^NG^MR||DOE^SYN||19710231|F\r"
    b"PV1|1|O|NEURO^^^NG\rORC|NW|P-90312|A-90312\rOBR|1|P-90312|A-90312|MRIAC2^MRI internal auditory canals^L\r"
)


def words(answer: httpx.Response) -> str:
    """Return a page's text as it is read."""
    text = re.sub(r"<(script|head)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).replace(" ,", ",").replace(" .", ".").split())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Department]:
    """A house with a small part of the day in it: lists need few cases."""
    few = tuple(v for v in department.DAY if v.number in ("0402", "0423", "0439", "0441"))
    async with open_department(tmp_path_factory.mktemp("few")) as made:
        await made.fhir.transaction(department.roster())
        await made.fhir.transaction(department.day(few))
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def engineer(filled: Department) -> AsyncIterator[Browser]:
    yield await filled.sign_in("Integration-03", Role.INTEGRATION)


async def until_read(browser: Browser, path: str, text: str) -> str:
    """Return a page's words once it reads so."""
    said = ""
    async with asyncio.timeout(60):
        while text not in said:
            await asyncio.sleep(0.1)
            said = words(await browser.open(path))
    return said


def desk_frame(desk: Any) -> Frame:
    """Return a frame around a page that nobody asked for."""
    viewer = Viewer("p", "Integration-03", frozenset({Role.INTEGRATION}), "light", letter_keys=True, csrf="c")
    return Frame("errors", "Parked messages", viewer, desk.words)


async def held_case(filled: Department) -> str:
    """Return the id of the case whose images state somebody else."""
    known = await filled.settled(lambda rows: "SYN-26-0423" in rows, 60)
    if not known["SYN-26-0423"]["held"]:
        said = {**department.patient("0999"), "name": [{"family": "Else"}], "birthDate": "1950-01-01"}
        await filled.fhir.create(department.study("0423", said=said))
    rows = await filled.settled(lambda rows: bool(rows["SYN-26-0423"]["held"]), 60)
    return str(rows["SYN-26-0423"]["id"])


async def test_nothing_that_stands_still_is_said_so(empty: Department) -> None:
    browser = await empty.sign_in("Integration-03", Role.INTEGRATION)

    said = words(await browser.open("/reconciler"))

    assert "Nothing stands still." in said
    assert "Images without an order: none" in said or "images without an order: none" in said


async def test_what_needs_a_person_is_listed_with_its_reason_and_one_way_on(
    filled: Department, engineer: Browser
) -> None:
    case = await held_case(filled)
    await filled.send(NO_TIME)
    said = await until_read(engineer, "/reconciler", "ORM^O01 from RIS")

    page = await engineer.open(f"/reconciler?at={case}")
    message = await engineer.open("/reconciler?at=in-1")

    assert "1 held" in said
    assert "Held until a person has decided 1" in said
    assert "Acknowledged to the sender but not filed 1" in said
    assert "Doe" not in said
    assert "DOE" not in said
    assert f'href="/case/{case}"' in page.text
    assert "compare both identities" in words(page)
    assert 'class="button primary" href="/errors/in-1"' in message.text


async def test_a_case_can_be_looked_at_again(filled: Department, engineer: Browser) -> None:
    case = await held_case(filled)
    await engineer.open("/reconciler")

    again = await engineer.send(f"/reconciler/{case}/again", **SCRIPT)
    nothing = await engineer.send("/reconciler/0000/again", **SCRIPT)

    assert "It is looked at again." in words(again)
    assert "Not done:" in words(nothing)


async def test_a_room_that_fails_is_told_once_with_what_goes_on_without_it(
    filled: Department, engineer: Browser
) -> None:
    for _ in range(5):  # looked at again and again, told after a while
        filled.clock.advance(16)
        await asyncio.sleep(0.3)

    said = await until_read(engineer, "/connections", "Scheduling fails since")

    assert said.count("Scheduling fails since") == 1
    assert "Booking goes on; the site's own rate is shown instead of a chance." in said
    assert re.search(r"\d rooms do not answer", said)


async def test_the_ledger_of_an_engineer_says_where_everything_is_without_names(
    filled: Department, engineer: Browser
) -> None:
    await filled.settled(lambda rows: "SYN-26-0441" in rows, 60)

    said = words(await engineer.open("/cases?show=all"))

    assert "SYN-26-0441" in said
    assert "waits for" in said.lower()
    assert "Doe-" not in said


async def test_a_case_says_where_it_is_since_when_and_what_it_waits_for(filled: Department) -> None:
    scheduler = await filled.sign_in("Scheduler-02", Role.SCHEDULER)
    rows = await filled.settled(lambda rows: rows.get("SYN-26-0441", {}).get("stage") == "booked", 60)

    said = words(await scheduler.open(f"/case/{rows['SYN-26-0441']['id']}"))

    assert re.search(r"Where it is Booked since 13:4\d, waits for the patient\. Expected by", said)


async def test_an_order_that_nobody_could_check_is_never_shown_as_clean(filled: Department) -> None:
    scheduler = await filled.sign_in("Scheduler-02", Role.SCHEDULER)

    def unchecked(rows: dict[str, dict[str, object]]) -> bool:
        return "check" in str(rows.get("SYN-26-0439", {}).get("silent"))

    rows = await filled.settled(unchecked, 60)

    said = words(await scheduler.open(f"/case/{rows['SYN-26-0439']['id']}"))

    assert "Flags Not checked: protocoling does not answer" in said
    assert "Checked, nothing found" not in said


async def test_images_of_somebody_else_are_kept_out_with_a_reason(filled: Department) -> None:
    lead, case = await filled.sign_in("Lead-01", Role.LEAD), await held_case(filled)
    await lead.open(f"/case/{case}")

    without = await lead.send(f"/case/{case}/keep-out", {"reason": " "}, **SCRIPT)
    kept = await lead.send(f"/case/{case}/keep-out", {"reason": "sent under the wrong number"}, **SCRIPT)

    assert "Not done: Say why they do not belong here" in words(without)
    assert "Kept out. The case goes on without these images" in words(kept)


async def test_faults_are_named_as_people_name_them() -> None:
    say = load_words()

    assert (
        say.fault("PID-7", "PID-7 holds no time that can be read")
        == "PID-7, birth date: holds no time that can be read"
    )
    assert say.title("invalid time") == "A date or time that does not exist"
    assert say.title("something new") == "Something new"
    assert set(say.titles) == set(say.todos)


async def test_what_goes_out_stands_in_the_queue_under_its_cause() -> None:
    row = {
        "kind": "ORU^R01",
        "state": "parked",
        "about": "DiagnosticReport/7",
        "created": "2026-03-17T12:42:00.000+00:00",
    }
    refused = {
        **row,
        "id": "out-3",
        "receiver": "dictation",
        "cause": "refused by a receiver",
        "reason": "AR: no such order",
    }
    unbuilt = {
        **row,
        "id": "job-9",
        "receiver": "",
        "kind": "compose",
        "cause": "could not be built",
        "reason": "no patient",
    }

    found = parked_items({"items": [], "outgoing": [refused, unbuilt]})

    assert [(i.id, i.cause, i.kind, i.party) for i in found] == [
        ("out-3", "refused by a receiver", "ORU^R01", "to dictation"),
        ("job-9", "could not be built", "DiagnosticReport", "on its way out"),
    ]
    assert all(i.cause in load_words().titles for i in found)


@pytest.mark.parametrize("number", ["out-3", "job-9"])
async def test_what_goes_out_can_be_opened_and_says_what_to_do(filled: Department, number: str) -> None:
    desk = filled.house.rooms["dashboard"].app.state.desk
    item = {"id": number, "receiver": "", "kind": "compose", "state": "parked", "cause": "could not be built", "reason": "no patient",
            "about": "DiagnosticReport/7", "segments": [], "text": ""}  # fmt: skip
    view = Parked(desk.words, opened=Opened.of(item), say=load_words())
    frame = desk_frame(desk)

    made = [
        desk.renderer.text(f"errors/{part}.html", view=view, frame=frame, oob=False) for part in ("message", "mend")
    ]

    assert "no patient." in made[0]
    assert "it is built anew" in made[0]
    assert ("Build it anew" if number == "job-9" else "Replay as received") in made[1]


def adt(event: str, number: int, *segments: str) -> bytes:
    head = f"MSH|^~\\&|RIS|NG|ARCUATE|NG|202603171316{number:02}||{event}|M{number}|P|2.5.1"
    return ("\r".join([head, *segments]) + "\r").encode()


def ordered(number: int, patient: str, accession: str) -> bytes:
    return adt(
        "ORM^O01", number, f"PID|1||{patient}^^^NG^MR||SYN^{patient}||19710228", f"ORC|NW|P{number}|{accession}",
        f"OBR|1|P{number}|{accession}|MRIAC2^MRI internal auditory canals^L",
    )  # fmt: skip


async def test_f024_a_merge_is_taken_back_from_the_case_page_by_who_may_with_a_reason(
    filled: Department, engineer: Browser
) -> None:
    await filled.send(ordered(1, "SYNM1", "SYN-M1"))
    await filled.send(ordered(2, "SYNM2", "SYN-M2"))
    await filled.settled(lambda rows: all((rows.get(one) or {}).get("patient") for one in ("SYN-M1", "SYN-M2")), 60)
    await filled.send(adt("ADT^A40^ADT_A39", 3, "PID|1||SYNM2^^^NG^MR||SYN^SYNM2", "MRG|SYNM1^^^NG^MR"))
    rows = await filled.settled(lambda rows: rows["SYN-M1"]["patient"] == rows["SYN-M2"]["patient"], 60)
    page = f"/case/{rows['SYN-M1']['id']}"
    await filled.send(ordered(4, "SYNM2", "SYN-M3"))
    await filled.settled(lambda rows: "SYN-M3" in rows, 60)
    scheduler = await filled.sign_in("Scheduler-01", Role.SCHEDULER)

    async with asyncio.timeout(60):
        while _LOSER not in (await engineer.open(page)).text:
            await asyncio.sleep(0.1)
    said = words(await engineer.open(page))
    unseen = words(await scheduler.open(page))
    loser = (await engineer.open(page)).text.split(_LOSER, 1)[1].split('"', 1)[0]
    fields = {"patient": loser, "reason": "Two people of one name"}
    forbidden = await scheduler.send(f"{page}/unmerge", fields, **SCRIPT)
    without = await engineer.send(f"{page}/unmerge", {"patient": loser, "reason": " "}, **SCRIPT)
    done = await engineer.send(f"{page}/unmerge", fields, **SCRIPT)
    twice = await engineer.send(f"{page}/unmerge", fields, **SCRIPT)

    assert "Number SYNM1 was merged into this person" in said
    assert "was merged into" not in unseen
    assert "Not done" in words(forbidden)
    assert "Not done: Say why they are two people" in words(without)
    assert "The merge is taken back." in words(done)
    assert "since the merge: SYN-M3." in words(done)
    assert "Not done: The two are not merged any more." in words(twice)
    rows = await filled.settled(lambda rows: rows["SYN-M1"]["patient"] != rows["SYN-M2"]["patient"], 60)
    assert rows["SYN-M1"]["patient"] == f"Patient/{loser}"
    assert "was merged into" not in words(await engineer.open(page))


async def test_f025_a_message_of_another_patient_shows_on_the_case_that_it_names(engineer: Browser) -> None:
    answer = {
        "id": "c1", "accession": "A1", "stage": "booked", "since": "2026-03-17T12:00:00+00:00",
        "about": [{"item": "in-7", "cause": "identity conflict", "kind": "ORM^O01", "sender": "RIS|NG",
                   "since": "2026-03-17T12:30:00+00:00", "why": "the order belongs to another patient"}],
    }  # fmt: skip
    [one] = case_line(answer).about or ()

    assert (one.item, one.sender, one.why) == ("in-7", "RIS", "the order belongs to another patient")
    assert case_line({**answer, "about": None}).about is None


async def test_while_the_ledger_is_silent_a_case_page_claims_nothing_and_is_read_again_as_a_whole(
    filled: Department, engineer: Browser
) -> None:
    case = await held_case(filled)
    gone = filled.house.rooms.pop("journey")
    try:
        page = await engineer.open(f"/case/{case}")
    finally:
        filled.house.rooms["journey"] = gone
    said = words(page)

    assert "Journey does not answer since" in said
    assert "data-whole" in page.text
    for claim in ("Nothing has happened yet", "No draft yet", "Not checked yet", "No images yet", "No earlier report"):
        assert claim not in said
    assert "data-whole" not in (await engineer.open(f"/case/{case}")).text
