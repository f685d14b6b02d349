"""The audit trail: who saw and changed what; append-only, chained, and no answer without it."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError, Forbidden
from arcuate.record.audit import trail

from .record_world import Replica, order, patient


async def events(replica: Replica, query: str = "") -> list[dict[str, Any]]:
    answer = (await replica.http(Role.QUALITY).get(f"/fhir/AuditEvent{query}")).json()
    return [entry["resource"] for entry in answer.get("entry", [])]


def words(found: list[dict[str, Any]]) -> list[str]:
    return [event["subtype"][0]["code"] for event in found]


async def test_reads_and_writes_of_patient_data_are_kept_with_the_person(any_replica: Replica) -> None:
    who = await any_replica.fhir().create(patient("1"))
    made = await any_replica.fhir().create(order(f"Patient/{who['id']}"))
    reader = any_replica.fhir(Role.RADIOLOGIST, person="r-17")
    await reader.read("ServiceRequest", made["id"])
    await reader.search("ServiceRequest", {"patient.identifier": "urn:arcuate:id:patient:TEST|1"})

    found = await events(any_replica, f"?patient={who['id']}")
    mine = await events(any_replica, "?agent=r-17")

    assert words(found) == ["search-type", "read", "create", "create"]
    assert words(mine) == ["search-type", "read"]
    assert (mine[0]["agent"][0]["who"]["identifier"]["value"], mine[0]["agent"][0]["name"]) == ("r-17", "Name of r-17")
    assert mine[0]["agent"][1]["who"]["identifier"]["value"] == "dashboard"
    assert mine[0]["entity"][-1] == {"name": "search by patient.identifier"}
    assert "TEST|1" not in str(found)


async def test_what_holds_no_patient_data_is_not_in_the_trail_and_refused_writes_are(replica: Replica) -> None:
    await replica.fhir().create({"resourceType": "Location", "name": "Room 1"})
    await replica.fhir(Role.SCHEDULER, person="s").search("Location")
    made = await replica.fhir().create({"resourceType": "Task", "status": "ready", "intent": "order"})
    with pytest.raises(ArcuateError):
        await replica.fhir(Role.LEAD, person="l").update({**made, "status": "accepted"}, if_match="9")

    found = await events(replica)

    assert words(found) == ["update", "create", "create"]
    assert found[0]["outcome"] == "4"


async def test_the_feed_is_not_woken_by_the_trail(replica: Replica) -> None:
    who = await replica.fhir().create(patient("1"))
    await replica.fhir(Role.LEAD, person="l").read("Patient", who["id"])

    page = await replica.fhir().history({"_after": "0"})

    assert [entry["resource"]["resourceType"] for entry in page["entry"]] == ["Patient"]


@pytest.mark.parametrize("role", [Role.SCHEDULER, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION])
async def test_the_trail_is_read_by_quality_and_admin_and_written_by_nobody(replica: Replica, role: Role) -> None:
    for method, path in [("GET", "/fhir/AuditEvent"), ("GET", "/fhir/AuditEvent/1")]:
        assert (await replica.http(role).request(method, path)).status_code == 403
    for method, path in [("DELETE", "/fhir/AuditEvent/1"), ("PUT", "/fhir/AuditEvent/1"), ("POST", "/fhir/AuditEvent")]:
        answer = await replica.http(Role.ADMIN).request(method, path, json={"resourceType": "AuditEvent", "id": "1"})
        assert answer.status_code in (404, 405)


async def test_entries_can_be_found_by_day_and_page_by_page(replica: Replica) -> None:
    for number in range(5):
        await replica.fhir().create(patient(str(number)))
    http = replica.http(Role.ADMIN)

    first = (await http.get("/fhir/AuditEvent?_count=3&date=ge2026-03-17&date=lt2026-03-18")).json()
    second = (await http.get(first["link"][1]["url"])).json()

    assert [entry["resource"]["id"] for entry in first["entry"]] == ["5", "4", "3"]
    assert [entry["resource"]["id"] for entry in second["entry"]] == ["2", "1"]
    assert await events(replica, "?date=2026-03-16") == []
    assert (await http.get("/fhir/AuditEvent/77")).status_code == 404
    assert (await http.get("/fhir/AuditEvent/1")).json()["id"] == "1"


async def test_f081_a_changed_or_missing_entry_is_named_and_the_database_refuses_both(any_replica: Replica) -> None:
    for number in range(6):
        await any_replica.fhir().create(patient(str(number)))
    kept = any_replica.record.trail
    await kept.settle()
    database = kept.database

    assert None is await database.read(lambda s: trail.first_broken(s.connection()))
    assert await database.read(lambda s: trail.size(s.connection())) == 6
    for statement in ("UPDATE entry SET person = 'x' WHERE number = 3", "DELETE FROM entry WHERE number = 3"):
        with pytest.raises((ArcuateError, DBAPIError)):
            await database.write(lambda s, sql=statement: s.connection().execute(text(sql)))  # type: ignore[misc]

    def forge(session: Any) -> None:
        connection = session.connection()
        if database.is_sqlite:
            connection.execute(text("DROP TRIGGER entry_no_update"))
        else:
            connection.execute(text("ALTER TABLE entry DISABLE TRIGGER USER"))
        connection.execute(text("UPDATE entry SET person = 'x' WHERE number = 3"))

    await database.write(forge)
    assert await database.read(lambda s: trail.first_broken(s.connection())) == 3


async def test_f081_what_cannot_be_audited_is_not_answered_and_it_recovers(replica: Replica) -> None:
    who = await replica.fhir().create(patient("1"))
    kept = replica.record.trail
    await kept.settle()
    await kept.database.write(lambda s: s.connection().execute(text("ALTER TABLE entry RENAME TO away")))

    refused = await replica.http(Role.LEAD, person="l").get(f"/fhir/Patient/{who['id']}")
    by_room = await replica.http().get(f"/fhir/Patient/{who['id']}")
    ready = await replica.http().get("/ready")
    await kept.database.write(lambda s: s.connection().execute(text("ALTER TABLE away RENAME TO entry")))
    again = await replica.http(Role.LEAD, person="l").get(f"/fhir/Patient/{who['id']}")

    assert [refused.status_code, by_room.status_code, ready.status_code, again.status_code] == [503, 503, 503, 200]
    assert refused.json()["issue"][0]["code"] == "transient"
    assert (await replica.http().get("/ready")).status_code == 200


async def test_many_readers_at_once_make_one_unbroken_chain(two_replicas: Any, clock: Any) -> None:
    first, second = await two_replicas(clock)
    who = await first.fhir().create(patient("1"))
    readers = [replica.fhir(Role.LEAD, person=f"p{n}") for n in range(4) for replica in (first, second)]

    await asyncio.gather(*(reader.read("Patient", who["id"]) for reader in readers for _ in range(5)))
    await first.record.trail.settle()

    assert None is await first.record.trail.database.read(lambda s: trail.first_broken(s.connection()))
    assert await first.record.trail.database.read(lambda s: trail.size(s.connection())) == 41
    with pytest.raises(Forbidden):
        await readers[0].create(patient("2"))
