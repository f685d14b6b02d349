"""Settings of the imaging room."""

from typing import Annotated

from arcuate.kernel.settings import RoomSettings, room_config


class ImagingSettings(RoomSettings):
    """How images come in, how long they stay, and where results go."""

    model_config = room_config("imaging")

    host: Annotated[str, "Address on which images are received over DICOM; loopback unless you change it."] = (
        "127.0.0.1"
    )
    port: Annotated[int, "Port of the DICOM receiver (C-STORE, C-ECHO)."] = 11112
    ae_title: Annotated[str, "Our AE title; associations that call another one are rejected."] = "ARCUATE"
    senders: Annotated[str, "AE titles that may send, separated by blanks; empty: everybody who reaches the port."] = ""
    associations: Annotated[int, "Most DICOM associations at once."] = 16
    idle_s: Annotated[float, "Seconds after which a silent association is closed."] = 60.0
    quiet_s: Annotated[
        float, "Seconds without a new image after which a study counts as complete, where nobody said when it ends."
    ] = 20.0
    incomplete_s: Annotated[
        float,
        "Seconds without a new image after which a study that is known to lack images is measured all the same, and says so.",
    ] = 900.0
    file_mib: Annotated[int, "Largest image file, in MiB."] = 1024
    quota_gib: Annotated[float, "Most disk space for received images, in GiB; beyond it images are refused."] = 50.0
    free_gib: Annotated[float, "Disk space that is always left free, in GiB."] = 1.0
    keep_days: Annotated[float, "Days for which received images stay here; the PACS is the archive."] = 14.0
    pacs_host: Annotated[
        str, "Address of the PACS that gets segmentations and measurement reports; empty: they stay here."
    ] = ""
    pacs_stow: Annotated[
        str,
        "Base address of the PACS's DICOMweb to which results go by STOW-RS in place of DICOM; empty: to `pacs_host`.",
    ] = ""
    pacs_port: Annotated[int, "DICOM port of that PACS."] = 104
    pacs_ae_title: Annotated[str, "AE title of that PACS."] = "PACS"
    pacs_web: Annotated[str, "Base address of the PACS's DICOMweb, from which studies can be fetched; empty: none."] = (
        ""
    )
    pacs_web_token: Annotated[str, "Bearer token for that DICOMweb; empty: none is sent."] = ""
    commitment_to: Annotated[
        str,
        "Senders that get storage commitment, as AET=host:port, separated by blanks; empty: not offered. Images stay for keep_days only.",
    ] = ""
    switched_on: Annotated[
        str, "Pipelines in shadow mode that this site has validated and lets speak, by name, separated by blanks."
    ] = ""
    validations: Annotated[
        str,
        "For each pipeline switched on: who validated it at this site, on what and when, as `head-ct: text with a date`, separated by "
        "semicolons. Without it the room does not start; the text stands beside every value.",
    ] = ""
    inference_url: Annotated[
        str, "Base address of another Open Inference Protocol server (Ray Serve, Triton, KServe); empty: our own room."
    ] = ""
    retry_after_s: Annotated[int, "Seconds after which somebody who waits for a measurement is told to ask again."] = 2
