"""The segmentation as a DICOM object: Segmentation IOD (PS3.3 A.51), binary, one segment a structure and side."""

from collections.abc import Sequence
from datetime import datetime

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom import Dataset
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from arcuate.imaging import derived, seg_frames, structures
from arcuate.imaging.derived import Model
from arcuate.imaging.geometry import Grid
from arcuate.imaging.pipelines import Pipeline
from arcuate.imaging.structures import SIDE_CODES, Part

# DICOM CID 7162 Image Processing Algorithm Family
NETWORK = Code("123109", "DCM", "Artificial Intelligence")
_PER_FRAME = Tag("PerFrameFunctionalGroupsSequence")

Labels = np.ndarray[tuple[int, ...], np.dtype[np.integer]]


def present_parts(labels: Labels) -> tuple[Part, ...]:
    """Return the parts with a segment of their own that have at least one voxel, in the order of `structures.toml`."""
    content = np.asarray(labels, np.uint8).tobytes(order="A")  # a search for one byte: a sixth of what np.unique takes
    return tuple(
        p for p in structures.parts() if p.own_segment and any(content.find(number) >= 0 for number in p.labels)
    )


def build_seg(grid: Grid, labels: Labels, model: Model, at: datetime, pipeline: Pipeline) -> Dataset | None:
    """Make the segmentation object: its modules by the library, its many frames by `seg_frames.py`.

    Args:
        labels: FreeSurfer numbers on the grid's own voxels (columns, rows, slices).
        at: When the measurement was made, local time of the site.

    Returns:
        The object, or None where no structure was found.
    """
    parts = present_parts(labels)
    if not parts:
        return None
    numbers = _segment_numbers(np.ascontiguousarray(labels.transpose(2, 1, 0)), parts)
    frames = seg_frames.order(numbers, len(parts))
    made = _modules(grid, parts, model, pipeline)
    made.NumberOfFrames = len(frames)
    groups = seg_frames.functional_groups(grid, frames)
    # Raw: it is read back as a sequence by whoever asks, and written as it stands.
    made[_PER_FRAME] = RawDataElement(_PER_FRAME, "SQ", len(groups), groups, 0, False, True)
    made.add_new("PixelData", "OB", seg_frames.packed(numbers, frames))  # OB: PS3.5 A.2, one bit a pixel
    derived.stamp(made, at)
    return made


def _modules(grid: Grid, parts: Sequence[Part], model: Model, pipeline: Pipeline) -> Dataset:
    """Return the object with one invented frame in which each segment has a pixel: all modules, none of the frames."""
    run, series_uid = derived.run_facts(grid, model), grid.slices[0].instance.series_uid
    pixels = np.zeros((1, grid.shape[1], grid.shape[0]), np.uint8)
    pixels.reshape(-1)[: len(parts)] = np.arange(1, len(parts) + 1)
    made = Segmentation(
        source_images=[derived.source_header(grid)],
        pixel_array=pixels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(k, part, model, series_uid) for k, part in enumerate(parts, 1)],
        series_instance_uid=derived.uid_of("seg series", *run),
        series_number=pipeline.series_number,
        sop_instance_uid=derived.uid_of("seg", *run),
        instance_number=1,
        manufacturer=derived.MANUFACTURER,
        manufacturer_model_name=model.name,
        software_versions=model.version,
        device_serial_number=model.digest[:16],
        content_description=derived.RESEARCH_USE,
        content_label=pipeline.seg_label,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=pipeline.seg_title,
    )
    made.DimensionOrganizationSequence[0].DimensionOrganizationUID = derived.uid_of("seg dimensions", *run)
    for item in made.DimensionIndexSequence:
        item.DimensionOrganizationUID = made.DimensionOrganizationSequence[0].DimensionOrganizationUID
    made.SourceImageSequence = derived.references(grid)
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = derived.references(grid)
    if spacing := _even_spacing(grid):
        made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = derived.decimal(spacing)
    plain = Dataset()  # without what the library remembers of the invented frame
    plain.update(made)
    plain.file_meta = made.file_meta
    # It is in its final encoding already: without this every raw element would be decoded and encoded again.
    plain.SpecificCharacterSet = "ISO_IR 192"
    plain.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))
    return plain


def _even_spacing(grid: Grid) -> float | None:
    """Return the distance of the slices, mm, where it is the same everywhere."""
    positions = np.array([s.frame.position for s in grid.slices], np.float64)
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    return float(steps.mean()) if np.allclose(steps, steps.mean(), rtol=0.01) else None


def read_labels(made: Dataset, shape: tuple[int, int, int], positions: Sequence[tuple[float, float, float]]) -> Labels:
    """Return the FreeSurfer numbers of a SEG of ours on the source's voxels: the first number of each part.

    Args:
        shape: Columns, rows, slices.
        positions: ImagePositionPatient of each slice, in order.
    """
    found = made if isinstance(made, Segmentation) else Segmentation.from_dataset(made)
    label_of = {p.key: p.labels[0] for p in structures.parts() if p.own_segment}
    frames = found.pixel_array if found.pixel_array.ndim == 3 else found.pixel_array[None]
    labels = np.zeros(shape, dtype=np.int32)
    places = np.array(positions)
    for frame, groups in zip(frames, found.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        k = int(np.argmin(np.linalg.norm(places - place, axis=1)))
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        labels[:, :, k][frame.T > 0] = label_of[str(found.SegmentSequence[number - 1].TrackingID)]
    return labels


def _segment_numbers(labels: Labels, parts: Sequence[Part]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    table = np.zeros(256, np.uint8)
    for number, part in enumerate(parts, 1):
        table[list(part.labels)] = number
    # Looked up as bytes: a tenth of what indexing an array takes.
    content = np.ascontiguousarray(labels, np.uint8).tobytes().translate(table.tobytes())
    return np.frombuffer(content, np.uint8).reshape(labels.shape)


def _describe(number: int, part: Part, model: Model, series_uid: str) -> SegmentDescription:
    made = SegmentDescription(
        segment_number=number,
        segment_label=part.title,
        segmented_property_category=Code(part.category.value, part.category.scheme, part.category.meaning),
        segmented_property_type=Code(part.segment.value, part.segment.scheme, part.segment.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model.name, version=model.version, family=NETWORK, parameters={"weights_sha256": model.digest}
        ),
        tracking_uid=tracking_uid(series_uid, part),
        tracking_id=part.key,
        display_color=hd.color.CIELabColor.from_rgb(*part.colour),
    )
    if part.side:
        value, meaning = SIDE_CODES[part.side]
        side = hd.sr.CodedConcept(value, "SCT", meaning)
        made.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return made


def tracking_uid(series_uid: str, part: Part) -> str:
    """Return the tracking UID of a part in a series: SEG and SR name the same finding by it."""
    return str(derived.uid_of("tracking", series_uid, part.key))
