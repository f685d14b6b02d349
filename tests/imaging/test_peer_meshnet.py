"""The peer that our volumes are compared with is run as its own program runs it, so that the comparison is fair."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from arcuate.imaging import evaluation

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2]))  # bench/ lies beside tests/ and is not installed
meshnet = pytest.importorskip("bench.meshnet")


def test_slabs_give_the_same_labels_as_the_network_in_one_piece() -> None:
    random = torch.Generator().manual_seed(1)
    channels = [1, *[2] * len(meshnet.DILATIONS), 3]
    state = {
        f"model.{2 * place}.{part}": torch.randn(shape, generator=random)
        for place, (before, after) in enumerate(pairwise(channels))
        for part, shape in (("weight", (after, before, *[3 if place < 9 else 1] * 3)), ("bias", (after,)))
    }
    volume = torch.rand(64, 5, 6, generator=random)  # two slabs, and further than the network looks
    x = volume[None, None]
    for place, dilation in enumerate(meshnet.DILATIONS):
        weight, bias = state[f"model.{2 * place}.weight"], state[f"model.{2 * place}.bias"]
        x = torch.nn.functional.elu(torch.nn.functional.conv3d(x, weight, bias, padding=dilation, dilation=dilation))
    whole = torch.nn.functional.conv3d(x, state["model.18.weight"], state["model.18.bias"])[0].argmax(0).numpy()
    found = meshnet.labelled(volume, state)
    assert found.shape == volume.shape
    assert (found == whole).mean() > 0.99  # sums in another order may turn a voxel that lies between two classes
    part = meshnet.labelled(volume, state, ((1, 6), (0, 4), (3, 6)))
    inside = np.s_[1:6, 0:4, 3:6]
    assert (part[inside] == whole[inside]).mean() > 0.95
    assert part.sum() == part[inside].sum()


def test_the_peers_grid_keeps_places_in_the_head() -> None:
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = [80, -100, -60]
    data = np.zeros((30, 40, 20), np.float32)
    data[8:14, 20:26, 5:8] = 100  # a bright block; its middle in mm:
    middle = affine[:3, :3] @ [10.5, 22.5, 6.0] + affine[:3, 3]
    volume, grid = meshnet.conformed(data, affine, 64)
    assert (volume.dtype, volume.shape, int(volume.max())) == (np.uint8, (64, 64, 64), 255)
    found = np.argwhere(volume > 127).mean(0)
    assert np.allclose(grid[:3, :3] @ found + grid[:3, 3], middle, atol=0.51)


def test_every_class_of_the_peer_has_a_name_and_none_tells_a_side() -> None:
    path = Path(meshnet.__file__).with_name("meshnet.csv")
    table = evaluation.read_scheme(path)
    assert sorted(table) == list(range(1, 18))
    assert {side for _, side in table.values()} == {""}
    assert len({structure for structure, _ in table.values()}) == 16  # lateral ventricle and its horn are one
