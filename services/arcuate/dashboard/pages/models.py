"""The models: which are live, which in shadow, how good and on whom, and what a person has to do next."""

import asyncio
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts
from arcuate.dashboard.desk import Desk
from arcuate.dashboard.domain.frame import Fact, Silent
from arcuate.dashboard.domain.models import LEAST_CASES, Known, Model, forecaster, network, shadow, unknown
from arcuate.dashboard.render import FOLDER, Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording, listed
from arcuate.kernel.errors import Unavailable

PARTS = ("facts", "rows", "side")
_READINGS_SHOWN = 6
_INSTEAD = "How its models stand is not known."


@dataclass(frozen=True)
class Reading:
    """What a model in shadow read of one study, and what people found.

    Attributes:
        said: Values, or why it refused.
        found: What people said, empty while nobody has.
    """

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
        silent: Rooms that did not answer, each once.
    """

    words: Wording
    rows: Sequence[Model]
    picked: Model
    checks: Part[Checks]
    readings: Sequence[Reading] = ()
    readings_in_all: int = 0
    silent: Sequence[Silent] = ()

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        live = sum(r.state.startswith("live") for r in self.rows)
        found = [Fact(str(live), "live")]
        for state, tone in (("shadow", ""), ("stopped", "stop"), ("not loaded", "look"), ("not known", "look")):
            number = sum(r.state == state for r in self.rows)
            found += [Fact(str(number), f"in {state}" if state == "shadow" else state, tone)] if number else []
        return [*found, Fact("none", "decides alone")]


def load_known() -> tuple[Known, ...]:
    """Read the table of models."""
    table = tomllib.loads((FOLDER / "models.toml").read_text(encoding="utf-8"))
    return tuple(Known(**row) for row in table["model"])


async def read_models(desk: Desk, rooms: Rooms, picked: str) -> Models:
    """Ask the rooms how their models stand."""
    known = load_known()
    networks = [k.name for k in known if k.room == "inference"]
    inference, status, told, checks = await asyncio.gather(
        rooms.part("inference", _networks(rooms, networks), _INSTEAD),
        rooms.part("scheduling", rooms.get("/scheduling/status"), _INSTEAD),
        rooms.part("imaging", rooms.get("/imaging/shadow"), _INSTEAD),
        rooms.part("protocoling", rooms.get("/protocoling/counts"), "How people took its cards is not known."),
    )
    parts = {"inference": inference, "scheduling": status, "imaging": told}
    rows = [_row(one, parts[one.room]) for one in known]
    at = next((r for r in rows if r.name == picked), rows[0])
    kept: list[Mapping[str, Any]] = []
    if at.known.room == "imaging":
        kept = [r for r in told.or_else({}).get("readings") or [] if r.get("pipeline") == at.name]
    counted = Part(_checks(checks.value)) if checks.value is not None else Part[Checks](silent=checks.silent)
    # A room that refuses has answered: the row of its model says so.
    silent = [p.silent for p in parts.values() if p.silent is not None and p.silent.since is not None]
    return Models(desk.words, rows, at, counted, [_reading(r) for r in kept[:_READINGS_SHOWN]], len(kept), silent)


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
    found = [_outcome(o, told) for o in told.get("outcomes") or []]
    return Reading(str(told.get("imaging_study") or ""), facts.instant(told.get("finished")), said, listed(found))


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

    async def seen(request: Request) -> tuple[Frame, Models]:
        view = await read_models(desk, await desk.rooms(request), request.query_params.get("at", ""))
        return await desk.frame(request, "models", "Models"), view

    @app.get("/models", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("models/page.html", frame, view=view)

    @app.get("/models/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("models", frame, [n for n in names.split(",") if n in PARTS], view=view)
