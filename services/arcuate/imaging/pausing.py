"""A pipeline that a person has paused at this site: it measures nothing new and says so, until a person lets it go on.

What it said before stays as it is: who judged a value judged it. Studies that came meanwhile are measured when they are asked for again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from sqlmodel import Session, col, select

from arcuate.imaging.context import Imaging
from arcuate.imaging.domain import Refusal, RefusalCode
from arcuate.imaging.pipelines import named, pipelines
from arcuate.imaging.tables import PauseRow
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import BadInput, Conflict
from arcuate.kernel.web import allow, principal_of, read_body

_LONGEST = 300


def paused(session: Session) -> dict[str, PauseRow]:
    """Return which pipelines are paused, by name, each with the last thing said of it."""
    rows = session.exec(select(PauseRow).order_by(col(PauseRow.id))).all()
    last = {row.pipeline: row for row in rows}
    return {name: row for name, row in last.items() if row.paused}


def refusal(row: PauseRow) -> Refusal:
    """Return why a study is not measured by a paused pipeline; the person's name stays on the page of the models."""
    title = named(row.pipeline).title
    what = f"{title}: paused at this site since {row.at:%Y-%m-%d} ({row.reason})"
    return Refusal(RefusalCode.PAUSED, what, "Read without it; it can be asked for again once it goes on.")


def told(rows: Mapping[str, PauseRow]) -> dict[str, dict[str, str]]:
    """Return the pauses as JSON."""
    return {name: {"by": r.by, "at": r.at.isoformat(), "reason": r.reason} for name, r in sorted(rows.items())}


def add_routes(app: FastAPI, imaging: Imaging) -> None:
    """Add the doors that pause a pipeline and let it go on; both ask for a reason and keep the name."""

    async def say(request: Request, name: str, *, pause: bool) -> None:
        person = principal_of(request)
        row = PauseRow(
            pipeline=named(name).name, paused=pause, reason=_reason(await read_body(request, 10_000)),
            by=person.name or person.subject, at=imaging.clock.now(),
        )  # fmt: skip

        def write(session: Session) -> None:
            if (row.pipeline in paused(session)) == pause:
                raise Conflict(f"{name} is {'paused already' if pause else 'not paused'}", where=name)
            session.add(row)

        await imaging.database.write(write)

    @app.post("/imaging/pipelines/{name}/pause", status_code=204, dependencies=[allow(Role.QUALITY, Role.LEAD)])
    async def pause(name: str, request: Request) -> None:
        await say(request, name, pause=True)

    @app.post("/imaging/pipelines/{name}/resume", status_code=204, dependencies=[allow(Role.QUALITY, Role.LEAD)])
    async def resume(name: str, request: Request) -> None:
        await say(request, name, pause=False)

    @app.get("/imaging/pipelines", dependencies=[allow(Role.QUALITY, Role.LEAD, Role.ADMIN)])
    async def listed() -> dict[str, Any]:
        rows = await imaging.database.read(paused)
        known: Sequence[dict[str, Any]] = [{"name": p.name, "title": p.title, "mode": p.mode} for p in pipelines()]
        return {"pipelines": known, "paused": told(rows)}


def _reason(body: bytes) -> str:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    reason = " ".join(str(said.get("reason") or "").split()) if isinstance(said, dict) else ""
    if not reason or len(reason) > _LONGEST:
        raise BadInput("Say why, in a few words", where="reason", todo='Send {"reason": "..."}.')
    return reason
