"""Changes that come at the same moment share a commit, and nothing else: each has its own fate and its own answer."""

import asyncio
from typing import Any

from arcuate.kernel.auth import Role

from .record_world import Replica, order, patient

WHO = "identifier=urn:arcuate:id:patient:TEST|1"


async def feed(replica: Replica) -> list[dict[str, Any]]:
    page = await replica.fhir().history({"_after": "0", "_count": "200"})
    return page.get("entry", [])


async def test_one_that_is_refused_among_many_leaves_the_others_untouched(any_replica: Replica) -> None:
    http = any_replica.http(Role.INTEGRATION)
    first = (await http.post("/fhir/Patient", json=patient("first"))).json()
    unknown = order("Patient?identifier=urn:arcuate:id:patient:TEST|nobody")
    stale = http.put(f"/fhir/Patient/{first['id']}", json=first, headers={"If-Match": 'W/"9"'})
    absent = http.put("/fhir/Patient/none", json={**patient("x"), "id": "none"})
    wrong = http.post("/fhir/Subscription", json={"resourceType": "Subscription", "status": "requested"})

    answers = await asyncio.gather(
        *(http.post("/fhir/Patient", json=patient(str(n))) for n in range(10)),
        stale, http.post("/fhir/ServiceRequest", json=unknown), absent, wrong,
        *(http.post("/fhir/Patient", json=patient(str(n))) for n in range(10, 20)),
    )  # fmt: skip

    assert [one.status_code for one in answers] == [201] * 10 + [412, 412, 404, 400] + [201] * 10
    told = {one.json()["id"]: one.json()["identifier"][0]["value"] for one in answers if one.status_code == 201}
    entries = await feed(any_replica)
    stored = {e["resource"]["id"]: e["resource"]["identifier"][0]["value"] for e in entries}
    assert stored == {**told, first["id"]: "first"}
    numbers = [int(entry["id"]) for entry in entries]
    assert numbers == sorted(set(numbers))
    assert [e["resource"]["meta"]["lastUpdated"] for e in entries] == sorted(
        e["resource"]["meta"]["lastUpdated"] for e in entries
    )


async def test_a_condition_sees_what_came_a_moment_before_it(replica: Replica) -> None:
    http = replica.http()
    made, same, changed = await asyncio.gather(
        http.post("/fhir/Patient", json=patient("1")),
        http.post("/fhir/Patient", json=patient("1"), headers={"If-None-Exist": WHO}),
        http.put(f"/fhir/Patient?{WHO}", json=patient("1", gender="female")),
    )

    assert [made.status_code, same.status_code, changed.status_code] == [201, 200, 200]
    assert {one.json()["id"] for one in (made, same, changed)} == {made.json()["id"]}
    assert changed.json()["meta"]["versionId"] == "2"
    found = await replica.fhir().search("Patient", {"gender": "female"})
    assert [one["id"] for one in found] == [made.json()["id"]]


async def test_what_is_asked_most_has_the_same_headers_errors_and_counts_as_all_else(replica: Replica) -> None:
    http = replica.http(Role.ADMIN)
    made = (await http.post("/fhir/Patient", json=patient("1"))).json()
    read = await http.get(f"/fhir/Patient/{made['id']}")
    slow = await http.get(f"/fhir/Patient/{made['id']}/_history/1")

    assert read.content == slow.content
    assert dict(read.headers) == dict(slow.headers)
    assert read.headers["x-content-type-options"] == "nosniff" and read.headers["etag"] == 'W/"1"'
    assert (await http.get("/fhir/Patient/none")).json()["resourceType"] == "OperationOutcome"
    assert (await http.get("/fhir/Nothing")).status_code == (await http.get("/fhir/Nothing/1")).status_code == 404
    assert (await http.get("/fhir/Patient/")).status_code == 307
    counted = (await http.get("/metrics")).text
    assert 'arcuate_requests_total{method="GET",route="/fhir/{resource_type}/{logical_id}",status="200"} 1.0' in counted
    assert made["id"] not in counted
