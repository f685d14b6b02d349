"""GET entries of batches and transactions: a read, a version or a search, answered inside the transaction that asks."""

from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import NamedTuple
from urllib.parse import parse_qsl

from arcuate.kernel.errors import Gone, NotFound, NotSupported
from arcuate.record import store
from arcuate.record.answers import searchset
from arcuate.record.domain import etag
from arcuate.record.driver import Driver
from arcuate.record.indexing import Indexer
from arcuate.record.limits import limited
from arcuate.record.paging import Pages, links
from arcuate.record.query import Reader
from arcuate.record.search import Searcher

Touched = Sequence[tuple[str, str, str | None]]


class Got(NamedTuple):
    """The answer to a GET entry as text, and what it touched, for the trail."""

    entry: str
    interaction: str
    touched: Touched


class Getter:
    """Answers GET entries on one snapshot.

    Args:
        base: Address of this server, for links.
        limit_s: Seconds that a search may take.
    """

    def __init__(
        self, driver: Driver, indexer: Indexer, reader: Reader, pages: Pages, base: str, limit_s: float
    ) -> None:
        self.driver, self.indexer, self.reader = driver, indexer, reader
        self.pages, self.base, self.limit_s = pages, base, limit_s
        self._searcher = Searcher(driver, indexer)

    def get(self, url: str, if_none_match: str | None = None, where: str = "") -> Got:
        """Answer one.

        Raises:
            NotFound: There is nothing at the address.
            NotSupported: Something that is not served inside a Bundle.
        """
        path, _, query = url.removeprefix(self.base).partition("?")
        parts = path.strip("/").split("/")
        if parts[0] not in self.indexer.parameters.by_type:
            raise NotFound("The address names no type that is stored here", where=where, code="not-supported")
        if len(parts) == 1:
            return self._search(parts[0], query)
        if len(parts) == 2:
            return self._read(parts[0], parts[1], if_none_match, where)
        if len(parts) == 4 and parts[2] == "_history":
            return self._version(parts[0], parts[1], parts[3], where)
        raise NotSupported("Only reads and searches of one type are served inside a Bundle", where=where)

    def _search(self, resource_type: str, query: str) -> Got:
        asked = self.reader.read(resource_type, parse_qsl(query, keep_blank_values=True))
        with limited(self.driver, self.limit_s):
            found = self._searcher.found(asked)
        body = searchset(self.base, links(self.pages, self.base, asked, found), found, asked).decode()
        touched = [(hit.resource_type, hit.id, hit.patient) for hit in [*found.matches, *found.included]]
        return Got(f'{{"resource":{body},"response":{{"status":"200 OK"}}}}', "search-type", touched)

    def _read(self, resource_type: str, logical_id: str, if_none_match: str | None, where: str) -> Got:
        stored = store.current(self.driver, resource_type, logical_id)
        if stored is None:
            raise NotFound(f"There is no {resource_type} here", where=where)
        if stored.body is None:
            raise Gone(f"This {resource_type} was deleted", where=where)
        touched = [(resource_type, logical_id, stored.patient)]
        if if_none_match == etag(stored.version):
            said = encode_basestring(if_none_match)
            return Got(f'{{"response":{{"status":"304 Not Modified","etag":{said}}}}}', "read", touched)
        return Got(_found(stored.body, stored.version), "read", touched)

    def _version(self, resource_type: str, logical_id: str, number: str, where: str) -> Got:
        asked = int(number) if number.isdecimal() and len(number) < 10 else 0
        found = store.version(self.driver, resource_type, logical_id, asked)
        if found is None or found.body is None:
            raise NotFound(f"There is no such version of this {resource_type}", where=where)
        stored = store.current(self.driver, resource_type, logical_id)
        return Got(
            _found(found.body, found.version),
            "vread",
            [(resource_type, logical_id, stored.patient if stored else None)],
        )


def _found(body: str, version: int) -> str:
    return f'{{"resource":{body},"response":{{"status":"200 OK","etag":{encode_basestring(etag(version))}}}}}'
