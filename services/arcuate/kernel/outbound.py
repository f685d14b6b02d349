"""The one gate to addresses outside the house: an allow-list, no redirects, limits on time and size."""

from collections.abc import Collection

import httpx

from arcuate.kernel.errors import Refused


class OutboundGate(httpx.AsyncBaseTransport):
    """An httpx transport that passes only listed `host:port` pairs and refuses everything else.

    Args:
        allowed: Pairs such as `pacs.example.org:443`; nothing is allowed by default.
        inner: The transport that really connects.
    """

    def __init__(self, allowed: Collection[str], inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._allowed = frozenset(pair.lower() for pair in allowed)
        self._inner = inner  # else made when it is first needed: reading the certificates of the system takes a while

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass the request on, or refuse it before any connection is made."""
        port = request.url.port or {"http": 80, "https": 443}.get(request.url.scheme, 0)
        pair = f"{request.url.host}:{port}".lower()
        if pair not in self._allowed or request.url.userinfo:
            raise Refused(
                f"The address {pair} is not on the list of outside addresses",
                todo="An administrator adds it to the room's setting of allowed addresses.",
            )
        if self._inner is None:
            self._inner = httpx.AsyncHTTPTransport(retries=0)
        return await self._inner.handle_async_request(request)

    def client(self, timeout_s: float = 10.0) -> httpx.AsyncClient:
        """Return a client behind this gate; it follows no redirect."""
        return httpx.AsyncClient(transport=self, timeout=timeout_s, follow_redirects=False)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._inner is not None:
            await self._inner.aclose()
