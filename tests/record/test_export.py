"""Bulk Data export: one instant of the record, line by line, for whom it was made; and `$validate`."""

import asyncio
import json
from typing import Any

import httpx

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock

from .record_world import Replica, order, patient

ASYNC = {"Prefer": "respond-async"}


async def begun(http: httpx.AsyncClient, url: str = "/fhir/$export") -> str:
    answer = await http.get(url, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["content-location"]


async def manifest(http: httpx.AsyncClient, place: str) -> dict[str, Any]:
    for _ in range(500):
        answer = await http.get(place)
        if answer.status_code == 200:
            return dict(answer.json())
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "1")
        await asyncio.sleep(0.01)
    raise AssertionError("the export is never ready")


async def lines(http: httpx.AsyncClient, said: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for output in said["output"]:
        answer = await http.get(output["url"])
        assert answer.headers["content-type"] == "application/fhir+ndjson"
        found[output["type"]] = [json.loads(line) for line in answer.text.splitlines()]
        assert len(found[output["type"]]) == output["count"]
    return found


async def test_an_export_holds_one_instant_whatever_is_written_meanwhile(any_replica: Replica) -> None:
    http, fhir = any_replica.http(Role.INTEGRATION), any_replica.fhir()
    kept, changed, gone = [await fhir.create(patient(str(n))) for n in range(3)]
    newer = await fhir.update({**changed, "active": True})
    await fhir.delete("Patient", gone["id"])
    place = await begun(http)
    await fhir.update({**kept, "active": False})
    await fhir.delete("Patient", changed["id"])
    await fhir.create(patient("9"))

    said = await manifest(http, place)

    assert await lines(http, said) == {"Patient": [kept, newer]}
    assert (said["requiresAccessToken"], said["error"]) == (True, [])
    assert said["request"].endswith("/fhir/$export")
    later = await manifest(http, await begun(http, f"/fhir/$export?_since={said['transactionTime']}&_type=Patient"))
    assert len((await lines(http, later))["Patient"]) >= 2


async def test_an_export_of_patients_or_a_group_holds_nothing_of_others(replica: Replica) -> None:
    http, fhir = replica.http(Role.INTEGRATION), replica.fhir()
    one, other = await fhir.create(patient("1")), await fhir.create(patient("2"))
    await fhir.create(order(f"Patient/{one['id']}", "A1"))
    mine = await fhir.create(order(f"Patient/{other['id']}", "A2"))
    await fhir.create({"resourceType": "Organization", "name": "Clinic"})
    group = {
        "resourceType": "Group",
        "type": "person",
        "actual": True,
        "member": [{"entity": {"reference": f"Patient/{other['id']}"}}],
    }
    few = await fhir.create(group)
    none = await fhir.create({**group, "member": [{**group["member"][0], "inactive": True}]})

    all_of_them = await lines(http, await manifest(http, await begun(http, "/fhir/Patient/$export")))
    of_group = await lines(http, await manifest(http, await begun(http, f"/fhir/Group/{few['id']}/$export")))
    of_nobody = await manifest(http, await begun(http, f"/fhir/Group/{none['id']}/$export"))

    assert {kind: len(found) for kind, found in all_of_them.items()} == {"Patient": 2, "ServiceRequest": 2}
    assert of_group == {"Patient": [other], "ServiceRequest": [mine]}
    assert of_nobody["output"] == []


async def test_an_export_is_its_owners_alone_ends_and_is_audited(replica: Replica, clock: ManualClock) -> None:
    http, other = replica.http(Role.INTEGRATION), replica.http(Role.ADMIN, person="p2")
    await replica.fhir().create(patient("1"))
    place = await begun(http)
    file = (await manifest(http, place))["output"][0]["url"]
    await http.get(file)

    assert [(await other.get(url)).status_code for url in (place, file)] == [404, 404]
    assert (await http.get(file.replace("Patient.", "Task."))).status_code == 200
    assert (await http.get(file.replace("Patient.", "Unicorn."))).status_code == 404
    kept = (await other.get("/fhir/AuditEvent?subtype=operation")).json()["entry"]
    assert "$export of Patient" in [entity["name"] for one in kept for entity in one["resource"].get("entity", [])]
    assert (await http.delete(place)).status_code == 202
    assert (await http.get(file)).status_code == 404
    second = await begun(http)
    clock.advance(86401)
    assert (await http.get(second)).status_code == 404


async def test_what_an_export_cannot_mean_is_refused(replica: Replica) -> None:
    asked = [
        ("", {}),
        ("?_type=Unicorn", ASYNC),
        ("?_since=soon", ASYNC),
        ("?_outputFormat=csv", ASYNC),
        ("?_typeFilter=x", ASYNC),
    ]

    for query, headers in asked:
        answer = await replica.http(Role.INTEGRATION).get(f"/fhir/$export{query}", headers=headers)
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome"), query
    assert (await replica.http(Role.RADIOLOGIST, person="p").get("/fhir/$export", headers=ASYNC)).status_code == 403


async def test_validation_says_what_a_create_would_say_and_stores_nothing(replica: Replica) -> None:
    person, fhir = replica.http(Role.RADIOLOGIST, person="p"), replica.fhir()
    made = await fhir.create(patient("1"))
    wrong = {"resourceType": "Patient", "gender": "F"}

    async def judged(url: str, body: Any) -> tuple[int, str, Any]:
        answer = await person.post(f"/fhir/{url}/$validate", json=body)
        issue = answer.json()["issue"][0]
        return answer.status_code, issue["severity"], issue.get("expression", [""])[0]

    inside = {
        "resourceType": "Parameters",
        "parameter": [{"name": "mode", "valueCode": "create"}, {"name": "resource", "resource": wrong}],
    }
    assert await judged("Patient", patient("2")) == (200, "information", "")
    assert await judged("Patient", wrong) == await judged("Patient", inside) == (200, "error", "Patient.gender")
    assert await judged("Task", patient("2")) == (200, "error", "Task.resourceType")
    assert await judged(f"Patient/{made['id']}", patient("2")) == (200, "error", "Patient.id")
    assert await judged(f"Patient/{made['id']}", made) == (200, "information", "")
    assert (
        await person.post("/fhir/Patient/$validate", content=b"{", headers={"Content-Type": "application/json"})
    ).status_code == 400
    assert (await person.post("/fhir/Patient/none/$validate", json=patient("2"))).status_code == 404
    assert len(await fhir.search("Patient")) == 1
