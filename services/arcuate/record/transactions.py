"""Transaction Bundles: their entries read into requests, their answer, and the Provenance of what they wrote (FHIR R4, 3.1.0.11)."""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import BadInput, Json, NotSupported, TooLarge
from arcuate.kernel.fhir import strict, types
from arcuate.record import patch
from arcuate.record.domain import instant
from arcuate.record.indexing import datetime_of
from arcuate.record.parameters import Parameters
from arcuate.record.requests import Outcome, Request, check_resource

CLIENT_SYSTEM = "urn:arcuate:client"
PERSON_SYSTEM = "urn:arcuate:person"

_URL = re.compile(
    r"(?:[^?]*/)?(?P<type>[A-Z][A-Za-z]+)(?:/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/[0-9]{1,9})?)?(?:\?(?P<query>.*))?\Z",
    re.DOTALL,
)
_STATUS = {200: "200 OK", 201: "201 Created", 204: "204 No Content"}


def entries_of(bundle: Json, limit: int) -> list[Json]:
    """Return the entries of a transaction or batch after checking the Bundle around them.

    Raises:
        TooLarge: More entries than the limit.
        BadInput: The Bundle breaks a rule of R4 (bdl-3, bdl-7).
    """
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise _fault("Bundle.entry is an array", "Bundle.entry")
    if len(entries) > limit:
        raise TooLarge(
            f"The Bundle has {len(entries)} entries; the limit is {limit}", where="Bundle.entry", code="too-costly"
        )
    types.validate({name: value for name, value in bundle.items() if name != "entry"})
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        where = f"Bundle.entry[{position}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
            raise _fault("An entry of a transaction needs a request (bdl-3)", where, "required")
        full_url = entry.get("fullUrl")
        if isinstance(full_url, str):
            if full_url in seen:
                raise _fault("A fullUrl stands twice (bdl-7)", f"{where}.fullUrl", "duplicate")
            seen.add(full_url)
    return entries


def request_of(entry: Json, position: int, parameters: Parameters, *, by_package: bool = True) -> Request:
    """Return the wish that an entry states, its resource validated.

    Raises:
        BadInput: With the entry's index in its expression.
    """
    where = f"Bundle.entry[{position}]"
    request = entry["request"]
    method, url = request.get("method"), request.get("url")
    found = _URL.match(url) if isinstance(url, str) else None
    if found is None or found["type"] not in parameters.by_type:
        raise _fault("The address names no type that is stored here", f"{where}.request.url", "not-supported")
    made = Request(
        str(method), found["type"], found["id"], entry.get("resource"), found["query"] or None, request.get("ifMatch"), where,
        str(entry.get("fullUrl") or ""),
    )  # fmt: skip
    if method == "POST":
        return _created(made, found["id"] or found["query"], request.get("ifNoneExist"), by_package)
    if method == "PUT":
        if (found["id"] is None) == (made.condition is None):
            raise _fault("A PUT names one id or one condition", f"{where}.request.url")
        check_resource(made, f"{where}.resource", by_package=by_package)
        return made
    if method == "DELETE":
        if (found["id"] is None) == (made.condition is None):
            raise _fault("A DELETE names one id or one condition", f"{where}.request.url")
        return made
    if method == "PATCH":
        if (found["id"] is None) == (made.condition is None):
            raise _fault("A PATCH names one id or one condition", f"{where}.request.url")
        return replace(made, patch=_patch(made.resource, f"{where}.resource"), resource=None)
    if method == "GET":
        return Request("GET", found["type"], where=where, if_match=request.get("ifNoneMatch"), url=str(url))
    if method == "HEAD":
        raise NotSupported("HEAD is not served inside a Bundle", where=f"{where}.request.method")
    raise _fault("The method is not one of FHIR", f"{where}.request.method", "value")


def _patch(resource: Any, where: str) -> list[Json]:
    """Return the JSON Patch that a Binary carries (FHIR R4, 3.1.0.11.2)."""
    if not isinstance(resource, dict) or resource.get("resourceType") != "Binary":
        raise _fault("A patch comes as a Binary", where)
    if resource.get("contentType") != patch.MEDIA:
        raise NotSupported("The Binary is no JSON Patch", where=f"{where}.contentType", todo=f"Send {patch.MEDIA}.")
    try:
        body = base64.b64decode("".join(str(resource.get("data", "")).split()), validate=True)
    except ValueError:
        raise _fault("The data is no base64", f"{where}.data", "value") from None
    return patch.read(strict.loads_array(body, strict.OUTSIDE), where)


def _created(made: Request, extra: str | None, condition: Any, by_package: bool) -> Request:
    if extra:
        raise _fault("A POST names only the type", f"{made.where}.request.url")
    check_resource(made, f"{made.where}.resource", by_package=by_package)
    return Request(
        "POST", made.resource_type, None, made.resource, str(condition).lstrip("?") if condition else None, None, made.where,
        made.full_url,
    )  # fmt: skip


def answer_entry(outcome: Outcome) -> str:
    """Return one entry of the answer, as text: ids are of a kind that needs no escapes."""
    if not outcome.id:
        return f'{{"response":{{"status":"{_STATUS[outcome.status]}"}}}}'
    place, version = f"{outcome.resource_type}/{outcome.id}", outcome.version
    return (
        f'{{"response":{{"status":"{_STATUS[outcome.status]}","location":"{place}/_history/{version}",'
        f'"etag":"W/\\"{version}\\"","lastModified":"{instant(datetime_of(outcome.updated))}"}}}}'
    )


def provenance(outcomes: Sequence[Outcome], bundle: Json, principal: Principal, recorded: str) -> Json | None:
    """Return who wrote what on whose behalf and because of what; None when nothing was written."""
    targets = [o for o in outcomes if o.changed]
    if not targets:
        return None
    agent: Json = {"who": {"identifier": {"system": CLIENT_SYSTEM, "value": principal.client}}}
    if principal.client != principal.subject:
        agent["onBehalfOf"] = {"identifier": {"system": PERSON_SYSTEM, "value": principal.subject}}
    made: Json = {
        "resourceType": "Provenance",
        "target": [{"reference": f"{o.resource_type}/{o.id}/_history/{o.version}"} for o in targets],
        "recorded": recorded,
        "agent": [agent],
    }
    if bundle.get("identifier"):
        made["entity"] = [{"role": "source", "what": {"identifier": bundle["identifier"]}}]
    return made


def _fault(what: str, where: str, code: str = "structure") -> BadInput:
    return BadInput(what, where=where, code=code)
