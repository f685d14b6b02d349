"""A short synthetic MR series: too few slices to measure, so that it is refused with a reason; good enough to be received, joined and held."""

from datetime import datetime
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

_SIDE = 32


def write_small_series(
    folder: Path, accession: str, number: str = "S0001", name: str = "Synthetic-0001^Ada", birth: str = "19500102",
    slices: int = 3, study_uid: str = "", began: datetime = datetime(2026, 3, 17, 10, 30),
) -> str:  # fmt: skip
    """Write the objects of one new series into a folder; returns the study UID, under which a later series can come."""
    study_uid, series_uid, frame = study_uid or generate_uid(), generate_uid(), generate_uid()
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(slices):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study_uid, series_uid, frame
        dataset.PatientID, dataset.IssuerOfPatientID = number, "SYNTH"
        dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = name, birth, "F"
        dataset.AccessionNumber, dataset.StudyID, dataset.Modality = accession, "1", "MR"
        dataset.StudyDate, dataset.StudyTime = began.strftime("%Y%m%d"), began.strftime("%H%M%S")
        dataset.SeriesNumber, dataset.InstanceNumber = 1, place + 1
        dataset.SeriesDescription, dataset.ImageType = "localizer (synthetic)", ["ORIGINAL", "PRIMARY", "OTHER"]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [0, 0, 10 * place]
        dataset.PixelSpacing, dataset.SliceThickness = [7, 7], 5
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows = dataset.Columns = _SIDE
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.PixelData = np.full((_SIDE, _SIDE), 100 + place, "<u2").tobytes()
        dataset["PixelData"].VR = "OW"
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, dataset.SOPInstanceUID
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta = meta
        dataset.save_as(folder / f"{series_uid[-8:]}-{place}.dcm", enforce_file_format=True)
    return study_uid
