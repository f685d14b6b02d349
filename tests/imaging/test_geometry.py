"""Order, spacing and side follow from ImageOrientationPatient and ImagePositionPatient alone."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from arcuate.imaging.domain import Frame, Instance, NotMeasurable, RefusalCode, instance_from_json, instance_to_json
from arcuate.imaging.geometry import Grid, arrange, axis_codes

SIZE = (7, 5)  # columns, rows


def instances(
    rotation: np.ndarray = np.eye(3), spacing: tuple[float, float, float] = (1.2, 0.9, 2.0),
    origin: tuple[float, float, float] = (-3, 8, 40), count: int = 6, thickness: float | None = None,
) -> list[Instance]:  # fmt: skip
    """A series whose volume axes are the columns of `rotation`; spacing is (between rows, between columns, between slices)."""
    row, column, normal = rotation.T
    if np.dot(np.cross(row, column), normal) < 0:
        normal = -normal
    made = []
    for k in range(count):
        place = np.array(origin) + k * spacing[2] * normal
        frame = Frame(tuple(place), (tuple(row), tuple(column)), spacing[:2], thickness or spacing[2])  # type: ignore[arg-type]
        tags = {
            "SOPInstanceUID": f"1.2.{k + 1}", "SeriesInstanceUID": "1.3", "StudyInstanceUID": "1.4", "Columns": SIZE[0], "Rows": SIZE[1],
            "InstanceNumber": k + 1, "Modality": "MR",
        }  # fmt: skip
        made.append(Instance(f"{k}.dcm", f"{k:064d}", 100, "1.2.840.10008.1.2.1", tags, (frame,)))
    return made


def refused(series: list[Instance]) -> RefusalCode:
    with pytest.raises(NotMeasurable) as caught:
        arrange(series)
    assert caught.value.refusal.what
    assert caught.value.refusal.todo
    return caught.value.refusal.code


def change(instance: Instance, **frame: object) -> Instance:
    return replace(instance, frames=(replace(instance.frames[0], **frame),))  # type: ignore[arg-type]


def retag(instance: Instance, **tags: object) -> Instance:
    return replace(instance, tags={**instance.tags, **tags})


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_f052_missing_orientation_is_refused() -> None:
    series = instances()
    series[3] = change(series[3], orientation=None)
    assert refused(series) == RefusalCode.ORIENTATION


@pytest.mark.parametrize(
    "cosines", [((1, 0, 0), (0.5, 1, 0)), ((1, 0, 0), (1, 0, 0)), ((0, 0, 0), (0, 1, 0)), ((0.9, 0, 0), (0, 1, 0))]
)
def test_f052_directions_that_are_not_orthonormal_are_refused(cosines: tuple[tuple[float, ...], ...]) -> None:
    assert refused([change(i, orientation=cosines) for i in instances()]) == RefusalCode.ORIENTATION


@pytest.mark.parametrize("missing", [{2}, {2, 3}, {4}])
def test_f053_a_gap_is_refused_and_named_in_millimetres(missing: set[int]) -> None:
    series = [i for k, i in enumerate(instances(count=9)) if k not in missing]
    with pytest.raises(NotMeasurable) as caught:
        arrange(series)
    assert caught.value.refusal.code == RefusalCode.INCOMPLETE
    assert "mm between slices" in caught.value.refusal.what


def test_f053_two_images_at_one_place_are_refused() -> None:
    series = instances()
    twin = retag(replace(series[2], digest="f" * 64), SOPInstanceUID="1.2.99")
    assert refused([*series, twin]) == RefusalCode.DUPLICATE


def test_f053_mixed_planes_are_refused() -> None:
    series = instances()
    series[1] = change(series[1], orientation=((0, 1, 0), (0, 0, -1)))
    assert refused(series) == RefusalCode.MIXED


@pytest.mark.parametrize(
    "tags",
    [
        {"Rows": 6},
        {"SeriesInstanceUID": "1.33"},
        {"StudyInstanceUID": "1.44"},
        {"FrameOfReferenceUID": "1.5"},
        {"Modality": "CT"},
    ],
)
def test_images_that_are_not_one_series_are_refused(tags: dict[str, object]) -> None:
    series = instances()
    series[2] = retag(series[2], **tags)
    assert refused(series) == RefusalCode.MIXED


def test_f051_images_of_two_patients_are_refused() -> None:
    series = instances()
    series[4] = retag(series[4], PatientID="other")
    assert refused(series) == RefusalCode.IDENTITY


def test_f055_two_images_under_one_uid_are_refused_and_an_exact_copy_is_used_once() -> None:
    series = instances()
    assert refused([*series, replace(series[0], digest="e" * 64)]) == RefusalCode.DUPLICATE
    grid = arrange([*series, replace(series[0], path="copy.dcm")])
    assert grid.shape[2] == len(series)
    assert "twice" in grid.warnings[0]


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), None])
def test_impossible_pixel_spacing_is_refused(spacing: tuple[float, float] | None) -> None:
    assert refused([change(i, spacing=spacing) for i in instances()]) == RefusalCode.IRREGULAR


def test_slices_that_slide_far_off_their_normal_are_refused_and_a_little_tilt_is_a_warning() -> None:
    def tilted(degrees: float) -> list[Instance]:
        slide = np.tan(np.radians(degrees)) * 2.0
        series = []
        for k, instance in enumerate(instances()):
            x, y, z = instance.frames[0].position or (0, 0, 0)
            series.append(change(instance, position=(x, y + k * slide, z)))
        return series

    assert refused(tilted(40)) == RefusalCode.IRREGULAR
    assert "tilt" in arrange(tilted(12)).warnings[0]


def test_gaps_between_slices_are_a_warning() -> None:
    assert "gaps" in arrange(instances(thickness=1.0)).warnings[0]


# ---- right -----------------------------------------------------------------------------------------------------------

angles = st.tuples(*[st.floats(-180, 180)] * 3)
spacings = st.tuples(st.floats(0.3, 5), st.floats(0.3, 5), st.floats(0.3, 7))
origins = st.tuples(*[st.floats(-500, 500)] * 3)


def world(grid: Grid, instance: Instance, column: float, row: float) -> np.ndarray:
    k = [s.instance.sop_uid for s in grid.slices].index(instance.sop_uid)
    return (grid.affine @ [column, row, k, 1])[:3]


@given(angles, spacings, origins, st.permutations(range(6)))
def test_every_voxel_lies_where_the_standards_formula_puts_it(
    turn: tuple[float, ...], spacing: tuple[float, float, float], origin: tuple[float, float, float], order: list[int]
) -> None:
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    series = [instances(rotation, spacing, origin)[k] for k in order]
    grid = arrange(series)
    for instance in series:
        frame = instance.frames[0]
        row, column = np.array(frame.orientation)
        lps = np.array(frame.position) + row * spacing[1] * 4 + column * spacing[0] * 2  # PS3.3 C.7.6.2.1-1
        np.testing.assert_allclose(
            world(grid, instance, 4, 2), lps * [-1, -1, 1], atol=1e-6 * max(1, np.abs(lps).max())
        )
    np.testing.assert_allclose(grid.spacing, (spacing[1], spacing[0], spacing[2]), rtol=1e-6)


@given(angles, st.permutations(range(6)))
def test_the_order_of_files_and_instance_numbers_changes_nothing(turn: tuple[float, ...], order: list[int]) -> None:
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    series = instances(rotation)
    shuffled = [retag(series[k], InstanceNumber=n) for n, k in enumerate(order)]
    np.testing.assert_array_equal(arrange(series).affine, arrange(shuffled).affine)


@given(angles)
def test_f052_a_mirrored_copy_gives_the_mirrored_place(turn: tuple[float, ...]) -> None:
    """Turning the rows' direction round and moving the origin to their other end describes the same voxels from the other side."""
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    plain = instances(rotation)
    mirrored = []
    for instance in plain:
        row, column = np.array(instance.frames[0].orientation)
        far = np.array(instance.frames[0].position) + row * 0.9 * (SIZE[0] - 1)
        mirrored.append(change(instance, position=tuple(far), orientation=(tuple(-row), tuple(column))))
    one, other = arrange(plain), arrange(mirrored)
    for instance in plain:
        np.testing.assert_allclose(world(one, instance, 1, 3), world(other, instance, SIZE[0] - 2, 3), atol=1e-6)


def test_axis_codes_name_where_the_axes_run() -> None:
    assert axis_codes(arrange(instances()).affine) == "LPS"


def test_facts_survive_their_json_form() -> None:
    for instance in instances():
        assert instance_from_json(instance_to_json(instance)) == instance
