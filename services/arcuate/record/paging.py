"""Links to the next page: the search and its place, encrypted, so that no identifier stands in an address."""

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from cryptography.fernet import Fernet, InvalidToken

from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import BadInput, Gone
from arcuate.record.answers import Link
from arcuate.record.query import Search
from arcuate.record.search import Page, Position


@dataclass(frozen=True)
class Bookmark:
    """A search and where its next page begins."""

    resource_type: str
    pairs: tuple[tuple[str, str], ...]
    position: Position


@dataclass(frozen=True)
class Pages:
    """Makes and reads page tokens.

    Attributes:
        key: Shared by all replicas of this record.
        valid_s: How long a token can be used.
    """

    key: str
    clock: Clock
    valid_s: int

    def token(self, mark: Bookmark) -> str:
        """Return the token of a bookmark."""
        place = mark.position
        said = json.dumps(
            [mark.resource_type, mark.pairs, place.keys, place.number, place.newest], separators=(",", ":")
        )
        return Fernet(self.key).encrypt_at_time(said.encode(), self._now()).decode()

    def read(self, token: str) -> Bookmark:
        """Return the bookmark of a token.

        Raises:
            Gone: It is too old (code `expired`).
            BadInput: It is none of ours.
        """
        fernet = Fernet(self.key)
        try:
            made = fernet.extract_timestamp(token)
            said = fernet.decrypt(token)
        except (InvalidToken, ValueError, TypeError):
            raise BadInput("The page link is not one of this record", where="_page", code="value") from None
        if self._now() > made + self.valid_s:
            raise Gone("The page link has expired", where="_page", todo="Search again.", code="expired")
        resource_type, pairs, keys, number, newest = json.loads(said)
        return Bookmark(resource_type, tuple((str(n), str(v)) for n, v in pairs), Position(tuple(keys), number, newest))

    def _now(self) -> int:
        return int(self.clock.now().timestamp())


def links(pages: Pages, base: str, asked: Search, page: Page) -> list[Link]:
    """Return the links of a page of a search: itself, and the next one where there is more."""
    query = urlencode(asked.pairs)
    place = f"{base}/{asked.resource_type}" if asked.resource_type else base
    made = [Link("self", place + (f"?{query}" if query else ""))]
    if page.following is not None:
        token = pages.token(Bookmark(asked.resource_type, asked.pairs, page.following))
        made.append(Link("next", f"{base}?_page={token}"))
    return made
