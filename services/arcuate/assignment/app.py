"""The web door of the assignment room."""

import asyncio
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate import assignment as package
from arcuate.assignment import service, store
from arcuate.assignment.cases import load_fields
from arcuate.assignment.service import Planner, Row
from arcuate.assignment.settings import AssignmentSettings
from arcuate.kernel.auth import Role
from arcuate.kernel.codes import CS_TASK, Json
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import Logger, get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, fhir_response, read_json

_READERS = (Role.RADIOLOGIST, Role.LEAD)
_OPEN_STATUS = "requested,received,ready,accepted,in-progress,on-hold"


@dataclass(frozen=True)
class _Desk:
    """What the routes work with."""

    context: RoomContext
    settings: AssignmentSettings
    planner: Planner
    fhir: FhirClient
    log: Logger
    turn: asyncio.Lock


async def open_room(context: RoomContext, settings: AssignmentSettings | None = None) -> Room:
    """Build the room."""
    context.database.migrate(package)
    settings = settings or AssignmentSettings()
    planner = Planner(
        load_fields(), settings.weights(), settings.limits(), timedelta(hours=settings.horizon_h), settings.limit_s, settings.gap,
        context.site.zone, time.monotonic,
    )  # fmt: skip
    desk = _Desk(context, settings, planner, FhirClient(context.http), get_logger("assignment"), asyncio.Lock())
    app = create_app(context, "Arcuate assignment")
    _add_operation(app, desk)
    _add_lists(app, desk)
    return Room("assignment", ("/assignment",), app)


def _add_operation(app: FastAPI, desk: _Desk) -> None:
    @app.post("/assignment/Task/$assign", dependencies=[allow()])
    async def assign(request: Request) -> Response:
        bundle = bundles.require_bundle(await read_json(request), "collection", "batch", "transaction", "searchset")
        return fhir_response(bundles.collection(await _assign(desk, bundle)))


async def _assign(desk: _Desk, bundle: Json) -> list[Json]:
    now = desk.context.clock.now()
    resources = list(bundles.resources(bundle))
    database = desk.context.database
    # One plan at a time: two plans over the same readers would each see the other's cases as nobody's.
    async with desk.turn:
        since = now - timedelta(days=desk.settings.turn_days)
        carried = await database.read(lambda session: store.carried(session, since))
        made = await asyncio.to_thread(service.assign, resources, desk.planner, now, carried)
        await database.write(lambda session: store.record(session, made.decisions, made.plan, now))
    desk.log.info(
        "cases planned", cases=len(made.decisions), changed=len(made.tasks), method=made.plan.method, points=made.plan.points,
        bound=made.plan.bound, waiting=sum(d.reader is None for d in made.decisions),
    )  # fmt: skip
    return made.tasks


def _add_lists(app: FastAPI, desk: _Desk) -> None:
    @app.get("/assignment/worklists/shared", dependencies=[allow(*_READERS)])
    async def shared() -> Json:
        return await _list(desk, {"owner:missing": "true"}, None)

    @app.get("/assignment/worklists/{practitioner}", dependencies=[allow(*_READERS)])
    async def worklist(practitioner: str) -> Json:
        return await _list(desk, {"owner": f"Practitioner/{practitioner}"}, practitioner)

    @app.get("/assignment/receipts/{task}", dependencies=[allow(*_READERS, Role.QUALITY)])
    async def receipts(task: str) -> Json:
        found = await desk.context.database.read(lambda session: store.receipts(session, task))
        return {
            "task": task,
            "receipts": [
                {
                    "made_at": row.made_at.isoformat(), "reader": row.reader, "method": row.method, "points": row.points,
                    "bound": row.bound, "lines": [asdict(line) for line in lines],
                }
                for row, lines in found
            ],
        }  # fmt: skip


async def _list(desk: _Desk, query: dict[str, str], practitioner: str | None) -> Json:
    now = desk.context.clock.now()
    found = await desk.fhir.search(
        "Task", {"code": f"{CS_TASK}|read", "status": _OPEN_STATUS, "_include": "Task:focus", **query}
    )
    tasks = [r for r in found if r.get("resourceType") == "Task" and (practitioner is not None or not r.get("owner"))]
    orders = [r for r in found if r.get("resourceType") == "ServiceRequest"]
    rows = service.worklist(tasks, orders, desk.planner, now)
    return {
        "practitioner": practitioner, "as_of": now.isoformat(), "cases": [_row(row) for row in rows],
        "total": len(rows), "minutes": sum(row.minutes for row in rows),
    }  # fmt: skip


def _row(row: Row) -> Json:
    return {**asdict(row), "receipt": [asdict(line) for line in row.receipt]}
