"""Writing and checking the trail: entries that came while the last commit ran share the next one."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from arcuate.kernel.db import Database
from arcuate.kernel.db.driver import driver_of, insert
from arcuate.kernel.errors import StorageFault
from arcuate.record.audit.tables import ENTRY, TARGET

FIRST_HASH = "0" * 64

_LOCK = 0x41554449  # "AUDI"
_MOST_WAITING = 20_000
_COLLECT_S = 0.05
_MOST_TARGETS = 1000


class Entry(NamedTuple):
    """One action on patient data.

    Attributes:
        at: Microseconds since 1970 UTC.
        interaction: FHIR's word for it: `read`, `search-type`, `transaction` …
        outcome: `0` success, `4` refused, `8` failed (FHIR AuditEvent.outcome).
        client: The program that called; `person`: on whose behalf, or the program itself.
        detail: Names of search parameters; never their values.
        targets: References of what was read or written.
        patients: Ids of the patients whom these are about.
    """

    at: int
    interaction: str
    outcome: str
    client: str
    person: str
    name: str = ""
    detail: str = ""
    targets: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """An entry as it stands in the trail."""

    number: int
    entry: Entry


@dataclass(frozen=True)
class AuditQuery:
    """Which entries are wanted; `after` is the last number of the page before (newest first)."""

    since: int | None = None
    until: int | None = None
    person: str | None = None
    reference: str | None = None
    interaction: str | None = None
    after: int | None = None
    limit: int = 50


@dataclass
class Trail:
    """The audit trail over its own database.

    Attributes:
        fault: Why entries could not be kept, as a sentence; None when all is well.
    """

    database: Database
    fault: str | None = None
    _waiting: list[tuple[Entry, asyncio.Future[None] | None]] = field(default_factory=list)
    _flushing: asyncio.Task[None] | None = None
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, entries: Sequence[Entry], *, durable: bool = True) -> None:
        """Keep entries.

        Args:
            durable: Return only once it is: what cannot be audited is not answered. The house's own rooms at work do not wait for
                that, except while the trail has a fault.

        Raises:
            StorageFault: It could not be kept, so the action may not go on.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise StorageFault(self.fault or "The audit trail cannot keep up")
        if not durable and self.fault is None:
            self._enqueue(entries, None)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(entries, done)
        await done

    async def settle(self) -> None:
        """Return when everything noted so far is durable, or could not be kept."""
        self._hurry.set()
        while self._flushing is not None:
            await asyncio.shield(self._flushing)

    def _enqueue(self, entries: Sequence[Entry], done: "asyncio.Future[None] | None") -> None:
        self._waiting += [(entry, done) for entry in entries]
        if done is not None:
            self._hurry.set()
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            while self._waiting:
                # What nobody waits for is collected for a moment, so that rooms at work do not cost a commit each.
                with contextlib.suppress(TimeoutError):
                    if not self._hurry.is_set():
                        await asyncio.wait_for(self._hurry.wait(), _COLLECT_S)
                self._hurry.clear()
                batch, self._waiting = self._waiting, []
                if not await self._write(batch):
                    return
        finally:
            self._flushing = None

    async def _write(self, batch: "list[tuple[Entry, asyncio.Future[None] | None]]") -> bool:
        entries = [entry for entry, _ in batch]
        try:
            await self.database.write(lambda session: append(session.connection(), entries))
        except StorageFault as error:
            self.fault = f"The audit trail cannot be written: {error.what}"
            # What nobody waits for stays and goes with the next commit; who waits is told.
            self._waiting = [(entry, None) for entry, done in batch if done is None] + self._waiting
            for _, done in batch:
                if done is not None and not done.done():
                    done.set_exception(StorageFault(self.fault))
            return False
        self.fault = None
        for _, done in batch:
            if done is not None and not done.done():
                done.set_result(None)
        return True


def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Append entries to the chain."""
    driver = driver_of(connection)
    if not driver.sqlite:
        driver.rows("SELECT pg_advisory_xact_lock(?, hashtext(current_schema()))", (_LOCK,))
    last = driver.rows("SELECT number, hash FROM entry ORDER BY number DESC LIMIT 1")
    number, previous = last[0] if last else (0, FIRST_HASH)
    rows: list[tuple[Any, ...]] = []
    touched: list[tuple[str, int]] = []
    for entry in entries:
        number += 1
        said = _said(entry)
        previous = chain(previous, number, said)
        rows.append((number, *said, previous))
        named = {*entry.targets[:_MOST_TARGETS], *[f"Patient/{patient}" for patient in entry.patients]}
        touched += [(reference, number) for reference in named]
    insert(driver, "entry", ("number", *_HASHED, "hash"), rows)
    insert(driver, "target", ("reference", "number"), touched)


_HASHED = ("at", "interaction", "outcome", "client", "person", "name", "detail", "targets")

Said = tuple[int, str, str, str, str, str, str, str]
"""The columns of `_HASHED`."""


def chain(previous: str, number: int, said: Said) -> str:
    """Return the hash of a row that follows a hash: of that one, a line feed, and the row's columns as a compact JSON array."""
    at, *texts = said
    row = f"{previous}\n[{number},{at},{','.join(map(encode_basestring, texts))}]"
    return hashlib.sha256(row.encode()).hexdigest()


def first_broken(connection: Connection) -> int | None:
    """Return the number of the first entry that is not as it was written, or whose predecessor is missing; None if all are."""
    previous, expected = FIRST_HASH, 1
    for row in connection.execute(select(ENTRY).order_by(ENTRY.c.number).execution_options(yield_per=1000)):
        said: Any = tuple(row._mapping[name] for name in _HASHED)
        if row.number != expected or row.hash != chain(previous, row.number, said):
            return expected
        previous, expected = row.hash, expected + 1
    return None


def size(connection: Connection) -> int:
    """Return how many entries the trail has."""
    return int(connection.execute(select(func.count()).select_from(ENTRY)).scalar_one())


def find(connection: Connection, query: AuditQuery) -> list[Kept]:
    """Return entries, newest first."""
    number, at = ENTRY.c.number, ENTRY.c.at
    statement = select(ENTRY).order_by(number.desc()).limit(query.limit)
    if query.since is not None:
        statement = statement.where(at >= query.since)
    if query.until is not None:
        statement = statement.where(at < query.until)
    if query.person is not None:
        statement = statement.where((ENTRY.c.person == query.person) | (ENTRY.c.client == query.person))
    if query.interaction is not None:
        statement = statement.where(ENTRY.c.interaction == query.interaction)
    if query.reference is not None:
        statement = statement.where(number.in_(select(TARGET.c.number).where(TARGET.c.reference == query.reference)))
    if query.after is not None:
        statement = statement.where(number < query.after)
    return [_kept(row) for row in connection.execute(statement)]


def get(connection: Connection, number: int) -> Kept | None:
    """Return one entry."""
    row = connection.execute(select(ENTRY).where(ENTRY.c.number == number)).first()
    return _kept(row) if row else None


def _said(entry: Entry) -> Said:
    targets, patients = (",".join(map(encode_basestring_ascii, part)) for part in (entry.targets, entry.patients))
    return (*entry[:7], f'{{"targets":[{targets}],"patients":[{patients}]}}')


def _kept(row: Any) -> Kept:
    touched = json.loads(row.targets)
    return Kept(
        row.number,
        Entry(
            row.at, row.interaction, row.outcome, row.client, row.person, row.name, row.detail, tuple(touched["targets"]),
            tuple(touched["patients"]),
        ),
    )  # fmt: skip
