"""A rendered head as a DICOM series: MR Image Storage, one sagittal slice an object, every value legal (PS3.3 A.4)."""

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from arcuate.hospital.heads.render import WHITE_VALUE, Pixels
from arcuate.hospital.heads.shape import LOW

_PREFIX = "2.25."


@dataclass(frozen=True)
class StudyFacts:
    """What the scanner writes about a study; dates and times are the site's wall clock."""

    patient_id: str
    issuer: str
    family: str
    given: str
    birth_date: str  # YYYYMMDD
    sex: str  # M, F or O
    age_years: int
    accession: str
    description: str
    station: str
    tesla: float
    began: datetime
    seed: str  # what the UIDs are made from


def seeded_uid(*words: str) -> str:
    """Return a UID of the UUID-derived form (PS3.5 B.2), the same for the same words."""
    raw = hashlib.sha256("|".join(words).encode()).digest()[:16]
    return _PREFIX + str(uuid.UUID(bytes=raw, version=4).int)


def t1_series(pixels: Pixels, facts: StudyFacts) -> Iterator[Dataset]:
    """Yield the slices, from the patient's right to the left.

    Args:
        pixels: The picture on the 1 mm RAS grid of `heads.shape`, axes (x to the right, y to the front, z to the top).
    """
    for number in range(pixels.shape[0]):
        yield _slice(pixels, pixels.shape[0] - 1 - number, number + 1, facts)


def write_series(pixels: Pixels, facts: StudyFacts, folder: Path) -> list[Path]:
    """Write one file a slice (Part 10) and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in t1_series(pixels, facts):
        path = folder / f"{int(dataset.InstanceNumber):04d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _slice(pixels: Pixels, x: int, number: int, facts: StudyFacts) -> Dataset:
    dataset = Dataset()
    _patient_and_study(dataset, facts)
    _equipment_and_series(dataset, facts)
    _sequence(dataset, facts)
    _place(dataset, pixels.shape, x, number, facts)
    # Rows run from the top down, columns from the front to the back.
    plane = np.ascontiguousarray(pixels[x, ::-1, ::-1].T)
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = plane.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.WindowCenter, dataset.WindowWidth = WHITE_VALUE // 2, WHITE_VALUE
    dataset.PixelData = plane.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def _patient_and_study(dataset: Dataset, facts: StudyFacts) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"{facts.family}^{facts.given}"
    dataset.PatientID = facts.patient_id
    dataset.IssuerOfPatientID = facts.issuer
    dataset.PatientBirthDate = facts.birth_date
    dataset.PatientSex = facts.sex
    dataset.PatientAge = f"{facts.age_years:03d}Y"
    dataset.PatientComments = "Synthetic: an invented person and an invented head"
    dataset.StudyInstanceUID = seeded_uid("study", facts.seed)
    dataset.StudyID = facts.accession[-16:]
    dataset.StudyDescription = facts.description
    dataset.AccessionNumber = facts.accession
    dataset.ReferringPhysicianName = "Synthetic^Referrer"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = facts.began.strftime(
        "%Y%m%d"
    )
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = facts.began.strftime(
        "%H%M%S"
    )


def _equipment_and_series(dataset: Dataset, facts: StudyFacts) -> None:
    dataset.Modality = "MR"
    dataset.SeriesInstanceUID = seeded_uid("series", facts.seed)
    dataset.SeriesNumber = 2
    dataset.SeriesDescription = "T1 MPRAGE sag 1 mm (synthetic)"
    dataset.ProtocolName = "T1 MPRAGE sag 1 mm (synthetic)"
    dataset.BodyPartExamined = "HEAD"
    dataset.PatientPosition = "HFS"
    dataset.Manufacturer = "Arcuate synthetic department"
    dataset.ManufacturerModelName = "invented scanner"
    dataset.DeviceSerialNumber = f"SYNTH-{facts.station}"
    dataset.SoftwareVersions = "1"
    dataset.StationName = facts.station
    dataset.InstitutionName = "Arcuate synthetic department"
    dataset.FrameOfReferenceUID = seeded_uid("frame", facts.seed)
    dataset.PositionReferenceIndicator = ""


def _sequence(dataset: Dataset, facts: StudyFacts) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence = ["GR", "IR"]
    dataset.SequenceVariant = ["SK", "SP", "MP"]
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "3D"
    dataset.SequenceName = "*tfl3d1"
    dataset.RepetitionTime, dataset.EchoTime, dataset.InversionTime = 2300, 2.98, 900
    dataset.EchoTrainLength = 1
    dataset.FlipAngle = 9
    dataset.MagneticFieldStrength = facts.tesla
    dataset.SliceThickness = dataset.SpacingBetweenSlices = 1
    dataset.PixelSpacing = [1, 1]


def _place(dataset: Dataset, shape: tuple[int, ...], x: int, number: int, facts: StudyFacts) -> None:
    """Set position and orientation: DICOM's patient axes run to the left, back and top (PS3.3 C.7.6.2.1.1)."""
    right, front, top = LOW[0] + 0.5 + x, LOW[1] + 0.5 + shape[1] - 1, LOW[2] + 0.5 + shape[2] - 1
    dataset.ImagePositionPatient = [-right, -front, top]
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.SliceLocation = -right
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = seeded_uid("instance", facts.seed, str(number))
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = 1
