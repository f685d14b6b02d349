"""The models: which are live, which in shadow, how good and on whom, and what a person has to do next."""

import asyncio
import json
import tomllib
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, judging, service
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Notice, Silent
from arcuate.dashboard.domain.models import (
    LEAST_CASES,
    Known,
    Model,
    Pause,
    as_paused,
    forecaster,
    network,
    shadow,
    unknown,
)
from arcuate.dashboard.render import FOLDER, Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording, listed
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError, NotFound, Unavailable

PARTS = ("facts", "rows", "side")
_READINGS_SHOWN = 6
_INSTEAD = "How its models stand is not known."


@dataclass(frozen=True)
class Reading:
    """What a model in shadow read of one study, and what people found.

    Attributes:
        key: Under which an outcome is told.
        said: Values, or why it refused.
        found: What people said, empty while nobody has.
    """

    key: str
    study: str
    finished: datetime | None
    said: str
    found: str


@dataclass(frozen=True)
class Checks:
    """How people took the cards of the order checks (rules, not a model).

    Attributes:
        undone: The rule most often overridden: title, overridden, shown; None below 20 cards of every rule.
    """

    shown: int
    accepted: int
    overridden: int
    undone: tuple[str, int, int] | None = None


@dataclass(frozen=True)
class Models:
    """What the page shows.

    Attributes:
        readings: Of the picked model, newest first; only of one that ships in shadow.
        structures: What the picked model measures, code and title, of which an outcome may be told.
        may_judge: Whether the person may tell outcomes, and pause models.
        silent: Rooms that did not answer, each once.
    """

    words: Wording
    rows: Sequence[Model]
    picked: Model
    checks: Part[Checks]
    readings: Sequence[Reading] = ()
    readings_in_all: int = 0
    silent: Sequence[Silent] = ()
    structures: Sequence[tuple[str, str]] = ()
    may_judge: bool = False

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        live = sum(r.state.startswith("live") for r in self.rows)
        found = [Fact(str(live), "live")]
        for state, tone in (
            ("shadow", ""),
            ("paused", "stop"),
            ("stopped", "stop"),
            ("not loaded", "look"),
            ("not known", "look"),
        ):
            number = sum(r.state == state for r in self.rows)
            found += [Fact(str(number), f"in {state}" if state == "shadow" else state, tone)] if number else []
        return [*found, Fact("none", "decides alone")]


def load_known() -> tuple[Known, ...]:
    """Read the table of models."""
    table = tomllib.loads((FOLDER / "models.toml").read_text(encoding="utf-8"))
    return tuple(Known(**row) for row in table["model"])


async def read_models(desk: Desk, rooms: Rooms, picked: str, *, may_judge: bool = False) -> Models:
    """Ask the rooms how their models stand."""
    known = load_known()
    networks = [k.name for k in known if k.room == "inference"]
    inference, status, told, pauses, checks = await asyncio.gather(
        rooms.part("inference", _networks(rooms, networks), _INSTEAD),
        rooms.part("scheduling", rooms.get("/scheduling/status"), _INSTEAD),
        rooms.part("imaging", rooms.get("/imaging/shadow"), _INSTEAD),
        rooms.part("imaging", rooms.get("/imaging/pipelines"), _INSTEAD),
        rooms.part("protocoling", rooms.get("/protocoling/counts"), "How people took its cards is not known."),
    )
    parts = {"inference": inference, "scheduling": status, "imaging": told}
    stopped = (pauses.value or {}).get("paused") or {}
    rows = [as_paused(_row(one, parts[one.room]), _pause(stopped.get(one.pipeline))) for one in known]
    at = next((r for r in rows if r.name == picked), rows[0])
    kept: list[Mapping[str, Any]] = []
    if at.known.room == "imaging":
        kept = [r for r in told.or_else({}).get("readings") or [] if r.get("pipeline") == at.name]
    counted = Part(_checks(checks.value)) if checks.value is not None else Part[Checks](silent=checks.silent)
    # A room that refuses has answered: the row of its model says so.
    silent = [p.silent for p in parts.values() if p.silent is not None and p.silent.since is not None]
    shadows: list[Mapping[str, Any]] = told.or_else({}).get("pipelines") or []
    measured = next((p.get("structures") or [] for p in shadows if p.get("name") == at.known.pipeline), [])
    return Models(
        desk.words, rows, at, counted, [_reading(r) for r in kept[:_READINGS_SHOWN]], len(kept), silent,
        [(str(s["code"]), str(s["title"])) for s in measured], may_judge,
    )  # fmt: skip


def _pause(told: Mapping[str, Any] | None) -> Pause | None:
    return Pause(str(told["by"]), facts.instant(told.get("at")), str(told["reason"])) if told else None


async def _networks(rooms: Rooms, names: Sequence[str]) -> dict[str, Any]:
    """Return the metadata of each network that is here, and why others are disabled.

    Raises:
        Unavailable: The room does not answer.
    """
    # 503 is also the answer of a room in which one network of several is disabled: its body says which.
    health = _object(await rooms.http.get("/v2/health/ready"))
    if "ready" not in health:
        raise Unavailable("The room does not answer")
    disabled: Mapping[str, Any] = health.get("disabled") or {}
    here = [name for name in names if name not in disabled]
    answers = await asyncio.gather(*(rooms.http.get(f"/v2/models/{name}") for name in here))
    if any(a.status_code not in (200, 404) for a in answers):
        raise Unavailable("The room does not answer")
    found = {name: _object(a) for name, a in zip(here, answers, strict=True) if a.status_code == 200}
    return {"models": found, "disabled": disabled}


def _object(answer: Any) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _row(known: Known, part: Part[Any]) -> Model:
    if part.silent is not None or part.value is None:
        return unknown(known, part.silent or Silent(known.room, None, _INSTEAD))
    told: Mapping[str, Any] = part.value
    if known.room == "inference":
        return network(known, told["models"].get(known.name), str(told["disabled"].get(known.name) or ""))
    if known.room == "imaging":
        return shadow(known, told)
    measured = (told.get("measured_here") or {}) if known.name == "attendance" else None
    return forecaster(known, (told.get("models") or {}).get(known.name) or {}, measured)


def _reading(told: Mapping[str, Any]) -> Reading:
    values = [f"{v['title']} {v['value']} {_unit(str(v['unit']))}".strip() for v in told.get("values") or []]
    refusal: Mapping[str, Any] = told.get("refusal") or {}
    said = f"refused: {refusal.get('what')}" if refusal else listed(values) or "nothing measured"
    found = [_outcome(o, told) if "structure" in o else "told" for o in told.get("outcomes") or []]
    return Reading(
        str(told.get("key") or ""),
        str(told.get("imaging_study") or ""),
        facts.instant(told.get("finished")),
        said,
        listed(found),
    )


def _unit(unit: str) -> str:
    return "" if unit == "1" or unit.startswith("{") else unit


def _outcome(outcome: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    titles = {v["structure"]: v["title"] for v in told.get("values") or []}
    name = str(titles.get(outcome.get("structure"), outcome.get("structure")))
    stood = {True: "there", False: "not there", None: "cannot say"}[outcome.get("present")]
    value = f", {outcome['value']}" if outcome.get("value") is not None else ""
    return f"{name} {stood}{value} ({outcome.get('source')})"


def _checks(rows: Sequence[Mapping[str, Any]]) -> Checks:
    enough = [r for r in rows if r["shown"] >= LEAST_CASES and r["overridden"]]
    most = max(enough, key=lambda r: r["overridden"] / r["shown"], default=None)
    undone = (str(most["rule"]), int(most["overridden"]), int(most["shown"])) if most else None
    shown, accepted, overridden = (sum(int(r[key]) for r in rows) for key in ("shown", "accepted", "overridden"))
    return Checks(shown, accepted, overridden, undone)


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the models."""
    signed_in = [Depends(guard)]

    async def seen(request: Request, at: str = "") -> tuple[Frame, Models]:
        frame = await desk.frame(request, "models", "Models")
        picked = at or request.query_params.get("at", "")
        may_judge = frame.viewer.may(Role.QUALITY, Role.LEAD)
        return frame, await read_models(desk, await desk.rooms(request), picked, may_judge=may_judge)

    async def after(request: Request, at: str, act: Awaitable[Notice]) -> Response:
        try:
            said = await act
        except ArcuateError as error:
            said = service.refused(error)
        if not by_script(request):
            return see_other(f"/models?at={at}")
        frame, view = await seen(request, at)
        return desk.renderer.parts("models", frame, ["facts", "rows", "side"], view=view, notice=said)

    @app.get("/models", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("models/page.html", frame, view=view)

    @app.get("/models/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("models", frame, [n for n in names.split(",") if n in PARTS], view=view)

    @app.post("/models/readings/{key}/outcome", dependencies=signed_in)
    async def outcome(request: Request, key: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        told = {name: str(form.get(name) or "") for name in ("structure", "present", "value", "source")}
        return await after(request, "head-ct", judging.tell_outcome(rooms, key, told))

    @app.post("/models/{name}/{act}", dependencies=signed_in)
    async def pause(request: Request, name: str, act: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        known = next((k for k in load_known() if k.name == name and k.pipeline), None)
        if known is None or act not in judging.ACTS:
            raise NotFound("There is no such model, or nobody can pause it here")
        return await after(request, name, judging.pause(rooms, known, act, str(form.get("reason") or "")))
