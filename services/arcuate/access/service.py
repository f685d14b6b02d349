"""Use cases of the access room."""

import base64
import binascii
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from joserfc.jwk import ECKey
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from arcuate.access import store
from arcuate.access.domain import ISSUER, OpenSession, Person, fingerprint, new_secret, roles_of, waits_until
from arcuate.access.settings import AccessSettings
from arcuate.access.tables import ClientRow, LinkRow, PersonRow, SessionRow
from arcuate.kernel.auth import Principal, Role, tokens
from arcuate.kernel.auth.client import TOKEN_PATH
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput, Conflict, NotFound, Throttled, Unauthenticated

_WRONG = "Name or password is not right"


@dataclass(frozen=True)
class Access:
    """What the use cases need.

    Attributes:
        keys_dir: Holds the signing key and the public keys of the rooms (`ROOM.public.json`).
        hasher: Of passwords (argon2id with the library's defaults).
        nobody: A hash that stands in where a name is unknown, so that both answers take the same time.
    """

    database: Database
    clock: Clock
    settings: AccessSettings
    keys_dir: Path
    signing_key: ECKey
    hasher: PasswordHasher
    nobody: str


def make(database: Database, clock: Clock, settings: AccessSettings, keys_dir: Path) -> Access:
    """Return the room's parts, making the signing key at the first start."""
    hasher = PasswordHasher()
    key = tokens.load_or_make_key(keys_dir / "access-signing.json", "access")
    return Access(database, clock, settings, keys_dir, key, hasher, _hash_of_nothing(hasher))


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """Return an argon2id hash that no password has: to compare with it takes as long as with a real one, to make it takes nothing."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (hasher.salt_len, hasher.hash_len)
    )
    return f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}${salt}${digest}"


def key_set(access: Access) -> dict[str, Any]:
    """Return the public key set (RFC 7517)."""
    return {"keys": [access.signing_key.as_dict(private=False)]}


def token_for(access: Access, principal: Principal, lifetime_s: int = tokens.LIFETIME_S) -> dict[str, Any]:
    """Return the token endpoint's answer for a principal."""
    token = tokens.issue(access.signing_key, ISSUER, principal, access.clock.now(), lifetime_s)
    return {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": lifetime_s,
        "scope": " ".join(sorted(principal.roles)),
    }


async def token_by_assertion(access: Access, assertion: str) -> dict[str, Any]:
    """Give a token to a room or an outside client that signed an assertion (SMART Backend Services).

    Raises:
        Unauthenticated: Unknown client, wrong signature, or an assertion that was used before.
    """
    client_id = _claimed_client(assertion)
    keys, roles = await _client_keys(access, client_id)
    claims = tokens.decode(assertion, keys, issuer=client_id, audience=TOKEN_PATH, now=access.clock.now())
    jti, expires = str(claims.get("jti") or ""), datetime.fromtimestamp(float(claims["exp"]), UTC)
    now = access.clock.now()
    if not jti or not await access.database.write(
        lambda s: store.take_assertion(s, f"{client_id}:{jti}", expires, now)
    ):
        raise Unauthenticated("This assertion was used before", todo="Sign a new one with a new jti.")
    return token_for(access, Principal(client_id, roles, client_id))


def _claimed_client(assertion: str) -> str:
    """Return whom the assertion names, before anything is trusted, to choose the key."""
    try:
        middle = assertion.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        client_id = claims["iss"]
    except (IndexError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise Unauthenticated("The client assertion cannot be read") from error
    if not isinstance(client_id, str) or client_id != claims.get("sub"):
        raise Unauthenticated("The client assertion must name the client as iss and sub")
    return client_id


async def _client_keys(access: Access, client_id: str) -> tuple[Mapping[str, Any], frozenset[Role]]:
    if client_id.replace("-", "").isalnum():
        room_key = access.keys_dir / f"{client_id}.public.json"
        if room_key.is_file():
            return {"keys": [json.loads(room_key.read_text(encoding="utf-8"))]}, frozenset({Role.ROOM})
    row = await access.database.read(lambda s: store.client(s, client_id))
    if row is None:
        raise Unauthenticated("This client is not known here", todo="Register its public key first.")
    return {"keys": [json.loads(row.public_key)]}, frozenset(Role(r) for r in row.roles.split())


async def token_by_session(access: Access, secret: str, acting: Principal) -> dict[str, Any]:
    """Give the dashboard a token for the person of a session.

    Raises:
        Unauthenticated: The session has ended.
    """
    now = access.clock.now()
    row = await access.database.read(lambda s: store.session_person(s, secret, now))
    if row is None:
        raise Unauthenticated("The session has ended", todo="Sign in again.")
    person = store.person_of(row)
    return token_for(access, Principal(person.id, person.roles, acting.client, person.name))


async def sign_in(access: Access, name: str, password: str) -> OpenSession:
    """Open a session by name and password.

    Raises:
        Unauthenticated: Unknown name or wrong password, in the same words.
        Throttled: Too many wrong passwords.
    """
    row = await access.database.read(lambda s: store.find_person(s, name))
    now = access.clock.now()
    settings = access.settings
    if row is not None:
        until = waits_until(row.failures, settings.failures_allowed, row.failed_at, settings.wait_s)
        if until is not None and until > now:
            raise Throttled("Too many wrong passwords", todo=f"Try again in {round((until - now).total_seconds())} s.")
    good = _verified(access, row.password if row is not None else None, password)
    if row is None:
        raise Unauthenticated(_WRONG)
    person_id = row.id
    await access.database.write(lambda s: _count(s, person_id, None if good else now))
    if not good:
        raise Unauthenticated(_WRONG)
    return await _open(access, store.person_of(row))


def _verified(access: Access, stored: str | None, password: str) -> bool:
    try:
        return access.hasher.verify(stored or access.nobody, password) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def _count(session: Session, person_id: str, failed_at: datetime | None) -> None:
    row = session.get(PersonRow, person_id)
    if row is not None:
        row.failures = 0 if failed_at is None else row.failures + 1
        row.failed_at = failed_at
        session.add(row)


async def sign_in_by_link(access: Access, secret: str) -> OpenSession:
    """Open a session by a one-time link.

    Raises:
        Unauthenticated: The link is unknown, used or too old.
    """
    now = access.clock.now()
    row = await access.database.write(lambda s: store.use_link(s, secret, now))
    if row is None:
        raise Unauthenticated("This link was used before, or is too old", todo="Make a new one with: arcuate signin")
    return await _open(access, store.person_of(row))


async def _open(access: Access, person: Person) -> OpenSession:
    secret = new_secret()
    expires = access.clock.now() + timedelta(hours=access.settings.session_hours)
    row = SessionRow(fingerprint=fingerprint(secret), person_id=person.id, expires=expires)
    await access.database.write(lambda s: s.add(row))
    return OpenSession(secret, person, expires)


async def sign_out(access: Access, secret: str) -> None:
    """End a session; an unknown one is no error."""
    await access.database.write(lambda s: store.end_session(s, secret))


async def set_password(access: Access, secret: str, password: str) -> None:
    """Set the password of the session's person.

    Raises:
        BadInput: It is too short.
        Unauthenticated: The session has ended.
    """
    if len(password) < access.settings.password_length:
        raise BadInput(f"The password needs at least {access.settings.password_length} characters", where="password")
    hashed, now = access.hasher.hash(password), access.clock.now()

    def write(session: Session) -> None:
        row = store.session_person(session, secret, now)
        if row is None:
            raise Unauthenticated("The session has ended", todo="Sign in again.")
        row.password = hashed
        session.add(row)

    await access.database.write(write)


async def add_person(access: Access, name: str, roles: list[str]) -> Person:
    """Add a person, who then enters by a link.

    Raises:
        BadInput: No name, or an unknown role.
        Conflict: The name is taken.
    """
    if not name.strip():
        raise BadInput("A person needs a name", where="name")
    row = PersonRow(id=secrets.token_hex(8), name=name.strip(), roles=" ".join(sorted(roles_of(roles))))
    try:
        await access.database.write(lambda s: s.add(row))
    except IntegrityError as error:
        raise Conflict("This name is taken", where="name", todo="Choose another name.") from error
    return store.person_of(row)


async def new_link(access: Access, person_id: str) -> str:
    """Return the secret of a new one-time link for a person.

    Raises:
        NotFound: No such person.
    """
    secret = new_secret()
    expires = access.clock.now() + timedelta(hours=access.settings.link_hours)

    def write(session: Session) -> None:
        if store.get_person(session, person_id) is None:
            raise NotFound("There is no such person", where=f"person {person_id}")
        session.add(LinkRow(fingerprint=fingerprint(secret), person_id=person_id, expires=expires))

    await access.database.write(write)
    return secret


async def first_person(access: Access, roles: list[str]) -> Person:
    """Return the person whom the first start made, making them if nobody is there yet."""
    everybody = await access.database.read(store.people)
    admins = [person for person in everybody if Role.ADMIN in person.roles]
    return admins[0] if admins else await add_person(access, "Administrator", roles)


async def add_client(access: Access, client_id: str, public_key: Mapping[str, Any], roles: list[str]) -> None:
    """Register an outside client by its public key.

    Raises:
        BadInput: The key is no public P-256 key, or a role is unknown.
        Conflict: The id is taken.
    """
    if "d" in public_key or public_key.get("kty") != "EC" or public_key.get("crv") != "P-256":
        raise BadInput("A client registers the public part of a P-256 key", where="public_key")
    row = ClientRow(id=client_id, public_key=json.dumps(dict(public_key)), roles=" ".join(sorted(roles_of(roles))))
    try:
        await access.database.write(lambda s: s.add(row))
    except IntegrityError as error:
        raise Conflict("This client id is taken", where="id") from error
