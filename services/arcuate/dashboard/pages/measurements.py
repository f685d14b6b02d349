"""The measurements of a study: pictures with outlines, each value beside its limits and its passport, accepted or not by a person."""

import asyncio
import tomllib
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, review, service
from arcuate.dashboard.casefile import CaseFile, CaseView, read_picture, read_record
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Mark
from arcuate.dashboard.domain.measurements import Value, no_change_because, values_of
from arcuate.dashboard.domain.reading import Word
from arcuate.dashboard.pages.reading import word_of
from arcuate.dashboard.render import FOLDER, Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError, Json, NotFound

PARTS = ("facts", "picture", "values", "chosen", "trust")
FILES = ("head.nii.gz", "labels.nii.gz", "uncertainty.nii.gz", "legend")
_TABLE = tomllib.loads((FOLDER / "measurements.toml").read_text(encoding="utf-8"))
_ORDER = tuple(_TABLE["structures"])
LAYERS = tuple((row["code"], row["words"]) for row in _TABLE["layer"])
_MOST = "500"


@dataclass(frozen=True)
class Measurements(CaseView):
    """What the page shows.

    Attributes:
        at: Key of the chosen value, as in the address (`hippocampus-right`).
        layer: What is laid over the picture.
        earlier: Values of the same patient from other studies.
        said: What imaging keeps of the measurement: series, reasons, norms.
        others: Values of other studies of the same order, which are not shown here.
    """

    at: str = ""
    layer: str = "outline"
    values: tuple[Value, ...] = ()
    earlier: tuple[Value, ...] = ()
    picture: Part[Json] = field(default_factory=Part)
    said: Part[Json] = field(default_factory=Part)
    norms: Part[Json] = field(default_factory=Part)
    nearest: Part[Json] = field(default_factory=Part)
    may_judge: bool = False
    others: int = 0

    @property
    def heading(self) -> str:
        """Return whose study it is."""
        return facts.person_name(self.found.patient) if self.found.patient is not None else "Measurements"

    @property
    def study_id(self) -> str:
        """Return the study that is shown."""
        study = self.found.newest_study
        return str(study["id"]) if study else ""

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        made = self.whose
        days = {v.day for v in self.earlier if v.day}
        made.append(Fact(self.words.date(max(days)), "prior", before=True) if days else Fact("", "no prior"))
        models = Counter(v.model for v in self.values if v.model)
        return [*made, *(Fact("", model) for model, _ in models.most_common(2))]

    @property
    def open_count(self) -> int:
        """Return how many values nobody has judged."""
        return sum(v.review is None for v in self.values)

    @property
    def chosen(self) -> Value | None:
        """Return the value that is looked at: the one of the address, else the first that nobody has judged."""
        return (
            next((v for v in self.values if key_of(v) == self.at), None)
            or next((v for v in self.values if v.review is None), None)
            or next(iter(self.values), None)
        )

    def after(self, value: Value) -> Value:
        """Return the next value that nobody has judged; the value itself where all are."""
        place = self.values.index(value)
        rest = (*self.values[place + 1 :], *self.values[:place])
        return next((v for v in rest if v.review is None), value)

    def key(self, value: Value) -> str:
        """Return the key of a value."""
        return key_of(value)

    def no_change(self, value: Value) -> str:
        """Return why no change is told."""
        return no_change_because(value, self.earlier, self.words)

    @property
    def since(self) -> str:
        """Return since when changes are told: the date where all have the same."""
        days = {v.change.since for v in self.values if v.change and v.change.since}
        return self.words.date(days.pop()) if len(days) == 1 else "earlier"

    @property
    def all_of(self) -> list[Value]:
        """Return the values of the chosen structure, which one outline shows."""
        one = self.chosen
        return [v for v in self.values if one is not None and v.structure == one.structure]

    @property
    def result(self) -> Json:
        """Return what imaging states of the measurement."""
        return dict((self.said.value or {}).get("result") or {})

    @property
    def series(self) -> Json:
        """Return the series on which the values lie."""
        return dict(self.result.get("series") or {})

    @property
    def norm(self) -> str:
        """Return why there is no centile."""
        return str((self.norms.value or {}).get("why") or "none: no norm belongs to this model and version.")

    @property
    def word(self) -> Word:
        """Return what stands here without values."""
        if self.line is not None and self.line.held and self.found.loose:
            return Word("Images held", "Two identities disagree: a person decides on the case page.", Mark.STOP)
        found: Word = word_of(self.found.about, self.line)
        return found

    @property
    def next_step(self) -> str:
        """Return what a person can do while there are no values."""
        if self.line is not None and self.line.held:
            return "Open the case and let the images in, or keep them out."
        match self.word.title:
            case "No images yet":
                return "They come by themselves once the scanner or the PACS sends them. Is the exam over? Then send it again there."
            case "Being measured":
                since = self.words.when(self.line.since) if self.line else ""
                return (
                    f"Images complete since {since}. This page fills itself; you can read the images meanwhile."
                    if since
                    else ""
                )
            case "Not measured":
                return "No model here measures such a series. Read without; a site can add a model under models/."
        return "Read without measurements, or send a series that would do: the reason above says which."

    @property
    def draft_is_open(self) -> bool:
        """Return whether there is a draft to go to."""
        return self.found.draft is not None or self.found.signed is not None


def key_of(value: Value) -> str:
    """Return the key of a value in an address: structure and side."""
    return f"{value.structure}-{value.side}" if value.side else value.structure


async def read_measurements(
    desk: Desk, rooms: Rooms, case_id: str, at: str, layer: str, may_judge: bool
) -> Measurements:
    """Ask the rooms for everything that the page shows.

    Raises:
        NotFound: There is no such case.
    """
    file = await read_record(rooms, case_id)
    shown = f"ImagingStudy/{(file.resources.newest_study or {}).get('id')}"
    mine, others = [], 0
    for one in file.resources.measurements:
        if any(facts.target(d) == shown for d in one.get("derivedFrom") or []):
            mine.append(one)
        else:
            others += "valueQuantity" in one
    mine.sort(key=lambda one: str(one.get("issued") or ""))
    values = tuple({key_of(v): v for v in values_of(mine, _ORDER)}.values())  # stated twice: the last one counts
    view = Measurements(
        desk.words, file, at, layer if layer in dict(LAYERS) else "outline", values, may_judge=may_judge, others=others
    )
    if not values:
        return view
    chosen = view.chosen
    studies = f"/imaging/studies/{view.study_id}"
    picture, said, norms, near, earlier = await asyncio.gather(
        read_picture(rooms, file, chosen.structure if chosen else ""),
        rooms.part("imaging", rooms.get(f"{studies}/measurement"), "Series and reasons cannot be shown."),
        rooms.part("imaging", rooms.get("/imaging/norms"), "Norms cannot be shown."),
        rooms.part("imaging", rooms.get(f"{studies}/nearest"), "Nearest cases cannot be shown."),
        rooms.part("record", _earlier(rooms, file), "Earlier measurements cannot be shown."),
    )
    return replace(view, earlier=tuple(earlier.or_else([])), picture=picture, said=said, norms=norms, nearest=near)


async def _earlier(rooms: Rooms, file: CaseFile) -> list[Value]:
    patient, here = file.resources.patient, {str(o.get("id")) for o in file.resources.measurements}
    if patient is None:
        return []
    query = {"subject": f"Patient/{patient['id']}", "category": "imaging", "_count": _MOST}
    return [v for v in values_of(await rooms.fhir.search("Observation", query), _ORDER) if v.id not in here]


def _given(view: Measurements, case_id: str) -> dict[str, Any]:
    """Return what the templates are given: `undo` the value judged last, `moved` whether the next one is chosen now."""
    return {"view": view, "case_id": case_id, "layers": LAYERS, "undo": None, "moved": False}


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the page."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, case_id: str, at: str = "") -> tuple[Frame, Measurements]:
        query, viewer = request.query_params, await desk.viewer(request, "measurements")
        view = await read_measurements(
            desk, await desk.rooms(request), case_id, at or query.get("at", ""), query.get("layer", "outline"),
            viewer.may(Role.RADIOLOGIST),
        )  # fmt: skip
        about = tuple(r for r in (view.line.order, view.line.patient) if r) if view.line else ()
        studies = tuple(f"ImagingStudy/{s['id']}" for s in (*view.found.all("ImagingStudy"), *view.found.loose))
        absent = (
            *(() if view.draft_is_open else ("D",)),
            *(() if view.values and view.may_judge else ("A", "E", "X", "U", "B")),
        )
        absent += () if view.values else ("O", "J")
        return await desk.frame(request, "measurements", "Measurements", about=(*about, *studies), absent=absent), view

    @app.get("/case/{case_id}/measurements", dependencies=signed_in)
    async def page(request: Request, case_id: str) -> Response:
        frame, view = await seen(request, case_id)
        return desk.renderer.page("measurements/page.html", frame, **_given(view, case_id))

    @app.get("/case/{case_id}/measurements/parts", dependencies=signed_in)
    async def parts(request: Request, case_id: str, names: str = "") -> Response:
        frame, view = await seen(request, case_id)
        wanted = [n for n in names.split(",") if n in PARTS]
        return desk.renderer.parts("measurements", frame, wanted, **_given(view, case_id))

    @app.get("/case/{case_id}/measurements/{study}/{name}", dependencies=signed_in)
    async def file(request: Request, case_id: str, study: str, name: str) -> Response:
        if not study.replace("-", "").isalnum() or name not in FILES:
            raise NotFound("There is no such file")
        content = await (await desk.rooms(request)).get_bytes(f"/imaging/studies/{study}/{name}")
        kind = "application/json" if name == "legend" else "application/gzip"
        return Response(content, media_type=kind)  # never kept: outlines of yesterday beside values of today would lie

    @app.post("/case/{case_id}/measurements/accept-all", dependencies=signed_in)
    async def accept_all(request: Request, case_id: str) -> Response:
        form = await form_of(request)
        _, view = await seen(request, case_id, str(form.get("at") or ""))
        rooms, viewer = await desk.rooms(request), await desk.viewer(request, "measurements")
        try:
            said = await review.accept_all(rooms, viewer, desk.words, view.all_of)
        except ArcuateError as error:
            said = service.refused(error)
        return await _after(request, case_id, str(form.get("at") or ""), said, onward=said.mark is Mark.DONE)

    @app.post("/case/{case_id}/measurements/{observation}/{act}", dependencies=signed_in)
    async def judge(request: Request, case_id: str, observation: str, act: str) -> Response:
        form, rooms, viewer = (
            await form_of(request),
            await desk.rooms(request),
            await desk.viewer(request, "measurements"),
        )
        asked = review.Act(act, *(str(form.get(name) or "") for name in ("version", "amount", "reason")))
        try:
            said = await review.judge(rooms, viewer, desk.words, observation, asked)
        except ArcuateError as error:
            said = service.refused(error)
        onward = said.mark is not Mark.STOP and act != "take-back"
        return await _after(request, case_id, str(form.get("at") or ""), said, onward=onward)

    async def _after(request: Request, case_id: str, at: str, said: Any, *, onward: bool) -> Response:
        frame, view = await seen(request, case_id, at)
        if onward and view.chosen is not None and not by_script(request):
            return see_other(f"/case/{case_id}/measurements?at={key_of(view.after(view.chosen))}")
        if not by_script(request):
            return see_other(f"/case/{case_id}/measurements?at={at}")
        undo = view.chosen if onward else None
        if onward and view.chosen is not None:
            frame, view = await seen(request, case_id, key_of(view.after(view.chosen)))
        names = ["facts", "picture", "values", "chosen", "judged"]
        given = _given(view, case_id) | {"notice": said, "undo": undo, "moved": onward}
        answer = desk.renderer.parts("measurements", frame, names, **given)
        if view.chosen is not None:  # what is live is fetched for the address, so the address names the chosen value
            place = f"at={key_of(view.chosen)}&layer={view.layer}"
            answer.headers["HX-Replace-Url"] = f"/case/{case_id}/measurements?{place}"
        return answer
