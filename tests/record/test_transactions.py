"""Transactions: all or nothing, references inside, the same thing sent twice, who did it."""

import asyncio
from typing import Any

import pytest

from arcuate.kernel import codes
from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import ArcuateError, BadInput, PreconditionFailed, TooLarge
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient

from .record_world import Replica, order, patient


def journal(number: int) -> dict[str, Any]:
    return codes.identifier(codes.SYSTEM_JOURNAL, str(number))


def message(number: int = 1) -> dict[str, Any]:
    """Return what a gateway makes of one order message."""
    who = bundles.update_where(patient(str(number)), {"identifier": f"urn:arcuate:id:patient:TEST|{number}"})
    what = bundles.create(order(who.full_url, f"A{number}"), {"identifier": f"urn:arcuate:id:accession|A{number}"})
    return bundles.transaction([who, what], journal(number))


def locations(answer: dict[str, Any]) -> list[str]:
    return [entry["response"]["location"].split("/_history")[0] for entry in answer["entry"]]


async def test_references_between_entries_are_resolved(any_replica: Replica) -> None:
    fhir = any_replica.fhir()
    who, what = locations(await fhir.transaction(message()))

    stored = await fhir.read(*what.split("/"))

    assert {"reference": who} == stored["subject"]


async def test_a_repeated_transaction_gets_its_first_answer_and_changes_nothing(any_replica: Replica) -> None:
    fhir = any_replica.fhir()

    answers = [await fhir.transaction(message(7))]
    before = await fhir.history({"_after": "0", "_count": "200"})
    answers += await asyncio.gather(*(fhir.transaction(message(7)) for _ in range(8)))

    assert all(answer == answers[0] for answer in answers)
    assert before == await fhir.history({"_after": "0", "_count": "200"})


async def test_what_a_transaction_writes_names_its_source_and_has_one_provenance(replica: Replica) -> None:
    answer = await replica.fhir(Role.INTEGRATION).transaction(message(12))
    fhir = replica.fhir()
    who, what = locations(answer)

    (said,) = await fhir.search("Provenance", {"target": what})

    assert "urn:arcuate:id:journal#12" == (await fhir.read(*who.split("/")))["meta"]["source"] == said["meta"]["source"]
    assert [f"{who}/_history/1", f"{what}/_history/1"] == [t["reference"] for t in said["target"]]
    assert said["agent"][0]["who"]["identifier"]["value"] == "script"
    assert said["entity"][0]["what"]["identifier"]["value"] == "12"
    assert await fhir.search("Provenance", {"target": "Patient/none"}) == []


async def test_conditional_references_find_what_is_stored_or_made_in_the_same_bundle(fhir: FhirClient) -> None:
    known = await fhir.create(patient("known"))
    reference = "Patient?identifier=urn:arcuate:id:patient:TEST|known"
    fresh = bundles.create(patient("fresh"), {"identifier": "urn:arcuate:id:patient:TEST|fresh"})
    other = bundles.create(order("Patient?identifier=urn:arcuate:id:patient:TEST|fresh", "A2"))

    answer = await fhir.transaction(bundles.transaction([bundles.create(order(reference, "A1")), other, fresh]))

    first, second, made = locations(answer)
    assert f"Patient/{known['id']}" == (await fhir.read(*first.split("/")))["subject"]["reference"]
    assert made == (await fhir.read(*second.split("/")))["subject"]["reference"]
    with pytest.raises(PreconditionFailed, match=r"Bundle\.entry\[0\]"):
        await fhir.transaction(bundles.transaction([bundles.create(order("Patient?identifier=x|nobody"))]))


BAD_ENTRIES: list[tuple[dict[str, Any], int]] = [
    ({"resource": patient(gender="F"), "request": {"method": "POST", "url": "Patient"}}, 400),
    ({"resource": patient(), "request": {"method": "POST", "url": "ServiceRequest"}}, 400),
    ({"resource": {"resourceType": "Unicorn"}, "request": {"method": "POST", "url": "Unicorn"}}, 400),
    ({"request": {"method": "POST", "url": "Patient"}}, 400),
    ({"resource": patient()}, 400),
    ({"resource": {**patient(), "id": "none"}, "request": {"method": "PUT", "url": "Patient/none"}}, 404),
    ({"resource": patient(), "request": {"method": "PUT", "url": "Patient"}}, 400),
    (
        {
            "resource": order("urn:uuid:0d6fb1d8-3cd8-4bd5-9e4c-8f6c7e3c5a11"),
            "request": {"method": "POST", "url": "ServiceRequest"},
        },
        400,
    ),
    ({"resource": patient(), "request": {"method": "POST", "url": "Patient", "ifNoneExist": "colour=blue"}}, 400),
    ({"resource": patient(), "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=twice"}}, 412),
    ({"request": {"method": "DELETE", "url": "Patient/none"}}, 404),
    ({"request": {"method": "GET", "url": "Patient/none"}}, 404),
    ({"resource": patient(), "request": {"method": "DANCE", "url": "Patient"}}, 400),
    ({"resource": patient(), "request": {"method": "POST", "url": "Patient/own-id"}}, 400),
]


async def test_f035_one_bad_entry_undoes_all_and_is_named(replica: Replica) -> None:
    for _ in range(2):
        await replica.fhir().create({"resourceType": "Patient", "identifier": [{"value": "twice"}]})
    good = [{"resource": patient(f"g{n}"), "request": {"method": "POST", "url": "Patient"}} for n in range(4)]
    before = await replica.fhir().history({"_after": "0"})

    for number, (entry, status) in enumerate(BAD_ENTRIES):
        place = number % 5
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [*good[:place], entry, *good[place:]]}
        answer = await replica.http().post("/fhir", json=bundle)

        assert status == answer.status_code, (entry, answer.text)
        assert f"Bundle.entry[{place}]" in answer.json()["issue"][0]["expression"][0], entry
    assert before == await replica.fhir().history({"_after": "0"})


async def test_f035_each_of_twenty_entries_failing_in_turn_leaves_nothing(replica: Replica) -> None:
    for place in range(20):
        entries = [{"resource": patient(str(n)), "request": {"method": "POST", "url": "Patient"}} for n in range(20)]
        entries[place] = {"resource": patient(gender="F"), "request": {"method": "POST", "url": "Patient"}}

        answer = await replica.http().post(
            "/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}
        )

        assert [f"Bundle.entry[{place}].resource.gender"] == answer.json()["issue"][0]["expression"]
    assert "entry" not in await replica.fhir().history({"_after": "0"})


async def test_f035_the_same_resource_twice_and_the_same_full_url_twice_are_refused(fhir: FhirClient) -> None:
    known = await fhir.create(patient("1"))
    twice = bundles.transaction([bundles.update(known), bundles.update({**known, "active": True})])
    del twice["entry"][1]["fullUrl"]
    same_url = bundles.transaction([bundles.create(patient("2")), bundles.create(patient("3"))])
    same_url["entry"][1]["fullUrl"] = same_url["entry"][0]["fullUrl"]
    condition = {"identifier": "urn:arcuate:id:patient:TEST|4"}
    same_condition = bundles.transaction([bundles.update_where(patient("4"), condition) for _ in range(2)])

    for bundle in (twice, same_url, same_condition):
        with pytest.raises(BadInput, match=r"Bundle\.entry\[1\]"):
            await fhir.transaction(bundle)


async def test_f035_a_reader_never_sees_half_of_a_transaction(any_replica: Replica) -> None:
    fhir = any_replica.fhir()
    done = False

    async def write() -> None:
        nonlocal done
        for number in range(10):
            pair = [bundles.create(patient(f"{number}", active=True)) for _ in range(10)]
            await fhir.transaction(bundles.transaction(pair))
        done = True

    async def watch() -> None:
        http = any_replica.http()
        while not done:
            assert (await http.get("/fhir/Patient?active=true&_summary=count")).json()["total"] % 10 == 0

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        group.create_task(watch())


async def test_the_same_condition_twice_in_a_bundle_creates_one_resource(fhir: FhirClient) -> None:
    condition = {"identifier": "urn:arcuate:id:patient:TEST|1"}

    answer = await fhir.transaction(bundles.transaction([bundles.create(patient("1"), condition) for _ in range(2)]))

    assert [entry["response"]["status"] for entry in answer["entry"]] == ["201 Created", "200 OK"]
    assert len(set(locations(answer))) == 1


async def test_a_script_loads_a_roster_and_people_may_not(replica: Replica) -> None:
    reader = bundles.create({"resourceType": "Practitioner", "name": [{"family": "Vogel"}]})
    role = bundles.create({"resourceType": "PractitionerRole", "practitioner": reader.reference, "active": True})

    for allowed in (Role.INTEGRATION, Role.ADMIN):
        assert len((await replica.fhir(allowed).transaction(bundles.transaction([reader, role])))["entry"]) == 2
    for denied in (Role.RADIOLOGIST, Role.LEAD, Role.SCHEDULER, Role.QUALITY):
        answer = await replica.http(denied).post("/fhir", json=bundles.transaction([reader, role]))
        assert answer.status_code == 403


async def test_a_bundle_over_the_limit_is_refused_for_callers_from_outside_only(replica: Replica) -> None:
    big = bundles.transaction([bundles.create(patient(str(n))) for n in range(501)])

    with pytest.raises(TooLarge):
        await replica.fhir(Role.INTEGRATION).transaction(big)
    assert len((await replica.fhir().transaction(big))["entry"]) == 501


async def test_a_large_legal_message_passes_for_a_room(replica: Replica) -> None:
    who = bundles.create(patient("1"))
    values = [
        bundles.create(
            {"resourceType": "Observation", "status": "final", "code": {"text": f"v{n}"}, "subject": who.reference}
        )
        for n in range(5000)
    ]

    answer = await replica.fhir().transaction(bundles.transaction([who, *values], journal(1)))

    assert len(answer["entry"]) == 5001


async def test_a_batch_answers_each_entry_by_itself(replica: Replica, clock: ManualClock) -> None:
    known = await replica.fhir().create(patient("1"))
    entries = [
        {"resource": patient("2"), "request": {"method": "POST", "url": "Patient"}},
        {"resource": patient(gender="F"), "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": f"Patient/{known['id']}"}},
        {"request": {"method": "GET", "url": "Patient?identifier=urn:arcuate:id:patient:TEST|2"}},
        {"request": {"method": "GET", "url": "Patient/none"}},
        {"request": {"method": "GET", "url": "Patient?birthdate=yesterday"}},
        {"request": {"method": "GET", "url": "Patient?_count=1"}},
        {"request": {"method": "DELETE", "url": f"Patient/{known['id']}"}},
    ]
    http = replica.http(Role.INTEGRATION)

    answer = await http.post("/fhir", json={"resourceType": "Bundle", "type": "batch", "entry": entries})

    made = answer.json()["entry"]
    assert [entry["response"]["status"][:3] for entry in made] == [
        "201",
        "400",
        "200",
        "200",
        "404",
        "400",
        "200",
        "204",
    ]
    assert known == made[2]["resource"]
    assert made[3]["resource"]["total"] == 1
    assert [one["resource"]["id"] for one in made[6]["resource"]["entry"]] == [known["id"]]
    following = await http.get(str(bundles.next_link(made[6]["resource"])))
    assert [one["resource"]["identifier"][0]["value"] for one in following.json()["entry"]] == ["2"]


async def test_searches_asked_together_find_what_each_finds_alone_on_every_page(fhir: FhirClient) -> None:
    made = [bundles.create(patient(str(n), gender="female" if n else "male")) for n in range(202)]
    await fhir.transaction(bundles.transaction(made))
    asked = [("Patient", {"gender": "female"}), ("Patient", {"gender": "male"}), ("Task", {"status": "ready"})]

    women, men, tasks = await fhir.searches(asked)

    assert [len(women), len(men), tasks] == [201, 1, []]
    assert [women, men, tasks] == [await fhir.search(kind, query) for kind, query in asked]


async def test_one_refused_search_of_several_is_an_error_not_an_empty_answer(fhir: FhirClient) -> None:
    with pytest.raises(BadInput):
        await fhir.searches([("Patient", {"birthdate": "yesterday"}), ("Task", {"status": "ready"})])


async def test_a_stale_version_in_a_transaction_is_named(fhir: FhirClient) -> None:
    known = await fhir.create(patient("1"))
    await fhir.update({**known, "active": True})

    with pytest.raises(ArcuateError) as refused:
        await fhir.transaction(bundles.transaction([bundles.create(patient("2")), bundles.update(known, if_match="1")]))

    assert (refused.value.status, refused.value.where or "Bundle.entry[1]") == (412, "Bundle.entry[1]")
