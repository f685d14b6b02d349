"""The web door of the journey room: the accession ledger, the reconciler, the release of what is held."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate import journey as package
from arcuate.journey import service, store
from arcuate.journey.service import FEED_TYPES, Journey
from arcuate.journey.settings import JourneySettings
from arcuate.journey.table import load_table
from arcuate.journey.tables import WORK, CaseRow, StepRow
from arcuate.kernel.auth import Role
from arcuate.kernel.auth.roles import CLINICAL
from arcuate.kernel.errors import ArcuateError, NotFound
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import FeedReader
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, principal_of, read_json
from arcuate.kernel.work import Worker

_READERS = (*CLINICAL, Role.INTEGRATION, Role.QUALITY, Role.ADMIN)
_RELEASERS = (Role.SCHEDULER, Role.LEAD, Role.RADIOLOGIST, Role.INTEGRATION, Role.ADMIN)
_LISTED = 500


async def open_room(context: RoomContext, settings: JourneySettings | None = None) -> Room:
    """Build the room."""
    context.database.migrate(package)
    journey = Journey(
        context.database,
        FhirClient(context.http),
        context.http,
        context.clock,
        settings or JourneySettings(),
        load_table(),
        get_logger("journey"),
    )
    worker = Worker(
        context.database, WORK, context.clock,
        {store.ADVANCE: lambda job: service.advance(journey, job), store.TIMER: lambda job: service.timer(journey, job)},
        lease_s=120, tries=8, parallel=6, name="journey",
    )  # fmt: skip
    app = create_app(context, "Arcuate journey")
    app.state.journey, app.state.worker = journey, worker
    _add_ledger(app, journey)
    _add_release(app, journey, worker)
    return Room("journey", ("/journey",), app, lambda: _run(journey, worker))


@contextlib.asynccontextmanager
async def _run(journey: Journey, worker: Worker) -> AsyncIterator[None]:
    async with worker.run():
        watch = asyncio.create_task(_watch(journey, worker))
        try:
            yield
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch


async def _watch(journey: Journey, worker: Worker) -> None:
    """Follow the record's feed for ever; a change that cannot be taken now is read again."""
    while True:
        try:
            async for change in feed_of(journey):
                await service.take_change(journey, change)
                worker.wake()
        except ArcuateError as error:
            journey.log.warning("feed interrupted", reason=error.what)
        await journey.clock.sleep(1)


def feed_of(journey: Journey) -> FeedReader:
    """Return the reader of the feed, with the cursor kept in this room's database."""

    async def load() -> int | None:
        return await journey.database.read(store.cursor)

    async def save(seq: int) -> None:
        await journey.database.write(lambda s: store.save_cursor(s, seq))

    return FeedReader(journey.fhir, load, save, types=FEED_TYPES, clock=journey.clock)


def _add_ledger(app: FastAPI, journey: Journey) -> None:
    @app.get("/journey/cases", dependencies=[allow(*_READERS)])
    async def cases(stage: str | None = None, limit: int = _LISTED) -> dict[str, Any]:
        rows = await journey.database.read(lambda s: store.cases(s, min(limit, _LISTED), stage=stage))
        steps = await journey.database.read(lambda s: store.steps(s, [row.id for row in rows]))
        return {"as_of": journey.clock.now().isoformat(), "cases": [_case_json(row, steps[row.id]) for row in rows]}

    @app.get("/journey/cases/{case_id}", dependencies=[allow(*_READERS)])
    async def case(case_id: str) -> dict[str, Any]:
        row = await journey.database.read(lambda s: store.get_case(s, case_id))
        if row is None:
            raise NotFound("There is no such case", where=f"case {case_id}")
        steps = await journey.database.read(lambda s: store.steps(s, [case_id]))
        return _case_json(row, steps[case_id])

    @app.get("/journey/stuck", dependencies=[allow(*_READERS)])
    async def stuck() -> dict[str, Any]:
        before = journey.clock.now() - timedelta(seconds=journey.settings.stuck_after_s)
        rows = await journey.database.read(lambda s: store.stuck(s, before))
        return {"as_of": journey.clock.now().isoformat(), "cases": [_case_json(row, []) for row in rows]}

    @app.get("/journey/stages", dependencies=[allow(*_READERS)])
    async def stages() -> list[dict[str, str]]:
        return [{"name": stage.name, "waits_for": stage.waits_for} for stage in journey.table.stages]


def _add_release(app: FastAPI, journey: Journey, worker: Worker) -> None:
    @app.post("/journey/cases/{case_id}/release", dependencies=[allow(*_RELEASERS)])
    async def release(case_id: str, request: Request) -> Response:
        principal = principal_of(request)
        body = await read_json(request)
        await service.release(journey, case_id, principal.name or principal.subject, str(body.get("reason") or ""))
        worker.wake()
        return Response(status_code=204)


def _case_json(row: CaseRow, steps: list[StepRow]) -> dict[str, Any]:
    return {
        "id": row.id,
        "accession": row.accession,
        "order": f"ServiceRequest/{row.order_id}" if row.order_id else None,
        "patient": f"Patient/{row.patient_id}" if row.patient_id else None,
        "stage": row.stage,
        "since": row.since.isoformat(),
        "waits_for": row.waits_for,
        "held": row.held,
        "steps": [
            {"stage": s.stage, "kind": s.kind, "at": s.at.isoformat(), "note": s.note, "source": s.source}
            for s in steps
        ],
    }
