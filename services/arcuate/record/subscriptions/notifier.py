"""Tells subscribers: handshake, events in feed order, heartbeats; a dead endpoint delays nobody else and loses nothing.

A Subscription is worked on by one holder at a time (lease, fencing number). Its cursor goes along the feed; what fits is numbered and kept
before anything is sent, so an endpoint that was away for hours gets everything in order when it comes back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial

import httpx
from sqlalchemy import Connection
from sqlmodel import Session

from arcuate.kernel import codes
from arcuate.kernel.background import Loops
from arcuate.kernel.errors import ArcuateError, Json, Refused
from arcuate.kernel.fhir import strict
from arcuate.kernel.log import get_logger
from arcuate.record import store
from arcuate.record.changes import Writer
from arcuate.record.domain import Stored
from arcuate.record.driver import Driver, driver_of
from arcuate.record.indexing import datetime_of, micros_of
from arcuate.record.requests import Request, Terms
from arcuate.record.search import Searcher
from arcuate.record.service import Record
from arcuate.record.store import Version
from arcuate.record.subscriptions import state as states
from arcuate.record.subscriptions.notices import Event, Said, notification
from arcuate.record.subscriptions.state import State
from arcuate.record.subscriptions.wishes import Wish, place_of, wish_of

_LEASE_S = 90.0
_LOOK = 200
_POLL_S = 0.5
_REST_S = 0.05
_LONGEST_WAIT_S = 600.0
_NEVER = 2**62


@dataclass
class Notifier:
    """Sends the notifications of a record.

    Attributes:
        client: Behind the one outbound gate; it follows no redirects.
        tokens: Bearer tokens of endpoints by host:port.
    """

    record: Record
    client: httpx.AsyncClient
    base: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._log = get_logger("record")

    @contextlib.asynccontextmanager
    async def run(self, loops: Loops) -> AsyncIterator[None]:
        """Work in the background until the context is left."""
        self.record.news.listen(self._wake.set)
        try:
            async with loops.run("subscriptions", self._forever):
                yield
        finally:
            for one in self._running.values():
                one.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)
            await self.client.aclose()

    async def drain(self) -> None:
        """Work on everything that is due now, and return when nothing is (tests)."""
        while self._running or await self._begin():
            await asyncio.gather(*self._running.values())
            await asyncio.sleep(0)

    async def _forever(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._begin()
            except ArcuateError as error:
                self._log.warning("cannot look for subscriptions", reason=error.what)
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
            await asyncio.sleep(_REST_S)  # a busy record is looked at so often at most

    async def _begin(self) -> bool:
        """Begin to work on what is due and not worked on; says whether anything was begun."""
        begun = False
        for subscription in await self.record.database.read(self._due):
            if subscription not in self._running:
                task = asyncio.get_running_loop().create_task(self._work(subscription))
                self._running[subscription] = task
                task.add_done_callback(partial(self._done, subscription))
                begun = True
        return begun

    def _done(self, subscription: str, _task: "asyncio.Task[None]") -> None:
        self._running.pop(subscription, None)

    def _due(self, session: Session) -> list[str]:
        connection, now = session.connection(), self._now()
        wanted = {one.id: one for one in states.resources(driver_of(connection))}
        known = states.all_states(connection)
        found = [name for name, one in wanted.items() if name not in known or known[name].version != one.version]
        found += [name for name in known if name not in wanted]
        if not known:
            return found
        newest = store.last_seq(driver_of(connection))
        found += [
            name for name, state in known.items() if name in wanted and self._has_work(state, wanted[name], newest, now)
        ]
        return list(dict.fromkeys(found))

    def _has_work(self, state: State, resource: Stored, newest: int, now: int) -> bool:
        if state.due > now or state.lease_until > now:
            return False
        if state.status == "requested":
            return True
        behind = state.cursor < newest or state.sent < state.events
        return state.status == "active" and (behind or self._silent(state, resource))

    def _silent(self, state: State, resource: Stored) -> bool:
        wish = self._wish(resource)
        now = self._now()
        over = wish is not None and wish.end is not None and micros_of(wish.end) <= now
        return over or (
            wish is not None and wish.heartbeat_s is not None and now - state.heard >= wish.heartbeat_s * 1_000_000
        )

    def _wish(self, resource: Stored) -> Wish | None:
        try:
            return wish_of(strict.loads((resource.body or "{}").encode(), strict.HOUSE), self.record.reader)
        except ArcuateError:
            return None  # it was stored when other topics were served

    async def _work(self, subscription: str) -> None:
        try:
            await self.record.database.write(lambda session: self._looked_at(session.connection(), subscription))
            now = self._now()
            until = now + int(_LEASE_S * 1_000_000)
            state = await self.record.database.write(
                lambda session: states.claim(session.connection(), subscription, now, until)
            )
            resource = await self.record.readers.by_key(
                lambda driver: store.current(driver, "Subscription", subscription)
            )
            if state is None or resource is None or resource.body is None:
                return
            wish = self._wish(resource)
            if wish is None:
                await self._end(state, "error", "The Subscription asks for what is not served here")
            elif wish.end is not None and micros_of(wish.end) <= now:
                await self._end(state, "off", None)
            elif state.status == "requested":
                await self._shake_hands(state, wish)
            elif state.status == "active":
                await self._tell(state, wish)
        except ArcuateError as error:
            # The lease runs out and another attempt follows.
            self._log.warning("subscription not served", subscription=subscription, reason=error.what)

    def _looked_at(self, connection: Connection, subscription: str) -> None:
        """Bring the row in step with the resource: a new or changed one begins, one that is gone is forgotten."""
        store.lock(driver_of(connection))
        resource = store.current(driver_of(connection), "Subscription", subscription)
        state = states.get(connection, subscription)
        if resource is None or resource.body is None:
            states.remove(connection, subscription)
            return
        if state is not None and state.version == resource.version:
            return
        status = str(strict.loads(resource.body.encode(), strict.HOUSE).get("status"))
        now = self._now()
        if state is None:
            newest = store.last_seq(driver_of(connection))
            states.add(
                connection, State(subscription, resource.version, status, newest, 0, 0, now, now, None, 0, None, 0, 0)
            )
            return
        # A person wants it again: what was kept meanwhile is sent. An older holder's writes are refused from here on.
        renewed = state.with_(version=resource.version, status=status, due=now, failing=None, failures=0, reason=None)
        states.keep(connection, renewed, release=True)

    async def _shake_hands(self, state: State, wish: Wish) -> None:
        said = Said(state.id, wish.topic.url, "requested", state.events)
        fault = await self._post(wish, notification(self.base, said, "handshake"))
        if fault is None:
            await self._end(state.with_(heard=self._now(), failing=None, failures=0), "active", None)
        else:
            await self._end(state, "error", f"The handshake failed: {fault}")

    async def _tell(self, state: State, wish: Wish) -> None:
        """Collect, then send until everything is sent, the endpoint fails, or the lease is nearly over."""
        begun = self.record.clock.monotonic()
        while True:
            state = await self._collected(state, wish)
            if state.sent >= state.events:
                break
            events = await self.record.database.read(partial(_pending, state=state, most=wish.most))
            said = Said(state.id, wish.topic.url, "active", events[-1].number)
            fault = await self._post(wish, notification(self.base, said, "event-notification", events, wish.content))
            if fault is not None:
                await self._failed(state, fault)
                return
            state = state.with_(sent=events[-1].number, heard=self._now(), failing=None, failures=0, reason=None)
            if not await self._keep(state):
                return
            if self.record.clock.monotonic() - begun > _LEASE_S / 3:
                break
        if wish.heartbeat_s is not None and self._now() - state.heard >= wish.heartbeat_s * 1_000_000:
            said = Said(state.id, wish.topic.url, "active", state.events)
            fault = await self._post(wish, notification(self.base, said, "heartbeat"))
            if fault is not None:
                await self._failed(state, fault)
                return
            state = state.with_(heard=self._now(), failing=None, failures=0, reason=None)
        await self._keep(state, release=True)

    async def _collected(self, state: State, wish: Wish) -> State:
        """Go along the feed from the cursor, number what fits, and keep it."""
        seqs, cursor = await self.record.readers.read(lambda driver: self._fitting(driver, state, wish))
        if cursor == state.cursor:
            return state
        further = state.with_(cursor=cursor, events=state.events + len(seqs))

        def write(session: Session) -> bool:
            if not states.keep(session.connection(), further):
                return False
            states.add_events(session.connection(), state, seqs)
            return True

        if not await self.record.database.write(write):
            raise Refused("Another replica works on this Subscription now")
        return further

    def _fitting(self, driver: Driver, state: State, wish: Wish) -> tuple[list[int], int]:
        newest = store.last_seq(driver)
        part = store.HistoryPart(wish.topic.types, None, state.cursor, newest + 1, None, True, _LOOK)
        versions = store.history(driver, part)
        seqs = [version.seq for version in versions if self._fits(driver, version, wish)]
        return seqs, versions[-1].seq if len(versions) == _LOOK else newest

    def _fits(self, driver: Driver, version: Version, wish: Wish) -> bool:
        """Say whether an event passes the filters, which look at the resource as it stands now; what was taken over from the past is none."""
        body = version.body or ""
        if codes.CS_HISTORY in body and codes.is_history(strict.loads(body.encode(), strict.HOUSE)):
            return False
        searches = wish.filters.get(version.resource_type)
        if not searches:
            return True
        searcher = Searcher(driver, self.record.indexer)
        return any(searcher.matching(replace(one, ids=(*one.ids, (version.id,))), 1) for one in searches)

    async def _post(self, wish: Wish, bundle: Json) -> str | None:
        """Send a notification; returns why the endpoint did not take it, or None."""
        headers = {"Content-Type": "application/fhir+json"}
        if token := self.tokens.get(place_of(wish.endpoint)):
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with asyncio.timeout(wish.timeout_s):
                sending = self.client.stream("POST", wish.endpoint, content=strict.dumps(bundle), headers=headers)
                async with sending as response:  # its body is of no interest, and may have no end
                    return None if response.is_success else f"the endpoint answered {response.status_code}"
        except Refused as refused:
            return refused.what
        except (TimeoutError, httpx.TimeoutException):
            return f"no answer within {wish.timeout_s} s"
        except httpx.HTTPError as error:
            return f"no connection ({type(error).__name__})"

    async def _failed(self, state: State, fault: str) -> None:
        now = self._now()
        since = state.failing or now
        if now - since >= self.record.settings.subscription_patience_s * 1_000_000:
            await self._end(state, "error", f"Nothing was taken since {datetime_of(since):%Y-%m-%d %H:%M}Z: {fault}")
            return
        wait_s = min(_LONGEST_WAIT_S, 2.0 ** min(state.failures, 20))
        due = now + int(wait_s * 1_000_000)
        await self._keep(state.with_(failing=since, failures=state.failures + 1, due=due, reason=fault), release=True)

    async def _end(self, state: State, status: str, reason: str | None) -> None:
        """Give a Subscription another status, in its row and its resource, in one transaction."""

        def write(session: Session) -> bool:
            connection = session.connection()
            driver = driver_of(connection)
            store.lock(driver)
            current = store.current(driver, "Subscription", state.id)
            if current is None or current.body is None or current.version != state.version:
                return False  # somebody changed it meanwhile: that is looked at first
            resource = strict.loads(current.body.encode(), strict.HOUSE)
            told = {name: value for name, value in resource.items() if name != "error"}
            told |= {"status": status, **({"error": reason} if reason else {})}
            unit = store.Unit(driver)
            writer = Writer(unit, self.record.indexer, self.record.reader, Terms(self.record.clock.now(), None, False))
            (outcome,) = writer.apply([Request("PUT", "Subscription", state.id, told)])
            due = self._now() if status == "active" else _NEVER
            kept = states.keep(
                connection, state.with_(version=outcome.version, status=status, reason=reason, due=due), release=True
            )
            if kept:
                unit.flush()
            return kept

        if await self.record.database.write(write):
            self.record.news.announce()
            if status == "error":
                self._log.error("subscription stopped", subscription=state.id, reason=reason)

    async def _keep(self, state: State, *, release: bool = False) -> bool:
        return await self.record.database.write(
            lambda session: states.keep(session.connection(), state, release=release)
        )

    def _now(self) -> int:
        return micros_of(self.record.clock.now())


def _pending(session: Session, *, state: State, most: int) -> list[Event]:
    return states.events(session.connection(), state.id, state.sent + 1, state.events, most)


def gate_client(gate: httpx.AsyncBaseTransport, longest: timedelta = timedelta(seconds=60)) -> httpx.AsyncClient:
    """Return the client of a notifier: no redirects, nothing kept of what an endpoint answers."""
    return httpx.AsyncClient(transport=gate, timeout=longest.total_seconds(), follow_redirects=False)
