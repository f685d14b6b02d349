"""FLAIRs of two dates as DICOM studies through the real doors and networks: lesions, doubt, legal objects, what changed between the dates."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from arcuate.house import House
from arcuate.imaging import store
from arcuate.imaging.tables import InstanceRow
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient, call_operation

from .test_imaging_volumes import house  # noqa: F401 - a fixture

ROOT = "1.2.826.0.1.3680043.10.1234567.88"  # example root, test data only


def write_flair(source: Path, folder: Path, number: int, day: str) -> Path:
    """Write a FLAIR in NIfTI as a DICOM series of one invented person."""
    image: Any = nibabel.load(source)
    data, affine = np.asarray(image.dataobj, np.float32), np.diag([-1, -1, 1, 1]) @ image.affine  # RAS to LPS
    values = np.clip(data * (1000 / np.percentile(data, 99.5)), 0, 4000).astype(np.uint16)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / spacing
    folder.mkdir()
    for k in range(values.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = f"{ROOT}.{number}.5.{k + 1}"
        made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        made.StudyInstanceUID, made.SeriesInstanceUID = f"{ROOT}.{number}", f"{ROOT}.{number}.5"
        made.FrameOfReferenceUID, made.PositionReferenceIndicator = f"{ROOT}.{number}.9", ""
        made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Flair^Test", "FL-1", "19800101", "O"
        made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = f"ACC-FL-{number}", str(number), ""
        made.StudyDate = made.SeriesDate = made.ContentDate = day
        made.StudyTime = made.SeriesTime = made.ContentTime = "101500"
        made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "MR", "Test", 5, k + 1
        made.SeriesDescription, made.BodyPartExamined, made.ImageType = (
            "3D FLAIR",
            "BRAIN",
            ["ORIGINAL", "PRIMARY", "M"],
        )
        made.MRAcquisitionType, made.ScanningSequence, made.SequenceVariant, made.ScanOptions = (
            "3D",
            ["SE", "IR"],
            "SK",
            "",
        )
        made.RepetitionTime, made.EchoTime, made.InversionTime, made.EchoTrainLength = "8000", "120", "2400", "100"
        made.SliceThickness, made.PixelSpacing = f"{spacing[2]:.6g}", [f"{spacing[1]:.6g}", f"{spacing[0]:.6g}"]
        made.ImageOrientationPatient = [f"{v:.8f}" for v in (*cosines[:, 0], *cosines[:, 1])]
        made.ImagePositionPatient = [f"{v:.6f}" for v in (affine @ [0, 0, k, 1])[:3]]
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.Rows, made.Columns, made.PixelRepresentation = values.shape[1], values.shape[0], 0
        made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
        made.PixelData = np.ascontiguousarray(values[:, :, k].T).tobytes()
        made.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


async def lesions_of(home: House, study: Any, end: float) -> dict[str, Any]:
    """Return the Observations of a study's lesions by code; they are in the record from then on."""
    http = home.contexts["record"].http
    while True:
        try:
            answer = await call_operation(http, "/imaging/ImagingStudy/$quantify", bundle.collection([study]))
            break
        except Unavailable as error:
            assert error.code == "incomplete" and time.monotonic() < end
            await asyncio.sleep(1)
    made = bundle.of_type(answer, "Observation")
    entries = [
        bundle.create(o, {"identifier": "|".join(o["identifier"][0][k] for k in ("system", "value"))}) for o in made
    ]
    await FhirClient(http).transaction(bundle.transaction(entries, {"system": "urn:test", "value": study["id"]}))
    return {o["code"]["coding"][0]["code"]: o for o in made}


@pytest.mark.long
async def test_two_flair_studies_give_lesions_and_what_changed_between_them(
    house: tuple[House, int],  # noqa: F811
    shared: Path,
    tmp_path: Path,
    storescu: str,
    dciodvfy: str,
) -> None:
    home, port = house
    fhir, end = FhirClient(home.contexts["record"].http), time.monotonic() + 900
    person = {"resourceType": "Patient", "name": [{"family": "Flair"}]}
    patient = await fhir.create(person)
    said: list[dict[str, Any]] = []
    for number, day in ((1, "20240110"), (2, "20250110")):
        source = shared / f"data/imaging/flair_lesions/mslong-01_time{number}_FLAIR.nii.gz"
        folder = write_flair(source, tmp_path / f"flair{number}", number, day)
        command = [storescu, "-aec", "ARCUATE", "+sd", "127.0.0.1", str(port), str(folder)]
        assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 0
        while len(found := await fhir.search("ImagingStudy", {})) < number:
            assert time.monotonic() < end
            await asyncio.sleep(0.5)
        (study,) = [s for s in found if s["started"].startswith(f"{day[:4]}-")]
        study = {k: v for k, v in study.items() if k != "contained"} | {
            "subject": {"reference": f"Patient/{patient['id']}"}
        }
        said.append(await lesions_of(home, study, end))
    first, second = said
    load = second["wm-lesions-load"]
    sure, possible = (c["valueQuantity"]["value"] for c in load["component"][:2])
    assert 0 <= sure <= load["valueQuantity"]["value"] <= possible
    (change,) = [c for c in load["component"] if c["code"]["coding"][0]["code"] == "change"]
    assert "51.3" in str(change["referenceRange"]) or "20" in str(change["referenceRange"])
    assert "wm-lesions-new-count" not in first
    new = second["wm-lesions-new-count"]
    assert new["interpretation"][0]["text"] in ("beyond measurement error", "within measurement error")
    assert any("Compared with 2024-01-10" in n["text"] for n in new["note"])
    print({code: o["valueQuantity"]["value"] for code, o in second.items() if "valueQuantity" in o}, new["note"])
    await _legal(home, dciodvfy, expected=4)


async def _legal(home: House, dciodvfy: str, expected: int) -> None:
    """SEG and SR of both studies, as they lie in the spool."""
    imaging: Any = home.rooms["imaging"].app.state.imaging

    def derived(session: Any) -> list[str]:
        return [row.file for row in session.query(InstanceRow).filter(InstanceRow.fate == store.DERIVED).all()]

    files = [imaging.spool.path(name) for name in await imaging.database.read(derived)]
    assert len(files) >= expected
    for path in files:
        told = await asyncio.to_thread(subprocess.run, [dciodvfy, path], capture_output=True, text=True, check=False)
        assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == [], dcmread(
            path
        ).SOPClassUID.name
