"""The history of a server that has no cursor of ours: FHIR's own `_history?_since=`, read with an overlap (FHIR R4, 3.1.0.9).

The standard lists the newest version first, pages it by links, and says when a version was written, not when it became visible. So what a
server makes visible later than `OVERLAP_S` after the time that it states is missed; its clock and ours need not agree.
"""

from datetime import UTC, datetime

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient

OVERLAP_S = 10
_TIMES = 1_000_000_000  # a cursor below is a feed number of ours, which means nothing to another server

Written = tuple[str, str, str]
"""Type, id and version."""


class History:
    """Reads what was written since a time, oldest first.

    Args:
        types: Only versions of these types; all where it is empty.
        page: Versions that are asked for at once.
    """

    def __init__(self, fhir: FhirClient, types: frozenset[str], page: int) -> None:
        self._fhir, self._types, self._page = fhir, types, page
        self._seen: set[Written] = set()

    async def read(self, cursor: int) -> tuple[list[tuple[int, Written, Json | None]], int]:
        """Return what was not read before, each with the second in which it was written, and the cursor behind it.

        Args:
            cursor: A second since 1970 UTC; a smaller number for the beginning.

        Raises:
            Unavailable: The server does not answer.
        """
        query = {"_count": str(self._page)}
        if cursor >= _TIMES:
            query["_since"] = datetime.fromtimestamp(cursor - OVERLAP_S, UTC).isoformat().replace("+00:00", "Z")
        page: Json | None = await self._fhir.history(query)
        found: list[tuple[int, Written, Json | None]] = []
        second = 0
        while page is not None:
            for entry in page.get("entry") or []:
                second = _second(entry) or second or cursor
                found.append((second, _written(entry), entry.get("resource")))
            page = await self._fhir.following(page)
        found.reverse()
        new = [one for one in found if one[1] not in self._seen]
        self._seen = {one[1] for one in found}
        reached = max([cursor, *(second for second, _, _ in found)])
        return [one for one in new if not self._types or one[1][0] in self._types], reached


def _written(entry: Json) -> Written:
    """Return what an entry of a history is about; a deletion has no resource, its request and ETag say it."""
    resource, request, response = (entry.get(name) or {} for name in ("resource", "request", "response"))
    if resource:
        return resource["resourceType"], str(resource.get("id")), str((resource.get("meta") or {}).get("versionId", ""))
    place = str(request.get("url", "")).split("/_history")[0].rstrip("/").split("/")
    return place[-2] if len(place) > 1 else "", place[-1], str(response.get("etag", "")).removeprefix("W/").strip('"')


def _second(entry: Json) -> int:
    resource, response = entry.get("resource") or {}, entry.get("response") or {}
    text = (resource.get("meta") or {}).get("lastUpdated") or response.get("lastModified")
    try:
        return int(datetime.fromisoformat(str(text)).timestamp())
    except ValueError:
        return 0


def has_cursor(page: Json) -> bool:
    """Say whether an answer comes from a server with a cursor of ours, which stands in the link to what follows."""
    return "_after=" in (bundles.next_link(page) or "")
