"""The measurements as a DICOM object: Comprehensive 3D SR, TID 1500 Measurement Report (PS3.16)."""

from collections.abc import Sequence
from datetime import datetime

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from arcuate.imaging import derived, structures
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.geometry import Grid
from arcuate.imaging.pipelines import Pipeline
from arcuate.imaging.seg import tracking_uid
from arcuate.imaging.structures import SIDE_CODES, ConceptCode, Part
from arcuate.kernel.codes import Laterality

# UCUM; CID 7462 lists cm3 and mm3 for volumes, mL is legal UCUM and what readers expect.
UNIT_MEANING = {"1": "no units", "{ratio}": "ratio"}
SUM_OF_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
LANGUAGE = Code("en", "RFC5646", "English")


def build_sr(
    grid: Grid,
    seg: Dataset | None,
    measured: Sequence[Measured],
    model: Model,
    at: datetime,
    pipeline: Pipeline,
) -> sr.Comprehensive3DSR:
    """Make the measurement report: one measurement group a structure and side, observer is the device.

    Args:
        seg: The segmentation to which the groups refer; a group without a segment refers to the source series.
        at: When the measurement was made, local time of the site.
    """
    first = grid.slices[0].instance
    run = derived.run_facts(grid, model)
    groups = [_group(value, seg, model, first.series_uid) for value in measured]
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=str(derived.uid_of("device", model.name, model.version, model.digest)), name=model.name,
        manufacturer_name=derived.MANUFACTURER, model_name=f"{model.name} {model.version}", serial_number=model.digest[:16],
    )  # fmt: skip
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_coded(pipeline.procedure),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(LANGUAGE),
    )  # no image library (TID 1600 is optional): each group names its series, and the segmentation its images
    evidence = [*_evidence(grid), *([seg] if seg is not None else [])]
    made = sr.Comprehensive3DSR(
        evidence=evidence, content=report, series_instance_uid=derived.uid_of("sr series", *run), series_number=pipeline.series_number + 1,
        sop_instance_uid=derived.uid_of("sr", *run), instance_number=1, manufacturer=derived.MANUFACTURER,
        is_complete=True, is_final=False, is_verified=False, series_description=pipeline.sr_title,
    )  # fmt: skip
    made.ManufacturerModelName, made.SoftwareVersions = model.name, model.version
    derived.stamp(made, at)
    made.PreliminaryFlag = "PRELIMINARY"
    return made


def read_volumes(made: Dataset) -> list[Measured]:
    """Return the values that an SR of ours states, in its order."""
    found = []
    by_key = {p.key: p for p in structures.parts()}
    for group in _measurement_groups(made):
        key = next(i.TextValue for i in group.ContentSequence if _name(i) == "112039")
        number = next(i for i in group.ContentSequence if i.ValueType == "NUM")
        value = number.MeasuredValueSequence[0]
        site = next(i for i in group.ContentSequence if _name(i) == "363698007")
        sides = [i.ConceptCodeSequence[0].CodeValue for i in site.get("ContentSequence", []) if _name(i) == "272741003"]
        side = next((s for s, (code, _) in SIDE_CODES.items() if code in sides), None)
        if by_key[key].side != side or value.MeasurementUnitsCodeSequence[0].CodeValue != by_key[key].unit:
            raise ValueError(f"side or unit of {key} does not agree")
        found.append(Measured(by_key[key].structure, Laterality(side) if side else None, float(value.NumericValue)))
    return found


def _evidence(grid: Grid) -> list[Dataset]:
    """Return the source images: the first one's header, of which patient and study are taken, of the others the UIDs."""
    made = [derived.source_header(grid)]
    for instance in derived.source_images(grid)[1:]:
        item = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(item, keyword, instance.text(keyword))
        made.append(item)
    return made


def _measurement_groups(made: Dataset) -> list[Dataset]:
    holder = next(i for i in made.ContentSequence if _name(i) == "126010")
    return [i for i in holder.ContentSequence if _name(i) == "125007"]


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def _group(
    value: Measured, seg: Dataset | None, model: Model, series_uid: str
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations:
    part = structures.part(value.structure, value.side)
    site = _coded(part.volume)
    side = Code(SIDE_CODES[part.side][0], "SCT", SIDE_CODES[part.side][1]) if part.side else None
    shared = {
        "tracking_identifier": sr.TrackingIdentifier(tracking_uid(series_uid, part), part.key),
        "finding_type": site,
        "finding_sites": [sr.FindingSite(site, laterality=side)],
        "algorithm_id": sr.AlgorithmIdentification(model.name, model.version),
        "measurements": [_measurement(value, part)],
    }
    number = _segment_number(seg, part)
    if seg is None or number is None:
        return sr.MeasurementsAndQualitativeEvaluations(**shared)
    segment = sr.ReferencedSegment(
        seg.SOPClassUID, seg.SOPInstanceUID, number, source_series=sr.SourceSeriesForSegmentation(series_uid)
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _measurement(value: Measured, part: Part) -> sr.Measurement:
    unit = Code(part.unit, "UCUM", UNIT_MEANING.get(part.unit, part.unit))
    method = SUM_OF_VOXELS if part.measures == structures.VOLUME else None
    return sr.Measurement(_coded(part.measures), round(value.value, 3), unit, method=method)


def _coded(concept: ConceptCode) -> Code:
    return Code(concept.value, concept.scheme, concept.meaning)


def _segment_number(seg: Dataset | None, part: Part) -> int | None:
    if seg is None:
        return None
    return next((int(s.SegmentNumber) for s in seg.SegmentSequence if s.TrackingID == part.key), None)
