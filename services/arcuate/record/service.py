"""Use cases of the record, one function a verb: resources in, stored text out; no HTTP, no SQL text."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

from arcuate.kernel.auth import Principal
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, Conflict, Gone, Json, NotFound
from arcuate.record import store, transactions
from arcuate.record.answers import of_entries
from arcuate.record.audit.trail import Entry, Trail
from arcuate.record.changes import OwnRules, Writer, reads_nothing, source_uri
from arcuate.record.domain import Stored, instant
from arcuate.record.driver import Driver, Readers
from arcuate.record.entries import Getter
from arcuate.record.feed import News
from arcuate.record.indexing import Indexer, micros_of
from arcuate.record.limits import limited
from arcuate.record.paging import Pages
from arcuate.record.parameters import Parameters
from arcuate.record.policy import check_delete, check_write
from arcuate.record.query import Pairs, Reader, Search
from arcuate.record.requests import Outcome, Request, Terms, check_resource
from arcuate.record.search import Page, Position, Searcher, is_lookup
from arcuate.record.settings import RecordSettings
from arcuate.record.store import Unit
from arcuate.record.writing import Writes

T = TypeVar("T")

_RACE_TRIES = 3
_MANY_ENTRIES = 20


@dataclass(frozen=True)
class Record:
    """Everything that the use cases need.

    Attributes:
        readers, writes: The ways to the database for what is asked and written most.
        trail: The audit trail.
        news: Wakes readers of the feed.
        own_rules: What the record itself asks of a type beyond FHIR.
        pages: Makes and reads links to further pages.
    """

    database: Database
    readers: Readers
    writes: Writes
    clock: Clock
    settings: RecordSettings
    parameters: Parameters
    indexer: Indexer
    reader: Reader
    trail: Trail
    news: News
    own_rules: OwnRules
    pages: Pages


async def read(record: Record, principal: Principal, resource_type: str, logical_id: str) -> store.Version:
    """Return a resource as it stands.

    Raises:
        NotFound: There is none; Gone when it was deleted.
    """

    def find(driver: Driver) -> Stored | None:
        return store.current(driver, resource_type, logical_id)

    stored = await record.readers.by_key(find)
    if stored is None:
        raise _absent(resource_type)
    await noted(record, principal, "read", [(resource_type, logical_id, stored.patient)])
    if stored.body is None:
        raise Gone(f"This {resource_type} was deleted")
    return store.Version(0, resource_type, logical_id, stored.version, stored.updated, "", stored.body)


async def vread(
    record: Record, principal: Principal, resource_type: str, logical_id: str, version: int
) -> store.Version:
    """Return one version of a resource.

    Raises:
        NotFound: There is none; Gone when this version is its deletion.
    """

    def find(driver: Driver) -> tuple[store.Version | None, str | None]:
        stored = store.current(driver, resource_type, logical_id)
        return store.version(driver, resource_type, logical_id, version), stored.patient if stored else None

    found, patient = await record.readers.read(find)
    if found is None:
        raise _absent(f"version {version} of this {resource_type}")
    await noted(record, principal, "vread", [(resource_type, logical_id, patient)])
    if found.body is None:
        raise Gone(f"This {resource_type} was deleted in that version")
    return found


async def search(
    record: Record, principal: Principal, resource_type: str, pairs: Pairs, *, strictly: bool = False
) -> tuple[Search, Page]:
    """Return the first page of a search.

    Raises:
        BadInput: A value that cannot be understood, or (strictly) a parameter that is not known.
    """
    asked = record.reader.read(resource_type, pairs, strict=strictly)
    return asked, await page(record, principal, asked, None)


async def search_system(record: Record, principal: Principal, pairs: Pairs) -> tuple[Search, Page]:
    """Return the first page of a search of several types or of all.

    Raises:
        BadInput: A parameter that cannot be understood, that not all of these types have, or that is for one type alone.
    """
    asked = record.reader.read_system(pairs)
    return asked, await page(record, principal, asked, None)


async def page(record: Record, principal: Principal, asked: Search, position: Position | None) -> Page:
    """Return one page of a search."""

    def find(driver: Driver) -> Page:
        with limited(driver, record.settings.search_limit_s):
            return Searcher(driver, record.indexer).found(asked, position)

    quick = position is None and is_lookup(asked)
    found = await (record.readers.by_key(find) if quick else record.readers.read(find))
    hits = found.matches + found.included
    names = ",".join(sorted({name for name, _ in asked.pairs}))
    kind = "search-type" if asked.resource_type else "search-system"
    await noted(record, principal, kind, [(h.resource_type, h.id, h.patient) for h in hits], names)
    return found


async def history(
    record: Record, principal: Principal, part: store.HistoryPart, wait_s: float = 0
) -> list[store.Version]:
    """Return versions; wait for the first one if there is none and the caller has time.

    Raises:
        NotFound: One resource's history was asked for, and there is none.
    """

    versions: list[store.Version] = []
    patient: str | None = None

    def find(driver: Driver) -> tuple[list[store.Version], str | None]:
        stored = store.current(driver, part.types[0], part.logical_id) if part.logical_id else None
        return store.history(driver, part), stored.patient if stored else None

    async def look() -> bool:
        nonlocal patient
        versions[:], patient = await record.readers.read(find)
        return bool(versions)

    if wait_s > 0:
        await record.news.wait(min(wait_s, record.settings.longest_wait_s), look)
    else:
        await look()
    if (
        not versions
        and part.logical_id is not None
        and part.after is None
        and part.before is None
        and part.since is None
    ):
        raise _absent(part.types[0])
    if versions and not (principal.is_room and part.oldest_first):  # the house's own feed is no disclosure
        kind = "history-instance" if part.logical_id else "history-type" if part.types else "history-system"
        await noted(record, principal, kind, [(v.resource_type, v.id, patient) for v in versions])
    return versions


async def newest(record: Record) -> int:
    """Return the newest feed number."""
    return await record.readers.by_key(store.last_seq)


async def change(record: Record, principal: Principal, request: Request, *, checked: bool = False) -> Outcome:
    """Do one create, update or delete.

    Args:
        checked: The resource was validated before.

    Raises:
        Forbidden: The caller's roles do not cover it.
        BadInput: The resource is not valid, or does not fit its address.
    """
    if request.method == "DELETE":
        check_delete(principal, request.resource_type)
    else:
        check_write(principal, request.resource_type)
        if not checked and request.method != "PATCH":  # what a patch makes is judged when it is known
            check_resource(request, request.resource_type, by_package=not principal.is_room)

    def write(unit: Unit) -> Outcome:
        store.lock(unit.driver)
        # The clock is read under the lock, so that `lastUpdated` and the feed have one order.
        writer = writer_of(record, unit, Terms(record.clock.now(), None, not principal.is_room))
        (outcome,) = writer.apply([request])
        return outcome

    kind = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]
    alone = not reads_nothing(request)
    outcome = await written(record, principal, kind, request.resource_type, write, alone=alone)
    await noted(record, principal, kind, [(outcome.resource_type, outcome.id, outcome.patient)], written=True)
    return outcome


async def transaction(record: Record, principal: Principal, bundle: Json, base: str = "") -> bytes:
    """Do all of a transaction Bundle or none of it, and return its answer; a repeated one gets its first answer.

    Raises:
        BadInput: With the index of the entry at fault in its expression.
    """
    requests = await _requests(record, principal, bundle)
    for request in requests:
        if request.method != "GET":  # who may send Bundles may read
            (check_delete if request.method == "DELETE" else check_write)(principal, request.resource_type)
    identifier = bundle.get("identifier")
    source = source_uri(identifier) if isinstance(identifier, dict) and "value" in identifier else None

    def write(unit: Unit) -> tuple[list[tuple[str, str, str | None]], bytes]:
        return _apply_bundle(record, unit, principal, bundle, requests, source, base)

    touched, answer = await written(record, principal, "transaction", "Bundle", write)
    await noted(record, principal, "transaction", touched, written=True)
    return answer


async def _requests(record: Record, principal: Principal, bundle: Json) -> list[Request]:
    limit = record.settings.room_bundle_entries if principal.is_room else record.settings.bundle_entries
    entries = transactions.entries_of(bundle, limit)
    by_package = not principal.is_room

    def read_all() -> list[Request]:
        return [
            transactions.request_of(entry, position, record.parameters, by_package=by_package)
            for position, entry in enumerate(entries)
        ]

    # A large Bundle takes its time; doors that share this loop go on meanwhile.
    return await asyncio.to_thread(read_all) if len(entries) > _MANY_ENTRIES else read_all()


def _apply_bundle(
    record: Record,
    unit: Unit,
    principal: Principal,
    bundle: Json,
    requests: Sequence[Request],
    source: str | None,
    base: str,
) -> tuple[list[tuple[str, str, str | None]], bytes]:
    driver = unit.driver
    store.lock(driver)
    if source is not None and (first := store.answer(driver, source)) is not None:
        return [], first.encode()
    terms = Terms(record.clock.now(), source, not principal.is_room)
    writer = writer_of(record, unit, terms)
    # FHIR's order: deletions, creations, updates, then reads; the answer keeps the order of the request.
    changes = [n for n, request in enumerate(requests) if request.method != "GET"]
    order = sorted(changes, key=lambda n: ("DELETE", "POST", "PUT", "PATCH").index(requests[n].method))
    outcomes = dict(zip(order, writer.apply([requests[n] for n in order]), strict=True))
    said = transactions.provenance([outcomes[n] for n in changes], bundle, principal, instant(terms.now))
    if said is not None:
        writer.add(said)
    unit.flush()
    getter = getter_of(record, driver, base)
    got = {
        n: getter.get(request.url, request.if_match, f"{request.where}.request.url")
        for n, request in enumerate(requests)
        if request.method == "GET"
    }
    entries = [got[n].entry if n in got else transactions.answer_entry(outcomes[n]) for n in range(len(requests))]
    answer = of_entries("transaction-response", entries)
    if source is not None:
        store.keep_answer(driver, source, answer.decode(), micros_of(terms.now))
    touched = [(o.resource_type, o.id, o.patient) for o in outcomes.values()]
    return [*touched, *(one for found in got.values() for one in found.touched)], answer


def getter_of(record: Record, driver: Driver, base: str) -> Getter:
    """Return what answers GET entries of a Bundle in a transaction."""
    return Getter(driver, record.indexer, record.reader, record.pages, base, record.settings.search_limit_s)


def writer_of(record: Record, unit: Unit, terms: Terms) -> Writer:
    """Return what applies changes in a transaction."""
    return Writer(unit, record.indexer, record.reader, terms, record.own_rules)


async def written(
    record: Record,
    principal: Principal,
    kind: str,
    resource_type: str,
    write: Callable[[Unit], T],
    *,
    alone: bool = True,
) -> T:
    """Run a write; a race that the database's constraints decided is run again and then sees what the winner wrote."""
    for attempt in range(1, _RACE_TRIES + 1):
        try:
            result = await record.writes.run(write, alone=alone)
        except IntegrityError:
            if attempt == _RACE_TRIES:
                raise Conflict("Others changed the same resources at the same moment", todo="Send it again.") from None
            continue
        except ArcuateError as error:
            if error.status < 500:
                await noted(record, principal, kind, [(resource_type, "", None)], written=True, outcome="4")
            raise
        record.news.announce()
        return result
    raise AssertionError("unreachable")


Touched = Sequence[tuple[str, str, str | None]]
"""Type, id and patient of resources."""


async def noted(
    record: Record, principal: Principal, interaction: str, touched: Touched, detail: str = "",
    *, written: bool = False, outcome: str = "0",
) -> None:  # fmt: skip
    """Put an action into the trail: every write, and every read that touched patient data."""
    entry = _entry(record, principal, interaction, touched, detail, written, outcome)
    if entry is not None:
        await record.trail.record([entry], durable=not principal.is_room)


async def noted_reads(record: Record, principal: Principal, reads: Iterable[tuple[str, Touched]]) -> None:
    """Put several reads into the trail together: each an entry of its own, all in one commit."""
    made = [_entry(record, principal, interaction, touched) for interaction, touched in reads]
    if entries := [entry for entry in made if entry is not None]:
        await record.trail.record(entries, durable=not principal.is_room)


def _entry(
    record: Record, principal: Principal, interaction: str, touched: Touched, detail: str = "", written: bool = False,
    outcome: str = "0",
) -> Entry | None:  # fmt: skip
    patients = tuple(dict.fromkeys([patient for _, _, patient in touched if patient]))
    if not written and not patients and not interaction.startswith("history"):
        return None
    return Entry(
        micros_of(record.clock.now()), interaction, outcome, principal.client, principal.subject, principal.name, detail,
        tuple([f"{kind}/{logical_id}" for kind, logical_id, _ in touched if logical_id]), patients,
    )  # fmt: skip


def _absent(what: str) -> NotFound:
    return NotFound(f"There is no {what} here" if what[0].isupper() else f"There is no {what}")
