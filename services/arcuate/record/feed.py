"""News: who waits for the next feed number is woken by the commit that gives it."""

import asyncio
from collections.abc import Awaitable, Callable

from arcuate.kernel.background import stop
from arcuate.kernel.clock import Clock


class News:
    """Wakes waiting readers of the feed.

    Args:
        poll_s: Another replica may write without waking us; look again so often. None when nobody else writes.
    """

    def __init__(self, clock: Clock, poll_s: float | None) -> None:
        self._clock, self._poll_s = clock, poll_s
        self._waiters: set[asyncio.Future[None]] = set()
        self._listeners: list[Callable[[], None]] = []
        self.closed = False

    def listen(self, listener: Callable[[], None]) -> None:
        """Call a function at every piece of news."""
        self._listeners.append(listener)

    def announce(self) -> None:
        """Wake everybody who waits."""
        for listener in self._listeners:
            listener()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Let nobody wait any longer: the house closes."""
        self.closed = True
        self.announce()

    async def wait(self, seconds: float, look: Callable[[], Awaitable[bool]]) -> None:
        """Return when `look` finds news, the time is over, or the house closes."""
        ends = self._clock.monotonic() + seconds
        while not self.closed:
            # Registered before looking: a commit between the look and the wait is not missed.
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                if await look():
                    return
                left = ends - self._clock.monotonic()
                if left <= 0:
                    return
                await self._pause(waiter, left if self._poll_s is None else min(left, self._poll_s))
            finally:
                self._waiters.discard(waiter)

    async def _pause(self, waiter: "asyncio.Future[None]", seconds: float) -> None:
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({waiter, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await stop(timer)
