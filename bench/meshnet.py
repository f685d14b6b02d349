"""A peer's network as its own program uses it: MeshNet of brainchop, on the CPU, for one scan.

    .venv/bin/python -m bench.meshnet WEIGHTS SCAN.nii.gz LABELS.nii.gz [--within]

The network is nine dilated convolutions and one that names the class (A. Fedorov et al., arXiv 1612.00940). The way to it is that
of the brainchop program: 256 voxels of 1 mm a side in the order left, inferior, anterior; brightness to 0..255 with the upper 2 % cut off;
then 2 to 98 % of all voxels to 0..1; the largest connected part is kept. The labels are brought back onto the scan's grid.
With --within only what the labels on the scan's grid depend on is computed: the same labels there, about a third cheaper, and no
measure of what the peer costs. Weights are the peer's: a safetensors file (whatever its name ends with), never a pickle.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy import ndimage

SIDE = 256  # voxels of 1 mm
DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)
THREADS = 2
CLASSES = 18
_SLAB = 32  # slices that a convolution makes at once: keeps it at one copy of the 30 channels (2 GB) and a little
_LOW, _HIGH = 0.02, 0.98
_CUT = 0.98  # share of the voxels that are not zero whose brightness is kept apart
_BINS = 1000

Array = NDArray[Any]
State = Mapping[str, torch.Tensor]
Box = tuple[tuple[int, int], ...]  # first and after the last voxel along each axis


def conformed(data: Array, affine: Array, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a scan on the peer's grid, as `niimath -conform` makes it, and that grid's affine.

    Args:
        data: Brightness, (i, j, k).
        affine: 4 x 4, voxel to mm (RAS+).
        side: Voxels of 1 mm along each axis of the grid.
    """
    centre = affine[:3, :3] @ (np.array(data.shape) / 2) + affine[:3, 3]
    grid = np.eye(4)
    grid[:3, :3] = [[-1, 0, 0], [0, 0, 1], [0, -1, 0]]
    grid[:3, 3] = centre - grid[:3, :3] @ np.full(3, side / 2)
    way = np.linalg.inv(affine) @ grid
    scaled = _scaled(data.astype(np.float32))
    moved = ndimage.affine_transform(
        scaled, way[:3, :3], way[:3, 3], output_shape=(side,) * 3, order=1, cval=float(scaled.min())
    )
    return np.rint(moved).astype(np.uint8), grid


def _scaled(data: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightness from its least value to that of the brightest 2 % (of the voxels that are not zero) as 0..255."""
    low = float(data.min())
    if low < 0 and np.mean(data < 0) < 0.02:
        low = 0.0
    width = (float(data.max()) - low) / _BINS
    bins = np.clip((data - low) / width, 0, _BINS - 1).astype(np.int64)
    below = np.bincount(bins.ravel(), minlength=_BINS).cumsum()
    wanted = data.size - int((1 - _CUT) * np.count_nonzero(data))
    high = low + max(0, int(np.searchsorted(below, wanted)) - 1) * width
    scaled: NDArray[np.float32] = np.clip((data - low) * (255 / (high - low)), 0, 255)
    return scaled


def normalised(volume: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the volume with its 2 and 98 % quantiles at 0 and 1, cut off there."""
    low, high = np.quantile(volume, (_LOW, _HIGH))
    made: NDArray[np.float32] = np.clip((volume - low) / (high - low + 1e-3), 0, 1).astype(np.float32)
    return made


def labelled(volume: torch.Tensor, state: State, box: Box | None = None) -> NDArray[np.uint8]:
    """Return the most likely class of each voxel.

    Args:
        volume: (x, y, z), 0 to 1, in the order left, inferior, anterior.
        state: Weights and biases `model.0` to `model.18`, every second number a convolution.
        box: Only the classes in this part of the volume, 0 elsewhere: layer after layer only as far round it as the next ones look.
    """
    wanted = box or tuple((0, length) for length in volume.shape)
    reach = sum(DILATIONS)
    held = _grown(wanted, reach, volume.shape)
    x = volume[tuple(slice(*ends) for ends in held)][..., None].clone()
    for place, dilation in enumerate(DILATIONS):
        x = _convolved(x, state[f"model.{2 * place}.weight"], state[f"model.{2 * place}.bias"], dilation)
        reach -= dilation
        inner = _grown(wanted, reach, volume.shape)
        x = x[tuple(slice(low - before, high - before) for (low, high), (before, _) in zip(inner, held, strict=True))]
        held = inner
    last = f"model.{2 * len(DILATIONS)}"
    weight, bias = state[f"{last}.weight"].flatten(1), state[f"{last}.bias"]
    classes = [torch.nn.functional.linear(slab, weight, bias).argmax(-1).to(torch.uint8) for slab in x.split(_SLAB)]
    found = np.zeros(volume.shape, np.uint8)
    found[tuple(slice(*ends) for ends in wanted)] = torch.cat(classes).numpy()
    return found


def _grown(box: Box, by: int, shape: Sequence[int]) -> Box:
    return tuple((max(0, low - by), min(length, high + by)) for (low, high), length in zip(box, shape, strict=True))


def _convolved(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, dilation: int) -> torch.Tensor:
    """One convolution and its ELU over (x, y, z, channels), slab after slab, in place of its input where that has as many channels.

    The same values as in one piece: each slab is given the slices on both sides that it looks at, zeros beyond the volume. The
    channels come last because dilated convolutions cost a third of the time so.
    """
    length, *plane, channels = x.shape
    weight = weight.to(memory_format=torch.channels_last_3d)
    out = x if weight.shape[0] == channels else x.new_empty(length, *plane, weight.shape[0])
    before = x.new_zeros(dilation, *plane, channels)  # slices before the slab, as they were
    for start in range(0, length, _SLAB):
        end = min(start + _SLAB, length)
        after = x[end : end + dilation]
        piece = torch.cat((before, x[start:end], after, x.new_zeros(dilation - len(after), *plane, channels)))
        before = piece[end - start : end - start + dilation].clone()
        seen = piece.permute(3, 0, 1, 2)[None]
        made = torch.nn.functional.conv3d(seen, weight, bias, padding=(0, dilation, dilation), dilation=dilation)
        out[start:end] = torch.nn.functional.elu_(made)[0].permute(1, 2, 3, 0)
    return out


def largest_part(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the labels of the largest part that hangs together by faces, edges or corners."""
    parts, count = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    if count < 2:
        return labels
    sizes = np.bincount(parts.ravel())
    kept: NDArray[np.uint8] = np.where(parts == 1 + sizes[1:].argmax(), labels, 0).astype(np.uint8)
    return kept


def segmented(data: Array, affine: Array, state: State, within: bool = False) -> NDArray[np.uint8]:
    """Return the labels of a scan on its own grid; `within`: without computing those elsewhere."""
    volume, grid = conformed(data, affine)
    way = np.linalg.inv(grid) @ affine
    box = None
    if within:
        corners = np.array(list(product(*((0, n - 1) for n in data.shape)))) @ way[:3, :3].T + way[:3, 3]
        ends = np.clip([np.floor(corners.min(0)), np.ceil(corners.max(0)) + 1], 0, SIDE).astype(int)
        box = tuple((int(low), int(high)) for low, high in ends.T)
    found = largest_part(labelled(torch.from_numpy(normalised(volume)), state, box))
    back: NDArray[np.uint8] = ndimage.affine_transform(
        found, way[:3, :3], way[:3, 3], output_shape=data.shape, order=0, cval=0
    )
    return back


def main() -> int:
    """Label one scan."""
    weights, scan, out = map(Path, sys.argv[1:4])
    torch.set_num_threads(THREADS)
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise SystemExit(f"{weights.name} is no safetensors file, and pickles are not opened: {error}") from None
    last = state.get(f"model.{2 * len(DILATIONS)}.weight")
    if last is None or len(last) != CLASSES:
        raise SystemExit(f"{weights.name} holds other weights than those of MeshNet's {CLASSES} classes (meshnet.csv)")
    image = cast("SpatialImage", nibabel.load(scan))
    affine = np.asarray(image.affine, np.float64)
    with torch.inference_mode():
        labels = segmented(np.asarray(image.dataobj, np.float32), affine, state, "--within" in sys.argv[4:])
    nibabel.save(nibabel.Nifti1Image(labels, affine), out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
