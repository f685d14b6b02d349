"""What the rooms ask of the record stands on a page, and our own record does it over HTTP: so that another server can be judged by the page."""

import ast
import asyncio
import csv
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.contract.conftest import free_port

import arcuate
from arcuate.house import HouseSettings
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import FeedReader
from arcuate.kernel.settings import SiteSettings
from arcuate.programs import running

ROOT = Path(__file__).parents[2]
ROOMS = Path(arcuate.__path__[0])
PAGE = ROOT / "docs" / "reference" / "external-fhir-server.md"
NO_ROOMS = {"record", "hospital"}  # the record asks itself; the hospital is no part of the house
RESULTS = {"_count", "_sort"}
MRN = "urn:arcuate:id:patient:TEST"


def promised() -> dict[str, list[str]]:
    """Return the search parameters of the page by type."""
    part = PAGE.read_text("utf-8").split("## Searches")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| ")
    ]
    return {row[0]: [one.strip() for one in row[1].split(",") if one.strip()] for row in rows[1:]}


def asked_in_code() -> Iterator[tuple[str, str, str]]:
    """Yield place, type and parameter of every search that names its type, as far as its parameters can be read."""
    for path in sorted(ROOMS.rglob("*.py")):
        place = path.relative_to(ROOMS)
        if place.parts[0] in NO_ROOMS:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                known = {
                    target.id: node.value
                    for node in ast.walk(function)
                    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
                    for target in node.targets
                    if isinstance(target, ast.Name)
                }
                for kind, query in searches(function):
                    found = known.get(query.id) if isinstance(query, ast.Name) else query
                    yield from ((f"{place}:{function.name}", kind, name) for name in parameters(found))


def searches(function: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    for node in ast.walk(function):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("search", "one", "pages") or "fhir" not in ast.unparse(node.func.value):
            continue
        if node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), node.args[1] if len(node.args) > 1 else None


def parameters(query: ast.AST | None) -> Iterator[str]:
    if not isinstance(query, ast.Dict):
        return
    for key, value in zip(query.keys, query.values, strict=True):
        if not isinstance(key, ast.Constant):
            continue
        name = str(key.value)
        if name in ("_include", "_revinclude"):
            values = value.elts if isinstance(value, ast.List) else [value]
            yield from (f"{name}={one.value}" for one in values if isinstance(one, ast.Constant))
        else:
            yield name


def test_the_page_names_every_search_of_the_rooms() -> None:
    page, found = promised(), list(asked_in_code())
    missing = [
        f"{place}: {kind} {name}"
        for place, kind, name in found
        if kind not in page or (name not in RESULTS and name not in page[kind])
    ]

    assert missing == []
    assert len(found) > 40, "the calls of the rooms can no longer be read"


def test_the_page_says_which_parameters_are_not_of_the_standard() -> None:
    rows = csv.DictReader((ROOMS / "record" / "search_parameters.csv").open(encoding="utf-8"))
    standard = {f"{row['type']}:{row['parameter']}" for row in rows if row["origin"] == "R4"}
    asked = {
        name.partition("=")[2] if name.startswith(("_include", "_rev")) else f"{kind}:{name.partition(':')[0]}"
        for kind, names in promised().items()
        for name in names
        if name.startswith(("_include", "_rev")) or not name.startswith("_")
    }

    own = asked - standard
    assert own == {"ImagingStudy:based-on", "RiskAssessment:basis"}
    assert all(f"`{one}`" in PAGE.read_text("utf-8") for one in own)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of our own record over HTTP, as a room."""
    settings = HouseSettings(data_dir=tmp_path_factory.mktemp("house") / "data", port=free_port())
    async with running(
        settings, SiteSettings(time_zone="Europe/Zurich", synthetic=True), rooms=("access", "record")
    ) as (house, _):
        key = house.rooms["access"].app.state.access.signing_key
        token = tokens.issue(
            key, "urn:arcuate:access", Principal("journey", frozenset({Role.ROOM}), "journey"), SystemClock().now(), 600
        )
        async with httpx.AsyncClient(
            base_url=settings.address, headers={"Authorization": f"Bearer {token}"}, timeout=30
        ) as http:
            yield http


@pytest.mark.asyncio(loop_scope="module")
async def test_our_own_record_answers_every_search_of_the_page(server: httpx.AsyncClient) -> None:
    values = {
        "date": "2026-03-17",
        "code": "urn:arcuate:cs:ask|",
        "active:not": "false",
        "identifier": f"{MRN}|1,{MRN}|2",
    }
    for kind, names in promised().items():
        form = [(n.partition("=")[0], n.partition("=")[2] or values.get(n, "Patient/1,Patient/2")) for n in names]
        answer = await server.post(f"/fhir/{kind}/_search", data=dict(form), headers={"Prefer": "handling=strict"})
        assert answer.status_code == 200, (kind, answer.text)
        assert answer.json()["type"] == "searchset"


@pytest.mark.asyncio(loop_scope="module")
async def test_our_own_record_does_what_the_page_says_of_interactions(server: httpx.AsyncClient) -> None:
    patient = {"resourceType": "Patient", "identifier": [{"system": MRN, "value": "20"}]}
    once = {"If-None-Exist": f"identifier={MRN}|20"}
    answers = await asyncio.gather(*(server.post("/fhir/Patient", json=patient, headers=once) for _ in range(20)))
    assert Counter(one.status_code for one in answers) == {201: 1, 200: 19}
    (made,) = {one.json()["id"] for one in answers}

    place, changed = f"/fhir/Patient/{made}", {**patient, "id": made, "gender": "other"}
    assert (await server.put(place, json=changed, headers={"If-Match": 'W/"1"'})).json()["meta"]["versionId"] == "2"
    stale = await server.put(place, json=changed, headers={"If-Match": 'W/"1"'})
    assert stale.status_code == 412 and stale.json()["issue"][0]["diagnostics"]
    assert (await server.get("/fhir/Patient/none")).status_code == 404
    assert (await server.delete(place)).status_code == 204 and (await server.get(place)).status_code == 410


@pytest.mark.asyncio(loop_scope="module")
async def test_our_own_record_takes_the_bundles_of_the_page(server: httpx.AsyncClient) -> None:
    who, number = "urn:uuid:00000000-0000-4000-8000-000000000001", {"system": MRN, "value": "30"}
    exact = '{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"%s"},"valueQuantity":{"value":1.10}}'
    entries = [
        {"fullUrl": who, "resource": {"resourceType": "Patient", "identifier": [number]},
         "request": {"method": "POST", "url": "Patient", "ifNoneExist": f"identifier={MRN}|30"}},
        {"resource": {"resourceType": "Location", "name": "MR", "identifier": [{"system": "urn:x", "value": "1"}]},
         "request": {"method": "PUT", "url": "Location?identifier=urn:x|1"}},
        {"resource": "OBSERVATION", "request": {"method": "POST", "url": "Observation"}},
    ]  # fmt: skip
    text = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries})
    body = text.replace('"OBSERVATION"', exact % who).encode()
    answer = await server.post("/fhir", content=body, headers={"Content-Type": "application/fhir+json"})
    assert answer.status_code == 200, answer.text
    places = [one["response"]["location"].split("/") for one in answer.json()["entry"]]
    assert [(one[0], one[3]) for one in places] == [("Patient", "1"), ("Location", "1"), ("Observation", "1")]
    stored = await server.get(f"/fhir/Observation/{places[2][1]}")
    assert b"1.10" in stored.content and stored.json()["subject"] == {"reference": f"Patient/{places[0][1]}"}

    wrong = [
        {**entries[1], "request": {"method": "PUT", "url": "Location/none"}},
        {**entries[0], "fullUrl": "urn:uuid:2"},
    ]
    before = await FhirClient(server).search("Location")
    refused = await server.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": wrong})
    assert refused.status_code >= 400 and await FhirClient(server).search("Location") == before

    asked = [f"Patient?identifier={MRN}|{value}" for value in ("30", "none")]
    gets = [{"request": {"method": "GET", "url": url}} for url in asked]
    batch = (await server.post("/fhir", json={"resourceType": "Bundle", "type": "batch", "entry": gets})).json()
    assert [len(one["resource"].get("entry", [])) for one in batch["entry"]] == [1, 0]


@pytest.mark.asyncio(loop_scope="module")
async def test_our_own_record_pages_by_links(server: httpx.AsyncClient) -> None:
    fhir = FhirClient(server)
    for number in range(5):
        await fhir.create({"resourceType": "Schedule", "actor": [{"display": str(number)}]})

    found = await fhir.search("Schedule", {"_count": "2"})

    assert [one["actor"][0]["display"] for one in found] == list("01234")


class Standard(httpx.AsyncHTTPTransport):
    """Reaches our own record as a server that knows R4's history alone: what it does not know it leaves out."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/fhir/_history":
            kept = [one for one in request.url.params.multi_items() if one[0] in ("_since", "_count", "_before")]
            request.url = request.url.copy_with(params=kept)
        return await super().handle_async_request(request)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_without_a_cursor_is_followed_by_since(server: httpx.AsyncClient) -> None:
    cursor: list[int] = []

    async def load() -> int | None:
        return cursor[-1] if cursor else None

    async def save(reached: int) -> None:
        cursor.append(reached)

    def reader(**more: int) -> FeedReader:
        return FeedReader(FhirClient(plain), load, save, types=("Endpoint", "Schedule"), **more)

    async with httpx.AsyncClient(transport=Standard(), base_url=server.base_url, headers=server.headers) as plain:
        fhir = FhirClient(server)
        before = [change.id async for change in reader(page=2).available()]
        assert before == [one["id"] for one in await fhir.search("Schedule")]

        feed = reader()
        assert {change.id async for change in feed.available()} <= set(before)  # the overlap comes again after a start
        made = await fhir.create({"resourceType": "Schedule", "actor": [{"display": "new"}]})
        await fhir.create({"resourceType": "Location", "name": "of another type"})
        await fhir.update({**made, "comment": "changed"})
        await fhir.delete("Schedule", made["id"])
        seen = [(one.id, one.version, one.resource is None) async for one in feed.available()]
        assert seen == [(made["id"], "1", False), (made["id"], "2", False), (made["id"], "3", True)]
        assert [one async for one in feed.available()] == []
