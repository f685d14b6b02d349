"""A limit on computing that does not come back by itself."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from arcuate.kernel.errors import ArcuateError


class TookTooLong(ArcuateError):
    """What ran has used up its time and was stopped in the middle; nothing that it would have said is known."""

    status, issue_type = 500, "timeout"


@contextlib.contextmanager
def computing_time(seconds: float) -> Iterator[None]:
    """Stop the block when it has computed for so long; whoever waits beside it goes on then.

    A loop without end holds up everything that shares its event loop, and no timeout of asyncio is looked at any more: only a signal
    gets through. It counts the processor time of the block, so that a busy machine stops nothing. Signals reach the main thread
    alone: in another thread the block is not limited. A block may not stand inside another one.

    Raises:
        TookTooLong: The time was used up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    begun = time.thread_time()

    def over(_number: int, _frame: FrameType | None) -> None:
        left = seconds - (time.thread_time() - begun)
        if left <= 0.001:
            raise TookTooLong(f"It was stopped after {seconds:g} s of computing")
        signal.setitimer(signal.ITIMER_PROF, left)  # other threads have used the time

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
