"""The web door of the dashboard: pages for people, their parts, and the event stream."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

from fastapi import Depends, FastAPI, Request
from starlette.responses import FileResponse, Response, StreamingResponse

from arcuate import dashboard as package
from arcuate.dashboard import problems
from arcuate.dashboard.desk import Desk, SignedInOnly
from arcuate.dashboard.news import News, Watch
from arcuate.dashboard.pages import (
    case,
    cases,
    connections,
    entry,
    errors,
    help,
    measurements,
    models,
    reading,
    reconciler,
    start,
    today,
)
from arcuate.dashboard.render import FOLDER, Renderer
from arcuate.dashboard.rooms import Silences
from arcuate.dashboard.sessions import Sessions
from arcuate.dashboard.settings import DashboardSettings
from arcuate.kernel.background import Loops
from arcuate.kernel.errors import NotFound
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import create_app, open_to_all

_KEPT = "public, max-age=31536000, immutable"
_LONGEST_QUERY = 2000


async def open_room(context: RoomContext, settings: DashboardSettings | None = None) -> Room:
    """Build the room; it follows the record's feed while it runs."""
    context.database.migrate(package)
    settings = settings or DashboardSettings()
    desk = Desk(
        context, settings,
        Sessions(context.http, context.database, context.clock, timedelta(minutes=settings.idle_min)),
        Renderer(context.site, settings),
        News(FhirClient(context.http), context.clock, settings.heartbeat_s, settings.settle_s, settings.again_s),
        Silences(context.clock),
    )  # fmt: skip
    app = create_app(context, "Arcuate dashboard")
    app.state.desk = desk
    guard = SignedInOnly(desk.sessions)
    for module in (today, help, reading, measurements, case, cases, connections, errors, reconciler, models, start):
        module.add_routes(app, desk, guard)
    entry.add_routes(app, desk, guard)
    _add_stream(app, desk, guard)
    _add_files(app)
    problems.add_pages(app, desk)
    return Room("dashboard", ("/",), app, lambda: _run(desk, context.loops))


@contextlib.asynccontextmanager
async def _run(desk: Desk, loops: Loops) -> AsyncIterator[None]:
    async with loops.run("feed", desk.news.follow):
        try:
            yield
        finally:
            desk.news.closed.set()


def _add_stream(app: FastAPI, desk: Desk, guard: SignedInOnly) -> None:
    @app.get("/events", dependencies=[Depends(guard)])
    async def events(request: Request) -> Response:
        watches = [Watch.read(text[:_LONGEST_QUERY]) for text in request.query_params.getlist("page")]
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(desk.news.stream(watches), media_type="text/event-stream", headers=headers)


def _add_files(app: FastAPI) -> None:
    folder = (FOLDER / "static").resolve()

    @app.get("/static/{mark}/{path:path}", dependencies=[open_to_all])
    async def static(mark: str, path: str) -> Response:
        file = (folder / path).resolve()
        if not mark or not file.is_relative_to(folder) or not file.is_file():
            raise NotFound("There is no such file")
        return FileResponse(file, headers={"Cache-Control": _KEPT})
