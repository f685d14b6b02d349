"""AuditEvent over HTTP: read and search, nothing else."""

from datetime import tzinfo
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate.kernel.errors import BadInput, Json, NotFound
from arcuate.kernel.web import allow, fhir_response
from arcuate.record.audit import trail as audit
from arcuate.record.audit.events import audit_event
from arcuate.record.audit.trail import AuditQuery, Trail
from arcuate.record.indexing import interval_of
from arcuate.record.policy import AUDITORS
from arcuate.record.settings import RecordSettings

_MOST = 200


def add_audit_routes(app: FastAPI, trail: Trail, settings: RecordSettings, zone: tzinfo) -> None:
    """Add the routes of AuditEvent."""

    @app.get("/fhir/AuditEvent", dependencies=[allow(*AUDITORS)])
    async def search(request: Request) -> Response:
        await trail.settle()
        query = _query(request, zone)
        kept = await trail.database.read(lambda session: audit.find(session.connection(), query))
        base = (settings.base_url or f"{request.base_url}fhir").rstrip("/")
        return fhir_response(_searchset(request, base, kept, query))

    @app.get("/fhir/AuditEvent/{number}", dependencies=[allow(*AUDITORS)])
    async def read(number: str) -> Response:
        await trail.settle()
        wanted = int(number) if number.isdecimal() and len(number) < 18 else 0
        kept = await trail.database.read(lambda session: audit.get(session.connection(), wanted))
        if kept is None:
            raise NotFound("There is no AuditEvent of that id")
        return fhir_response(audit_event(kept))


def _query(request: Request, zone: tzinfo) -> AuditQuery:
    asked = request.query_params
    since = until = None
    for text in asked.getlist("date"):
        prefix, day = (text[:2], text[2:]) if text[:2].isalpha() else ("eq", text)
        span = interval_of(day.replace(" ", "+"), zone)
        if span is None or prefix not in ("eq", "ge", "gt", "le", "lt"):
            raise BadInput("This is no date that can be searched by", where="date", code="value")
        if prefix in ("eq", "ge", "gt"):
            since = span[1] if prefix == "gt" else span[0]
        if prefix in ("eq", "le", "lt"):
            until = span[0] if prefix == "lt" else span[1]
    patient = asked.get("patient", "").removeprefix("Patient/")
    reference = f"Patient/{patient}" if patient else asked.get("entity")
    count = asked.get("_count", "50")
    after = asked.get("_before", "")
    return AuditQuery(
        since, until, asked.get("agent", "").rpartition("|")[2] or None, reference, asked.get("subtype", "").rpartition("|")[2] or None,
        int(after) if after.isdecimal() else None, max(1, min(int(count) if count.isdecimal() else 50, _MOST)),
    )  # fmt: skip


def _searchset(request: Request, base: str, kept: list[audit.Kept], query: AuditQuery) -> Json:
    made: Json = {"resourceType": "Bundle", "type": "searchset"}
    asked = request.query_params.multi_items()
    links = [{"relation": "self", "url": f"{base}/AuditEvent" + (f"?{urlencode(asked)}" if asked else "")}]
    if len(kept) == query.limit:
        following = [*((name, value) for name, value in asked if name != "_before"), ("_before", str(kept[-1].number))]
        links.append({"relation": "next", "url": f"{base}/AuditEvent?{urlencode(following)}"})
    made["link"] = links
    if kept:
        made["entry"] = [
            {"fullUrl": f"{base}/AuditEvent/{one.number}", "resource": audit_event(one), "search": {"mode": "match"}}
            for one in kept
        ]
    return made
