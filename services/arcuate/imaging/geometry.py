"""From frames to one volume: order, spacing and side by ImageOrientationPatient and ImagePositionPatient alone (PS3.3 C.7.6.2).

PatientPosition, PatientOrientation, InstanceNumber and file names never decide anything here: the patient coordinate system
already moves with the patient, and the others are labels that people and programs change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arcuate.imaging.domain import Frame, Instance, RefusalCode, Triple, refuse

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# How far numbers that were written as decimal text may stray.
COSINE_TOLERANCE = 1e-3
SPACING_TOLERANCE = 1e-3  # of the spacing
GAP = 1.5  # of the usual step: more is a missing slice
IRREGULAR = 0.25  # of the step: slices further from an even grid make a volume wrong
UNEVEN = 0.02  # of the step: slices further from an even grid are worth a warning
TILT_WARN_DEGREES = 0.5
TILT_REFUSE_DEGREES = 30.0
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_RESEND = "Send the whole series again, as the scanner made it."


@dataclass(frozen=True)
class Slice:
    """One slice of a volume: the frame `index` of an instance."""

    instance: Instance
    index: int

    @property
    def frame(self) -> Frame:
        """The frame's plane."""
        return self.instance.frames[self.index]


@dataclass(frozen=True)
class Grid:
    """A volume's place in the patient.

    Attributes:
        shape: Columns, rows, slices: the order of the volume's axes.
        affine: Voxel (column, row, slice) to RAS, mm; its columns need not be at right angles (gantry tilt).
        slices: In the order of the third axis, ascending along the cross product of row and column direction.
        warnings: What makes measurements less sure, in words.
    """

    shape: tuple[int, int, int]
    affine: Array
    slices: tuple[Slice, ...]
    warnings: tuple[str, ...]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along columns, rows, slices, mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))


def arrange(instances: Sequence[Instance]) -> Grid:
    """Put the frames of one series in order.

    Raises:
        NotMeasurable: The frames do not make one whole, evenly spaced volume with a known orientation.
    """
    kept, warnings = _without_copies(instances)
    _check_one_series(kept)
    slices = [Slice(instance, index) for instance in kept for index in range(len(instance.frames))]
    row, column, spacing = _common_plane(slices)
    normal = np.cross(row, column)
    slices.sort(key=lambda s: float(np.dot(_position(s), normal)))
    positions = np.array([_position(s) for s in slices])
    step, more = _step(positions, normal, spacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * spacing[1], column * spacing[0], step
    affine[:3, 3] = positions[0]
    shape = (int(kept[0].tags["Columns"]), int(kept[0].tags["Rows"]), len(slices))
    warnings += [*more, *_gap_warning(slices, float(np.dot(step, normal)))]
    return Grid(shape, LPS_TO_RAS @ affine, tuple(slices), tuple(warnings))


def axis_codes(affine: Array) -> str:
    """Return to which side each axis mainly runs, for example `LPS`."""
    codes = ""
    for axis in range(3):
        main = int(np.argmax(np.abs(affine[:3, axis])))
        codes += "RAS"[main] if affine[main, axis] > 0 else "LPI"[main]
    return codes


def _without_copies(instances: Sequence[Instance]) -> tuple[list[Instance], list[str]]:
    """Leave out exact copies; refuse two images under one SOP Instance UID."""
    kept: dict[str, Instance] = {}
    copies = 0
    for instance in instances:
        first = kept.setdefault(instance.sop_uid, instance)
        if first.digest != instance.digest:
            raise refuse(
                RefusalCode.DUPLICATE, "Two different images carry the same SOP Instance UID",
                "Find out on the scanner which one is right, and send only that one.",
            )  # fmt: skip
        copies += first is not instance
    return list(kept.values()), [f"{copies} images came twice and are used once"] if copies else []


def _check_one_series(instances: Sequence[Instance]) -> None:
    if len(instances) == 0:
        raise refuse(RefusalCode.INCOMPLETE, "The series has no image", _RESEND)
    for instance in instances:
        if instance.damage:
            raise refuse(instance.damage.code, instance.damage.what, instance.damage.todo)
    if len({i.person for i in instances}) > 1:
        raise refuse(
            RefusalCode.IDENTITY, "The images of one series state different patients",
            "Find out whose images they are before anybody uses them.",
        )  # fmt: skip
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns", "Modality"):
        if len({i.text(keyword) for i in instances}) > 1:
            raise refuse(RefusalCode.MIXED, f"The images differ in {keyword}: they are not one series", _RESEND)


def _common_plane(slices: Sequence[Slice]) -> tuple[Array, Array, tuple[float, float]]:
    """Return direction of rows and of columns (LPS) and spacing (between rows, between columns) that all slices share."""
    planes = [_plane(s.frame) for s in slices]
    cosines = np.array([orientation for orientation, _ in planes], dtype=np.float64)
    spacings = np.array([spacing for _, spacing in planes], dtype=np.float64)
    if not np.allclose(cosines, cosines[0], atol=COSINE_TOLERANCE):
        raise refuse(
            RefusalCode.MIXED, "The images of the series lie in different planes (a localiser, or several series in one)",
            "Choose a series that was taken in one plane.",
        )  # fmt: skip
    if not np.allclose(spacings, spacings[0], rtol=SPACING_TOLERANCE):
        raise refuse(RefusalCode.MIXED, "PixelSpacing differs between the images of the series", _RESEND)
    usual = cosines.mean(axis=0)
    row = usual[0] / np.linalg.norm(usual[0])
    column = usual[1] - np.dot(usual[1], row) * row
    return row, column / np.linalg.norm(column), planes[0][1]


def _plane(frame: Frame) -> tuple[tuple[Triple, Triple], tuple[float, float]]:
    """Return orientation and spacing of a frame that states a usable plane."""
    if frame.orientation is None or frame.position is None:
        raise refuse(
            RefusalCode.ORIENTATION, "ImageOrientationPatient or ImagePositionPatient is missing: left and right are not known",
            "Send the original series from the scanner, not a copy made by another program.",
        )  # fmt: skip
    row, column = np.array(frame.orientation)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if not np.allclose(lengths, 1, atol=COSINE_TOLERANCE) or abs(float(np.dot(row, column))) > COSINE_TOLERANCE:
        raise refuse(
            RefusalCode.ORIENTATION, "ImageOrientationPatient is not two directions at right angles: left and right are not known",
            "Send the original series from the scanner.",
        )  # fmt: skip
    if frame.spacing is None or not all(np.isfinite(v) and 0 < v < 100 for v in frame.spacing):
        raise refuse(RefusalCode.IRREGULAR, "PixelSpacing is missing, zero or negative", "Send the original series.")
    return frame.orientation, frame.spacing


def _position(s: Slice) -> Array:
    return np.array(s.frame.position, dtype=np.float64)


def _step(positions: Array, normal: Array, spacing: tuple[float, float]) -> tuple[Array, list[str]]:
    """Return the vector from slice to slice (LPS, mm) and warnings; positions are sorted along the normal."""
    count = len(positions)
    if count < 2:
        raise refuse(RefusalCode.INCOMPLETE, "The series has a single slice: there is no volume", "Choose a 3D series.")
    steps = np.diff(positions @ normal)
    usual = float(np.median(steps))
    if float(steps.min()) < 0.01 * usual or usual <= 0:
        k = int(np.argmin(steps))
        raise refuse(
            RefusalCode.DUPLICATE, f"Two different images lie at the place of slice {k + 1} (two echoes or time points in one series)",
            "Send each echo or time point as a series of its own.",
        )  # fmt: skip
    if float(steps.max()) > GAP * usual:
        k = int(np.argmax(steps))
        raise refuse(
            RefusalCode.INCOMPLETE,
            f"Slices are missing: {steps[k]:.1f} mm between slices {k + 1} and {k + 2}, elsewhere {usual:.1f} mm", _RESEND,
        )  # fmt: skip
    step = (positions[-1] - positions[0]) / (count - 1)
    stray = float(np.abs(positions - (positions[0] + np.arange(count)[:, None] * step)).max())
    if stray > IRREGULAR * min(usual, *spacing) and stray > 0.1:
        raise refuse(
            RefusalCode.IRREGULAR,
            f"The slices do not lie evenly: up to {stray:.1f} mm from an even grid",
            "Send the original series.",
        )
    warnings = [f"The slices lie unevenly, by up to {stray:.2f} mm"] if stray > UNEVEN * usual + 0.01 else []
    return step, warnings + _tilt(step, normal)


def _tilt(step: Array, normal: Array) -> list[str]:
    angle = float(np.degrees(np.arccos(np.clip(np.dot(step, normal) / np.linalg.norm(step), -1, 1))))
    if angle > TILT_REFUSE_DEGREES:
        raise refuse(
            RefusalCode.IRREGULAR, f"The slices slide {angle:.0f} degrees off their normal", "Send the original series."
        )
    return [f"The slices are tilted by {angle:.1f} degrees (gantry tilt)"] if angle > TILT_WARN_DEGREES else []


def _gap_warning(slices: Sequence[Slice], distance: float) -> list[str]:
    thickness = slices[0].frame.thickness
    if thickness and distance > 1.05 * thickness:
        return [f"There are gaps: slices of {thickness:.1f} mm lie {distance:.1f} mm apart"]
    return []
