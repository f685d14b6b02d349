"""Subscriptions on the real wire: handshake, events in order, silence, and endpoints that are dead, slow or hostile."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.codes import HISTORY_TAG
from arcuate.record.subscriptions.wishes import EXTENSIONS, topics

from .record_world import Replica, open_replica, order, patient


@dataclass
class Endpoint:
    """A subscriber: a real HTTP server that keeps what it was sent and answers as told."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    taken: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = next(
                    int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
                )
                body = await reader.readexactly(size)
                self.heads.append(head)
                if not self.answer:
                    await asyncio.sleep(3600)
                if b" 200 " in self.answer:
                    self.taken.append(json.loads(body))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def kinds(self) -> list[str]:
        return [said(one, "type") for one in self.taken]

    def numbers(self) -> list[str]:
        parts = [
            p
            for one in self.taken
            for p in one["entry"][0]["resource"]["parameter"]
            if p["name"] == "notification-event"
        ]
        return [part["part"][0]["valueString"] for part in parts]


def said(bundle: dict[str, Any], name: str) -> str:
    found = next(p for p in bundle["entry"][0]["resource"]["parameter"] if p["name"] == name)
    return str(found.get("valueCode", found.get("valueString")))


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def told(tmp_path: Path, clock: ManualClock, stack: Any, endpoint: Endpoint) -> Replica:
    """A record that may call the endpoint, told by hand when to work."""
    return await opened(f"sqlite:///{tmp_path}/r.db", tmp_path, clock, stack, endpoint)


@pytest.fixture
async def told_anywhere(
    database_url: str, tmp_path: Path, clock: ManualClock, stack: Any, endpoint: Endpoint
) -> Replica:
    """The same on both databases."""
    return await opened(database_url, tmp_path, clock, stack, endpoint)


async def opened(url: str, tmp_path: Path, clock: ManualClock, stack: Any, endpoint: Endpoint) -> Replica:
    hosts = f"127.0.0.1:{endpoint.port},127.0.0.1:1"
    tokens = f"127.0.0.1:{endpoint.port}=secret-token"
    return await open_replica(
        url,
        tmp_path / "record",
        clock,
        stack,
        notify=False,
        subscription_hosts=hosts,
        subscription_tokens=tokens,
    )


def wish(url: str, topic: str = "order", content: str = "id-only", **more: Any) -> dict[str, Any]:
    def extension(name: str, **value: Any) -> dict[str, Any]:
        return {"url": f"{EXTENSIONS}/{name}", **value}

    channel: dict[str, Any] = {
        "type": "rest-hook", "endpoint": url, "payload": "application/fhir+json",
        "_payload": {"extension": [extension("backport-payload-content", valueCode=content)]},
        "extension": [extension("backport-heartbeat-period", valueUnsignedInt=60), extension("backport-max-count", valuePositiveInt=2),
                      extension("backport-timeout", valueUnsignedInt=1)],
    }  # fmt: skip
    filters = more.pop("filters", [])
    made = {"resourceType": "Subscription", "status": "requested", "reason": "test", "criteria": f"urn:arcuate:topic:{topic}",
            "channel": {**channel, **more.pop("channel", {})}, **more}  # fmt: skip
    if filters:
        made["_criteria"] = {"extension": [extension("backport-filter-criteria", valueString=one) for one in filters]}
    return made


async def work(replica: Replica) -> None:
    await replica.app.state.notifier.drain()


async def test_a_subscriber_shakes_hands_hears_events_in_order_and_the_silence(
    told_anywhere: Replica, endpoint: Endpoint, clock: ManualClock
) -> None:
    told = told_anywhere
    http, fhir = told.http(Role.INTEGRATION), told.fhir()
    await fhir.create(order("Patient/1", "A0"))  # before the Subscription: not told
    made = await fhir.create(wish(endpoint.url, filters=["ServiceRequest?status=active,completed"]))
    await work(told)
    assert (endpoint.kinds(), (await fhir.read("Subscription", made["id"]))["status"]) == (["handshake"], "active")

    orders = [await fhir.create(order("Patient/1", f"A{n}")) for n in range(1, 4)]
    await fhir.create(patient("1"))
    await fhir.create(order("Patient/1", "A9", status="draft"))
    await fhir.create(order("Patient/1", "A10", meta={"tag": [HISTORY_TAG]}))  # taken over from past years: no event
    await fhir.update({**orders[0], "status": "completed"})
    await work(told)

    assert endpoint.numbers() == ["1", "2", "3", "4"]
    first = endpoint.taken[1]
    assert [entry["fullUrl"].rpartition("/")[2] for entry in first["entry"][1:]] == [orders[0]["id"], orders[1]["id"]]
    assert "resource" not in first["entry"][1]
    assert all("Bearer secret-token" in head for head in endpoint.heads)
    clock.advance(61)
    await work(told)
    await work(told)
    assert endpoint.kinds()[-2:] == ["event-notification", "heartbeat"]

    events = (
        await http.get(f"/fhir/Subscription/{made['id']}/$events?eventsSinceNumber=3&content=full-resource")
    ).json()
    assert [entry["resource"]["resourceType"] for entry in events["entry"]] == [
        "Parameters",
        "ServiceRequest",
        "ServiceRequest",
    ]
    standing = (await http.get("/fhir/Subscription/$status?status=active")).json()["entry"][0]["resource"]["parameter"]
    assert {"name": "events-since-subscription-start", "valueString": "4"} in standing


async def test_f036_a_dead_endpoint_is_tried_for_a_day_then_stopped_and_gets_everything_when_it_is_wanted_again(
    told: Replica, endpoint: Endpoint, clock: ManualClock
) -> None:
    fhir = told.fhir()
    made = await fhir.create(wish(endpoint.url))
    await work(told)
    endpoint.answer = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    for n in range(3):
        await fhir.create(order("Patient/1", f"A{n}"))
    for _ in range(40):
        await work(told)
        clock.advance(3600)
    tried = len(endpoint.heads)
    stopped = await fhir.read("Subscription", made["id"])
    assert (stopped["status"], "500" in stopped["error"], endpoint.numbers()) == ("error", True, [])
    assert 24 < tried < 30  # the handshake, and once an hour for a day
    await fhir.create(order("Patient/1", "A3"))
    await work(told)
    assert len(endpoint.heads) == tried

    endpoint.answer = Endpoint().answer
    await fhir.update({**stopped, "status": "requested"})
    await work(told)

    assert endpoint.numbers() == ["1", "2", "3", "4"]
    assert "error" not in await fhir.read("Subscription", made["id"])


HOSTILE = [
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", b"", b"HTTP/1.1 200 O", b"nonsense\r\n\r\n",
]  # fmt: skip


async def test_f036_an_endpoint_that_redirects_hangs_or_talks_nonsense_is_not_active_and_delays_nobody(
    told: Replica, endpoint: Endpoint
) -> None:
    fhir = told.fhir()
    for number, endpoint.answer in enumerate(HOSTILE, start=1):
        bad = await fhir.create(wish(endpoint.url))
        refused = await fhir.create(wish("http://127.0.0.1:1/"))

        await asyncio.wait_for(work(told), 20)

        for name in (bad["id"], refused["id"]):
            found = await fhir.read("Subscription", name)
            assert (found["status"], found["error"].startswith("The handshake failed")) == ("error", True)
        assert len(endpoint.heads) == number


UNSERVED: list[tuple[dict[str, Any], int, str]] = [
        (wish("http://169.254.169.254/"), 422, "channel.endpoint"), (wish("http://[::1]:5432/"), 422, "channel.endpoint"),
        (wish("file:///etc/passwd"), 400, "channel.endpoint"), (wish("http://u:p@127.0.0.1:1/"), 400, "channel.endpoint"),
        (wish("http://127.0.0.1:1/", topic="weather"), 400, "criteria"), (wish("http://127.0.0.1:1/", status="active"), 400, "status"),
        (wish("http://127.0.0.1:1/", channel={"type": "email"}), 400, "channel.type"),
        (wish("http://127.0.0.1:1/", channel={"header": ["Authorization: x"]}), 400, "channel.header"),
        (wish("http://127.0.0.1:1/", filters=["Patient?active=true"]), 400, "criteria.extension[0]"),
        (wish("http://127.0.0.1:1/", filters=["ServiceRequest?colour=blue"]), 400, "criteria.extension[0]"),
]  # fmt: skip


async def test_f084_what_cannot_be_served_is_refused_with_its_element(replica: Replica) -> None:
    http = replica.http(Role.INTEGRATION)  # whose settings name no outside address at all

    for resource, status, element in UNSERVED:
        alone = await http.post("/fhir/Subscription", json=resource)
        entry = {"resource": resource, "request": {"method": "POST", "url": "Subscription"}}
        inside = await http.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})

        assert (alone.status_code, alone.json()["issue"][0]["expression"]) == (status, [f"Subscription.{element}"]), (
            alone.text
        )
        assert (inside.status_code, inside.json()["issue"][0]["expression"]) == (
            status,
            [f"Bundle.entry[0].resource.{element}"],
        )


async def test_two_replicas_tell_an_event_once(
    database_url: str, tmp_path: Path, clock: ManualClock, stack: Any, endpoint: Endpoint
) -> None:
    more = {"notify": False, "subscription_hosts": f"127.0.0.1:{endpoint.port}"}
    both = [await open_replica(database_url, tmp_path / "one", clock, stack, **more) for _ in range(2)]
    await both[0].fhir().create(wish(endpoint.url, topic="patient", content="full-resource"))
    await asyncio.gather(*(work(one) for one in both))
    for n in range(6):
        await both[n % 2].fhir().create(patient(str(n)))
        await asyncio.gather(*(work(one) for one in both))
    await asyncio.gather(*(work(one) for one in both))

    assert endpoint.kinds().count("handshake") == 1
    assert endpoint.numbers() == [str(n) for n in range(1, 7)]


async def test_the_record_tells_by_itself_and_the_statement_names_the_topics(
    tmp_path: Path, clock: ManualClock, stack: Any, endpoint: Endpoint
) -> None:
    url = f"sqlite:///{tmp_path}/r.db"
    replica = await open_replica(url, tmp_path / "r", clock, stack, subscription_hosts=f"127.0.0.1:{endpoint.port}")
    await replica.fhir().create(wish(endpoint.url, topic="patient"))
    async with asyncio.timeout(20):
        while not endpoint.taken:
            await asyncio.sleep(0.01)
        while (await replica.fhir().search("Subscription", {"status": "active"})) == []:
            await asyncio.sleep(0.01)
        await replica.fhir().create(patient("1"))
        while endpoint.numbers() != ["1"]:
            await asyncio.sleep(0.01)

    rest = (await replica.http().get("/fhir/metadata")).json()["rest"][0]["resource"]
    served = next(one for one in rest if one["type"] == "Subscription")
    assert {one["valueCanonical"] for one in served["extension"]} == set(topics())
    assert {"status", "events"} <= {one["name"] for one in served["operation"]}
