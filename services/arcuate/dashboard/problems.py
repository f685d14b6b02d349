"""Errors as pages: what happened, what to do, a short reference; never a code alone, no trace."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from arcuate.dashboard.desk import Desk, by_script, is_live
from arcuate.dashboard.domain.frame import Mark, Notice
from arcuate.kernel.errors import ArcuateError

_HEADS = {
    400: "This could not be done", 401: "You are not signed in", 403: "This is not for your role", 404: "There is nothing here",
    405: "There is nothing here", 409: "It has changed meanwhile", 410: "It is no longer here", 412: "It has changed meanwhile",
    429: "Too often", 503: "A room does not answer",
}  # fmt: skip

Handler = Callable[[Request, Any], Awaitable[Response]]


def add_pages(app: FastAPI, desk: Desk) -> None:
    """Answer people with pages; scripts keep the OperationOutcome that every room gives."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _for_people(desk, handler)


def _for_people(desk: Desk, inner: Any) -> Handler:
    async def handle(request: Request, error: Any) -> Response:
        response: Response = await inner(request, error)
        if not _wants_page(request):
            return response
        if response.status_code == 401:
            return _to_sign_in(request)
        what, todo = _said(error, response)
        return await problem(desk, request, response.status_code, what, todo)

    return handle


def _wants_page(request: Request) -> bool:
    return by_script(request) or (not is_live(request) and "text/html" in request.headers.get("accept", ""))


def _to_sign_in(request: Request) -> Response:
    if by_script(request):
        return Response(status_code=401, headers={"HX-Redirect": "/sign-in?ended=1"})
    # Only the path: a query could hold what somebody searched for.
    then = request.url.path if request.method == "GET" and request.url.path != "/" else ""
    return RedirectResponse(f"/sign-in?then={quote(then)}" if then else "/sign-in", 303)


def _said(error: Any, response: Response) -> tuple[str, str]:
    if isinstance(error, ArcuateError):
        return error.what, error.todo
    outcome = json.loads(bytes(response.body) or b"{}")
    first = (outcome.get("issue") or [{}])[0]
    return ("" if response.status_code == 404 else str(first.get("diagnostics") or "")), ""


async def problem(desk: Desk, request: Request, status: int, what: str, todo: str) -> Response:
    """Return a page, or a line for a part, that says what happened and what to do."""
    head = _HEADS.get(status, "Something went wrong")
    notice = Notice(f"{head}.", f"{what} {todo}".strip(), Mark.STOP)
    if by_script(request):
        return HTMLResponse(desk.renderer.text("said.html", notice=notice, oob=True), status)
    if not hasattr(request.state, "signed_in"):
        await _look_for_session(desk, request)
    if hasattr(request.state, "signed_in"):
        frame = await desk.frame(request, "problem", head)
        return desk.renderer.page("problem.html", frame, status, what=what, todo=todo)
    return HTMLResponse(
        desk.renderer.text("entry/problem.html", head=head, what=what, todo=todo, theme="light"), status
    )


async def _look_for_session(desk: Desk, request: Request) -> None:
    """A wrong address runs no guard: whoever is signed in still gets their own top bar."""
    from arcuate.dashboard.sessions import COOKIE

    try:
        request.state.signed_in = await desk.sessions.find(request.cookies.get(COOKIE, ""), live=True)
    except ArcuateError:
        return
