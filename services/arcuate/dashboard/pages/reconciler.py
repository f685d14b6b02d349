"""The reconciler's lists: what does not move, was never scheduled, has no order, or was acknowledged and not filed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, service
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Silent
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording, listed
from arcuate.kernel.errors import ArcuateError, NotFound

PARTS = ("facts", "lists", "why")
_SHOWN = 50
_SHORT = {
    "held": "held", "stuck": "standing still", "never_scheduled": "never scheduled", "orphaned": "without an order", "not_filed": "not filed",
    "failed": "not brought forward",
}  # fmt: skip
_STOP = frozenset({"held", "not_filed", "failed"})


@dataclass(frozen=True)
class Entry:
    """One row of a list.

    Attributes:
        id: Marks the row in an address; an id of the ledger or of the gateway.
        what: Accession number, or the kind of message and its sender.
        stands: Where it stands, in a word.
        href: The page on which it is settled; empty where there is none.
        case: Id of its case, for another try; empty for a message.
    """

    id: str
    what: str
    stands: str
    since: datetime | None
    why: str
    waits_for: str = ""
    due: datetime | None = None
    href: str = ""
    case: str = ""


@dataclass(frozen=True)
class Listing:
    """One list with its whole count."""

    name: str
    title: str
    count: int
    entries: Sequence[Entry]

    @property
    def tone(self) -> str:
        """Return how strongly it is marked."""
        return "" if not self.count else "stop" if self.name in _STOP else "look"


@dataclass(frozen=True)
class Reconciler:
    """What the page shows.

    Attributes:
        away: Rooms that did not answer, whose rows are missing.
        complete: Whether every case that is late is on a list.
    """

    words: Wording
    lists: Sequence[Listing] = ()
    picked: Entry | None = None
    picked_list: str = ""
    away: str = ""
    complete: bool = True
    silent: Silent | None = None

    @property
    def total(self) -> int:
        """Return how many rows there are on all lists."""
        return sum(one.count for one in self.lists)

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line: only what is not empty."""
        found = [Fact(f"{one.count:,}", _SHORT.get(one.name, one.title), one.tone) for one in self.lists if one.count]
        return found[:5]


async def read_reconciler(desk: Desk, rooms: Rooms, picked: str) -> Reconciler:
    """Ask journey for its lists."""
    words = desk.words
    part = await rooms.part("journey", rooms.get("/journey/reconciler"), "What stands still cannot be seen from here.")
    if part.value is None:
        return Reconciler(words, silent=part.silent)
    lists = [_listing(row) for row in part.value["lists"]]
    rows = [(entry, one.title) for one in lists for entry in one.entries]
    at, title = next((r for r in rows if r[0].id == picked), rows[0] if rows else (None, ""))
    away = listed([str(name) for name in part.value.get("silent") or []])
    return Reconciler(words, lists, at, title, away, bool(part.value.get("complete", True)))


def _listing(row: Mapping[str, Any]) -> Listing:
    entries = [_entry(item) for item in row["items"][:_SHOWN]]
    return Listing(str(row["name"]), str(row["title"]), int(row["count"]), entries)


def _entry(item: Mapping[str, Any]) -> Entry:
    since, why = facts.instant(item.get("since")), str(item.get("why") or "")
    if "item" not in item:
        case = str(item.get("case") or "")
        what = f"Accession {item['accession']}" if item.get("accession") else f"Case {case}"
        return Entry(
            case, what, str(item.get("stage") or ""), since, why, str(item.get("waits_for") or ""), facts.instant(item.get("due")),
            f"/case/{case}" if case else "", case,
        )  # fmt: skip
    number = str(item["item"])
    sender = str(item.get("sender") or "").split("|", maxsplit=1)[0].split("^", maxsplit=1)[0]
    what = f"{item.get('kind') or 'no type'}{f' from {sender}' if sender else ''}"
    # Studies are settled on their case; only the gateway's own messages stand in the error queue.
    href = f"/errors/{number}" if number.startswith("in-") and item.get("state") != "waiting" else ""
    return Entry(number, what, str(item.get("cause") or item.get("state") or ""), since, why, href=href)


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the reconciler."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, picked: str = "") -> tuple[Frame, Reconciler]:
        at = picked or request.query_params.get("at", "")
        view = await read_reconciler(desk, await desk.rooms(request), at)
        return await desk.frame(request, "reconciler", "Reconciler", counts={"reconciler": view.total}), view

    @app.get("/reconciler", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("reconciler/page.html", frame, view=view)

    @app.get("/reconciler/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("reconciler", frame, [n for n in names.split(",") if n in PARTS], view=view)

    @app.post("/reconciler/{case_id}/again", dependencies=signed_in)
    async def again(request: Request, case_id: str) -> Response:
        await form_of(request)
        if not case_id.isalnum():
            raise NotFound("There is no such case")
        try:
            said = await service.look_again(await desk.rooms(request), case_id)
        except ArcuateError as error:
            said = service.refused(error)
        if not by_script(request):
            return see_other(f"/reconciler?at={case_id}")
        frame, view = await seen(request, case_id)
        return desk.renderer.parts("reconciler", frame, ["facts", "lists", "why", "said"], view=view, notice=said)
