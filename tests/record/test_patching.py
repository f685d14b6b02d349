"""JSON Patch, conditional changes and what holds when twenty callers come at once."""

import asyncio
import base64
import copy
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.client import FhirClient
from arcuate.record import patch

from .record_world import Replica, order, patient

JSON_PATCH = {"Content-Type": "application/json-patch+json"}
TASK: dict[str, Any] = {"resourceType": "Task", "status": "ready", "intent": "order", "description": "read"}


async def patched(http: httpx.AsyncClient, url: str, operations: Any, **headers: str) -> httpx.Response:
    sent = {**JSON_PATCH, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await http.patch(url, content=json.dumps(operations), headers=sent)


async def test_a_patch_changes_what_it_names_and_keeps_every_other_digit(replica: Replica) -> None:
    http = replica.http()
    body = b'{"resourceType":"Observation","status":"preliminary","code":{"text":"v"},"valueQuantity":{"value":3.10,"unit":"mL"}}'
    made = (
        await http.post("/fhir/Observation", content=body, headers={"Content-Type": "application/fhir+json"})
    ).json()

    answer = await patched(
        http, f"/fhir/Observation/{made['id']}",
        [{"op": "test", "path": "/status", "value": "preliminary"}, {"op": "replace", "path": "/status", "value": "final"},
         {"op": "add", "path": "/note", "value": [{"text": "checked"}]}],
    )  # fmt: skip

    assert answer.status_code == 200, answer.text
    assert (answer.headers["etag"], '"value":3.10,' in answer.text) == ('W/"2"', True)
    assert (answer.json()["status"], answer.json()["note"]) == ("final", [{"text": "checked"}])
    again = await patched(
        http, f"/fhir/Observation/{made['id']}", [{"op": "replace", "path": "/status", "value": "final"}]
    )
    assert again.headers["etag"] == 'W/"2"'  # the same said again is no new version


UNFIT: list[tuple[Any, int, str]] = [
        ([{"op": "test", "path": "/status", "value": "final"}], 409, "conflict"),
        ([{"op": "remove", "path": "/none"}], 409, "conflict"), ([{"op": "replace", "path": "/note/0", "value": {}}], 409, "conflict"),
        ([{"op": "replace", "path": "/status", "value": "Ready"}], 400, "code-invalid"),
        ([{"op": "replace", "path": "/id", "value": "x"}], 400, "value"), ([{"op": "remove", "path": "/status"}], 400, "required"),
        ([{"op": "replace", "path": "", "value": {"resourceType": "Patient"}}], 400, "structure"),
        ([{"op": "replace", "path": "", "value": 1}], 400, "structure"),
        ([], 400, "structure"), ({"op": "remove"}, 400, "structure"), ([{"op": "drop", "path": "/x"}], 400, "structure"),
        ([{"op": "add", "path": "x", "value": 1}], 400, "structure"), ([{"op": "add", "path": "/x"}], 400, "structure"),
        ([{"op": "move", "from": "/code", "path": "/code/x"}], 400, "structure"),
        ([{"op": "add", "path": "/colour", "value": 1}], 400, "structure"),
        ([{"op": "remove", "path": "/x"}] * 201, 413, "too-costly"),
]  # fmt: skip


async def test_a_patch_that_does_not_fit_changes_nothing(replica: Replica) -> None:
    http, fhir = replica.http(), replica.fhir()
    made = await fhir.create({**TASK, "code": {"text": "x"}})

    for operations, status, code in UNFIT:
        answer = await patched(http, f"/fhir/Task/{made['id']}", operations)

        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (status, code), answer.text
        assert await fhir.read("Task", made["id"]) == made


async def test_f031_where_people_edit_a_patch_names_the_version(replica: Replica) -> None:
    person, url = replica.http(Role.LEAD, person="p1"), "/fhir/Task/"
    made = await replica.fhir().create(TASK)
    change = [{"op": "replace", "path": "/description", "value": "done"}]

    without = await patched(person, url + made["id"], change)
    stale = await patched(person, url + made["id"], change, If_Match='W/"7"')
    right = await patched(person, url + made["id"], change, If_Match='W/"1"')

    assert (without.status_code, stale.status_code, right.status_code) == (428, 412, 200)
    assert stale.headers["etag"] == 'W/"1"'
    assert (await patched(replica.http(Role.SCHEDULER, person="p2"), "/fhir/Patient/x", change)).status_code == 403
    wrong = await person.patch(url + made["id"], json=change, headers={"If-Match": 'W/"2"'})
    assert (wrong.status_code, wrong.json()["issue"][0]["code"]) == (415, "not-supported")


async def test_f031_of_twenty_parallel_patches_each_is_kept(any_replica: Replica) -> None:
    http = any_replica.http()
    made = await any_replica.fhir().create({**TASK, "note": [{"text": "first"}]})

    answers = await asyncio.gather(
        *(
            patched(http, f"/fhir/Task/{made['id']}", [{"op": "add", "path": "/note/-", "value": {"text": str(n)}}])
            for n in range(20)
        )
    )

    assert {answer.status_code for answer in answers} == {200}
    assert sorted(int(answer.headers["etag"][3:-1]) for answer in answers) == list(range(2, 22))
    stored = await any_replica.fhir().read("Task", made["id"])
    assert {note["text"] for note in stored["note"]} == {"first", *(str(n) for n in range(20))}


async def test_f032_of_twenty_parallel_conditional_updates_one_creates_and_of_deletions_one_deletes(
    any_replica: Replica,
) -> None:
    http = any_replica.http()
    where = "identifier=urn:arcuate:id:patient:TEST%7C9"

    absent = await asyncio.gather(
        *(
            http.put(f"/fhir/Patient?{where}", json=patient("9", active=n % 2 == 0), headers={"If-None-Match": "*"})
            for n in range(20)
        )
    )
    assert sorted(answer.status_code for answer in absent) == [201] + [412] * 19
    deleted = await asyncio.gather(*(http.delete(f"/fhir/Patient?{where}") for _ in range(20)))
    assert {answer.status_code for answer in deleted} == {204}
    assert len([answer for answer in deleted if "etag" in answer.headers]) == 1
    history = (await http.get("/fhir/Patient/_history")).json()["entry"]
    assert [entry["request"]["method"] for entry in history] == ["DELETE", "PUT"]


async def test_f032_a_condition_with_two_matches_deletes_and_patches_nothing(replica: Replica) -> None:
    http, fhir = replica.http(), replica.fhir()
    for _ in range(2):
        await fhir.create(patient("3"))
    where = "/fhir/Patient?family=muster"

    answers = [await http.delete(where), await patched(http, where, [{"op": "add", "path": "/active", "value": True}])]
    none = await patched(http, "/fhir/Patient?family=none", [{"op": "add", "path": "/active", "value": True}])

    assert [(a.status_code, a.json()["issue"][0]["code"]) for a in answers] == [(412, "multiple-matches")] * 2
    assert none.status_code == 404
    assert (await http.delete("/fhir/Patient")).status_code == (await http.patch("/fhir/Patient")).status_code == 400
    assert (await http.delete("/fhir/Patient?colour=blue")).status_code == 400  # never everything
    assert len(await fhir.search("Patient")) == 2


async def test_a_transaction_patches_reads_and_deletes_by_condition_all_or_nothing(any_replica: Replica) -> None:
    http, fhir = any_replica.http(Role.INTEGRATION), any_replica.fhir()
    who = await fhir.create(patient("4"))
    what = await fhir.create(order(f"Patient/{who['id']}", "A4"))
    change = base64.b64encode(
        json.dumps([{"op": "replace", "path": "/status", "value": "completed"}]).encode()
    ).decode()
    entries: list[dict[str, Any]] = [
        {"request": {"method": "GET", "url": f"ServiceRequest/{what['id']}"}},
        {"request": {"method": "PATCH", "url": f"ServiceRequest/{what['id']}"},
         "resource": {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": change}},
        {"request": {"method": "GET", "url": "ServiceRequest?identifier=urn:arcuate:id:accession|A4"}},
        {"request": {"method": "DELETE", "url": "Task?identifier=urn:x|none"}},
        {"request": {"method": "GET", "url": f"Patient/{who['id']}", "ifNoneMatch": 'W/"1"'}},
        {"request": {"method": "GET", "url": f"ServiceRequest/{what['id']}/_history/1"}},
    ]  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    failing = await http.post(
        "/fhir", json={**bundle, "entry": [*entries, {"request": {"method": "GET", "url": "Patient/none"}}]}
    )
    assert (failing.status_code, failing.json()["issue"][0]["expression"]) == (404, ["Bundle.entry[6].request.url"])
    assert (await fhir.read("ServiceRequest", what["id"]))["status"] == "active"

    answer = (await http.post("/fhir", json=bundle)).json()["entry"]

    assert [one["response"]["status"][:3] for one in answer] == ["200", "200", "200", "204", "304", "200"]
    assert (answer[0]["resource"]["status"], answer[5]["resource"]["status"]) == (
        "completed",
        "active",
    )  # reads see the changes
    assert answer[2]["resource"]["entry"][0]["resource"]["meta"]["versionId"] == "2"


async def test_reads_take_the_callers_copy_into_account(replica: Replica, fhir: FhirClient) -> None:
    http = replica.http()
    url = f"/fhir/Patient/{(await fhir.create(patient('1')))['id']}"
    later, before = "Tue, 17 Mar 2026 09:00:00 GMT", "Tue, 17 Mar 2026 08:59:59 GMT"

    asked = [{"If-None-Match": 'W/"9", W/"1"'}, {"If-None-Match": "*"}, {"If-Modified-Since": later}, {"If-Modified-Since": before},
             {"If-None-Match": 'W/"9"', "If-Modified-Since": later}, {"If-Modified-Since": "soon"}]  # fmt: skip

    assert [(await http.get(url, headers=one)).status_code for one in asked] == [304, 304, 304, 200, 200, 200]


value = st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text("a/~", max_size=3),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a/~0-", max_size=2), inner, max_size=3),
                     max_leaves=8)  # fmt: skip
pointer = st.lists(st.sampled_from(["a", "~0", "~1", "0", "1", "-", "", "01", "x"]), max_size=3).map(
    lambda steps: "".join(f"/{step}" for step in steps)
)
operation = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": pointer,
        "from": pointer,
        "value": value,
    }
)


@settings(max_examples=150)
@given(st.dictionaries(st.text("a/~0", max_size=2), value, max_size=4), st.lists(operation, min_size=1, max_size=5))
def test_any_patch_on_anything_is_applied_or_refused_and_leaves_the_original_alone(
    document: dict[str, Any], operations: list[Any]
) -> None:
    kept = copy.deepcopy(document)
    try:
        made = patch.applied(document, patch.read(operations))
    except ArcuateError as error:
        assert error.status in (400, 409, 413)
    else:
        assert isinstance(made, dict)
    assert document == kept


def test_copies_may_not_grow_without_end() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 100

    with pytest.raises(ArcuateError) as refused:
        patch.applied({"a": ["x" * 1000]}, patch.read(doubling))

    assert refused.value.code == "too-costly"
    with pytest.raises(ArcuateError):
        strict.loads_array(b'[{"op":"add","op":"add"}]')
