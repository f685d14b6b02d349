"""The FHIR client: the same calls in process (ASGI) and over HTTP, errors as the house's own, retries only where they are safe."""

import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from arcuate.kernel.clock import Clock, SystemClock
from arcuate.kernel.errors import ArcuateError, BadInput, Conflict, Json, NotFound, Unavailable, from_outcome
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir import strict

FHIR_JSON = "application/fhir+json"
_TRIES = 3
_WAIT_S = 0.1
_TIMEOUT_S = 30.0
_AT_ONCE = 200  # matches of one of several searches asked together

Query = Mapping[str, str | Sequence[str]]


class FhirClient:
    """Reads and writes a FHIR R4 server.

    Args:
        http: Reaches the server; adds the token.
        base: Path or address of the server.
        clock: Waits between tries.
    """

    def __init__(self, http: httpx.AsyncClient, base: str = "/fhir", clock: Clock | None = None) -> None:
        self._http = http
        self._base = base.rstrip("/")
        self._clock = clock or SystemClock()

    async def read(self, resource_type: str, logical_id: str, version: str | None = None) -> Json:
        """Return a resource, or one version of it.

        Raises:
            NotFound: There is none; Gone when it was deleted.
        """
        suffix = f"/_history/{version}" if version else ""
        return await self._call("GET", f"{self._base}/{resource_type}/{logical_id}{suffix}", safe=True)

    async def search(self, resource_type: str, query: Query | None = None) -> list[Json]:
        """Return all matches and what `_include` brought, in the server's order, from every page."""
        return [resource async for resource in self.pages(resource_type, query)]

    async def searches(self, asked: Sequence[tuple[str, Query]]) -> list[list[Json]]:
        """Return what each of several searches finds, in their order: one batch instead of a call each, which is most of what a search costs.

        Raises:
            ArcuateError: One of the searches was refused.
        """
        if len(asked) < 2:
            return [await self.search(kind, query) for kind, query in asked]
        entries = [
            {"request": {"method": "GET", "url": f"{kind}?{urlencode({'_count': _AT_ONCE, **query}, doseq=True)}"}}
            for kind, query in asked
        ]
        answer = await self.transaction({"resourceType": "Bundle", "type": "batch", "entry": entries})
        found: list[list[Json]] = []
        # The answer lists the entries in the order in which they were asked (FHIR R4, 3.1.0.11.1).
        for (kind, query), entry in zip(asked, answer.get("entry") or [], strict=True):
            response, page = entry.get("response") or {}, entry.get("resource") or {}
            status = int(str(response.get("status", "500"))[:3])
            if status >= 400:
                raise from_outcome(status, response.get("outcome"))
            if bundles.next_link(page) is not None:
                found.append([resource async for resource in self._from(page)])
            else:  # some servers give a page inside a batch no link to the next one: then it is asked for again
                found.append(list(_listed(page)) if _is_whole(page) else await self.search(kind, query))
        return found

    async def one(self, resource_type: str, query: Query) -> Json | None:
        """Return the only match, or None.

        Raises:
            Conflict: There are more.
        """
        matches = [r for r in await self.search(resource_type, query) if r.get("resourceType") == resource_type]
        if len(matches) > 1:
            raise Conflict(
                f"{len(matches)} resources of type {resource_type} match where one was expected",
                code="multiple-matches",
            )
        return matches[0] if matches else None

    async def pages(self, resource_type: str, query: Query | None = None) -> AsyncIterator[Json]:
        """Yield matches page by page; the search goes by POST, so that no identifier stands in an address."""
        page = await self._call(
            "POST", f"{self._base}/{resource_type}/_search", form=urlencode(dict(query or {}), doseq=True), safe=True
        )
        async for resource in self._from(page):
            yield resource

    async def _from(self, page: Json) -> AsyncIterator[Json]:
        """Yield the matches of a page and of those that follow it."""
        while True:
            for resource in _listed(page):
                yield resource
            further = await self.following(page)
            if further is None:
                return
            page = further

    async def following(self, page: Json) -> Json | None:
        """Return the page that follows one of a search or history; None behind the last."""
        link = bundles.next_link(page)
        return None if link is None else await self._call("GET", self._local(link), safe=True)

    async def create(self, resource: Json, if_none_exist: Mapping[str, str] | str | None = None) -> Json:
        """Create a resource and return it as stored; with a condition, return the one that matches instead if there is one."""
        headers = {}
        if if_none_exist:
            headers["If-None-Exist"] = if_none_exist if isinstance(if_none_exist, str) else urlencode(if_none_exist)
        url = f"{self._base}/{resource['resourceType']}"
        return await self._call("POST", url, body=resource, headers=headers, safe=bool(if_none_exist))

    async def update(self, resource: Json, if_match: str | None = None, where: Mapping[str, str] | None = None) -> Json:
        """Update a resource by its id, or by a condition, and return it as stored.

        Args:
            if_match: The version that was read; a stale one raises PreconditionFailed.
            where: A search that finds at most one; with none the resource is created.
        """
        headers = {"If-Match": f'W/"{if_match}"'} if if_match else {}
        target = f"?{urlencode(where)}" if where else f"/{resource['id']}"
        return await self._call(
            "PUT", f"{self._base}/{resource['resourceType']}{target}", body=resource, headers=headers
        )

    async def delete(self, resource_type: str, logical_id: str) -> None:
        """Delete a resource; it is no fault if there is none."""
        try:
            await self._call("DELETE", f"{self._base}/{resource_type}/{logical_id}", safe=True)
        except NotFound:
            return

    async def transaction(self, bundle: Json) -> Json:
        """Send a transaction or batch and return its answer; sent again when it carries an identifier, or only asks, and the answer was lost."""
        safe = "identifier" in bundle or _only_asks(bundle)
        return await self._call("POST", self._base or "/", body=bundle, safe=safe)

    async def history(self, query: Query, wait_s: float = 0) -> Json:
        """Return one page of the system history; `wait_s` is how long the server may hold the answer back."""
        url = f"{self._base}/_history?{urlencode(dict(query), doseq=True)}"
        return await self._call("GET", url, safe=True, timeout_s=_TIMEOUT_S + wait_s)

    async def operation(self, path: str, body: Json) -> Json:
        """Call an operation of the server (`Patient/1/$everything`)."""
        return await self._call("POST", f"{self._base}/{path}", body=body)

    def _local(self, link: str) -> str:
        """Return a page link as path and query: the name by which the server knows itself may not be ours for it."""
        parts = urlsplit(link)
        if not parts.scheme:
            return link
        return f"{parts.path}?{parts.query}" if parts.query else parts.path

    async def _call(
        self, method: str, url: str, *, body: Json | None = None, form: str | None = None,
        headers: dict[str, str] | None = None, safe: bool = False, timeout_s: float = _TIMEOUT_S,
    ) -> Json:  # fmt: skip
        sent = {"Accept": FHIR_JSON, **(headers or {})}
        content: bytes | None = None
        if body is not None:
            content, sent["Content-Type"] = strict.dumps(body), FHIR_JSON
        elif form is not None:
            content, sent["Content-Type"] = form.encode(), "application/x-www-form-urlencoded"
        for attempt in range(1, _TRIES + 1):
            try:
                response = await self._http.request(method, url, content=content, headers=sent, timeout=timeout_s)
                return _answer(response)
            except httpx.ConnectError as error:  # nothing was sent: safe for every call
                fault: ArcuateError = Unavailable("The other side cannot be reached", where=_place(url))
                cause: Exception = error
            except httpx.HTTPError as error:
                fault, cause = Unavailable("The other side did not answer", where=_place(url)), error
                if not safe:
                    raise fault from error
            except Unavailable as error:
                fault, cause = error, error
                if not safe:
                    raise
            if attempt == _TRIES:
                raise fault from cause
            await self._clock.sleep(_WAIT_S * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - spreads retries, no secret
        raise AssertionError("unreachable")


async def call_operation(http: httpx.AsyncClient, path: str, bundle: Json, timeout_s: float = _TIMEOUT_S) -> Json:
    """Call a room's operation: Bundle in, Bundle out. It is not sent twice.

    Raises:
        Unavailable: The room does not answer, or asks to come back later (202: `code` is `incomplete`, `retry_after_s` says when).
    """
    try:
        response = await http.post(
            path,
            content=strict.dumps(bundle),
            timeout=timeout_s,
            headers={"Content-Type": FHIR_JSON, "Accept": FHIR_JSON},
        )
    except httpx.HTTPError as error:
        raise Unavailable("The room does not answer", where=_place(path)) from error
    if response.status_code == 202:
        raise Unavailable(
            "The room is still at work", where=_place(path), code="incomplete", retry_after_s=_seconds(response, 5)
        )
    return _answer(response)


def _is_whole(page: Json) -> bool:
    matches = sum((entry.get("search") or {}).get("mode") == "match" for entry in page.get("entry") or [])
    return page.get("total") == matches


def _only_asks(bundle: Json) -> bool:
    return {(entry.get("request") or {}).get("method") for entry in bundle.get("entry") or []} == {"GET"}


def _listed(page: Json) -> Iterator[Json]:
    for entry in page.get("entry") or []:
        if (entry.get("search") or {}).get("mode") != "outcome" and isinstance(entry.get("resource"), dict):
            yield entry["resource"]


def _answer(response: httpx.Response) -> Json:
    if response.status_code == 304 or (response.is_success and not response.content):
        return {}
    try:
        resource: Json | None = strict.loads(response.content, strict.HOUSE)
    except BadInput:
        resource = None
    if response.is_success and resource is not None:
        return resource
    if response.is_success:
        raise Unavailable("The other side answered something that is no FHIR resource")
    error = from_outcome(response.status_code, resource)
    if isinstance(error, Unavailable):
        error.retry_after_s = _seconds(response, error.retry_after_s)
    raise error


def _seconds(response: httpx.Response, otherwise: float) -> float:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdigit() else otherwise


def _place(url: str) -> str:
    """Return the path without its query: errors name no identifiers."""
    return urlsplit(url).path


def version_of(resource: Json) -> str:
    """Return `meta.versionId`, for If-Match."""
    meta: Any = resource.get("meta") or {}
    return str(meta.get("versionId", ""))
