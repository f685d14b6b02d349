"""Pipelines in shadow mode: what they would have said is kept, beside what a person says later; how a site switches one on.

In shadow nothing leaves this room but the list below, which quality reads. Switched on, a value may ask that a case be read sooner.
"""

import asyncio
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, col, select

from arcuate.imaging.context import Imaging
from arcuate.imaging.pipelines import SHADOW, Pipeline, pipelines
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.tables import MeasurementRow, ShadowOutcomeRow, StudyRow
from arcuate.kernel.auth import Role
from arcuate.kernel.codes import CS_STRUCTURE, Json, coding
from arcuate.kernel.errors import BadInput, NotFound
from arcuate.kernel.web import allow, principal_of

READ_SOONER = "read-sooner"
CS_URGENCY = "urn:arcuate:cs:urgency"
_DAY = re.compile(r"\b20\d\d-\d\d-\d\d\b")
_LEAST_WORDS = 4
_STATED = ("version", "task", "population", "exported", "licence")  # of model.toml


class Outcome(BaseModel):
    """What a person found where a pipeline had read in shadow: from the signed report, or by looking."""

    model_config = ConfigDict(extra="forbid", str_max_length=500)

    structure: str
    present: bool | None = Field(None, description="Whether there was such a finding; None where nobody could tell.")
    value: float | None = Field(None, ge=0, description="The person's own value, in the structure's unit.")
    source: str = Field(min_length=3, description="What it was taken from, for example `signed report`.")


def validations(settings: ImagingSettings) -> dict[str, str]:
    """Return what the site states of its validation, for each pipeline in shadow mode that it has switched on.

    Raises:
        BadInput: A pipeline is switched on that is unknown or in no shadow, or without saying who validated it and when.
    """
    stated = dict(_statement(part) for part in settings.validations.split(";") if part.strip())
    shadows = {p.name for p in pipelines() if p.mode == SHADOW}
    on = settings.switched_on.split()
    for name in on:
        if name not in shadows:
            raise BadInput(
                f"{name!r} is no pipeline in shadow mode", where="ARCUATE_IMAGING_SWITCHED_ON",
                todo=f"Pipelines in shadow mode: {', '.join(sorted(shadows)) or 'none'}.",
            )  # fmt: skip
        text = stated.get(name, "")
        if not _DAY.search(text) or len(text.split()) < _LEAST_WORDS:
            raise BadInput(
                f"{name} is switched on without saying who validated it here and when", where="ARCUATE_IMAGING_VALIDATIONS",
                todo=f"State it as '{name}: who, on how many studies, 2026-01-31', several separated by semicolons.",
            )  # fmt: skip
    return {name: stated[name] for name in on}


def _statement(part: str) -> tuple[str, str]:
    name, _, text = part.partition(":")
    return name.strip(), " ".join(text.split())


def spoken(observations: Sequence[Json], pipeline: Pipeline, settings: ImagingSettings) -> list[Json]:
    """Return what a shadow that was switched on says: with the site's statement, and where the table says so with "read sooner"."""
    if pipeline.mode != SHADOW:
        return list(observations)
    text = f"Switched on at this site after validation: {validations(settings)[pipeline.name]}."
    return [_marked(o, pipeline, text) for o in observations]


def _marked(observation: Json, pipeline: Pipeline, text: str) -> Json:
    made = {**observation, "note": [*observation.get("note", ()), {"text": text}]}
    value = (observation.get("valueQuantity") or {}).get("value")
    model = (observation.get("device") or {}).get("display", pipeline.name)
    structures = {c.get("code") for c in observation["code"]["coding"] if c.get("system") == CS_STRUCTURE}
    for rule in _sooner():
        if rule["pipeline"] != pipeline.name or rule["structure"] not in structures or value is None:
            continue
        if float(value) >= rule["at_least"]:
            sentence = rule["sentence"].format(value=value, model=model)
            made["interpretation"] = [{"coding": [coding(CS_URGENCY, READ_SOONER, "Read sooner")], "text": sentence}]
    return made


@cache
def _sooner() -> tuple[Mapping[str, Any], ...]:
    return tuple(tomllib.loads(files("arcuate.imaging").joinpath("shadow.toml").read_text("utf-8"))["sooner"])


def readings(session: Session, limit: int, offset: int) -> list[dict[str, Any]]:
    """Return what pipelines in shadow mode read, newest first, each with what people found. Nothing here is a finding."""
    names = [p.name for p in pipelines() if p.mode == SHADOW]
    query = (
        select(MeasurementRow, StudyRow)
        .where(MeasurementRow.study_id == StudyRow.id)
        .where(col(MeasurementRow.pipeline).in_(names), col(MeasurementRow.finished).is_not(None))
        .order_by(col(MeasurementRow.finished).desc(), col(MeasurementRow.key))
        .limit(limit)
        .offset(offset)
    )
    rows = session.exec(query).all()
    keys = [row.key for row, _ in rows]
    found: dict[str, list[dict[str, Any]]] = {}
    outcomes = select(ShadowOutcomeRow).where(col(ShadowOutcomeRow.key).in_(keys)).order_by(col(ShadowOutcomeRow.at))
    for one in session.exec(outcomes).all():
        found.setdefault(one.key, []).append({**json.loads(one.outcome), "by": one.by, "at": one.at.isoformat()})
    return [_reading(row, study, found.get(row.key, [])) for row, study in rows]


def _reading(row: MeasurementRow, study: StudyRow, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    told = json.loads(row.summary) if row.summary else None
    refused = json.loads(row.refusal) if row.refusal else None
    return {
        "key": row.key,
        "pipeline": row.pipeline,
        "imaging_study": study.record_id,
        "finished": row.finished.isoformat() if row.finished else None,
        "models": told["models"] if told else [],
        "values": [
            {
                "structure": v["structure"],
                "value": v.get("ml", v.get("value")),
                "unit": v.get("unit", "mL"),
                "title": v["title"],
            }
            for v in ([*told["volumes"], *told["values"]] if told else ())
        ],
        "not_measured": told["not_measured"] if told else {},
        "warnings": told["warnings"] if told else [],
        "refusal": dict(zip(("code", "what", "todo"), refused, strict=True)) if refused else None,
        "outcomes": outcomes,
    }


def _without_findings(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reading for who keeps the house running and judges no finding: that it was made, by which model, and whether it was judged."""
    hidden: dict[str, Any] = {"imaging_study": None, "values": [], "not_measured": {}, "warnings": []}
    return {**reading, **hidden, "outcomes": [{"at": one["at"]} for one in reading["outcomes"]]}


@cache
def _structures(pipeline: str) -> list[dict[str, str]]:
    """Return what a pipeline measures, of which an outcome may be told; also where it found nothing."""
    table = tomllib.loads(files("arcuate.imaging").joinpath("structures.toml").read_text("utf-8"))["structure"]
    rows = [row for row in table if row.get("pipeline") == pipeline]
    return [{"code": row["code"], "title": row["name"], "unit": row.get("unit", "mL")} for row in rows]


def _installed(models_dir: Path, pipeline: Pipeline) -> list[dict[str, str]]:
    """Return what the models of a pipeline state of themselves; nothing of one that is not here, or whose description cannot be read."""
    found = []
    for name in dict.fromkeys(pipeline.models.values()):
        try:
            told = tomllib.loads((models_dir / name / "model.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        stated = {key: str(told[key]) for key in _STATED if key in told}
        found.append({"name": name, **stated, "weights_sha256": str(told.get("weights", {}).get("sha256", ""))})
    return found


def keep_outcome(session: Session, key: str, outcome: Outcome, by: str, at: datetime) -> None:
    """Keep what a person found; a later one of the same person and structure stands beside the earlier one.

    Raises:
        NotFound: No such reading in shadow mode.
        BadInput: The pipeline measures no such structure.
    """
    row = session.get(MeasurementRow, key)
    if row is None or row.pipeline not in {p.name for p in pipelines() if p.mode == SHADOW}:
        raise NotFound("There is no reading in shadow mode under this key", where="key")
    known = [one["code"] for one in _structures(row.pipeline)]
    if outcome.structure not in known:
        raise BadInput(
            f"{row.pipeline} measures no such structure", where="structure", todo=f"It measures: {', '.join(known)}."
        )
    session.add(ShadowOutcomeRow(key=key, outcome=outcome.model_dump_json(), by=by, at=at))


def add_routes(app: FastAPI, imaging: Imaging) -> None:
    """Add the door for quality: readings in shadow, and their outcomes."""

    @app.get("/imaging/shadow", dependencies=[allow(Role.QUALITY, Role.LEAD, Role.ADMIN)])
    async def shadow(request: Request, limit: int = 200, offset: int = 0) -> dict[str, Any]:
        at = imaging.clock.now()
        listed = await imaging.database.read(lambda s: readings(s, max(0, min(limit, 200)), max(0, offset)))
        if not principal_of(request).may(Role.QUALITY, Role.LEAD):
            listed = [_without_findings(reading) for reading in listed]
        shadows = [
            {
                "name": p.name,
                "title": p.title,
                "structures": _structures(p.name),
                "installed": await asyncio.to_thread(_installed, imaging.models_dir, p),
            }
            for p in pipelines()
            if p.mode == SHADOW
        ]
        on = validations(imaging.settings)
        return {"at": at.isoformat(), "pipelines": shadows, "switched_on": on, "readings": listed}

    @app.post(
        "/imaging/shadow/{key}/outcome",
        status_code=204,
        dependencies=[allow(Role.QUALITY, Role.LEAD, Role.RADIOLOGIST)],
    )
    async def outcome(key: str, said: Outcome, request: Request) -> None:
        by, at = principal_of(request).subject, imaging.clock.now()
        await imaging.database.write(lambda s: keep_outcome(s, key, said, by, at))
