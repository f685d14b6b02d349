"""The case page: where it is and what holds it, what was measured, what the draft says, who did what when."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import charts, facts, service, visits
from arcuate.dashboard.biography import events_of, newest_booking, way_of
from arcuate.dashboard.casefile import CaseView, read_casefile
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.board import Chance, Flag
from arcuate.dashboard.domain.case import (
    DraftLine,
    Event,
    Kind,
    Measured,
    Prior,
    Said,
    draft_lines,
    shown_events,
    stops,
)
from arcuate.dashboard.domain.frame import Fact, Mark
from arcuate.dashboard.domain.measurements import Value, value_of, values_of
from arcuate.dashboard.domain.reading import CaseRow, Word, lease_of
from arcuate.dashboard.pages.reading import act_on, task_receipt, word_of
from arcuate.dashboard.render import Frame
from arcuate.kernel.codes import CS_PROTOCOL
from arcuate.kernel.errors import ArcuateError, Json, NotFound

PARTS = ("facts", "stages", "events", "measured", "draft", "side")
_SHOWS = ("main", "all", "messages")
_PRIORS = 4


@dataclass(frozen=True)
class Case(CaseView):
    """What the case page shows; each part says for itself what is missing."""

    show: str = "main"
    structure: str = ""
    lease_min: float = 10.0
    viewer_name: str = ""

    @property
    def heading(self) -> str:
        """Return whose case it is."""
        if self.found.patient is not None:
            return facts.person_name(self.found.patient)
        return "Images without an order" if self.line and not self.line.order else "Case"

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        made, task = self.whose, self.found.reading
        if task is not None and task.get("status") not in ("completed", "cancelled"):
            due = facts.instant(((task.get("restriction") or {}).get("period") or {}).get("end"))
            who = str((task.get("owner") or {}).get("display") or "no reader yet")
            if due is not None:
                made.append(
                    Fact(self.words.when(due), f"{who}, due", "look" if due < self.words.now else "", before=True)
                )
        return made

    @property
    def stage_line(self) -> Any:
        """Return the picture of the stages."""
        if self.line is None:
            return ""
        made = stops(way_of(self.line, self.found), self.words)
        said = f"stands at {self.line.stage}" + (f", waits for {self.line.waits_for}" if self.line.waits_for else "")
        return charts.stage_line(made, said)

    @property
    def stops(self) -> list[charts.Stop]:
        """Return the stages as rows, for those who do not see the picture."""
        return stops(way_of(self.line, self.found), self.words) if self.line else []

    @property
    def all_events(self) -> list[Event]:
        """Return everything that happened."""
        return events_of(self.line, self.found, self.words) if self.line else []

    def events(self) -> list[tuple[str, list[Event]]]:
        """Return the chosen events by day, newest first."""
        days: dict[str, list[Event]] = {}
        for event in shown_events(self.all_events, self.show):
            day = f"Today, {self.words.day(event.at)}" if self.words.is_today(event.at) else self.words.day(event.at)
            days.setdefault(day, []).append(event)
        return list(days.items())

    @property
    def left_out(self) -> int:
        """Return how many events the filter hides."""
        return sum(e.kind is not Kind.MAIN for e in self.all_events) if self.show == "main" else 0

    @property
    def word(self) -> Word:
        """Return what the machine says, for a case without values."""
        if self.line is not None and self.line.held and self.found.loose:
            return Word("Images held", "not joined and not measured until a person has released them", Mark.STOP)
        found: Word = word_of(self.found.about, self.line)
        return found

    @property
    def measured(self) -> list[Measured]:
        """Return the measured structures, sides beside each other."""
        return measured_rows(self.found.measurements)

    @property
    def notes(self) -> list[str]:
        """Return what the measurements say of themselves: the model, what they were measured on, warnings."""
        values = [o for o in self.found.measurements if "valueQuantity" in o]
        if not values:
            return []
        model = str((values[0].get("device") or {}).get("display") or "")
        notes = [str(n.get("text") or "") for n in values[0].get("note") or []]
        return [text for text in (model, *notes) if text]

    @property
    def picture(self) -> Json | None:
        """Return what imaging says of the slice."""
        return self.file.picture.value

    @property
    def study_id(self) -> str:
        """Return the study that the picture is of."""
        study = self.found.newest_study
        return str(study["id"]) if study else ""

    @property
    def draft(self) -> list[DraftLine]:
        """Return the draft's lines, or the signed report's."""
        report = self.found.signed or self.found.draft
        return draft_lines(facts.attached_text(report)) if report and facts.attached_text(report) else []

    @property
    def draft_state(self) -> str:
        """Return what the shown text is."""
        signed, draft = self.found.signed, self.found.draft
        if signed is not None:
            at = facts.instant(signed.get("issued"))
            return f"signed{f' {self.words.when(at)}' if at else ''}, as received"
        if draft is not None:
            return f"not signed, version {facts.version(draft)}"
        return ""

    @property
    def draft_at(self) -> datetime | None:
        """Return when the shown text was kept."""
        report = self.found.signed or self.found.draft
        return facts.updated(report) if report else None

    @property
    def flags(self) -> tuple[Flag, ...]:
        """Return the flags that stand."""
        return visits.flags_of(self.found.all("DetectedIssue"))

    @property
    def indication(self) -> str:
        """Return the referrer's words."""
        return "; ".join(str(r["text"]) for r in (self.found.order or {}).get("reasonCode") or [] if r.get("text"))

    @property
    def order_rows(self) -> list[tuple[str, str]]:
        """Return the order's own facts."""
        order = self.found.order
        if order is None:
            return []
        codings = [
            c for d in order.get("orderDetail") or [] for c in d.get("coding") or [] if c.get("system") == CS_PROTOCOL
        ]
        protocol = [str(c.get("display") or c.get("code")) for c in codings]
        return [
            ("Protocol", f"{protocol[0]}, suggested" if protocol else "none suggested"),
            ("Priority", str(order.get("priority") or "routine")),
            ("Referrer", str((order.get("requester") or {}).get("display") or "not stated")), ("Order", str(order.get("status"))),
        ]  # fmt: skip

    @property
    def booking_rows(self) -> list[tuple[str, str]]:
        """Return the booking that counts."""
        booking = newest_booking(self.found)
        if booking is None:
            return []
        start = facts.instant(booking.get("start"))
        places = {str(p["id"]): str(p.get("name") or "") for p in self.found.all("Location")}
        place = places.get(str(facts.participant(booking, "Location")), "")
        when = self.words.when(start) if start else "no time"
        return [("Booked", f"{when}{f', {place}' if place else ''}"), ("State", str(booking.get("status")))]

    @property
    def chance(self) -> Chance | None:
        """Return the last forecast of the booking while it lies ahead."""
        booking = newest_booking(self.found)
        forecasts = self.found.all("RiskAssessment")
        return visits.chance_of(forecasts[-1]) if forecasts and booking and booking.get("status") == "booked" else None

    @property
    def row(self) -> CaseRow | None:
        """Return the reading as a row, for the acts."""
        task = self.found.reading
        if task is None or task.get("status") in ("completed", "cancelled", "rejected", "failed"):
            return None
        owner = str((task.get("owner") or {}).get("display") or "")
        return CaseRow(
            str(task["id"]), facts.version(task), self.line.id if self.line else "", self.heading, "", "", None, 0.0, "", self.word, "", (),
            None, owner, bool(owner) and owner == self.viewer_name, lease_of(task, self.words.now, timedelta(minutes=self.lease_min)),
            str(task.get("priority") or "routine"), task_receipt(task), facts.instant(task.get("lastModified")),
        )  # fmt: skip

    @property
    def priors(self) -> list[Prior]:
        """Return earlier reports, newest first."""
        found = [
            Prior(at, facts.text_of(r.get("code")) or "report", _reader(r))
            for r in self.found.priors
            if (at := facts.instant(r.get("issued")) or facts.instant(r.get("effectiveDateTime")))
        ]
        return sorted(found, key=lambda p: p.at, reverse=True)

    @property
    def merged(self) -> list[tuple[str, str]]:
        """Return id and number of each patient that was merged into this one."""
        return [(str(one["id"]), _said("", one).number) for one in self.found.merged]

    @property
    def prior_limit(self) -> int:
        """Return how many of them are shown."""
        return _PRIORS

    @property
    def said(self) -> list[Said]:
        """Return what order and images state of the person, side by side, while images are held."""
        if not (self.line and self.line.held):
            return []
        images = [c for s in self.found.loose for c in s.get("contained") or [] if c.get("resourceType") == "Patient"]
        sources = ([("order", self.found.patient)] if self.found.patient else []) + [("images", one) for one in images]
        return [_said(source, person) for source, person in sources]


def _reader(report: Json) -> str:
    return next((str(p["display"]) for p in report.get("resultsInterpreter") or [] if p.get("display")), "")


def _said(source: str, person: Json) -> Said:
    numbers = ", ".join(str(i.get("value")) for i in person.get("identifier") or [] if i.get("value"))
    name = facts.person_name({**person, "identifier": []})
    return Said(
        source,
        numbers or "none",
        name,
        str(person.get("birthDate") or "not stated"),
        str(person.get("gender") or "not stated"),
    )


def measured_rows(observations: list[Json]) -> list[Measured]:
    """Return one row a structure, in the order in which they were measured; rejected values are not shown."""
    rows: dict[str, list[Value]] = {}
    codes = [v.structure for o in observations if (v := value_of(o)) is not None]
    for value in values_of(observations, codes):
        if value.state != "rejected":
            rows.setdefault(value.structure, []).append(value)
    return [_measured(code, values) for code, values in rows.items()]


def _measured(code: str, values: list[Value]) -> Measured:
    sides = next((v.sides() for v in values if v.asymmetry), "")
    changes = [v for v in values if v.change and v.standing]
    told = [v for v in changes if v.change and v.change.beyond] or changes[:1]
    since = "; ".join(f"{v.side} {v.since()}".strip() if v.change and v.change.beyond else v.since() for v in told)
    day = next((v.change.since for v in changes if v.change), None)
    return Measured(
        values[0].name, code, {v.side: v.amount for v in values}, values[0].unit, all(v.review for v in values), sides, since, day
    )  # fmt: skip


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the case page."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, case_id: str) -> tuple[Frame, Case]:
        rooms, query = await desk.rooms(request), request.query_params
        structure = query.get("structure", "")
        file = await read_casefile(rooms, case_id, structure)
        show = query.get("events", "main")
        viewer = await desk.viewer(request, "case")
        view = Case(
            desk.words, file, show if show in _SHOWS else "main", structure, desk.settings.lease_min, viewer.name
        )
        about = tuple(r for r in (view.line.order, view.line.patient) if r) if view.line else ()
        studies = tuple(f"ImagingStudy/{s['id']}" for s in (*view.found.all("ImagingStudy"), *view.found.loose))
        absent = () if view.draft else ("D",)
        return await desk.frame(request, "case", "Case", about=(*about, *studies), absent=absent), view

    @app.get("/case/{case_id}", dependencies=signed_in)
    async def page(request: Request, case_id: str) -> Response:
        frame, view = await seen(request, case_id)
        return desk.renderer.page("case/page.html", frame, view=view, case_id=case_id)

    @app.get("/case/{case_id}/parts", dependencies=signed_in)
    async def parts(request: Request, case_id: str, names: str = "") -> Response:
        frame, view = await seen(request, case_id)
        wanted = [n for n in names.split(",") if n in PARTS]
        return desk.renderer.parts("case", frame, wanted, view=view, case_id=case_id)

    @app.get("/case/{case_id}/picture.png", dependencies=signed_in)
    async def picture(
        request: Request, case_id: str, study: str = "", structure: str = "", layer: str = ""
    ) -> Response:
        if not study.replace("-", "").isalnum():
            raise NotFound("There is no such picture")
        rooms, asked = await desk.rooms(request), {"structure": structure, "layer": layer}
        query = {name: text for name, text in asked.items() if text}
        drawn = await rooms.get_bytes(f"/imaging/studies/{study}/picture.png", query or None)
        return Response(drawn, media_type="image/png", headers={"Cache-Control": "private, max-age=60"})

    @app.post("/case/{case_id}/release", dependencies=signed_in)
    async def release(request: Request, case_id: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        try:
            said = await service.release(rooms, case_id, str(form.get("reason") or ""))
        except ArcuateError as error:
            said = service.refused(error)
        return await _after(request, case_id, said)

    @app.post("/case/{case_id}/keep-out", dependencies=signed_in)
    async def keep_out(request: Request, case_id: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        try:
            said = await service.keep_out(rooms, case_id, str(form.get("reason") or ""))
        except ArcuateError as error:
            said = service.refused(error)
        return await _after(request, case_id, said)

    @app.post("/case/{case_id}/unmerge", dependencies=signed_in)
    async def unmerge(request: Request, case_id: str) -> Response:
        form, rooms, viewer = await form_of(request), await desk.rooms(request), await desk.viewer(request, "case")
        try:
            patient, reason = str(form.get("patient") or ""), str(form.get("reason") or "")
            said = await service.take_merge_back(rooms, viewer, desk.words, patient, reason)
        except ArcuateError as error:
            said = service.refused(error)
        return await _after(request, case_id, said)

    @app.post("/case/{case_id}/task/{task_id}/{act}", dependencies=signed_in)
    async def act(request: Request, case_id: str, task_id: str, act: str) -> Response:
        form = await form_of(request)
        return await _after(request, case_id, await act_on(desk, request, task_id, act, str(form.get("version") or "")))

    async def _after(request: Request, case_id: str, said: Any) -> Response:
        if not by_script(request):
            return see_other(f"/case/{case_id}")
        frame, view = await seen(request, case_id)
        names = ["facts", "stages", "events", "side", "said"]
        return desk.renderer.parts("case", frame, names, view=view, case_id=case_id, notice=said)
