"""What the objects that we derive have in common: legal copies of the source's header, the device, identifiers, saving."""

import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from arcuate.imaging.domain import Frame, Instance
from arcuate.imaging.geometry import Grid
from arcuate.kernel.codes import Laterality

# highdicom warns about unusual names by printing them; patient data must not reach standard error.
warnings.filterwarnings("ignore", message="The string .* is unlikely to represent", category=UserWarning)

MANUFACTURER = "Arcuate"
RESEARCH_USE = "Research use only"

# Type 2 attributes of the patient and study modules: they stand in every object, empty where nothing legal is known.
_ALWAYS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName",
)  # fmt: skip
_PATIENT_AND_STUDY = (*_ALWAYS, "IssuerOfPatientID", "PatientAge", "StudyDescription")
_SERIES = ("Manufacturer", "ManufacturerModelName", "SeriesNumber", "SeriesDescription", "PositionReferenceIndicator")
_IMAGE = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "InstanceNumber", "ImageType",
)  # fmt: skip


@dataclass(frozen=True)
class Model:
    """The model that measured: name, version and SHA-256 of its weights.

    Attributes:
        others: Models that helped, for example the one that finds the brain.
    """

    name: str
    version: str
    digest: str
    others: tuple["Model", ...] = ()


@dataclass(frozen=True)
class Measured:
    """One measured value, in the unit that `structures.toml` states for the structure (mL where it states none)."""

    structure: str
    side: Laterality | None
    value: float


def run_facts(grid: Grid, model: Model) -> tuple[str, ...]:
    """Return what one run is told apart by: the series, the voxels, the models."""
    digests = "".join(s.instance.digest for s in grid.slices)
    return (grid.slices[0].instance.series_uid, digests, model.digest, *(other.digest for other in model.others))


def uid_of(*facts: str) -> UID:
    """Return a UID (form 2.25, PS3.5 B.2) that is the same whenever the facts are: a repeated run makes the same objects."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '|'.join(facts)).int}")


def source_header(grid: Grid) -> Dataset:
    """Return the header of the first source image with legal values only; of a multi-frame image with its first slice alone."""
    first = grid.slices[0]
    if len(first.instance.frames) == 1:
        return _single(first.instance, first.frame)
    made = _base(first.instance)
    made.NumberOfFrames = 1
    made.SharedFunctionalGroupsSequence = Items([_shared(first.frame)])
    made.PerFrameFunctionalGroupsSequence = Items([_per_frame(first.frame)])
    return made


def references(grid: Grid) -> list[Dataset]:
    """Return class and UID of each source image (PS3.3 table 10-11), in slice order."""
    made = []
    for instance in source_images(grid):
        item = Dataset()
        item.ReferencedSOPClassUID = instance.text("SOPClassUID")
        item.ReferencedSOPInstanceUID = instance.sop_uid
        made.append(item)
    return made


def source_images(grid: Grid) -> list[Instance]:
    """Return the source images in slice order, each once."""
    return list({s.instance.sop_uid: s.instance for s in grid.slices}.values())


def dropped_values(instances: Sequence[Instance]) -> tuple[str, ...]:
    """Return which attributes of the source are not passed on, and why, as sentences."""
    return tuple(sorted({f"{keyword} {why}" for i in instances for keyword, why in i.dropped.items()}))


def stamp(made: Dataset, at: datetime) -> None:
    """Write when the object was made: local time of the site, its offset stated."""
    made.InstanceCreationDate = made.ContentDate = made.SeriesDate = at.strftime("%Y%m%d")
    made.InstanceCreationTime = made.ContentTime = made.SeriesTime = at.strftime("%H%M%S")
    made.TimezoneOffsetFromUTC = at.strftime("%z") or "+0000"
    made.SpecificCharacterSet = "ISO_IR 192"
    for equipment in made.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = at.strftime("%Y%m%d%H%M%S%z")


def encode(made: Dataset) -> bytes:
    """Return the object as a DICOM file (PS3.10), explicit VR little endian."""
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _base(instance: Instance) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _ALWAYS:
        setattr(made, keyword, "")
    for keyword in (*_PATIENT_AND_STUDY, *_SERIES, *_IMAGE):
        value = instance.tags.get(keyword)
        if value is not None and keyword not in instance.dropped:
            setattr(made, keyword, value)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
        setattr(made, keyword, instance.text(keyword))
    made.FrameOfReferenceUID = instance.text("FrameOfReferenceUID") or uid_of("frame of reference", instance.series_uid)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def _single(instance: Instance, frame: Frame) -> Dataset:
    made = _base(instance)
    _write_position(made, frame)
    _write_orientation(made, frame)
    _write_measures(made, frame)
    return made


def _shared(frame: Frame) -> Dataset:
    made, orientation, measures = Dataset(), Dataset(), Dataset()
    _write_orientation(orientation, frame)
    _write_measures(measures, frame)
    made.PlaneOrientationSequence, made.PixelMeasuresSequence = Items([orientation]), Items([measures])
    return made


def _per_frame(frame: Frame) -> Dataset:
    made, position, content = Dataset(), Dataset(), Dataset()
    _write_position(position, frame)
    content.DimensionIndexValues = [1]
    made.PlanePositionSequence, made.FrameContentSequence = Items([position]), Items([content])
    return made


def _write_position(made: Dataset, frame: Frame) -> None:
    assert frame.position is not None
    made.ImagePositionPatient = [decimal(v) for v in frame.position]


def _write_orientation(made: Dataset, frame: Frame) -> None:
    assert frame.orientation is not None
    made.ImageOrientationPatient = [decimal(v) for direction in frame.orientation for v in direction]


def _write_measures(made: Dataset, frame: Frame) -> None:
    assert frame.spacing is not None
    made.PixelSpacing = [decimal(v) for v in frame.spacing]
    if frame.thickness:
        made.SliceThickness = decimal(frame.thickness)


def decimal(value: float) -> str:
    """Return a DS of at most 16 characters (PS3.5 6.2)."""
    for digits in range(15, 0, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    return "0"
