"""Coming in and going out: sign-in by password or one-time link, the first page of a role, a person's own choices."""

from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from starlette.responses import HTMLResponse, Response

from arcuate.dashboard import store
from arcuate.dashboard.desk import Desk, check_origin, form_of, see_other, signed_in_of, theme_cookie
from arcuate.dashboard.domain.frame import Mark, Notice
from arcuate.dashboard.sessions import COOKIE
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError, Unauthenticated, Unavailable
from arcuate.kernel.web import open_to_all

_YEAR_S = 365 * 86400
_ENDED = "You were signed out after a time without a key. Nothing is lost: what was done is kept."
# The first page of a person: the first role of this order that they hold decides.
FIRST_PAGES = (
    (Role.SCHEDULER, "/today"), (Role.RADIOLOGIST, "/list"), (Role.TECHNOLOGIST, "/today"), (Role.LEAD, "/list"),
    (Role.INTEGRATION, "/connections"), (Role.ADMIN, "/connections"), (Role.QUALITY, "/cases"),
)  # fmt: skip


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of coming in and going out."""
    _add_sign_in(app, desk)
    _add_first_page(app, desk, guard)
    _add_me(app, desk, guard)


def _sign_in_page(desk: Desk, *, status: int = 200, **values: Any) -> Response:
    known = {"wrong": "", "ended": "", "then": "", "name": "", "link": "", **values}
    return HTMLResponse(desk.renderer.text("entry/sign_in.html", theme="light", **known), status)


def _add_sign_in(app: FastAPI, desk: Desk) -> None:
    @app.get("/sign-in", dependencies=[open_to_all])
    async def page(token: str = "", then: str = "", ended: str = "") -> Response:
        # A link is used up by a click on the page, not by opening its address: programs that look at links use nothing up.
        return _sign_in_page(desk, link=token, then=_local(then), ended=_ENDED if ended else "")

    @app.post("/sign-in", dependencies=[open_to_all])
    async def sign_in(request: Request) -> Response:
        check_origin(request)
        form = await form_of(request)
        link, name, then = (
            str(form.get("link") or ""),
            str(form.get("name") or "").strip(),
            _local(str(form.get("then") or "")),
        )
        what = {"link": link} if link else {"name": name, "password": str(form.get("password") or "")}
        try:
            cookie, _ = await desk.sessions.open(what)
        except Unauthenticated as error:
            return _sign_in_page(desk, status=401, wrong=str(error), name=name, then=then)
        except Unavailable as error:
            return _sign_in_page(desk, status=503, wrong=str(error), name=name, then=then, link=link)
        except ArcuateError as error:
            return _sign_in_page(desk, status=error.status, wrong=str(error), name=name, then=then)
        response = see_other(then or "/")
        _set(response, COOKIE, cookie, desk, None)
        return response


def _local(then: str) -> str:
    """Return where to go after sign-in: only a path of ours."""
    parts = urlsplit(then)
    safe = then.startswith("/") and not then.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return then if safe and not then.startswith(("/sign-in", "/events")) and "/parts" not in then else ""


def _set(response: Response, name: str, value: str, desk: Desk, lasts_s: int | None) -> None:
    response.set_cookie(
        name, value, max_age=lasts_s, path="/", secure=desk.settings.secure_cookie, httponly=True, samesite="strict"
    )


def _add_first_page(app: FastAPI, desk: Desk, guard: Any) -> None:
    @app.get("/", dependencies=[Depends(guard)])
    async def first(request: Request) -> Response:
        roles = signed_in_of(request).principal.roles
        if Role.ADMIN in roles or Role.INTEGRATION in roles:
            rooms = await desk.rooms(request)
            counted = await rooms.part("gateway", rooms.get("/gateway/counts"))
            if counted.value is not None and counted.value.get("messages") == 0:
                return see_other("/start")
        return see_other(next((path for role, path in FIRST_PAGES if role in roles), "/me"))

    @app.post("/sign-out", dependencies=[Depends(guard)])
    async def sign_out(request: Request) -> Response:
        await desk.sessions.close(signed_in_of(request))
        response = see_other("/sign-in")
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response


def _add_me(app: FastAPI, desk: Desk, guard: Any) -> None:
    signed_in = [Depends(guard)]

    @app.get("/me", dependencies=signed_in)
    async def me(request: Request) -> Response:
        return desk.renderer.page("entry/me.html", await desk.frame(request, "me", "You"))

    @app.post("/me/seen", dependencies=signed_in)
    async def seen() -> Response:
        return Response(status_code=204)

    @app.post("/me/theme", dependencies=signed_in)
    async def theme(request: Request) -> Response:
        form = await form_of(request)
        response = see_other(_local(str(form.get("back") or "")) or "/me")
        chosen = str(form.get("theme") or "")
        _set(
            response,
            theme_cookie(signed_in_of(request).principal.subject),
            chosen if chosen == "dark" else "light",
            desk,
            _YEAR_S,
        )
        return response

    @app.post("/me/keys", dependencies=signed_in)
    async def keys(request: Request) -> Response:
        person, on = signed_in_of(request).principal.subject, (await form_of(request)).get("letters") == "on"
        await desk.context.database.write(lambda s: store.set_letter_keys(s, person, on))
        return see_other("/me")

    @app.post("/me/password", dependencies=signed_in)
    async def password(request: Request) -> Response:
        form = await form_of(request)
        try:
            if form.get("password") != form.get("again"):
                notice = Notice("Not kept: the two differ.", "Type the same password twice.", Mark.STOP)
            else:
                await desk.sessions.set_password(signed_in_of(request), str(form.get("password") or ""))
                notice = Notice("Password kept.", "You sign in with it from now on.")
        except ArcuateError as error:
            notice = Notice(f"Not kept: {error.what.rstrip('.')}.", error.todo, Mark.STOP)
        return desk.renderer.page("entry/me.html", await desk.frame(request, "me", "You"), notice=notice)
