"""Sending results to the PACS: Storage SCU (PS3.4 annex B) or STOW-RS (PS3.18 10.5), and the durable job that does it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydicom import dcmread
from pynetdicom import AE
from sqlmodel import Session

from arcuate.imaging import store
from arcuate.imaging.context import Imaging
from arcuate.kernel.errors import ArcuateError, Refused, Unavailable
from arcuate.kernel.work import Job, Later, Park

_BOUNDARY = b"arcuate-results-9f2d6c1b7a"
_FAILED, _REASON = "00081198", "00081197"


@dataclass(frozen=True)
class Pacs:
    """Where results go."""

    host: str
    port: int
    ae_title: str


def send(files: Sequence[Path], pacs: Pacs, our_ae_title: str) -> None:
    """Store objects of our own in the PACS.

    Raises:
        Unavailable: The PACS does not answer, or has no space now.
        Refused: It will not take them.
    """
    datasets = [dcmread(path) for path in files]
    ae = AE(ae_title=our_ae_title)
    ae.connection_timeout = ae.acse_timeout = 15
    ae.dimse_timeout = ae.network_timeout = 120
    for sop_class, syntax in {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}:
        ae.add_requested_context(sop_class, syntax)
    association = ae.associate(pacs.host, pacs.port, ae_title=pacs.ae_title)
    if not association.is_established:
        raise Unavailable("The PACS does not accept an association", todo="Check its address, port and AE title.")
    try:
        for dataset in datasets:
            status = association.send_c_store(dataset).get("Status")
            if status is None or status & 0xFF00 == 0xA700:
                raise Unavailable("The PACS did not answer, or has no space")
            if status != 0 and status & 0xF000 != 0xB000:
                raise Refused(f"The PACS refused the object (status {status:04X})", todo="See the log of the PACS.")
    except ValueError as error:  # no presentation context for a class
        raise Refused(
            "The PACS does not take segmentations or reports", todo="Allow these SOP classes in the PACS."
        ) from error
    finally:
        association.release()


async def stow(files: Sequence[Path], address: str, token: str) -> None:
    """Store objects of our own in the PACS over DICOMweb.

    Raises:
        Unavailable: The PACS does not answer, or has no space now.
        Refused: It will not take them.
    """
    parts = [
        b"--" + _BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n" + f.read_bytes() + b"\r\n" for f in files
    ]
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={_BOUNDARY.decode()}',
        "Accept": "application/dicom+json",
    } | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        async with httpx.AsyncClient(timeout=120) as http:
            url = f"{address.rstrip('/')}/studies"
            answer = await http.post(url, content=b"".join(parts) + b"--" + _BOUNDARY + b"--\r\n", headers=headers)
    except httpx.HTTPError as error:
        raise Unavailable(f"The PACS does not answer ({type(error).__name__})") from error
    if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
        raise Unavailable(f"The PACS answered {answer.status_code}")
    reasons = _failures(answer)
    if any(reason & 0xFF00 == 0xA700 for reason in reasons):  # PS3.18 table I.2-2: out of resources
        raise Unavailable("The PACS has no space")
    if reasons or answer.status_code not in (200, 202):
        told = ", ".join(f"{reason:04X}" for reason in sorted(set(reasons)))
        raise Refused(
            f"The PACS refused the objects (HTTP {answer.status_code}{f', reason {told}' if told else ''})",
            todo="See the log of the PACS.",
        )


def _failures(answer: httpx.Response) -> list[int]:
    """Return the failure reasons of a store response (PS3.18 table 10.5.3-1); a body that is none states none."""
    try:
        told = json.loads(answer.content or b"{}")
    except ValueError:
        return []
    items = (told.get(_FAILED) or {}).get("Value") or [] if isinstance(told, dict) else []
    return [int(((item.get(_REASON) or {}).get("Value") or [0])[0]) for item in items]


async def send_results(imaging: Imaging, job: Job) -> None:
    """Send SEG, SR and key images of a measurement to the PACS.

    Raises:
        Later: The PACS does not answer.
        Park: It will not take them.
    """
    s = imaging.settings
    files = await imaging.database.read(lambda session: _files_of(session, job.payload["sops"]))
    paths = [imaging.spool.path(file) for file in files]
    try:
        if s.pacs_stow:
            await stow(paths, s.pacs_stow, s.pacs_web_token)
        else:
            await asyncio.to_thread(send, paths, Pacs(s.pacs_host, s.pacs_port, s.pacs_ae_title), s.ae_title)
    except Unavailable as error:
        raise Later(30, error.what) from error
    except ArcuateError as error:
        raise Park(str(error)) from error


def _files_of(session: Session, sop_uids: Sequence[str]) -> list[str]:
    return [row.file for row in store.by_sop_uids(session, sop_uids)]
