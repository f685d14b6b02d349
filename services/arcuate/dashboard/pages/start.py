"""First steps: what to do next until the first case is on the board, and what works meanwhile."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard.desk import Desk
from arcuate.dashboard.domain.frame import Fact, Mark, Viewer
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording, count

PARTS = ("facts", "steps", "works")
_ROOMS = (
    ("record", "/fhir/metadata"), ("gateway", "/gateway/counts"), ("journey", "/journey/stages"), ("scheduling", "/scheduling/status"),
    ("imaging", "/imaging/studies"), ("protocoling", "/protocoling/counts"),
)  # fmt: skip
_RECEIVERS = "ARCUATE_GATEWAY_RECEIVERS"
_PASSWORD = "Set a password under your name, so that you need no link next time."  # noqa: S105 - a sentence
_SCANNERS = "They name themselves: a booking (SIU) that carries the scanner in AIL-3 puts it on the board."
_READERS = (
    "Post PractitionerRole, Schedule and Slot to the FHIR door, with a token of this role. "
    "Without them every case goes to the shared list, oldest due first."
)
_IMAGES = "C-STORE{port}, or STOW-RS at /dicom-web. Without images reading and drafts work, measurements stay empty."
_FOR_THE_RIS = (
    "Please send orders (ORM^O01 or OMI^O23), bookings (SIU^S12 to S15, S26) and patient changes (ADT^A01, A04, A08, A40) over MLLP, "
    "port {port}. Every message is answered; one that cannot be read is kept and does not hold up the others."
)


@dataclass(frozen=True)
class Step:
    """One of the six steps.

    Attributes:
        code: A command to copy, empty where there is none.
        state: What is seen of it now, in words.
    """

    title: str
    text: str
    done: bool
    state: str = ""
    code: str = ""
    label: str = ""
    href: str = ""
    copy: str = ""


@dataclass(frozen=True)
class Works:
    """What works already, and the fallback until it does."""

    what: str
    how: str
    mark: Mark


@dataclass(frozen=True)
class Start:
    """What the page shows."""

    words: Wording
    steps: Sequence[Step]
    works: Sequence[Works]

    @property
    def next_step(self) -> int:
        """Return the number of the first step that is not done; one past the last when all are."""
        return next((i for i, step in enumerate(self.steps, 1) if not step.done), len(self.steps) + 1)

    @property
    def done(self) -> int:
        """Return how many are done."""
        return sum(step.done for step in self.steps)

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        return [Fact(str(self.done), f"of {len(self.steps)} done")]


async def read_start(rooms: Rooms, viewer: Viewer, words: Wording, *, data_folder: str) -> Start:
    """Ask the rooms what has arrived so far."""
    fhir = rooms.fhir
    answers = await asyncio.gather(
        *(rooms.part(name, rooms.get(path)) for name, path in _ROOMS),
        rooms.part("gateway", rooms.get("/gateway/connections")),
        *(rooms.part("record", _some(fhir, kind)) for kind in ("Appointment", "PractitionerRole", "ServiceRequest")),
    )
    known, (doors, bookings, roster, orders) = answers[: len(_ROOMS)], answers[len(_ROOMS) :]
    counted: Mapping[str, Any] = known[1].or_else({})
    status: Mapping[str, Any] = known[3].or_else({})
    studies: Mapping[str, Any] = known[4].or_else({})
    steps = _steps(
        viewer, known, counted, doors.or_else({}), bool(bookings.value), bool(roster.value), studies, data_folder
    )
    checks = known[5].silent is None or known[5].silent.since is None
    return Start(words, steps, _works(status, counted, bool(orders.value), studies, doors.or_else({}), checks=checks))


async def _some(fhir: Any, kind: str) -> bool:
    async for _ in fhir.pages(kind, {"_count": "1"}):
        return True
    return False


def _steps(
    viewer: Viewer, known: Sequence[Part[Any]], counted: Mapping[str, Any], doors: Mapping[str, Any], bookings: bool, roster: bool,
    studies: Mapping[str, Any], data_folder: str,
) -> list[Step]:  # fmt: skip
    pairs = zip(_ROOMS, known, strict=True)
    silent = [name for (name, _), part in pairs if part.silent is not None and part.silent.since is not None]
    messages, port = int(counted.get("messages") or 0), (doors.get("door") or {}).get("port", 2575)
    images, scp = len(studies.get("studies") or []), studies.get("door") or {}
    at = f" on port {scp['port']}" if scp else ""
    sending = f"storescu -aec {scp['ae_title']} 127.0.0.1 {scp['port']} +sd FOLDER" if scp else ""
    rooms = "Every room that was asked answers." if not silent else f"No answer from: {', '.join(silent)}."
    return [
        Step("Program runs", f"{rooms} The data lie in {data_folder}.", not silent),
        Step("You can sign in", f"{viewer.name}. {_PASSWORD}", True, label="Set password", href="/me"),
        Step(
            "Let one message in", f"The RIS sends ORM, OMI, SIU or ADT over MLLP to this machine, port {port}.", messages > 0,
            f"{count(messages, 'message')} so far", f"arcuate send FOLDER --port {port}", copy=_FOR_THE_RIS.format(port=port),
        ),
        Step("Name your scanners", _SCANNERS, bookings, "seen" if bookings else "no booking yet"),
        Step("Name your readers and shifts", _READERS, roster, "on the roster" if roster else "nobody yet", "arcuate token --role integration"),
        Step("Let images in", _IMAGES.format(port=at), images > 0, f"{count(images, 'study', 'studies')} so far", sending),
    ]  # fmt: skip


def _works(
    status: Mapping[str, Any],
    counted: Mapping[str, Any],
    orders: bool,
    studies: Mapping[str, Any],
    doors: Mapping[str, Any],
    *,
    checks: bool,
) -> list[Works]:
    models = status.get("models") or {}
    drafts = any(r.get("kind") == "dictation" for r in doors.get("receivers") or [])
    measured = bool(studies.get("studies"))
    return [
        Works(
            "Receiving and keeping messages",
            *(("yes", Mark.DONE) if counted else ("not now: the gateway is silent", Mark.STOP)),
        ),
        Works("Board, lists, case pages", *(("yes", Mark.DONE) if orders else ("after step 3", Mark.WAITING))),
        _model("Chance of not coming", models.get("attendance"), "site rate, until a model is there"),
        _model("Waiting time", models.get("waiting"), "a general rule, until a model is there"),
        Works(
            "Order checks",
            *(("with every order", Mark.DONE) if checks else ("not now: protocoling is silent", Mark.STOP)),
        ),
        Works("Measurements", *(("yes", Mark.DONE) if measured else ("after step 6", Mark.WAITING))),
        Works(
            "Drafts to dictation",
            *(("yes", Mark.DONE) if drafts else (f"no receiver named ({_RECEIVERS})", Mark.UNKNOWN)),
        ),
    ]


def _model(what: str, found: Mapping[str, Any] | None, fallback: str) -> Works:
    if not found or not found.get("loaded"):
        return Works(what, fallback, Mark.UNKNOWN)
    if found.get("synthetic"):
        return Works(what, "trained on synthetic data", Mark.LOOK)
    return Works(what, f"{found.get('name')} {found.get('version')}", Mark.DONE)


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the first steps."""
    signed_in = [Depends(guard)]

    async def seen(request: Request) -> tuple[Frame, Start]:
        viewer = await desk.viewer(request, "start")
        view = await read_start(
            await desk.rooms(request), viewer, desk.words, data_folder=str(desk.context.data_dir.parent)
        )
        arrived = next((s for s in view.steps if s.title == "Let one message in"), None)
        title = "First steps" if arrived and arrived.done else "Nothing has arrived yet"
        return await desk.frame(request, "start", title), view

    @app.get("/start", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("start/page.html", frame, view=view)

    @app.get("/start/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("start", frame, [n for n in names.split(",") if n in PARTS], view=view)
