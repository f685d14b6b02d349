"""A time limit for what a search may cost, on both databases (FAULTS 033)."""

import contextlib
import time
from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from arcuate.kernel.errors import Unavailable

_STEPS = 20_000  # of SQLite's machine between two looks at the clock: about a millisecond
_CANCELLED = "57014"


@contextlib.contextmanager
def limited(connection: Connection, seconds: float) -> Iterator[None]:
    """Stop the statements of this block when their time is over.

    Raises:
        Unavailable: It was (code `too-costly`).
    """
    driver = connection.connection.driver_connection
    sqlite = connection.dialect.name == "sqlite"
    ends = time.monotonic() + seconds
    if sqlite and driver is not None:
        driver.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    else:
        connection.execute(text(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}"))
    try:
        yield
    except DBAPIError as error:
        stopped = time.monotonic() > ends if sqlite else getattr(error.orig, "sqlstate", None) == _CANCELLED
        if not stopped:
            raise
        raise Unavailable(
            "The search costs too much",
            todo="Narrow it: name a patient, an identifier or a span of time.",
            code="too-costly",
        ) from None
    finally:
        if sqlite and driver is not None:
            driver.set_progress_handler(None, 0)
