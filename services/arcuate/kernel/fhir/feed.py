"""The feed: the record's system history, oldest first, read by a cursor that the reader keeps in its own database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.errors import ArcuateError, Json, Unavailable
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import get_logger

LoadCursor = Callable[[], Awaitable[int | None]]
SaveCursor = Callable[[int], Awaitable[object]]

_WAIT_S = 25
_PAGE = 200
_LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Change:
    """One version of one resource, in commit order.

    Attributes:
        seq: Number in the feed; later changes have higher ones.
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
        self._log = get_logger("kernel")

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Yield changes for ever."""
        cursor = await self._load() or 0
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
            for change in changes:
                yield change
            if reached != cursor:
                cursor = reached
                await self._save(cursor)

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
        page = await self._fhir.history(query, wait_s)
        return [_change(entry) for entry in page.get("entry") or []], _cursor(page)


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
