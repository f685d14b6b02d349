"""Pictures: radiological convention, whatever the voxel order; outlines lie where the labels are."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from PIL import Image

from arcuate.imaging import gallery, picture, structures
from arcuate.imaging.picture import Plane
from arcuate.kernel.errors import NotFound

SHAPE = (40, 50, 60)
LEFT, RIGHT = 17, 53


def scan(codes: str = "RAS") -> picture.Upright:
    """A scan with the left hippocampus on the patient's left, front and bottom; stored in this voxel order."""
    data = np.zeros(SHAPE, np.float32)
    data[5:35, 5:45, 5:55] = 100
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:12, 35:40, 10:15] = LEFT  # RAS: small x is left
    labels[28:31, 35:40, 10:15] = RIGHT
    affine = np.diag([1.0, 2.0, 1.5, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    stored = affine @ inv_ornt_aff(turn, SHAPE)
    return picture.upright(apply_orientation(data, turn), apply_orientation(labels, turn), stored)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "ASL", "SRP"])
def test_f052_the_patients_right_is_on_the_left_of_the_picture(codes: str) -> None:
    found = scan(codes)
    assert found.spacing == (1.0, 2.0, 1.5)
    coronal = picture.cut(found, Plane.CORONAL, picture.best_index(found, Plane.CORONAL, [LEFT]))
    rows, columns = np.nonzero(coronal.labels == LEFT)
    assert columns.mean() > coronal.labels.shape[1] / 2  # patient's left, right of the picture
    assert rows.mean() > coronal.labels.shape[0] / 2  # inferior, bottom
    axial = picture.cut(found, Plane.AXIAL, 12)
    rows, columns = np.nonzero(axial.labels == RIGHT)
    assert columns.mean() < axial.labels.shape[1] / 2
    assert rows.mean() < axial.labels.shape[0] / 2  # anterior, top
    sagittal = picture.cut(found, Plane.SAGITTAL, 10)
    assert np.nonzero(sagittal.labels == LEFT)[1].mean() < sagittal.labels.shape[1] / 2  # anterior, left


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)))
def test_outlines_enclose_exactly_the_mask(mask: np.ndarray) -> None:
    """Crossing the outline's vertical edges from the left counts inside and outside (even-odd rule)."""
    filled = np.zeros(mask.shape, int)
    for x0, y0, x1, y1 in picture.edges(mask):
        if x0 == x1:
            filled[y0:y1, x0:] += 1
    np.testing.assert_array_equal(filled % 2 == 1, mask)


def test_the_picture_has_square_pixels_and_says_research_use() -> None:
    found = scan()
    made = picture.draw(
        picture.cut(found, Plane.CORONAL, 37), [structures.part("hippocampus", structures.Laterality.LEFT)], 2.0
    )
    assert made.size == (80, 180)
    qc = Image.open(
        BytesIO(picture.qc_picture(found, gallery.shown_parts(gallery.make(found, ["hippocampus"])[0]), ["series 5"]))
    )
    assert qc.format == "PNG"
    assert qc.width > 80 + 80 + 100


def test_the_outline_can_be_left_off() -> None:
    found = scan()
    slice_ = picture.cut(found, Plane.CORONAL, 37)
    parts = [p for p in structures.parts() if p.structure == "hippocampus"]
    with_it, without = (np.asarray(picture.draw(slice_, parts, outline=o)) for o in (True, False))
    assert (with_it != without).any()
    assert all((without[y, x] == without[y, x, 0]).all() for y, x in [(30, 20), (50, 50)])


def test_the_gallery_comes_back_as_it_was_packed() -> None:
    exhibits = gallery.make(scan(), ["hippocampus", "lateral-ventricle"])
    back = gallery.unpack(gallery.pack(exhibits))
    assert [e.structure for e in back] == ["hippocampus", "lateral-ventricle"]
    np.testing.assert_array_equal(back[0].cut.labels, exhibits[0].cut.labels)
    assert back[0].cut.caption == exhibits[0].cut.caption
    assert gallery.find(back, None).structure == "hippocampus"
    with pytest.raises(NotFound):
        gallery.find(back, "amygdala")
    paths = gallery.outlines(back[0])["paths"]
    assert [p["side"] for p in paths] == ["left", "right"]
    assert all(p["d"].startswith("M") for p in paths)
