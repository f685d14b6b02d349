"""What is new: follows the record's feed and tells each open page, by event stream, which of its parts have changed."""

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from arcuate.dashboard.render import FOLDER
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import ArcuateError, Json
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import get_logger

_PAGE = 200
_WAIT_S = 20
_LONGEST_PAUSE_S = 10.0
_MOST_PAGES = 8


@dataclass(frozen=True)
class LivePage:
    """A row of `live.toml`: which resource types touch which part, and which parts are looked at by the clock."""

    parts: Mapping[str, frozenset[str]]
    every_s: float = 0.0
    every: tuple[str, ...] = ()

    def touched(self, resource_type: str) -> set[str]:
        """Return the parts that a change of this type touches."""
        return {name for name, types in self.parts.items() if resource_type in types}


def load_live() -> dict[str, LivePage]:
    """Read the table of live parts."""
    table = tomllib.loads((FOLDER / "live.toml").read_text(encoding="utf-8"))
    found = {}
    for name, row in table.items():
        every_s, every = float(row.pop("every_s", 0)), tuple(row.pop("every", ()))
        found[name] = LivePage({part: frozenset(types) for part, types in row.items()}, every_s, every)
    return found


@dataclass(frozen=True)
class Watch:
    """A page that somebody has open.

    Attributes:
        name: Of the page, as in `live.toml`.
        about: References that it is about; empty when every change may concern it.
    """

    name: str
    about: frozenset[str] = frozenset()

    @classmethod
    def read(cls, text: str) -> "Watch":
        """Read `name` or `name:Type/id,Type/id` out of an address."""
        name, _, about = text.partition(":")
        return cls(name, frozenset(part for part in about.split(",") if part))

    def concerns(self, touched: frozenset[str]) -> bool:
        """Return whether a change that touches these references concerns the page."""
        return not self.about or bool(self.about & touched)

    def __str__(self) -> str:
        """Return the text that `read` takes."""
        return f"{self.name}:{','.join(sorted(self.about))}" if self.about else self.name


@dataclass(eq=False)
class Listener:
    """One event stream: what has changed for its pages and was not told yet."""

    watches: tuple[Watch, ...]
    changed: dict[Watch, set[str]] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, watch: Watch, parts: Iterable[str]) -> None:
        """Remember that parts of a page have changed."""
        if parts := set(parts):
            self.changed.setdefault(watch, set()).update(parts)
            self.wake.set()


@dataclass
class News:
    """Everybody who listens, and how far the feed was read.

    Attributes:
        silent_since: Since when the record does not answer; None while it does.
    """

    fhir: FhirClient
    clock: Clock
    heartbeat_s: float
    settle_s: float
    again_s: float
    live: Mapping[str, LivePage] = field(default_factory=load_live)
    listeners: set[Listener] = field(default_factory=set)
    seq: int | None = None
    silent_since: datetime | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self) -> None:
        """Read the feed from now on, for ever. Nothing is kept: a page that opens reads everything itself."""
        log, pause = get_logger("dashboard"), 0.0
        while True:
            try:
                if self.seq is None:
                    newest = await self.fhir.history({"_count": "1"})
                    self.seq = max((int(e.get("id") or 0) for e in newest.get("entry") or []), default=0)
                await self._read()
                self.silent_since, pause = None, 0.0
            except ArcuateError as error:
                pause = min(_LONGEST_PAUSE_S, pause * 2 or 0.5)
                if self.silent_since is None:
                    self.silent_since = self.clock.now()
                    log.warning("feed waits", status=error.status)
                await self.clock.sleep(pause)

    async def _read(self) -> None:
        wait = _WAIT_S if self.silent_since is None else 0
        page = await self.fhir.history({"_after": str(self.seq), "_count": str(_PAGE), "_wait": str(wait)}, wait)
        for entry in page.get("entry") or []:
            self.take(str(entry["response"]["location"]), entry.get("resource"))
        after = parse_qs(urlsplit(bundles.next_link(page) or "").query).get("_after")
        if after:
            self.seq = int(after[0])

    def take(self, location: str, resource: Json | None) -> None:
        """Tell the listeners of one change; `location` is `Type/id/_history/version`."""
        own = location.split("/_history", maxsplit=1)[0].rsplit("/", 2)[-2:]
        touched = frozenset({"/".join(own), *_references(resource or {})})
        for listener in self.listeners:
            for watch in listener.watches:
                if watch.concerns(touched) and (page := self.live.get(watch.name)):
                    listener.note(watch, page.touched(own[0]))

    async def stream(self, watches: Iterable[Watch]) -> AsyncIterator[bytes]:
        """Yield the events of one stream until its reader goes away or the room closes."""
        listener = Listener(tuple(watches)[:_MOST_PAGES])
        self.listeners.add(listener)
        try:
            yield self._beat()
            tasks = [asyncio.create_task(self._by_clock(listener)), asyncio.create_task(self.closed.wait())]
            try:
                async for event in self._events(listener):
                    yield event
            finally:
                for task in tasks:
                    task.cancel()
        finally:
            self.listeners.discard(listener)

    async def _events(self, listener: Listener) -> AsyncIterator[bytes]:
        again: dict[Watch, set[str]] = {}
        quiet = 0.0
        while not self.closed.is_set():
            step = self.again_s if again else self.heartbeat_s
            try:
                await asyncio.wait_for(listener.wake.wait(), step)
            except TimeoutError:
                quiet += step
                told, again = again, {}
                for watch, parts in told.items():
                    yield self._changed(watch, parts)
                if not told or quiet >= self.heartbeat_s:
                    quiet = 0.0
                    yield self._beat()
                continue
            await asyncio.sleep(self.settle_s)
            listener.wake.clear()
            news, listener.changed = listener.changed, {}
            for watch, parts in news.items():
                again.setdefault(watch, set()).update(parts)
                yield self._changed(watch, parts)
            yield self._beat()

    async def _by_clock(self, listener: Listener) -> None:
        """Name the parts that follow rooms without a feed, each page by its own clock."""
        due = {w: page.every_s for w in listener.watches if (page := self.live.get(w.name)) and page.every_s}
        passed = 0.0
        while due:
            step = min(due.values())
            await asyncio.sleep(step)
            passed += step
            for watch in due:
                if passed % self.live[watch.name].every_s < step:
                    listener.note(watch, self.live[watch.name].every)

    def _changed(self, watch: Watch, parts: set[str]) -> bytes:
        return _event("changed", {"page": str(watch), "parts": sorted(parts), "seq": self.seq or 0}, self.seq)

    def _beat(self) -> bytes:
        since = self.silent_since
        return _event("beat", {"at": self.clock.now().isoformat(), "silent": since.isoformat() if since else None})


def _event(name: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    mark = f"id: {number}\n" if number is not None else ""
    return f"event: {name}\n{mark}data: {json.dumps(data)}\n\n".encode()


def _references(value: Any) -> Iterable[str]:
    """Yield every `Type/id` that a resource refers to, at any depth."""
    if isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str):
            yield reference.split("/_history")[0]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
