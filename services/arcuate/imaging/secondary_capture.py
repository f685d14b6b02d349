"""Pictures as DICOM objects for the PACS: key images with outlines, map of doubt, QC picture (Secondary Capture Image IOD, PS3.3 A.8.1).

Nothing of a person is burnt in: BurnedInAnnotation is NO; "Research use only" and "Not reviewed" stand in the pixels.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from arcuate.imaging import derived
from arcuate.imaging.derived import Model
from arcuate.imaging.geometry import Grid
from arcuate.imaging.pipelines import Pipeline

_FROM_SOURCE = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription",
)  # fmt: skip
_MOST_REFERENCES = 1000


@cache
def key_structures(pipeline: str) -> tuple[str, ...]:
    """Return the structures of which the PACS gets a picture, as `key_images.toml` says."""
    table = tomllib.loads(files("arcuate.imaging").joinpath("key_images.toml").read_text("utf-8"))
    return tuple(table.get(pipeline, ()))


@dataclass(frozen=True)
class KeyImage:
    """One picture; `words` says what it shows (no patient data)."""

    words: str
    picture: Image.Image


def build(grid: Grid, pictures: Sequence[KeyImage], model: Model, at: datetime, pipeline: Pipeline) -> list[Dataset]:
    """Make one object a picture, all in one series of the source's study.

    Args:
        at: When the measurement was made, local time of the site.
    """
    source, run = derived.source_header(grid), derived.run_facts(grid, model)
    return [_object(grid, source, run, number, one, model, at, pipeline) for number, one in enumerate(pictures, 1)]


def _object(
    grid: Grid, source: Dataset, run: Sequence[str], number: int, one: KeyImage, model: Model, at: datetime, pipeline: Pipeline
) -> Dataset:  # fmt: skip
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in _FROM_SOURCE:
        if keyword in source:
            setattr(made, keyword, source[keyword].value)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = derived.uid_of("picture", str(number), *run)
    made.SeriesInstanceUID = derived.uid_of("picture series", *run)
    made.SeriesNumber, made.InstanceNumber = pipeline.series_number + 2, number
    made.SeriesDescription = f"{pipeline.title}: key images (research use)"
    made.Modality, made.ConversionType, made.BodyPartExamined = "OT", "SYN", "HEAD"
    made.Manufacturer, made.ManufacturerModelName = derived.MANUFACTURER, model.name
    made.SoftwareVersions, made.DeviceSerialNumber = model.version, model.digest[:16]
    made.ImageType, made.PatientOrientation = ["DERIVED", "SECONDARY"], ""  # several planes, and a margin with text
    made.BurnedInAnnotation, made.LossyImageCompression = "NO", "00"
    made.DerivationDescription = f"{one.words}. {derived.RESEARCH_USE}; not reviewed"
    made.ImageComments = made.DerivationDescription
    made.SourceImageSequence = Items(derived.references(grid)[:_MOST_REFERENCES])
    pixels = one.picture.convert("RGB")
    made.Rows, made.Columns, made.SamplesPerPixel, made.PlanarConfiguration = pixels.height, pixels.width, 3, 0
    made.PhotometricInterpretation, made.PixelRepresentation = "RGB", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    content = pixels.tobytes()
    made.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))
    derived.stamp(made, at)
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = made.ContentDate, made.ContentTime
    return made
