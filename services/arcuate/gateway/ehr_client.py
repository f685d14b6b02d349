"""The line to the EHR: FHIR R4 over the one outbound gate, with SMART Backend Services tokens, polite and within limits.

A server that asks for time (429, 503 with Retry-After) is left alone until then, whoever wants to ask. An answer is read up to a limit, and
no address holds a number of a patient: searches go by POST, and by GET only with the server's own id of the patient.
"""

import asyncio
import json
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey

from arcuate.gateway.settings import MIB, GatewaySettings
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import BadInput, Json, Refused, Unavailable
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.outbound import OutboundGate

_MOST_BYTES = 32 * MIB
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ALGORITHM = "ES384"  # one of the two that every SMART server must know (SMART App Launch 2.0, backend services)
_RENEW_BEFORE_S = 30.0
_WAIT_S = 60.0  # where a server asks for time and does not say how much


def load_or_make_key(path: Path) -> ECKey:
    """Return the key by which the EHR knows us, making it (mode 0600) where it is missing."""
    if not path.exists():
        key = ECKey.generate_key(
            "P-384", {"kid": f"arcuate-{secrets.token_hex(4)}", "use": "sig", "alg": _ALGORITHM}, private=True
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(key.as_dict(private=True), file)
        try:
            os.link(temporary, path)  # fails where another replica was first: its key counts
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return ECKey.import_key(json.loads(path.read_text("utf-8")))


def public_keys(key: ECKey) -> Json:
    """Return the key set to register at the EHR."""
    return {"keys": [key.as_dict(private=False)]}


class _Polite(httpx.AsyncBaseTransport):
    """Leaves a server alone that asks for it, and reads no answer without end."""

    def __init__(self, inner: httpx.AsyncBaseTransport, clock: Clock) -> None:
        self._inner, self._clock, self._until = inner, clock, float("-inf")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on.

        Raises:
            Unavailable: The server asked for time, now or before.
        """
        left = self._until - self._clock.monotonic()
        if left > 0:
            raise Unavailable("The EHR asks to be left alone for a while", retry_after_s=left)
        response = await self._inner.handle_async_request(request)
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or (
            response.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in response.headers
        ):
            await response.aclose()
            seconds = self._seconds(response.headers.get("retry-after", ""))
            self._until = self._clock.monotonic() + seconds
            raise Unavailable("The EHR asks to be left alone for a while", retry_after_s=seconds)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response.stream),
            extensions=response.extensions,
        )

    def _seconds(self, text: str) -> float:
        if text.strip().isdecimal():
            return min(float(text), 3600.0)
        try:
            return min(max(0.0, (parsedate_to_datetime(text) - self._clock.now()).total_seconds()), 3600.0)
        except (TypeError, ValueError):
            return _WAIT_S

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Bounded(httpx.AsyncByteStream):
    """The body of an answer, up to a limit."""

    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body.

        Raises:
            Refused: It is over the limit.
        """
        size = 0
        async for piece in self._inner:
            size += len(piece)
            if size > _MOST_BYTES:
                raise Refused("The EHR's answer is too large", where="EHR")
            yield piece

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


class _Backend(httpx.Auth):
    """SMART Backend Services: a token for a signed assertion, renewed before it ends."""

    def __init__(self, settings: GatewaySettings, key: ECKey, http: httpx.AsyncClient, clock: Clock) -> None:
        self._settings, self._key, self._http, self._clock = settings, key, http, clock
        self._token, self._until, self._place = "", float("-inf"), settings.ehr_token_url
        self._lock = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Attach the token; one that is not taken any more is fetched anew, once."""
        request.headers["Authorization"] = f"Bearer {await self._current()}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._until = float("-inf")
            request.headers["Authorization"] = f"Bearer {await self._current()}"
            yield request

    async def _current(self) -> str:
        async with self._lock:
            if self._clock.monotonic() >= self._until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        if not self._place:
            self._place = await self._discovered()
        form = {
            "grant_type": "client_credentials", "scope": self._settings.ehr_scopes, "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(self._place),
        }  # fmt: skip
        answer = await self._answer(await self._sent("POST", self._place, form))
        token, lives = answer.get("access_token"), answer.get("expires_in", 60)
        if not isinstance(token, str) or not isinstance(lives, int):
            raise Unavailable(
                "The EHR's token endpoint answered without a token", where="ARCUATE_GATEWAY_EHR_TOKEN_URL"
            )
        self._token, self._until = token, self._clock.monotonic() + max(1.0, lives - _RENEW_BEFORE_S)

    async def _discovered(self) -> str:
        """The token endpoint, as the server itself names it; it must be an address that the settings allow."""
        where = f"{self._settings.ehr_url.rstrip('/')}/.well-known/smart-configuration"
        found = (await self._answer(await self._sent("GET", where, None))).get("token_endpoint")
        if not isinstance(found, str):
            raise Unavailable("The EHR does not say where tokens are given", todo="Set ARCUATE_GATEWAY_EHR_TOKEN_URL.")
        return found

    async def _sent(self, method: str, url: str, form: dict[str, str] | None) -> httpx.Response:
        try:
            return await self._http.request(method, url, data=form)
        except httpx.HTTPError as error:
            raise Unavailable("The EHR's token endpoint does not answer") from error

    async def _answer(self, response: httpx.Response) -> Json:
        if response.status_code != httpx.codes.OK:
            raise Unavailable(
                f"The EHR gave no token ({response.status_code})", todo="Is our key registered there, with these scopes?"
            )  # fmt: skip
        try:
            return strict.loads(response.content, strict.HOUSE)
        except BadInput as error:
            raise Unavailable("The EHR's token endpoint answered something that is no JSON") from error

    def _assertion(self, audience: str) -> str:
        now = int(self._clock.now().timestamp())
        client = self._settings.ehr_client_id
        claims: dict[str, Any] = {
            "iss": client,
            "sub": client,
            "aud": audience,
            "iat": now,
            "exp": now + 240,
            "jti": secrets.token_urlsafe(16),
        }
        return jwt.encode(
            {"alg": _ALGORITHM, "kid": self._key.kid, "typ": "JWT"}, claims, self._key, algorithms=[_ALGORITHM]
        )


def pair_of(url: str) -> str:
    """Return `host:port` of an address."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, 0)}"


def connect(settings: GatewaySettings, key: ECKey, clock: Clock) -> FhirClient:
    """Return the client of the EHR that the settings name; it reaches that server, its token endpoint, and nothing else."""
    allowed = {pair_of(url) for url in (settings.ehr_url, settings.ehr_token_url) if url}
    transport = _Polite(OutboundGate(allowed), clock)
    parts = urlsplit(settings.ehr_url)
    bare = httpx.AsyncClient(transport=transport, timeout=settings.ehr_timeout_s, follow_redirects=False)
    auth = _Backend(settings, key, bare, clock) if settings.ehr_client_id else None
    http = httpx.AsyncClient(
        transport=transport, base_url=f"{parts.scheme}://{parts.netloc}", timeout=settings.ehr_timeout_s, follow_redirects=False, auth=auth,
    )  # fmt: skip
    return FhirClient(http, parts.path.rstrip("/"))
