"""Today's board: scanners as columns on a time axis, what to do next, who waits here."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, service, visits
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain import agenda, board
from arcuate.dashboard.domain.agenda import Held, Todo
from arcuate.dashboard.domain.board import Free, Lane, Limits, Placed, Scale, Visit
from arcuate.dashboard.domain.frame import Fact, Silent
from arcuate.dashboard.pages.ledger import Ledger, read_ledger
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording
from arcuate.kernel.errors import ArcuateError, Json

PARTS = ("facts", "board", "next", "waiting", "picked")
_SHOWN_TODOS = 4
_NO_CHANCES = "Chances shown are those of the last forecast."


@dataclass(frozen=True)
class Today:
    """What the board shows.

    Attributes:
        cancelled: Visits of today that are not drawn.
        warning: What must be known of the model behind the chances.
        picked: The visit that is shown in the side column.
        as_list: The same facts as a table.
    """

    words: Wording
    limits: Limits
    day: list[Lane] = field(default_factory=list)
    cancelled: int = 0
    held: tuple[Held, ...] = ()
    warning: str = ""
    silent: tuple[Silent, ...] = ()
    board_silent: Silent | None = None
    picked: Visit | None = None
    as_list: bool = False
    next_day: str = ""

    @property
    def scale(self) -> Scale:
        """Return the time axis."""
        return board.scale_of(self.day, self.words.now)

    @property
    def opening_y(self) -> float:
        """Return where the board's window begins."""
        return board.opening_y(self.day, self.scale, self.words.now)

    def slots(self, lane: Lane) -> list[Placed]:
        """Return a scanner's slots on the axis."""
        return board.placed(lane, self.scale, self.words.now, self.limits)

    def rows(self) -> list[Placed]:
        """Return all visits by time, for the list."""
        rows = [slot for lane in self.day for slot in self.slots(lane)]
        return sorted(rows, key=lambda s: (s.visit.start, s.visit.scanner))

    @property
    def todos(self) -> list[Todo]:
        """Return what to do next."""
        return agenda.do_next(self.day, self.held, self.words.now, self.limits, self.words.clock)

    @property
    def shown_todos(self) -> int:
        """Return how many of them are shown: four."""
        return _SHOWN_TODOS

    @property
    def here(self) -> list[Visit]:
        """Return who waits here, longest first."""
        waiting = [v for lane in self.day for v in lane.visits if v.is_here]
        return sorted(waiting, key=lambda v: v.arrived or self.words.now)

    def places(self, visit: Visit) -> list[Free]:
        """Return where a visit could move today."""
        return agenda.places_for(visit, self.day, self.words.now)

    def more(self, visit: Visit) -> str:
        """Return how long somebody may still wait."""
        return agenda.more_minutes(visit, self.words.now)

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line: what is wrong first, five at most."""
        here, done, total, missed, free = board.summary(self.day)
        late = [
            Fact(f"{lane.late} min late", lane.scanner, "look", before=True)
            for lane in self.day
            if lane.late >= self.limits.late_min
        ]
        held = [Fact(str(len(self.held)), "held", "stop", href="/cases?show=held")] if self.held else []
        rest = [
            Fact(str(here), "waiting here"), Fact(str(done), f"of {total} done"), Fact(str(missed), "missed"),
            Fact(str(free), "min free to fill"),
        ]  # fmt: skip
        return ([*held, *late, *rest] if self.day else held)[:5]


async def read_today(desk: Desk, rooms: Rooms, picked: str = "", *, as_list: bool = False) -> Today:
    """Ask the rooms for everything that the board shows."""
    words, settings = desk.words, desk.settings
    limits = Limits(settings.shown_from, settings.marked_from, settings.free_min, settings.late_min)
    today = words.now.astimezone(words.zone).date()
    day, ledger, line, status = await asyncio.gather(
        rooms.part("record", visits.read_day(rooms, today), "Nothing can be shown of today's visits."),
        rooms.part("journey", read_ledger(rooms), "Held images and links to cases are missing."),
        rooms.part("scheduling", rooms.get("/scheduling/waiting"), "Waits are counted from the record's own times."),
        rooms.part("scheduling", rooms.get("/scheduling/status"), _NO_CHANCES),
    )
    silent = _silent(ledger, line, status)
    if day.value is None:
        return Today(words, limits, board_silent=day.silent, silent=silent, as_list=as_list)
    cases = ledger.or_else(Ledger())
    found = visits.visits_of(day.value, cases.by_order, _arrivals(line.or_else({})), words)
    lanes = board.lanes(found, words.now, limits)
    gone = sum(a.get("status") == "cancelled" for a in day.value.appointments)
    held = tuple(Held(c.id, c.accession, c.held) for c in cases.cases if c.held)
    shown = next((v for v in found if v.id == picked), None)
    made = Today(words, limits, lanes, gone, held, _warning(status.or_else({})), silent, picked=shown, as_list=as_list)
    return made if found else replace(made, next_day=await _next_day(rooms, words))


def _silent(*parts: Part[Any]) -> tuple[Silent, ...]:
    """Return who does not answer, each room once; a room that says no is not silent."""
    found = {p.silent.room: p.silent for p in parts if p.silent is not None and p.silent.asked_again}
    return tuple(found.values())


def _arrivals(line: Mapping[str, Any]) -> dict[str, datetime]:
    rows = line.get("waiting") or []
    return {str(r["appointment"]): at for r in rows if (at := facts.instant(r.get("arrived_at")))}


def _warning(status: Mapping[str, Any]) -> str:
    model: Json = (status.get("models") or {}).get("attendance") or {}
    if model.get("synthetic"):
        return "Chances come from a model trained on synthetic data until this site has trained on its own."
    return str(model.get("warning") or "")


async def _next_day(rooms: Rooms, words: Wording) -> str:
    """Return when the next visit is, for a day without any."""
    query = {"date": f"ge{words.now.isoformat()}", "_sort": "date", "_count": "1", "status": "booked"}
    part = await rooms.part("record", _first(rooms, query))
    start = facts.instant((part.value or {}).get("start"))
    return "" if start is None else f"{start.astimezone(words.zone):%a} {words.when(start)}"


async def _first(rooms: Rooms, query: dict[str, str]) -> Json:
    async for found in rooms.fhir.pages("Appointment", query):
        return found
    return {}


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the board's routes."""
    signed_in = [Depends(guard)]

    async def seen(request: Request) -> tuple[Frame, Today, Rooms]:
        rooms = await desk.rooms(request)
        query = request.query_params
        view = await read_today(desk, rooms, query.get("visit", ""), as_list=query.get("view") == "list")
        title = f"Today, {view.words.today}"
        return await desk.frame(request, "today", title), view, rooms

    @app.get("/today", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view, _ = await seen(request)
        if by_script(request):  # a slot was clicked: only what the side column says of it
            return desk.renderer.parts("today", frame, ["picked"], view=view)
        return desk.renderer.page("today/page.html", frame, view=view)

    @app.get("/today/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view, _ = await seen(request)
        return desk.renderer.parts("today", frame, [n for n in names.split(",") if n in PARTS], view=view)

    @app.post("/today/visit/{appointment_id}/ask", dependencies=signed_in)
    async def ask(request: Request, appointment_id: str) -> Response:
        form = await form_of(request)
        viewer = await desk.viewer(request, "today")
        rooms = await desk.rooms(request)
        try:
            said = await service.ask_ris(
                rooms, viewer, desk.words, appointment_id, str(form.get("kind") or ""), str(form.get("to") or ""),
                str(form.get("reason") or ""),
            )  # fmt: skip
        except ArcuateError as error:
            if not by_script(request):
                raise
            said = service.refused(error)
        if not by_script(request):
            return see_other(f"/today?visit={appointment_id}")
        view = await read_today(desk, rooms, appointment_id)
        frame = await desk.frame(request, "today", "Today")
        return desk.renderer.parts("today", frame, ["picked", "said"], view=view, notice=said)
