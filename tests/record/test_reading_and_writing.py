"""Create, read, update, delete: versions, conditions, and what is refused."""

import asyncio
from decimal import Decimal
from typing import Any

import httpx
import pytest

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import BadInput, Forbidden, Gone, NotFound, PreconditionFailed, PreconditionRequired
from arcuate.kernel.fhir.client import FhirClient, version_of

from .record_world import Replica, order, patient


def task(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Task", "status": "ready", "intent": "order", **more}


async def test_what_is_created_is_read_back_as_it_was_sent_with_id_and_version(fhir: FhirClient) -> None:
    sent = patient("7", birthDate="1980-02-29")

    created = await fhir.create(sent)

    assert created["meta"]["versionId"] == "1"
    assert {k: v for k, v in created.items() if k not in ("id", "meta")} == sent
    assert created == await fhir.read("Patient", created["id"])
    assert "7" not in created["id"].split("-")


async def test_a_decimal_keeps_every_digit(replica: Replica) -> None:
    body = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10,"unit":"mL"}}'
    http = replica.http()

    created = await http.post("/fhir/Observation", content=body, headers={"Content-Type": "application/fhir+json"})

    assert created.status_code == 201
    assert b'"value":1.10,' in created.content
    assert b'"value":1.10,' in (await http.get(created.headers["location"].split("/_history")[0])).content
    found = await replica.fhir().search("Observation", {"value-quantity": "1.1"})
    assert Decimal("1.10") == found[0]["valueQuantity"]["value"]


async def test_each_version_can_be_read_and_a_deleted_one_says_so(fhir: FhirClient) -> None:
    first = await fhir.create(patient("1"))
    second = await fhir.update({**first, "active": False})
    await fhir.delete("Patient", first["id"])
    await fhir.delete("Patient", first["id"])  # deleting twice is no fault

    assert first == await fhir.read("Patient", first["id"], "1")
    assert second == await fhir.read("Patient", first["id"], "2")
    with pytest.raises(Gone):
        await fhir.read("Patient", first["id"])
    with pytest.raises(Gone):
        await fhir.read("Patient", first["id"], "3")
    with pytest.raises(NotFound):
        await fhir.read("Patient", first["id"], "4")
    assert await fhir.search("Patient", {"_id": first["id"]}) == []


async def test_an_unknown_id_is_not_created_by_put_because_ids_are_random(fhir: FhirClient) -> None:
    with pytest.raises(NotFound):
        await fhir.update({**patient("1"), "id": "my-own-id"})


async def test_f031_a_stale_version_is_refused_and_the_current_one_is_named(replica: Replica) -> None:
    fhir = replica.fhir()
    made = await fhir.create(task())
    await fhir.update({**made, "status": "accepted"}, if_match="1")

    with pytest.raises(PreconditionFailed):
        await fhir.update({**made, "status": "completed"}, if_match="1")
    answer = await replica.http().put(f"/fhir/Task/{made['id']}", json=made, headers={"If-Match": 'W/"1"'})

    assert (answer.status_code, answer.headers["etag"], answer.json()["issue"][0]["code"]) == (412, 'W/"2"', "conflict")


@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.INTEGRATION])
async def test_f031_where_people_edit_a_change_without_version_is_refused(replica: Replica, role: Role) -> None:
    made = await replica.fhir().create(task())

    with pytest.raises(PreconditionRequired) as refused:
        await replica.fhir(role).update({**made, "status": "accepted"})

    assert refused.value.code == "required"
    assert version_of(await replica.fhir(role).update({**made, "status": "accepted"}, if_match="1")) == "2"


async def test_f031_of_fifty_parallel_changes_none_is_lost_and_versions_have_no_gap(any_replica: Replica) -> None:
    fhir = any_replica.fhir()
    made = await fhir.create(task())

    answers = await asyncio.gather(*(fhir.update({**made, "description": f"change {n}"}) for n in range(50)))
    guarded = await asyncio.gather(
        *(fhir.update({**made, "description": f"guarded {n}"}, if_match="51") for n in range(50)),
        return_exceptions=True,
    )

    assert [str(n) for n in range(2, 52)] == sorted((version_of(a) for a in answers), key=int)
    assert sum(isinstance(answer, dict) for answer in guarded) == 1
    assert sum(isinstance(answer, PreconditionFailed) for answer in guarded) == 49


async def test_f032_of_32_parallel_conditional_creates_exactly_one_creates(
    two_replicas: Any, clock: ManualClock
) -> None:
    first, second = await two_replicas(clock)
    clients = [first.http(), second.http()]
    condition = {
        "If-None-Exist": "identifier=urn:arcuate:id:patient:TEST|same",
        "Content-Type": "application/fhir+json",
    }

    for _ in range(3):
        answers = await asyncio.gather(
            *(clients[n % 2].post("/fhir/Patient", json=patient("same"), headers=condition) for n in range(32))
        )
        assert {200, 201} >= {answer.status_code for answer in answers}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert sum(answer.status_code == 201 for answer in answers) <= 1
    assert len(await first.fhir().search("Patient", {"identifier": "urn:arcuate:id:patient:TEST|same"})) == 1


async def test_f032_a_condition_with_two_matches_is_refused(fhir: FhirClient) -> None:
    await fhir.create(patient("twice"))
    await fhir.create(patient("twice"))

    with pytest.raises(PreconditionFailed) as refused:
        await fhir.create(patient("twice"), {"identifier": "urn:arcuate:id:patient:TEST|twice"})

    assert refused.value.code == "multiple-matches"


async def test_a_condition_can_be_used_again_after_its_resource_was_deleted_or_changed(fhir: FhirClient) -> None:
    condition = {"identifier": "urn:arcuate:id:patient:TEST|again"}
    first = await fhir.create(patient("again"), condition)
    await fhir.delete("Patient", first["id"])
    second = await fhir.create(patient("again"), condition)
    await fhir.update({**second, "identifier": [{"system": "urn:arcuate:id:patient:TEST", "value": "other"}]})
    third = await fhir.create(patient("again"), condition)

    assert len({first["id"], second["id"], third["id"]}) == 3


async def test_a_conditional_update_creates_then_updates_and_the_same_again_is_no_new_version(fhir: FhirClient) -> None:
    where = {"identifier": "urn:arcuate:id:patient:TEST|5"}
    first = await fhir.update(patient("5"), where=where)
    second = await fhir.update(patient("5", active=True), where=where)
    third = await fhir.update(patient("5", active=True), where=where)

    assert [version_of(first), version_of(second), version_of(third)] == ["1", "2", "2"]
    assert first["id"] == third["id"]


@pytest.mark.parametrize(
    ("resource", "expression"),
    [
        ({"resourceType": "Patient", "gender": "F"}, "Patient.gender"),
        ({"resourceType": "Patient", "brithDate": "1980-01-01"}, "Patient.brithDate"),
        ({"resourceType": "Patient", "birthDate": "1980-02-30"}, "Patient.birthDate"),
        ({"resourceType": "Patient", "name": []}, "Patient.name"),
        ({"resourceType": "Patient", "name": [{"given": "Anna"}]}, "Patient.name[0].given"),
        ({"resourceType": "Observation"}, "Patient.resourceType"),
    ],
)  # fmt: skip
async def test_a_resource_that_is_not_valid_is_refused_with_the_element(
    replica: Replica, resource: dict[str, Any], expression: str
) -> None:
    for http in (replica.http(), replica.http(Role.INTEGRATION)):
        answer = await http.post("/fhir/Patient", json=resource)

        assert answer.status_code == 400
        assert [expression] == answer.json()["issue"][0]["expression"]


async def test_a_wrong_target_names_the_reference(fhir: FhirClient) -> None:
    with pytest.raises(BadInput, match=r"ServiceRequest\.subject\.reference"):
        await fhir.create(order("ImagingStudy/1"))


@pytest.mark.parametrize(
    ("role", "allowed", "forbidden"),
    [
        (Role.SCHEDULER, ["Task", "Appointment"], ["Patient", "ServiceRequest", "DiagnosticReport", "Observation"]),
        (Role.RADIOLOGIST, ["Task"], ["Patient", "Appointment", "DiagnosticReport"]),
        (Role.QUALITY, [], ["Task", "Patient"]),
        (Role.INTEGRATION, ["Task", "Patient"], []),
    ],
)
async def test_people_write_little_and_everything_else_is_forbidden(
    replica: Replica, role: Role, allowed: list[str], forbidden: list[str]
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "Task": task(), "Patient": patient(), "ServiceRequest": order("Patient/1"),
        "Appointment": {"resourceType": "Appointment", "status": "proposed", "participant": [{"status": "accepted", "actor": {"display": "x"}}]},
        "DiagnosticReport": {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"}},
        "Observation": {"resourceType": "Observation", "status": "final", "code": {"text": "x"}},
    }  # fmt: skip
    fhir = replica.fhir(role, person="p1")

    for name in allowed:
        made = await fhir.create(bodies[name])
        if role != Role.INTEGRATION:
            with pytest.raises(Forbidden):
                await fhir.delete(name, made["id"])
    for name in forbidden:
        with pytest.raises(Forbidden):
            await fhir.create(bodies[name])


async def test_without_a_token_only_the_capability_statement_is_open(replica: Replica) -> None:
    async with httpx.AsyncClient(transport=replica.transport, base_url="http://house") as http:
        answers = {
            path: (await http.request(method, path)).status_code
            for method, path in [
                ("GET", "/fhir/metadata"), ("GET", "/fhir/Patient"), ("GET", "/fhir/Patient/1"), ("POST", "/fhir"),
                ("GET", "/fhir/_history"), ("GET", "/fhir/AuditEvent"), ("POST", "/fhir/Patient/_search"),
                ("PUT", "/fhir/Patient/2"), ("DELETE", "/fhir/Patient/3"), ("GET", "/fhir/Patient/1/_history/1"),
            ]
        }  # fmt: skip

    assert answers.pop("/fhir/metadata") == 200
    assert {401} == set(answers.values())


async def test_if_none_match_saves_the_body_and_prefer_minimal_sends_none(replica: Replica) -> None:
    http = replica.http()
    created = await http.post("/fhir/Patient", json=patient(), headers={"Prefer": "return=minimal"})
    place = created.headers["location"].split("/_history")[0]

    assert created.content == b""
    assert (await http.get(place, headers={"If-None-Match": 'W/"1"'})).status_code == 304
    assert (await http.get(place, headers={"If-None-Match": 'W/"7"'})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/fhir/Patient", {"Content-Type": "application/fhir+xml"}, b"<Patient/>", 415),
        ("POST", "/fhir/Patient", {"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"x", 415),
        ("POST", "/fhir/Unicorn", {"Content-Type": "application/json"}, b"{}", 404),
        ("GET", "/fhir/Unicorn/1", {}, b"", 404),
        ("GET", "/fhir/Patient/no-such-id", {}, b"", 404),
        ("GET", "/fhir/Patient/x/_history/nonsense", {}, b"", 404),
        ("PUT", "/fhir/Patient", {"Content-Type": "application/json"}, b"{}", 400),
        ("POST", "/fhir", {"Content-Type": "application/json"}, b'{"resourceType":"Patient"}', 400),
        ("GET", "/fhir", {}, b"", 400),
        ("GET", "/fhir?_page=forged", {}, b"", 400),
    ],
)  # fmt: skip
async def test_what_the_record_does_not_know_is_answered_with_an_operation_outcome(
    replica: Replica, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    answer = await replica.http().request(method, path, headers=headers, content=content)

    assert (status, "OperationOutcome") == (answer.status_code, answer.json()["resourceType"])


async def test_f030_a_body_over_the_limit_is_refused_for_callers_from_outside_only(replica: Replica) -> None:
    large = {"resourceType": "Binary", "contentType": "text/plain", "data": "QUJD" * 1_400_000}

    assert (await replica.http(Role.INTEGRATION).post("/fhir/Binary", json=large)).status_code == 413
    assert (await replica.http().post("/fhir/Binary", json=large)).status_code == 201
