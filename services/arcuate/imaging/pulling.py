"""Fetching a study from the PACS by DICOMweb: QIDO-RS says how many images there are, WADO-RS gives them, the door takes them in.

    POST /imaging/pull {"study": "1.2.840..."}

A durable job: the PACS may be away, and the house may lose power; what has come already is a copy the next time.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from pydicom.uid import UID
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from arcuate.imaging import store
from arcuate.imaging.completion import Source, Statement
from arcuate.imaging.context import Imaging
from arcuate.imaging.dicomweb import Collector
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.receiving import Receiver
from arcuate.imaging.tables import work
from arcuate.kernel.errors import BadInput, NotSupported, TooLarge, Unavailable
from arcuate.kernel.log import get_logger
from arcuate.kernel.work import Job, Later, Park

DICOM = "application/dicom"
MEBI = 1 << 20
_INSTANCES = "00201208"  # Number of Study Related Instances
_AWAY_S = 60.0


async def ask(imaging: Imaging, study_uid: str) -> None:
    """Write down that a study is to be fetched.

    Raises:
        NotSupported: No PACS is set up for it.
        BadInput: This is no UID.
    """
    if not imaging.settings.pacs_web:
        raise NotSupported("No PACS with DICOMweb is set up", todo="Set ARCUATE_IMAGING_PACS_WEB.")
    if not UID(study_uid, 0).is_valid:
        raise BadInput("This is no Study Instance UID", where="study")
    now = imaging.clock.now()
    await imaging.database.write(
        lambda s: work.enqueue(s, store.PULL, now=now, keys=(f"pull:{study_uid}",), payload={"study": study_uid})
    )
    imaging.wake()


async def pull(imaging: Imaging, receiver: Receiver, job: Job) -> None:
    """Fetch a study.

    Raises:
        Later: The PACS does not answer, gave fewer images than it said, or there is no space.
        Park: The PACS has no such study, or refuses.
    """
    uid, s = str(job.payload["study"]), imaging.settings
    headers = {"Authorization": f"Bearer {s.pacs_web_token}"} if s.pacs_web_token else {}
    try:
        async with httpx.AsyncClient(base_url=s.pacs_web.rstrip("/") + "/", headers=headers, timeout=120) as http:
            expected = await _count(http, uid)
            await _say(imaging, uid, Statement(Source.PULL, False, count=expected))
            came, refused, kept = 0, 0, set[str]()
            async for taken in _taken(http, imaging, receiver, uid):
                came, refused = came + 1, refused + (not taken)
                kept |= {taken} if taken else set()
    except httpx.HTTPError as error:
        raise Later(_AWAY_S, f"the PACS does not answer ({type(error).__name__})") from error
    except (Unavailable, OSError) as error:
        raise Later(_AWAY_S, "space for images") from error
    except (MultipartParseError, TooLarge) as error:
        raise Park(f"The PACS answered in a form that cannot be read ({type(error).__name__})") from error
    if came < expected:
        raise Later(_AWAY_S, f"the PACS gave {came} of {expected} images")
    # What was refused at the door stays missing: the study says so.
    await _say(imaging, uid, Statement(Source.PULL, True, frozenset(kept), expected if refused else 0))
    imaging.wake()
    get_logger("imaging").info("study fetched", images=came, refused=refused)


async def _say(imaging: Imaging, uid: str, told: Statement) -> None:
    """Note what the PACS says of the study: half of it is not measured because the PACS falls silent in between."""
    now = imaging.clock.now()
    await imaging.database.write(lambda s: store.note_said(s, store.Said(uid, f"pull:{uid}", told), now))


async def _count(http: httpx.AsyncClient, uid: str) -> int:
    """Ask how many images the PACS has of the study."""
    answer = await http.get(
        "studies",
        params={"StudyInstanceUID": uid, "includefield": _INSTANCES},
        headers={"Accept": "application/dicom+json"},
    )
    _check(answer)
    found = answer.json() if answer.status_code == 200 and answer.content else []
    if not found:
        raise Park("The PACS has no such study")
    counted = (found[0].get(_INSTANCES) or {}).get("Value") or [0]
    return int(counted[0])


async def _taken(http: httpx.AsyncClient, imaging: Imaging, receiver: Receiver, uid: str) -> AsyncIterator[str]:
    """Take each image of the study in as it comes; yields its SOP Instance UID, or nothing for one that the door refuses."""
    accept = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
    async with http.stream("GET", f"studies/{uid}", headers={"Accept": accept}) as answer:
        if answer.status_code != 200:
            await answer.aread()
        _check(answer)
        kind, options = parse_options_header(answer.headers.get("content-type"))
        if kind != b"multipart/related" or b"boundary" not in options:
            raise Park("The PACS did not answer with multipart/related DICOM files")
        collector = Collector(imaging.spool, imaging.settings.file_mib * MEBI)
        try:
            parser = MultipartParser(options[b"boundary"], collector.callbacks())
            async for block in answer.aiter_bytes(MEBI):
                await asyncio.to_thread(imaging.spool.check_room)
                await asyncio.to_thread(parser.write, block)
                for path in collector.finished():
                    yield await asyncio.to_thread(_take, receiver, path, uid)
        finally:
            collector.close()


def _take(receiver: Receiver, path: Any, uid: str) -> str:
    try:
        if not receiver.is_of_study(path, uid):
            return ""
        return receiver.take(path, "wado").instance.sop_uid
    except NotMeasurable:  # damaged or hostile: noted in the log by the door
        return ""


def _check(answer: httpx.Response) -> None:
    """Tell what comes back from what does not.

    Raises:
        Later: The PACS is busy. Park: It refuses.
    """
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise Later(_AWAY_S, f"the PACS answered {answer.status_code}")
    if answer.status_code not in (200, 204, 206):
        raise Park(f"The PACS refused the request ({answer.status_code})")


def asked_study(body: bytes) -> str:
    """Return the UID that a request names.

    Raises:
        BadInput: It names none.
    """
    try:
        told = json.loads(body)
    except ValueError as error:
        raise BadInput("The body is not JSON") from error
    if not isinstance(told, dict) or not isinstance(told.get("study"), str):
        raise BadInput("The body names no study", todo='Send {"study": "UID"}.')
    return told["study"]
