"""Cases: the ledger as a list, what is held or stands still, and the search of the top bar."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts
from arcuate.dashboard.desk import Desk, form_of
from arcuate.dashboard.domain.frame import Fact, Mark, Silent
from arcuate.dashboard.pages.ledger import ENDS, CaseLine, Ledger, read_ledger, read_stuck
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording
from arcuate.kernel.auth.roles import CLINICAL
from arcuate.kernel.codes import SYSTEM_ACCESSION
from arcuate.kernel.errors import Json

PARTS = ("facts", "rows")
SHOWS = (("open", "Open"), ("held", "Held"), ("stuck", "Standing still"), ("ended", "Ended"), ("all", "All"))
_LONGEST_QUERY = 100


@dataclass(frozen=True)
class Listed:
    """One case of the list."""

    line: CaseLine
    name: str
    exam: str
    stuck: bool

    @property
    def mark(self) -> Mark | None:
        """Return its status mark; what goes its way has none."""
        if self.line.held:
            return Mark.STOP
        if self.stuck:
            return Mark.LOOK
        if self.line.stage == "delivered":
            return Mark.DONE
        return Mark.UNKNOWN if self.line.stage in ENDS else None


@dataclass(frozen=True)
class Cases:
    """What the page shows.

    Attributes:
        found: How many cases the filter or the search found.
        query: What was searched for; empty for a filter.
        names: Whether names are shown: only to those who care for people.
    """

    words: Wording
    show: str
    rows: Sequence[Listed] = ()
    found: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    query: str = ""
    complete: bool = True
    silent: Silent | None = None
    names: bool = True

    @property
    def shows(self) -> tuple[tuple[str, str], ...]:
        """Return the filters."""
        return SHOWS

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        if self.query:
            return [Fact(str(self.found), "found")]
        held, stuck = self.counts.get("held", 0), self.counts.get("stuck", 0)
        made = [Fact(str(held), "held", "stop", href="/cases?show=held")] if held else []
        made += [Fact(str(stuck), "standing still", "look", href="/cases?show=stuck")] if stuck else []
        return [*made, Fact(str(self.counts.get("open", 0)), "open"), Fact(str(self.counts.get("ended", 0)), "ended")]


async def read_cases(desk: Desk, rooms: Rooms, show: str, query: str = "", *, names: bool = True) -> Cases:
    """Ask for the ledger and the names in it."""
    words = desk.words
    ledger, stuck = await asyncio.gather(
        rooms.part("journey", read_ledger(rooms), "No case can be shown."), rooms.part("journey", read_stuck(rooms))
    )
    if ledger.value is None:
        return Cases(words, show, silent=ledger.silent, query=query)
    # What waits for its visit or its reader by plan does not stand still.
    still = stuck.or_else(frozenset())
    groups = _groups(ledger.value, still)
    chosen = await _search(rooms, ledger.value, query) if query else groups[show]
    shown = chosen[: desk.settings.list_rows]
    named = await rooms.part("record", _named(rooms, shown), "Names are missing.")
    rows = [
        Listed(c, *_name(c, named.or_else({})), stuck=c.id in still) for c in shown
    ]  # fmt: skip
    counts = {name: len(cases) for name, cases in groups.items()}
    return Cases(words, show, rows, len(chosen), counts, query, ledger.value.complete, named.silent, names)


def _groups(ledger: Ledger, still: frozenset[str]) -> dict[str, list[CaseLine]]:
    cases = list(ledger.cases)
    return {
        "open": [c for c in cases if c.stage not in ENDS], "held": [c for c in cases if c.held],
        "stuck": [c for c in cases if c.id in still], "ended": [c for c in cases if c.stage in ENDS], "all": cases,
    }  # fmt: skip


def _name(case: CaseLine, named: Mapping[str, Json]) -> tuple[str, str]:
    patient, order = named.get(case.patient), named.get(case.order)
    name = facts.person_name(patient) if patient else "images without an order" if not case.order else "name not read"
    return name, facts.short_exam(facts.exam_name(order)) if order else ""


async def _named(rooms: Rooms, cases: Sequence[CaseLine]) -> dict[str, Json]:
    patients = ",".join(sorted({c.patient.removeprefix("Patient/") for c in cases if c.patient}))
    orders = ",".join(sorted({c.order.removeprefix("ServiceRequest/") for c in cases if c.order}))
    wanted = [("Patient", patients), ("ServiceRequest", orders)]
    answers = await asyncio.gather(
        *(rooms.fhir.search(kind, {"_id": ids, "_count": "500"}) for kind, ids in wanted if ids)
    )
    return facts.by_reference(r for answer in answers for r in answer)


async def _search(rooms: Rooms, ledger: Ledger, query: str) -> list[CaseLine]:
    """Return the cases whose accession, order number, patient number or name was asked for; the query stands in no address."""
    text = query.casefold()
    patients, numbers, orders, accessions = await asyncio.gather(
        rooms.part("record", rooms.fhir.search("Patient", {"name": query, "_count": "100"})),
        rooms.part("record", rooms.fhir.search("Patient", {"identifier": query, "_count": "100"})),
        rooms.part("record", rooms.fhir.search("ServiceRequest", {"identifier": query, "_count": "100"})),
        rooms.part(
            "record",
            rooms.fhir.search("ServiceRequest", {"identifier": f"{SYSTEM_ACCESSION}|{query}", "_count": "100"}),
        ),
    )
    found = {
        f"{r['resourceType']}/{r['id']}" for part in (patients, numbers, orders, accessions) for r in part.or_else([])
    }
    return [c for c in ledger.cases if c.patient in found or c.order in found or text in c.accession.casefold()]


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the list of cases."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, query: str = "") -> tuple[Frame, Cases]:
        show = request.query_params.get("show", "open")
        names = (await desk.viewer(request, "cases")).may(*CLINICAL)
        chosen = show if show in dict(SHOWS) else "open"
        view = await read_cases(desk, await desk.rooms(request), chosen, query, names=names)
        return await desk.frame(request, "cases", "Cases", query=query), view

    @app.get("/cases", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("cases/page.html", frame, view=view)

    @app.post("/cases", dependencies=signed_in)
    async def search(request: Request) -> Response:
        query = " ".join(str((await form_of(request)).get("q") or "").split())[:_LONGEST_QUERY]
        frame, view = await seen(request, query)
        return desk.renderer.page("cases/page.html", frame, view=view)

    @app.get("/cases/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("cases", frame, [n for n in names.split(",") if n in PARTS], view=view)
