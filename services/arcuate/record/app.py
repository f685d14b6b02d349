"""The web door of the record: FHIR R4 over HTTP at `/fhir`."""

import contextlib
from collections.abc import AsyncIterator
from zoneinfo import ZoneInfo

from cryptography.fernet import Fernet
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from arcuate import record as package
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Gone, Json
from arcuate.kernel.fhir.bundle import HOUSE_BASE
from arcuate.kernel.outbound import OutboundGate
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import (
    Allow,
    FhirText,
    QuickRoute,
    RoomApp,
    allow,
    create_app,
    fhir_response,
    header,
    open_to_all,
    principal_of,
)
from arcuate.record import audit, batches, capability, openapi, parameters, service, store
from arcuate.record import http as door
from arcuate.record.audit.routes import add_audit_routes
from arcuate.record.audit.trail import Trail
from arcuate.record.booking.routes import Bookings, add_booking_routes
from arcuate.record.bulk.routes import Exports, add_export_routes
from arcuate.record.driver import Readers, driver_of
from arcuate.record.feed import News
from arcuate.record.indexing import Indexer
from arcuate.record.paging import Pages
from arcuate.record.policy import LOADERS, READERS, WRITERS
from arcuate.record.query import Reader
from arcuate.record.service import Record
from arcuate.record.settings import RecordSettings
from arcuate.record.subscriptions import wishes
from arcuate.record.subscriptions.notifier import Notifier, gate_client
from arcuate.record.subscriptions.routes import add_subscription_routes
from arcuate.record.validation import add_validate_routes
from arcuate.record.writing import Writes


async def open_room(context: RoomContext, settings: RecordSettings | None = None) -> Room:
    """Build the room; the audit trail is a database of its own beside the room's."""
    settings = settings or RecordSettings()
    context.database.migrate(package)
    trail = Trail(_audit_database(context))
    trail.database.migrate(audit)
    key = await context.database.write(
        lambda session: store.secret(driver_of(session.connection()), "pages", Fernet.generate_key().decode())
    )
    record = _record(context, settings, trail, Pages(key, context.clock, settings.page_valid_s))

    def ready() -> str | None:
        return trail.fault

    base = (settings.base_url or HOUSE_BASE).rstrip("/")
    notifier = Notifier(record, gate_client(OutboundGate(settings.hosts)), base, settings.tokens)
    app = create_app(context, "Arcuate record", ready)
    app.state.record = record
    app.state.notifier = notifier
    _add_system_routes(app, context, record)
    exports = Exports(record)
    add_export_routes(app, exports)
    add_audit_routes(app, trail, settings, record.indexer.zone)
    add_validate_routes(app, record)
    add_subscription_routes(app, record)
    bookings = Bookings(record, record.indexer.zone)
    add_booking_routes(app, bookings)
    app.state.bookings = bookings
    _add_quick_routes(app, record)
    _add_read_routes(app, record)
    _add_write_routes(app, record)
    seen = app.openapi
    app.openapi = lambda: openapi.described(seen(), record.parameters.types)  # type: ignore[method-assign]

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        try:
            async with notifier.run(context.loops) if settings.notify else contextlib.nullcontext(), bookings.run():
                yield
        finally:
            record.news.close()
            await exports.close()
            await record.writes.settle()
            await trail.settle()
            record.readers.close()
            trail.database.close()

    return Room("record", ("/fhir",), app, run, ready)


def _audit_database(context: RoomContext) -> Database:
    if context.database.is_sqlite:
        return Database(f"sqlite:///{context.data_dir / 'audit.db'}")
    return Database(context.database.url, schema=f"{context.database.schema or 'record'}_audit")


def _record(context: RoomContext, settings: RecordSettings, trail: Trail, pages: Pages) -> Record:
    zone = context.site.zone if context.site.time_zone else ZoneInfo("UTC")
    loaded = parameters.load()
    bases = tuple(base.rstrip("/") for base in (HOUSE_BASE, settings.base_url) if base)
    poll_s = None if context.database.is_sqlite else settings.poll_s
    reader = Reader(loaded, zone)

    def subscription(resource: Json, where: str) -> None:
        wishes.judge(resource, reader, settings.hosts, where)

    return Record(
        context.database, Readers(context.database), Writes(context.database), context.clock, settings, loaded,
        Indexer(loaded, zone, bases), reader, trail, News(context.clock, poll_s), {"Subscription": subscription},
        pages,
    )  # fmt: skip


def _add_system_routes(app: FastAPI, context: RoomContext, record: Record) -> None:
    started = context.clock.now()

    @app.get("/fhir/metadata", dependencies=[open_to_all])
    async def metadata(request: Request) -> Response:
        base = door.base_of(request, record.settings)
        return fhir_response(
            capability.capability_statement(record.parameters, _doors(app), base, context.site.site_name, started)
        )

    @app.get("/fhir/_history", dependencies=[allow(*READERS)])
    async def history(request: Request) -> Response:
        return await door.system_history(record, request)

    @app.get("/fhir", dependencies=[allow(*READERS)])
    async def search_system(request: Request) -> Response:
        return await door.search_system(record, request)

    @app.post("/fhir/_search", dependencies=[allow(*READERS)])
    async def search_system_by_post(request: Request) -> Response:
        return await door.search_system(record, request, await door.form_pairs(request))


def _add_quick_routes(app: RoomApp, record: Record) -> None:
    """Add what is asked most: reads by id, searches of a type, creates, Bundles."""

    async def read(request: Request, resource_type: str, logical_id: str) -> Response:
        kind = door.known(record, resource_type)
        found = await service.read(record, principal_of(request), kind, door.logical(logical_id))
        return door.version_response(found, request)

    async def search(request: Request, resource_type: str) -> Response:
        return await door.search(record, request, door.known(record, resource_type))

    async def create(request: Request, resource_type: str) -> Response:
        condition = header(request, b"if-none-exist")
        return await door.change(record, request, await door.wish(record, request, resource_type, condition=condition))

    async def bundle(request: Request) -> Response:
        body = await door.bundle_body(request)
        base = door.base_of(request, record.settings)
        if body["type"] == "transaction":
            return FhirText(await service.transaction(record, principal_of(request), body, base))
        return FhirText(await batches.batch(record, principal_of(request), body, base))

    # Names of our own (metadata, AuditEvent) and those that begin with _ or $ have routes of their own.
    kind, one = r"/fhir/(?!AuditEvent\Z|metadata\Z|[_$])([^/]+)", r"/fhir/(?!AuditEvent/|[_$])([^/]+)/(?![_$])([^/]+)"
    app.add_quick(QuickRoute("GET", "/fhir/{resource_type}/{logical_id}", one, Allow(*READERS), read))
    app.add_quick(QuickRoute("GET", "/fhir/{resource_type}", kind, Allow(*READERS), search))
    app.add_quick(QuickRoute("POST", "/fhir/{resource_type}", r"/fhir/(?![_$])([^/]+)", Allow(*WRITERS), create))
    app.add_quick(QuickRoute("POST", "/fhir", "/fhir", Allow(*LOADERS), bundle))
    app.add_quick(QuickRoute("POST", "/fhir/", "/fhir/", Allow(*LOADERS), bundle))


def _doors(app: FastAPI) -> capability.Doors:
    return frozenset(
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute | QuickRoute)
        for method in route.methods or ()
    )


def _add_read_routes(app: FastAPI, record: Record) -> None:
    @app.post("/fhir/{resource_type}/_search", dependencies=[allow(*READERS)])
    async def search_by_post(resource_type: str, request: Request) -> Response:
        return await door.search(record, request, door.known(record, resource_type), await door.form_pairs(request))

    @app.get("/fhir/{resource_type}/_history", dependencies=[allow(*READERS)])
    async def type_history(resource_type: str, request: Request) -> Response:
        return await door.history(record, request, door.known(record, resource_type), None)

    @app.get("/fhir/{resource_type}/{logical_id}/_history", dependencies=[allow(*READERS)])
    async def instance_history(resource_type: str, logical_id: str, request: Request) -> Response:
        return await door.history(record, request, door.known(record, resource_type), door.logical(logical_id))

    @app.get("/fhir/{resource_type}/{logical_id}/_history/{version}", dependencies=[allow(*READERS)])
    async def vread(resource_type: str, logical_id: str, version: str, request: Request) -> Response:
        number = int(version) if version.isdecimal() and len(version) < 10 else 0
        kind = door.known(record, resource_type)
        return door.version_response(
            await service.vread(record, principal_of(request), kind, door.logical(logical_id), number), request
        )


def _add_write_routes(app: FastAPI, record: Record) -> None:
    @app.put("/fhir/{resource_type}", dependencies=[allow(*WRITERS)])
    async def conditional_update(resource_type: str, request: Request) -> Response:
        return await door.change(
            record, request, await door.wish(record, request, resource_type, condition=request.url.query)
        )

    @app.put("/fhir/{resource_type}/{logical_id}", dependencies=[allow(*WRITERS)])
    async def update(resource_type: str, logical_id: str, request: Request) -> Response:
        return await door.change(
            record, request, await door.wish(record, request, resource_type, logical_id=logical_id)
        )

    @app.patch("/fhir/{resource_type}", dependencies=[allow(*WRITERS)])
    async def conditional_patch(resource_type: str, request: Request) -> Response:
        return await door.change(
            record, request, await door.patch_of(record, request, resource_type, condition=request.url.query)
        )

    @app.patch("/fhir/{resource_type}/{logical_id}", dependencies=[allow(*WRITERS)])
    async def patch(resource_type: str, logical_id: str, request: Request) -> Response:
        return await door.change(
            record, request, await door.patch_of(record, request, resource_type, logical_id=logical_id)
        )

    @app.delete("/fhir/{resource_type}", dependencies=[allow(*LOADERS)])
    async def conditional_delete(resource_type: str, request: Request) -> Response:
        return await door.change(record, request, door.deletion(record, request, resource_type))

    @app.delete("/fhir/{resource_type}/{logical_id}", dependencies=[allow(*LOADERS)])
    async def delete(resource_type: str, logical_id: str, request: Request) -> Response:
        with contextlib.suppress(Gone):  # deleted before: it is as the caller wants it
            return await door.change(record, request, door.deletion(record, request, resource_type, logical_id))
        return Response(status_code=204)
