"""Builds the gateway: the MLLP door, its workers, and the web routes for integrators."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, Gauge
from pydantic import Field
from sqlmodel import Session
from starlette.responses import Response

from arcuate import gateway as package
from arcuate.gateway import door, ehr, ehr_client, elsewhere, profile, service, store, views
from arcuate.gateway.domain import State
from arcuate.gateway.door import Door
from arcuate.gateway.ehr import Ehr
from arcuate.gateway.outgoing import compose, halt, queue
from arcuate.gateway.outgoing.compose import Composer
from arcuate.gateway.outgoing.delivery import Delivery
from arcuate.gateway.outgoing.sender import Sender
from arcuate.gateway.service import Gateway
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.sorter import Sorter
from arcuate.gateway.tables import work
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import BadInput, Json, NotFound
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import FeedReader
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, open_to_all, principal_of, read_body, read_json
from arcuate.kernel.work import Apply, Job, Worker

INTEGRATORS = (Role.INTEGRATION, Role.ADMIN)
READERS = (*INTEGRATORS, Role.QUALITY, Role.LEAD)
_FEED = "feed"
_TIDY_S = 5.0


Number = Annotated[int, Field(ge=0, le=2**63 - 1)]  # what a database can hold
Most = Annotated[int, Field(ge=1, le=1000)]


@dataclass
class Parts:
    """Everything that runs in the room; tests reach in here."""

    context: RoomContext
    settings: GatewaySettings
    gateway: Gateway
    door: Door
    sorter: Sorter
    mapper: Worker
    sending: Worker
    sender: Sender
    composer: Composer
    feed: FeedReader
    ehr: Ehr | None = None
    asking: Worker | None = None

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Open the door and the workers; at exit the door closes first, so that what it took is still mapped or stays in line."""
        asking = self.asking.run() if self.asking is not None else contextlib.nullcontext()
        loops = self.context.loops
        async with (
            self.mapper.run(), self.sending.run(), self.sorter.run(), asking, loops.run("feed", self._follow),
            loops.run("tidying", self._tidy), self.door.open(),
        ):  # fmt: skip
            yield
        await self.sender.close()

    def ready(self) -> str | None:
        """Return why the gateway can't take messages, or None."""
        return self.door.seen.fault

    async def drain(self) -> None:
        """Do everything that is due now, until nothing is (tests, command line)."""
        while True:
            changes = [change async for change in self.feed.available()]
            for change in changes:
                await self.enqueue(change)
            sorted_ = await self.sorter.sort()
            if not sorted_ + await self.mapper.drain() + await self.sending.drain() + len(changes):
                return

    async def enqueue(self, change: Any) -> None:
        """Put a change of the record into the line of what may go out."""
        line_up = self.ehr.question(change) if self.ehr is not None else None
        if line_up is not None and self.asking is not None:
            await self.context.database.write(line_up)
            self.asking.wake()
        if not self.composer.receivers or not compose.wanted(change):
            return
        now, name = self.context.clock.now(), f"{change.type}/{change.id}"
        payload = {"type": change.type, "id": change.id, "version": change.version}
        dedupe = f"{queue.COMPOSE}:{name}:{change.version}"

        def write(session: Session) -> None:
            work.enqueue(session, queue.COMPOSE, now=now, keys=(name,), payload=payload, dedupe=dedupe)

        await self.context.database.write(write)
        self.mapper.wake()

    async def _follow(self) -> None:
        async for change in self.feed:
            await self.enqueue(change)

    async def _tidy(self) -> None:
        log = get_logger("gateway")
        while True:
            await self.context.clock.sleep(_TIDY_S)
            try:
                await service.tidy(self.context.database, self.context.clock)
            except Exception as error:  # noqa: BLE001 - the edge of a background task: it goes on at the next turn
                log.warning("tidying failed", error=type(error).__name__)


async def open_room(context: RoomContext, settings: GatewaySettings | None = None) -> Room:
    """Build the room."""
    context.database.migrate(package)
    parts = build(context, settings or GatewaySettings())
    app = create_app(context, "Arcuate gateway", parts.ready)
    app.state.parts = parts
    _add_metrics(app.state.metrics, parts)
    _add_journal_routes(app, parts)
    _add_error_routes(app, parts)
    return Room("gateway", ("/gateway",), app, parts.run, parts.ready)


def build(context: RoomContext, settings: GatewaySettings) -> Parts:
    """Wire the parts of the room."""
    database, clock, zone = context.database, context.clock, context.site.zone
    fhir = FhirClient(context.http, clock=clock)
    profiles = profile.load(settings.profiles_dir)
    spool_dir = context.data_dir / "spool"
    gateway = Gateway(database, fhir, profiles, settings, clock, zone, spool_dir)
    sender = Sender(database, settings, clock, settings.receivers)
    composer = Composer(fhir, settings.receivers, clock, zone, context.site.site_name)
    delivery = Delivery(database, fhir)
    sending = Worker(
        database, work, clock, {queue.SEND: sender.send}, lease_s=settings.send_timeout_s * 2 + 10,
        parallel=max(1, len(settings.receivers)), name="gateway", loops=context.loops,
    )  # fmt: skip

    async def composed(job: Job) -> Apply | None:
        written = await composer.compose(job)
        sending.wake()
        return written

    handlers = {
        store.MAP: gateway.map_message, store.MATCH: gateway.match, queue.COMPOSE: composed, queue.REPORT: delivery.tell,
    }  # fmt: skip
    mapper = Worker(database, work, clock, handlers, parallel=settings.parallel, name="gateway", loops=context.loops)
    sorter = Sorter(database, profiles, settings, clock, zone, mapper.wake, context.loops)
    entrance = door.make(door.Place(database.url, database.schema, spool_dir), settings, clock, sorter.wake)
    types = tuple(dict.fromkeys((*compose.types(settings.receivers), *(ehr.TYPES if settings.ehr_url else ()))))
    feed = FeedReader(
        fhir, lambda: database.read(lambda s: store.cursor(s, _FEED)),
        lambda value: database.write(lambda s: store.save_cursor(s, _FEED, value)), types=types, clock=clock,
    )  # fmt: skip
    parts = Parts(context, settings, gateway, entrance, sorter, mapper, sending, sender, composer, feed)
    if settings.ehr_url:
        line = ehr_client.connect(settings, ehr_client.load_or_make_key(_ehr_key(context)), clock)
        parts.ehr = Ehr(fhir, line, profiles, settings, clock)
        # A worker of its own: an EHR that takes its time holds up no message.
        parts.asking = Worker(
            database,
            work,
            clock,
            {ehr.ASK: parts.ehr.ask},
            lease_s=600,
            parallel=2,
            name="gateway",
            loops=context.loops,
        )
    return parts


def _ehr_key(context: RoomContext) -> Path:
    return context.data_dir / "ehr-key.json"


def _add_metrics(registry: CollectorRegistry, parts: Parts) -> None:
    connections = Gauge("arcuate_mllp_connections", "Open HL7 connections.", registry=registry)
    connections.set_function(lambda: sum(parts.door.seen.open.values()))
    incomplete = Gauge(
        "arcuate_mllp_incomplete_frames", "Frames that began and did not end, since the start.", registry=registry
    )
    incomplete.set_function(lambda: parts.door.seen.counts.get("incomplete", 0))
    down = Gauge("arcuate_receivers_down", "Receivers that do not answer.", registry=registry)
    down.set_function(lambda: len(parts.sender.down))


def _add_journal_routes(app: FastAPI, parts: Parts) -> None:
    database = parts.context.database

    @app.get("/gateway/journal", dependencies=[allow(*INTEGRATORS)])
    async def journal(before: Number | None = None, limit: Most = 50, sender: str = "", state: str = "") -> Json:
        await parts.sorter.sort()  # what has been acknowledged shows, with what it holds
        return await database.read(lambda s: views.journal(s, before, limit, sender, state))

    @app.get("/gateway/journal/{number}", dependencies=[allow(*INTEGRATORS)])
    async def journal_row(number: Number) -> Json:
        await parts.sorter.sort()
        return await database.read(lambda s: views.journal_item(s, number))

    @app.get("/gateway/journal/{number}/raw", dependencies=[allow(*INTEGRATORS)])
    async def journal_raw(request: Request, number: Number) -> Response:
        row = await database.read(lambda s: store.frame(s, number))
        get_logger("gateway").info("journal content opened", number=number, by=principal_of(request).subject)
        return Response(parts.gateway.raw_of(row), media_type="application/octet-stream")

    @app.get("/gateway/connections", dependencies=[allow(*READERS)])
    async def connections() -> Json:
        now_open = parts.door.seen.open
        senders = await database.read(lambda s: views.senders(s, now_open))
        receivers = [await _receiver(parts, one.name) for one in parts.settings.receivers]
        transport = await database.read(views.transport_counts)
        stopped = await database.read(halt.standing)
        return {
            "halted": {"since": views.instant(stopped.since), "reason": stopped.reason} if stopped else None,
            "door": {"port": parts.door.port, "open": sum(now_open.values()), "fault": parts.ready()},
            "senders": senders,
            "receivers": receivers,
            "ehr": _ehr(parts),
            "transport": transport,
        }

    @app.post("/gateway/sending/release", dependencies=[allow(*INTEGRATORS)])
    async def release(request: Request) -> Json:
        released = await database.write(halt.release)
        if released:
            get_logger("gateway").warning("sending released", by=_who(request))
        parts.sending.wake()
        return {"released": released}

    @app.get("/gateway/ehr/jwks", dependencies=[open_to_all])
    async def keys() -> Json:
        if not parts.settings.ehr_url:
            raise NotFound("No EHR is asked here")
        return ehr_client.public_keys(ehr_client.load_or_make_key(_ehr_key(parts.context)))

    @app.get("/gateway/counts", dependencies=[allow(*Role)])
    async def totals() -> Json:
        await parts.sorter.sort()
        states = await database.read(views.counts)
        return {"messages": sum(states.values()), "states": states}


def _ehr(parts: Parts) -> Json | None:
    """How the line to the EHR stands; None where there is none."""
    if parts.ehr is None:
        return None
    state = "does not answer" if parts.ehr.down else "up"
    address = ehr_client.pair_of(parts.settings.ehr_url)
    return {"address": address, "state": state, "down_since": views.instant(parts.ehr.down), "cause": parts.ehr.cause}


async def _receiver(parts: Parts, name: str) -> Json:
    line = await parts.context.database.read(lambda s: queue.line(s, name))
    settings = next(one for one in parts.settings.receivers if one.name == name)
    since = parts.sender.down.get(name)
    return {
        "receiver": name, "kind": settings.kind, "address": f"{settings.host}:{settings.port}",
        "state": "does not answer" if since else "parked" if line.parked else "up", "down_since": views.instant(since),
        "waiting": line.waiting, "parked": line.parked, "oldest": views.instant(line.oldest),
        "last_acknowledged": views.instant(line.last_acknowledged),
    }  # fmt: skip


def _add_error_routes(app: FastAPI, parts: Parts) -> None:
    database, clock = parts.context.database, parts.context.clock

    @app.get("/gateway/errors", dependencies=[allow(*INTEGRATORS)])
    async def errors(before: Number | None = None, limit: Most = 50, cause: str = "") -> Json:
        await parts.sorter.sort()
        await service.tidy(database, clock)
        return await database.read(lambda s: views.errors(s, before, limit, cause))

    @app.get("/gateway/errors/{item}", dependencies=[allow(*INTEGRATORS)])
    async def error(request: Request, item: str) -> Json:
        way, number = _item(item)
        get_logger("gateway").info("error item opened", item=item, by=principal_of(request).subject)
        if way == "job":
            return await database.read(lambda s: views.job_item(s, number))
        if way == "out":
            row = await database.read(lambda s: queue.load(s, number))
            return {**views.outgoing_line(row), **views.content(row.raw, "")}
        loaded = await database.read(lambda s: store.load(s, number))
        raw = parts.gateway.bytes_of(loaded)
        edited = views.content(loaded.message.edited, "") if loaded.message.edited else None
        line = views.error_line(loaded.message, loaded.frame)
        return {**line, **views.content(raw, loaded.message.location), "edited": edited}

    @app.post("/gateway/errors/{item}/replay", dependencies=[allow(*INTEGRATORS)])
    async def replay(request: Request, item: str) -> Json:
        way, number = _item(item)
        by, now = _who(request), clock.now()
        edited = await _edited(request)
        if way == "job":
            await database.write(lambda s: work.replay(s, number, now=now, by=by))
            parts.mapper.wake()
            return {"id": item, "state": queue.WAITING}
        if way == "out":
            if edited is not None:
                raise BadInput("An outgoing message is not edited; mend what it was made from", where=item)
            await database.write(lambda s: queue.replay(s, number, by, now))
            parts.sending.wake()
            return {"id": item, "state": queue.WAITING}
        loaded = await database.read(lambda s: store.load(s, number))
        if edited is None and parts.gateway.is_cut_off(loaded.frame):
            raise BadInput(
                "Only the beginning of this message was kept",
                where=item,
                todo="Have it sent again, or send a copy here.",
            )
        raw = edited or parts.gateway.bytes_of(loaded)
        keys = () if elsewhere.is_resource(raw) else parts.sorter.keys_of(raw)
        await database.write(lambda s: store.replay(s, number, edited, by, now, keys))
        parts.mapper.wake()
        return {"id": item, "state": State.WAITING}

    @app.post("/gateway/errors/{item}/discard", dependencies=[allow(*INTEGRATORS)])
    async def discard(request: Request, item: str) -> Json:
        way, number = _item(item)
        reason = str((await read_json(request)).get("reason") or "")
        by, now = _who(request), clock.now()
        if way == "job":
            await database.write(lambda s: work.discard(s, number, now=now, by=by, reason=_reason(reason)))
            return {"id": item, "state": State.DISCARDED}
        act = queue.discard if way == "out" else store.discard
        await database.write(lambda s: act(s, number, reason, by, now))
        parts.sending.wake()
        return {"id": item, "state": State.DISCARDED}


def _item(text: str) -> tuple[str, int]:
    way, _, number = text.partition("-")
    if way not in ("in", "out", "job") or not (number.isdecimal() and number.isascii() and len(number) < 19):
        raise NotFound("There is no such item in the error queue", where=text[:40])
    return way, int(number)


def _reason(text: str) -> str:
    if not text.strip():
        raise BadInput("A message is set aside only with a reason", where="reason")
    return text.strip()[:400]


def _who(request: Request) -> str:
    principal = principal_of(request)
    return principal.name or principal.subject


async def _edited(request: Request) -> bytes | None:
    """An edited copy of the message: the body as HL7 text (CR or line feeds between segments); empty for the received bytes."""
    body = await read_body(request)
    if not body.strip():
        return None
    if request.headers.get("content-type", "").startswith("application/json"):
        raise BadInput("Send the edited message itself as text/plain, or no body", where="body")
    if elsewhere.is_resource(body):
        return body
    if not body.lstrip().startswith(b"MSH"):
        raise BadInput("An edited message begins with MSH", where="MSH")
    return body.replace(b"\r\n", b"\r").replace(b"\n", b"\r")
