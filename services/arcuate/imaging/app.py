"""The doors of the imaging room: DICOM (C-STORE, C-ECHO), DICOMweb, and `/imaging`."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate import imaging as package
from arcuate.imaging import (
    answering,
    commitment,
    dicomweb,
    gallery,
    pausing,
    picture,
    pulling,
    service,
    shadow,
    store,
    ups_web,
    viewer_door,
)
from arcuate.imaging.commitment import Committer
from arcuate.imaging.context import Imaging
from arcuate.imaging.dicomweb import Web
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.parsing import MEBI, Limits, Parser
from arcuate.imaging.picture import Layer
from arcuate.imaging.procedure_steps import Listener
from arcuate.imaging.receiving import Receiver
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.spool import GIBI, Spool
from arcuate.imaging.store_scp import StoreScp
from arcuate.imaging.tables import MeasurementRow, StudyRow, work
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, fhir_response, principal_of, read_body, read_json

_PEOPLE = (Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION, Role.QUALITY)
_HOUR_S = 3600.0
_LISTED = 200


async def open_room(context: RoomContext, settings: ImagingSettings | None = None) -> Room:
    """Build the room; its DICOM door opens when it runs."""
    settings = settings or ImagingSettings()
    shadow.validations(settings)  # refuses to start where a shadow was switched on without a word about its validation
    context.database.migrate(package)
    spool = Spool(context.data_dir / "spool", int(settings.quota_gib * GIBI), int(settings.free_gib * GIBI))
    limits = Limits(file_bytes=settings.file_mib * MEBI)
    door, reader = Parser(limits), Parser(limits)
    # Another server gets no token of ours.
    elsewhere = httpx.AsyncClient() if settings.inference_url else None
    imaging = Imaging(
        context.database, context.clock, context.site, settings, spool, FhirClient(context.http, clock=context.clock),
        OipClient(elsewhere or context.http, settings.inference_url), context.models_dir, reader,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    receiver = Receiver(
        context.database, spool, door, context.clock, settings.quiet_s, lambda: _wake_from_thread(loop, imaging)
    )
    worker = service.make_worker(imaging, receiver, context.loops)
    peers = commitment.peers(settings.commitment_to)
    committer = Committer(context.database, spool, context.clock, settings.ae_title, peers) if peers else None
    listener = Listener(context.database, context.clock, lambda: _wake_from_thread(loop, imaging))
    scp = StoreScp(receiver, spool, settings, listener, committer)
    state = _Door(scp)
    app = create_app(context, "Arcuate imaging", state.ready)
    app.state.imaging = imaging
    _add_operation(app, imaging)
    _add_pictures(app, imaging)
    _add_desk(app, imaging)
    shadow.add_routes(app, imaging)
    pausing.add_routes(app, imaging)
    ups_web.add_routes(app, imaging)
    dicomweb.add_routes(app, Web(context.database, spool, receiver, settings.file_mib * MEBI))

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        await _sweep(imaging)
        await asyncio.to_thread(scp.open)
        state.open = True
        try:
            async with worker.run(), context.loops.run("housekeeping", partial(_keep_house, imaging)):
                yield
        finally:
            state.open = False
            await asyncio.to_thread(scp.close)
            await _stop(*imaging.running.values())
            door.close()
            reader.close()
            if elsewhere is not None:
                await elsewhere.aclose()

    return Room("imaging", ("/imaging", "/dicom-web"), app, run, state.ready)


class _Door:
    """Whether the DICOM door is open."""

    def __init__(self, scp: StoreScp) -> None:
        self.scp, self.open = scp, False

    def ready(self) -> str | None:
        return None if self.open else "The DICOM port is not open"


def _wake_from_thread(loop: asyncio.AbstractEventLoop, imaging: Imaging) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended; the job stands in the database
        loop.call_soon_threadsafe(imaging.wake)


async def _sweep(imaging: Imaging) -> None:
    known = await imaging.database.read(store.known_files)
    if swept := await asyncio.to_thread(imaging.spool.sweep, known):
        get_logger("imaging").info("files without a row removed", files=swept)


async def _keep_house(imaging: Imaging) -> None:
    while True:
        try:
            await service.expire(imaging)
        except ArcuateError as error:
            get_logger("imaging").warning("images not expired", reason=error.what)
        await imaging.clock.sleep(_HOUR_S)


async def _stop(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _add_operation(app: FastAPI, imaging: Imaging) -> None:
    @app.post("/imaging/ImagingStudy/$quantify", dependencies=[allow()])
    async def quantify(request: Request) -> Response:
        answer = await answering.quantify(imaging, await read_json(request))
        if answer is None:
            return Response(status_code=202, headers={"Retry-After": str(imaging.settings.retry_after_s)})
        return fhir_response(answer)


def _add_pictures(app: FastAPI, imaging: Imaging) -> None:
    people = allow(*_PEOPLE)
    viewer_door.add_routes(app, imaging, people)

    @app.get("/imaging/studies/{imaging_study_id}/picture.png", dependencies=[people])
    async def slice_picture(
        imaging_study_id: str, structure: str | None = None, outline: bool = True, layer: Layer = Layer.OUTLINE
    ) -> Response:
        exhibit = await service.exhibit(imaging, imaging_study_id, structure)
        parts = gallery.shown_parts(exhibit)
        drawn = await asyncio.to_thread(
            lambda: picture.png(picture.draw(exhibit.cut, parts, outline=outline, layer=layer))
        )
        return Response(drawn, media_type="image/png")

    @app.get("/imaging/studies/{imaging_study_id}/outlines", dependencies=[people])
    async def outlines(imaging_study_id: str, structure: str | None = None) -> dict[str, Any]:
        return gallery.outlines(await service.exhibit(imaging, imaging_study_id, structure))

    @app.get("/imaging/studies/{imaging_study_id}/qc.png", dependencies=[people])
    async def qc_picture(imaging_study_id: str) -> Response:
        return Response(await service.qc_picture(imaging, imaging_study_id), media_type="image/png")

    @app.get("/imaging/studies/{imaging_study_id}/measurement", dependencies=[people])
    async def measurement(imaging_study_id: str) -> dict[str, Any]:
        first, *others = await service.latest(imaging, imaging_study_id)
        return _measurement_json(first) | {"others": [_measurement_json(row) for row in others]}


def _add_desk(app: FastAPI, imaging: Imaging) -> None:
    @app.get("/imaging/studies", dependencies=[allow(*_PEOPLE)])
    async def studies(limit: int = _LISTED, offset: int = 0) -> dict[str, Any]:
        listed = await imaging.database.read(
            lambda s: [
                _study_json(s, imaging, row) for row in store.studies(s, max(0, min(limit, _LISTED)), max(0, offset))
            ]
        )
        door = {"port": imaging.settings.port, "ae_title": imaging.settings.ae_title}
        return {
            "at": imaging.clock.now().isoformat(),
            "door": door,
            "studies": listed,
            "used_bytes": imaging.spool.used,
        }

    @app.post("/imaging/pull", dependencies=[allow(Role.TECHNOLOGIST, Role.INTEGRATION)])
    async def pull(request: Request) -> Response:
        await pulling.ask(imaging, pulling.asked_study(await read_body(request, 10_000)))
        return Response(status_code=202)

    @app.post("/imaging/studies/{own_id}/release", dependencies=[allow(Role.LEAD, Role.TECHNOLOGIST, Role.QUALITY)])
    async def release(own_id: str, request: Request) -> Response:
        await service.release(imaging, own_id, principal_of(request).subject)
        return Response(status_code=204)

    @app.get("/imaging/jobs", dependencies=[allow(Role.INTEGRATION, Role.ADMIN)])
    async def jobs() -> dict[str, Any]:
        counts, parked = await imaging.database.read(lambda s: (work.counts(s), work.parked(s)))
        listed = [{"id": j.id, "kind": j.kind, "reason": j.reason, "since": j.parked_at.isoformat()} for j in parked]
        return {"counts": counts, "parked": listed}

    @app.post("/imaging/jobs/{job_id}/replay", dependencies=[allow(Role.INTEGRATION, Role.ADMIN)])
    async def replay(job_id: int, request: Request) -> Response:
        by, now = principal_of(request).subject, imaging.clock.now()
        await imaging.database.write(lambda s: work.replay(s, job_id, now=now, by=by))
        imaging.wake()
        return Response(status_code=204)


def _study_json(session: Any, imaging: Imaging, row: StudyRow) -> dict[str, Any]:
    done = service.latest_of(session, imaging, row.id)
    return {
        "id": row.id,
        "imaging_study": row.record_id,
        "state": row.state,
        "first_received": row.first_received.isoformat(),
        "last_received": row.last_received.isoformat(),
        "objects": store.counts(session, row.id),
        "conflict": row.conflict,
        "released_by": row.released_by,
        "images_expired": row.expired,
        "whole_by": row.whole_by,
        "missing": row.missing,
        "measurement": _measurement_json(done[0]) if done else None,
    }


def _measurement_json(row: MeasurementRow) -> dict[str, Any]:
    refused = json.loads(row.refusal) if row.refusal else None
    return {
        "pipeline": row.pipeline,
        "finished": row.finished.isoformat() if row.finished else None,
        "refusal": dict(zip(("code", "what", "todo"), refused, strict=True)) if refused else None,
        "result": json.loads(row.summary) if row.summary else None,
    }
