"""A time limit for what a search may cost, on both databases (FAULTS 033)."""

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy.exc import DBAPIError

from arcuate.kernel.errors import Unavailable
from arcuate.record.driver import Driver, SqliteDriver

_STEPS = 20_000  # of SQLite's machine between two looks at the clock: about a millisecond
_CANCELLED = "57014"


@contextlib.contextmanager
def limited(driver: Driver, seconds: float) -> Iterator[None]:
    """Stop the statements of this block when their time is over.

    Raises:
        Unavailable: It was (code `too-costly`).
    """
    raw = driver.raw if isinstance(driver, SqliteDriver) else None
    ends = time.monotonic() + seconds
    if raw is not None:
        raw.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    else:
        driver.rows(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
    try:
        yield
    except DBAPIError as error:
        stopped = time.monotonic() > ends if raw is not None else getattr(error.orig, "sqlstate", None) == _CANCELLED
        if not stopped:
            raise
        raise Unavailable(
            "The search costs too much",
            todo="Narrow it: name a patient, an identifier or a span of time.",
            code="too-costly",
        ) from None
    finally:
        if raw is not None:
            raw.set_progress_handler(None, 0)
