"""The hospital plays through the doors of another party that speaks the same protocols."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from arcuate.hospital import scanner
from arcuate.hospital.desks import open_desks
from arcuate.hospital.morning import Morning, make_morning
from arcuate.hospital.play import Doors, Pace, Told, play
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.errors import Refused, Unavailable
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.hl7v2.build import segment

from .house_double import House, draft_message, open_house, send_to

ZURICH = ZoneInfo("Europe/Zurich")
FAST = Pace(past_s=0.5, reading_s=0.01, measuring_s=5.0, patience_s=0.0, live=False)


def _morning(*, heads: bool) -> Morning:
    made = make_morning(7, datetime.now(UTC), ZURICH)
    if heads:
        return made
    cases = tuple(replace(c, ventricles=None) for c in made.cases)
    by_key = {c.key: c for c in cases}
    steps = tuple(replace(s, case=by_key[s.case.key]) for s in made.steps if s.kind != "images")
    return replace(made, cases=cases, steps=steps)


def _doors(house: House, desks: object) -> Doors:
    return Doors(house.mllp, house.dicom, house.fhir_base, "token-1", desks)  # type: ignore[arg-type]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_door_that_refuses_is_told_and_nothing_more_is_sent() -> None:
    clock = SystemClock()
    async with open_house() as house, open_desks(clock) as desks:
        house.answer = "AR"
        with pytest.raises(Refused, match="AR"):
            await play(_morning(heads=False), _doors(house, desks), clock, lambda _: None, pace=FAST)
        assert len(house.messages) == 1


async def test_a_message_without_an_answer_is_sent_again_byte_for_byte() -> None:
    clock = SystemClock()
    async with open_house() as house, open_desks(clock) as desks:
        house.silent_for = 2
        told = await play(_morning(heads=False), _doors(house, desks), clock, lambda _: None, pace=FAST)
        assert house.messages[0] == house.messages[1] == house.messages[2] != house.messages[3]
        assert told.messages == len(house.messages) - 2


async def test_a_closed_door_is_told() -> None:
    clock = SystemClock()
    async with open_house() as house, open_desks(clock) as desks:
        doors = replace(_doors(house, desks), mllp=("127.0.0.1", 9))
        with pytest.raises(Unavailable):
            await play(_morning(heads=False), doors, clock, lambda _: None, pace=FAST)


async def test_a_closed_image_door_is_told() -> None:
    case = next(c for c in _morning(heads=True).cases if c.ventricles is not None)
    empty = scanner.Scan(case.accession, (), {})
    with pytest.raises(Unavailable, match="association"):
        await asyncio.to_thread(scanner.send, empty, "127.0.0.1", 9, "ARCUATE")


async def test_the_morning_goes_through_the_doors() -> None:
    clock, lines = SystemClock(), list[str]()
    morning = _morning(heads=False)
    async with open_house() as house, open_desks(clock) as desks:
        told = await play(morning, _doors(house, desks), clock, lines.append, pace=FAST)
        assert house.tokens == {"Bearer token-1"}
        assert len(house.bundles) == 2
        kinds = Counter(house.kinds())
        assert kinds["ORM^O01"] > 50
        assert {"ADT^A04", "ADT^A08", "SIU^S12", "SIU^S13", "SIU^S14", "SIU^S15", "SIU^S26"} <= set(kinds)
        assert told.messages == len(house.messages)
        missed = next(c for c in morning.cases if c.course == "no_show")
        assert "SIU^S26" in house.kinds_of(missed.accession)
        assert any("did not come" in line and missed.person.family in line for line in lines)
        # What lies after now stays untold without a live part.
        assert all(step.at <= morning.made_at for step in morning.steps[: len(lines) // 4])


async def test_a_draft_is_signed_once_and_comes_back_with_its_text() -> None:
    clock, lines = SystemClock(), list[str]()
    morning = _morning(heads=False)
    case = next(c for c in morning.cases if c.end == "delivered")
    pace = replace(FAST, patience_s=5.0)
    async with open_house() as house, open_desks(clock) as desks:
        told = Told()
        playing = asyncio.create_task(play(morning, _doors(house, desks), clock, lines.append, pace=pace, told=told))
        await _until(lambda: "ORM^O01" in house.kinds_of(case.accession))
        text = [
            "DRAFT, not signed",
            "FINDINGS",
            "Hippocampus, left: 3.10 mL & more",
            "IMPRESSION",
            "[Impression: to be dictated]",
        ]
        for number in ("D1", "D2"):
            raw = draft_message(case.accession, case.person.number, text, sent=clock.now(), control_id=number)
            answer = await send_to(desks.dictation.port, raw)
            assert (answer.code, answer.control_id) == ("AA", number.encode())
        await _until(lambda: bool(told.signed))
        await playing
        finals = [m for m in house.of(case.accession) if "SYNTH-DICTATION" in str(m.first("MSH")[3].value)]  # type: ignore[index]
        assert told.signed == [case.accession]
        assert len(finals) == 1
        obx = [s[5].text for s in finals[0] if s.id == "OBX"]
        assert obx[:3] == ["FINDINGS", "Hippocampus, left: 3.10 mL & more", "IMPRESSION"]
        assert "Synthetic reader" in obx[3]
        assert len(obx) == 4
        obr = finals[0].first("OBR")
        assert obr is not None
        assert (obr[25].value, obr[32].component(1, 2)) == ("F", "Reader-02")


async def test_a_draft_of_a_case_that_stays_open_is_not_signed() -> None:
    clock = SystemClock()
    morning = _morning(heads=False)
    case = next(c for c in morning.cases if c.end == "open")
    async with open_house() as house, open_desks(clock) as desks:
        raw = draft_message(case.accession, case.person.number, ["x"], sent=clock.now(), control_id="D9")
        await send_to(desks.dictation.port, raw)
        told = await play(morning, _doors(house, desks), clock, lambda _: None, pace=replace(FAST, patience_s=0.5))
        assert told.signed == []


@pytest.mark.parametrize(("event", "becomes"), [("S02", "SIU^S13"), ("S04", "SIU^S15")])
async def test_the_ris_confirms_what_the_pages_ask(event: str, becomes: str) -> None:
    clock = SystemClock()
    morning = _morning(heads=False)
    case = next(c for c in morning.cases if c.key == "later7")
    wanted = (case.slot + timedelta(hours=2)).astimezone(ZURICH)
    async with open_house() as house, open_desks(clock) as desks:
        pace = replace(FAST, patience_s=60.0)
        playing = asyncio.create_task(play(morning, _doors(house, desks), clock, lambda _: None, pace=pace))
        await _until(lambda: "SIU^S12" in house.kinds_of(case.appointment))
        envelope = build.Envelope("SRM", event, "SRM_S01", f"A{event}", clock.now(), UTC)
        numbers = {1: (f"P{case.appointment}", "SYNTH"), 2: (case.appointment, "SYNTH")}
        arq = segment("ARQ", {**numbers, 11: (f"{wanted:%Y%m%d%H%M%S%z}",)})
        assert (await send_to(desks.ris.port, build.message(envelope, [arq]))).code == "AA"
        await _until(lambda: becomes in house.kinds_of(case.appointment))
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        assert house.kinds_of(case.appointment)[-1] == becomes
        sch = house.of(case.appointment)[-1].first("SCH")
        assert sch is not None
        if event == "S02":
            assert sch[11].component(4).startswith(f"{wanted:%Y%m%d%H%M}")


async def test_the_ris_books_what_it_is_asked_for_under_the_number_that_it_was_asked_with() -> None:
    clock = SystemClock()
    morning = _morning(heads=False)
    case = next(c for c in morning.cases if c.key == "later7")
    async with open_house() as house, open_desks(clock) as desks:
        playing = asyncio.create_task(
            play(morning, _doors(house, desks), clock, lambda _: None, pace=replace(FAST, patience_s=60.0))
        )
        await _until(lambda: "SIU^S12" in house.kinds_of(case.appointment))
        envelope = build.Envelope("SRM", "S01", "SRM_S01", "AS01", clock.now(), UTC)
        arq = segment("ARQ", {1: ("ours-1", "ARCUATE"), 25: (case.accession, "SYNTH")})
        assert (await send_to(desks.ris.port, build.message(envelope, [arq]))).code == "AA"
        await _until(lambda: "SIU^S12" in house.kinds_of(f"{case.appointment}N"))
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        sch = house.of(f"{case.appointment}N")[-1].first("SCH")
        assert sch is not None
        assert (sch[1].component(1), sch[1].component(2)) == ("ours-1", "ARCUATE")


async def test_images_arrive_whole_and_belong_to_their_order() -> None:
    clock = SystemClock()
    made = _morning(heads=True)
    key = next(c.key for c in made.cases if c.ventricles is not None)
    morning = replace(made, steps=tuple(s for s in made.steps if s.kind != "images" or s.case.key == key))
    case = next(c for c in morning.cases if c.key == key)
    async with open_house() as house, open_desks(clock) as desks:
        told = await play(morning, _doors(house, desks), clock, lambda _: None, pace=FAST)
        assert told.images == len({d.SOPInstanceUID for d in house.images}) >= 160
        assert {d.AccessionNumber for d in house.images} == {case.accession}
        assert {(d.PatientID, d.IssuerOfPatientID) for d in house.images} == {(case.person.number, "SYNTH")}
        assert told.true_volumes[case.accession]["hippocampus-left"] > 1
