"""Pictures for people: slices with outlines in radiological convention (the patient's right on the left of the picture)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from io import BytesIO

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import Image, ImageDraw, ImageFont

from arcuate.imaging.derived import RESEARCH_USE
from arcuate.imaging.structures import Part
from arcuate.kernel.errors import NotFound

Bytes8 = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Floats = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
Affine = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
Counts = np.ndarray[tuple[int, ...], np.dtype[np.int64]]

_MANY = 4_000_000  # voxels; a window of more is as good from an eighth of them


class Plane(StrEnum):
    """Planes of the body, nearest to the voxel axes."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


# Axis cut through (of Right, Anterior, Superior), and the letters left, right, top, bottom of the picture.
_AXIS = {Plane.SAGITTAL: 0, Plane.CORONAL: 1, Plane.AXIAL: 2}
_LETTERS = {Plane.SAGITTAL: "APSI", Plane.CORONAL: "RLSI", Plane.AXIAL: "RLAP"}


@dataclass(frozen=True)
class Upright:
    """A scan turned without resampling so that its axes run to Right, Anterior and Superior as nearly as they can.

    Attributes:
        data: The scan's own values; a slice is windowed when it is cut.
        labels: FreeSurfer numbers (0 to 255) on the same voxels.
        spacing: mm along each axis.
        window: Centre and width in the scan's own units.
        doubt: Entropy of the labels (`uncertainty.py`) on the same voxels; None where no network stated it.
    """

    data: Floats
    labels: Labels
    spacing: tuple[float, float, float]
    window: tuple[float, float]
    doubt: Bytes8 | None = None

    @cached_property
    def areas(self) -> tuple[Counts, Counts, Counts]:
        """Voxels of each label (0 to 255; nothing is counted for 0) in each slice: an array (slices, 256) for each axis."""
        right, anterior, superior = (np.zeros((n, 256), np.int64) for n in self.labels.shape)
        for k, sheet in enumerate(self.labels):  # sheet by sheet: a whole head at once would not stay in the cache
            rows, columns = np.nonzero(sheet)
            found = sheet[rows, columns].astype(np.int64)
            right[k] = np.bincount(found, minlength=256)
            anterior += np.bincount(found + 256 * rows, minlength=anterior.size).reshape(-1, 256)
            superior += np.bincount(found + 256 * columns, minlength=superior.size).reshape(-1, 256)
        return right, anterior, superior


@dataclass(frozen=True)
class Cut:
    """One slice as it is shown.

    Attributes:
        grey, labels: (rows, columns) of the picture, before pixels are made square.
        pixel_mm: Height and width of one pixel.
        number, count: Which slice of how many, from 1, counted to Right, Anterior, Superior.
        doubt: Like `labels`: 255 is two bits of entropy.
    """

    plane: Plane
    grey: Bytes8
    labels: Labels
    pixel_mm: tuple[float, float]
    number: int
    count: int
    window: tuple[float, float]
    doubt: Bytes8 | None = None

    @property
    def caption(self) -> str:
        """Plane, slice and window, as readers write it."""
        centre, width = self.window
        return f"{self.plane} {self.number} of {self.count}, W {width:.0f} L {centre:.0f}"


def upright(data: Floats, labels: Labels, affine: Affine, doubt: Bytes8 | None = None) -> Upright:
    """Turn a scan and its labels upright and window it from the 1st to the 99.5th percentile of its non-zero voxels.

    Of a large scan every other voxel along each axis is asked for the window.

    Args:
        affine: Voxel to RAS, mm.
    """
    orientation = io_orientation(affine)
    turned = apply_orientation(np.asarray(data), orientation)
    spacing = np.linalg.norm((affine @ inv_ornt_aff(orientation, data.shape))[:3, :3], axis=0)
    asked = turned[::2, ::2, ::2] if turned.size > _MANY else turned
    seen = asked[asked > asked.min()]
    low, high = (float(v) for v in np.percentile(seen, [1, 99.5])) if seen.size else (0.0, 1.0)
    turned_labels: Labels = apply_orientation(labels, orientation)
    return Upright(
        turned,
        turned_labels,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        ((low + high) / 2, high - low),
        None if doubt is None else apply_orientation(doubt, orientation),
    )


def cut(scan: Upright, plane: Plane, index: int) -> Cut:
    """Cut one slice in radiological convention."""
    axis = _AXIS[plane]
    here = (slice(None),) * axis + (index,)  # a view: np.take would copy the whole scan first
    data, labels = scan.data[here], scan.labels[here]
    centre, width = scan.window
    grey = np.clip((data - (centre - width / 2)) / max(width, 1e-6) * 255, 0, 255).astype(np.uint8)
    across, up = [scan.spacing[a] for a in range(3) if a != axis]
    # Both remaining axes are shown from their far end: right (or anterior) first, anterior (or superior) on top.
    turn = (slice(None, None, -1), slice(None, None, -1))
    doubt = None if scan.doubt is None else scan.doubt[here][turn].T
    return Cut(plane, grey[turn].T, labels[turn].T, (up, across), index + 1, scan.data.shape[axis], scan.window, doubt)


def best_index(scan: Upright, plane: Plane, numbers: Iterable[int]) -> int:
    """Return the slice that shows most of these labels; the middle one where there are none."""
    axis = _AXIS[plane]
    area = scan.areas[axis][:, sorted({n for n in numbers if n})].sum(axis=1)
    return int(area.argmax()) if area.any() else scan.labels.shape[axis] // 2


def edges(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[tuple[int, int, int, int]]:
    """Return the border of a mask as straight runs along pixel edges: (x0, y0, x1, y1) in pixels."""
    padded = np.pad(mask, 1)
    runs: list[tuple[int, int, int, int]] = []
    across = padded[1:, :] != padded[:-1, :]  # edges between rows
    for y, x0, x1 in _runs(across):
        runs.append((x0 - 1, y, x1 - 1, y))
    down = padded[:, 1:] != padded[:, :-1]  # edges between columns
    for x, y0, y1 in _runs(down.T):
        runs.append((x, y0 - 1, x, y1 - 1))
    return runs


def svg_path(mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    """Return the border of a mask as an SVG path in pixel coordinates."""
    return "".join(f"M{x0} {y0}H{x1}" if y0 == y1 else f"M{x0} {y0}V{y1}" for x0, y0, x1, y1 in edges(mask))


class Layer(StrEnum):
    """What is laid over a slice."""

    OUTLINE = "outline"
    FILL = "fill"
    UNCERTAINTY = "uncertainty"
    OFF = "off"


# From dark over orange to pale yellow: brighter is always more, also in grey. Nothing is laid over certain voxels.
_DOUBT = np.array([(0, 0, 0), (120, 28, 109), (237, 105, 37), (252, 255, 164)], np.float32)


def draw(
    slice_: Cut, parts: Sequence[Part], pixels_per_mm: float = 2.0, outline: bool = True, layer: Layer = Layer.OUTLINE
) -> Image.Image:
    """Draw a slice with square pixels, outlines or another layer, and side letters.

    Raises:
        NotFound: The map of doubt is asked for and was not kept.
    """
    rows, columns = slice_.grey.shape
    scale_y, scale_x = (pixels_per_mm * mm for mm in slice_.pixel_mm)
    size = (max(1, round(columns * scale_x)), max(1, round(rows * scale_y)))
    made = Image.fromarray(slice_.grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    if layer is Layer.UNCERTAINTY:
        made = _with_doubt(made, slice_)
    if layer is Layer.FILL:
        made = _filled(made, slice_, parts)
    pen = ImageDraw.Draw(made)
    if outline and layer is not Layer.OFF:
        for part in parts:
            for x0, y0, x1, y1 in edges(np.isin(slice_.labels, part.labels)):
                pen.line((x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y), fill=part.colour, width=2)
    _letters(pen, size, _LETTERS[slice_.plane])
    return made


def _with_doubt(made: Image.Image, slice_: Cut) -> Image.Image:
    """Lay the entropy over a slice, the more opaque the higher it is."""
    if slice_.doubt is None:
        raise NotFound("There is no map of doubt for this measurement", todo="It was measured before maps were kept.")
    share = slice_.doubt.astype(np.float32) / 255 * (len(_DOUBT) - 1)
    low = np.minimum(share.astype(np.intp), len(_DOUBT) - 2)
    rest = (share - low)[..., None]
    colour = (_DOUBT[low] * (1 - rest) + _DOUBT[low + 1] * rest).astype(np.uint8)
    cover = np.minimum(slice_.doubt.astype(np.int32) * 3, 220).astype(np.uint8)
    over = Image.fromarray(colour).resize(made.size, Image.Resampling.BILINEAR)
    return Image.composite(over, made, Image.fromarray(cover).resize(made.size, Image.Resampling.BILINEAR))


def _filled(made: Image.Image, slice_: Cut, parts: Sequence[Part]) -> Image.Image:
    for part in parts:
        mask = (np.isin(slice_.labels, part.labels) * 110).astype(np.uint8)
        cover = Image.fromarray(mask).resize(made.size, Image.Resampling.NEAREST)
        made = Image.composite(Image.new("RGB", made.size, part.colour), made, cover)
    return made


def png(made: Image.Image) -> bytes:
    """Return a picture as PNG bytes."""
    buffer = BytesIO()
    made.save(buffer, "PNG")
    return buffer.getvalue()


def qc_picture(scan: Upright, parts: Sequence[Part], lines: Sequence[str]) -> bytes:
    """Draw the picture by which a person judges the labels: three planes, outlines, side letters, "research use".

    Args:
        lines: Text below, without patient data.
    """
    brain = [number for part in parts for number in part.labels]
    cuts = [cut(scan, plane, best_index(scan, plane, brain)) for plane in (Plane.AXIAL, Plane.CORONAL, Plane.SAGITTAL)]
    return png(captioned([draw(c, parts) for c in cuts], [" | ".join(c.caption for c in cuts), *lines]))


def captioned(drawn: Sequence[Image.Image], lines: Sequence[str]) -> Image.Image:
    """Return pictures side by side with text below, the last line of which is always "research use".

    Args:
        lines: Without patient data.
    """
    font, step = ImageFont.load_default(15), 22
    width, height = sum(d.width for d in drawn) + 8 * (len(drawn) - 1), max(d.height for d in drawn)
    text = [*lines, f"{RESEARCH_USE}. Not reviewed. Not for diagnosis."]
    width = max(width, *(16 + round(font.getlength(line)) for line in text))
    made = Image.new("RGB", (width, height + step * len(text) + 12), "black")
    x = 0
    for picture in drawn:
        made.paste(picture, (x, (height - picture.height) // 2))
        x += picture.width + 8
    pen = ImageDraw.Draw(made)
    for k, line in enumerate(text):
        pen.text((8, height + 6 + k * step), line, fill=(230, 230, 230), font=font)
    return made


def _letters(pen: ImageDraw.ImageDraw, size: tuple[int, int], letters: str) -> None:
    font = ImageFont.load_default(16)
    width, height = size
    places = [(6, height / 2, "lm"), (width - 6, height / 2, "rm"), (width / 2, 6, "mt"), (width / 2, height - 6, "mb")]
    for letter, (x, y, anchor) in zip(letters, places, strict=True):
        pen.text((x, y), letter, fill=(255, 255, 255), font=font, anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))


def _runs(lines: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Iterable[tuple[int, int, int]]:
    """Yield (line, first, behind the last) of every run of true values."""
    steps = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    for (line, begin), (_, end) in zip(starts, ends, strict=True):
        yield int(line), int(begin), int(end)
