"""What every page works with: who is signed in, the other rooms for them, and the frame around the page."""

from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from arcuate.dashboard import store
from arcuate.dashboard.domain.frame import Viewer
from arcuate.dashboard.news import News
from arcuate.dashboard.render import Frame, Renderer
from arcuate.dashboard.rooms import Rooms, Silences, client_for
from arcuate.dashboard.sessions import COOKIE, Sessions, SignedIn, viewer_of
from arcuate.dashboard.settings import DashboardSettings
from arcuate.dashboard.words import Wording
from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import BadInput, Unauthenticated
from arcuate.kernel.room import RoomContext
from arcuate.kernel.web import Allow

THEME_COOKIE = "arcuate_theme"
_SAFE = frozenset({"GET", "HEAD"})
_FORM_BYTES = 12 * 1024 * 1024


@dataclass(frozen=True)
class Desk:
    """The room's parts."""

    context: RoomContext
    settings: DashboardSettings
    sessions: Sessions
    renderer: Renderer
    news: News
    silences: Silences

    @property
    def words(self) -> Wording:
        """Return the wording of this moment."""
        return Wording(self.context.clock.now(), self.context.site.zone)

    async def viewer(self, request: Request, page: str) -> Viewer:
        """Return the person as templates know them."""
        signed_in = signed_in_of(request)
        person = signed_in.principal.subject
        keys = await self.context.database.read(lambda s: store.letter_keys(s, person))
        theme = self.renderer.theme_of(page, request.cookies.get(theme_cookie(person), ""))
        return viewer_of(signed_in, theme, letter_keys=keys)

    async def rooms(self, request: Request) -> Rooms:
        """Return the other rooms as this person may see them.

        Raises:
            Unauthenticated: The access room has ended the session.
        """
        token = await self.sessions.token(signed_in_of(request))
        # What comes in after its page may take longer: the person reads meanwhile.
        later = is_live(request) or by_script(request)
        limit_s = self.settings.later_limit_s if later else self.settings.part_limit_s
        return Rooms(client_for(self.context.http, token), self.silences, limit_s)

    async def frame(self, request: Request, page: str, title: str, **more: Any) -> Frame:
        """Return what stands around a page."""
        return Frame(page, title, await self.viewer(request, page), self.words, path=request.url.path, **more)


def theme_cookie(person_id: str) -> str:
    """Return the name of the cookie in which a workstation keeps a person's theme."""
    return f"{THEME_COOKIE}_{person_id}"


def signed_in_of(request: Request) -> SignedIn:
    """Return the session that `SignedInOnly` has found."""
    signed_in: SignedIn = request.state.signed_in
    return signed_in


def is_live(request: Request) -> bool:
    """Return whether the page asks by itself, without a person's key or click."""
    return request.headers.get("x-live") == "1"


class SignedInOnly(Allow):
    """The guard of pages: a session by cookie; writes carry the session's mark besides.

    What a person may see and do is judged by the rooms, which get the person's own token.
    """

    def __init__(self, sessions: Sessions) -> None:
        super().__init__()
        self._sessions = sessions

    async def __call__(self, request: Request) -> Principal:
        """Find the session.

        Raises:
            Unauthenticated: There is none.
            BadInput: A write without the session's mark, or from another site.
        """
        cookie = request.cookies.get(COOKIE, "")
        if not cookie:
            raise Unauthenticated("You are not signed in", todo="Sign in.")
        signed_in = await self._sessions.find(cookie, live=is_live(request))
        if request.method not in _SAFE:
            check_origin(request)
            given = request.headers.get("x-csrf-token") or str((await form_of(request)).get("csrf") or "")
            signed_in.check_csrf(given)
        request.state.signed_in = signed_in
        request.state.principal = signed_in.principal
        return signed_in.principal


def check_origin(request: Request) -> None:
    """Refuse a write that another site began.

    Raises:
        BadInput: The browser says that it comes from elsewhere.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        raise BadInput("This form was sent from another site", where="Sec-Fetch-Site", todo="Open the page itself.")


async def form_of(request: Request) -> Any:
    """Return the fields of a form."""
    if int(request.headers.get("content-length") or 0) > _FORM_BYTES:
        raise BadInput("The form is too large", todo="Send less at once.")
    return await request.form(max_files=0, max_fields=60, max_part_size=_FORM_BYTES)


def see_other(path: str) -> Response:
    """Return the answer to a form without script: look there."""
    return RedirectResponse(path, 303)


def by_script(request: Request) -> bool:
    """Return whether htmx sent this request and wants a part, not a page."""
    return request.headers.get("hx-request") == "true"
