"""The feed: the record's system history, oldest first, read by a cursor that the reader keeps in its own database.

A server that stands in for the record and knows no cursor is read by FHIR's own `_since` (`since.py`); the cursor then is a time.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.errors import ArcuateError, BadInput, Json, Unavailable
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.since import History, has_cursor
from arcuate.kernel.log import get_logger

LoadCursor = Callable[[], Awaitable[int | None]]
SaveCursor = Callable[[int], Awaitable[object]]

_WAIT_S = 25
_PAGE = 200
_LONGEST_PAUSE_S = 10.0
_POLL_S = 1.0  # between two questions to a server that cannot hold an answer back
_FAR = 1000  # numbers of other types, which to read past again costs one question


@dataclass(frozen=True)
class Change:
    """One version of one resource, in commit order.

    Attributes:
        seq: Number in the feed; later changes have higher ones. Of a server without a cursor: the second in which it was written.
        version: `meta.versionId` of this change.
        resource: As stored; None when it was deleted.
    """

    seq: int
    type: str
    id: str
    version: str
    resource: Json | None


class FeedReader:
    """Yields every change once it is committed; after a restart it goes on behind the saved cursor.

    The cursor is saved when a page has been handled, so the changes of the last page come again after a crash: consumers are
    idempotent on type, id and version. When the record is away the reader waits and goes on; it does not end.

    Args:
        fhir: The record.
        load_cursor: Returns the saved cursor, or None for the beginning.
        save_cursor: Keeps it.
        types: Only changes of these types; all when left out.
        page: Changes asked for at once, at most 200.
        wait_s: How long the record may hold back an answer when there is nothing new.
    """

    def __init__(
        self, fhir: FhirClient, load_cursor: LoadCursor, save_cursor: SaveCursor, *, types: Collection[str] = (),
        page: int = _PAGE, wait_s: int = _WAIT_S, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._fhir, self._load, self._save = fhir, load_cursor, save_cursor
        self._types, self._page, self._wait_s = ",".join(sorted(types)), page, wait_s
        self._clock = clock or SystemClock()
        self._standard: History | None = None
        self._log = get_logger("kernel")

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes for ever."""
        async for changes, reached in self.pages():
            for change in changes:
                yield change
            await self._save(reached)

    async def pages(self) -> AsyncIterator[tuple[list[Change], int]]:
        """Yield changes for ever, those together that were there together, with the cursor behind them.

        Whoever takes a page keeps its cursor. Where other types alone were written, one comes now and then that is empty.
        """
        cursor = kept = await self._load() or 0
        pause = 0.0
        while True:
            try:
                changes, reached = await self._read(cursor, self._wait_s)
            except ArcuateError as error:
                pause = min(_LONGEST_PAUSE_S, pause * 2 or 0.25)
                self._log.warning("feed waits", error=type(error).__name__, status=error.status, pause_s=pause)
                await self._clock.sleep(pause)
                continue
            pause = 0.0
            cursor = reached
            if changes or cursor - kept >= _FAR:
                yield changes, cursor
                kept = cursor

    async def available(self) -> AsyncIterator[Change]:
        """Yield what is there now and end: for tests, and to catch up before a door opens.

        Raises:
            Unavailable: The record does not answer.
        """
        cursor = await self._load() or 0
        while True:
            changes, reached = await self._read(cursor, 0)
            for change in changes:
                yield change
            if reached == cursor:
                return
            cursor = reached
            await self._save(cursor)

    async def _read(self, cursor: int, wait_s: int) -> tuple[list[Change], int]:
        query = {"_after": str(cursor), "_count": str(self._page)}
        if wait_s:
            query["_wait"] = str(wait_s)
        if self._types:
            query["_type"] = self._types
        if self._standard is None:
            try:
                page = await self._fhir.history(query, wait_s)
            except BadInput:  # a strict server does not know `_after`
                page = {}
            if has_cursor(page):
                return [_change(entry) for entry in page.get("entry") or []], _cursor(page)
            self._standard = History(self._fhir, frozenset(filter(None, self._types.split(","))), self._page)
            self._log.info("feed by _since", reason="the server that stands in for the record has no cursor")
        found, reached = await self._standard.read(cursor)
        if wait_s and not found:
            await self._clock.sleep(min(wait_s, _POLL_S))
        return [Change(second, *written, resource) for second, written, resource in found], reached


def _change(entry: Json) -> Change:
    """Read an entry of the history: `id` is the feed number, `response.location` names what changed (`Type/id/_history/version`)."""
    resource_type, logical_id, _, version = str(entry["response"]["location"]).rsplit("/", 3)
    return Change(int(entry["id"]), resource_type.rpartition("/")[2], logical_id, version, entry.get("resource"))


def _cursor(page: Json) -> int:
    link = bundles.next_link(page)
    after = parse_qs(urlsplit(link or "").query).get("_after")
    if not after:
        raise Unavailable("The history's answer names no cursor", where="Bundle.link")
    return int(after[0])
