"""Searches of several types and of all: what cannot be combined is refused, and pages hold still while data change."""

from typing import Any

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock

from .record_world import Replica, order, patient


async def filled(replica: Replica) -> str:
    """Two patients, three orders of the first, one location."""
    fhir = replica.fhir()
    anna = f"Patient/{(await fhir.create(patient('1')))['id']}"
    await fhir.create(patient("2"))
    for number in range(3):
        await fhir.create(order(anna, f"A{number}"))
    await fhir.create({"resourceType": "Location", "name": "MR 1"})
    return anna


def found(bundle: dict[str, Any]) -> list[str]:
    return [e["resource"]["resourceType"] for e in bundle.get("entry", [])]


REFUSED = [
    ("", "_type, _id or _lastUpdated"),
    ("_count=5", "_type, _id or _lastUpdated"),
    ("_type=Nothing", "not stored here"),
    ("_type=Patient,AuditEvent", "not stored here"),
    ("_lastUpdated=gt2020&status=active", "Not every type has 'status'"),
    ("_lastUpdated=gt2020&_elements=id", "Not every type has '_elements'"),
    ("_type=Patient,ServiceRequest&status=active", "'status' is not known here (of Patient)"),
    ("_type=Patient,ServiceRequest&_include=ServiceRequest:patient", "one type"),
    ("_type=Patient,ServiceRequest&_revinclude:iterate=ServiceRequest:patient", "one type"),
    ("_type=Patient,Practitioner&_sort=name", "sorted by _id or _lastUpdated"),
    ("_id=x&_sort=name", "_sort"),
    ("_type=Patient,ServiceRequest&_elements=subject", "_elements"),
    ("_lastUpdated=yesterday", "no date"),
]


async def test_what_cannot_be_combined_is_refused_in_words(replica: Replica) -> None:
    http = replica.http()
    for query, words in REFUSED:
        answer = await http.get(f"/fhir?{query}")
        assert answer.status_code == 400, (query, answer.text)
        said = answer.json()["issue"][0]
        assert words in said["diagnostics"] or words in str(said.get("expression")), said


async def test_several_types_are_searched_by_what_they_share(any_replica: Replica) -> None:
    anna = await filled(any_replica)
    http = any_replica.http(Role.RADIOLOGIST)

    async def of(query: str) -> list[str]:
        answer = await http.get(f"/fhir?{query}")
        assert answer.status_code == 200, answer.text
        return found(answer.json())

    assert await of("_type=Patient,Location") == ["Patient", "Patient", "Location"]
    assert sorted(await of("_lastUpdated=gt2020&_sort=-_lastUpdated,_id")) == [
        "Location", "Patient", "Patient", *["ServiceRequest"] * 3
    ]  # fmt: skip
    assert await of(f"_id={anna.removeprefix('Patient/')}") == ["Patient"]
    assert await of(f"_type=ServiceRequest,Condition&patient={anna}") == ["ServiceRequest"] * 3
    assert await of("_type=Patient,ServiceRequest&identifier=urn:arcuate:id:patient:TEST|1,urn:arcuate:id:accession|A2") == [
        "Patient", "ServiceRequest"
    ]  # fmt: skip
    counted = (await http.get("/fhir?_type=Patient,ServiceRequest&_summary=count")).json()
    assert counted["total"] == 5 and "entry" not in counted
    posted = await http.post("/fhir/_search", data={"_type": "Location", "name": "mr"})
    assert found(posted.json()) == ["Location"]
    assert (await http.post("/fhir/_search", json={"_type": "Location"})).status_code == 415


async def test_pages_of_several_types_hold_still_while_data_change(any_replica: Replica, clock: ManualClock) -> None:
    anna = await filled(any_replica)
    http, fhir = any_replica.http(), any_replica.fhir()
    first = (await http.get("/fhir?_type=Patient,ServiceRequest,Location&_count=2")).json()
    seen = [e["resource"]["id"] for e in first["entry"]]
    for number in range(4):
        await fhir.create(order(anna, f"B{number}"))
    (changed, *_) = await fhir.search("ServiceRequest", {"identifier": "A1"})
    clock.advance(1)
    await fhir.update({**changed, "priority": "stat"})

    page = first
    while link := next((one["url"] for one in page["link"] if one["relation"] == "next"), None):
        assert "Patient" not in link, "what is asked does not stand in the link"
        page = (await http.get(link)).json()
        seen += [e["resource"]["id"] for e in page.get("entry", [])]

    assert len(seen) == len(set(seen)) == 6


async def test_who_looked_stands_in_the_trail_without_what_was_asked(replica: Replica) -> None:
    anna = await filled(replica)
    await replica.http(Role.RADIOLOGIST, person="doctor").get(f"/fhir?_type=ServiceRequest,Condition&patient={anna}")

    events = (await replica.http(Role.QUALITY).get("/fhir/AuditEvent", params={"agent": "doctor"})).json()["entry"]
    (event,) = [one["resource"] for one in events]
    assert event["subtype"][0]["code"] == "search-system"
    assert "search by _type,patient" in [e.get("name") for e in event["entity"]]
