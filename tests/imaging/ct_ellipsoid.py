"""A head of ellipsoids as a label map, whose cavity, ventricles and midline are known by construction; its model, and its CT as DICOM."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from arcuate.imaging.ct import atlas_training, trees
from arcuate.inference.training import ct_heads

ROOT = "1.2.826.0.1.3680043.10.1234567.78"  # example root, test data only
SHAPE = (150, 184, 150)
MIDDLE = np.array([74.5, 92.0, 70.0])


def inside(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels inside an ellipsoid, its centre in mm from the middle."""
    grid = np.indices(SHAPE).astype(np.float32)
    away = [(grid[a] - MIDDLE[a] - centre[a]) / radii[a] for a in range(3)]
    found: NDArray[np.bool_] = away[0] ** 2 + away[1] ** 2 + away[2] ** 2 <= 1
    return found


def labels(wide: float = 1.0) -> NDArray[np.uint8]:
    """Skin, bone, fluid, two hemispheres with a fissure, ventricles (so many times as `wide` as usual), cerebellum; numbers of the label maps."""
    made = np.zeros(SHAPE, np.uint8)
    made[inside((0, 0, 0), (72, 88, 70))] = 211
    made[inside((0, 0, 0), (68, 84, 66))] = 215
    made[inside((0, 0, 0), (62, 78, 60))] = 24
    brain = inside((0, 0, 0), (60, 76, 58))
    x = np.indices(SHAPE)[0]
    made[brain & (x < 73)], made[brain & (x > 76)] = 2, 41
    made[inside((0, -35, -38), (38, 28, 16))] = 8
    made[inside((0, -6, 2), (3, 12, 9))] = 14
    for side, number in ((-1, 4), (1, 43)):
        made[inside(((1 + 8 * wide) * side, 12, 16), (8 * wide, 26, 8 * wide))] = number
    return made


def head(wide: float = 1.0) -> ct_heads.Head:
    """The head for phantoms."""
    return ct_heads.made("ellipsoids", labels(wide))


def learnt() -> atlas_training.Learnt:
    """An atlas made of the ellipsoids themselves."""
    made = head()
    channels = {
        "ventricle": made.mask(ct_heads.SUPRATENTORIAL_VENTRICLES), "fluid": made.mask((24,)), "vein": made.mask((214,)),
    }  # fmt: skip
    return atlas_training.made([atlas_training.Sample("e", made.depth > 0, channels, made.septum)])


def install(models_dir: Path) -> None:
    """Write a model head-ct: the atlas of the ellipsoids, the trees that are shipped."""
    shipped = {file: (Path("models/head-ct") / file).read_bytes() for file in trees.FILES}
    atlas_training.write(models_dir, learnt(), shipped, 0, "0", date(2026, 1, 1))


def write_ct(
    folder: Path, hu: NDArray[Any], affine: NDArray[np.float64], change: Callable[[FileDataset], None] | None = None
) -> Path:
    """Write a volume (columns, rows, slices) in HU with its affine to RAS as a CT series."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    for k in range(hu.shape[2]):
        made = _image(k, hu[:, :, k], lps, spacing)
        if change:
            change(made)
        made.save_as(folder / f"ct-{k:03d}.dcm", enforce_file_format=True)
    return folder


def _image(k: int, plane: NDArray[Any], lps: NDArray[np.float64], spacing: NDArray[np.float64]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.5.{k + 1}"
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = f"{ROOT}.1", f"{ROOT}.5", f"{ROOT}.9"
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Phantom^Ct", "PH-2", "19600101", "O"
    made.AccessionNumber, made.StudyID, made.StudyDescription = "ACC-CT-1", "1", "CT HEAD"
    made.StudyDate = made.SeriesDate = made.ContentDate = "20260105"
    made.StudyTime = made.SeriesTime = made.ContentTime = "101500"
    made.ReferringPhysicianName, made.PositionReferenceIndicator = "", ""
    made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "CT", "Phantom", 5, k + 1
    made.SeriesDescription, made.BodyPartExamined = "HEAD 2.0 H31s", "HEAD"
    made.ImageType, made.KVP, made.ConvolutionKernel = ["ORIGINAL", "PRIMARY", "AXIAL"], "120", "H31s"
    made.SliceThickness, made.PixelSpacing = f"{spacing[2]:.4f}", [f"{spacing[1]:.4f}", f"{spacing[0]:.4f}"]
    made.ImageOrientationPatient = [f"{v:.6f}" for a in (0, 1) for v in lps[:3, a] / spacing[a]]
    made.ImagePositionPatient = [f"{v:.4f}" for v in lps[:3, 3] + k * lps[:3, 2]]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = plane.shape[1], plane.shape[0]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.RescaleSlope, made.RescaleIntercept, made.RescaleType = "1", "-1024", "HU"
    made.PixelData = (plane.T + 1024).astype(np.uint16).tobytes()
    return made
