"""Sending results to the PACS: Storage SCU (PS3.4 annex B)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE

from arcuate.kernel.errors import Refused, Unavailable


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
