"""Volumes for the viewer, and the doubt of a network: on the scan's own grid, equal for equal input, without the source's words."""

import gzip
import json

import nibabel
import numpy as np
import pytest

from arcuate.imaging import uncertainty, viewing
from arcuate.kernel.errors import NotFound

SHAPE = (20, 30, 24)
AFFINE = np.array([[-1.0, 0, 0, 9], [0, 1.2, 0, -15], [0, 0, 1.5, -12], [0, 0, 0, 1]])


def files(entropy: bool = True) -> dict[str, bytes]:
    data = np.random.default_rng(1).normal(500, 100, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 10:14, 5:9], labels[12:16, 10:14, 5:9] = 53, 17
    doubt = np.full(SHAPE, 40, np.uint8) if entropy else None
    return viewing.made(data, labels, AFFINE, (500, 400), ["hippocampus"], doubt)


def test_head_labels_and_doubt_lie_on_the_grid_of_the_scan() -> None:
    made = files()
    for name in (viewing.HEAD, viewing.LABELS, viewing.UNCERTAINTY):
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(made[name]))
        assert image.shape == SHAPE
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
        assert bytes(image.header["descrip"]).strip(b"\0") == bytes(image.header["intent_name"]).strip(b"\0") == b""
    legend = json.loads(made[viewing.LEGEND])
    assert legend["uncertainty"] is True
    assert legend["structures"]["hippocampus"]["centre_mm"] == pytest.approx([-0.5, -1.2, -2.2], abs=0.1)


def test_the_same_input_gives_the_same_bytes_and_they_come_back_out_of_the_gallery() -> None:
    empty = b"PK\x05\x06" + bytes(18)
    one, other = (viewing.packed(empty, files()) for _ in range(2))
    assert one == other
    assert viewing.unpacked(one, viewing.LABELS) == files()[viewing.LABELS]
    with pytest.raises(NotFound):
        viewing.unpacked(viewing.packed(empty, files(entropy=False)), viewing.UNCERTAINTY)


def test_two_labels_equally_likely_are_one_bit_and_certainty_is_none() -> None:
    shares = np.array([[255, 510, 128], [255, 0, 127], [0, 0, 128], [0, 0, 127]], np.uint16)
    bits = uncertainty.entropy(lambda k: shares[k], 4, 510)
    assert [round(float(b) * 2 / 255, 1) for b in bits] == [1.0, 0.0, 2.0]


def test_of_a_structure_in_two_classes_the_sure_part_is_smaller_than_the_possible_one() -> None:
    shares = np.array([[510, 260, 40, 60], [0, 240, 0, 0], [0, 10, 470, 450]], np.uint16)
    found = uncertainty.ranges(lambda k: shares[k], 510, 0.008, [(("cerebellum", ""), [0, 1]), (("absent", ""), [])])
    assert found == {("cerebellum", ""): (0.016, 0.024)}
