"""The web door of the access room."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from arcuate import access as package
from arcuate.access import service, store
from arcuate.access.domain import OpenSession, Person
from arcuate.access.service import Access
from arcuate.access.settings import AccessSettings
from arcuate.kernel.auth import Role
from arcuate.kernel.auth.client import ASSERTION_TYPE
from arcuate.kernel.errors import BadInput, Forbidden
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, open_to_all, read_json

SESSION_GRANT = "urn:arcuate:session"

_FORM_LIMIT = 16 * 1024


async def open_room(context: RoomContext, settings: AccessSettings | None = None) -> Room:
    """Build the room; its keys lie in `keys/` beside the rooms' folders."""
    context.database.migrate(package)
    access = service.make(
        context.database, context.clock, settings or AccessSettings(), context.data_dir.parent / "keys"
    )
    app = create_app(context, "Arcuate access")
    app.state.access = access
    _add_token_routes(app, context, access)
    _add_session_routes(app, access)
    _add_admin_routes(app, access)
    return Room("access", ("/auth",), app)


def _add_token_routes(app: FastAPI, context: RoomContext, access: Access) -> None:
    @app.get("/auth/jwks", dependencies=[open_to_all])
    async def jwks() -> dict[str, Any]:
        return service.key_set(access)

    @app.post("/auth/token", dependencies=[open_to_all])
    async def token(request: Request) -> dict[str, Any]:
        form = await request.form(max_files=0, max_fields=10, max_part_size=_FORM_LIMIT)
        grant = str(form.get("grant_type") or "")
        if grant == "client_credentials" and form.get("client_assertion_type") == ASSERTION_TYPE:
            return await service.token_by_assertion(access, str(form.get("client_assertion") or ""))
        if grant == SESSION_GRANT:
            acting = await context.authenticator.authenticate(request.headers.get("authorization"))
            if not acting.is_room:
                raise Forbidden("Only a room may act for the person of a session")
            return await service.token_by_session(access, str(form.get("session") or ""), acting)
        raise BadInput(
            "This grant is not known", where="grant_type", todo="Use client_credentials with a signed client assertion."
        )


def _add_session_routes(app: FastAPI, access: Access) -> None:
    @app.post("/auth/sign-in", dependencies=[allow()])
    async def sign_in(request: Request) -> dict[str, Any]:
        body = await read_json(request, _FORM_LIMIT)
        if "link" in body:
            return _session_json(await service.sign_in_by_link(access, str(body["link"])))
        return _session_json(
            await service.sign_in(access, str(body.get("name") or ""), str(body.get("password") or ""))
        )

    @app.post("/auth/sign-out", dependencies=[allow()])
    async def sign_out(request: Request) -> Response:
        await service.sign_out(access, str((await read_json(request, _FORM_LIMIT)).get("session") or ""))
        return Response(status_code=204)

    @app.post("/auth/password", dependencies=[allow()])
    async def password(request: Request) -> Response:
        body = await read_json(request, _FORM_LIMIT)
        await service.set_password(access, str(body.get("session") or ""), str(body.get("password") or ""))
        return Response(status_code=204)


def _add_admin_routes(app: FastAPI, access: Access) -> None:
    @app.get("/auth/people", dependencies=[allow(Role.ADMIN)])
    async def people() -> list[dict[str, Any]]:
        return [_person_json(person) for person in await access.database.read(store.people)]

    @app.post("/auth/people", dependencies=[allow(Role.ADMIN)])
    async def add_person(request: Request) -> Response:
        body = await read_json(request, _FORM_LIMIT)
        person = await service.add_person(access, str(body.get("name") or ""), list(body.get("roles") or []))
        return JSONResponse(_person_json(person), 201)

    @app.post("/auth/people/{person_id}/link", dependencies=[allow(Role.ADMIN)])
    async def link(person_id: str) -> dict[str, str]:
        return {"link": await service.new_link(access, person_id)}

    @app.post("/auth/clients", dependencies=[allow(Role.ADMIN)])
    async def add_client(request: Request) -> Response:
        body = await read_json(request, _FORM_LIMIT)
        await service.add_client(
            access, str(body.get("id") or ""), body.get("public_key") or {}, list(body.get("roles") or [])
        )
        return Response(status_code=201)


def _person_json(person: Person) -> dict[str, Any]:
    return {"id": person.id, "name": person.name, "roles": sorted(person.roles), "has_password": person.has_password}


def _session_json(opened: OpenSession) -> dict[str, Any]:
    return {"session": opened.secret, "person": _person_json(opened.person), "expires": opened.expires.isoformat()}
