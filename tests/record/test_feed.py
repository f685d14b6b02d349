"""The feed: commit order, nothing skipped, woken at once, resumed where it stopped."""

import asyncio
import itertools
from typing import Any

import pytest

from arcuate.kernel.clock import ManualClock, SystemClock
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.feed import Change, FeedReader

from .record_world import Replica, patient


class Cursor:
    """A room's own store of its cursor."""

    def __init__(self) -> None:
        self.value: int | None = None

    async def load(self) -> int | None:
        return self.value

    async def save(self, value: int) -> None:
        self.value = value


async def available(replica: Replica, cursor: Cursor, **more: Any) -> list[Change]:
    reader = FeedReader(replica.fhir(), cursor.load, cursor.save, **more)
    return [change async for change in reader.available()]


async def test_changes_come_in_order_with_deletions_and_only_once(replica: Replica) -> None:
    fhir, cursor = replica.fhir(), Cursor()
    first = await fhir.create(patient("1"))
    second = await fhir.update({**first, "active": True})
    await fhir.delete("Patient", first["id"])

    changes = await available(replica, cursor)

    assert [change.version for change in changes] == ["1", "2", "3"]
    assert [first, second, None] == [change.resource for change in changes]
    assert {("Patient", first["id"])} == {(change.type, change.id) for change in changes}
    assert await available(replica, cursor) == []


async def test_only_the_types_that_were_asked_for_and_the_cursor_passes_the_others(replica: Replica) -> None:
    fhir, cursor = replica.fhir(), Cursor()
    for number in range(5):
        await fhir.create(patient(str(number)))
    task = await fhir.create({"resourceType": "Task", "status": "ready", "intent": "order"})
    await fhir.create(patient("last"))

    changes = await available(replica, cursor, types=["Task"], page=2)

    assert [task] == [change.resource for change in changes]
    assert cursor.value == 7


async def test_a_waiting_reader_is_woken_by_the_commit(replica: Replica) -> None:
    http = replica.http()
    waiting = asyncio.create_task(http.get("/fhir/_history?_after=0&_wait=50"))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    made = await replica.fhir().create(patient("1"))

    answer = await asyncio.wait_for(waiting, 5)
    assert [made] == [entry["resource"] for entry in answer.json()["entry"]]


async def test_a_wait_ends_by_the_clock_with_the_same_cursor(replica: Replica, clock: ManualClock) -> None:
    http = replica.http()
    await replica.fhir().create(patient("1"))
    waiting = asyncio.create_task(http.get("/fhir/_history?_after=1&_wait=20"))
    while not clock._sleepers:
        await asyncio.sleep(0.005)
    clock.advance(21)

    answer = (await asyncio.wait_for(waiting, 5)).json()

    assert "entry" not in answer
    assert "_after=1" in next(link["url"] for link in answer["link"] if link["relation"] == "next")


async def test_a_reader_goes_on_for_ever_and_after_a_restart_behind_its_cursor(replica: Replica) -> None:
    fhir, cursor = replica.fhir(), Cursor()
    for number in range(3):
        await fhir.create(patient(str(number)))

    async def take(count: int) -> list[int]:
        reader = FeedReader(replica.fhir(), cursor.load, cursor.save, page=2)
        taken = []
        async for change in reader:
            taken.append(change.seq)
            if len(taken) == count:
                break
        return taken

    assert await asyncio.wait_for(take(3), 10) == [1, 2, 3]
    assert cursor.value == 2  # the page of the third was not finished
    writing = asyncio.create_task(fhir.create(patient("4")))
    assert await asyncio.wait_for(take(2), 10) == [3, 4]
    await writing


@pytest.mark.parametrize("types", [(), ("Task",)])
async def test_nothing_is_skipped_under_parallel_writers_on_two_replicas(
    two_replicas: Any, types: tuple[str, ...]
) -> None:
    first, second = await two_replicas(SystemClock())
    cursor = Cursor()
    seen: list[Change] = []
    total = 60

    async def read() -> None:
        async for change in FeedReader(second.fhir(), cursor.load, cursor.save, types=types, page=7, wait_s=1):
            seen.append(change)
            if sum(change.type == "Task" for change in seen) == total:
                return

    async def write(replica: Replica, numbers: range) -> None:
        fhir = replica.fhir()
        for number in numbers:
            task = {"resourceType": "Task", "status": "ready", "intent": "order", "description": str(number)}
            entries = [bundles.create(task), *(bundles.create(patient(f"{number}")) for _ in range(number % 5))]
            await fhir.transaction(bundles.transaction(entries))

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write((first, second)[n % 2], range(n * 10, n * 10 + 10)) for n in range(6)))
    await asyncio.wait_for(reading, 60)

    tasks = [change.resource["description"] for change in seen if change.type == "Task" and change.resource]
    assert {str(n) for n in range(total)} == set(tasks)
    assert len(tasks) == len(set(tasks))
    assert all(a.seq < b.seq for a, b in itertools.pairwise(seen))


async def test_histories_are_newest_first_and_paged(replica: Replica, clock: ManualClock) -> None:
    fhir, http = replica.fhir(), replica.http()
    made = await fhir.create(patient("1"))
    clock.advance(60)
    for n in range(4):
        made = await fhir.update({**made, "active": n % 2 == 0})
    await fhir.create(patient("2"))

    pages = []
    url: str | None = f"/fhir/Patient/{made['id']}/_history?_count=2"
    while url:
        page = (await http.get(url)).json()
        pages.append([entry["resource"]["meta"]["versionId"] for entry in page["entry"]])
        url = bundles.next_link(page)
    everything = (await http.get("/fhir/Patient/_history?_since=2026-03-17T09:00:30Z")).json()
    system = (await http.get("/fhir/_history")).json()

    assert pages == [["5", "4"], ["3", "2"], ["1"]]
    assert len(everything["entry"]) == 5
    assert len(system["entry"]) == 6
    assert (await http.get("/fhir/Patient/none/_history")).status_code == 404


async def test_a_cursor_that_is_none_is_refused(replica: Replica) -> None:
    for query in (
        "_after=abc",
        "_after=-1",
        "_after=0&_wait=soon",
        "_after=0&_count=x",
        "_sort=_lastUpdated&_since=yesterday",
    ):
        answer = await replica.http().get(f"/fhir/_history?{query}")
        assert answer.status_code == 400, query
    with pytest.raises(BadInput):
        await replica.fhir().history({"_after": "1e3"})
