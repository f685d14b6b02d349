"""Work beside a room's web app, for as long as the room runs, and whether it still goes on.

An inner loop has an edge of its own where it takes what may fail. If one ends all the same, nobody would notice: the doors stay open and
nothing behind them moves. So it is begun again, the room says that it is not alive until it has run for a while, and the log says where.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from arcuate.kernel.log import get_logger, origin

_AGAIN_S = (0.1, 1.0, 5.0)


async def stop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended; what it failed with is raised.

    To await the task and suppress its `CancelledError` would also swallow that of whoever waits, who then never ends.
    """
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


class Loops:
    """The inner loops of a room.

    Args:
        room: The room's name, for the log.
        settled_s: How long a loop that ended must have run again before it counts as alive.
    """

    def __init__(self, room: str, settled_s: float = 10.0) -> None:
        self._log, self._settled_s = get_logger(room), settled_s
        self._ended: dict[str, float | None] = {}  # by name: since when it runs again, or None while it does not

    @contextlib.asynccontextmanager
    async def run(self, name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Run a loop until the context is left; it is cancelled then, and waited for."""
        task = asyncio.create_task(self._again_and_again(name, work))
        try:
            yield
        finally:
            await stop(task)

    def fault(self) -> str | None:
        """Return which loop has ended and not come to stay yet, or None."""
        now = asyncio.get_running_loop().time()
        for name, since in list(self._ended.items()):
            if since is None or now - since < self._settled_s:
                return f"The inner loop {name} ended and is begun again"
            del self._ended[name]
        return None

    async def _again_and_again(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        for attempt in itertools.count():
            try:
                await work()
                return  # it has done what there was to do
            except asyncio.CancelledError as error:
                if task is not None and task.cancelling():
                    raise
                self._note(name, error)
            except Exception as error:  # noqa: BLE001 - the edge of a background task: whatever ends it, it goes on
                self._note(name, error)
            await asyncio.sleep(_AGAIN_S[min(attempt, len(_AGAIN_S) - 1)])
            self._ended[name] = asyncio.get_running_loop().time()

    def _note(self, name: str, error: BaseException) -> None:
        self._ended[name] = None
        self._log.error("an inner loop ended", loop=name, error=type(error).__name__, where=origin(error))
