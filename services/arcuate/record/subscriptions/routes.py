"""`$status` and `$events` of Subscriptions over HTTP."""

from fastapi import FastAPI, Request
from sqlmodel import Session
from starlette.responses import Response

from arcuate.kernel.errors import BadInput, Json, NotFound
from arcuate.kernel.fhir import strict
from arcuate.kernel.web import allow, fhir_response, principal_of
from arcuate.record import http as door
from arcuate.record import service
from arcuate.record.driver import driver_of
from arcuate.record.policy import LOADERS
from arcuate.record.service import Record
from arcuate.record.subscriptions import state as states
from arcuate.record.subscriptions.notices import Event, Said, notification, searchset, status

_MOST = 100
_CONTENTS = ("empty", "id-only", "full-resource")


def add_subscription_routes(app: FastAPI, record: Record) -> None:
    """Add the routes of Subscription's operations."""

    @app.get("/fhir/Subscription/$status", dependencies=[allow(*LOADERS)])
    async def status_of_all(request: Request) -> Response:
        base = door.base_of(request, record.settings)
        query = request.query_params

        def find(session: Session) -> list[Json]:
            wanted = {one.id: one.body or "{}" for one in states.resources(driver_of(session.connection()))}
            if query.get("id"):
                wanted = {name: body for name, body in wanted.items() if name in query["id"].split(",")}
            return [_status(session, base, name, body) for name, body in wanted.items()]

        found = await record.database.read(find)
        if query.get("status"):
            asked = query["status"].split(",")
            found = [
                one
                for one in found
                if any(p.get("valueCode") in asked for p in one["parameter"] if p["name"] == "status")
            ]
        return fhir_response(searchset(base, found))

    @app.get("/fhir/Subscription/{logical_id}/$status", dependencies=[allow(*LOADERS)])
    async def status_of_one(logical_id: str, request: Request) -> Response:
        base, name = door.base_of(request, record.settings), door.logical(logical_id)
        resource = await service.read(record, principal_of(request), "Subscription", name)
        said = await record.database.read(lambda session: _status(session, base, name, resource.body or "{}"))
        return fhir_response(searchset(base, [said]))

    @app.get("/fhir/Subscription/{logical_id}/$events", dependencies=[allow(*LOADERS)])
    async def events(logical_id: str, request: Request) -> Response:
        base, name, query = door.base_of(request, record.settings), door.logical(logical_id), request.query_params
        resource = await service.read(record, principal_of(request), "Subscription", name)
        first, last = _number(query.get("eventsSinceNumber"), 1), _number(query.get("eventsUntilNumber"), 2**31 - 1)
        content = query.get("content") or "id-only"
        if content not in _CONTENTS:
            raise BadInput("The content is empty, id-only or full-resource", where="content", code="value")

        def find(session: Session) -> tuple[states.State | None, list[Event]]:
            connection = session.connection()
            return states.get(connection, name), states.events(connection, name, first, last, _MOST)

        state, found = await record.database.read(find)
        if state is None:
            raise NotFound("The Subscription has not begun")
        topic = str(strict.loads((resource.body or "{}").encode(), strict.HOUSE).get("criteria"))
        said = Said(name, topic, state.status, state.events)
        touched = [(one.version.resource_type, one.version.id, None) for one in found]
        await service.noted(record, principal_of(request), "operation", touched, "$events", written=True)
        return fhir_response(notification(base, said, "query-event", found, content))


def _status(session: Session, base: str, subscription: str, body: str) -> Json:
    resource = strict.loads(body.encode(), strict.HOUSE)
    state = states.get(session.connection(), subscription)
    said = Said(
        subscription, str(resource.get("criteria")), str(resource.get("status")), state.events if state else 0,
        state.reason if state else None,
    )  # fmt: skip
    return status(base, said, "query-status")


def _number(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not text.isdecimal() or len(text) > 9:
        raise BadInput("A whole number belongs here", where="the event number", code="value")
    return int(text)
