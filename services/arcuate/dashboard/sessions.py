"""Who is signed in at a browser: the cookie, the session behind it, and the person's short-lived token."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from cryptography.fernet import Fernet, InvalidToken

from arcuate.dashboard import store
from arcuate.dashboard.domain.frame import Viewer
from arcuate.dashboard.tables import SessionRow
from arcuate.kernel.auth import Principal, Role
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, BadInput, Unauthenticated, Unavailable, from_outcome
from arcuate.kernel.fhir import strict

COOKIE = "arcuate_session"
SESSION_GRANT = "urn:arcuate:session"
_RENEW_BEFORE_S = 30.0


@dataclass(frozen=True)
class SignedIn:
    """A browser's session, opened by its cookie.

    Attributes:
        id: What is stored of the cookie.
        secret: The access room's session.
        csrf: What every write must carry.
    """

    id: str
    secret: str
    csrf: str
    principal: Principal

    def check_csrf(self, given: str) -> None:
        """Refuse a write that does not come from a page of this session.

        Raises:
            BadInput: The mark is missing or not this session's.
        """
        if not hmac.compare_digest(self.csrf.encode(), given.encode()):
            raise BadInput("This form is not from your own page", where="csrf", todo="Load the page again.")


@dataclass
class Sessions:
    """Opens, finds and ends sessions.

    Args:
        http: Reaches the access room with this room's token.
        idle: Time without a key or click after which a session has ended.
    """

    http: httpx.AsyncClient
    database: Database
    clock: Clock
    idle: timedelta
    _tokens: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def open(self, entry: Mapping[str, str]) -> tuple[str, SignedIn]:
        """Sign a person in by name and password, or by a one-time link; returns the cookie and the session.

        Raises:
            Unauthenticated: The access room refuses.
            Unavailable: It does not answer.
        """
        answer = await self._ask("/auth/sign-in", dict(entry))
        cookie, now = secrets.token_urlsafe(32), self.clock.now()
        person, secret = answer["person"], str(answer["session"])
        row = SessionRow(
            id=_fingerprint(cookie), sealed=_seal(cookie).encrypt(secret.encode()).decode(), person_id=str(person["id"]),
            name=str(person["name"]), roles=" ".join(person["roles"]), csrf=secrets.token_urlsafe(24), opened=now, seen=now,
            expires=datetime.fromisoformat(str(answer["expires"])),
        )  # fmt: skip
        signed_in = _signed_in(row, secret)
        await self.database.write(lambda s: store.add_session(s, row, now))
        return cookie, signed_in

    async def find(self, cookie: str, *, live: bool = False) -> SignedIn:
        """Return the session of a cookie.

        Args:
            live: The browser asks by itself, no person is behind it: the session is not renewed.

        Raises:
            Unauthenticated: There is none, or it has ended.
        """
        session_id, now = _fingerprint(cookie), self.clock.now()
        row = await self.database.read(lambda s: store.find_session(s, session_id))
        if row is None or row.expires <= now:
            raise Unauthenticated("You are not signed in", todo="Sign in.")
        if now - row.seen > self.idle:
            await self.database.write(lambda s: store.end_session(s, session_id))
            raise Unauthenticated("You were signed out after a time without a key", todo="Sign in again.")
        try:
            secret = _seal(cookie).decrypt(row.sealed.encode()).decode()
        except InvalidToken as error:
            raise Unauthenticated("You are not signed in", todo="Sign in.") from error
        if not live:
            await self.note_seen(row, now)
        return _signed_in(row, secret)

    async def note_seen(self, row: SessionRow, now: datetime) -> None:
        """Remember that the person is there; written only now and then."""
        if now - row.seen >= timedelta(seconds=30):
            await self.database.write(lambda s: store.note_seen(s, row.id, now))

    async def close(self, signed_in: SignedIn) -> None:
        """End a session here and in the access room; the latter's silence does not keep it open here."""
        self._tokens.pop(signed_in.id, None)
        await self.database.write(lambda s: store.end_session(s, signed_in.id))
        try:
            await self._ask("/auth/sign-out", {"session": signed_in.secret})
        except ArcuateError:
            return

    async def set_password(self, signed_in: SignedIn, password: str) -> None:
        """Set the person's password.

        Raises:
            BadInput: It is too short.
        """
        await self._ask("/auth/password", {"session": signed_in.secret, "password": password})

    async def token(self, signed_in: SignedIn) -> str:
        """Return a token with which this room acts for the person.

        Raises:
            Unauthenticated: The access room has ended the session.
        """
        until, token = self._tokens.get(signed_in.id, (0.0, ""))
        if token and self.clock.monotonic() < until:
            return token
        form = {"grant_type": SESSION_GRANT, "session": signed_in.secret}
        answer = _answer(await _reach(self.http.post("/auth/token", data=form)))
        token = str(answer["access_token"])
        lasts = float(answer["expires_in"]) - _RENEW_BEFORE_S
        self._tokens = {k: v for k, v in self._tokens.items() if v[0] > self.clock.monotonic()}
        self._tokens[signed_in.id] = (self.clock.monotonic() + lasts, token)
        return token

    async def _ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return _answer(await _reach(self.http.post(path, json=body)))


def viewer_of(signed_in: SignedIn, theme: str, *, letter_keys: bool) -> Viewer:
    """Return what templates know of the person."""
    principal = signed_in.principal
    return Viewer(principal.subject, principal.name, principal.roles, theme, letter_keys, signed_in.csrf)


def _signed_in(row: SessionRow, secret: str) -> SignedIn:
    roles = frozenset(Role(r) for r in row.roles.split() if r in set(Role))
    return SignedIn(row.id, secret, row.csrf, Principal(row.person_id, roles, "dashboard", row.name))


async def _reach(call: Any) -> httpx.Response:
    try:
        response: httpx.Response = await call
    except httpx.HTTPError as error:
        raise Unavailable("The access room does not answer", todo="Try again in a minute.") from error
    return response


def _answer(response: httpx.Response) -> dict[str, Any]:
    if response.status_code == 204:
        return {}
    body = strict.loads(response.content)
    if not response.is_success:
        raise from_outcome(response.status_code, body)
    return body


def _fingerprint(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()


def _seal(cookie: str) -> Fernet:
    """Return the cipher of a cookie: without the cookie, a copy of the table opens nothing."""
    key = hashlib.sha256(b"arcuate dashboard session\0" + cookie.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
