"""Sending results to the PACS: Storage SCU (PS3.4 annex B), and the durable job that does it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from sqlmodel import Session

from arcuate.imaging import store
from arcuate.imaging.context import Imaging
from arcuate.kernel.errors import ArcuateError, Refused, Unavailable
from arcuate.kernel.work import Job, Later, Park


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


async def send_results(imaging: Imaging, job: Job) -> None:
    """Send SEG and SR of a measurement to the PACS.

    Raises:
        Later: The PACS does not answer.
        Park: It will not take them.
    """
    s = imaging.settings
    files = await imaging.database.read(lambda session: _files_of(session, job.payload["sops"]))
    paths = [imaging.spool.path(file) for file in files]
    try:
        await asyncio.to_thread(send, paths, Pacs(s.pacs_host, s.pacs_port, s.pacs_ae_title), s.ae_title)
    except Unavailable as error:
        raise Later(30, error.what) from error
    except ArcuateError as error:
        raise Park(str(error)) from error


def _files_of(session: Session, sop_uids: Sequence[str]) -> list[str]:
    return [row.file for row in store.by_sop_uids(session, sop_uids)]
