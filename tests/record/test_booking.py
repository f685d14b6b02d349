"""Slots found, held and asked for (IHE Scheduling): exactly one has a slot, a hold ends by itself, and the RIS keeps the book."""

import asyncio
from collections import Counter
from typing import Any

import httpx

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import types

from .record_world import Replica, order, patient

FIND, HOLD, BOOK = (f"/fhir/Appointment/${name}" for name in ("find", "hold", "book"))
BRAIN = {"coding": [{"system": "urn:test:service", "code": "mr-brain"}]}


def asked(**given: Any) -> dict[str, Any]:
    """Return Parameters; a name's value says its type."""
    kinds = {
        "start": "valueDateTime",
        "end": "valueDateTime",
        "referral_identifier": "valueIdentifier",
        "timing": "valueTiming",
    }
    parts = []
    for name, value in given.items():
        kind = kinds.get(name) or ("valueString" if isinstance(value, str) else "valueReference")
        if isinstance(value, dict) and "resourceType" in value:
            kind = "resource"
        parts.append({"name": name.replace("_", "-") if name != "_count" else name, kind: value})
    return {"resourceType": "Parameters", "parameter": parts}


PERIOD = {"start": "2026-03-18", "end": "2026-03-18"}


class Department:
    """A scanner with three slots on 18 March, a patient and an order."""

    def __init__(self, replica: Replica) -> None:
        self.replica, self.room = replica, replica.fhir()

    async def open(self) -> "Department":
        place = {"resourceType": "Location", "name": "MR 1", "address": {"city": "Bern"}}
        self.scanner = f"Location/{(await self.room.create(place))['id']}"
        schedule = {"resourceType": "Schedule", "actor": [{"reference": self.scanner}], "serviceType": [BRAIN]}
        self.schedule = f"Schedule/{(await self.room.create(schedule))['id']}"
        self.slots = [await self.slot(hour) for hour in (8, 9, 10)]
        self.anna = f"Patient/{(await self.room.create(patient('1')))['id']}"
        self.order = f"ServiceRequest/{(await self.room.create(order(self.anna, 'A1')))['id']}"
        return self

    async def slot(self, hour: int, status: str = "free") -> str:
        times = {"start": f"2026-03-18T{hour:02}:00:00Z", "end": f"2026-03-18T{hour:02}:45:00Z"}
        made = {"resourceType": "Slot", "schedule": {"reference": self.schedule}, "status": status, **times}
        return str((await self.room.create(made))["id"])

    def http(self, person: str = "berta", role: Role = Role.SCHEDULER) -> httpx.AsyncClient:
        return self.replica.http(role, person=person)

    async def find(self, http: httpx.AsyncClient, **more: Any) -> list[dict[str, Any]]:
        answer = await http.post(FIND, json=asked(**{**PERIOD, **more}))
        assert answer.status_code == 200, answer.text
        return appointments(answer)

    async def proposal(self, http: httpx.AsyncClient, **more: Any) -> dict[str, str]:
        return named((await self.find(http, **{"referral_identifier": {"value": "A1"}, **more}))[0])

    async def status(self, slot: str) -> str:
        return str((await self.room.read("Slot", slot))["status"])


def appointments(answer: httpx.Response) -> list[dict[str, Any]]:
    return [e["resource"] for e in answer.json().get("entry", []) if e["search"]["mode"] == "match"]


def remarks(answer: httpx.Response) -> str:
    outcomes = [e["resource"] for e in answer.json().get("entry", []) if e["search"]["mode"] == "outcome"]
    return " ".join(i["diagnostics"] for one in outcomes for i in one["issue"])


def named(appointment: dict[str, Any]) -> dict[str, str]:
    return {"reference": f"Appointment/{appointment['id']}"}


async def test_of_twenty_who_hold_one_slot_at_once_one_has_it(any_replica: Replica) -> None:
    house = await Department(any_replica).open()
    clients = [house.http(f"person-{n}") for n in range(20)]
    offers = await asyncio.gather(*(house.proposal(http) for http in clients))

    answers = await asyncio.gather(
        *(http.post(HOLD, json=asked(appointment_reference=one)) for http, one in zip(clients, offers, strict=True))
    )

    assert Counter(one.status_code for one in answers) == {200: 1, 409: 19}
    (winner,) = (appointments(one)[0] for one in answers if one.status_code == 200)
    assert winner["status"] == "pending"
    refused = next(one for one in answers if one.status_code == 409).json()["issue"][0]
    assert (refused["severity"], refused["code"]) == ("fatal", "not-found")
    assert "$find" in refused["diagnostics"]
    assert len(await house.room.search("Appointment", {"slot": f"Slot/{house.slots[0]}"})) == 1
    assert await house.status(house.slots[0]) == "busy-tentative"


async def test_of_twenty_who_book_one_slot_at_once_one_is_asked_of_the_ris(any_replica: Replica) -> None:
    house = await Department(any_replica).open()
    clients = [house.http(f"person-{n}") for n in range(20)]
    offers = await asyncio.gather(*(house.proposal(http) for http in clients))

    answers = await asyncio.gather(
        *(http.post(BOOK, json=asked(appointment_reference=one)) for http, one in zip(clients, offers, strict=True))
    )

    assert Counter(one.status_code for one in answers) == {200: 1, 409: 19}
    (task,) = await house.room.search("Task", {"code": "urn:arcuate:cs:ask|book"})
    (made,) = await house.room.search("Appointment", {"slot": f"Slot/{house.slots[0]}"})
    assert task["focus"] == named(made) and task["status"] == "requested"
    assert made["status"] == "pending" and made["basedOn"] == [{"reference": house.order}]
    assert made["identifier"][0]["system"] == "urn:arcuate:id:appointment:ARCUATE"
    assert await house.status(house.slots[0]) == "busy"
    types.validate(made)
    types.validate(task)


async def test_one_who_asks_twice_gets_the_same_answer_and_one_request_goes_out(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    proposal = await house.proposal(http)

    held = [await http.post(HOLD, json=asked(appointment_reference=proposal)) for _ in range(2)]
    booked = [await http.post(BOOK, json=asked(appointment_reference=proposal)) for _ in range(2)]

    assert [one.status_code for one in (*held, *booked)] == [200] * 4
    assert appointments(held[0]) == appointments(held[1]) and appointments(booked[0]) == appointments(booked[1])
    assert appointments(booked[0])[0]["id"] == appointments(held[0])[0]["id"]
    assert len(await house.room.search("Task", {"code": "urn:arcuate:cs:ask|book"})) == 1


async def test_a_hold_ends_and_the_slot_is_free_again(any_replica: Replica, clock: ManualClock) -> None:
    house = await Department(any_replica).open()
    http, other = house.http(), house.http("carla")
    proposal = await house.proposal(http)
    held = await http.post(HOLD, json=asked(appointment_reference=proposal))
    assert "Held until" in remarks(held)
    assert len(await house.find(other)) == 2, "what is held is not proposed"

    clock.advance(601)

    late = await http.post(BOOK, json=asked(appointment_reference=proposal))
    assert late.status_code == 410 and "$find" in late.json()["issue"][0]["diagnostics"]
    lapsed = await house.room.read("Appointment", appointments(held)[0]["id"])
    assert lapsed["status"] == "cancelled"
    assert lapsed["cancelationReason"]["coding"][0]["code"] == "never-booked"
    assert await house.status(house.slots[0]) == "free"
    again = await house.proposal(other)
    assert (await other.post(HOLD, json=asked(appointment_reference=again))).status_code == 200


async def test_a_hold_ends_without_anybody_asking(replica: Replica, clock: ManualClock) -> None:
    house = await Department(replica).open()
    http = house.http()
    await http.post(HOLD, json=asked(appointment_reference=await house.proposal(http)))
    clock.advance(601)

    bookings = replica.app.state.bookings
    await bookings.tidy()

    assert await house.status(house.slots[0]) == "free"
    before = await house.room.history({"_after": "0", "_count": "200"})
    await bookings.tidy()
    assert await house.room.history({"_after": "0", "_count": "200"}) == before


async def test_a_proposal_ends(replica: Replica, clock: ManualClock) -> None:
    house = await Department(replica).open()
    http = house.http()
    proposal = await house.proposal(http)
    clock.advance(1801)

    answer = await http.post(HOLD, json=asked(appointment_reference=proposal))

    assert answer.status_code == 410 and await house.status(house.slots[0]) == "free"


async def test_what_is_no_proposal_is_told_in_words(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    for reference in ("Appointment/x", f"Slot/{house.slots[0]}", "x", f"Appointment/none.{house.slots[0]}"):
        for operation in (HOLD, BOOK):
            answer = await http.post(operation, json=asked(appointment_reference={"reference": reference}))
            assert answer.status_code in (404, 410), answer.text
            assert "$find" in answer.json()["issue"][0]["diagnostics"]


async def test_questions_that_cannot_be_answered_are_refused_in_words(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    await house.room.create({**order(house.anna, "A9"), "status": "revoked"})
    other = f"Patient/{(await house.room.create(patient('2')))['id']}"
    wrong: list[tuple[dict[str, Any], int, str]] = [
        ({"resourceType": "Patient"}, 400, "Parameters"),
        (asked(start="2026-03-18"), 400, "'end' is missing"),
        (asked(start="2026-03-18", end="2026-03-17"), 400, "not after"),
        (asked(**PERIOD, colour="red"), 400, "not known here"),
        (asked(**PERIOD, specialty="neuro"), 400, "system|code"),
        (asked(**PERIOD, practitioner={"reference": "Practitioner/none"}), 400, "Practitioner is not known"),
        (asked(**PERIOD, location_reference={"identifier": {"value": "MR9"}}), 400, "Location is not known"),
        (asked(**PERIOD, referral_identifier={"value": "none"}), 400, "No order has this number"),
        (asked(**PERIOD, referral_identifier={"value": "A9"}), 422, "revoked"),
        (asked(**PERIOD, referral_identifier={"value": "A1"}, patient_reference={"reference": other}), 400, "another patient"),
    ]  # fmt: skip
    for body, status, words in wrong:
        answer = await http.post(FIND, json=body)
        assert answer.status_code == status, (body, answer.text)
        assert words in answer.json()["issue"][0]["diagnostics"]


async def test_who_may_not_book_may_still_look(replica: Replica) -> None:
    house = await Department(replica).open()
    reader = house.http("doctor", Role.RADIOLOGIST)
    proposal = await house.proposal(reader)

    answers = [await reader.post(one, json=asked(appointment_reference=proposal)) for one in (HOLD, BOOK)]

    assert [one.status_code for one in answers] == [403, 403]
    nobody = httpx.AsyncClient(transport=replica.transport, base_url="http://house")
    assert (await nobody.post(FIND, json=asked(**PERIOD))).status_code == 401


async def test_nobody_is_booked_whom_the_house_does_not_know(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    first = named((await house.find(http))[0])
    nobody = await http.post(BOOK, json=asked(appointment_reference=first))
    stranger = await http.post(BOOK, json=asked(appointment_reference=first, patient_resource=patient("77")))
    assert (nobody.status_code, stranger.status_code) == (422, 422)
    assert "register" in stranger.json()["issue"][0]["diagnostics"]
    assert await house.status(house.slots[0]) == "free"

    known = await http.post(
        BOOK, json=asked(appointment_reference=first, patient_resource=patient("1"), comment="by phone")
    )

    assert known.status_code == 200
    (made,) = appointments(known)
    assert made["participant"][0]["actor"] == {"reference": house.anna} and made["comment"] == "by phone"


async def test_a_slot_whose_scanner_is_booked_by_the_ris_is_not_free(any_replica: Replica) -> None:
    house = await Department(any_replica).open()
    http = house.http()
    proposal = await house.proposal(http)
    booked = {
        "resourceType": "Appointment", "status": "booked", "start": "2026-03-18T08:30:00Z", "end": "2026-03-18T09:10:00Z",
        "participant": [{"actor": {"reference": house.scanner}, "status": "accepted"}],
    }  # fmt: skip
    made = await house.room.create(booked)

    assert [one["start"] for one in await house.find(http)] == ["2026-03-18T10:00:00.000Z"]
    assert (await http.post(HOLD, json=asked(appointment_reference=proposal))).status_code == 409
    await house.room.update({**made, "status": "cancelled"})
    assert len(await house.find(http)) == 3


async def test_proposals_suit_what_was_asked(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()

    async def found(**more: Any) -> int:
        return len(await house.find(http, **more))

    assert await found(visit_type="urn:test:service|mr-brain") == 3
    assert await found(visit_type="urn:test:service|ct") == 0
    assert await found(specialty="urn:test|neuro") == 0
    assert await found(location_reference={"reference": house.scanner}) == 3
    assert await found(location_string="Bern") == 3
    assert await found(location_string="Chur") == 0
    assert await found(timing={"repeat": {"dayOfWeek": ["wed"]}}) == 3
    assert await found(timing={"repeat": {"dayOfWeek": ["thu"]}}) == 0
    assert await found(start="2026-03-18T08:30:00Z", end="2026-03-18T10:00:00Z") == 1
    assert await found(start="2026-03-18T10:00:00Z", end="2026-03-18T10:45:00Z") == 1


async def test_what_is_not_listed_or_not_used_is_said(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    body = asked(**PERIOD, timing={"repeat": {"timeOfDay": ["08:00:00"]}})

    answer = await http.post(f"{FIND}?_count=2", json=body)

    assert len(appointments(answer)) == 2 and answer.json()["total"] == 3
    assert "first 2 of 3" in remarks(answer) and "timeOfDay" in remarks(answer)
    types.validate(answer.json())
    empty = (await http.post(FIND, json=asked(start="2026-04-01", end="2026-04-02"))).json()
    assert empty["total"] == 0 and "entry" not in empty


async def test_the_message_of_the_ris_books_and_its_cancellation_frees_the_slot(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    (made,) = appointments(await http.post(BOOK, json=asked(appointment_reference=await house.proposal(http))))
    stored = await house.room.read("Appointment", made["id"])
    booked = await house.room.update({**stored, "status": "booked"})
    await replica.app.state.bookings.tidy()
    assert await house.status(house.slots[0]) == "busy"

    await house.room.update({**booked, "status": "cancelled"})
    await replica.app.state.bookings.tidy()

    assert await house.status(house.slots[0]) == "free"
    assert len(await house.find(http)) == 3


async def test_a_time_that_the_ris_refuses_is_not_offered_again(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    (made,) = appointments(await http.post(BOOK, json=asked(appointment_reference=await house.proposal(http))))
    (task,) = await house.room.search("Task", {"focus": f"Appointment/{made['id']}"})
    await house.room.update({**task, "status": "rejected"})

    assert len(await house.find(http)) == 2
    assert (await house.room.read("Appointment", made["id"]))["status"] == "cancelled"
    assert await house.status(house.slots[0]) == "busy-unavailable"


async def test_a_hold_is_given_back_and_a_booking_is_moved_and_cancelled_by_asking(replica: Replica) -> None:
    house = await Department(replica).open()
    http, other = house.http(), house.http("carla")
    (held,) = appointments(await http.post(HOLD, json=asked(appointment_reference=await house.proposal(http))))
    gone = asked(appointment_resource={**held, "status": "cancelled"})
    assert (await other.post(BOOK, json=gone)).status_code == 409
    assert appointments(await http.post(BOOK, json=gone))[0]["status"] == "cancelled"
    assert await house.status(house.slots[0]) == "free"

    (made,) = appointments(await http.post(BOOK, json=asked(appointment_reference=await house.proposal(http))))
    (task,) = await house.room.search("Task", {"focus": f"Appointment/{made['id']}"})
    await house.room.update({**task, "status": "completed"})
    stored = await house.room.update({**(await house.room.read("Appointment", made["id"])), "status": "booked"})
    same = await http.post(BOOK, json=asked(appointment_resource=stored))
    moved = {**stored, "start": "2026-03-18T14:00:00Z", "end": "2026-03-18T14:45:00Z"}
    asks = [await http.post(BOOK, json=asked(appointment_resource=moved)) for _ in range(2)]
    calls_off = [
        await http.post(BOOK, json=asked(appointment_resource={**stored, "status": "cancelled"})) for _ in range(2)
    ]

    assert same.status_code == 400 and [one.status_code for one in asks] == [200, 409]
    assert [one.status_code for one in calls_off] == [200, 200]
    assert appointments(asks[0])[0]["status"] == "booked" and "stays as it is" in remarks(asks[0])
    tasks = await house.room.search("Task", {"focus": f"Appointment/{made['id']}", "status": "requested"})
    assert sorted(one["code"]["coding"][0]["code"] for one in tasks) == ["cancel", "reschedule"]


async def test_every_operation_stands_in_the_trail_with_the_person(replica: Replica) -> None:
    house = await Department(replica).open()
    http = house.http()
    proposal = await house.proposal(http)
    await http.post(HOLD, json=asked(appointment_reference=proposal))
    await http.post(BOOK, json=asked(appointment_reference=proposal))

    events = (await replica.http(Role.QUALITY).get("/fhir/AuditEvent", params={"agent": "berta"})).json()["entry"]
    details = [e["name"] for event in events for e in event["resource"].get("entity", []) if "name" in e]
    assert details == ["$book", "$hold", "$find"]
    assert any(
        entity.get("what", {}).get("reference") == house.anna
        for entity in events[0]["resource"]["entity"]
    )  # fmt: skip


async def test_the_capability_statement_names_the_operations(replica: Replica) -> None:
    statement = (await replica.http().get("/fhir/metadata")).json()
    (found,) = [one for one in statement["rest"][0]["resource"] if one["type"] == "Appointment"]
    definitions = {one["name"]: one["definition"] for one in found["operation"]}
    for name in ("find", "hold", "book"):
        assert definitions[name] == f"https://profiles.ihe.net/ITI/Scheduling/OperationDefinition/appointment-{name}"
