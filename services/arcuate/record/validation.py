"""`$validate`: says of a resource what a create or update would say, and stores nothing (FHIR R4, Resource operation validate)."""

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate.kernel.errors import BadInput, Json, issue, outcome_of
from arcuate.kernel.web import allow, fhir_response, principal_of
from arcuate.record import http as door
from arcuate.record.policy import READERS
from arcuate.record.requests import Request as Change
from arcuate.record.requests import check_resource
from arcuate.record.service import Record, read

_MODES = frozenset({"create", "update", "delete"})


def add_validate_routes(app: FastAPI, record: Record) -> None:
    """Add the routes of the operation."""

    @app.post("/fhir/{resource_type}/$validate", dependencies=[allow(*READERS)])
    async def of_type(resource_type: str, request: Request) -> Response:
        return fhir_response(_judged(await door.resource_body(request), door.known(record, resource_type), None))

    @app.post("/fhir/{resource_type}/{logical_id}/$validate", dependencies=[allow(*READERS)])
    async def of_one(resource_type: str, logical_id: str, request: Request) -> Response:
        kind = door.known(record, resource_type)
        await read(record, principal_of(request), kind, door.logical(logical_id))
        return fhir_response(_judged(await door.resource_body(request), kind, logical_id))


def _judged(body: Json, resource_type: str, logical_id: str | None) -> Json:
    """Return the OperationOutcome of a resource, or of the Parameters around one."""
    given: Json = {"resource": body}
    if body.get("resourceType") == "Parameters":
        listed = body.get("parameter")
        parts = [part for part in listed if isinstance(part, dict)] if isinstance(listed, list) else []
        given = {
            str(part.get("name")): part.get("resource", part.get("valueCode", part.get("valueUri"))) for part in parts
        }
    mode = given.get("mode") or ("update" if logical_id else "create")
    if mode not in _MODES:
        raise BadInput("'mode' is create, update or delete", where="Parameters.parameter", code="value")
    notes = []
    if given.get("profile"):
        notes.append(issue("not-supported", "Profiles are not judged here, only FHIR R4 itself.", severity="warning"))
    if mode != "delete":
        wanted = Change("PUT" if mode == "update" else "POST", resource_type, logical_id, given.get("resource"))
        try:
            check_resource(wanted, resource_type)
        except BadInput as error:
            return outcome_of([issue(error.code, str(error), error.where), *notes])
    return outcome_of([issue("informational", "No fault was found.", severity="information"), *notes])
