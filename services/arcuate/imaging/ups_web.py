"""The worklist service of DICOMweb (UPS-RS, PS3.18 chapter 11) below `/dicom-web/workitems`: create, search, retrieve, update, change state, request
cancellation. Subscriptions are refused in words: a client asks again.

Quantifications stand in the list as work items of our own (`worklist.py`); any other system may put items there for another to perform.
"""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request
from sqlmodel import Session
from starlette.responses import Response

from arcuate.imaging import ups, worklist
from arcuate.imaging.context import Imaging
from arcuate.imaging.dicomweb import page_of, query_of
from arcuate.imaging.ups import Changed, UpsRefused, Workitem
from arcuate.kernel.auth import Role
from arcuate.kernel.errors import BadInput, NotSupported
from arcuate.kernel.web import allow, read_body

DICOM_JSON = "application/dicom+json"
_BODY = 4 << 20
_PERFORMERS = (Role.TECHNOLOGIST, Role.INTEGRATION)
_READERS = (Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION, Role.QUALITY)
_KEYS = {
    "ProcedureStepState": ups.STATE, "ProcedureStepLabel": "00741204", "WorklistLabel": "00741202", "ScheduledProcedureStepPriority": "00741200",
    "StudyInstanceUID": "0020000D", "AccessionNumber": "00080050", "SOPInstanceUID": ups.SOP_UID,
}  # fmt: skip


def add_routes(app: FastAPI, imaging: Imaging) -> None:
    """Add the routes of the worklist."""
    _add_list(app, imaging)
    _add_item(app, imaging)
    _add_subscriptions(app)


def _add_list(app: FastAPI, imaging: Imaging) -> None:
    @app.post("/dicom-web/workitems", dependencies=[allow(*_PERFORMERS)])
    async def create(request: Request) -> Response:
        told = await _dataset(request)
        uid = _bare(request) or ups.value(told, ups.SOP_UID) or f"2.25.{uuid.uuid4().int}"
        item, now = ups.created(uid, told), imaging.clock.now()
        await imaging.database.write(lambda s: worklist.add(s, item, now))
        place = f"/dicom-web/workitems/{uid}"
        return Response(status_code=201, headers={"Content-Location": place, "Location": place})

    @app.get("/dicom-web/workitems", dependencies=[allow(*_READERS)])
    async def search(request: Request) -> Response:
        query, (limit, offset) = query_of(request, _KEYS), page_of(request)
        found = await imaging.database.read(lambda s: worklist.search(s, query, limit, offset))
        if not found:
            return Response(status_code=204)
        return Response(json.dumps([item.dataset() for item in found]), media_type=DICOM_JSON)


def _add_item(app: FastAPI, imaging: Imaging) -> None:
    path, performers = "/dicom-web/workitems/{uid}", allow(*_PERFORMERS)

    @app.get(path, dependencies=[allow(*_READERS)])
    async def retrieve(uid: str) -> Response:
        item = await imaging.database.read(lambda s: worklist.get(s, uid))
        return Response(json.dumps([item.dataset()]), media_type=DICOM_JSON)

    @app.post(path, dependencies=[performers])
    async def update(uid: str, request: Request) -> Response:
        told = await _dataset(request)
        transaction = _bare(request) or ups.value(told, ups.TRANSACTION) or None
        return await _changed(imaging, uid, lambda item: Changed(ups.updated(item, told, transaction)), 200)

    @app.put(path + "/state", dependencies=[performers])
    async def change(uid: str, request: Request) -> Response:
        told = await _dataset(request)
        wanted, transaction = ups.value(told, ups.STATE), ups.value(told, ups.TRANSACTION) or None
        return await _changed(imaging, uid, lambda item: ups.moved(item, wanted, transaction), 200)

    @app.post(path + "/cancelrequest", dependencies=[performers])
    async def cancel(uid: str) -> Response:
        answer = await _changed(imaging, uid, ups.cancellation_requested, 202)
        running = [task for key, task in imaging.running.items() if worklist.uid_for(key) == uid]
        for task in running if answer.status_code == 202 else ():
            task.cancel()
        imaging.wake()
        return answer


def _add_subscriptions(app: FastAPI) -> None:
    path = "/dicom-web/workitems/{uid}/subscribers/{aetitle}"

    @app.post(path, dependencies=[allow(*_READERS)])
    @app.post(path + "/suspend", dependencies=[allow(*_READERS)])
    @app.delete(path, dependencies=[allow(*_READERS)])
    async def subscriptions() -> Response:
        raise NotSupported("Subscriptions to workitems are not offered", todo="Search or retrieve workitems again.")


async def _changed(imaging: Imaging, uid: str, change: Callable[[Workitem], Changed], status: int) -> Response:
    now = imaging.clock.now()

    def write(session: Session) -> Changed:
        made = change(worklist.get(session, uid, lock=True))
        worklist.save(session, made.item, now)
        return made

    try:
        made = await imaging.database.write(write)
    except UpsRefused as error:
        return Response(json.dumps({"error": error.what}), error.status, _warning(error.what), "application/json")
    return Response(status_code=status, headers=_warning(made.warning) if made.warning else {})


def _warning(words: str) -> dict[str, str]:
    return {"Warning": f'299 arcuate "{words}"'}


async def _dataset(request: Request) -> Mapping[str, Any]:
    """The one data set of a request in the DICOM JSON model, alone or in an array."""
    kind = request.headers.get("content-type", "").split(";")[0].strip()
    if kind not in (DICOM_JSON, "application/json"):
        raise NotSupported("Workitems are taken as DICOM JSON", todo=f"Send Content-Type: {DICOM_JSON}.")
    try:
        told = json.loads(await read_body(request, _BODY))
    except (ValueError, RecursionError) as error:
        raise BadInput("The body is not JSON") from error
    found = told[0] if isinstance(told, list) and len(told) == 1 else told
    if not isinstance(found, dict) or not all(
        isinstance(v, dict) and isinstance(v.get("Value", []), list) for v in found.values()
    ):
        raise BadInput("The body is not one data set in the DICOM JSON model", todo="See DICOM PS3.18 annex F.")
    return found


def _bare(request: Request) -> str:
    """The UID that PS3.18 puts into the query without a name (`POST /workitems?1.2.3`), or with one."""
    for name, given in request.query_params.items():
        if name in ("workitem", "AffectedSOPInstanceUID", "transaction-uid", "transactionUID"):
            return given
        if not given and name[:1].isdigit():
            return name
    return ""
