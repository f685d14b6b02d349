"""A room's own token: fetched from the access room with a signed assertion, renewed before it ends."""

import asyncio
from collections.abc import AsyncGenerator

import httpx
from joserfc.jwk import ECKey

from arcuate.kernel.auth import tokens
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import Unavailable

TOKEN_PATH = "/auth/token"  # noqa: S105 - a path, not a secret
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RENEW_BEFORE_S = 60


class RoomAuth(httpx.Auth):
    """Adds the room's bearer token to each request that carries none.

    Args:
        client: The room's client id.
        key: Its private key; the access room knows the public part.
        http: A client without authentication that reaches `/auth/token`.
    """

    def __init__(self, client: str, key: ECKey, http: httpx.AsyncClient, clock: Clock) -> None:
        self._client, self._key, self._http, self._clock = client, key, http, clock
        self._token = ""
        self._until = float("-inf")
        self._lock = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Attach the token; after a 401 the next call fetches a new one (this one is not sent twice: it may have had effects)."""
        if "Authorization" in request.headers:
            yield request
            return
        request.headers["Authorization"] = f"Bearer {await self.token()}"
        response = yield request
        if response.status_code == 401:
            self._until = float("-inf")

    async def token(self) -> str:
        """Return a token that is valid for at least some seconds.

        Raises:
            Unavailable: The access room does not give one.
        """
        async with self._lock:
            if self._clock.monotonic() >= self._until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": tokens.assertion(self._key, self._client, TOKEN_PATH, self._clock.now()),
        }
        try:
            response = await self._http.post(TOKEN_PATH, data=form)
        except httpx.HTTPError as error:
            raise Unavailable("The access room does not answer", where=TOKEN_PATH) from error
        if response.status_code != 200:
            raise Unavailable(
                f"The access room gave no token to {self._client} ({response.status_code})", where=TOKEN_PATH
            )
        answer = response.json()
        self._token = str(answer["access_token"])
        self._until = self._clock.monotonic() + float(answer["expires_in"]) - _RENEW_BEFORE_S
