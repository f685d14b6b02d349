"""The web door of the protocoling room: `$check`, CDS Hooks 2.0, the rules as people read them."""

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from arcuate import protocoling as package
from arcuate.kernel.auth.roles import CLINICAL, Role
from arcuate.kernel.errors import NotFound
from arcuate.kernel.fhir import strict
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, fhir_response, open_to_all, read_json
from arcuate.protocoling import service, store
from arcuate.protocoling.rulebook import Rulebook, load_rulebook
from arcuate.protocoling.service import Examine, Protocoling
from arcuate.protocoling.settings import ProtocolingSettings


async def open_room(
    context: RoomContext,
    settings: ProtocolingSettings | None = None,
    examine: Examine = service.examine,
    rulebook: Rulebook | None = None,
) -> Room:
    """Build the room.

    Args:
        examine: Examines one chart; only tests give another one.
        rulebook: Rules read before; the shipped ones are read when it is left out.

    Raises:
        BadInput: A rule or data file cannot be used; says which and why.
    """
    context.database.migrate(package)
    settings = settings or ProtocolingSettings()
    rulebook = rulebook or load_rulebook()
    pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="protocoling")
    protocoling = Protocoling(rulebook, context.clock, context.database, pool, settings, examine)
    changed = await context.database.write(
        lambda session: store.remember_rules(session, rulebook.rules, context.clock.now())
    )
    if changed:
        # Said, not refused: whoever corrects a sentence must not stop the house.
        get_logger("protocoling").warning("rule_changed_without_new_version", rules=changed)
    app = create_app(context, "Arcuate protocoling")
    app.state.protocoling = protocoling
    _add_check(app, protocoling)
    _add_hooks(app, protocoling)
    _add_rules(app, protocoling)

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        await service.tidy(protocoling)
        try:
            yield
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return Room("protocoling", ("/protocoling", "/cds-services"), app, run)


def _add_check(app: FastAPI, protocoling: Protocoling) -> None:
    @app.post("/protocoling/ServiceRequest/$check", dependencies=[allow(Role.INTEGRATION)])
    async def check(request: Request) -> Response:
        return fhir_response(await service.check(protocoling, await read_json(request)))


def _add_hooks(app: FastAPI, protocoling: Protocoling) -> None:
    @app.get("/cds-services", dependencies=[open_to_all])
    async def discovery() -> Response:
        return JSONResponse(service.discovery())

    @app.post("/cds-services/{service_id}", dependencies=[allow(Role.INTEGRATION, *CLINICAL)])
    async def call(service_id: str, request: Request) -> Response:
        _known(service_id)
        answer = await service.order_sign(protocoling, await read_json(request))
        return Response(strict.dumps(answer), media_type="application/json")

    @app.post("/cds-services/{service_id}/feedback", dependencies=[allow(Role.INTEGRATION, *CLINICAL)])
    async def feedback(service_id: str, request: Request) -> Response:
        _known(service_id)
        await service.take_feedback(protocoling, await read_json(request))
        return JSONResponse({})


def _known(service_id: str) -> None:
    if service_id != service.SERVICE:
        raise NotFound("There is no such CDS service", where="id", todo="GET /cds-services lists them.")


def _add_rules(app: FastAPI, protocoling: Protocoling) -> None:
    @app.get(
        "/protocoling/rules",
        dependencies=[allow(Role.QUALITY, Role.LEAD, Role.RADIOLOGIST, Role.TECHNOLOGIST, Role.ADMIN)],
    )
    async def rules() -> Response:
        return JSONResponse(service.rules_listed(protocoling))

    @app.get("/protocoling/counts", dependencies=[allow(Role.QUALITY, Role.LEAD, Role.ADMIN)])
    async def counts() -> Response:
        rows = await protocoling.database.read(store.counts)
        return Response(service.listed_counts(rows), media_type="application/json")
