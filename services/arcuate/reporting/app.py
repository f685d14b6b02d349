"""The web door of the reporting room."""

import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from arcuate import reporting as package
from arcuate.kernel.auth.roles import Role
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, fhir_response, read_json
from arcuate.reporting import service
from arcuate.reporting.passport import load_cards
from arcuate.reporting.service import Reporting
from arcuate.reporting.settings import ReportingSettings
from arcuate.reporting.templates import Shelf, load_templates


async def open_room(context: RoomContext, settings: ReportingSettings | None = None) -> Room:
    """Build the room with the templates and model cards of the house."""
    context.database.migrate(package)
    shelf = load_templates(context.templates_dir)
    for fault in shelf.faults:
        get_logger("reporting").error("template_left_out", fault=fault)
    room = Reporting(
        context.database,
        context.clock,
        context.site,
        settings or ReportingSettings(),
        shelf.templates,
        load_cards(context.models_dir),
    )

    def ready() -> str | None:
        return None if shelf.templates else f"No report template can be used in {context.templates_dir}"

    app = create_app(context, "Arcuate reporting", ready)
    app.state.reporting = room
    _add_routes(app, room, shelf)

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        await service.tidy(room)
        yield

    return Room("reporting", ("/reporting", "/mrrt"), app, run, ready)


def _add_routes(app: FastAPI, room: Reporting, shelf: Shelf) -> None:
    @app.post("/reporting/DiagnosticReport/$draft", dependencies=[allow(Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION)])
    async def draft(request: Request) -> Response:
        return fhir_response(await service.draft(room, await read_json(request)))

    @app.get(
        "/reporting/templates",
        dependencies=[allow(Role.RADIOLOGIST, Role.LEAD, Role.QUALITY, Role.INTEGRATION, Role.ADMIN)],
    )
    async def templates() -> Response:
        listed = [
            {
                "name": t.name,
                "title": t.title,
                "version": t.version,
                "sections": list(t.sections),
                "fields": [f.key for f in t.fields],
                "faults": {**t.body.faults, **({"body": t.body.broken} if t.body.broken else {})},
            }
            for t in shelf.templates
        ]
        return JSONResponse({"templates": listed, "left_out": list(shelf.faults)})
