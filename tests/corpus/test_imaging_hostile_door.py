"""The corpus of hostile DICOM through the C-STORE door, byte for byte: refused there, or when volumes are asked for."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE

from arcuate.house import House, HouseSettings, open_house
from arcuate.imaging import store
from arcuate.imaging.context import Imaging
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.store_scp import SUCCESS
from arcuate.kernel.codes import Json, study_uid_identifier
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import call_operation
from arcuate.kernel.settings import SiteSettings


def parts_of(path: Path) -> tuple[str, str, str, bytes]:
    """Class, UID, transfer syntax and data set of a file; what is no DICOM file goes as an MR image of that content."""
    raw = path.read_bytes()
    if raw[128:132] != b"DICM":
        return str(MRImageStorage), "1.2.3.4", str(ExplicitVRLittleEndian), raw
    meta = read_file_meta_info(path)
    return (
        str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), str(meta.TransferSyntaxUID),
        raw[144 + meta.FileMetaInformationGroupLength :],
    )  # fmt: skip


def send(port: int, paths: list[Path]) -> list[int]:
    """Send files as they stand, as a sender that checks nothing would; the status of each, or -1 where none came."""
    statuses: list[int] = []
    association: Any = None
    held: tuple[str, str] | None = None
    for number, path in enumerate(paths, 1):
        sop_class, uid, syntax, body = parts_of(path)
        if held != (sop_class, syntax) or not association.is_established:
            association, held = opened(port, sop_class, syntax), (sop_class, syntax)
        if not association.is_established or not association.accepted_contexts:
            statuses.append(-1)
            continue
        request = C_STORE()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = number, 2, sop_class
        try:
            request.AffectedSOPInstanceUID = uid
        except ValueError:  # no legal UID: a sender can put one outside and another inside
            request.AffectedSOPInstanceUID = "1.2.3.4"
        request.DataSet = BytesIO(body)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, answer = association.dimse.get_msg(block=True)
        statuses.append(-1 if answer is None else int(answer.Status))  # None: the door ended the association
    if association.is_established:
        association._reactor_checkpoint.set()
        association.release()
    return statuses


def opened(port: int, sop_class: str, syntax: str) -> Any:
    """An association whose own reactor is held, as the library's send_c_store holds it (which would parse the data set)."""
    ae = AE(ae_title="HOSTILE")
    ae.add_requested_context(sop_class, syntax)
    ae.dimse_timeout = 15
    association: Any = ae.associate("127.0.0.1", port, ae_title="ARCUATE")
    association._reactor_checkpoint.clear()
    while association.is_established and not association._is_paused:
        time.sleep(0.005)
    return association


async def answers(house: House, uid: str) -> list[Json]:
    """Ask for the volumes of a study until the answer is there."""
    study: Json = {"resourceType": "ImagingStudy", "id": "s", "status": "available"}
    study["identifier"] = [study_uid_identifier(uid)]
    while True:
        try:
            http = house.contexts["record"].http
            found = await call_operation(http, "/imaging/ImagingStudy/$quantify", bundle.collection([study]))
            return bundle.of_type(found, "Observation")
        except Unavailable as error:
            assert error.code == "incomplete", str(error)
            await asyncio.sleep(0.2)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_f050_nothing_that_must_be_refused_is_measured_through_the_dicom_door(
    shared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hostile"
    subprocess.run([sys.executable, shared / "data/imaging/hostile_dicom.py", folder], check=True, capture_output=True)
    expected = json.loads((folder / "expected.json").read_text())
    wanted = [name for name, case in expected.items() if case["verdict"] == "refuse"]
    assert len(wanted) > 15
    site = SiteSettings(time_zone="Europe/Berlin")
    settings = HouseSettings(data_dir=tmp_path / "data", house_url="http://127.0.0.1:9")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = {"imaging": ImagingSettings(port=port, quiet_s=0.5, free_gib=0.0)}
    wrong: dict[str, str] = {}
    async with open_house(settings, site, rooms=["access", "record", "imaging"], room_settings=own) as house:
        imaging: Imaging = house.rooms["imaging"].app.state.imaging
        for name in wanted:
            began, known = time.monotonic(), set(await studies(imaging))
            files = sorted(p for p in (folder / name).rglob("*") if p.is_file())
            statuses = await asyncio.to_thread(send, port, files)
            if all(status != SUCCESS for status in statuses):
                continue
            for uid in set(await studies(imaging)) - known:
                for made in await answers(house, uid):
                    if "valueQuantity" in made or not made["dataAbsentReason"]["text"]:
                        wrong[name] = json.dumps(made)[:200]
            if time.monotonic() - began > expected[name]["max_seconds"] + len(files) * 0.1:
                wrong[name] = f"took {time.monotonic() - began:.0f} s"
    assert not wrong


async def studies(imaging: Imaging) -> list[str]:
    """The Study Instance UIDs that the room has received."""
    return await imaging.database.read(lambda session: [row.uid for row in store.studies(session, 500, 0)])
