"""Bulk Data export over HTTP: the asynchronous pattern (202, Content-Location, manifest) and the files."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from fastapi import FastAPI, Request
from sqlmodel import Session
from starlette.responses import JSONResponse, Response, StreamingResponse

from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import BadInput, Json, NotFound
from arcuate.kernel.fhir import strict
from arcuate.kernel.web import allow, principal_of
from arcuate.record import http as door
from arcuate.record import service, store
from arcuate.record.bulk import snapshot
from arcuate.record.bulk.snapshot import Export, Line
from arcuate.record.conditions import Conditions
from arcuate.record.domain import instant
from arcuate.record.driver import driver_of
from arcuate.record.indexing import datetime_of, interval_of, micros_of
from arcuate.record.policy import LOADERS
from arcuate.record.service import Record

NDJSON = "application/fhir+ndjson"

_FORMATS = frozenset({NDJSON, "application/ndjson", "ndjson"})
_KNOWN = frozenset({"_type", "_since", "_outputFormat"})
_PAGE = 500


@dataclass
class Exports:
    """The exports of a record; counting runs in the background and is begun again by whoever asks after a restart."""

    record: Record
    counting: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def kept_since(self) -> int:
        """Return the oldest instant whose exports are still kept."""
        valid = timedelta(seconds=self.record.settings.export_valid_s)
        return micros_of(self.record.clock.now() - valid)

    async def begin(self, asked: Export) -> Export:
        """Keep a new export and begin to count."""

        def write(session: Session) -> Export:
            connection = session.connection()
            store.lock(driver_of(connection))  # the instant and the feed number belong together
            return snapshot.begin(connection, asked, self.record.clock.now(), self.kept_since())

        made = await self.record.database.write(write)
        self._count(made)
        return made

    async def load(self, export_id: str, principal: Principal) -> Export:
        """Return an export of this caller."""
        return await self.record.database.read(
            lambda session: snapshot.load(session.connection(), export_id, _owner(principal), self.kept_since())
        )

    async def ready(self, export_id: str, principal: Principal) -> Export | None:
        """Return an export once it is ready."""
        export = await self.load(export_id, principal)
        if export.counts is not None:
            return export
        self._count(export)
        return None

    async def forget(self, export: Export) -> None:
        """Forget an export."""
        await self.record.database.write(lambda session: snapshot.forget(session.connection(), export.id))

    async def lines(self, export: Export, resource_type: str) -> AsyncIterator[bytes]:
        """Yield the lines of a type."""
        after = 0
        while True:
            found = await self.record.database.read(partial(_page, export=export, kind=resource_type, after=after))
            if found:
                yield b"".join(line.body.encode() + b"\n" for line in found)
                after = found[-1].seq
            if len(found) < _PAGE:
                return

    async def close(self) -> None:
        """Stop counting."""
        tasks = list(self.counting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _count(self, export: Export) -> None:
        if export.id in self.counting:
            return
        task = asyncio.get_running_loop().create_task(self._counted(export))
        self.counting[export.id] = task
        task.add_done_callback(lambda _: self.counting.pop(export.id, None))

    async def _counted(self, export: Export) -> None:
        counts = await self.record.database.read(lambda session: snapshot.count(session.connection(), export))
        await self.record.database.write(lambda session: snapshot.keep_counts(session.connection(), export, counts))


def _page(session: Session, *, export: Export, kind: str, after: int) -> list[Line]:
    return snapshot.lines(session.connection(), export, kind, after, _PAGE)


def add_export_routes(app: FastAPI, exports: Exports) -> None:
    """Add the routes of the export."""
    record = exports.record

    @app.get("/fhir/$export", dependencies=[allow(*LOADERS)])
    async def everything(request: Request) -> Response:
        return await _begin(exports, request, None)

    @app.get("/fhir/Patient/$export", dependencies=[allow(*LOADERS)])
    async def patients(request: Request) -> Response:
        return await _begin(exports, request, ())

    @app.get("/fhir/Group/{logical_id}/$export", dependencies=[allow(*LOADERS)])
    async def group(logical_id: str, request: Request) -> Response:
        found = await service.read(record, principal_of(request), "Group", door.logical(logical_id))
        members = await record.database.read(lambda session: _members(session, record, found.body or ""))
        return await _begin(exports, request, members)

    @app.get("/fhir/$export-status/{export_id}", dependencies=[allow(*LOADERS)])
    async def status(export_id: str, request: Request) -> Response:
        export = await exports.ready(export_id, principal_of(request))
        if export is None:
            return Response(status_code=202, headers={"X-Progress": "counting", "Retry-After": "1"})
        ends = datetime_of(export.at) + timedelta(seconds=record.settings.export_valid_s)
        base = door.base_of(request, record.settings)
        return JSONResponse(_manifest(export, base), headers={"Expires": ends.strftime("%a, %d %b %Y %H:%M:%S GMT")})

    @app.delete("/fhir/$export-status/{export_id}", dependencies=[allow(*LOADERS)])
    async def forget(export_id: str, request: Request) -> Response:
        await exports.forget(await exports.load(export_id, principal_of(request)))
        return Response(status_code=202)

    @app.get("/fhir/$export-file/{export_id}/{name}", dependencies=[allow(*LOADERS)])
    async def file(export_id: str, name: str, request: Request) -> Response:
        principal = principal_of(request)
        export = await exports.load(export_id, principal)
        resource_type = name.removesuffix(".ndjson")
        if resource_type not in export.types or not name.endswith(".ndjson"):
            raise NotFound("The export has no such file")
        await service.noted(record, principal, "operation", [], f"$export of {resource_type}", written=True)
        return StreamingResponse(exports.lines(export, resource_type), media_type=NDJSON)


async def _begin(exports: Exports, request: Request, patients: tuple[str, ...] | None) -> Response:
    record, query, principal = exports.record, request.query_params, principal_of(request)
    if "respond-async" not in request.headers.get("prefer", "").replace(" ", ""):
        raise BadInput("An export is asked for with the header Prefer: respond-async", where="Prefer", code="required")
    if query.get("_outputFormat", NDJSON) not in _FORMATS:
        raise BadInput("An export is NDJSON", where="_outputFormat", todo=f"Send {NDJSON}.", code="not-supported")
    for name in query:
        if name not in _KNOWN:
            raise BadInput(f"The export does not know '{name[:40]}'", where="the address", code="not-supported")
    types = _types(record, query.get("_type"), of_patients=patients is not None)
    since = interval_of(query["_since"].replace(" ", "+"), record.indexer.zone) if "_since" in query else None
    if "_since" in query and since is None:
        raise BadInput("This is no instant", where="_since", code="value")
    asked = Export(
        str(uuid.uuid4()), str(request.url), 0, 0, types, since[0] if since else None, patients, _owner(principal)
    )
    await service.noted(record, principal, "operation", [], "$export begins", written=True)
    made = await exports.begin(asked)
    place = f"{door.base_of(request, record.settings)}/$export-status/{made.id}"
    return Response(status_code=202, headers={"Content-Location": place})


def _types(record: Record, text: str | None, *, of_patients: bool) -> tuple[str, ...]:
    known = record.parameters.types
    if of_patients:
        known = tuple(
            name for name in known if name == "Patient" or record.parameters.find(name, "patient") is not None
        )
    if not text:
        return known
    asked = tuple(dict.fromkeys(text.split(",")))
    if wrong := [name for name in asked if name not in known]:
        raise BadInput(f"The export has no {wrong[0][:40]}", where="_type", code="not-supported")
    return asked


def _members(session: Session, record: Record, body: str) -> tuple[str, ...]:
    group = strict.loads(body.encode(), strict.HOUSE)
    named = [
        record.indexer.target(member["entity"])
        for member in group.get("member") or []
        if member.get("inactive") is not True
    ]
    family = Conditions(driver_of(session.connection()), record.indexer).family(
        name for kind, name in named if kind == "Patient"
    )
    return tuple(sorted(family)) or ("",)  # nobody is not everybody


def _manifest(export: Export, base: str) -> Json:
    counts = export.counts or {}
    return {
        "transactionTime": instant(datetime_of(export.at)),
        "request": export.url,
        "requiresAccessToken": True,
        "output": [
            {"type": kind, "url": f"{base}/$export-file/{export.id}/{kind}.ndjson", "count": counts[kind]}
            for kind in sorted(counts)
        ],
        "error": [],
    }


def _owner(principal: Principal) -> str:
    return f"{principal.client}|{principal.subject}"
