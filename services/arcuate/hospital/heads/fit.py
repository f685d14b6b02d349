"""Fit the coarse shape model from label maps: run once by a person, never in the product.

    python -m arcuate.hospital.heads.fit LABELMAPS OUT.npz

The maps are aligned by an affine through the centroids of their structures; each solid becomes a signed distance (mm, negative
inside, softly cut at 8 mm) on a 3 or 4 mm grid; the mean and a few common modes of variation are kept as 8-bit numbers. The
maps themselves cannot be had back from it.
"""

import sys
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from arcuate.hospital.heads.shape import CUT_MM, HIGH, LOW, MEAN_STEP_MM, MODE_STEP_MM

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

_CENTROIDS = (
    2,
    3,
    4,
    7,
    8,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    26,
    28,
    41,
    42,
    43,
    46,
    47,
    49,
    50,
    51,
    52,
    53,
    54,
    58,
    60,
)
_MARGIN = 12
_LEFT_OUT = "training_seg_07"
"""One hippocampus of this head measures 1.4 mL and the other 4.9: as one of twenty it would make every fourth head lopsided."""


@dataclass(frozen=True)
class Solid:
    """One surface to model."""

    name: str
    labels: tuple[int, ...]
    spacing: float
    modes: int


def load_solids() -> tuple[Solid, ...]:
    """Read `structures.toml`; `labels` of the head is empty and means every label."""
    table: dict[str, Any] = tomllib.loads(
        (files("arcuate.hospital.heads") / "structures.toml").read_text(encoding="utf-8")
    )
    inside = tuple(table["intracranial"]["labels"])
    named = {"all": (), "intracranial": inside, "intracranial+bone": inside + tuple(table["intracranial"]["bone"])}
    solids = [
        Solid(
            name,
            named[row["labels"]] if isinstance(row["labels"], str) else tuple(row["labels"]),
            row["spacing"],
            row["modes"],
        )
        for name, row in table["solids"].items()
    ]
    small = table["small"]
    for label in small["labels"]:
        with_it = tuple(small["with"].get(str(label), ()))
        solids.append(Solid(str(label), (label, *with_it), small["spacing"], small["modes"]))
    return tuple(solids)


def fit_shape_model(labelmaps: Path, out: Path) -> None:
    """Fit the model from every `*.nii.gz` in a folder (RAS, 1 mm, FreeSurfer labels) and write it as a plain npz (no pickle)."""
    files = [file for file in sorted(labelmaps.glob("*.nii.gz")) if not file.name.startswith(_LEFT_OUT)]
    maps = [np.asarray(nib.load(file).dataobj).astype(np.uint8) for file in files]
    aligned, scales = align(maps)
    tensors: dict[str, npt.NDArray[Any]] = {"scale_mean": scales.mean(0), "scale_cov": np.cov(scales.T)}
    fields: dict[str, Floats] = {}
    for solid in load_solids():
        stack, low = _distances(aligned, solid)
        fields[solid.name] = stack
        tensors[f"{solid.name}.low"] = low
        print(solid.name, stack.shape, flush=True)  # noqa: T201 - a script that a person runs
    coefficients = _common_modes(fields)
    tensors["modes_sd"] = coefficients.std(0, ddof=1)
    for solid in load_solids():
        tensors |= _packed(solid, fields[solid.name], coefficients)
    grow = np.log(np.array([np.isin(m, (4, 5, 43, 44)).sum() for m in maps], dtype=float))
    tensors["ventricle_direction"] = _direction(coefficients, grow)
    kept = {k: np.ascontiguousarray(v, dtype=v.dtype if v.dtype == np.int8 else np.float32) for k, v in tensors.items()}
    np.savez_compressed(out, **kept)  # type: ignore[arg-type]


def align(maps: list[Labels]) -> tuple[list[Labels], npt.NDArray[np.float64]]:
    """Return the maps on the template's 1 mm grid (255 = outside that map's field of view) and their scales per axis."""
    points = np.stack([_centroids(m) for m in maps])
    centred = points - points.mean(1, keepdims=True)
    template = centred.mean(0)
    shape = tuple((HIGH - LOW).astype(int))
    aligned: list[Labels] = []
    scales: list[npt.NDArray[np.float64]] = []
    for labels, mine in zip(maps, points, strict=True):
        known = np.c_[template, np.ones(len(template))]
        affine, *_ = np.linalg.lstsq(known, mine, rcond=None)  # template mm -> voxel of this map
        matrix = affine[:3].T
        offset = affine[3] + matrix @ (LOW + 0.5)
        bottom = int(np.flatnonzero(labels.any((0, 1)))[0])
        padded = labels.copy()
        # A head that ends in the field of view shows where the scan ends, not where the person ends.
        padded[:, :, : bottom + 6] = 255
        aligned.append(ndimage.affine_transform(padded, matrix, offset, shape, order=0, mode="constant", cval=0))
        below = ndimage.affine_transform(np.ones_like(labels), matrix, offset, shape, order=0, mode="constant", cval=0)
        z = np.arange(shape[2])
        aligned[-1][(below == 0) & (z < shape[2] // 2)] = 255
        scales.append(np.sqrt((matrix**2).sum(0)))
    return aligned, np.stack(scales)


def _centroids(labels: Labels) -> npt.NDArray[np.float64]:
    return np.array(ndimage.center_of_mass(np.ones_like(labels), labels, list(_CENTROIDS)))


def _distances(aligned: list[Labels], solid: Solid) -> tuple[Floats, Floats]:
    """Return the bent signed distances, subjects x grid, and the grid's first point in mm."""
    masks = [(m > 0) & (m < 255) if not solid.labels else np.isin(m, solid.labels) for m in aligned]
    if solid.name in ("head", "skull"):
        masks = [_filled(mask) for mask in masks]
    low, high = _box(masks)
    step = 2 if solid.spacing >= 4 else 1  # large solids are known well enough at 2 mm
    stride = int(solid.spacing) // step
    span = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    stack = []
    for mask, labels in zip(masks, aligned, strict=True):
        inside, unknown = mask[span], labels[span] == 255
        inside, unknown = inside[::step, ::step, ::step], unknown[::step, ::step, ::step]
        distance = step * (
            ndimage.distance_transform_edt(~inside)
            - ndimage.distance_transform_edt(inside)
            + np.where(inside, 0.5, -0.5)
        )
        bent = CUT_MM * np.tanh(ndimage.gaussian_filter(distance, 0.7) / CUT_MM)
        bent[ndimage.binary_dilation(unknown, iterations=3) if unknown.any() else unknown] = np.nan
        stack.append(bent[::stride, ::stride, ::stride].astype(np.float32))
    found = np.stack(stack)
    mean = np.nanmean(np.where(np.isnan(found).all(0), CUT_MM, found), axis=0)
    return np.where(np.isnan(found), mean, found), (LOW + 0.5 + low).astype(np.float32)


def _filled(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Close the holes slice by slice (sinuses, mouth), so that the solid is one."""
    return np.stack([ndimage.binary_fill_holes(mask[:, :, z]) for z in range(mask.shape[2])], axis=2)


def _box(masks: list[npt.NDArray[np.bool_]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    union = np.logical_or.reduce(masks)
    corners = [np.flatnonzero(union.any(axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    low = np.array([max(0, c[0] - _MARGIN) for c in corners])
    high = np.array([min(n, c[-1] + _MARGIN) for c, n in zip(corners, union.shape, strict=True)])
    return low, high


def _common_modes(fields: dict[str, Floats]) -> npt.NDArray[np.float64]:
    """Return one coefficient vector a subject: principal components of all solids together, brain solids weighted up."""
    gram = np.zeros((0, 0))
    for name, stack in fields.items():
        flat = (stack - stack.mean(0)).reshape(len(stack), -1).astype(np.float64)
        weight = 0.3 if name in ("head", "skull", "eyes", "air") else 1.0
        part = weight * flat @ flat.T / flat.shape[1]
        gram = part if gram.size == 0 else gram + part
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(values)[::-1][: max(s.modes for s in load_solids())]
    return vectors[:, order] * np.sqrt(values[order])


def _packed(solid: Solid, stack: Floats, coefficients: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
    """Return mean and modes as int8 with their scales: field = mean + sum of coefficient x mode."""
    mean = stack.mean(0)
    flat = (stack - mean).reshape(len(stack), -1)
    chosen = coefficients[:, : solid.modes]
    modes = np.linalg.lstsq(chosen, flat, rcond=None)[0].reshape(solid.modes, *mean.shape)
    modes *= chosen.std(0, ddof=1)[:, None, None, None]  # mm per standard deviation
    packed: dict[str, npt.NDArray[Any]] = {
        f"{solid.name}.mean": np.round(mean / MEAN_STEP_MM).astype(np.int8),
        f"{solid.name}.modes": np.round(modes / MODE_STEP_MM).astype(np.int8),
        f"{solid.name}.spacing": np.array([solid.spacing], dtype=np.float32),
        f"{solid.name}.offset": np.array([_offset(mean, stack)], dtype=np.float32),
    }
    return packed


def _offset(mean: Floats, stack: Floats) -> float:
    """Return the level at which the mean field encloses the mean volume of the subjects' own solids.

    An average of distances shrinks what does not lie at the same place in everybody: thin and small solids most.
    """
    volumes = [float((_finer(field) < 0).sum()) for field in stack]
    levels = np.sort(_finer(mean).ravel())
    return float(levels[min(len(levels) - 1, round(float(np.mean(volumes))))])


def _finer(field: Floats) -> Floats:
    return np.asarray(ndimage.zoom(field, 3, order=1, mode="nearest"), dtype=np.float32)


def _direction(coefficients: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return, in standard deviations of the modes, the direction along which the target grows by one of its own."""
    standard = coefficients / coefficients.std(0, ddof=1)
    wanted = (target - target.mean()) / target.std(ddof=1)
    slope: npt.NDArray[np.float64] = standard.T @ wanted / (len(wanted) - 1)
    return slope


if __name__ == "__main__":
    fit_shape_model(Path(sys.argv[1]), Path(sys.argv[2]))
