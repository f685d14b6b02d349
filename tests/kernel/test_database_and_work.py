"""Storage and durable work: what is acknowledged stays, what is done is done once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select

from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database, UtcDateTime
from arcuate.kernel.errors import Conflict
from arcuate.kernel.work import Job, Later, LeaseLost, Park, Worker, WorkTable


class Base(SQLModel, registry=registry()):
    """Tables of this test."""


class Note(Base, table=True):
    """One line that a job has written."""

    __tablename__ = "note"
    id: int | None = Field(default=None, primary_key=True)
    text: str
    at: datetime = Field(sa_type=UtcDateTime)


WORK = WorkTable(Base.metadata)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, schema="room")
    Base.metadata.create_all(database._engine)
    yield database
    database.close()


def note(text: str, clock: ManualClock) -> Callable[[Session], None]:
    return lambda session: session.add(Note(text=text, at=clock.now()))


async def texts(database: Database) -> list[str]:
    return await database.read(lambda s: [n.text for n in s.exec(select(Note).order_by(sa.text("id"))).all()])


async def test_a_failed_function_leaves_the_others_of_its_batch(database: Database, clock: ManualClock) -> None:
    def broken(session: Session) -> None:
        note("never", clock)(session)
        raise ValueError("broken")

    results = await asyncio.gather(
        database.write(note("a", clock)),
        database.write(broken),
        database.write(note("b", clock)),
        return_exceptions=True,
    )

    assert [None, ValueError, None] == [r if r is None else type(r) for r in results]
    assert sorted(await texts(database)) == ["a", "b"]


async def test_nothing_that_a_function_raises_ends_the_writing(database: Database, clock: ManualClock) -> None:
    def leaves(session: Session) -> None:
        raise GeneratorExit

    with pytest.raises(GeneratorExit):
        await database.write(leaves)

    async with asyncio.timeout(20):
        await database.write(note("after", clock))
    assert await texts(database) == ["after"]


async def test_times_come_back_as_the_same_instant_in_utc(database: Database, clock: ManualClock) -> None:
    await database.write(note("a", clock))

    stored = await database.read(lambda s: s.exec(select(Note)).one())

    assert clock.now() == stored.at
    assert stored.at.tzinfo is not None


async def test_f045_a_worker_that_lost_its_lease_changes_nothing(database: Database, clock: ManualClock) -> None:
    await database.write(lambda s: WORK.enqueue(s, "write", now=clock.now()))
    [stuck] = await database.write(lambda s: WORK.claim(s, ["write"], clock.now(), 30, 1))
    clock.advance(31)
    [successor] = await database.write(lambda s: WORK.claim(s, ["write"], clock.now(), 30, 1))

    def late(session: Session) -> None:
        note("from the stuck worker", clock)(session)
        WORK.finish(session, stuck, "done")

    with pytest.raises(LeaseLost):
        await database.write(late)
    assert await texts(database) == []
    assert successor.attempt == stuck.attempt + 1


async def test_a_stopped_worker_leaves_its_jobs_to_the_next_at_once(database: Database, clock: ManualClock) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    async def slow(job: Job) -> None:
        begun.set()
        await never.wait()

    async def quick(job: Job) -> Callable[[Session], None]:
        return note(f"{job.payload['n']}", clock)

    for n in range(20):
        await database.write(lambda s, n=n: WORK.enqueue(s, "write", payload={"n": n}, now=clock.now()))
    async with Worker(database, WORK, clock, {"write": slow}, parallel=4, poll_s=0.01).run():
        await begun.wait()

    assert await database.read(WORK.counts) == {"ready": 20}
    await Worker(database, WORK, clock, {"write": quick}).drain()
    assert sorted(await texts(database), key=int) == [str(n) for n in range(20)]


async def test_a_worker_stopped_while_it_takes_jobs_holds_none(database: Database, clock: ManualClock) -> None:
    async def done(job: Job) -> None:
        return None

    for turns in range(12):
        await database.write(lambda s: WORK.enqueue(s, "write", now=clock.now()))
        async with Worker(database, WORK, clock, {"write": done}).run():
            for _ in range(turns):
                await asyncio.sleep(0)
        assert "leased" not in await database.read(WORK.counts)


async def test_jobs_with_a_shared_key_run_in_order_and_others_beside_them(
    database: Database, clock: ManualClock
) -> None:
    order: list[str] = []

    async def handler(job: Job) -> None:
        await asyncio.sleep(0)
        order.append(job.payload["name"])

    async def enqueue(name: str, *keys: str) -> None:
        await database.write(lambda s: WORK.enqueue(s, "map", now=clock.now(), keys=keys, payload={"name": name}))

    await enqueue("a1", "a")
    await enqueue("ab", "a", "b")
    await enqueue("b1", "b")
    await enqueue("c1", "c")
    worker = Worker(database, WORK, clock, {"map": handler})
    await worker.drain()

    assert {"a1", "ab", "b1", "c1"} == set(order)
    assert order.index("a1") < order.index("ab") < order.index("b1")


async def test_a_job_is_parked_after_its_last_try_and_replayed_once(database: Database, clock: ManualClock) -> None:
    healthy = False

    async def handler(job: Job) -> Callable[[Session], None]:
        if not healthy:
            raise RuntimeError("the reason would name a patient")
        return note("mended", clock)

    await database.write(lambda s: WORK.enqueue(s, "map", now=clock.now()))
    worker = Worker(database, WORK, clock, {"map": handler}, tries=3)
    for _ in range(3):
        await worker.drain()
        clock.advance(60)

    [parked] = await database.read(WORK.parked)
    assert parked.reason == "RuntimeError in map"

    healthy = True

    def replay(session: Session) -> None:
        WORK.replay(session, parked.id, now=clock.now(), by="Ada")

    results = await asyncio.gather(database.write(replay), database.write(replay), return_exceptions=True)
    await worker.drain()

    assert [Conflict] == [type(r) for r in results if r is not None]
    assert "Ada" in str(next(r for r in results if r is not None))
    assert await texts(database) == ["mended"]


async def test_waiting_uses_up_no_try_and_parking_stops_at_once(database: Database, clock: ManualClock) -> None:
    seen: list[str] = []

    async def handler(job: Job) -> None:
        seen.append(job.kind)
        if job.kind == "wait":
            raise Later(10, "the images")
        raise Park("The side is not stated")

    for kind in ("wait", "park"):
        await database.write(lambda s, k=kind: WORK.enqueue(s, k, now=clock.now()))
    worker = Worker(database, WORK, clock, {"wait": handler, "park": handler}, tries=1)
    for _ in range(4):
        await worker.drain()
        clock.advance(10)

    assert seen.count("wait") == 4
    assert seen.count("park") == 1
    assert [p.reason for p in await database.read(WORK.parked)] == ["The side is not stated"]


async def test_the_same_dedupe_mark_makes_one_job(database: Database, clock: ManualClock) -> None:
    def enqueue(session: Session) -> int | None:
        return WORK.enqueue(session, "map", now=clock.now(), dedupe="study 1")

    numbers = await asyncio.gather(*(database.write(enqueue) for _ in range(8)))

    assert len([n for n in numbers if n is not None]) == 1
