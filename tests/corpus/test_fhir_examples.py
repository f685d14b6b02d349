"""The official R4 examples: stored and read back equal; deliberately wrong resources refused."""

import csv
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.errors import ArcuateError, BadInput
from arcuate.kernel.fhir import strict, types
from arcuate.record import parameters

sys.path.insert(0, str(Path(__file__).parents[1] / "record"))

from record_world import Replica, open_replica


@pytest.fixture
async def record_at(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Callable[[str], Awaitable[Replica]]]:
    """Open a record over a database."""
    async with AsyncExitStack() as stack:
        yield lambda url: open_replica(url, tmp_path / "record", clock, stack)


# Refused rightly: these official examples break R4 themselves.
FAULTY = {"Observation-clinical-gender.json": "Observation.performer[0].reference"}


# A Subscription is a wish about one of the record's own topics (tests/record/test_subscriptions.py); R4's examples ask for searches.
WISHES = "Subscription"


def examples(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "fhir" / "r4-examples").glob("*/*.json"))


def test_the_gate_writes_every_example_as_it_read_it(shared: Path) -> None:
    for path in examples(shared):
        resource = strict.loads(path.read_bytes())

        # Numbers are compared as they are written.
        assert json.loads(strict.dumps(resource), parse_float=str) == json.loads(path.read_bytes(), parse_float=str), (
            path.name
        )


def test_every_example_is_valid_for_rooms_and_for_callers_from_outside(shared: Path) -> None:
    for path in examples(shared):
        resource = strict.loads(path.read_bytes())
        for by_package in (False, True):
            if path.name in FAULTY:
                with pytest.raises(BadInput) as refused:
                    types.validate(resource, by_package=by_package)
                assert refused.value.where == FAULTY[path.name]
            else:
                types.validate(resource, by_package=by_package)


def test_wrong_resources_are_refused(shared: Path) -> None:
    folder = shared / "data" / "fhir" / "invalid"
    passed = set()
    for line in csv.DictReader((folder / "expected.csv").read_text("utf-8").splitlines()):
        try:
            types.validate(strict.loads((folder / line["file"]).read_bytes()))
        except ArcuateError as error:
            assert error.status == 400
            continue
        passed.add(line["file"])

    # Rules of transactions are the record's (tests/record/test_transactions.py).
    assert {name for name in passed if not name.startswith("bundle-")} == set()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_every_example_of_a_stored_type_is_read_back_equal(
    shared: Path, kind: str, tmp_path: Path, request: pytest.FixtureRequest, record_at: Any
) -> None:
    url = f"sqlite:///{tmp_path}/record.db" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    stored_types = set(parameters.load().types)
    http = (await record_at(url)).http()
    counted = 0
    for path in examples(shared):
        resource = strict.loads(path.read_bytes())
        if resource["resourceType"] not in stored_types - {WISHES} or path.name in FAULTY:
            continue
        created = await http.post(
            f"/fhir/{resource['resourceType']}",
            content=path.read_bytes(),
            headers={"Content-Type": "application/fhir+json"},
        )
        assert created.status_code == 201, (path.name, created.text)
        read = await http.get(created.headers["location"].split("/_history")[0])

        assert without_stamp(strict.loads(read.content)) == without_stamp(resource), path.name
        counted += 1
    assert counted > 150


async def test_identifiers_and_codes_of_every_example_find_it(shared: Path, tmp_path: Path, record_at: Any) -> None:
    replica = await record_at(f"sqlite:///{tmp_path}/record.db")
    fhir = replica.fhir()
    for path in examples(shared):
        resource = strict.loads(path.read_bytes())
        if resource["resourceType"] not in {*replica.record.parameters.types} - {WISHES} or path.name in FAULTY:
            continue
        made = await fhir.create(resource)
        for parameter, value in replica.record.parameters.values(made):
            if parameter.name in ("identifier", "status", "code") and isinstance(value, dict):
                for system, code in tokens(value):
                    found = await fhir.search(
                        made["resourceType"], {parameter.name: f"{system}|{code}", "_id": made["id"]}
                    )
                    assert [made] == found, (path.name, parameter.name)


def tokens(value: dict[str, Any]) -> list[tuple[str, str]]:
    listed = value.get("coding", [value])
    escaped = [
        (
            str(one.get("system", "")),
            str(one.get("code") or one.get("value") or "").replace("\\", "\\\\").replace(",", "\\,"),
        )
        for one in listed
    ]
    return [(system, code) for system, code in escaped if code]


def without_stamp(resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource without what the record writes into it, decimals as their texts."""
    kept = {name: value for name, value in resource.items() if name not in ("id", "meta")}
    meta = {n: v for n, v in (resource.get("meta") or {}).items() if n not in ("versionId", "lastUpdated")}
    return dict(json.loads(strict.dumps({**kept, **({"meta": meta} if meta else {})}), parse_float=str))
