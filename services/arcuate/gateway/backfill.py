"""Past years into the journal, marked as history, and from there by the same mapping as everything else.

Whatever is read becomes a journal row first: what a run was killed in goes on from the rows, and what is read again is recognised by its
bytes. So a run can be stopped at any point and begun again with the same files. No more than some hundred rows wait at a time, so that
live messages, if the house runs, never stand behind years.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from arcuate.gateway import archive, columns, domain, elsewhere, history, route, service, store
from arcuate.gateway.archive import File
from arcuate.gateway.columns import Columns
from arcuate.gateway.domain import State
from arcuate.gateway.mapping import plan
from arcuate.gateway.profile import Profiles
from arcuate.gateway.sorter import Sorter
from arcuate.gateway.tables import Frame, Message, work
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir import strict
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.work import Worker

_TOGETHER = 100
_WAITING = 400
_POLL_S = 0.1
_HEAD = 64 * 1024  # of what is too large
_STANDS = sa.text("SELECT 1 FROM frame WHERE NOT unread AND sender = :sender AND control_id = :content LIMIT 1")
_STANDS_UNREAD = sa.text(
    "SELECT 1 FROM frame WHERE unread AND sender = :sender AND control_id = :content LIMIT 1"
)  # a few hundred
_FRAME: Any = Frame.__table__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Item:
    """Something to journal.

    Attributes:
        size: How many bytes it had; more than `raw` holds where it was cut.
        keys: The lines in which its work stands (resources; of HL7 the sorter finds them).
        fault: Why it is refused before it is mapped.
    """

    raw: bytes
    size: int
    kind: str
    sender: str
    keys: tuple[str, ...] = ()
    fault: str = ""
    where: str = ""


@dataclass
class Counts:
    """What was read, what of it was new, and what was passed by because nothing here uses it."""

    files: int = 0
    read: int = 0
    new: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    file: str = ""

    @property
    def known(self) -> int:
        """How many stood in the journal already."""
        return self.read - self.new - sum(self.unused.values())


@dataclass(frozen=True)
class Standing:
    """How all of the past stands in the journal: messages by state, and what is refused by cause."""

    states: dict[str, int]
    causes: dict[str, int]


@dataclass(frozen=True)
class Working:
    """The hands that map what was journaled, where no running house has them."""

    sorter: Sorter
    mapper: Worker


class Backfill:
    """One run.

    Args:
        working: None where a running house maps what stands in the journal.
        watch: Is told how far it is.
    """

    def __init__(
        self, database: Database, profiles: Profiles, clock: Clock, most: int, working: Working | None,
        watch: Callable[[Counts], None],
    ) -> None:  # fmt: skip
        self._database, self._profiles, self._clock, self._most = database, profiles, clock, most
        self._working, self._watch = working, watch
        self.counts = Counts()

    async def run(self, paths: Sequence[Path], table: Columns | None, source: str) -> Standing:
        """Read everything under these paths; returns how the past stands afterwards.

        Raises:
            BadInput: A path does not exist, or tables are given without a mapping of their columns.
        """
        if self._working is None:
            return await self._read(paths, table, source)
        async with self._working.mapper.run():
            return await self._read(paths, table, source)

    async def _read(self, paths: Sequence[Path], table: Columns | None, source: str) -> Standing:
        await self._settle(0)  # what an earlier run has left comes before what follows it
        refused: list[tuple[str, str]] = []
        present: set[str] = set()
        for file in archive.files(list(paths), refused):
            self._begin(file)
            if file.kind == "bulk":
                present.add(_type_of(file))
            elif file.kind == "table":
                await self._take_table(file, table)
            else:
                await self._take(self._messages(file))
        for name in (*(one for one in elsewhere.TYPES if one in present), *sorted(present - set(elsewhere.TYPES))):
            await self._settle(0)  # what a resource refers to stands before it comes
            for file in archive.files(list(paths), []):
                if file.kind == "bulk" and _type_of(file) == name:
                    self._begin(file)
                    await self._take(self._resources(file, source))
        faults = [_refused_file(name, why) for name, why in refused]
        await self._take(iter(faults))
        await self._settle(0)
        return await self._database.read(standing)

    def _begin(self, file: File) -> None:
        self.counts.files += 1
        self.counts.file = file.name
        self._watch(self.counts)

    async def _take_table(self, file: File, table: Columns | None) -> None:
        if table is None:
            raise BadInput("A table needs a mapping of its columns", where=file.name, todo="Name it with --columns.")
        await self._take(_rows(file, table))

    async def _take(self, items: Iterator[Item]) -> None:
        while batch := list(islice(items, _TOGETHER)):
            now = self._clock.now()
            new = await self._database.write(lambda s, batch=batch, now=now: add(s, batch, self._profiles, now))  # type: ignore[misc]
            self.counts.read += len(batch)
            self.counts.new += new
            await self._settle(_WAITING)

    def _messages(self, file: File) -> Iterator[Item]:
        for raw, size in archive.messages(file.stream, self._most):
            header = headers.read(raw)
            said = route.latin(header.field(3) + b"|" + header.field(4)) if header is not None else ""
            kind, event = header.type if header is not None else ("", "")
            name = domain.storable(f"{kind}^{event}" if event else kind)
            if plan.use_of(kind, event) == "acknowledgement":
                self._pass_by("acknowledgements")
                continue
            yield Item(raw if size <= self._most else raw[:_HEAD], size, name, said)

    def _resources(self, file: File, source: str) -> Iterator[Item]:
        for raw, size in archive.lines(file.stream, self._most):
            if size > self._most:
                yield Item(raw[:_HEAD], size, "FHIR", source, (), f"{size} bytes; the limit is {self._most}")
                continue
            try:
                resource = strict.loads(raw, strict.HOUSE)
            except BadInput as error:
                yield Item(raw, size, "FHIR", source, (), error.what, error.where)
                continue
            kind = str(resource.get("resourceType"))
            if kind not in elsewhere.TYPES:
                self._pass_by(kind)
                continue
            yield Item(raw, size, f"FHIR {kind}", source, _keys(source, resource))

    def _pass_by(self, what: str) -> None:
        self.counts.read += 1
        self.counts.unused[what] += 1

    async def _settle(self, most: int) -> None:
        """Wait until no more than so many items of the past are still to be mapped."""
        while True:
            if self._working is not None:
                await self._working.sorter.sort()
                self._working.mapper.wake()
            self.counts.waiting = await self._database.read(waiting)
            self._watch(self.counts)
            if self.counts.waiting <= most:
                return
            if self._working is not None:
                await service.tidy(self._database, self._clock)
            await self._clock.sleep(_POLL_S)


def _type_of(file: File) -> str:
    """What an NDJSON file holds: by its name, as Bulk Data exports call them, else by its first line."""
    for word in re.split(r"[^A-Za-z]+", file.path):
        if word in elsewhere.TYPES:
            return word
    first, _ = next(archive.lines(file.stream, 1024 * 1024), (b"", 0))
    file.stream.seek(0)
    try:
        return str(strict.loads(first, strict.HOUSE).get("resourceType"))
    except BadInput:
        return ""


def _rows(file: File, table: Columns) -> Iterator[Item]:
    for row in columns.rows(file.stream, table):
        if row.made is None:
            yield Item(row.raw, len(row.raw), "row", table.source, (), row.fault, row.where)
            continue
        raw = strict.dumps(row.made)
        patient = row.made["entry"][0]["resource"]
        yield Item(raw, len(raw), "row", table.source, _keys(table.source, patient))


def _refused_file(name: str, why: str) -> Item:
    raw = name.encode("utf-8", "replace")
    return Item(raw, len(raw), "file", "file", (), why)


def _keys(source: str, resource: Json) -> tuple[str, ...]:
    """The lines of a resource: all of one patient's stand in one."""
    own = f"Patient/{resource.get('id')}" if resource["resourceType"] == "Patient" else ""
    named = [own] if own else elsewhere.patients(resource)[:1] or [f"{resource['resourceType']}/{resource.get('id')}"]
    return domain.queue_keys([f"{source}|{source} {one}" for one in named], [])


def add(session: Session, items: Sequence[Item], profiles: Profiles, now: datetime) -> int:
    """Journal items that do not stand there yet, with the work on those that the sorter does not read; returns how many were new.

    What stands there is known by its bytes: their hash stands where a live frame has its control id.
    """
    new = 0
    for item in items:
        sender, content = history.SENDER + domain.storable(item.sender), hashlib.sha256(item.raw).hexdigest()
        values = {"sender": sender, "content": content}
        if any(session.execute(looked, values).first() for looked in (_STANDS, _STANDS_UNREAD)):
            continue
        is_hl7 = not (item.keys or item.fault)
        number: int = session.execute(
            sa.insert(_FRAME).values(
                received=now, peer=history.PEER, profile=profiles.of_header(headers.read(item.raw)).name if is_hl7 else "", sender=sender,
                control_id=content, kind=item.kind, size=item.size, content_hash=content, raw=item.raw, answer_code="", answer=b"",
                warning="", resends=0, unread=is_hl7,
            ).returning(_FRAME.c.number)
        ).scalar_one()  # fmt: skip
        new += 1
        if not is_hl7:
            _add_message(session, number, item, now)
    return new


def _add_message(session: Session, number: int, item: Item, now: datetime) -> None:
    row = Message(
        frame=number, sender=history.SENDER + domain.storable(item.sender), kind=item.kind, state=State.WAITING, changed=now, charset="UTF-8",
    )  # fmt: skip
    if item.fault:
        row.state, row.cause = State.PARKED, history.CAUSE + "unreadable"
        row.reason, row.location = domain.storable(item.fault), domain.storable(item.where)
    session.add(row)
    session.flush()
    if not item.fault:
        work.enqueue(session, store.MAP, now=now, keys=item.keys, payload={"message": row.id})


def _of_past() -> Any:
    return col(Message.sender).startswith(history.SENDER)


def waiting(session: Session) -> int:
    """Return how many items of the past are not mapped yet."""
    unread = select(func.count()).select_from(Frame).where(sa.text("frame.unread"), Frame.peer == history.PEER)
    unmapped = select(func.count()).select_from(Message).where(Message.state == State.WAITING, _of_past())
    return session.exec(unread).one() + session.exec(unmapped).one()


def standing(session: Session) -> Standing:
    """Return how all of the past stands."""
    counted = session.execute(
        sa.select(col(Message.state), col(Message.cause), func.count()).where(_of_past()).group_by(col(Message.state), col(Message.cause))
    ).all()  # fmt: skip
    states: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for state, cause, number in counted:
        states[state] += number
        if state in (State.PARKED, State.UNMATCHED):
            causes[str(cause).removeprefix(history.CAUSE) or "a result waits for its order"] += number
    return Standing(dict(states), dict(causes.most_common()))
