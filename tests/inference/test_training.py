"""Training on a painted label map: what it must keep, whatever it learns. Needs the extra torch."""

import tomllib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra: pip install .[torch]")

from arcuate.imaging.slices import made_fine  # noqa: E402
from arcuate.inference import store  # noqa: E402
from arcuate.inference.engine_onnx import OnnxEngine  # noqa: E402
from arcuate.inference.training import checkpoint, entry, export, fine_heads, labels, maps, phases, unlabelled  # noqa: E402
from arcuate.inference.training import train as training  # noqa: E402
from arcuate.inference.training.generator import Grid, Range, Renderer, slices  # noqa: E402
from arcuate.inference.training.loss import chosen_voxels, combined  # noqa: E402
from arcuate.inference.training.network import Grown, Wide, new_core  # noqa: E402
from arcuate.kernel.errors import BadInput  # noqa: E402

GRID = Grid((40, 48, 40), 4.0)
STILL = Range(stripped=0, rotation=0, scale=0, shift=0, elastic=0, bias=0, thick=0, blur=0, cut=0, gamma=0)


@pytest.fixture(scope="module")
def labelmaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads of boxes: a left and a right white matter, a hippocampus on the left only, CSF and bone round them."""
    folder = tmp_path_factory.mktemp("labelmaps")
    for number in range(3):
        head = np.zeros((151, 180, 160), np.uint8)
        head[5:146, 5:175, 5:155] = 215
        head[10:141, 10:170, 10:150] = 24
        head[15:75, 20:160, 20:140] = 2
        head[75:135, 20:160, 20:140] = 41
        head[30:50, 60:100, 40 : 60 + number] = 17
        nib.save(nib.Nifti1Image(head, np.eye(4)), folder / f"map_{number}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def prepared(labelmaps: Path, tmp_path_factory: pytest.TempPathFactory) -> list[maps.PreparedMap]:
    return maps.prepare(labelmaps, tmp_path_factory.mktemp("cache"), labels.load())


def test_every_class_has_a_partner_in_the_mirror() -> None:
    scheme = labels.load()
    assert len(scheme.classes) == 33 and scheme.classes[0] == 0
    assert (scheme.swapped[scheme.swapped] == np.arange(33)).all()
    swaps = {scheme.classes[k]: scheme.classes[int(scheme.swapped[k])] for k in range(33)}
    assert swaps[17] == 53 and swaps[2] == 41 and swaps[16] == 16 and swaps[0] == 0


def test_training_makes_thick_slices_fine_as_a_measurement_does() -> None:
    seen = np.random.default_rng(3).uniform(200, 800, (5, 7, 12)).astype(np.float32)
    low, high = float(seen.min()), float(seen.max())
    measured, _ = made_fine(seen, np.diag([1, 1, 5.0, 1]))
    into, back = slices(60, 12)
    trained = torch.tensordot(torch.from_numpy(seen), back, ([2], [1])).clamp(low, high)
    np.testing.assert_allclose(trained, measured, rtol=1e-4, atol=0.1)
    fine = torch.arange(60.0).square()
    np.testing.assert_allclose(into @ fine, fine.reshape(12, 5).mean(1), rtol=1e-4)


def test_slices_that_cut_voxels_see_what_lies_in_them() -> None:
    into, back = slices(7, 3)
    np.testing.assert_allclose(into[0], np.array([3, 3, 1, 0, 0, 0, 0]) / 7, atol=1e-6)
    np.testing.assert_allclose(back.sum(1), np.ones(7), atol=1e-6)


@pytest.mark.parametrize(("flags", "known"), [("fpu avx512f avx512_bf16 sse", True), ("fpu avx512f", False)])
def test_a_processor_that_multiplies_bfloat16_is_told_from_others(tmp_path: Path, flags: str, known: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n", encoding="utf-8")
    assert training.multiplies_bfloat16(tmp_path / "cpuinfo") is known
    assert not training.multiplies_bfloat16(tmp_path / "nowhere")


def test_a_sample_keeps_left_on_the_left_also_in_the_mirror(prepared: list[maps.PreparedMap]) -> None:
    renderer, scheme = Renderer(labels.load(), GRID), labels.load()
    left, right = scheme.classes.index(2), scheme.classes.index(41)
    seen = set()
    for seed in range(8):
        image, target = renderer.sample(prepared[0], STILL, torch.Generator().manual_seed(seed))
        assert image.shape == (1, 1, *GRID.shape) and torch.isfinite(image).all()
        x = torch.arange(GRID.shape[0], dtype=torch.float32)[:, None, None].expand(GRID.shape)
        assert x[target == left].mean() < x[target == right].mean()
        hippocampus = {label for label in (17, 53) if (target == scheme.classes.index(label)).any()}
        seen |= hippocampus
        assert len(hippocampus) == 1
    assert seen == {17, 53}


def test_image_and_labels_of_a_sample_lie_on_each_other(prepared: list[maps.PreparedMap]) -> None:
    def unexplained(image: "torch.Tensor", target: "torch.Tensor") -> float:
        inner = (slice(3, -3),) * 3
        values, names = image[0, 0][inner].reshape(-1), target[inner].reshape(-1)
        return sum(float(((values[names == k] - values[names == k].mean()) ** 2).sum()) for k in names.unique())

    for voxel, shape in ((4.0, (40, 48, 40)), (2.0, (80, 96, 80))):
        image, target = Renderer(labels.load(), Grid(shape, voxel)).sample(
            prepared[0], STILL, torch.Generator().manual_seed(2)
        )
        here = unexplained(image, target)
        for axis in range(3):
            for step in (-1, 1):
                assert here < unexplained(image, target.roll(step, axis)), (voxel, axis, step)


def test_a_gradient_that_is_no_number_changes_no_weight() -> None:
    net = new_core(5)
    average, optimiser = training.Average(net), torch.optim.AdamW(net.parameters(), lr=0.1)
    before = [p.detach().clone() for p in net.parameters()]
    for broken in (True, False):
        net(torch.rand(1, 1, 16, 16, 16)).square().mean().backward()
        if broken:
            next(net.parameters()).grad.view(-1)[0] = float("inf")
        training.step(net, optimiser, average)
        optimiser.zero_grad()
        alike = [torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
        assert all(alike) if broken else not any(alike)


def test_gradients_are_numbers_on_a_grid_of_few_voxels() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        net = new_core(5).to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            net(torch.rand(1, 1, 16, 16, 16)).float().square().mean().backward()
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_the_gradient_by_hand_is_the_gradient() -> None:
    logits = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    target, importance = torch.randint(0, 5, (40,)), torch.rand(40, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda x: combined(x, target, importance), (logits,))


def test_thinned_voxels_stand_for_all(prepared: list[maps.PreparedMap]) -> None:
    _, target = Renderer(labels.load(), Grid((80, 96, 80), 2.0)).sample(
        prepared[0], STILL, torch.Generator().manual_seed(1)
    )
    index, importance = chosen_voxels(target)
    assert len(index) < 0.4 * target.numel()
    for k in target.unique():
        weight = float(importance[target.reshape(-1)[index] == k].sum())
        assert weight == pytest.approx(float((target == k).sum()), rel=0.05)


def test_a_grown_network_starts_where_its_core_ended() -> None:
    core = new_core(5).eval()
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(core(torch.nn.functional.avg_pool3d(image, 2)), scale_factor=2.0)
        assert torch.allclose(Grown(core).eval()(image), expected, atol=1e-5)


def test_a_widened_network_answers_as_the_narrow_one_and_its_copies_part_in_training() -> None:
    random = torch.Generator().manual_seed(1)
    narrow = Grown(new_core(5))
    for value in narrow.parameters():
        torch.nn.init.normal_(value, std=0.1, generator=random)
    wide = Wide(new_core(5)).widened(narrow, random)
    image = torch.rand(1, 1, 32, 32, 32, generator=random)
    with torch.no_grad():
        assert torch.allclose(wide.eval()(image), narrow.eval()(image), atol=1e-4)

    wide.train()(image).square().mean().backward()
    for layer in (wide.outer[0], wide.last[0], wide.further[1]):
        gradient = layer.weight.grad
        assert gradient is not None and not torch.allclose(gradient[:8], gradient[8:])


def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    core = phases.Phase("core", "core", Grid((16, 16, 16), 4.0), Range(), 1e-3, 1.0)
    monkeypatch.setitem(phases.PLANS, "brain-t1", (core,))
    told = phases.SHIPPED["brain-t1"]
    monkeypatch.setitem(phases.SHIPPED, "brain-t1", phases.ShippedModel(told.task, told.population, (16, 16, 16), 4.0))
    monkeypatch.setattr(training, "HELD_OUT", 1)
    monkeypatch.setattr(export, "HELD_OUT", 1)


def test_training_ships_a_model_and_goes_on_elsewhere_from_what_lies_with_it(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_plan(monkeypatch)
    said: list[str] = []
    folder = entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "cache", 0.01, said.append)
    state = store.models_in(tmp_path / "models")["brain-t1"]
    assert state.ready and not store.hash_fault(folder, state.description)
    engine = OnnxEngine(folder, state.description, 1)
    found = engine.infer({"image": np.zeros((1, 1, 16, 16, 16), np.float32)}, ["probabilities"])["probabilities"]
    assert found.shape == (1, 33, 16, 16, 16) and found.dtype == np.uint8
    first = checkpoint.progress_of(folder / entry.KEPT)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6

    entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "another-cache", 0.01, said.append)
    second = checkpoint.progress_of(folder / entry.KEPT)
    assert second.steps > first.steps and any(f"going on from step {first.steps}" in line for line in said)


def test_a_first_training_goes_from_coarse_to_fine_to_wide(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_plan(monkeypatch)
    core, fine = phases.PLANS["brain-t1"][0], Grid((32, 32, 32), 2.0)
    grown = phases.Phase("grown", "grown", fine, Range(), 1e-3, 0.01)
    monkeypatch.setitem(
        phases.PLANS, "brain-t1", (replace(core, minutes=0.01), grown, replace(grown, name="wide", network="wide"))
    )
    told = phases.ShippedModel("task", "population", (32, 32, 32), 2.0)
    monkeypatch.setitem(phases.SHIPPED, "brain-t1", told)

    folder = entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "cache", None, print)

    described = tomllib.loads((folder / "model.toml").read_text())
    assert described["torch"]["network"] == "wide" and described["version"].startswith("2.")
    assert checkpoint.progress_of(folder / entry.KEPT).phase == "wide"


def test_a_training_that_finds_nothing_better_keeps_the_weights_and_where_it_stands(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_plan(monkeypatch)
    said: list[str] = []
    folder = entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "cache", 0.01, said.append)
    weights, stood = (folder / "weights.safetensors").read_bytes(), checkpoint.progress_of(folder / entry.KEPT).steps
    judge = training.judge
    monkeypatch.setattr(training, "judge", lambda *given: replace(judge(*given), dice=-1.0))

    entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "another-cache", 0.01, said.append)

    assert (folder / "weights.safetensors").read_bytes() == weights
    assert checkpoint.progress_of(folder / entry.KEPT).steps > stood
    assert any("nothing better" in line for line in said)


def judged_at(dice: float, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = training.judge
    monkeypatch.setattr(training, "judge", lambda *given: replace(judge(*given), dice=dice))
    monkeypatch.setattr(export, "judge", lambda *given: replace(judge(*given), dice=dice))


def test_settling_ships_what_came_of_it_and_leaves_the_training_where_it_stood(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_plan(monkeypatch)
    folder = entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "cache", 0.01, print)
    state = (folder / entry.KEPT).read_bytes()
    plain = tomllib.loads((folder / "model.toml").read_text())

    with monkeypatch.context() as better:
        judged_at(0.99, better)
        entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "b", 0.01, print, settles=True)
    settled = tomllib.loads((folder / "model.toml").read_text())
    assert settled["weights"] != plain["weights"] and settled["held_out_dice"] == 0.99
    assert settled["version"].endswith("s") and "settling" in settled["trained"]
    assert (folder / entry.KEPT).read_bytes() == state

    with monkeypatch.context() as worse:
        judged_at(0.98, worse)
        entry.train_model("brain-t1", tmp_path / "models", labelmaps, tmp_path / "c", 0.01, print)
    assert tomllib.loads((folder / "model.toml").read_text()) == settled
    assert checkpoint.progress_of(folder / entry.KEPT).steps > int(plain["version"].split(".")[1])


def test_a_settling_that_was_cut_off_goes_on_with_the_rate_it_had(
    labelmaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_plan(monkeypatch)
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    place = training.Place(labelmaps, tmp_path / "labelmaps", tmp_path / "training")
    training.train("brain-t1", place, 0.01, print)

    def cut(line: str) -> None:
        if "loss" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train("brain-t1", place, 0.05, cut, settles=True)
    state = place.settling(phases.PLANS["brain-t1"][-1])
    stood = checkpoint.progress_of(state)
    assert 0 < stood.settles_from < stood.seconds < stood.settles_until

    seen: list[checkpoint.Progress] = []
    rate_at = training.rate_at
    monkeypatch.setattr(training, "rate_at", lambda phase, at: (seen.append(at), rate_at(phase, at))[1])
    training.train("brain-t1", place, 0.05, print, settles=True)
    assert seen[0].steps == stood.steps and {at.settles_until for at in seen} == {stood.settles_until}
    assert not state.exists()


def test_the_rate_falls_to_nothing_while_a_training_settles() -> None:
    phase = phases.GROWN
    going = checkpoint.Progress("grown", steps=4000, seconds=100.0)
    settling = [replace(going, seconds=s, settles_from=100.0, settles_until=300.0) for s in (100.0, 200.0, 300.0)]
    shares = [training.rate_at(phase, one) / training.rate_at(phase, going) for one in settling]
    assert shares == pytest.approx([1.0, 0.5, training.LEAST_RATE])


def test_a_training_without_maps_or_of_an_unknown_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="label maps"):
        entry.train_model("brain-t1", tmp_path, tmp_path, tmp_path, 1, print)
    with pytest.raises(BadInput, match="no training"):
        entry.train_model("heart", tmp_path, tmp_path, tmp_path, 1, print)


def test_grey_matter_without_a_label_lies_in_white_matter_and_changes_the_picture_alone(tmp_path: Path) -> None:
    head = np.zeros((96, 96, 60), np.uint8)
    head[4:92, 4:92, 4:56] = 24
    head[8:48, 8:88, 8:52], head[48:88, 8:88, 8:52] = 2, 41
    head[8:12, 8:88, 8:52], head[84:88, 8:88, 8:52] = 3, 42  # cortex
    head[16:24, 40:60, 20:40], head[72:80, 40:60, 20:40] = 12, 51  # putamen, four millimetres beside it
    nib.save(nib.Nifti1Image(head, np.eye(4)), tmp_path / "map.nii.gz")
    held = maps.prepare(tmp_path, tmp_path, labels.load())[0]
    hidden = held.unlabelled.numpy()
    assert set(np.unique(head[hidden > 0])) == {2, 41}
    between = hidden[13:15, 45:55, 25:35]
    assert (between > 0).all() and between.max() <= unlabelled.PATCHES  # the first place of the table: claustrum
    assert np.array_equal(hidden > 0, (hidden > 0)[::-1])
    assert not hidden[40:56].any() and not hidden[:, 70:].any()

    renderer = Renderer(labels.load(), Grid((48, 48, 32), 2.0))
    plain = replace(held, unlabelled=torch.zeros_like(held.unlabelled))
    darker = 0
    for seed in range(6):
        (seen, target), (other, same) = (
            renderer.sample(one, STILL, torch.Generator().manual_seed(seed)) for one in (held, plain)
        )
        assert torch.equal(target, same)
        darker += bool((seen != other).any())
    assert 2 <= darker <= 6


def test_a_head_at_one_millimetre_shows_its_labels_and_is_the_same_each_time(prepared: list[maps.PreparedMap]) -> None:
    renderer = Renderer(labels.load(), Grid((1, 1, 1), 1.0))
    found = list(fine_heads.heads(prepared[:1], renderer, 4, seed=3))
    for head in found:
        white, hippocampus = (np.median(head.image[head.truth == label]) for label in (2, 17))
        assert white > hippocampus > 0
        assert head.truth.shape == head.image.shape
    outside = [float((head.image[head.truth == 0] > 0.1 * head.image.max()).mean()) for head in found]
    assert max(outside[:2]) == 0 < min(outside[2:])  # two without skull, two with
    again = next(iter(fine_heads.heads(prepared[:1], renderer, 1, seed=3)))
    assert np.array_equal(again.image, found[0].image) and np.array_equal(again.affine, found[0].affine)
