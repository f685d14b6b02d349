"""SEG and SR: legal for a strict verifier, and what is read back is what was measured."""

import subprocess
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from highdicom.seg import Segmentation, SegmentDescription
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset

from arcuate.imaging import derived, picture, secondary_capture, structures
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.parsing import Parser
from arcuate.imaging.pipelines import named
from arcuate.imaging.secondary_capture import KeyImage
from arcuate.imaging.seg import build_seg, present_parts, read_labels
from arcuate.imaging.series import Choice, choose
from arcuate.imaging.sr import build_sr, read_volumes
from arcuate.kernel.codes import Laterality

AT = datetime(2026, 3, 17, 10, 0, tzinfo=ZoneInfo("Europe/Zurich"))
MODEL = Model("example-model", "1.0", "ab" * 32)
BRAIN = named("brain-volumes")


def labels_of(choice: Choice) -> np.ndarray:
    """An invented brain: one block a part, left ones on the patient's left."""
    labels = np.zeros(choice.grid.shape, np.uint8)
    parts = [p for p in structures.parts() if p.own_segment]
    for k, part in enumerate(parts):
        j = 2 + 2 * (k % 25)
        i = {Laterality.LEFT: slice(34, 40), Laterality.RIGHT: slice(14, 20), None: slice(26, 28)}[part.side]
        labels[i, j : j + 2, 20 + k % 4 : 24 + k % 4] = part.labels[0]
    return labels


def volumes() -> list[Measured]:
    return [Measured(p.structure, p.side, round(1.2345 * (k + 1), 3)) for k, p in enumerate(structures.parts())]


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory, write_phantom: Callable[..., Path]
) -> tuple[Choice, np.ndarray, Dataset, Dataset]:
    """Choice, labels, SEG and SR of a series whose header holds illegal values."""

    def spoil(image: FileDataset, _number: int) -> None:
        image.PatientAge = "042Y"

    folder = write_phantom(tmp_path_factory.mktemp("spoilt"), spoil)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"AS\x04\x00042Y", b"AS\x04\x0042  "))
    with Parser() as parser:
        choice = choose(parser.folder(folder))
    labels = labels_of(choice)
    seg = build_seg(choice.grid, labels, MODEL, AT, BRAIN)
    assert seg is not None
    sr = build_sr(choice.grid, seg, volumes(), MODEL, AT, BRAIN)
    return choice, labels, dcmread(BytesIO(derived.encode(seg))), dcmread(BytesIO(derived.encode(sr)))


Made = tuple[Choice, np.ndarray, Dataset, Dataset]


@pytest.mark.parametrize("which", [2, 3])
def test_the_verifier_finds_no_error(made: Made, which: int, dciodvfy: str, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    made[which].save_as(path)
    said = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_the_verifier_finds_no_error_in_objects_of_lesions(made: Made, dciodvfy: str, tmp_path: Path) -> None:
    choice, pipeline = made[0], named("wm-lesions")
    labels = np.zeros(choice.grid.shape, np.uint8)
    for k, number in enumerate((101, 102, 103, 104)):
        labels[20 + 3 * k : 22 + 3 * k, 30:33, 30] = number
    seg = build_seg(choice.grid, labels, MODEL, AT, pipeline)
    assert seg is not None and len(seg.SegmentSequence) == 4
    codes = ("wm-lesions-load", "wm-lesions-count", "wm-lesions-deep", "wm-lesions-deep-count")
    report = build_sr(choice.grid, seg, [Measured(code, None, 2.0) for code in codes], MODEL, AT, pipeline)
    for made_here in (seg, report):
        path = tmp_path / "lesions.dcm"
        path.write_bytes(derived.encode(made_here))
        said = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_the_verifier_finds_no_error_in_key_images_and_they_say_research_use(
    made: Made, dciodvfy: str, tmp_path: Path
) -> None:
    shown = picture.captioned([Image.new("RGB", (151, 101))], ["Hippocampus, coronal 3 of 9"])
    key_images = [KeyImage("Hippocampus, outlined", shown), KeyImage("Hippocampus, map of doubt", shown)]
    objects = secondary_capture.build(made[0].grid, key_images, MODEL, AT, BRAIN)
    assert len({o.SOPInstanceUID for o in objects}) == 2 and len({o.SeriesInstanceUID for o in objects}) == 1
    assert objects[0].StudyInstanceUID == made[2].StudyInstanceUID
    assert "Research use only" in objects[0].DerivationDescription and objects[0].BurnedInAnnotation == "NO"
    path = tmp_path / "picture.dcm"
    path.write_bytes(derived.encode(objects[0]))
    said = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False).stderr
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
    assert (dcmread(path).pixel_array == np.asarray(shown)).all()
    assert np.asarray(shown)[-20:, :150].max() > 200  # the words stand in the pixels


def test_illegal_values_of_the_source_are_dropped_and_listed(made: Made) -> None:
    choice, _, seg, sr = made
    assert derived.dropped_values(choice.instances) == ("PatientAge breaks the form of a value of type AS",)
    assert "PatientAge" not in seg
    assert "PatientAge" not in sr
    assert seg.PatientID == sr.PatientID == "PH-1"


def test_labels_read_back_equal(made: Made) -> None:
    choice, labels, seg, _ = made
    positions = [s.frame.position or (0, 0, 0) for s in choice.grid.slices]
    np.testing.assert_array_equal(labels, read_labels(seg, choice.grid.shape, positions))


def test_the_frames_are_those_that_the_library_would_write(made: Made) -> None:
    choice, labels, seg, _ = made
    parts = present_parts(labels)
    table = np.zeros(256, np.uint8)
    for number, part in enumerate(parts, 1):
        table[list(part.labels)] = number
    library = Segmentation(
        source_images=[dcmread(s.instance.path) for s in choice.grid.slices],
        pixel_array=table[labels].transpose(2, 1, 0), segmentation_type="BINARY",
        segment_descriptions=[SegmentDescription.from_dataset(item) for item in seg.SegmentSequence],
        series_instance_uid="1.2.3", series_number=1, sop_instance_uid="1.2.3.4", instance_number=1, manufacturer="x",
        manufacturer_model_name="x", software_versions="1", device_serial_number="1",
    )  # fmt: skip
    theirs = dcmread(BytesIO(derived.encode(library)))
    assert seg.NumberOfFrames == theirs.NumberOfFrames
    assert seg.PixelData == theirs.PixelData
    assert seg.PerFrameFunctionalGroupsSequence == theirs.PerFrameFunctionalGroupsSequence
    assert seg.SharedFunctionalGroupsSequence == theirs.SharedFunctionalGroupsSequence


def test_volumes_read_back_equal_with_their_side(made: Made) -> None:
    assert read_volumes(made[3]) == volumes()


def test_left_in_the_segmentation_is_the_patients_left(made: Made) -> None:
    """Segment by segment, by the positions that the SEG itself states: LPS x grows to the left."""
    seg = made[2]
    frames = seg.pixel_array
    for item in seg.SegmentSequence:
        modifiers = item.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence")
        side = modifiers[0].CodeMeaning if modifiers else ""
        wanted = [
            k
            for k, groups in enumerate(seg.PerFrameFunctionalGroupsSequence)
            if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == item.SegmentNumber
        ]
        column = np.argwhere(frames[wanted])[:, 2].mean()
        x = (
            float(seg.PerFrameFunctionalGroupsSequence[wanted[0]].PlanePositionSequence[0].ImagePositionPatient[0])
            + 3.0 * column
        )
        assert side == ("Left" if x > 3.5 else "Right" if x < -3.5 else ""), item.SegmentLabel


def test_both_objects_belong_to_the_study_and_refer_to_its_images(made: Made) -> None:
    choice, _, seg, sr = made
    uids = {i.sop_uid for i in choice.instances}
    assert seg.StudyInstanceUID == sr.StudyInstanceUID == choice.instances[0].study_uid
    assert {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence} <= uids
    assert seg.SOPInstanceUID.encode() in derived.encode(sr)
    assert seg.AccessionNumber == "ACC-PH-1"


def test_the_report_names_language_device_and_algorithm(made: Made) -> None:
    text = str(made[3])
    for word in ("English", "example-model", "Device", "Imaging Measurement Report", "mL", "PRELIMINARY"):
        assert word in text


def test_the_same_measurement_makes_the_same_objects_byte_for_byte(made: Made) -> None:
    choice, labels, seg, sr = made
    again = build_seg(choice.grid, labels, MODEL, AT, BRAIN)
    assert again is not None
    assert dcmread(BytesIO(derived.encode(again))) == seg
    assert dcmread(BytesIO(derived.encode(build_sr(choice.grid, again, volumes(), MODEL, AT, BRAIN)))) == sr


def test_another_model_makes_another_object(made: Made) -> None:
    other = Model("example-model", "1.1", "cd" * 32)
    assert derived.run_facts(made[0].grid, MODEL) != derived.run_facts(made[0].grid, other)


def test_an_empty_segmentation_makes_no_object(made: Made) -> None:
    choice, labels, _, _ = made
    assert build_seg(choice.grid, np.zeros_like(labels), MODEL, AT, BRAIN) is None


def test_every_part_with_a_segment_is_present(made: Made) -> None:
    assert {p.key for p in present_parts(made[1])} == {p.key for p in structures.parts() if p.own_segment}


def test_structure_codes_are_members_of_their_context_groups() -> None:
    """CID 7140 for volumes, CID 7153 (of lesions: 7199) for segments, where the part has a code there (`structures.toml`)."""
    from pydicom.sr.codedict import codes

    volumes_group = {(getattr(codes.cid7140, n).value, getattr(codes.cid7140, n).meaning) for n in codes.cid7140.dir()}
    # Of head CT: CID 7153 has the whole ventricular system, and no group of volumes has blood.
    of_ct = {("35764002", "Brain ventricle"), ("1386000", "Intracranial hemorrhage")}
    assert {(p.volume.value, p.volume.meaning) for p in structures.parts()} - volumes_group <= of_ct
    segments = {getattr(group, n).value for group in (codes.cid7153, codes.cid7199) for n in group.dir()}
    outside = {p.structure for p in structures.parts() if p.own_segment and p.segment.value not in segments}
    assert outside == {"ventral-diencephalon", "cerebellar-cortex", "intracranial-haemorrhage"}
