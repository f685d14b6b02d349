"""The reader's list: which case next, why me, what the machine says as facts."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, service
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Notice, Silent, Viewer
from arcuate.dashboard.domain.reading import (
    CaseRow,
    Ready,
    ReceiptLine,
    due_tone,
    lease_of,
    machine_word,
    receipt_lines,
    used_share,
)
from arcuate.dashboard.pages.ledger import CaseLine, Ledger, read_ledger
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording
from arcuate.kernel.codes import CS_RECEIPT, CS_TASK, accession_of
from arcuate.kernel.errors import ArcuateError, Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id

PARTS = ("facts", "rows", "why")
OPEN = "requested,received,ready,accepted,in-progress,on-hold"
_SHOWS = ("mine", "shared", "all")
_MOST = "500"
_ORDERS = ("critical", "stat")


@dataclass(frozen=True)
class Reading:
    """What the list shows.

    Attributes:
        show: mine, shared or all.
        rostered: Whether the person stands on the roster as a reader.
        left_out: Cases of this list that are not drawn.
    """

    words: Wording
    show: str = "mine"
    rows: tuple[CaseRow, ...] = ()
    shared: int = 0
    oldest_due: datetime | None = None
    rostered: bool = True
    left_out: int = 0
    silent: tuple[Silent, ...] = ()
    rows_silent: Silent | None = None
    picked: CaseRow | None = None
    soon_min: float = 30.0
    total: int = 0

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        minutes = [r.minutes for r in self.rows if r.minutes is not None]
        cases = Fact(
            str(self.total), f"{'case' if self.total == 1 else 'cases'}{f', {sum(minutes)} min' if minutes else ''}"
        )
        soon = sum(r.tone != "" for r in self.rows)
        due = [Fact(str(soon), f"due within {self.soon_min:.0f} min", "look")] if soon else []
        oldest = f", oldest due {self.words.when(self.oldest_due)}" if self.oldest_due else ""
        others = [Fact(str(self.shared), f"on the shared list{oldest}", href="/list?show=shared")]
        return [cases, *due, *others] if self.show != "shared" else [cases, *due]


@dataclass
class _Found:
    """Resources of the open reading Tasks."""

    tasks: list[Json]
    others: Mapping[str, Json]
    by_order: Mapping[str, list[Json]] = field(default_factory=dict)


async def read_list(desk: Desk, rooms: Rooms, viewer: Viewer, show: str, picked: str) -> Reading:
    """Ask the rooms for everything that the list shows."""
    words = desk.words
    tasks, ledger, me = await asyncio.gather(
        rooms.part("record", _read_tasks(rooms), "The list cannot be shown."),
        rooms.part("journey", read_ledger(rooms), "Links to cases are missing."),
        rooms.part("record", service.reader_of(rooms, viewer)),
    )
    if tasks.value is None:
        return Reading(words, show or "mine", rows_silent=tasks.silent)
    found, owner = tasks.value, me.or_else(service.person_reference(viewer))
    rostered = "reference" in owner
    mine = [t for t in found.tasks if _owns(owner, t)]
    shared = [t for t in found.tasks if not t.get("owner")]
    show = show if show in _SHOWS else "mine" if mine or rostered else "all"
    chosen = {"mine": mine, "shared": shared, "all": found.tasks}[show]
    minutes = await rooms.part("assignment", _minutes(rooms, chosen), "Shown by due time, without minutes.")
    silent = tuple(p.silent for p in (ledger, minutes) if p.silent is not None and p.silent.asked_again)
    rows = [_row(desk, t, found, ledger.or_else(Ledger()), minutes.or_else({}), owner, words) for t in chosen]
    rows.sort(key=lambda r: (r.priority not in _ORDERS, r.due or words.now + timedelta(days=999), r.accession))
    shown = rows[: desk.settings.list_rows]
    at = next((r for r in shown if r.task == picked), shown[0] if shown else None)
    dues = [d for t in shared if (d := _due(t))]
    return Reading(
        words, show, tuple(shown), len(shared), min(dues, default=None), rostered, len(rows) - len(shown), silent, None, at,
        desk.settings.look_due_min, len(rows),
    )  # fmt: skip


async def _read_tasks(rooms: Rooms) -> _Found:
    query = {"code": f"{CS_TASK}|read", "status": OPEN, "_include": ["Task:focus", "Task:patient"], "_count": _MOST}
    found = await rooms.fhir.search("Task", query)
    tasks = [t for t in facts.of_type(found, "Task") if facts.has_code(t.get("code"), CS_TASK, "read")]
    orders = ",".join(f"ServiceRequest/{o['id']}" for o in facts.of_type(found, "ServiceRequest"))
    by_order = await read_about_orders(rooms, orders) if orders else {}
    return _Found(tasks, facts.by_reference(found), by_order)


async def read_about_orders(rooms: Rooms, orders: str) -> dict[str, list[Json]]:
    """Return images, measurements and reports by order."""
    answers = await asyncio.gather(
        *(
            rooms.fhir.search(kind, {"based-on": orders, "_count": _MOST})
            for kind in ("ImagingStudy", "Observation", "DiagnosticReport")
        )
    )
    by_order: dict[str, list[Json]] = defaultdict(list)
    for resource in (r for answer in answers for r in answer):
        for item in resource.get("basedOn") or []:
            by_order[facts.target(item)].append(resource)
    return by_order


async def _minutes(rooms: Rooms, tasks: Sequence[Json]) -> dict[str, int]:
    """Return the expected reading minutes by Task, as assignment counts them."""
    owners = {found for t in tasks if (found := reference_id(t.get("owner"), "Practitioner"))}
    paths = [f"/assignment/worklists/{owner}" for owner in sorted(owners)]
    if any(not t.get("owner") for t in tasks):
        paths.append("/assignment/worklists/shared")
    answers = await asyncio.gather(*(rooms.get(path) for path in paths))
    return {str(row["task_id"]): int(row["minutes"]) for answer in answers for row in answer["cases"]}


def _owns(owner: Json, task: Json) -> bool:
    theirs = task.get("owner") or {}
    if owner.get("reference"):
        return facts.target(theirs) == owner["reference"]
    return bool(theirs) and theirs.get("identifier") == owner.get("identifier")


def _due(task: Json) -> datetime | None:
    return facts.instant(((task.get("restriction") or {}).get("period") or {}).get("end"))


def _row(
    desk: Desk, task: Json, found: _Found, ledger: Ledger, minutes: Mapping[str, int], me: Json, words: Wording
) -> CaseRow:
    order_reference = facts.target(task.get("focus"))
    order = found.others.get(order_reference) or {}
    about = found.by_order.get(order_reference, [])
    line = next((c for c in ledger.cases if c.order == order_reference), None)
    due, settings = _due(task), desk.settings
    receipt = task_receipt(task)
    why = next(
        (r.sentence for r in receipt if r.label == "Why"),
        "on the shared list" if not task.get("owner") else "taken by its reader",
    )
    return CaseRow(
        task=str(task["id"]), version=facts.version(task), case=line.id if line else "",
        name=facts.person_name(found.others.get(facts.target(task.get("for")))), exam=facts.short_exam(facts.exam_name(order)),
        accession=str(accession_of(order) or ""), due=due, share=used_share(facts.instant(task.get("authoredOn")), due, words.now),
        tone=due_tone(due, words.now, settings.look_due_min, settings.stop_due_min), word=word_of(about, line), why=why,
        ready=ready_of(about), minutes=minutes.get(str(task["id"])), owner=str((task.get("owner") or {}).get("display") or ""),
        mine=_owns(me, task), lease=lease_of(task, words.now, timedelta(minutes=settings.lease_min)),
        priority=str(task.get("priority") or "routine"), receipt=receipt, given=facts.instant(task.get("lastModified")),
    )  # fmt: skip


def word_of(about: Iterable[Json], line: CaseLine | None) -> Any:
    """Return what the machine says of a case."""
    about = list(about)
    measured = [o for o in facts.of_type(about, "Observation") if o.get("derivedFrom")]
    note = line.newest_note("quantify") if line else None
    return machine_word(
        measured, bool(facts.of_type(about, "ImagingStudy")), note.note if note else "", line.stage if line else ""
    )


def ready_of(about: Iterable[Json]) -> tuple[Ready, ...]:
    """Return what is there already: images, measurements, draft."""
    about = list(about)
    values = [o for o in facts.of_type(about, "Observation") if o.get("derivedFrom") and "valueQuantity" in o]
    draft = any(r.get("status") == "preliminary" for r in facts.of_type(about, "DiagnosticReport"))
    return (
        Ready("images", bool(facts.of_type(about, "ImagingStudy"))), Ready("measures", bool(values)), Ready("draft", draft),
    )  # fmt: skip


def task_receipt(task: Json) -> tuple[ReceiptLine, ...]:
    """Return the sentences of a Task that say why it is where it is."""
    rows = [
        {"label": codes[0], "sentence": output["valueString"]}
        for output in task.get("output") or []
        if "valueString" in output and (codes := facts.codes(output.get("type"), CS_RECEIPT))
    ]
    return receipt_lines(rows)


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the list's routes."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, picked: str = "") -> tuple[Frame, Reading]:
        viewer, rooms, query = await desk.viewer(request, "list"), await desk.rooms(request), request.query_params
        view = await read_list(desk, rooms, viewer, query.get("show", ""), picked or query.get("task", ""))
        title = {"mine": "My list", "shared": "Shared list", "all": "All open cases"}[view.show]
        counts = {"list": view.total} if view.show == "mine" else {}
        return await desk.frame(request, "list", title, counts=counts), view

    @app.get("/list", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("list/page.html", frame, view=view)

    @app.get("/list/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("list", frame, [n for n in names.split(",") if n in PARTS], view=view)

    @app.get("/list/why/{task_id}", dependencies=signed_in)
    async def why(request: Request, task_id: str) -> Response:
        frame, view = await seen(request, task_id)
        return desk.renderer.parts("list", frame, ["why"], view=view)

    @app.post("/list/{task_id}/{act}", dependencies=signed_in)
    async def act(request: Request, task_id: str, act: str) -> Response:
        form = await form_of(request)
        said = await act_on(desk, request, task_id, act, str(form.get("version") or ""))
        if not by_script(request):
            return see_other(f"/list?task={task_id}")
        frame, view = await seen(request, task_id)
        names = ["facts", "rows", "why", "said"]
        return desk.renderer.parts("list", frame, names, view=view, notice=said)


async def act_on(desk: Desk, request: Request, task_id: str, act: str, version: str) -> Notice:
    """Take, take over or hand back a case; returns what people read."""
    viewer, rooms, lease = await desk.viewer(request, "list"), await desk.rooms(request), desk.settings.lease_min
    try:
        match act:
            case "take":
                return await service.take(rooms, viewer, desk.words, task_id, version, lease)
            case "take-over":
                return await service.take(rooms, viewer, desk.words, task_id, version, lease, over=True)
            case "hand-back":
                return await service.hand_back(rooms, viewer, desk.words, task_id, version)
    except ArcuateError as error:
        return service.refused(error)
    raise NotFound("There is no such act")
