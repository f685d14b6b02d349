"""Which voxels are looked at for blood and what is known of them; trees grown on heads of ellipsoids tell blood in another."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tests.imaging.ct_ellipsoid import head, learnt

from arcuate.imaging import sampling
from arcuate.imaging.ct import blood, cavity, tissue, tree_training, trees
from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.candidates import FEATURES, Candidates, candidates
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.work import Mask, Work, prepared
from arcuate.imaging.domain import NotMeasurable
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.sampling import Floats, Frame
from arcuate.inference.training import ct_phantom
from arcuate.inference.training.ct_bleeds import Kind
from arcuate.inference.training.ct_phantom import Recipe

SIDE, INNER = 72, 31.0
BRAIN, CLOT, BONE = 32.0, 70.0, 1000.0
MIDDLE = (SIDE - 1) / 2


def away() -> Floats:
    """Distance from the middle, voxels."""
    grid = np.indices((SIDE,) * 3, np.float32) - np.float32(MIDDLE)
    return np.asarray(np.linalg.norm(grid, axis=0), np.float32)


def looked_at(bled: Mask) -> Candidates:
    """What is looked at in a round skull where this mask bled."""
    inside = away() < INNER
    density = np.where(inside, np.where(bled, CLOT, BRAIN), BONE).astype(np.float32)
    noise = np.random.default_rng(4).normal(0, 3, density.shape).astype(np.float32)
    work = Work(ndimage.gaussian_filter(density, 0.55) + noise, Frame(np.eye(3), np.eye(4)), np.zeros(3), 1.0)
    depth = np.asarray(ndimage.distance_transform_edt(inside), np.float32)
    nowhere = np.zeros(density.shape, np.float32)
    room = Cavity(inside, depth, (MIDDLE, 0.0, 0.0), False)
    return candidates(work, room, Chances(nowhere, nowhere, nowhere, (MIDDLE, MIDDLE, 0.0)), tissue.tissue(work, room))


def lens(thick: float, side: int = 1) -> Mask:
    """A layer along the bone of one side that thins out to its edge."""
    grid = np.indices((SIDE,) * 3, np.float32) - np.float32(MIDDLE)
    off = np.arccos(np.clip(side * grid[0] / np.maximum(away(), 1e-3), -1, 1))
    mask: Mask = (away() < INNER) & (INNER - away() + 8 * off**2 < thick)
    return mask


def test_a_layer_along_bone_is_looked_at_up_to_the_bone_and_brain_far_from_anything_dense_is_not() -> None:
    layer = lens(6.0)
    found = looked_at(layer)
    assert (found.mask & layer).sum() > 0.99 * layer.sum()
    deep = away() < INNER - 12
    assert (found.mask & deep).sum() < 0.05 * deep.sum()


def test_a_head_and_its_mirror_image_are_described_alike() -> None:
    right, left = looked_at(lens(8.0)), looked_at(lens(8.0, -1))
    column = FEATURES.index("mirror_3")
    for found, layer in ((right, lens(8.0)), (left, lens(8.0, -1))):
        here = found.features[layer[found.mask], column]
        assert np.median(here) > 15, "denser than the other side"
    assert np.isfinite(right.features).all() and right.features.shape[1] == len(FEATURES)
    assert right.mask.sum() == pytest.approx(float(left.mask.sum()), rel=0.05)


def test_no_number_is_the_same_for_a_whole_dense_part_so_that_no_scan_is_known_by_it() -> None:
    layer = lens(8.0)
    found = looked_at(layer)
    alike = np.ptp(found.features[layer[found.mask]], axis=0) == 0
    of_the_atlas = {"ventricle", "fluid", "vein"}  # which knows nothing of these heads
    assert {name for name, same in zip(FEATURES, alike, strict=True) if same} == of_the_atlas


def test_trees_grown_on_some_heads_tell_blood_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_training, "FIRST", (5, 60))
    monkeypatch.setattr(tree_training, "SECOND", (4, 50))
    known, made = learnt().atlas("0"), head()

    def scan(name: str, recipe: Recipe, seed: int) -> tree_training.Scan:
        phantom = ct_phantom.make(made, recipe, seed)
        return tree_training.Scan(name, Volume(phantom.hu.astype(np.float32), phantom.affine), phantom.blood)

    for number in range(2):
        recipe = Recipe((Kind.EPIDURAL,), (20.0,), slice_mm=5.0, mimics=False)
        tree_training.describe(scan(f"head {number}", recipe, number), known, tmp_path / f"{number}.npz")
    contents = tree_training.grow(sorted(tmp_path.glob("*.npz")), lambda _: None)
    again = tree_training.grow(sorted(tmp_path.glob("*.npz")), lambda _: None)
    assert contents == again, "the same scans give the same trees"

    grown = trees.read(contents)
    other = scan("another", Recipe((Kind.EPIDURAL,), (30.0,), slice_mm=5.0, mimics=False), 9)
    work = prepared(other.volume)
    room = cavity.find(work)
    found = blood.find(work, room, known.on(room), tissue.tissue(work, room), grown)
    assert found.ml == pytest.approx(30.0, rel=0.2)
    true = sampling.sampled(other.blood.astype(np.float32), Frame(work.frame.turn, np.eye(4)), work.origin, work.hu.shape, 1.0)  # fmt: skip
    assert true[found.mask].mean() > 0.85, "where it is said to lie"


def test_trees_that_are_missing_or_were_changed_are_not_used(tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable, match="not installed"):
        trees.load(tmp_path)
    shipped = Path("models/head-ct")
    folder = tmp_path / "head-ct"
    folder.mkdir()
    for path in shipped.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    trees.load(tmp_path)
    changed = bytearray((folder / trees.FILES[1]).read_bytes())
    changed[-1] ^= 1
    (folder / trees.FILES[1]).write_bytes(changed)
    with pytest.raises(NotMeasurable, match="sha256"):
        trees.load(tmp_path)


def test_trees_of_another_version_are_not_used() -> None:
    first, second = ((Path("models/head-ct") / file).read_bytes() for file in trees.FILES)
    with pytest.raises(NotMeasurable, match="other columns"):
        trees.read({trees.FILES[0]: second, trees.FILES[1]: first})
