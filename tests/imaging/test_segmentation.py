"""From volume to structures. The network here reads structures off a painted head, so that every error is one of space."""

import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from arcuate.imaging import interval, segmentation
from arcuate.imaging.brain_finder import Brain, find_brain
from arcuate.imaging.contrast import labelled
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.interval import Intervals
from arcuate.imaging.network import load_model
from arcuate.imaging.pipelines import Scan, Volume
from arcuate.imaging.sampling import working_frame
from arcuate.imaging.segmentation import grid_of, segment
from arcuate.imaging.volumetry import Segmentation

LEVELS = {24: 0.1, 4: 0.2, 8: 0.4, 3: 0.5, 17: 0.6, 10: 0.7, 7: 0.8, 16: 0.9, 2: 1.0}
"""Painted intensity of a structure (left number; the right one is painted alike, as in a real scan)."""

RIGHT = {4: 43, 8: 47, 3: 42, 17: 53, 10: 49, 7: 46, 2: 41}
CLASSES = sorted([0, *LEVELS, *RIGHT.values()])

# Centre (RAS mm), radii (mm) and structure; later ones are painted over earlier ones. The left hippocampus is the larger one.
SHAPES = [
    ((0, 0, 0), (76, 92, 66), 24), ((-36, 0, 6), (34, 84, 56), 3), ((36, 0, 6), (34, 84, 56), 3),
    ((-34, 0, 8), (26, 70, 44), 2), ((34, 0, 8), (26, 70, 44), 2), ((-14, 5, 14), (7, 30, 8), 4), ((14, 5, 14), (7, 30, 8), 4),
    ((-12, -14, 0), (9, 14, 9), 10), ((12, -14, 0), (9, 14, 9), 10), ((-27, -20, -14), (9, 17, 8), 17), ((27, -20, -14), (7, 13, 6), 17),
    ((-22, -60, -42), (20, 24, 20), 8), ((22, -60, -42), (20, 24, 20), 8), ((-22, -60, -42), (12, 15, 11), 7),
    ((22, -60, -42), (12, 15, 11), 7),
    ((0, -28, -34), (10, 10, 24), 16),
]  # fmt: skip


@dataclass
class Painted:
    """A network that reads structures off their painted intensity, and sides off the half of the box."""

    wrong: str = ""
    calls: int = 0

    async def __call__(self, model: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        image = inputs["image"][0, 0]
        self.calls += 1
        if model == "brain-finder":
            brain = (image > 0.15) & (self.wrong != "no brain")
            if self.wrong == "misses cortex":
                brain[:, 51:] = ndimage.binary_erosion(brain, iterations=3)[:, 51:]
            return {"probabilities": np.stack([~brain, brain])[None].astype(np.uint8) * 255}
        # Between two structures an interpolated image passes through the levels of others: only even places are read.
        even = ndimage.maximum_filter(image, 3) - ndimage.minimum_filter(image, 3) < 0.05
        nearest = ndimage.distance_transform_edt(~even, return_distances=False, return_indices=True)
        read = np.array([0, *LEVELS.values()])
        codes = np.array([0, *LEVELS])[np.abs(image[tuple(nearest)][..., None] - read).argmin(-1)]
        right = np.arange(image.shape[0])[:, None, None] >= image.shape[0] // 2
        for left_label, right_label in RIGHT.items():
            codes = np.where(right & (codes == left_label), right_label, codes)
        found = np.stack([codes == label for label in CLASSES]).astype(np.uint8) * 255
        if self.wrong == "nothing":
            found[:] = 0
            found[0] = 255
        if self.wrong == "shape":
            found = found[:, 1:]
        if self.wrong == "no probabilities":
            found[:] = 255
        return {"probabilities": found[None]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Descriptions of two models with the grids of this test."""
    folder = tmp_path_factory.mktemp("models")
    for name, shape, voxel, classes in (
        ("brain-finder", [56, 64, 72], 4.0, [0, 1]),
        ("brain-t1", [80, 96, 80], 2.0, CLASSES),
        ("brain-any", [80, 96, 80], 2.0, CLASSES),
    ):
        (folder / name).mkdir()
        mirror = [[a, b] for a, b in RIGHT.items()] if len(classes) > 2 else []
        (folder / name / "model.toml").write_text(
            f'name = "{name}"\nversion = "1"\n[[inputs]]\nname = "image"\ndatatype = "FP32"\nshape = {[1, 1, *shape]}\n'
            f'[[outputs]]\nname = "probabilities"\ndatatype = "UINT8"\nshape = {[1, len(classes), *shape]}\n'
            f'[grid]\nvoxel_mm = {voxel}\nclasses = {classes}\nmirror = {mirror}\n[weights]\nfile = "w"\nsha256 = "0"\n'
        )
    return folder


def scan(
    affine: np.ndarray, shape: tuple[int, ...], mirrored: bool = False, move: tuple[float, ...] = (0, 0, 0)
) -> Volume:
    """The painted head on any grid; `mirrored` turns the head itself, left for right."""
    voxels = np.indices(shape).reshape(3, -1)
    world = (affine[:3, :3] @ voxels + affine[:3, 3:]).T - np.array(move)
    if mirrored:
        world[:, 0] *= -1
    data = np.zeros(len(world), np.float32)
    for centre, radii, label in SHAPES:
        data[(((world - centre) / radii) ** 2).sum(1) <= 1] = LEVELS[label] * 800
    return Volume(data.reshape(shape), affine)


def grid(
    turn: np.ndarray, spacing: tuple[float, ...], shape: tuple[int, ...], move: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    """An affine whose middle voxel lies at the middle of the head."""
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = np.array(move) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


BOX = (100, 110, 90)
UPRIGHT = np.eye(3)


async def straight(models: Path) -> Segmentation:
    return await segment(scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX), Painted(), models)


async def test_sides_come_from_the_affine_alone(models: Path) -> None:
    expected = await straight(models)
    left, right = expected.ml("hippocampus", "left"), expected.ml("hippocampus", "right")
    assert left and right and left > 1.6 * right
    stored_left_to_right = grid(np.diag([-1.0, 1.0, 1.0]), (2, 2, 2), BOX)
    again = await segment(scan(stored_left_to_right, BOX), Painted(), models)
    assert again.ml("hippocampus", "left") == pytest.approx(left, rel=0.08)
    assert again.ml("hippocampus", "right") == pytest.approx(right, rel=0.08)


async def test_what_a_network_says_of_a_head_turned_over_is_never_taken_for_what_it_says_of_a_t1(models: Path) -> None:
    painted, given = Painted(), []

    async def whatever_the_contrast(model: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if model != "brain-finder":
            given.append(inputs["image"][0, 0])
            inputs = {"image": given[(len(given) - 1) % 2][None, None]}
        return await painted(model, inputs)

    head = scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)
    plain = await segment(head, whatever_the_contrast, models)
    turned = await segment(head, whatever_the_contrast, models, turned_over=True)

    inside = ndimage.binary_erosion(given[2] > 0, iterations=2)  # what lies half beyond the edge is dark in both
    assert np.corrcoef(given[0][inside], given[2][inside])[0, 1] < -0.99
    # Changes between dates are told of equal models alone.
    revision = tomllib.loads(segmentation.RULES.read_text(encoding="utf-8"))["revision"]
    assert (plain.models[-1].version, turned.models[-1].version) == (f"1 r{revision}", f"1 r{revision} turned over")


async def test_a_volume_comes_with_the_interval_of_heads_of_known_volumes_or_with_what_the_network_is_sure_of(
    models: Path, tmp_path: Path
) -> None:
    without = await straight(models)
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    told = Intervals({"fine-side": {"hippocampus": (0.9, 1.2)}})
    text = interval.written({"version": without.models[-1].version}, told)
    (tmp_path / "brain-t1" / interval.FILE).write_text(text)
    made = await straight(tmp_path)
    left = made.ml("hippocampus", "left")
    assert left is not None
    assert made.uncertainty.intervals["hippocampus", "left"] == pytest.approx((0.9 * left, 1.2 * left), rel=0.005)
    assert not made.uncertainty.ranges  # one of the two is told, never both
    assert without.uncertainty.ranges["hippocampus", "left"] and not without.uncertainty.intervals
    # What heads seen whole say holds of no brain that ends at the edge of the scan.
    thick, cut = with_scalp_whole_and_cut()
    (tmp_path / "brain-t1" / interval.FILE).write_text(text.replace("fine", "thick"))
    assert (await segment(thick, Painted(), tmp_path)).uncertainty.intervals
    assert not (await segment(cut, Painted(), tmp_path)).uncertainty.intervals


async def test_a_mirrored_head_gets_the_mirrored_answer(models: Path) -> None:
    plain = await straight(models)
    turned = await segment(scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX, mirrored=True), Painted(), models)
    for volume in plain.volumes:
        side = {"left": "right", "right": "left", "": ""}[volume.side]
        assert turned.ml(volume.code, side) == pytest.approx(volume.ml, rel=0.03 if volume.ml > 50 else 0.1), volume
    swap = np.arange(256)
    for a, b in RIGHT.items():
        swap[a], swap[b] = b, a
    assert (swap[turned.labels[::-1]] == plain.labels).mean() > 0.97


@pytest.mark.parametrize(
    ("turn", "spacing", "shape"),
    [
        (np.eye(3)[:, [2, 0, 1]], (2, 2, 2), (90, 100, 110)),
        (Rotation.from_euler("xyz", (8, -5, 6), degrees=True).as_matrix(), (2, 2, 2), (105, 115, 95)),
        (Rotation.from_euler("xyz", (35, 10, -20), degrees=True).as_matrix(), (2, 2, 2), (120, 120, 120)),
        (np.diag([-1.0, -1.0, 1.0]), (1.2, 1.2, 3.0), (160, 180, 60)),
    ],
    ids=["axes exchanged", "oblique", "very oblique", "anisotropic"],
)
async def test_any_orientation_and_voxel_gives_the_same_volumes(
    models: Path, turn: np.ndarray, spacing: tuple[float, ...], shape: tuple[int, ...]
) -> None:
    expected = await straight(models)
    far = (210.0, -180.0, 90.0)  # the origin of the world need not lie in the head
    volume = scan(grid(turn, spacing, shape, far), shape, move=far)
    found = await segment(volume, Painted(), models)
    for code, side in (("cerebral-white-matter", "left"), ("cerebellum", "right"), ("brainstem", "")):
        wanted = expected.ml(code, side)
        assert found.ml(code, side) == pytest.approx(wanted, rel=0.2), (code, side)
    left, right = found.ml("hippocampus", "left"), found.ml("hippocampus", "right")
    assert left and right and left > 1.4 * right
    assert found.labels.shape == volume.data.shape
    painted_white = np.abs(volume.data - 800 * LEVELS[2]) < 1
    labelled_white = np.isin(found.labels, [2, 41])
    assert 2 * (painted_white & labelled_white).sum() / (painted_white.sum() + labelled_white.sum()) > 0.85


def broken(volume: Volume, **changes: Any) -> Volume:
    return Volume(changes.get("data", volume.data), changes.get("affine", volume.affine))


async def test_volumes_that_cannot_be_measured_are_refused_with_the_reason(models: Path) -> None:
    whole = scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)
    holes = whole.data.copy()
    holes[3:5] = np.nan
    flat = whole.affine.copy()
    flat[:, 2] = 0
    thick = whole.affine @ np.diag([1, 1, 5, 1])
    for volume, code in (
        (broken(whole, data=holes), RefusalCode.DAMAGED),
        (broken(whole, data=np.zeros(BOX, np.float32)), RefusalCode.EMPTY),
        (broken(whole, data=whole.data[:, :, 45]), RefusalCode.NOT_SUITED),
        (broken(whole, data=whole.data[:, :, 40:52]), RefusalCode.NOT_SUITED),
        (broken(whole, affine=thick), RefusalCode.NOT_SUITED),
        (broken(whole, affine=flat), RefusalCode.ORIENTATION),
        (broken(whole, affine=np.full((4, 4), np.nan)), RefusalCode.ORIENTATION),
    ):
        with pytest.raises(NotMeasurable) as refused:
            await segment(volume, Painted(), models)
        assert refused.value.refusal.code == code and refused.value.refusal.todo


@pytest.mark.parametrize("wrong", ["no brain", "nothing", "shape", "no probabilities"])
async def test_an_implausible_answer_is_never_passed_on(models: Path, wrong: str) -> None:
    with pytest.raises(NotMeasurable) as refused:
        await segment(scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX), Painted(wrong), models)
    assert refused.value.refusal.code == RefusalCode.NOT_PLAUSIBLE


async def test_a_structure_that_was_not_found_has_a_reason_instead_of_a_volume(models: Path) -> None:
    found = await straight(models)
    assert found.ml("amygdala", "left") is None and found.ml("amygdala") is None
    assert "plausible" in found.not_measured["amygdala"]
    assert {v.code for v in found.volumes}.isdisjoint(found.not_measured)


async def test_half_a_brain_is_refused_or_warned_of(models: Path) -> None:
    whole = scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)
    cut = Volume(whole.data[:, :70], whole.affine)
    try:
        found = await segment(cut, Painted(), models)
    except NotMeasurable as refused:
        assert refused.refusal.code == RefusalCode.NOT_PLAUSIBLE
    else:
        assert found.quality.touches_edge


def with_scalp_whole_and_cut() -> tuple[Volume, Volume]:
    """A head in thick slices, and the same without those of one side."""
    shape = (56, 130, 120)
    thick = scan(grid(UPRIGHT, (3.6, 1.5, 1.5), shape), shape)
    head = thick.data.copy()
    away = ndimage.distance_transform_edt(head == 0, sampling=(3.6, 1.5, 1.5))
    head[(away > 2) & (away < 7)] = 100.0  # scalp: without it the brain may well end where somebody cut it out
    return thick, Volume(head[: head.shape[0] // 2 + 16], thick.affine)


async def test_a_brain_that_ends_in_the_last_thick_slice_is_warned_of(models: Path) -> None:
    thick, cut = with_scalp_whole_and_cut()
    assert not (await segment(thick, Painted(), models)).quality.touches_edge
    found = await segment(cut, Painted(), models)
    assert found.quality.touches_edge and any("edge of the field of view" in w for w in found.quality.warnings)


async def test_a_scan_without_skull_is_known_as_one_where_the_finder_misses_some_cortex(models: Path) -> None:
    bare = scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)
    head = Volume(bare.data.copy(), bare.affine)
    away = ndimage.distance_transform_edt(bare.data == 0) * 2
    head.data[(away > 2) & (away < 14)] = 100.0  # darker than what this finder takes for brain
    model = load_model(models, "brain-finder")
    for volume, stripped in ((bare, True), (head, False)):
        found = await find_brain(volume, working_frame(volume.affine), Painted(wrong="misses cortex"), model)
        assert found.stripped == stripped


async def test_a_brain_too_large_for_the_networks_grid_is_labelled_whole(models: Path) -> None:
    usual, asked = await straight(models), Painted()
    long = Volume(scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX).data, grid(UPRIGHT, (1.8, 2.4, 2), BOX))
    found = await segment(long, asked, models)
    assert asked.calls > 3  # the finder, and more than one window and its mirror image
    assert not found.quality.touches_edge
    assert found.quality.brain_ml == pytest.approx(1.08 * usual.quality.brain_ml, rel=0.02)
    for code in ("cerebral-cortex", "cerebral-white-matter", "cerebellum"):
        small, large = usual.ml(code), found.ml(code)
        assert small and large == pytest.approx(1.08 * small, rel=0.06)


def test_what_is_larger_than_any_brain_takes_no_more_memory(models: Path) -> None:
    network = load_model(models, "brain-t1")

    def grid_for(*size: float) -> tuple[int, int, int]:
        mask = np.zeros((1, 1, 1), np.bool_)
        return grid_of(Brain(np.zeros(3), np.array(size), 1500, False, mask, np.zeros(3), 4.0), network)

    assert grid_for(140, 176, 144) == network.shape == (80, 96, 80)
    assert grid_for(140, 190, 144) == (80, 104, 80)
    assert grid_for(500, 500, 500) == (100, 120, 100)


async def test_a_missing_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable) as refused:
        await segment(scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX), Painted(), tmp_path)
    assert refused.value.refusal.code == RefusalCode.NO_MODEL


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-180, 180), min_size=3, max_size=3), st.permutations(range(3)),
    st.lists(st.sampled_from([-1.0, 1.0]), min_size=3, max_size=3), st.lists(st.floats(0.3, 7), min_size=3, max_size=3),
)  # fmt: skip
def test_the_working_axes_always_run_to_right_anterior_superior(
    angles: list[float], order: list[int], signs: list[float], spacing: list[float]
) -> None:
    turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, order] * signs
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    frame = working_frame(affine)
    assert np.allclose(frame.turn.T @ frame.turn, np.eye(3), atol=1e-9) and np.linalg.det(frame.turn) > 0
    assert (np.diag(frame.turn) > 0.9).all()
    matrix, offset = frame.to_voxel(1.0, np.zeros(3))
    world = affine[:3, :3] @ (matrix @ np.array([1.0, 2.0, 3.0]) + offset) + affine[:3, 3]
    assert np.allclose(world, frame.turn @ [1.0, 2.0, 3.0])


class T1Fails(Painted):
    """The T1 network finds nothing in this contrast, the other one does."""

    async def __call__(self, model: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        self.wrong = "nothing" if model == "brain-t1" else ""
        return await super().__call__(model, inputs)


async def test_a_file_that_the_t1_network_fails_on_goes_to_the_one_for_any_contrast(models: Path) -> None:
    head = Scan(None, scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX))
    made, why = await labelled(head, T1Fails(), models)
    assert made.models[-1].name == "brain-any" and "brain-t1 gave no plausible answer" in why


@pytest.mark.long
async def test_what_both_networks_fail_on_is_refused_with_the_first_ones_reason(models: Path) -> None:
    with pytest.raises(NotMeasurable, match="brain of 0 ml"):
        await labelled(Scan(None, scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)), Painted("nothing"), models)
    made, why = await labelled(Scan(None, scan(grid(UPRIGHT, (2, 2, 2), BOX), BOX)), Painted(), models)
    assert made.models[-1].name == "brain-t1" and "plausible" in why
