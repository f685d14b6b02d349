"""How FHIR's REST rules show in HTTP: headers, conditions, links (FHIR R4, 3.1.0)."""

import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from starlette.datastructures import URL
from starlette.responses import Response

from arcuate.kernel.errors import BadInput, Json, NotFound, NotSupported
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir import strict
from arcuate.kernel.web import FHIR_JSON, FhirText, error_response, header, principal_of, read_body, read_json
from arcuate.record import answers, patch, service, store
from arcuate.record.answers import Link
from arcuate.record.domain import etag
from arcuate.record.indexing import datetime_of, interval_of
from arcuate.record.paging import links
from arcuate.record.query import MOST, Pairs, Search, elements, summary
from arcuate.record.requests import Outcome, StaleVersion
from arcuate.record.requests import Request as Change
from arcuate.record.search import Page
from arcuate.record.service import Record
from arcuate.record.settings import RecordSettings
from arcuate.record.views import View

_JSON_TYPES = frozenset({"", "application/fhir+json", "application/json"})
_FORM = "application/x-www-form-urlencoded"
_FORM_LIMIT = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}\Z")
_SEQ = re.compile(r"\d{1,18}\Z")


def base_of(request: Request, settings: RecordSettings) -> str:
    """Return the address of the FHIR server as the caller sees it."""
    if settings.base_url:
        return settings.base_url.rstrip("/")
    scope = request.scope
    root = scope.get("app_root_path", scope.get("root_path", ""))
    return _address(scope.get("scheme", "http"), header(request, b"host"), scope.get("server"), root)


@lru_cache(64)
def _address(scheme: str, host: str | None, server: tuple[str, int] | None, root: str) -> str:
    headers = [(b"host", host.encode("latin-1"))] if host is not None else []
    called = URL(scope={"scheme": scheme, "server": server, "path": f"{root.rstrip('/')}/fhir", "headers": headers})
    return str(called)


def known(record: Record, resource_type: str) -> str:
    """Return the type if it is stored here.

    Raises:
        NotFound: It is not.
    """
    if resource_type not in record.parameters.by_type:
        raise NotFound("This resource type is not stored here", todo="See /fhir/metadata.", code="not-supported")
    return resource_type


def logical(text: str) -> str:
    """Return a logical id.

    Raises:
        NotFound: Nothing can have this id.
    """
    if not _ID.match(text):
        raise NotFound("There is nothing of that id")
    return text


async def resource_body(request: Request) -> Json:
    """Return the JSON body.

    Raises:
        NotSupported: It is announced as something else, or compressed.
    """
    _refuse_other_media(request, _JSON_TYPES, FHIR_JSON)
    return await read_json(request)


def _refuse_other_media(request: Request, known_types: frozenset[str], asked: str) -> None:
    media = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if media not in known_types:
        raise NotSupported(
            "The body is not announced as what belongs here", where="Content-Type", todo=f"Send {asked}."
        )
    if (header(request, b"content-encoding") or "identity").lower() not in ("", "identity"):
        raise NotSupported("Compressed bodies are not taken", where="Content-Encoding", todo="Send it plain.")


async def bundle_body(request: Request) -> Json:
    """Return the body if it is a transaction or batch.

    Raises:
        BadInput: It is not.
    """
    return bundles.require_bundle(await resource_body(request), "transaction", "batch")


async def form_pairs(request: Request) -> Pairs:
    """Return the parameters in the body of a POST search.

    Raises:
        NotSupported: The body is no form.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, _FORM_LIMIT)
    if media != _FORM and body:
        raise NotSupported("The parameters of a search are sent as a form", where="Content-Type", todo=f"Send {_FORM}.")
    return _pairs(body)


async def wish(
    record: Record, request: Request, resource_type: str, *, logical_id: str | None = None, condition: str | None = None
) -> Change:
    """Return the create or update that a request asks for."""
    kind = known(record, resource_type)
    if logical_id is not None:
        logical(logical_id)
    method = "POST" if request.method == "POST" else "PUT"
    if method == "PUT" and logical_id is None and not condition:
        raise BadInput("A PUT without an id needs a condition", where="the address", code="required")
    body = await resource_body(request)
    return Change(
        method,
        kind,
        logical_id,
        body,
        condition or None,
        header(request, b"if-match"),
        must_be_absent=_absent(request),
    )


def _absent(request: Request) -> bool:
    """Say whether the caller wants to write only where nothing stands (`If-None-Match: *`).

    Raises:
        BadInput: If-None-Match names something else, which has no meaning for a write.
    """
    said = header(request, b"if-none-match")
    if said is not None and said.strip() != "*":
        raise BadInput("For a write, If-None-Match takes * alone", where="If-None-Match", code="value")
    return said is not None


async def patch_of(
    record: Record, request: Request, resource_type: str, *, logical_id: str | None = None, condition: str | None = None
) -> Change:
    """Return the JSON Patch that a request asks for.

    Raises:
        NotSupported: It is another kind of patch.
        BadInput: Neither an id nor a condition says what to patch.
    """
    kind = known(record, resource_type)
    if logical_id is None and not condition:
        raise BadInput("A PATCH without an id needs a condition", where="the address", code="required")
    _refuse_other_media(request, frozenset({patch.MEDIA}), patch.MEDIA)
    operations = patch.read(strict.loads_array(await read_body(request)))
    return Change(
        "PATCH", kind, logical(logical_id) if logical_id else None, None, condition or None, request.headers.get("if-match"),
        patch=operations,
    )  # fmt: skip


def deletion(record: Record, request: Request, resource_type: str, logical_id: str | None = None) -> Change:
    """Return the deletion that a request asks for, by id or by condition.

    Raises:
        BadInput: Neither says what to delete.
    """
    condition = None if logical_id else request.url.query
    if logical_id is None and not condition:
        raise BadInput("A DELETE without an id needs a condition", where="the address", code="required")
    return Change(
        "DELETE", known(record, resource_type), logical(logical_id) if logical_id else None, condition=condition,
        if_match=request.headers.get("if-match"),
    )  # fmt: skip


async def change(record: Record, request: Request, wanted: Change) -> Response:
    """Do a change and answer as `Prefer` asks; a stale version is told together with the current one."""
    try:
        outcome = await service.change(record, principal_of(request), wanted)
    except StaleVersion as error:
        response = error_response(error)
        response.headers["ETag"] = etag(error.version)
        return response
    return _outcome_response(outcome, request, base_of(request, record.settings))


def version_response(version: store.Version, request: Request) -> Response:
    """Return a stored version or the part of it that is asked for, or 304 when the caller has it."""
    headers = [(b"etag", b'W/"%d"' % version.version), (b"last-modified", _http_date(version.updated // 1_000_000))]
    if _is_had(request, version):
        return Response(status_code=304, headers={name.decode(): value.decode() for name, value in headers})
    body = version.body or ""
    if request.scope["query_string"]:
        body = view_of(request, version.resource_type).of(version.resource_type, body)
    return FhirText(body.encode(), 200, headers)


def _is_had(request: Request, version: store.Version) -> bool:
    """Say whether the caller's copy is this one; If-Modified-Since counts only where If-None-Match is not given (RFC 9110)."""
    held = header(request, b"if-none-match")
    if held is not None:
        return held.strip() == "*" or etag(version.version) in (one.strip() for one in held.split(","))
    since = header(request, b"if-modified-since")
    if since is None:
        return False
    try:
        return version.updated // 1_000_000 <= parsedate_to_datetime(since).timestamp()
    except ValueError:
        return False  # a date that cannot be read is no condition


def view_of(request: Request, resource_type: str) -> View:
    """Return what of a resource a read asks for.

    Raises:
        BadInput: `_summary` or `_elements` cannot be understood.
    """
    asked = request.query_params
    names = elements(resource_type, asked["_elements"]) if asked.get("_elements") else ()
    word = summary(asked["_summary"]) if asked.get("_summary") else "false"
    return View("false" if word == "count" else word, names)


async def search(record: Record, request: Request, resource_type: str, form: Pairs = ()) -> Response:
    """Answer a search of one type."""
    pairs = [*_pairs(request.scope["query_string"]), *form]
    strictly = "handling=strict" in (header(request, b"prefer") or "").replace(" ", "")
    asked, page = await service.search(record, principal_of(request), resource_type, pairs, strictly=strictly)
    return _searchset(record, request, asked, page)


async def search_system(record: Record, request: Request, form: Pairs = ()) -> Response:
    """Answer a search of several types or of all, or a link to a further page of any search."""
    if token := request.query_params.get("_page"):
        return await _next_page(record, request, token)
    pairs = [*_pairs(request.scope["query_string"]), *form]
    asked, page = await service.search_system(record, principal_of(request), pairs)
    return _searchset(record, request, asked, page)


async def _next_page(record: Record, request: Request, token: str) -> Response:
    mark = record.pages.read(token)
    kind, reader = mark.resource_type, record.reader
    asked = reader.read(known(record, kind), mark.pairs) if kind else reader.read_system(mark.pairs)
    page = await service.page(record, principal_of(request), asked, mark.position)
    return _searchset(record, request, asked, page)


def _searchset(record: Record, request: Request, asked: Search, page: Page) -> Response:
    base = base_of(request, record.settings)
    return FhirText(answers.searchset(base, links(record.pages, base, asked, page), page, asked))


async def system_history(record: Record, request: Request) -> Response:
    """Answer the history of all types; with `_after` it is the feed, oldest first, and waits `_wait` seconds for news.

    Raises:
        BadInput: A parameter that cannot be understood.
    """
    query = request.query_params
    if "_after" not in query and query.get("_sort") != "_lastUpdated":
        return await history(record, request, None, None)
    types = tuple(sorted(known(record, name) for name in query["_type"].split(","))) if query.get("_type") else ()
    after, count = _seq(query.get("_after") or "0", "_after"), _count(query.get("_count"))
    since = _since(record, query.get("_since"))
    # Taken before looking: what is not of these types up to here need not be looked at again.
    newest = await service.newest(record)
    part = store.HistoryPart(types, None, after, None, since, True, count)
    versions = await service.history(record, principal_of(request), part, _seconds(query.get("_wait")))
    full = len(versions) == count
    reached = (
        versions[-1].seq
        if full
        else max([after, newest, *(v.seq for v in versions)])
        if types
        else (versions[-1].seq if versions else after)
    )
    base = base_of(request, record.settings)
    kept = [(name, value) for name, value in query.multi_items() if name not in ("_after", "_since", "_sort")]
    links = [
        Link("self", f"{base}/_history?{urlencode(query.multi_items())}"),
        Link("next", f"{base}/_history?{urlencode([*kept, ('_after', str(reached))])}"),
    ]
    return FhirText(answers.history(base, links, versions))


async def history(record: Record, request: Request, resource_type: str | None, logical_id: str | None) -> Response:
    """Answer a history, newest first."""
    query = request.query_params
    count = _count(query.get("_count"))
    before = _seq(query["_before"], "_before") if "_before" in query else None
    types = (resource_type,) if resource_type else ()
    part = store.HistoryPart(types, logical_id, None, before, _since(record, query.get("_since")), False, count + 1)
    versions = await service.history(record, principal_of(request), part)
    base = base_of(request, record.settings)
    place = "/".join(part for part in (base, resource_type, logical_id, "_history") if part)
    asked = urlencode(query.multi_items())
    links = [Link("self", f"{place}?{asked}" if asked else place)]
    if len(versions) > count:
        versions = versions[:count]
        kept = [(name, value) for name, value in query.multi_items() if name != "_before"]
        links.append(Link("next", f"{place}?{urlencode([*kept, ('_before', str(versions[-1].seq))])}"))
    return FhirText(answers.history(base, links, versions))


def _outcome_response(outcome: Outcome, request: Request, base: str) -> Response:
    if outcome.body is None:
        return Response(status_code=204, headers={"ETag": etag(outcome.version)} if outcome.id else None)
    place = f"{base}/{outcome.resource_type}/{outcome.id}/_history/{outcome.version}"
    headers = [
        (b"etag", etag(outcome.version).encode()), (b"last-modified", _http_date(outcome.updated // 1_000_000)),
        (b"location", place.encode()),
    ]  # fmt: skip
    prefer = (header(request, b"prefer") or "").replace(" ", "")
    if "return=minimal" in prefer:
        return Response(status_code=outcome.status, headers={name.decode(): text.decode() for name, text in headers})
    if "return=OperationOutcome" in prefer:
        said = {"severity": "information", "code": "informational", "diagnostics": "Stored."}
        answer = {"resourceType": "OperationOutcome", "issue": [said]}
        return FhirText(strict.dumps(answer), outcome.status, headers)
    return FhirText(outcome.body.encode(), outcome.status, headers)


def _pairs(text: bytes) -> Pairs:
    try:
        return parse_qsl(text.decode("utf-8"), keep_blank_values=True, max_num_fields=200, errors="strict")
    except ValueError:
        raise BadInput(
            "The search parameters cannot be read", todo="Send them percent-encoded in UTF-8.", code="structure"
        ) from None


def _seq(text: str, name: str) -> int:
    if not _SEQ.match(text):
        raise BadInput("This is no cursor of this record", where=name, code="value")
    return int(text)


def _count(text: str | None) -> int:
    if text is None:
        return 50
    if not text.isdecimal() or len(text) > 9:
        raise BadInput("A whole number belongs here", where="_count", code="value")
    return max(1, min(int(text), MOST))


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, min(float(text or 0), 3600.0))
    except ValueError:
        raise BadInput("A number of seconds belongs here", where="_wait", code="value") from None


def _since(record: Record, text: str | None) -> int | None:
    if text is None:
        return None
    span = interval_of(text.replace(" ", "+"), record.indexer.zone)
    if span is None:
        raise BadInput(
            "This is no instant", where="_since", todo="Write for example 2026-03-17T09:00:00Z.", code="value"
        )
    return span[0]


@lru_cache(1024)
def _http_date(second: int) -> bytes:
    return datetime_of(second * 1_000_000).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
