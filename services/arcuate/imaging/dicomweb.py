"""DICOMweb (PS3.18), narrow: STOW-RS of DICOM files, QIDO-RS by identifiers, WADO-RS of whole objects and metadata.

Searches by patient are not offered: a patient's name or number must not stand in an address. `/fhir` is the place for them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from sqlmodel import Session
from starlette.responses import Response, StreamingResponse

from arcuate.imaging import store
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.receiving import Received, Receiver
from arcuate.imaging.resources import Said
from arcuate.imaging.spool import Spool
from arcuate.imaging.tables import InstanceRow, StudyRow
from arcuate.kernel.auth import Role
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, BadInput, NotFound, NotSupported, TooLarge, Unavailable
from arcuate.kernel.web import allow

DICOM_JSON = "application/dicom+json"
DICOM = "application/dicom"
_BOUNDARY = "arcuate-dicom-part"
_LIMIT = 200
_BLOCK = 1 << 20
_SHOWN = (store.USED, store.DERIVED)
_READERS = (Role.TECHNOLOGIST, Role.RADIOLOGIST, Role.LEAD, Role.INTEGRATION)
# Reasons of failure, PS3.18 table I.2-2
_OUT_OF_RESOURCES, _NOT_THAT_STUDY, _CANNOT_UNDERSTAND, _PROCESSING = 0xA700, 0xA900, 0xC000, 0x0110
# Tags of the answers (PS3.6)
_FAILED, _STORED = "00081198", "00081199"


@dataclass(frozen=True)
class Web:
    """What the routes need."""

    database: Database
    spool: Spool
    receiver: Receiver
    file_bytes: int


def add_routes(app: FastAPI, web: Web) -> None:
    """Add the routes below `/dicom-web`."""
    _add_store(app, web)
    _add_search(app, web)
    _add_retrieve(app, web)


# ---- STOW-RS ---------------------------------------------------------------------------------------------------------


def _add_store(app: FastAPI, web: Web) -> None:
    senders = allow(Role.INTEGRATION, Role.TECHNOLOGIST)

    @app.post("/dicom-web/studies", dependencies=[senders])
    async def store_any(request: Request) -> Response:
        return await _store_instances(web, request, None)

    @app.post("/dicom-web/studies/{study_uid}", dependencies=[senders])
    async def store_study(study_uid: str, request: Request) -> Response:
        return await _store_instances(web, request, study_uid)


async def _store_instances(web: Web, request: Request, study_uid: str | None) -> Response:
    stored: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    async for path in _parts(web, request):
        outcome = await asyncio.to_thread(_take, web, path, study_uid)
        (stored if isinstance(outcome, Received) else failed).append(_stow_item(outcome))
    if not stored and not failed:
        raise BadInput("The request holds no part", todo="Send multipart/related with parts of type application/dicom.")
    answer = {tag: {"vr": "SQ", "Value": items} for tag, items in ((_FAILED, failed), (_STORED, stored)) if items}
    status = 200 if not failed else 202 if stored else 409
    return Response(json.dumps(answer), status, media_type=DICOM_JSON)


def _take(web: Web, path: Path, study_uid: str | None) -> Received | int:
    """Take one part in; returns what became of it, or the reason of failure."""
    try:
        web.spool.check_room()
        if study_uid is not None and not web.receiver.is_of_study(path, study_uid):
            return _NOT_THAT_STUDY
        return web.receiver.take(path, "stow")
    except NotMeasurable as error:
        return _NOT_THAT_STUDY if error.refusal.code is RefusalCode.MIXED else _CANNOT_UNDERSTAND
    except (Unavailable, OSError):
        return _OUT_OF_RESOURCES
    except ArcuateError:
        return _PROCESSING


def _stow_item(outcome: Received | int) -> dict[str, Any]:
    if isinstance(outcome, int):
        return {"00081197": {"vr": "US", "Value": [outcome]}}
    instance = outcome.instance
    return {
        "00081150": {"vr": "UI", "Value": [instance.text("SOPClassUID")]},
        "00081155": {"vr": "UI", "Value": [instance.sop_uid]},
    }


async def _parts(web: Web, request: Request) -> AsyncIterator[Path]:
    """Yield each part of a multipart/related request as a file of the spool's incoming folder, removed afterwards."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary, wanted = options.get(b"boundary"), options.get(b"type", b"").strip(b'"')
    if kind != b"multipart/related" or not boundary or wanted not in (b"", DICOM.encode()):
        raise NotSupported(
            "This is no multipart/related request of DICOM files", todo=f'Send multipart/related; type="{DICOM}".'
        )
    collector = Collector(web.spool, web.file_bytes)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        async for block in request.stream():
            await asyncio.to_thread(parser.write, block)
            for path in collector.finished():
                yield path
        parser.finalize()
        for path in collector.finished():
            yield path
    except MultipartParseError as error:
        raise BadInput("The multipart request is broken", todo="Send it again.") from error
    finally:
        collector.close()


class Collector:
    """Writes parts to files as they come in."""

    def __init__(self, spool: Spool, limit: int) -> None:
        self._spool, self._limit = spool, limit
        self._open: Any = None
        self._file: Any = None
        self._size = 0
        self._path = Path()
        self._done: list[tuple[Any, Path]] = []

    def callbacks(self) -> Any:
        return {"on_part_begin": self._begin, "on_part_data": self._data, "on_part_end": self._end}

    def finished(self) -> Iterator[Path]:
        while self._done:
            context, path = self._done.pop(0)
            try:
                yield path
            finally:
                context.__exit__(None, None, None)

    def close(self) -> None:
        for context, _ in self._done:
            context.__exit__(None, None, None)
        if self._open is not None:
            self._open.__exit__(None, None, None)

    def _begin(self) -> None:
        self._open = self._spool.incoming()
        self._path, self._file = self._open.__enter__()
        self._size = 0

    def _data(self, block: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > self._limit:
            raise TooLarge(f"A part is larger than {self._limit // 2**20} MiB", todo="See ARCUATE_IMAGING_FILE_MIB.")
        self._file.write(block[start:end])

    def _end(self) -> None:
        self._file.flush()
        self._done.append((self._open, self._path))
        self._open = None


# ---- QIDO-RS ---------------------------------------------------------------------------------------------------------

_STUDY_KEYS = {"StudyInstanceUID": "0020000D", "AccessionNumber": "00080050", "StudyDate": "00080020"}
_PAGING = {"limit", "offset", "includefield", "fuzzymatching"}


def _add_search(app: FastAPI, web: Web) -> None:
    readers = allow(*_READERS)

    @app.get("/dicom-web/studies", dependencies=[readers])
    async def studies(request: Request) -> Response:
        query = query_of(request, _STUDY_KEYS)
        limit, offset = page_of(request)
        found = await web.database.read(lambda s: _studies(s, query, limit, offset))
        return _json(found)

    @app.get("/dicom-web/studies/{study_uid}/series", dependencies=[readers])
    async def series(study_uid: str, request: Request) -> Response:
        query = query_of(request, {"SeriesInstanceUID": "0020000E", "Modality": "00080060"})
        rows = await web.database.read(lambda s: _rows(s, study_uid))
        return _json([item for item in _series(rows) if _matches(item, query)])

    @app.get("/dicom-web/studies/{study_uid}/instances", dependencies=[readers])
    async def instances(study_uid: str, request: Request) -> Response:
        query = query_of(request, {"SOPInstanceUID": "00080018", "SOPClassUID": "00080016"})
        rows = await web.database.read(lambda s: _rows(s, study_uid))
        return _json([item for item in map(_instance, rows) if _matches(item, query)])

    @app.get("/dicom-web/studies/{study_uid}/series/{series_uid}/instances", dependencies=[readers])
    async def of_series(study_uid: str, series_uid: str, request: Request) -> Response:
        query = query_of(request, {"SOPInstanceUID": "00080018", "SOPClassUID": "00080016"})
        rows = await web.database.read(lambda s: _rows(s, study_uid, series_uid))
        return _json([item for item in map(_instance, rows) if _matches(item, query)])


def query_of(request: Request, known: Mapping[str, str]) -> dict[str, str]:
    """Return tag to wanted value; `known` are the keys that are offered, by keyword.

    Raises:
        BadInput: Another key.
    """
    query = {}
    for name, value in request.query_params.items():
        if name.lower() in _PAGING:
            continue
        tag = known.get(name) or (name if name in known.values() else None)
        if tag is None:
            raise BadInput(
                "This search key is not offered here",
                where="query",
                todo=f"Search by {', '.join(known)}; by patient, search /fhir.",
            )
        query[tag] = value
    return query


def page_of(request: Request) -> tuple[int, int]:
    """Return limit and offset.

    Raises:
        BadInput: They are no numbers.
    """
    limit, offset = request.query_params.get("limit", str(_LIMIT)), request.query_params.get("offset", "0")
    if not (limit.isdigit() and offset.isdigit()):
        raise BadInput("limit and offset are whole numbers", where="query")
    return min(int(limit), _LIMIT), int(offset)


def _studies(session: Session, query: Mapping[str, str], limit: int, offset: int) -> list[dict[str, Any]]:
    uid = query.get("0020000D")
    rows: Sequence[StudyRow]
    if uid:
        row = store.study_by_uid(session, uid)
        rows = [row] if row else []
    else:
        rows = store.studies(session, 10_000)
    found = []
    for row in rows:
        if row.conflict is None and _matches(item := _study(session, row), query):
            found.append(item)
            if len(found) >= offset + limit:
                break
    return found[offset:]


def _study(session: Session, row: StudyRow) -> dict[str, Any]:
    said = Said.of(json.loads(row.said))
    held = store.instances(session, row.id, _SHOWN)
    modalities = sorted({json.loads(r.header)["tags"].get("Modality", "") for r in held} - {""})
    number, issuer, name, birth = said.person
    return _item({
        "00080020": ("DA", said.date), "00080030": ("TM", said.time), "00080050": ("SH", said.accession),
        "00080061": ("CS", modalities), "00100010": ("PN", {"Alphabetic": name} if name else ""), "00100020": ("LO", number),
        "00100021": ("LO", issuer), "00100030": ("DA", birth), "00100040": ("CS", said.sex), "00081030": ("LO", said.description),
        "0020000D": ("UI", row.uid), "00201206": ("IS", len({r.series_uid for r in held})), "00201208": ("IS", len(held)),
    })  # fmt: skip


def _rows(
    session: Session, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
) -> list[InstanceRow]:
    study = store.study_by_uid(session, study_uid)
    if study is None or study.conflict is not None:
        raise NotFound("This study is not here, or is held back for a person", where="studies")
    rows = store.instances(session, study.id, _SHOWN)
    return [
        r
        for r in rows
        if (series_uid is None or r.series_uid == series_uid) and (sop_uid is None or r.sop_uid == sop_uid)
    ]


def _series(rows: Sequence[InstanceRow]) -> Iterator[dict[str, Any]]:
    for uid in dict.fromkeys(r.series_uid for r in rows):
        group = [r for r in rows if r.series_uid == uid]
        tags = json.loads(group[0].header)["tags"]
        yield _item({
            "00080060": ("CS", tags.get("Modality", "")), "0008103E": ("LO", tags.get("SeriesDescription", "")),
            "0020000E": ("UI", uid), "00200011": ("IS", tags.get("SeriesNumber", "")), "00201209": ("IS", len(group)),
        })  # fmt: skip


def _instance(row: InstanceRow) -> dict[str, Any]:
    tags = json.loads(row.header)["tags"]
    return _item({
        "00080016": ("UI", tags.get("SOPClassUID", "")), "00080018": ("UI", row.sop_uid), "0020000E": ("UI", row.series_uid),
        "00200013": ("IS", tags.get("InstanceNumber", "")), "00280010": ("US", tags.get("Rows", "")),
        "00280011": ("US", tags.get("Columns", "")), "00280008": ("IS", tags.get("NumberOfFrames", "")),
    })  # fmt: skip


def _item(values: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Return attributes in the DICOM JSON model (PS3.18 F); empty ones without a value."""
    made: dict[str, Any] = {}
    for tag, (vr, value) in values.items():
        listed = value if isinstance(value, list) else [value]
        made[tag] = {"vr": vr} | ({"Value": listed} if value not in ("", []) else {})
    return made


def _matches(item: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    return all(wanted in [str(v) for v in item.get(tag, {}).get("Value", [])] for tag, wanted in query.items())


def _json(items: Sequence[Mapping[str, Any]]) -> Response:
    return Response(json.dumps(list(items)), media_type=DICOM_JSON)


# ---- WADO-RS ---------------------------------------------------------------------------------------------------------


def _add_retrieve(app: FastAPI, web: Web) -> None:
    readers = allow(*_READERS)
    prefix = "/dicom-web/studies/{study_uid}"
    for path in (prefix, prefix + "/series/{series_uid}", prefix + "/series/{series_uid}/instances/{sop_uid}"):
        app.add_api_route(path, _retriever(web, _objects), methods=["GET"], dependencies=[readers])
        app.add_api_route(path + "/metadata", _retriever(web, _metadata), methods=["GET"], dependencies=[readers])


def _retriever(web: Web, answer: Any) -> Any:
    async def retrieve(request: Request) -> Response:
        named = request.path_params
        rows = await web.database.read(
            lambda s: _rows(s, named["study_uid"], named.get("series_uid"), named.get("sop_uid"))
        )
        if not rows:
            raise NotFound("There is no such object", where="studies")
        response: Response = await answer(web, rows)
        return response

    return retrieve


async def _objects(web: Web, rows: Sequence[InstanceRow]) -> Response:
    kind = f'multipart/related; type="{DICOM}"; boundary={_BOUNDARY}'
    return StreamingResponse(_multipart(web.spool, rows), headers={"Content-Type": kind})


def _multipart(spool: Spool, rows: Sequence[InstanceRow]) -> Iterator[bytes]:
    for row in rows:
        yield f"--{_BOUNDARY}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
        with spool.path(row.file).open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
        yield b"\r\n"
    yield f"--{_BOUNDARY}--\r\n".encode()


async def _metadata(web: Web, rows: Sequence[InstanceRow]) -> Response:
    return _json([await asyncio.to_thread(web.receiver.metadata, web.spool.path(row.file)) for row in rows])
