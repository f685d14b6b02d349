"""What a search brings along, shows and may cost."""

import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir.client import FhirClient
from arcuate.record import parameters
from arcuate.record.query import Reader

from .record_world import Replica, open_replica, order, patient


def ids(resources: list[dict[str, Any]], kind: str = "") -> set[str]:
    return {one["id"] for one in resources if not kind or one["resourceType"] == kind}


async def test_a_summary_and_elements_show_what_was_asked_and_say_that_it_is_not_all(replica: Replica) -> None:
    http, fhir = replica.http(), replica.fhir()
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Anna</div>'}
    made = await fhir.create(order("Patient/1", "A1", text=text, note=[{"text": "x"}], priority="stat"))
    tag = [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}]
    must = {"resourceType", "id", "meta", "status", "intent", "subject"}

    shown = {
        query: (await http.get(f"/fhir/ServiceRequest?{query}")).json()["entry"][0]["resource"]
        for query in ("_elements=priority", "_summary=true", "_summary=text", "_summary=data", "_summary=false")
    }
    one = (await http.get(f"/fhir/ServiceRequest/{made['id']}?_elements=ServiceRequest.note")).json()

    assert shown["_elements=priority"].keys() == {*must, "priority"}
    assert shown["_summary=text"].keys() == {*must, "text"}
    assert shown["_summary=data"].keys() == made.keys() - {"text"}
    assert shown["_summary=true"].keys() == {*must, "identifier", "priority"}
    assert shown["_summary=false"] == made
    assert one.keys() == {*must, "note"}
    assert all(part["meta"]["tag"] == tag for part in (one, *list(shown.values())[:4]))


async def test_what_a_result_parameter_cannot_mean_is_refused(replica: Replica) -> None:
    for query in ("_summary=all", "_elements=colour", "_lastUpdated=soon", "_count=-1", "_has:Observation:code:x=1"):
        answer = await replica.http().get(f"/fhir/Patient?{query}", headers={"Prefer": "handling=strict"})

        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome"), query


async def test_what_refers_to_a_match_can_be_a_condition(fhir: FhirClient) -> None:
    one, other = await fhir.create(patient("1")), await fhir.create(patient("2"))
    await fhir.create(order(f"Patient/{one['id']}", "A1", status="completed"))
    await fhir.create(order(f"Patient/{other['id']}", "A2"))

    assert ids(await fhir.search("Patient", {"_has:ServiceRequest:subject:status": "completed"})) == {one["id"]}
    both = {"_has:ServiceRequest:patient:identifier": "urn:arcuate:id:accession|A2", "family": "muster"}
    assert ids(await fhir.search("Patient", both)) == {other["id"]}
    assert ids(await fhir.search("ServiceRequest", {"patient.identifier": "urn:arcuate:id:patient:TEST|2"})) != set()


async def test_what_came_along_brings_more_only_when_it_is_asked_to(fhir: FhirClient) -> None:
    who = await fhir.create(patient("1"))
    what = await fhir.create(order(f"Patient/{who['id']}"))
    task = {
        "resourceType": "Task",
        "status": "ready",
        "intent": "order",
        "focus": {"reference": f"ServiceRequest/{what['id']}"},
    }
    todo = await fhir.create(task)

    once = await fhir.search("Task", {"_include": "Task:focus", "_include:iterate": "ServiceRequest:subject"})
    plain = await fhir.search("Task", {"_include": ["Task:focus", "ServiceRequest:subject"]})
    back = await fhir.search("Patient", {"_revinclude": "ServiceRequest:subject", "_revinclude:iterate": "Task:focus"})
    every = await fhir.search("ServiceRequest", {"_include": "ServiceRequest:*"})

    everything = {who["id"], what["id"], todo["id"]}
    assert (ids(once), ids(plain), ids(back)) == (everything, {todo["id"], what["id"]}, everything)
    assert ids(every) == {who["id"], what["id"]}


async def test_an_exact_name_counts_accents_and_case(fhir: FhirClient) -> None:
    made = await fhir.create(patient("1", name=[{"family": "Müller", "given": ["Zoë"]}]))

    found = {
        name: ids(await fhir.search("Patient", {"family:exact": name}))
        for name in ("Müller", "müller", "Muller", "Mül")
    }

    assert found == {"Müller": {made["id"]}, "müller": set(), "Muller": set(), "Mül": set()}


async def test_f033_a_search_that_costs_too_much_is_stopped(
    database_url: str, tmp_path: Any, clock: ManualClock, stack: Any
) -> None:
    replica = await open_replica(database_url, tmp_path / "r", clock, stack, search_limit_s=0.002)
    entries = [
        {"resource": patient(str(n), name=[{"family": f"Muster{n}"}]), "request": {"method": "POST", "url": "Patient"}}
        for n in range(700)
    ]
    await replica.fhir().transaction({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    names = ",".join(f"uste{n}" for n in range(300))

    answer = await replica.http().post("/fhir/Patient/_search", data={"name:contains": names, "_sort": "-family,name"})

    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (503, "too-costly"), answer.text[:300]


LOADED = parameters.load()
words = st.sampled_from(
    [*LOADED.by_type["ServiceRequest"], "_id", "_lastUpdated", "_count", "_sort", "_include", "_revinclude", "_summary", "_elements",
     "_has:Task:focus:status", "_total", "subject.identifier", "patient:Patient.name", "subject:identifier"]
)  # fmt: skip
modifiers = st.sampled_from(
    ["", ":not", ":missing", ":exact", ":contains", ":identifier", ":Patient", ":iterate", ":", "::", ".", ".a.b"]
)
signs = st.text(st.sampled_from("gt1290-T:Z+.|,$\\/ e%#äA\x00_*"), max_size=12) | st.text(max_size=12)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.tuples(words, modifiers).map("".join), signs), max_size=4), st.booleans())
def test_f033_any_search_is_read_or_refused(pairs: list[tuple[str, str]], strictly: bool) -> None:
    from zoneinfo import ZoneInfo

    try:
        asked = Reader(LOADED, ZoneInfo("Europe/Zurich")).read("ServiceRequest", pairs, strict=strictly)
    except BadInput as error:
        assert error.code in ("value", "not-supported")
    else:
        assert len(asked.pairs) + len(asked.ignored) <= len(pairs)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.tuples(words, modifiers).map("".join), signs), min_size=1, max_size=3))
async def test_f033_any_search_is_answered_in_time(any_replica: Replica, pairs: list[tuple[str, str]]) -> None:
    began = time.perf_counter()
    answer = await any_replica.http().get("/fhir/ServiceRequest", params=pairs)

    assert answer.status_code in (200, 400), answer.text
    assert time.perf_counter() - began < 5
