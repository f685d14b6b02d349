"""Offline check of bearer tokens by the access room's key set."""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from arcuate.kernel.auth import tokens
from arcuate.kernel.auth.roles import Principal
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import Unauthenticated

KeySource = Callable[[], Awaitable[dict[str, Any]]]

_REMEMBERED = 1024
_REFETCH_S = 10.0


class Authenticator:
    """Turns an Authorization header into a principal.

    Args:
        keys: Fetches the key set (JWKS); asked again at most every ten seconds when a token names an unknown key.
        issuer: The only issuer whose tokens are taken.
    """

    def __init__(self, keys: KeySource, issuer: str, clock: Clock) -> None:
        self._source, self._issuer, self._clock = keys, issuer, clock
        self._keys: dict[str, Any] | None = None
        self._fetched = float("-inf")
        self._seen: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return who calls.

        Raises:
            Unauthenticated: No token, or one that cannot be trusted.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "A bearer token is needed", todo="Sign in, or make one with: arcuate token --role ROLE"
            )
        now = self._clock.now()
        fingerprint = hashlib.sha256(token.encode()).digest()
        if (known := self._seen.get(fingerprint)) is not None:
            if now.timestamp() < known[0]:
                return known[1]
            del self._seen[fingerprint]
        claims = await self._claims(token)
        principal = tokens.principal_of(claims)
        self._seen[fingerprint] = (float(claims["exp"]), principal)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        for fresh in (False, True):
            keys = await self._key_set(fresh)
            try:
                return tokens.decode(token, keys, issuer=self._issuer, audience=tokens.AUDIENCE, now=self._clock.now())
            except Unauthenticated:
                if fresh or self._clock.monotonic() - self._fetched < _REFETCH_S:
                    raise
        raise AssertionError("unreachable")

    async def _key_set(self, fresh: bool) -> dict[str, Any]:
        if self._keys is None or fresh:
            self._keys = await self._source()
            self._fetched = self._clock.monotonic()
        return self._keys
