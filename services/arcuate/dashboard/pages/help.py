"""The help list: who may not come in the next working days, and why, so that somebody calls in time.

A chance is for offering help, never for a penalty or for booking two people into one slot. What came of a call is not kept here yet: the
list is read, the call is made, and what changes comes back as a booking of the RIS.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import visits
from arcuate.dashboard.desk import Desk
from arcuate.dashboard.domain.board import Visit
from arcuate.dashboard.domain.frame import Fact, Silent
from arcuate.dashboard.pages.ledger import Ledger, read_ledger
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording

PARTS = ("facts", "rows", "why")
_DAYS = 3
_SATURDAY = 5


@dataclass(frozen=True)
class Help:
    """What the page shows.

    Attributes:
        rows: Visits with a model's chance, likeliest to be missed first.
        below: How many more have a smaller chance than those that are listed.
        unranked: Visits for which no model answered: they have the site's rate or no chance, and are only counted.
        picked: The visit that is explained in the side column.
    """

    words: Wording
    days: Sequence[date]
    rows: Sequence[Visit] = ()
    below: int = 0
    unranked: int = 0
    picked: Visit | None = None
    shown_from: float = 0.0
    marked_from: float = 1.0
    silent: Silent | None = None

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        likely = sum(v.chance is not None and v.chance.value >= self.marked_from for v in self.rows)
        made = [Fact(str(_DAYS), "working days ahead")]
        if self.silent is None:
            made += [Fact(str(likely), "likely to be missed", "look" if likely else "")]
            made += [Fact(str(self.unranked), "without a model's chance")] if self.unranked else []
        return made

    def at(self, moment: datetime) -> str:
        """Return a time of the next days with its weekday: "Wed 18, 08:20"."""
        local = moment.astimezone(self.words.zone)
        return f"{local:%a} {local.day}, {local:%H:%M}"


def working_days(today: date) -> tuple[date, ...]:
    """Return the next working days, without today and weekends; holidays are not known here."""
    ahead = (today + timedelta(days=n) for n in range(1, 3 * _DAYS))
    return tuple(day for day in ahead if day.weekday() < _SATURDAY)[:_DAYS]


def ranked(found: Sequence[Visit], shown_from: float, most: int) -> tuple[list[Visit], int, int]:
    """Return whom to help first, how many have a smaller chance, and for how many no model answered."""
    booked = [v for v in found if v.is_open]
    known = [(v.chance.value, v) for v in booked if v.chance is not None and not v.chance.fallback]
    order = [v for value, v in sorted(known, key=lambda one: (-one[0], one[1].start, one[1].id)) if value >= shown_from]
    return order[:most], len(known) - len(order[:most]), len(booked) - len(known)


async def read_help(desk: Desk, rooms: Rooms, picked: str) -> Help:
    """Read the visits of the next working days with their chances."""
    words, settings = desk.words, desk.settings
    days = working_days(words.now.astimezone(words.zone).date())
    read, ledger = await asyncio.gather(
        rooms.part("record", _visits(rooms, days), "Who may not come cannot be shown."),
        rooms.part("journey", read_ledger(rooms), "Links to cases are missing."),
    )
    if read.value is None:
        return Help(words, days, silent=read.silent)
    cases = ledger.or_else(Ledger()).by_order
    found = [visit for day in read.value for visit in visits.visits_of(day, cases, {}, words)]
    rows, below, unranked = ranked(found, settings.shown_from, settings.list_rows)
    chosen = next((v for v in rows if v.id == picked), rows[0] if rows else None)
    return Help(words, days, rows, below, unranked, chosen, settings.shown_from, settings.marked_from)


async def _visits(rooms: Rooms, days: Sequence[date]) -> list[visits.DayResources]:
    return list(await asyncio.gather(*(visits.read_day(rooms, day) for day in days)))


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the help list."""
    signed_in = [Depends(guard)]

    async def seen(request: Request) -> tuple[Frame, Help]:
        view = await read_help(desk, await desk.rooms(request), request.query_params.get("at", ""))
        return await desk.frame(request, "help", "Help list"), view

    @app.get("/help", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("help/page.html", frame, view=view)

    @app.get("/help/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("help", frame, [n for n in names.split(",") if n in PARTS], view=view)
