"""Bundles as rooms build them, and the client against a server that fails."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import (
    BadInput,
    Conflict,
    Gone,
    NotFound,
    PreconditionFailed,
    Refused,
    Throttled,
    Unavailable,
)
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir import strict, types
from arcuate.kernel.fhir.client import FhirClient, call_operation
from arcuate.kernel.fhir.feed import FeedReader

Answer = tuple[int, dict[str, Any]] | Exception

OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "business-rule", "diagnostics": "no"}],
}


def client(answers: list[Answer], seen: list[httpx.Request]) -> FhirClient:
    """Return a client of a server that gives these answers, one a request; waiting costs no time."""
    return FhirClient(http(answers, seen), clock=Impatient())


def http(answers: list[Answer], seen: list[httpx.Request]) -> httpx.AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer[0], content=json.dumps(answer[1]).encode())

    return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="http://outside.example")


class Impatient(ManualClock):
    """A clock on which every wait is over at once."""

    def __init__(self) -> None:
        from datetime import UTC, datetime

        super().__init__(datetime(2026, 1, 1, tzinfo=UTC))

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


PATIENT = {"resourceType": "Patient", "id": "1"}
LOST = httpx.ReadTimeout("lost")
DOWN = httpx.ConnectError("down")


def test_entries_of_a_transaction_refer_to_each_other() -> None:
    who = bundles.create({"resourceType": "Patient"}, {"identifier": "urn:x|1"})
    what = bundles.update(
        {"resourceType": "Task", "id": "7", "status": "ready", "intent": "order", "for": who.reference}, "3"
    )

    made = bundles.transaction([who, what, bundles.delete("Task", "8")], {"system": "urn:j", "value": "1"})

    types.validate(made)
    assert made["entry"][0]["fullUrl"] == made["entry"][1]["resource"]["for"]["reference"]
    assert [entry["request"] for entry in made["entry"]] == [
        {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn%3Ax%7C1"},
        {"method": "PUT", "url": "Task/7", "ifMatch": 'W/"3"'},
        {"method": "DELETE", "url": "Task/8"},
    ]


def test_resources_are_found_by_type_and_by_reference() -> None:
    made = bundles.collection([PATIENT, PATIENT, {"resourceType": "Task", "status": "ready", "intent": "order"}])
    task = bundles.one_of_type(made, "Task")

    types.validate(made)
    assert bundles.of_type(made, "Patient") == [PATIENT]
    for reference in (
        "Patient/1",
        "http://x/fhir/Patient/1",
        {"reference": "Patient/1/_history/4"},
        "http://arcuate/fhir/Patient/1",
    ):
        assert bundles.find(made, reference) == PATIENT
    for nothing in ("Patient/2", "Group/1", "", None, {"display": "x"}, "urn:uuid:0", "1"):
        assert bundles.find(made, nothing) is None
    assert bundles.find(made, made["entry"][1]["fullUrl"]) == task
    with pytest.raises(BadInput):
        bundles.one_of_type(made, "Observation")
    assert bundles.reference_id({"reference": "http://x/fhir/Patient/1"}, "Patient") == "1"
    assert bundles.reference_id({"reference": "Patient/1"}, "Task") is None
    assert bundles.reference_id({"reference": "#p"}) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        PATIENT,
        {"resourceType": "Bundle", "type": "batch"},
        {"resourceType": "Bundle", "type": "collection", "entry": {}},
    ],
)
def test_what_is_no_such_bundle_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        bundles.require_bundle(value, "collection")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadInput),
        (404, NotFound),
        (410, Gone),
        (409, Conflict),
        (412, PreconditionFailed),
        (422, Refused),
        (429, Throttled),
    ],
)
async def test_an_outcome_becomes_the_houses_own_error(status: int, error: type[Exception]) -> None:
    seen: list[httpx.Request] = []

    with pytest.raises(error, match="no"):
        await client([(status, OUTCOME)], seen).read("Patient", "1")
    assert len(seen) == 1


SAFE: list[Callable[[FhirClient], Any]] = [
    lambda fhir: fhir.read("Patient", "1"),
    lambda fhir: fhir.search("Patient", {"identifier": "x"}),
    lambda fhir: fhir.create(PATIENT, {"identifier": "x"}),
    lambda fhir: fhir.transaction(bundles.transaction([], {"system": "urn:j", "value": "1"})),
    lambda fhir: fhir.delete("Patient", "1"),
]
UNSAFE: list[Callable[[FhirClient], Any]] = [
    lambda fhir: fhir.create(PATIENT),
    lambda fhir: fhir.update(PATIENT),
    lambda fhir: fhir.transaction(bundles.transaction([])),
    lambda fhir: fhir.operation("Patient/$x", PATIENT),
]


@pytest.mark.parametrize("fault", [LOST, DOWN, (503, OUTCOME)])
async def test_what_can_be_sent_twice_without_harm_is_sent_again(fault: Answer) -> None:
    for call in SAFE:
        seen: list[httpx.Request] = []
        await call(client([fault, fault, (200, {"resourceType": "Bundle"})], seen))
        assert len(seen) == 3


async def test_what_could_take_effect_twice_is_sent_again_only_if_it_was_never_sent() -> None:
    for call in UNSAFE:
        for fault in (LOST, (503, OUTCOME)):
            seen: list[httpx.Request] = []
            with pytest.raises(Unavailable):
                await call(client([fault, (200, PATIENT)], seen))
            assert len(seen) == 1
        await call(client([DOWN, (200, PATIENT)], []))


async def test_after_three_tries_the_other_side_is_unavailable_and_no_query_stands_in_the_error() -> None:
    with pytest.raises(Unavailable) as refused:
        await client([DOWN] * 3, []).history({"_after": "secret"})

    assert "secret" not in str(refused.value)


async def test_a_search_follows_pages_by_path_and_leaves_outcomes_out() -> None:
    seen: list[httpx.Request] = []
    first = {
        "resourceType": "Bundle", "link": [{"relation": "next", "url": "http://behind-a-proxy:9/fhir?_page=abc"}],
        "entry": [{"resource": PATIENT, "search": {"mode": "match"}}, {"resource": OUTCOME, "search": {"mode": "outcome"}}],
    }  # fmt: skip
    second = {"resourceType": "Bundle", "entry": [{"resource": {**PATIENT, "id": "2"}}]}

    found = await client([(200, first), (200, second)], seen).search(
        "Patient", {"identifier": "urn:x|7", "_include": ["a", "b"]}
    )

    assert [one["id"] for one in found] == ["1", "2"]
    assert (seen[0].method, str(seen[0].url)) == ("POST", "http://outside.example/fhir/Patient/_search")
    assert seen[0].content == b"identifier=urn%3Ax%7C7&_include=a&_include=b"
    assert str(seen[1].url) == "http://outside.example/fhir?_page=abc"


async def test_one_match_is_returned_and_two_are_a_conflict() -> None:
    entry = {"resource": PATIENT}
    assert await client([(200, {"resourceType": "Bundle"})], []).one("Patient", {}) is None
    assert await client([(200, {"resourceType": "Bundle", "entry": [entry]})], []).one("Patient", {}) == PATIENT
    with pytest.raises(Conflict):
        await client([(200, {"resourceType": "Bundle", "entry": [entry, entry]})], []).one("Patient", {})


async def test_an_operation_that_is_still_at_work_says_when_to_ask_again() -> None:
    def busy(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(202, headers={"Retry-After": "7"})

    room = httpx.AsyncClient(transport=httpx.MockTransport(busy), base_url="http://room")
    with pytest.raises(Unavailable) as refused:
        await call_operation(room, "/imaging/ImagingStudy/$quantify", bundles.collection([]))
    assert (refused.value.code, refused.value.retry_after_s) == ("incomplete", 7)
    with pytest.raises(Refused):
        await call_operation(http([(422, OUTCOME)], []), "/x/$y", bundles.collection([]))


async def test_an_answer_that_is_no_fhir_is_no_answer() -> None:
    def page(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"<html>sign in</html>")

    fhir = FhirClient(httpx.AsyncClient(transport=httpx.MockTransport(page), base_url="http://x"), clock=Impatient())
    with pytest.raises(Unavailable):
        await fhir.read("Patient", "1")


async def test_the_feed_reader_outlives_a_record_that_is_away() -> None:
    entry = {
        "id": "5",
        "resource": PATIENT,
        "request": {"method": "POST", "url": "Patient"},
        "response": {"location": "Patient/1/_history/1"},
    }
    page = {
        "resourceType": "Bundle",
        "link": [{"relation": "next", "url": "/fhir/_history?_after=5"}],
        "entry": [entry],
    }
    saved: list[int] = []

    async def load() -> int | None:
        return 4

    async def save(value: int) -> None:
        saved.append(value)

    seen: list[httpx.Request] = []
    outage: list[Answer] = [DOWN] * 7
    reader = FeedReader(client([*outage, (200, page)], seen), load, save, clock=Impatient())
    changes = aiter(reader)
    change = await asyncio.wait_for(anext(changes), 5)

    assert (change.seq, change.type, change.id, change.version, change.resource) == (5, "Patient", "1", "1", PATIENT)
    assert "_after=4" in str(seen[-1].url)
    assert saved == []  # not before it was handled
    assert strict.dumps(PATIENT)
