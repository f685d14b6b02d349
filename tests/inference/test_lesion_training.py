"""Synthetic FLAIRs with lesions on a painted label map, and what a training of wm-lesions leaves. Needs the extra torch."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra: pip install .[torch]")

from arcuate.inference.training import labels, lesion_maps, maps  # noqa: E402
from arcuate.inference.training.lesion_curve import Row, read_curve, write_curve  # noqa: E402
from arcuate.inference.training.lesion_generator import LESION, LesionRenderer  # noqa: E402
from arcuate.inference.training.lesion_maps import Places  # noqa: E402
from arcuate.inference.training.lesion_network import CLASSES, new_lesions  # noqa: E402
from arcuate.inference.training.lesion_training import loss_of, train_lesions  # noqa: E402
from arcuate.kernel.errors import BadInput  # noqa: E402


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A head of boxes: two white matters in cortex, two ventricles."""
    head = np.zeros((120, 140, 120), np.uint8)
    head[10:110, 10:130, 10:110] = 3
    head[14:60, 14:126, 14:106], head[60:106, 14:126, 14:106] = 2, 41
    head[48:58, 50:90, 50:70], head[62:72, 50:90, 50:70] = 4, 43
    folder = tmp_path_factory.mktemp("maps")
    nib.save(nib.Nifti1Image(head, np.eye(4)), folder / "map.nii.gz")
    scheme = labels.load()
    return lesion_maps.places(maps.prepare(folder, folder, scheme)[0], folder, scheme)


def test_lesions_are_brighter_than_white_matter_and_the_t1_is_there_or_empty(place: Places) -> None:
    renderer, brighter, with_t1, seen = LesionRenderer(labels.load()), 0, 0, 0
    for seed in range(8):
        image, target = renderer.window(place, torch.Generator().manual_seed(seed))
        assert image.shape == (1, 2, 48, 48, 48) and torch.isfinite(image).all()
        assert int(target.min()) >= 0 and int(target.max()) < len(CLASSES)
        with_t1 += int(bool((image[0, 1] > 0).any()))
        lesion, white = target == LESION, target == CLASSES.index("white")
        if lesion.sum() > 50 and white.sum() > 50:
            seen += 1
            brighter += int(image[0, 0][lesion].mean() > image[0, 0][white].mean())
    assert seen >= 3 and brighter == seen
    assert 0 < with_t1 < 8


def test_a_step_has_a_finite_loss_and_gradient(place: Places) -> None:
    image, target = LesionRenderer(labels.load()).window(place, torch.Generator().manual_seed(1))
    net = new_lesions()
    value = loss_of(net(image), target)
    value.backward()
    assert torch.isfinite(value) and all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_a_curve_reads_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [Row(10, 0.5, 2.0, 0.1), Row(20, 1.0, 1.5, 0.3)]
    write_curve(tmp_path, rows)
    assert read_curve(tmp_path / "curve.csv") == rows and read_curve(tmp_path / "none.csv") == []
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_a_training_without_label_maps_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="label maps"):
        train_lesions(tmp_path, tmp_path, tmp_path, 1, print)
