"""Inner loops that end: they are begun again, and until they stay the room is not alive."""

import asyncio

import pytest
from sqlmodel import Session

from arcuate.kernel.background import Loops, stop
from arcuate.kernel.db import Database
from arcuate.kernel.limit import TookTooLong, computing_time


async def test_f049_a_loop_that_ends_is_seen_at_once_and_is_begun_again() -> None:
    loops, begun, fail = Loops("room", settled_s=0.2), 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        await fail.wait()
        fail.clear()
        raise RuntimeError("the reason would name a patient")

    async with loops.run("looking", work), asyncio.timeout(20):
        await asyncio.sleep(0)
        assert loops.fault() is None
        fail.set()
        while loops.fault() is None:
            await asyncio.sleep(0)
        assert "looking" in str(loops.fault()) and "patient" not in str(loops.fault())
        while begun < 2:
            await asyncio.sleep(0.01)
        while loops.fault():
            await asyncio.sleep(0.01)
    assert begun == 2


async def test_f049_a_loop_that_cancels_itself_is_begun_again_and_one_that_is_told_to_end_ends() -> None:
    loops, begun = Loops("room"), asyncio.Queue[int]()

    async def work() -> None:
        begun.put_nowait(1)
        if begun.qsize() == 1:
            raise asyncio.CancelledError  # as a bug in a library does
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with loops.run("looking", work):
            while begun.qsize() < 2:
                await asyncio.sleep(0.01)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_f049_when_the_writing_thread_has_died_the_next_write_begins_another(database_url: str) -> None:
    database = Database(database_url)

    def nothing(_session: Session) -> str:
        return "written"

    assert await database.write(nothing) == "written"
    database._waiting.put(())  # type: ignore[arg-type]  # kills the thread
    if database._writer is not None:
        await asyncio.to_thread(database._writer.join, 20)
    async with asyncio.timeout(20):
        assert await database.write(nothing) == "written"
    database.close()


def test_f015_computing_without_end_is_stopped_and_waiting_is_not() -> None:
    with pytest.raises(TookTooLong), computing_time(0.05):
        while True:
            pass
    with computing_time(10):
        pass
    for _ in range(3):  # nothing of it is left behind
        with computing_time(0.05):
            sum(range(1000))


async def test_who_waits_for_a_task_to_end_can_be_stopped_meanwhile() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    task = asyncio.create_task(slow_to_end())
    await begun.wait()
    stopping = asyncio.create_task(stop(task))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_stopped_task_failed_with_is_raised() -> None:
    async def fails() -> None:
        raise RuntimeError("lost")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="lost"):
        await stop(task)
