"""People, clients, and the rules of entering: pure decisions."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.kernel.auth import Role
from arcuate.kernel.auth.roles import PEOPLE
from arcuate.kernel.errors import BadInput

ISSUER = "urn:arcuate:access"


@dataclass(frozen=True)
class Person:
    """Somebody who works here."""

    id: str
    name: str
    roles: frozenset[Role]
    has_password: bool


@dataclass(frozen=True)
class OpenSession:
    """A person who has signed in; `secret` is shown to the dashboard once and kept only as a hash."""

    secret: str
    person: Person
    expires: datetime


def new_secret() -> str:
    """Return an unguessable text for links and sessions (256 bits)."""
    return secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def roles_of(names: list[str]) -> frozenset[Role]:
    """Return the roles of people that are named.

    Raises:
        BadInput: One of them is no role of people.
    """
    known = {str(role): role for role in PEOPLE}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"Unknown role {unknown[0]!r}", where="roles", todo=f"Use one of: {', '.join(known)}.")
    return frozenset(known[name] for name in names)


def waits_until(failures: int, allowed: int, last: datetime | None, wait_s: float) -> datetime | None:
    """Return until when an account waits after wrong passwords, or None."""
    if last is None or failures < allowed:
        return None
    return last + timedelta(seconds=wait_s)
