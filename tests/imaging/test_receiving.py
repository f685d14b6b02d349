"""The DICOM door: nothing is acknowledged that is not kept, nothing is kept under a name from outside."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage, Verification  # type: ignore[attr-defined]

from arcuate.imaging import store
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.receiving import Receiver
from arcuate.imaging.spool import Spool
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import StorageFault, Unavailable

Write = Callable[..., Path]


def statuses(said: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"Received Store Response \((.*?)\)", said.stdout + said.stderr)


async def fates(desk: Any) -> dict[str, int]:
    listed = (await desk.http.get("/imaging/studies")).json()["studies"]
    return dict(listed[0]["objects"]) if listed else {}


# ---- refused ---------------------------------------------------------------------------------------------------------


async def test_f050_a_damaged_image_is_refused_and_the_next_is_taken(desk: Any, phantom: Path) -> None:
    files = sorted(phantom.iterdir())[:3]
    made = dcmread(files[1])
    made.Rows = 65535
    made.save_as(files[1])
    said = await desk.send(*files, more=("--no-halt",))
    assert [s.split(":")[0] for s in statuses(said)] == ["Success", "Error", "Success"]
    assert "CannotUnderstand" in statuses(said)[1].replace(" ", "")
    assert await fates(desk) == {"used": 2}


async def test_another_ae_title_is_not_ours(desk: Any, phantom: Path) -> None:
    said = await desk.send(next(phantom.iterdir()), ae_title="SOMEBODY")
    assert said.returncode != 0
    assert "Called AE Title" in said.stdout + said.stderr


@pytest.mark.parametrize("desk", [{"quota_gib": 0.00001}], indirect=True)
async def test_f041_a_full_spool_refuses_and_says_it_has_no_resources(desk: Any, phantom: Path) -> None:
    said = await desk.send(*sorted(phantom.iterdir())[:3])
    assert statuses(said)[-1].startswith(("Refused: OutOfResources", "Refused: Out of Resources"))


@pytest.mark.parametrize("desk", [{"senders": "SCANNER1"}], indirect=True)
async def test_only_named_senders_may_send_where_they_are_named(desk: Any, phantom: Path) -> None:
    one = next(phantom.iterdir())
    assert (await desk.send(one)).returncode != 0
    assert (await desk.send(one, more=("-aet", "SCANNER1"))).returncode == 0


@pytest.mark.parametrize("desk", [{"associations": 2}], indirect=True)
async def test_more_associations_than_the_limit_are_rejected(desk: Any) -> None:
    ae = AE()
    ae.add_requested_context(Verification)
    held = [await asyncio.to_thread(ae.associate, "127.0.0.1", desk.port, ae_title="ARCUATE") for _ in range(3)]
    assert [a.is_established for a in held] == [True, True, False]
    for association in held[:2]:
        await asyncio.to_thread(association.release)


async def test_an_object_that_is_not_what_was_announced_is_refused(desk: Any, phantom: Path) -> None:
    receiver = Receiver(desk.imaging.database, desk.imaging.spool, desk.imaging.reader, SystemClock(), 1, lambda: None)

    def take() -> RefusalCode:
        with desk.imaging.spool.incoming() as (path, file):
            file.write(next(phantom.iterdir()).read_bytes())
            file.flush()
            with pytest.raises(NotMeasurable) as caught:
                receiver.take(path, "TEST", (MRImageStorage, "1.2.3.5"))
            return caught.value.refusal.code

    assert await asyncio.to_thread(take) == RefusalCode.MIXED
    assert await fates(desk) == {}


async def test_an_aborted_association_leaves_what_was_acknowledged(desk: Any, phantom: Path) -> None:
    said = await desk.send(*sorted(phantom.iterdir())[:4], more=("--abort",))
    assert statuses(said).count("Success") == 4
    assert (await fates(desk)) == {"used": 4}
    assert (await desk.send(*sorted(phantom.iterdir())[4:5])).returncode == 0


# ---- twice, otherwise, under another patient -------------------------------------------------------------------------


async def test_f055_the_same_bytes_again_are_a_success_and_nothing_more(desk: Any, phantom: Path) -> None:
    files = sorted(phantom.iterdir())[:3]
    await desk.send(*files)
    both = await asyncio.gather(desk.send(*files), desk.send(*files))
    assert all(statuses(said) == ["Success"] * 3 for said in both)
    assert await fates(desk) == {"used": 3}
    assert (
        len(list((desk.imaging.spool.path("x").parent).rglob("*")))
        - len(list(desk.imaging.spool.path("x").parent.iterdir()))
        == 3
    )


async def test_f055_other_bytes_under_the_same_uid_are_both_kept_and_the_first_stays_in_use(
    desk: Any, phantom: Path
) -> None:
    one = sorted(phantom.iterdir())[30]
    await desk.send(one)
    made = dcmread(one)
    made.PixelData = made.PixelData[::-1]
    made.save_as(one)
    assert statuses(await desk.send(one)) == ["Success"]
    assert await fates(desk) == {"used": 1, "conflict": 1}
    rows = await desk.imaging.database.read(
        lambda s: store.instances(s, store.studies(s, 1)[0].id, ["used", "conflict"])
    )
    assert all(desk.imaging.spool.path(row.file).exists() for row in rows)


async def test_f051_an_image_of_another_patient_holds_the_study_until_a_person_releases_it(
    desk: Any, write: Write, tmp_path: Path
) -> None:
    def change(made: FileDataset, number: int) -> None:
        # So the study is waited for until all are here, however slowly they come.
        made.NumberOfStudyRelatedInstances = 60
        if number == 40:
            made.PatientID, made.PatientName = "PH-2", "Other^Person"

    files = sorted(write(tmp_path / "two", change).iterdir())
    await desk.send(*files)
    listed = (await desk.settled())["studies"][0]
    assert listed["conflict"] == "The images of this study state different patients"
    assert listed["imaging_study"] is None
    assert await desk.fhir.search("ImagingStudy", {}) == []
    assert (await desk.http.get("/dicom-web/studies")).json() == []
    assert (await desk.http.post(f"/imaging/studies/{listed['id']}/release")).status_code == 204
    assert (await desk.study())["numberOfInstances"] == len(files) - 1
    assert (await desk.http.post(f"/imaging/studies/{listed['id']}/release")).status_code == 409


# ---- right -----------------------------------------------------------------------------------------------------------


async def test_the_verification_service_answers(desk: Any) -> None:
    said = await asyncio.to_thread(
        subprocess.run, ["echoscu", "-aec", "ARCUATE", "127.0.0.1", str(desk.port)], capture_output=True, check=False
    )
    assert said.returncode == 0


async def test_f083_no_name_from_outside_becomes_a_path(desk: Any, phantom: Path, tmp_path: Path) -> None:
    await desk.send(*sorted(phantom.iterdir())[:2])
    kept = [p for p in (tmp_path / "data" / "imaging" / "spool" / "files").rglob("*") if p.is_file()]
    assert len(kept) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", p.name) for p in kept)


async def test_a_settled_study_stands_in_the_record_as_the_images_state_it(desk: Any, phantom: Path) -> None:
    await desk.send(phantom)
    study = await desk.study()
    assert study["numberOfInstances"] == 60
    assert study["subject"] == {"reference": "#said"}
    said = study["contained"][0]
    assert said["name"] == [{"family": "Phantom", "given": ["Test"]}]
    assert said["birthDate"] == "1970-01-01"
    assert [i["value"] for i in study["identifier"]][1:] == ["ACC-PH-1"]
    assert study["started"] == "2026-01-05T10:15:00+01:00"
    assert [s["description"] for s in study["series"]] == ["T1 MPRAGE"]


async def test_f054_a_late_series_opens_the_study_again_and_keeps_what_journey_wrote(
    desk: Any, phantom: Path, write: Write, tmp_path: Path
) -> None:
    await desk.send(phantom)
    study = await desk.study()
    patient = await desk.fhir.create({"resourceType": "Patient", "identifier": [{"value": "PH-1"}]})
    joined = {k: v for k, v in study.items() if k != "contained"} | {
        "subject": {"reference": f"Patient/{patient['id']}"}
    }
    await desk.fhir.update(joined, study["meta"]["versionId"])
    late = write(tmp_path / "late", lambda image, n: setattr(image, "SeriesDescription", "T2"), lambda n: n <= 5, 8)
    await desk.send(late)
    for _ in range(100):
        study = await desk.fhir.read("ImagingStudy", study["id"])
        if study["numberOfSeries"] == 2:
            break
        await asyncio.sleep(0.1)
    assert study["numberOfInstances"] == 65
    assert study["subject"] == joined["subject"]
    assert "contained" not in study


async def test_images_stay_only_as_long_as_the_spool_keeps_them(desk: Any, phantom: Path) -> None:
    from arcuate.imaging import service

    await desk.send(*sorted(phantom.iterdir())[:2])
    await desk.settled()
    object.__setattr__(desk.imaging.settings, "keep_days", 0.0)
    assert await service.expire(desk.imaging) == 2
    assert desk.imaging.spool.used == 0
    assert (await desk.http.get("/imaging/studies")).json()["studies"][0]["images_expired"] is True


# ---- the process dies ------------------------------------------------------------------------------------------------

SERVER = """
import asyncio, sys
from pathlib import Path
from arcuate import imaging as package
from arcuate.imaging.parsing import Parser
from arcuate.imaging.receiving import Receiver
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.spool import Spool
from arcuate.imaging.store_scp import StoreScp
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.db import Database
import time
url, folder = sys.argv[1:]
database = Database(url, None if url.startswith("sqlite") else "imaging")
database.migrate(package)
spool = Spool(Path(folder), 2**40, 0)
scp = StoreScp(Receiver(database, spool, Parser(), SystemClock(), 20.0, lambda: None), spool, ImagingSettings(port=0))
scp.open()
print(scp.port, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def serving(url: str, folder: Path) -> Any:
    process = subprocess.Popen([sys.executable, "-c", SERVER, url, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("after", [1, 4, 9, 15, 22])
def test_f040_kill_9_while_images_come_in_loses_nothing_acknowledged(
    database_url: str, phantom: Path, tmp_path: Path, storescu: str, after: int
) -> None:
    """The receiver is killed once so many images have been acknowledged; what the sender was told stands, and a resend is whole."""
    for path in sorted(phantom.iterdir())[24:]:
        path.unlink()
    with serving(database_url, tmp_path / "spool") as (process, port):
        command = [storescu, "-v", "-aec", "ARCUATE", "+sd", "127.0.0.1", str(port), str(phantom)]
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert sender.stdout is not None
        acknowledged: list[str] = []
        current = ""
        for line in sender.stdout:
            if found := re.search(r"Sending file: (\S+)", line):
                current = found.group(1)
            if "Received Store Response (Success)" in line:
                acknowledged.append(current)
                if len(acknowledged) == after:
                    os.kill(process.pid, signal.SIGKILL)
        sender.wait()
    assert len(acknowledged) >= after
    wanted = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in acknowledged}
    assert wanted <= set(kept(database_url, tmp_path / "spool"))
    with serving(database_url, tmp_path / "spool") as (_, port):
        command[-2] = str(port)
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    found = kept(database_url, tmp_path / "spool")
    assert len(found) == len(set(found)) == 24


def kept(url: str, folder: Path) -> list[str]:
    """SOP Instance UIDs of rows whose file is whole."""
    database = Database(url, None if url.startswith("sqlite") else "imaging")
    spool = Spool(folder, 2**40, 0)

    def read(session: Any) -> list[Any]:
        return [row for study in store.studies(session, 9) for row in store.instances(session, study.id)]

    try:
        rows = database.read_sync(read)
    finally:
        database.close()
    whole = [r for r in rows if len(dcmread(spool.path(r.file)).PixelData) == 64 * 56 * 2]
    return [r.sop_uid for r in whole]


def test_files_without_a_row_are_removed_at_the_next_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**30, 0)
    names = [spool.write(b"one"), spool.write(b"two")]
    (tmp_path / "incoming" / "half").write_bytes(b"ha")
    again = Spool(tmp_path, 2**30, 0)
    assert not (tmp_path / "incoming" / "half").exists()
    assert again.sweep({names[0]}) == 1
    assert again.path(names[0]).read_bytes() == b"one"
    assert again.used == 3


def test_f042_a_disk_that_does_not_take_the_file_is_never_a_success(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 2**30, 0)
    with spool.incoming() as (path, file):
        file.write(b"image")
        path.unlink()
        with pytest.raises(StorageFault):
            spool.keep(path, "ab" * 16)
    with pytest.raises(Unavailable):
        Spool(tmp_path, 2**30, 2**60).check_room()
