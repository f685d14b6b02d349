"""What the record itself makes passes an independent referee."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel import codes
from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import bundle as bundles

sys.path.insert(0, str(Path(__file__).parents[1] / "record"))

from record_world import Replica, open_replica


@pytest.fixture
async def record_at(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Callable[[str], Awaitable[Replica]]]:
    """Open a record over a database."""
    async with AsyncExitStack() as stack:
        yield lambda url: open_replica(url, tmp_path / "record", clock, stack)


@pytest.fixture(scope="module")
def referee(shared: Path) -> Path:
    folder = shared / "tools" / "fhir-referee"
    ready = subprocess.run([folder / "setup.sh"], capture_output=True, text=True, check=False)
    if ready.returncode:
        pytest.skip(f"the referee cannot be set up here: {ready.stderr[-200:]}")
    return folder / "fhir-referee"


async def test_everything_that_the_record_makes_has_no_fault(tmp_path: Path, referee: Path, record_at: Any) -> None:
    replica = await record_at(f"sqlite:///{tmp_path}/record.db")
    made = await answers(replica)
    folder = tmp_path / "made"
    folder.mkdir()
    for name, body in made.items():
        (folder / f"{name}.json").write_bytes(body)

    judged = subprocess.run([referee, folder], capture_output=True, text=True, check=False)

    assert judged.stdout.splitlines()[-1].startswith("PASS"), judged.stdout[-2000:]
    assert judged.returncode == 0, "\n".join(line for line in judged.stdout.splitlines() if "| error |" in line)


async def answers(replica: Any) -> dict[str, bytes]:
    """Return one of each kind of answer."""
    room, script, person = replica.http(), replica.http(Role.INTEGRATION), replica.http(Role.LEAD, person="p1")
    who = bundles.create(
        {"resourceType": "Patient", "identifier": [codes.identifier("urn:arcuate:id:patient:T", "1", "MR")]}
    )
    order = bundles.create(
        {"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": who.reference,
         "identifier": [codes.accession_identifier("A1")]}
    )  # fmt: skip
    volume = bundles.create(
        {"resourceType": "Observation", "status": "preliminary", "code": {"text": "volume"}, "subject": who.reference,
         "valueQuantity": codes.quantity("3.10", "mL")}
    )  # fmt: skip
    bundle = bundles.transaction([who, order, volume], codes.identifier(codes.SYSTEM_JOURNAL, "1"))
    answer = await script.post("/fhir", json=json.loads(json.dumps(bundle, default=float)))
    place = answer.json()["entry"][0]["response"]["location"].split("/_history")[0]
    await person.get(f"/fhir/{place}")
    search = {"identifier": "urn:arcuate:id:patient:T|1", "_revinclude": "Observation:subject", "colour": "blue"}
    await room.delete("/fhir/" + answer.json()["entry"][2]["response"]["location"].split("/_history")[0])
    batch = {
        "resourceType": "Bundle", "type": "batch", "entry": [
            {"request": {"method": "GET", "url": place}}, {"request": {"method": "GET", "url": "Patient/none"}},
            {"request": {"method": "GET", "url": "Patient"}},
        ],
    }  # fmt: skip
    calls = {
        "capability": room.get("/fhir/metadata"),
        "search": room.post("/fhir/Patient/_search", data=search),
        "page": room.get("/fhir/Provenance?_count=1"),
        "feed": room.get("/fhir/_history?_after=0"),
        "history": room.get("/fhir/_history"),
        "instance-history": room.get(f"/fhir/{place}/_history"),
        "none": room.get("/fhir/Patient/none"),
        "refused": room.post("/fhir/Patient", json={"resourceType": "Patient", "gender": "x"}),
        "batch": script.post("/fhir", json=batch),
        "audit": replica.http(Role.ADMIN).get("/fhir/AuditEvent"),
        "audit-event": replica.http(Role.ADMIN).get("/fhir/AuditEvent/1"),
        "unauthenticated": room.get(f"/fhir/{place}", headers={"Authorization": ""}),
    }
    return {"sent": json.dumps(bundle, default=float).encode(), "transaction": answer.content} | {
        name: (await call).content for name, call in calls.items()
    }
