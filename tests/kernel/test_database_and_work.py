"""Storage and durable work: what is acknowledged stays, what is done is done once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, select
from structlog.testing import capture_logs

from arcuate.kernel.clock import ManualClock, SystemClock
from arcuate.kernel.db import Database, UtcDateTime, skew
from arcuate.kernel.errors import Conflict, StorageFault
from arcuate.kernel.log import get_logger
from arcuate.kernel.work import Job, Later, LeaseLost, Park, Terms, Worker, WorkTable


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
    [stuck] = await database.write(lambda s: WORK.claim(s, Terms(["write"], clock.now())))
    clock.advance(31)
    [successor] = await database.write(lambda s: WORK.claim(s, Terms(["write"], clock.now())))

    def late(session: Session) -> None:
        note("from the stuck worker", clock)(session)
        WORK.finish(session, stuck, "done")

    with pytest.raises(LeaseLost):
        await database.write(late)
    assert await texts(database) == []
    assert successor.attempt == stuck.attempt + 1


async def test_f045_a_worker_that_is_stuck_leaves_its_job_to_another_and_does_not_take_it_again(
    database: Database, clock: ManualClock
) -> None:
    begun, never = asyncio.Event(), asyncio.Event()
    stuck: list[int] = []

    async def slow(job: Job) -> None:
        stuck.append(job.id)
        begun.set()
        await never.wait()

    async def quick(job: Job) -> Callable[[Session], None]:
        return note("done", clock)

    await database.write(lambda s: WORK.enqueue(s, "write", now=clock.now()))
    worker = Worker(database, WORK, clock, {"write": slow}, poll_s=0.01)
    async with worker.run():
        await begun.wait()
        clock.advance(31)
        begun.clear()
        await database.write(lambda s: WORK.enqueue(s, "write", now=clock.now()))
        worker.wake()
        await begun.wait()  # it has looked for work since, and found what is new
        [other] = await database.write(lambda s: WORK.claim(s, Terms(["write"], clock.now())))

    assert other.id == stuck[0]
    assert len(set(stuck)) == 2


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


async def test_f015_a_job_that_ends_the_program_again_and_again_is_parked_and_those_beside_it_are_done(
    database: Database, clock: ManualClock
) -> None:
    """A program that dies while it has eight jobs in hand cannot say which of them it was: nothing is written of any."""
    done: set[str] = set()

    async def enqueue(name: str) -> None:
        await database.write(lambda s: WORK.enqueue(s, "map", now=clock.now(), keys=(name,), payload={"name": name}))

    for name in ("a", "poison", "b", "c"):
        await enqueue(name)
    beside: list[list[str]] = []
    for _ in range(
        12
    ):  # the program is started again and again; each time it takes jobs, does them one by one, and dies at the poison
        while jobs := await database.write(lambda s: WORK.claim(s, Terms(["map"], clock.now(), limit=8))):
            names = [job.payload["name"] for job in jobs]
            if "poison" in names:
                beside.append(names)
                break
            for job in jobs:
                await database.write(lambda s, job=job: WORK.finish(s, job, "done"))
                done.add(job.payload["name"])
        clock.advance(31)
        await enqueue("later")

    assert beside[0] == ["a", "poison", "b", "c"] and beside[-1] == ["poison"] and len(beside) == 3
    assert done == {"a", "b", "c", "later"}
    [parked] = await database.read(WORK.parked)
    assert (parked.payload, parked.reason) == (
        {"name": "poison"}, "The program ended or was stuck 3 times while it worked on this",
    )  # fmt: skip
    await enqueue("poison")  # whoever stands in its line goes on
    assert await database.write(lambda s: WORK.claim(s, Terms(["map"], clock.now(), limit=8)))


async def test_f015_a_worker_begins_nothing_beside_a_job_that_others_died_with(
    database: Database, clock: ManualClock
) -> None:
    for n in range(3):
        await database.write(lambda s, n=n: WORK.enqueue(s, "map", now=clock.now(), payload={"n": n}))
    for _ in range(2):
        assert await database.write(lambda s: WORK.claim(s, Terms(["map"], clock.now(), limit=1)))
        clock.advance(31)
    in_hand: list[int] = []
    together: list[int] = []

    async def handler(job: Job) -> None:
        in_hand.append(job.payload["n"])
        together.append(len(in_hand))
        for _ in range(30):
            await asyncio.sleep(0.001)
        in_hand.remove(job.payload["n"])

    async with Worker(database, WORK, clock, {"map": handler}, poll_s=0.01).run(), asyncio.timeout(20):
        while (await database.read(WORK.counts)).get("done") != 3:
            await asyncio.sleep(0.01)
    assert together[0] == 1 and max(together) == 2


async def test_a_database_that_failed_uses_up_no_try(database: Database, clock: ManualClock) -> None:
    async def handler(job: Job) -> None:
        raise StorageFault("The database did not keep the change")

    await database.write(lambda s: WORK.enqueue(s, "map", now=clock.now()))
    worker = Worker(database, WORK, clock, {"map": handler}, tries=1)
    for _ in range(4):
        assert await worker.drain() == 1
        clock.advance(10)
    assert await database.read(WORK.counts) == {"ready": 1}


class Ahead(SystemClock):
    """The clock of a host that is three minutes ahead of the others."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=3)


async def test_f046_a_host_whose_clock_is_ahead_takes_no_job_that_another_has_in_hand(postgres_url: str) -> None:
    database = Database(postgres_url, schema="room")
    Base.metadata.create_all(database._engine)
    begun, never = asyncio.Event(), asyncio.Event()
    taken: list[int] = []

    async def slow(job: Job) -> None:
        begun.set()
        await never.wait()

    async def quick(job: Job) -> None:
        taken.append(job.id)

    await database.write(lambda s: WORK.enqueue(s, "map", now=SystemClock().now()))
    async with Worker(database, WORK, SystemClock(), {"map": slow}).run():
        await begun.wait()
        assert await Worker(database, WORK, Ahead(), {"map": quick}).drain() == 0
        assert await database.write(lambda s: WORK.claim(s, Terms(["map"], Ahead().now()))), "by its own clock it would"
    assert taken == []
    database.close()


async def test_f043_a_server_that_has_no_connection_left_is_said_in_time_and_serves_again(postgres_url: str) -> None:
    """The server grants two connections; twenty writes come at once."""
    admin = Database(postgres_url, schema="room")
    Base.metadata.create_all(admin._engine)
    role = f"room_{postgres_url.split('?', maxsplit=1)[0].rpartition('/')[2]}"

    def ask(*statements: str) -> None:
        admin.write_sync(lambda s: [s.execute(sa.text(one)) for one in statements] and None)

    ask(
        f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 2", f"GRANT ALL ON SCHEMA room TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA room TO {role}", f"GRANT ALL ON ALL SEQUENCES IN SCHEMA room TO {role}",
    )  # fmt: skip
    database = Database(postgres_url.replace("arcuate@", f"{role}@"))

    def slow(session: Session) -> None:
        session.execute(sa.text("SET LOCAL search_path = room"))
        session.add(Note(text="kept", at=SystemClock().now()))
        session.flush()
        session.execute(sa.text("SELECT pg_sleep(0.3)"))

    loop = asyncio.get_running_loop()

    async def timed() -> tuple[type | None, float]:
        began = loop.time()
        try:
            await database.write(slow)
        except StorageFault as error:
            return type(error), loop.time() - began
        return None, loop.time() - began

    answers = await asyncio.gather(*(timed() for _ in range(20)))
    refused = [took for what, took in answers if what is not None]
    assert {what for what, _ in answers} == {None, StorageFault}
    assert max(refused) < 5 + 3  # its own wait, and that for one of six threads on a busy machine
    ask(f"ALTER ROLE {role} CONNECTION LIMIT 50")
    assert [what for what, _ in await asyncio.gather(*(timed() for _ in range(20)))] == [None] * 20
    assert len(await texts(admin)) == 40 - len(refused)
    database.close()
    ask(f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP OWNED BY {role}", f"DROP ROLE {role}")
    admin.close()


async def test_f046_a_clock_that_differs_from_the_servers_is_one_alert_and_one_recovery(postgres_url: str) -> None:
    database = Database(postgres_url)
    with capture_logs() as logs:
        alerted = False
        for clock in (SystemClock(), Ahead(), Ahead(), SystemClock(), SystemClock()):
            alerted = await skew.look(database, clock, get_logger("room"), alerted)
    assert [one["event"].split(":")[0] for one in logs] == ["alert", "recovered"]
    assert 170 < logs[0]["ahead_s"] < 190
    database.close()
