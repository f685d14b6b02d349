"""Heads drawn from the coarse shape model: a label map on a 1 mm grid whose volumes are known because it was made so.

What is real in such a head: the average shapes and the main ways in which twenty heads differ, at 3 to 4 mm. What is invented:
the folds of the cortex (band-limited noise), and everything finer. It is no picture of anybody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files

import numpy as np
import numpy.typing as npt

CUT_MM = 8.0
"""Distances are bent to CUT_MM * tanh(d / CUT_MM): only the neighbourhood of a surface carries shape."""

MEAN_STEP_MM, MODE_STEP_MM = 0.125, 0.15
"""What one step of the 8-bit numbers means; finer than the surfaces are known, coarse enough to pack well."""

LOW = np.array([-88.0, -118.0, -128.0])
HIGH = np.array([88.0, 118.0, 100.0])
"""The template's field of view in mm, RAS, about the centre of the brain's structures."""

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Span = tuple[slice, slice, slice]

SOFT, SKIN, BONE, MARROW, EYE, CAVITY, CSF = 207, 211, 215, 216, 206, 209, 24
_SIDES = ("left", "right")
_CORTEX, _WHITE = (3, 42), (2, 41)
_CEREBELLUM, _CEREBELLAR_WHITE = (8, 47), (7, 46)
_BRAINSTEM = 16

CORTEX_MM = 2.5
HULL_OUT_MM = 1.0
"""An average of many folded surfaces lies a little inside the crowns of each."""
SULCUS_DEPTH = 6.4
"""As a bent distance: sulci reach about 9 mm below the hull, and never far into the average white matter."""
SULCUS_HALF_MM = 0.6
FOLD_GRID_MM = 9.0

STRUCTURES: Mapping[str, tuple[int, ...]] = {
    "cortex-left": (3,), "cortex-right": (42,),
    "white-matter-left": (2,), "white-matter-right": (41,),
    "lateral-ventricle-left": (4, 5), "lateral-ventricle-right": (43, 44),
    "third-ventricle": (14,), "fourth-ventricle": (15,),
    "hippocampus-left": (17,), "hippocampus-right": (53,),
    "amygdala-left": (18,), "amygdala-right": (54,),
    "thalamus-left": (10,), "thalamus-right": (49,),
    "caudate-left": (11,), "caudate-right": (50,),
    "putamen-left": (12,), "putamen-right": (51,),
    "pallidum-left": (13,), "pallidum-right": (52,),
    "accumbens-left": (26,), "accumbens-right": (58,),
    "ventral-dc-left": (28,), "ventral-dc-right": (60,),
    "brainstem": (16,),
    "cerebellum-left": (7, 8), "cerebellum-right": (46, 47),
    "intracranial": (
        2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28, 41, 42, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60,
    ),
}  # fmt: skip
"""Structure and side -> labels (FreeSurfer's numbers), as in the measurements' names."""


@dataclass(frozen=True)
class ShapeModel:
    """The fitted model: per solid a mean field and modes (8 bit), on a grid of its own."""

    arrays: Mapping[str, npt.NDArray[np.generic]]

    @property
    def small(self) -> tuple[int, ...]:
        """Return the labels of the small structures."""
        return tuple(int(k.removesuffix(".mean")) for k in self.arrays if k.endswith(".mean") and k[0].isdigit())


@dataclass(frozen=True)
class Head:
    """One invented head: labels on a 1 mm RAS grid (x, y, z) and the volumes that this makes, in mL."""

    labels: Labels
    volumes: Mapping[str, float]
    seed: int


def load_shape_model() -> ShapeModel:
    """Read the model that ships with the room (no pickle)."""
    with as_file(files("arcuate.hospital.heads") / "shape.npz") as path, np.load(path, allow_pickle=False) as archive:
        return ShapeModel({name: archive[name] for name in archive.files})


def sample_head(seed: int, *, ventricles: float = 0.0, model: ShapeModel | None = None) -> Head:
    """Draw a head.

    Args:
        seed: Same seed, same head.
        ventricles: How far to push towards wide (positive) or narrow ventricles, in standard deviations; the rest stays random.
    """
    shapes = model or load_shape_model()
    rng = np.random.default_rng([seed, 77])
    modes = np.clip(rng.normal(0, 0.5, len(shapes.arrays["modes_sd"])), -1.0, 1.0)
    modes += ventricles * np.asarray(shapes.arrays["ventricle_direction"], dtype=float)
    scale = rng.multivariate_normal(np.ones(3), np.asarray(shapes.arrays["scale_cov"], dtype=float) * 0.5)
    labels = _compose(_Fields(shapes, np.clip(modes, -2.2, 2.2), np.clip(scale, 0.9, 1.1)), rng)
    return Head(labels, volumes_of(labels), seed)


def volumes_of(labels: Labels) -> dict[str, float]:
    """Return mL by structure of a 1 mm label map."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return {name: float(counts[list(numbers)].sum()) / 1000 for name, numbers in STRUCTURES.items()}


class _Fields:
    """Evaluates a solid's signed distance on the 1 mm grid, separably (three small matrix products)."""

    def __init__(self, shapes: ShapeModel, modes: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]) -> None:
        self.small = shapes.small
        self._arrays = shapes.arrays
        self._modes = modes
        self._scale = scale
        self.shape = tuple(int(n) for n in HIGH - LOW)

    def of(self, name: str) -> tuple[Span, Floats]:
        """Return the box of the grid that the solid's model covers, and the distances there (mm, negative inside)."""
        mean, modes = self._arrays[f"{name}.mean"], self._arrays[f"{name}.modes"]
        coarse = mean.astype(np.float32) * MEAN_STEP_MM
        weights = (self._modes[: len(modes)] * MODE_STEP_MM).astype(np.float32)
        coarse += np.tensordot(weights, modes.astype(np.float32), axes=1)
        spacing = float(np.asarray(self._arrays[f"{name}.spacing"], dtype=float)[0])
        low = np.asarray(self._arrays[f"{name}.low"], dtype=float)
        spans, matrices = zip(*(self._axis(i, low[i], spacing, coarse.shape[i]) for i in range(3)), strict=True)
        coarse -= np.asarray(self._arrays[f"{name}.offset"], dtype=np.float32)[0]
        return (spans[0], spans[1], spans[2]), _product(coarse, matrices)

    def full(self, name: str) -> Floats:
        """Return the distances on the whole grid; outside the model's box a solid is far away."""
        span, field = self.of(name)
        whole = np.full(self.shape, CUT_MM, dtype=np.float32)
        whole[span] = field
        return whole

    def _axis(self, axis: int, low: float, spacing: float, count: int) -> tuple[slice, Floats]:
        """Return the grid's span along an axis and the Catmull-Rom matrix from the coarse points to it."""
        targets = ((LOW[axis] + 0.5 + np.arange(self.shape[axis])) / self._scale[axis] - low) / spacing
        inside = np.flatnonzero((targets >= 0) & (targets <= count - 1))
        return slice(int(inside[0]), int(inside[-1]) + 1), _catmull_rom(targets[inside], count)


def _catmull_rom(at: npt.NDArray[np.float64], count: int) -> Floats:
    """Return the matrix that interpolates `count` points at these places (in points), clamped at the ends."""
    base = np.minimum(np.floor(at).astype(int), count - 2)
    t = at - base
    taps = (
        -0.5 * t + t**2 - 0.5 * t**3, 1 - 2.5 * t**2 + 1.5 * t**3, 0.5 * t + 2 * t**2 - 1.5 * t**3, -0.5 * t**2 + 0.5 * t**3,
    )  # fmt: skip
    matrix = np.zeros((len(at), count), dtype=np.float32)
    for offset, weight in zip((-1, 0, 1, 2), taps, strict=True):
        np.add.at(matrix, (np.arange(len(at)), np.clip(base + offset, 0, count - 1)), weight.astype(np.float32))
    return matrix


def _product(coarse: Floats, matrices: Sequence[Floats]) -> Floats:
    """Interpolate along the three axes, one matrix an axis."""
    fine = np.tensordot(matrices[0], coarse, axes=(1, 0))
    fine = np.matmul(matrices[1], fine)
    flat = fine.reshape(-1, fine.shape[2]) @ np.ascontiguousarray(matrices[2].T)
    return flat.reshape(*fine.shape[:2], -1)


def _compose(fields: _Fields, rng: np.random.Generator) -> Labels:
    """Lay the solids over one another from the outside in."""
    labels = np.zeros(fields.shape, dtype=np.uint8)
    head = fields.full("head")
    labels[head < 0] = SOFT
    labels[(head < 0) & (head > -2.5)] = SKIN
    for name, label in (("air", CAVITY), ("eyes", EYE)):
        span, field = fields.of(name)
        part = labels[span]
        part[(field < 0) & (part > 0)] = label
    skull, inside = fields.full("skull"), fields.full("intracranial")
    # Below the skull base the solid is the face: bone only near the brain, for the rest is not known well enough.
    labels[(skull < 0) & (inside < 6.5) & (labels > 0)] = BONE
    labels[(skull < -2.2) & (inside > 2.0) & (labels == BONE)] = MARROW
    labels[(inside < 0) & (labels > 0)] = CSF
    _lay_cerebrum(labels, fields, rng)
    _lay_hindbrain(labels, fields)
    _lay_small(labels, fields)
    return labels


def _lay_cerebrum(labels: Labels, fields: _Fields, rng: np.random.Generator) -> None:
    """Lay both hemispheres: a cortex of even thickness on the hull and along invented sulci, white matter below it."""
    hulls = [fields.of(f"hemisphere_{side}") for side in _SIDES]
    wholes = [_placed(fields.shape, *hull) for hull in hulls]
    for side, (span, field) in enumerate(hulls):
        white = _placed(fields.shape, *fields.of(f"white_{_SIDES[side]}"))[span]
        part = labels[span]
        mine = (field < HULL_OUT_MM) & (field <= wholes[1 - side][span]) & (part == CSF)
        room = np.clip(
            white - field, 0, CORTEX_MM
        )  # no cortex where the white solid reaches the hull: the corpus callosum
        sheet = _sulci(field.shape, rng)
        foldable = (field > -SULCUS_DEPTH) & (white > -2.0) & (room > 0.6 * CORTEX_MM)
        ribbon = np.minimum(HULL_OUT_MM - field, np.where(foldable, sheet, CUT_MM))
        part[mine] = _WHITE[side]
        part[mine & (ribbon < room)] = _CORTEX[side]
        part[mine & foldable & (sheet < SULCUS_HALF_MM)] = CSF


def _sulci(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return the distance in mm (roughly) to the nearest sheet of an invented, band-limited folding pattern."""
    coarse = rng.normal(size=tuple(int(n / FOLD_GRID_MM) + 4 for n in shape)).astype(np.float32)
    matrices = [_catmull_rom(np.arange(0.5, n) / FOLD_GRID_MM + 1, c) for n, c in zip(shape, coarse.shape, strict=True)]
    field = _product(coarse, matrices)
    slope = np.sqrt(3) * float(np.abs(np.diff(field, axis=1)).mean())
    return np.asarray(np.abs(field) / slope, dtype=np.float32)


def _lay_hindbrain(labels: Labels, fields: _Fields) -> None:
    for side in (0, 1):
        for name, label in (
            (f"cerebellum_{_SIDES[side]}", _CEREBELLUM),
            (f"cerebellar_white_{_SIDES[side]}", _CEREBELLAR_WHITE),
        ):
            span, field = fields.of(name)
            part = labels[span]
            part[(field < 0) & ((part == CSF) | (part == _CEREBELLUM[side]))] = label[side]
    span, field = fields.of("brainstem")
    part = labels[span]
    part[(field < 0) & (part > 0)] = _BRAINSTEM


def _lay_small(labels: Labels, fields: _Fields) -> None:
    """Give every voxel to the small structure in which it lies deepest."""
    depth = np.zeros(labels.shape, dtype=np.float32)
    for label in fields.small:
        span, field = fields.of(str(label))
        deepest, part = depth[span], labels[span]
        mine = (field < deepest) & (part > 0) & (part < 200)
        deepest[mine] = field[mine]
        part[mine] = label


def _placed(shape: tuple[int, ...], span: Span, field: Floats) -> Floats:
    whole = np.full(shape, CUT_MM, dtype=np.float32)
    whole[span] = field
    return whole
