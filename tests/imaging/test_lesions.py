"""White-matter lesions on a painted FLAIR, with a network that only looks at brightness: space, places, counts, two dates."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import lesion_change, lesions
from arcuate.imaging.derived import Model
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.lesion_change import Kind, Reading
from arcuate.imaging.lesion_evaluation import score
from arcuate.imaging.pipelines import Scan, Volume, named

PIPELINE = named("wm-lesions")
WINDOW, STEP = (48, 48, 48), 1.5
# place -> centre (RAS mm) and radius of a painted lesion; the first lies on the LEFT
PAINTED = {
    "periventricular": ((-25, 0, 5), 5), "deep": ((32, 15, 22), 5), "juxtacortical": ((0, 63, 10), 5),
    "infratentorial": ((10, -10, -50), 5),
}  # fmt: skip
Array = NDArray[Any]


def ball(world: Array, centre: tuple[float, ...], radius: float) -> Array:
    found: Array = ((world - np.array(centre)) ** 2).sum(-1) <= radius * radius
    return found


def flair(
    painted: Mapping[str, tuple[tuple[float, ...], float]] = PAINTED,
    affine: Array | None = None,
    shape: tuple[int, int, int] = (100, 120, 56),
    noise: float = 0.0,
) -> Volume:
    """A stripped brain: white matter in a shell of cortex, two ventricles, a part below the tentorium, lesions."""
    if affine is None:
        affine = np.array(
            [[-1.5, 0, 0, 74.25], [0, 1.5, 0, -89.25], [0, 0, 3, -82.5], [0, 0, 0, 1.0]]
        )  # stored to the left
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    radius = np.sqrt(((world / np.array([64, 78, 70])) ** 2).sum(-1))
    data = np.zeros(shape, np.float32)
    data[radius <= 1], data[radius <= 0.9] = 400, 500
    data[(radius <= 0.9) & (world[..., 2] < -40)] = 300
    for side in (-12, 12):
        data[ball(world, (side, 0, 5), 9)] = 80
    for centre, r in painted.values():
        data[ball(world, centre, r)] = 950
    grain = np.random.default_rng(3).normal(0, 1, shape) * noise * (data > 0)
    return Volume((data + grain).astype(np.float32), affine)


async def by_brightness(name: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """A stand-in for both networks; the lesion network's classes by bounds of the scaled brightness."""
    image = inputs["image"]
    if name == "brain-finder":
        inside = (image[:, 0] > 0.2) * np.uint8(255)
        return {"probabilities": np.stack([255 - inside, inside], 1).astype(np.uint8)}
    assert image.shape == (1, 2, *WINDOW)
    # Nothing, ventricle, below the tentorium, cortex, white, lesion. White is next to lesion, so that blurred borders mislead nobody.
    bounds = [0.03, 0.2, 0.35, 0.45, 0.62]
    classes = np.array([0, 2, 7, 4, 5, 1])[np.digitize(image[0, 0], bounds)]
    return {"probabilities": np.stack([(classes == k) * np.uint8(255) for k in range(8)])[None].astype(np.uint8)}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name, shape, voxel, classes in (
        ("brain-finder", [1, 1, 56, 64, 72], 4.0, 2),
        ("wm-lesions", [1, 2, *WINDOW], STEP, 8),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.toml").write_text(
            f'name = "{name}"\nversion = "0"\n[[inputs]]\nname = "image"\nshape = {shape}\n'
            f'[grid]\nvoxel_mm = {voxel}\nclasses = {list(range(classes))}\n[weights]\nsha256 = "{name}"\n'
        )
    return tmp_path


async def found(volume: Volume, models: Path, t1: Volume | None = None) -> lesions.Found:
    return await lesions.find(volume, t1, by_brightness, models, PIPELINE.models)


async def test_a_scan_without_a_brain_or_with_too_few_slices_is_refused_in_words(models: Path) -> None:
    with pytest.raises(NotMeasurable) as none:
        await found(Volume(np.random.default_rng(1).random((60, 60, 60), np.float32), np.eye(4) * 3), models)
    assert none.value.refusal.code in (RefusalCode.NOT_PLAUSIBLE, RefusalCode.EMPTY)
    wide = np.diag([1.5, 1.5, 9.0, 1.0])
    with pytest.raises(NotMeasurable, match="too far") as far:
        await found(
            Volume(np.ones((100, 120, 20), np.float32) + np.eye(100, 120)[:, :, None].astype(np.float32), wide), models
        )
    assert "FLAIR" in far.value.refusal.todo


async def test_each_lesion_is_counted_measured_and_placed_on_its_own_side(models: Path) -> None:
    volume = flair(noise=8)
    made = await found(volume, models)
    assert sorted(one.place for one in made.lesions) == sorted(PAINTED)
    for one in made.lesions:
        centre, radius = PAINTED[one.place]
        assert np.linalg.norm(np.array(one.centre) - centre) < 2
        assert one.ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.5)
    assert {lesions.LABELS[place] for place in PAINTED} == set(np.unique(made.labels)) - {0}
    # The stand-in is always sure on its own grid; between its voxels the probability falls, so the doubt lies round the lesions.
    sure, possible = made.doubt.ranges["wm-lesions-load", ""]
    assert 0 < sure < made.load_ml < possible
    doubted = made.doubt.entropy > 60
    assert doubted.any() and not doubted[ndimage.distance_transform_edt(~made.mask) > 4].any()


async def test_the_same_head_stored_otherwise_gives_the_same_lesions(models: Path) -> None:
    axial, volume = flair(), flair()
    turned = Volume(
        np.ascontiguousarray(volume.data.transpose(2, 0, 1)[:, ::-1]),
        volume.affine[:, [2, 0, 1, 3]] @ np.array([[1, 0, 0, 0], [0, -1, 0, 99], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    one, other = await found(axial, models), await found(turned, models)
    assert {(x.place, x.ml) for x in one.lesions} == {(x.place, x.ml) for x in other.lesions}


async def test_values_are_load_and_number_also_where_there_is_none(models: Path) -> None:
    finding = await lesions.measure(PIPELINE, {"flair": Scan(None, flair({}))}, by_brightness, models)
    assert {m.value for m in finding.measured} == {0.0} and len(finding.measured) == 10
    assert any("looked at by a person" in line for line in finding.warnings)
    assert finding.model.name == "wm-lesions" and finding.model.others[0].name == "brain-finder"


@pytest.mark.long
async def test_two_dates_tell_new_grown_and_resolved_lesions_also_when_the_head_has_moved(models: Path) -> None:
    turn = np.radians(6)
    moved = np.eye(4)
    moved[:3, :3] = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    moved[:3, 3] = (5, -4, 3)
    earlier_lesions = dict(PAINTED) | {"gone": ((-30, -35, 20), 6)}
    later_lesions = dict(PAINTED) | {"new": ((30, -35, 25), 6), "deep": ((32, 15, 22), 9)}
    before, now = flair(earlier_lesions, noise=12), flair(later_lesions, noise=12)
    before = Volume(before.data, moved @ before.affine)
    readings = [Reading(v, (f := await found(v, models)).mask, f.model) for v in (before, now)]
    brain = await lesions.brain_mask(now, by_brightness, models, PIPELINE.models)
    change = lesion_change.compare(readings[0], readings[1], brain)
    assert [c.kind for c in change.lesions] == [
        Kind.NEW,
        Kind.ENLARGED,
        Kind.RESOLVED,
    ] and "Research use" in change.words
    for one, painted in zip(
        change.lesions, (later_lesions["new"], PAINTED["deep"], earlier_lesions["gone"]), strict=True
    ):
        assert np.linalg.norm(np.array(one.centre) - painted[0]) < 4

    same = lesion_change.compare(readings[1], readings[1], brain)
    assert not same.lesions and "within measurement error" in same.words


@pytest.mark.long
async def test_dates_by_different_models_or_of_different_heads_are_not_compared(models: Path) -> None:
    volume = flair()
    made = await found(volume, models)
    one, brain = Reading(volume, made.mask, made.model), volume.data > 0
    with pytest.raises(NotMeasurable, match="different models"):
        lesion_change.compare(one, replace(one, model=Model("wm-lesions", "1", "other")), brain)
    rough = np.random.default_rng(5).random(volume.data.shape).astype(np.float32)
    with pytest.raises(NotMeasurable, match="do not fit"):
        lesion_change.compare(replace(one, flair=Volume(rough, volume.affine)), one, brain)


def test_the_score_of_a_half_found_lesion_says_so() -> None:
    drawn = np.zeros((40, 40, 40), bool)
    drawn[5:15, 5:15, 5:15] = drawn[30:33, 30:33, 30:33] = True
    half = np.zeros_like(drawn)
    half[5:10, 5:15, 5:15] = half[20, 20, 20:24] = True
    made = score("case", "how", half, drawn, np.eye(4))
    assert made.counts == (2, 1, 1, 1)
    assert (
        made.dice == pytest.approx(2 * 500 / (504 + 1027))
        and made.dice_interval[0] <= made.dice <= made.dice_interval[1]
    )
    assert made.error == pytest.approx(100 * (504 - 1027) / 1027)
