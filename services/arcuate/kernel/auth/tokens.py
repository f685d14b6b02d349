"""Signed tokens (JWT, RFC 7519, ES256 only) and their keys (RFC 7517)."""

import json
import os
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from arcuate.kernel.auth.roles import Principal, Role
from arcuate.kernel.errors import Unauthenticated

ALGORITHM = "ES256"
AUDIENCE = "arcuate"
LIFETIME_S = 300
_LEEWAY_S = 60
_LONGEST = 8192


def new_key(name: str) -> ECKey:
    """Return a new P-256 key whose `kid` begins with the name."""
    return ECKey.generate_key(
        "P-256", {"kid": f"{name}-{secrets.token_hex(4)}", "use": "sig", "alg": ALGORITHM}, private=True
    )


def load_or_make_key(path: Path, name: str) -> ECKey:
    """Return the private key that a file holds, making file and key (mode 0600, public part beside it) where it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = new_key(name)
        _write_private(path, json.dumps(key.as_dict(private=True)))
        path.with_suffix(".public.json").write_text(json.dumps(key.as_dict(private=False)), encoding="utf-8")
    return ECKey.import_key(json.loads(path.read_text(encoding="utf-8")))


def _write_private(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    # A second program that made the key at the same moment keeps its own: link fails where the name stands.
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def issue(key: ECKey, issuer: str, principal: Principal, now: datetime, lifetime_s: int = LIFETIME_S) -> str:
    """Return an access token for a principal."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer, "aud": AUDIENCE, "sub": principal.subject, "roles": sorted(principal.roles), "client_id": principal.client,
        "iat": issued, "nbf": issued, "exp": issued + lifetime_s, "jti": secrets.token_urlsafe(12),
    }  # fmt: skip
    if principal.name:
        claims["name"] = principal.name
    if principal.client != principal.subject:
        claims["act"] = {"sub": principal.client}  # RFC 8693: who acts on behalf of the subject
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "at+jwt"}, claims, key)


def assertion(key: ECKey, client: str, audience: str, now: datetime) -> str:
    """Return a client assertion (RFC 7523, as SMART Backend Services asks) for the token endpoint."""
    issued = int(now.timestamp())
    claims = {
        "iss": client,
        "sub": client,
        "aud": audience,
        "iat": issued,
        "exp": issued + 60,
        "jti": secrets.token_urlsafe(12),
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, claims, key)


def decode(token: str, keys: Mapping[str, Any], *, issuer: str, audience: str, now: datetime) -> dict[str, Any]:
    """Return the claims of a token after checking signature, algorithm, issuer, audience and times.

    Raises:
        Unauthenticated: Any of them is wrong. The text never repeats the token.
    """
    if len(token) > _LONGEST:
        raise Unauthenticated("The token is too long")
    try:
        decoded = jwt.decode(token, KeySet.import_key_set(cast(Any, keys)), algorithms=[ALGORITHM])
        claims = dict(decoded.claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise Unauthenticated(
            "The token's signature cannot be checked with this house's keys", todo="Ask for a new token."
        ) from error
    seconds = now.timestamp()
    audiences = claims.get("aud") if isinstance(claims.get("aud"), list) else [claims.get("aud")]
    if claims.get("iss") != issuer or audience not in (audiences or []):
        raise Unauthenticated("The token was issued for another house")
    times = [claims.get("exp"), claims.get("nbf", 0), claims.get("iat", 0)]
    if not all(isinstance(t, int | float) for t in times):
        raise Unauthenticated("The token does not say how long it is valid")
    if seconds >= claims["exp"] or seconds < claims.get("nbf", 0) - _LEEWAY_S:
        raise Unauthenticated("The token has expired or is not valid yet", todo="Ask for a new token.")
    return claims


def principal_of(claims: Mapping[str, Any]) -> Principal:
    """Return the caller that the claims state; unknown roles are left out."""
    known = frozenset(Role(role) for role in claims.get("roles", ()) if role in set(Role))
    subject = str(claims.get("sub", ""))
    if not subject:
        raise Unauthenticated("The token names nobody")
    return Principal(subject, known, str(claims.get("client_id") or subject), str(claims.get("name") or ""))
