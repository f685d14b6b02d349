"""Entering the house: links, passwords, tokens, and what is refused."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from arcuate.access import service
from arcuate.access.app import open_room
from arcuate.access.domain import ISSUER
from arcuate.access.settings import AccessSettings
from arcuate.kernel.auth import Authenticator, Principal, Role, tokens
from arcuate.kernel.auth.client import ASSERTION_TYPE, TOKEN_PATH, RoomAuth
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Unauthenticated
from arcuate.kernel.room import RoomContext
from arcuate.kernel.settings import SiteSettings


@dataclass
class House:
    """The access room and a room that calls it."""

    access: service.Access
    authenticator: Authenticator
    as_room: httpx.AsyncClient
    bare: httpx.AsyncClient
    room_key: ECKey


@pytest.fixture
async def house(tmp_path: Path, clock: ManualClock) -> AsyncIterator[House]:
    keys = tmp_path / "keys"
    room_key = tokens.load_or_make_key(keys / "dashboard.json", "dashboard")
    (tmp_path / "access").mkdir()

    async def key_set() -> dict[str, Any]:
        return dict((await bare.get("/auth/jwks")).json())

    authenticator = Authenticator(key_set, ISSUER, clock)
    context = RoomContext(
        "access", tmp_path / "access", tmp_path, tmp_path, clock, SiteSettings(time_zone="Europe/Zurich"), authenticator,
        httpx.AsyncClient(), Database(f"sqlite:///{tmp_path}/access/access.db"),
    )  # fmt: skip
    room = await open_room(context, AccessSettings())
    transport = httpx.ASGITransport(room.app)
    bare = httpx.AsyncClient(transport=transport, base_url="http://house")
    auth = RoomAuth("dashboard", room_key, bare, clock)
    as_room = httpx.AsyncClient(transport=transport, base_url="http://house", auth=auth)
    yield House(room.app.state.access, authenticator, as_room, bare, room_key)
    context.database.close()


async def link_for(house: House, *roles: str) -> str:
    person = await service.add_person(house.access, f"Reader {secrets.token_hex(2)}", list(roles))
    return await service.new_link(house.access, person.id)


async def test_a_one_time_link_opens_one_session_and_never_a_second(house: House) -> None:
    link = await link_for(house, "radiologist")

    first = await house.as_room.post("/auth/sign-in", json={"link": link})
    second = await house.as_room.post("/auth/sign-in", json={"link": link})

    assert first.status_code == 200
    assert first.json()["person"]["roles"] == ["radiologist"]
    assert second.status_code == 401
    assert second.json()["issue"][0]["code"] == "login"


async def test_a_link_that_is_too_old_is_refused(house: House, clock: ManualClock) -> None:
    link = await link_for(house, "scheduler")
    clock.advance(25 * 3600)

    assert (await house.as_room.post("/auth/sign-in", json={"link": link})).status_code == 401


async def test_the_dashboard_acts_with_the_rights_of_the_person_not_its_own(house: House) -> None:
    opened = (await house.as_room.post("/auth/sign-in", json={"link": await link_for(house, "scheduler")})).json()

    form = {"grant_type": "urn:arcuate:session", "session": opened["session"]}
    answer = (await house.as_room.post("/auth/token", data=form)).json()
    principal = await house.authenticator.authenticate(f"Bearer {answer['access_token']}")

    assert principal.roles == {Role.SCHEDULER}
    assert not principal.is_room
    assert principal.client == "dashboard"
    assert principal.subject == opened["person"]["id"]


async def test_a_session_alone_gives_no_token(house: House) -> None:
    opened = (await house.as_room.post("/auth/sign-in", json={"link": await link_for(house, "scheduler")})).json()
    form = {"grant_type": "urn:arcuate:session", "session": opened["session"]}

    assert (await house.bare.post("/auth/token", data=form)).status_code == 401


async def test_after_sign_out_and_after_the_session_ended_no_token_is_given(house: House, clock: ManualClock) -> None:
    for end in ("sign-out", "time"):
        opened = (await house.as_room.post("/auth/sign-in", json={"link": await link_for(house, "lead")})).json()
        if end == "sign-out":
            await house.as_room.post("/auth/sign-out", json={"session": opened["session"]})
        else:
            clock.advance(13 * 3600)
        form = {"grant_type": "urn:arcuate:session", "session": opened["session"]}
        assert (await house.as_room.post("/auth/token", data=form)).status_code == 401


async def test_unknown_name_and_wrong_password_get_the_same_words_and_then_have_to_wait(
    house: House, clock: ManualClock
) -> None:
    opened = (await house.as_room.post("/auth/sign-in", json={"link": await link_for(house, "lead")})).json()
    name = opened["person"]["name"]
    assert (
        await house.as_room.post("/auth/password", json={"session": opened["session"], "password": "short"})
    ).status_code == 400
    await house.as_room.post("/auth/password", json={"session": opened["session"], "password": "a long sentence"})

    unknown = await house.as_room.post("/auth/sign-in", json={"name": "Nobody", "password": "a long sentence"})
    wrong = [await house.as_room.post("/auth/sign-in", json={"name": name, "password": "wrong"}) for _ in range(5)]
    right_too_soon = await house.as_room.post("/auth/sign-in", json={"name": name, "password": "a long sentence"})
    clock.advance(61)
    right = await house.as_room.post("/auth/sign-in", json={"name": name, "password": "a long sentence"})

    assert unknown.json() == wrong[0].json()
    assert {401} == {r.status_code for r in wrong}
    assert right_too_soon.status_code == 429
    assert right.status_code == 200


async def test_an_assertion_is_taken_once(house: House, clock: ManualClock) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": tokens.assertion(house.room_key, "dashboard", TOKEN_PATH, clock.now()),
    }
    statuses = [(await house.bare.post("/auth/token", data=form)).status_code for _ in range(2)]

    assert statuses == [200, 401]


async def test_a_client_signed_by_another_key_gets_no_token(house: House, clock: ManualClock) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": tokens.assertion(tokens.new_key("x"), "dashboard", TOKEN_PATH, clock.now()),
    }
    assert (await house.bare.post("/auth/token", data=form)).status_code == 401


async def test_people_are_added_by_an_admin_only(house: House) -> None:
    body = {"name": "New reader", "roles": ["radiologist"]}
    assert (await house.bare.post("/auth/people", json=body)).status_code == 401

    for role, status in ((Role.RADIOLOGIST, 403), (Role.ADMIN, 201)):
        token = service.token_for(house.access, Principal("p", frozenset({role}), "p"))["access_token"]
        answer = await house.bare.post("/auth/people", json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status


def _forgeries(key: ECKey, clock: ManualClock) -> dict[str, str]:
    now = int(clock.now().timestamp())
    good = {"iss": ISSUER, "aud": "arcuate", "sub": "p", "roles": ["admin"], "iat": now, "nbf": now, "exp": now + 300}
    header = {"alg": "ES256", "kid": key.kid}
    hs = OctKey.generate_key(256)
    return {
        "expired": jwt.encode(header, {**good, "exp": now - 1}, key),
        "not yet": jwt.encode(header, {**good, "nbf": now + 600}, key),
        "other issuer": jwt.encode(header, {**good, "iss": "https://evil.example"}, key),
        "other audience": jwt.encode(header, {**good, "aud": "other"}, key),
        "no expiry": jwt.encode(header, {k: v for k, v in good.items() if k != "exp"}, key),
        "other key, same kid": jwt.encode(header, good, ECKey.generate_key("P-256", {"kid": str(key.kid)})),
        "kid is a path": jwt.encode({"alg": "ES256", "kid": "../../keys"}, good, tokens.new_key("x")),
        "key sent along": jwt.encode(
            {"alg": "ES256", "jwk": tokens.new_key("x").as_dict(private=False)}, good, tokens.new_key("x")
        ),
        "HMAC instead of a signature": jwt.encode(
            {"alg": "HS256", "kid": str(key.kid)}, good, hs, algorithms=["HS256"]
        ),
        "alg none": "eyJhbGciOiJub25lIn0." + jwt.encode(header, good, key).split(".")[1] + ".",
        "garbage": "x.y.z",
        "too long": "a" * 10_000,
    }


async def test_f078_forged_tokens_are_refused(house: House, clock: ManualClock) -> None:
    for name, token in _forgeries(house.access.signing_key, clock).items():
        with pytest.raises(Unauthenticated):
            await house.authenticator.authenticate(f"Bearer {token}")
            pytest.fail(f"taken: {name}")
