"""The web door of the journey room: the accession ledger, the reconciler, alerts, the decisions about what is held."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import Gauge
from starlette.responses import Response

from arcuate import journey as package
from arcuate.journey import alerts, reconciler, service, store
from arcuate.journey.domain import Answered
from arcuate.journey.room import Journey
from arcuate.journey.service import FEED, FEED_TYPES
from arcuate.journey.settings import JourneySettings
from arcuate.journey.table import load_table
from arcuate.journey.tables import WORK, CaseRow, StepRow
from arcuate.journey.turns import Turns
from arcuate.kernel.auth import Role
from arcuate.kernel.auth.roles import CLINICAL
from arcuate.kernel.background import Loops
from arcuate.kernel.errors import ArcuateError, NotFound
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import FeedReader
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, principal_of, read_json
from arcuate.kernel.work import Worker

_READERS = (*CLINICAL, Role.INTEGRATION, Role.QUALITY, Role.ADMIN)
_RELEASERS = (Role.SCHEDULER, Role.LEAD, Role.RADIOLOGIST, Role.INTEGRATION, Role.ADMIN)
_ENGINEERS = (Role.INTEGRATION, Role.QUALITY, Role.LEAD, Role.ADMIN)
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
        Turns(context.database, context.clock),
    )
    watched = alerts.load_watched()
    handlers = {
        store.ADVANCE: lambda job: service.advance(journey, job),
        store.TIMER: lambda job: service.timer(journey, job),
        store.WATCH: lambda job: alerts.watch(journey, watched, job),
    }
    worker = Worker(
        context.database, WORK, context.clock, handlers, lease_s=120, tries=8, parallel=6, name="journey",
        loops=context.loops,
    )  # fmt: skip
    app = create_app(context, "Arcuate journey")
    app.state.journey, app.state.worker = journey, worker
    _add_ledger(app, journey)
    _add_reconciler(app, journey, watched)
    _add_decisions(app, journey, worker)
    alerts_open = Gauge("arcuate_alerts_open", "Rooms and connections that do not work.", registry=app.state.metrics)
    alerts_open.set_function(lambda: len(context.database.read_sync(alerts.listed)[0]))
    return Room("journey", ("/journey",), app, lambda: _run(journey, worker, context.loops))


@contextlib.asynccontextmanager
async def _run(journey: Journey, worker: Worker, loops: Loops) -> AsyncIterator[None]:
    now = journey.clock.now()
    await journey.database.write(lambda s: alerts.begin(s, now))
    async with worker.run():
        try:
            async with loops.run("feed", lambda: _follow(journey, worker)):
                yield
        finally:
            with contextlib.suppress(ArcuateError):
                await journey.turns.end(FEED)


async def _follow(journey: Journey, worker: Worker) -> None:
    """Follow the record's feed for ever, one replica at a time; a change that cannot be taken now is read again."""
    while True:
        try:
            if await journey.turns.take(FEED):
                async with journey.turns.kept(FEED):
                    async for changes, reached in feed_of(journey).pages():
                        await service.take_changes(journey, changes, reached)
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
    def described(row: CaseRow, steps: list[StepRow], now: datetime) -> dict[str, Any]:
        return _case_json(journey, row, steps, now)

    @app.get("/journey/cases", dependencies=[allow(*_READERS)])
    async def cases(stage: str | None = None, limit: int = _LISTED) -> dict[str, Any]:
        rows = await journey.database.read(lambda s: store.cases(s, max(0, min(limit, _LISTED)), stage=stage))
        steps = await journey.database.read(lambda s: store.steps(s, [row.id for row in rows]))
        now = journey.clock.now()
        return {"as_of": now.isoformat(), "cases": [described(row, steps[row.id], now) for row in rows]}

    @app.get("/journey/cases/{case_id}", dependencies=[allow(*_READERS)])
    async def case(case_id: str) -> dict[str, Any]:
        row = await journey.database.read(lambda s: store.get_case(s, case_id))
        if row is None:
            raise NotFound("There is no such case", where=f"case {case_id}")
        steps = await journey.database.read(lambda s: store.steps(s, [case_id]))
        about = await reconciler.parked_about(journey.http, row.accession)
        return described(row, steps[case_id], journey.clock.now()) | {"about": about}

    @app.get("/journey/stages", dependencies=[allow(*_READERS)])
    async def stages() -> list[dict[str, str]]:
        return [{"name": stage.name, "waits_for": stage.waits_for} for stage in journey.table.stages]


def _add_reconciler(app: FastAPI, journey: Journey, watched: tuple[alerts.Watched, ...]) -> None:
    @app.get("/journey/stuck", dependencies=[allow(*_READERS)])
    async def stuck() -> dict[str, Any]:
        now = journey.clock.now()
        rows, _ = await journey.database.read(lambda s: store.overdue(s, now, _LISTED))
        return {
            "as_of": now.isoformat(),
            "cases": [_case_json(journey, row, [], now) for row in rows if not row.held],
        }

    @app.get("/journey/reconciler", dependencies=[allow(*_ENGINEERS)])
    async def lists() -> dict[str, Any]:
        return await reconciler.reconcile(journey)

    @app.get("/journey/alerts", dependencies=[allow(*_ENGINEERS)])
    async def alerted() -> dict[str, Any]:
        open_ones, recovered = await journey.database.read(alerts.listed)
        return {
            "as_of": journey.clock.now().isoformat(),
            "open": [alerts.alert_json(row, watched) for row in open_ones],
            "recovered": [alerts.alert_json(row, watched) for row in recovered],
        }


def _add_decisions(app: FastAPI, journey: Journey, worker: Worker) -> None:
    @app.post("/journey/cases/{case_id}/release", dependencies=[allow(*_RELEASERS)])
    async def release(case_id: str, request: Request) -> Response:
        await service.release(journey, case_id, _who(request), await _reason(request))
        worker.wake()
        return Response(status_code=204)

    @app.post("/journey/cases/{case_id}/keep-out", dependencies=[allow(*_RELEASERS)])
    async def keep_out(case_id: str, request: Request) -> Response:
        await service.keep_out(journey, case_id, _who(request), await _reason(request))
        worker.wake()
        return Response(status_code=204)

    @app.post("/journey/cases/{case_id}/again", dependencies=[allow(*_RELEASERS)])
    async def again(case_id: str) -> Response:
        await service.look_again(journey, case_id)
        worker.wake()
        return Response(status_code=204)


def _who(request: Request) -> str:
    principal = principal_of(request)
    return principal.name or principal.subject


async def _reason(request: Request) -> str:
    return str((await read_json(request)).get("reason") or "")


def _case_json(journey: Journey, row: CaseRow, steps: list[StepRow], now: datetime) -> dict[str, Any]:
    late = bool(row.held) or (row.due is not None and row.due < now)
    return {
        "id": row.id,
        "accession": row.accession,
        "order": f"ServiceRequest/{row.order_id}" if row.order_id else None,
        "patient": f"Patient/{row.patient_id}" if row.patient_id else None,
        "stage": row.stage,
        "since": row.since.isoformat(),
        "waits_for": row.waits_for,
        "due": row.due.isoformat() if row.due else None,
        "late": late,
        "why_late": reconciler.why_listed(journey.table, row)[1] if late else "",
        "silent": _silent(journey, store.answers(row)),
        "held": row.held,
        "steps": [
            {"stage": s.stage, "kind": s.kind, "at": s.at.isoformat(), "note": s.note, "source": s.source}
            for s in steps
        ],
    }


def _silent(journey: Journey, answers: dict[str, Answered]) -> list[dict[str, str]]:
    """Return the questions that a room has not answered, and since when."""
    found = []
    for ask in journey.table.asks:
        asked, answered = answers.get(f"asked:{ask.name}"), answers.get(ask.name)
        open_still = (
            answered is None or answered.given_up or (asked is not None and answered.fingerprint != asked.fingerprint)
        )
        if asked is not None and asked.given_up and open_still:
            found.append({"ask": ask.name, "since": asked.at.isoformat(), "meanwhile": ask.silent})
    return found
