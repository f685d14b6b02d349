"""GET entries of batches and transactions: a read, a version or a search, answered inside the transaction that asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from arcuate.kernel.errors import Gone, Json, NotFound, NotSupported
from arcuate.kernel.fhir import strict
from arcuate.record import store
from arcuate.record.answers import searchset
from arcuate.record.domain import etag
from arcuate.record.driver import Driver
from arcuate.record.indexing import Indexer
from arcuate.record.limits import limited
from arcuate.record.query import Reader
from arcuate.record.search import Searcher

Touched = Sequence[tuple[str, str, str | None]]


@dataclass(frozen=True)
class Got:
    """The answer to a GET entry, and what it touched, for the trail."""

    entry: Json
    interaction: str
    touched: Touched


@dataclass(frozen=True)
class Getter:
    """Answers GET entries.

    Attributes:
        base: Address of this server, for links.
        limit_s: Seconds that a search may take.
    """

    driver: Driver
    indexer: Indexer
    reader: Reader
    base: str
    limit_s: float

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
        searcher = Searcher(self.driver, self.indexer)
        with limited(self.driver, self.limit_s):
            found = searcher.found(asked)
        body = searchset(self.base, [], found, asked)
        touched = [(hit.resource_type, hit.id, hit.patient) for hit in [*found.matches, *found.included]]
        return Got(
            {"resource": strict.loads(body, strict.HOUSE), "response": {"status": "200 OK"}}, "search-type", touched
        )

    def _read(self, resource_type: str, logical_id: str, if_none_match: str | None, where: str) -> Got:
        stored = store.current(self.driver, resource_type, logical_id)
        if stored is None:
            raise NotFound(f"There is no {resource_type} here", where=where)
        if stored.body is None:
            raise Gone(f"This {resource_type} was deleted", where=where)
        touched = [(resource_type, logical_id, stored.patient)]
        if if_none_match == etag(stored.version):
            return Got({"response": {"status": "304 Not Modified", "etag": if_none_match}}, "read", touched)
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


def _found(body: str, version: int) -> Json:
    resource = strict.loads(body.encode(), strict.HOUSE)
    return {"resource": resource, "response": {"status": "200 OK", "etag": etag(version)}}
