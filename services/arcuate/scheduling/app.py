"""The web door of the scheduling room."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate import scheduling as package
from arcuate.kernel.auth import Role
from arcuate.kernel.codes import Json
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, fhir_response, read_json
from arcuate.scheduling import answers, attendance, service, store, waiting
from arcuate.scheduling.domain import Forecast, Moment, rate_interval
from arcuate.scheduling.feed import Feed
from arcuate.scheduling.forecaster import Forecaster
from arcuate.scheduling.settings import SchedulingSettings

_DESK = (Role.SCHEDULER, Role.TECHNOLOGIST, Role.LEAD)
_KINDS = ("collection", "batch", "transaction", "searchset")


@dataclass
class Desk:
    """What the routes work with."""

    context: RoomContext
    settings: SchedulingSettings
    attendance: Forecaster
    waiting: Forecaster
    feed: Feed

    async def site_rate(self, moment: Moment, why: str) -> Forecast:
        """Return the site's own rate, or the general one until enough visits are known."""
        counts = await self.context.database.read(store.own_counts)
        known = {o: (n, e) for o, (n, e) in counts.items() if n >= self.settings.own_rate_visits}
        general = {"no-show": self.settings.no_show_rate, "late-cancel": self.settings.late_cancel_rate}
        rates = {o: known[o][1] / known[o][0] if o in known else general[o] for o in general}
        return attendance.site_rate(
            rates, why, self.attendance.model.name if self.attendance.model else None, counts=known
        )


async def open_room(context: RoomContext, settings: SchedulingSettings | None = None) -> Room:
    """Build the room; a missing model leaves it ready, with the site's rate as its answer."""
    context.database.migrate(package)
    settings = settings or SchedulingSettings()
    log = get_logger("scheduling")
    desk = Desk(
        context, settings,
        Forecaster.load("attendance", context.models_dir / "attendance", attendance.load, settings.limit_s, log),
        Forecaster.load("waiting", context.models_dir / "waiting", waiting.load, settings.limit_s, log),
        Feed(FhirClient(context.http), context.database, context.clock, log),
    )  # fmt: skip
    app = create_app(context, "Arcuate scheduling")
    app.state.desk = desk
    _add_operations(app, desk)
    _add_views(app, desk)

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        following = context.loops.run("feed", desk.feed.follow) if settings.feed else contextlib.nullcontext()
        async with following:
            try:
                yield
            finally:
                desk.attendance.close()
                desk.waiting.close()

    return Room("scheduling", ("/scheduling",), app, run)


def _add_operations(app: FastAPI, desk: Desk) -> None:
    context, database = desk.context, desk.context.database

    @app.post("/scheduling/Appointment/$predict-attendance", dependencies=[allow(*_DESK)])
    async def predict_attendance(request: Request) -> Response:
        bundle = bundles.require_bundle(await read_json(request), *_KINDS)
        moment = service.attendance_moment(bundle, context.clock.now(), context.site.zone)
        # The rates are read first: the fallback must answer at once, and some visits need it whatever the model says.
        rate = await desk.site_rate(moment, "")
        forecast = await desk.attendance.ask(moment, lambda _, why: _because(rate, why))
        if forecast.why_fallback and forecast.features is not None:
            forecast = _because(rate, forecast.why_fallback, forecast)
        await database.write(lambda session: store.keep(session, "attendance", moment, forecast))
        return fhir_response(bundles.collection([answers.risk_assessment(moment, forecast)]))

    @app.post("/scheduling/Appointment/$predict-wait", dependencies=[allow(*_DESK)])
    async def predict_wait(request: Request) -> Response:
        bundle = bundles.require_bundle(await read_json(request), *_KINDS)
        ids = service.appointment_ids(bundle)
        line = await database.read(lambda session: store.line_times(session, ids))
        moment = service.wait_moment(bundle, context.clock.now(), context.site.zone, line)
        forecast = await desk.waiting.ask(moment, waiting.booked_rate)
        await database.write(lambda session: store.keep(session, "wait", moment, forecast))
        return fhir_response(bundles.collection(answers.observations(moment, forecast)))


def _because(rate: Forecast, why: str, seen: Forecast | None = None) -> Forecast:
    """Return the site's rate with its reason; what the model saw is kept, so that drift can be found."""
    return Forecast(
        rate.confidence,
        rate.chances,
        rate.minutes,
        seen.missing if seen else (),
        why,
        rate.model,
        seen.features if seen else None,
    )


def _add_views(app: FastAPI, desk: Desk) -> None:
    context, database = desk.context, desk.context.database

    @app.get("/scheduling/status", dependencies=[allow(*_DESK, Role.QUALITY, Role.ADMIN)])
    async def status() -> Json:
        now = context.clock.now()
        kept = await database.read(lambda session: store.kept_so_far(session, now - timedelta(hours=24)))
        counts = await database.read(store.own_counts)
        return {
            "as_of": now.isoformat(),
            "models": {f.kind: _model(f, context.site.site_name) for f in (desk.attendance, desk.waiting)},
            "site_rates": answers.rate_lines(counts),
            "measured_here": {
                "visits": kept.count,
                "outcomes": {
                    outcome: {
                        "expected": round(kept.expected[outcome], 1), "seen": kept.seen[outcome],
                        "interval": [round(v, 3) for v in rate_interval(kept.seen[outcome], kept.count)],
                    }
                    for outcome in kept.expected
                } if kept.count >= 20 else "too few",
            },
        }  # fmt: skip

    @app.get("/scheduling/waiting", dependencies=[allow(*_DESK)])
    async def line() -> Json:
        now = context.clock.now()
        rows = await database.read(lambda session: store.waiting(session, now - timedelta(hours=12)))
        return {
            "as_of": now.isoformat(),
            "waiting": [
                {
                    "appointment": row.appointment_id, "place": row.place, "start": row.start.isoformat(),
                    "arrived_at": row.arrived_at.isoformat() if row.arrived_at else None,
                    "waited_min": round((now - row.arrived_at).total_seconds() / 60) if row.arrived_at else None,
                }
                for row in rows
            ],
        }  # fmt: skip


def _model(forecaster: Forecaster, site: str) -> Json:
    if forecaster.model is None:
        answering = "the site's rate" if forecaster.kind == "attendance" else "a general rule"
        return {
            "loaded": False, "reason": forecaster.absent, "trained_here": False,
            "warning": f"No {forecaster.kind} model: {answering} is shown.",
        }  # fmt: skip
    name = forecaster.model.name
    here = not name.synthetic and name.site == site
    warning = ""
    if name.synthetic:
        warning = "Trained on invented visits. Until this site has trained on its own, the figures show how it works, not what to expect."
    elif not here:
        warning = f"Trained on visits of {name.site}, not of this site."
    return {
        "loaded": True, "name": name.name, "version": name.version, "sha256": name.sha256, "data_until": name.data_until,
        "data_site": name.site, "synthetic": name.synthetic, "trained_here": here, "warning": warning, "trouble": forecaster.trouble,
    }  # fmt: skip
