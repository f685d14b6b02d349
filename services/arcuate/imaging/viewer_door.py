"""The door for viewers in the browser: volumes of a measurement (`viewing.py`), and why there are no norms."""

import asyncio
import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from arcuate.imaging import nearest, service, store
from arcuate.imaging.context import Imaging
from arcuate.imaging.viewing import HEAD, LABELS, LEGEND, UNCERTAINTY, unpacked
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import NotFound
from arcuate.kernel.web import allow

_CARERS = (Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.QUALITY)
_BRAIN, _COMPARED = "brain-volumes", 500


@cache
def norms() -> dict[str, Any]:
    """Return why there are no centiles, and what was looked at."""
    return tomllib.loads(files("arcuate.imaging").joinpath("norms.toml").read_text("utf-8"))


async def _kept(imaging: Imaging, imaging_study_id: str, structure: str | None) -> bytes:
    """Return the packed gallery of the pipeline that measured a structure; without a name that of the first."""
    done = [row for row in await service.latest(imaging, imaging_study_id) if row.gallery and row.summary]
    mine = [row for row in done if structure and f'"structure": "{structure}"' in str(row.summary)]
    row = next(iter([*mine, *done]), None)
    if row is None or row.gallery is None:
        raise NotFound("There are no volumes to show: the study was refused", where=f"ImagingStudy/{imaging_study_id}")
    return await asyncio.to_thread(imaging.spool.path(row.gallery).read_bytes)


def add_routes(app: FastAPI, imaging: Imaging, people: Any) -> None:
    """Add the doors for viewers.

    Args:
        people: Who may look, as for pictures.
    """

    async def one(imaging_study_id: str, structure: str | None, name: str) -> bytes:
        kept = await _kept(imaging, imaging_study_id, structure)
        return await asyncio.to_thread(unpacked, kept, name)

    def add(name: str) -> None:
        @app.get(f"/imaging/studies/{{imaging_study_id}}/{name}", dependencies=[people])
        async def volume(imaging_study_id: str, structure: str | None = None) -> Response:
            return Response(await one(imaging_study_id, structure, name), media_type="application/gzip")

    for name in (HEAD, LABELS, UNCERTAINTY):
        add(name)

    @app.get("/imaging/studies/{imaging_study_id}/legend", dependencies=[people])
    async def legend(imaging_study_id: str, structure: str | None = None) -> Response:
        return Response(await one(imaging_study_id, structure, LEGEND), media_type="application/json")

    # Not for who cares for no patient: other studies are named.
    @app.get("/imaging/studies/{imaging_study_id}/nearest", dependencies=[allow(*_CARERS)])
    async def nearest_cases(imaging_study_id: str) -> dict[str, Any]:
        done = [
            row for row in await service.latest(imaging, imaging_study_id) if row.pipeline == _BRAIN and row.summary
        ]
        if not done:
            raise NotFound("There are no volumes to compare", where=f"ImagingStudy/{imaging_study_id}")
        summary = json.loads(str(done[0].summary))
        rows = await imaging.database.read(lambda s: store.measured_elsewhere(s, done[0], _COMPARED))
        others = [(key, json.loads(text)) for key, text in rows]
        # Only the same model and version: else the tools would differ, not the brains.
        site = [nearest.Case(key, nearest.volumes_of(o)) for key, o in others if o["models"] == summary["models"]]
        found = await asyncio.to_thread(nearest.find, nearest.volumes_of(summary), site)
        if found is None:
            raise NotFound("A structure that is compared was not measured", where=f"ImagingStudy/{imaging_study_id}")
        return nearest.told(found) | {"compared": len(site)}

    @app.get("/imaging/norms", dependencies=[people])
    async def told_norms() -> dict[str, Any]:
        return norms()
