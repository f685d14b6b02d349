"""Volumes for a viewer in the browser: the head in 8 bits, its labels, the map of doubt, and a legend; kept with the pictures.

They are NIfTI files without any text of the source in their headers, small enough to keep when the images have gone.
"""

import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from arcuate.imaging import structures
from arcuate.imaging.nifti import SCANNER
from arcuate.kernel.errors import NotFound

HEAD, LABELS, UNCERTAINTY, LEGEND = "head.nii.gz", "labels.nii.gz", "uncertainty.nii.gz", "legend.json"
_MANY = 14_000_000  # voxels; a larger head is shown at half its resolution
_QUICK = 1  # gzip's level: a viewer waits for the bytes, the disk does not


def made(
    data: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    affine: NDArray[np.float64],
    window: tuple[float, float],
    measured: Sequence[str],
    entropy: NDArray[np.uint8] | None = None,
) -> dict[str, bytes]:
    """Return the files of one measurement by name.

    Args:
        data, labels, entropy: (i, j, k) on one grid; `affine` leads from its voxels to RAS, mm.
        window: Centre and width in which the head is shown.
        measured: Structure codes that the legend names.
    """
    step = 2 if data.size > _MANY else 1
    thin = (slice(None, None, step),) * 3
    moved = np.asarray(affine, np.float64).copy()
    moved[:3, :3] *= step
    centre, width = window
    grey = np.clip((data[thin] - (centre - width / 2)) * (255 / max(width, 1e-6)), 0, 255).astype(np.uint8)
    shown = np.ascontiguousarray(labels[thin]).astype(np.uint8)
    legend = json.dumps({"structures": _legend(shown, moved, measured), "uncertainty": entropy is not None}).encode()
    found = {HEAD: _nifti(grey, moved), LABELS: _nifti(shown, moved), LEGEND: legend}
    return found | ({UNCERTAINTY: _nifti(entropy[thin], moved)} if entropy is not None else {})


def _nifti(data: NDArray[np.uint8], affine: NDArray[np.float64]) -> bytes:
    image = nibabel.Nifti1Image(np.asfortranarray(data), affine)
    image.set_sform(affine, code=SCANNER)
    image.set_qform(affine, code=SCANNER)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), _QUICK, mtime=0)


def _legend(labels: NDArray[np.uint8], affine: NDArray[np.float64], measured: Sequence[str]) -> dict[str, Any]:
    """Return where each structure lies (middle of its largest slice, RAS mm), its labels and colours by side."""
    told: dict[str, Any] = {}
    for code in dict.fromkeys(measured):
        parts = [p for p in structures.parts() if p.structure == code and p.labels and p.side != "bilateral"]
        numbers = sorted({n for p in parts for n in p.labels})
        places = np.argwhere(np.isin(labels, numbers)) if numbers else np.empty((0, 3))
        middle = places.mean(0) if len(places) else np.array(labels.shape) / 2
        told[code] = {
            "centre_mm": [round(float(v), 1) for v in (affine @ [*middle, 1])[:3]],
            "plane": parts[0].plane if parts else "axial",
            "parts": [{"labels": list(p.labels), "colour": list(p.colour)} for p in parts],
        }
    return told


def packed(gallery: bytes, made_files: Mapping[str, bytes]) -> bytes:
    """Return a packed gallery with these files beside its arrays; the same input gives the same bytes."""
    buffer = io.BytesIO(gallery)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, content in made_files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def unpacked(gallery: bytes, name: str) -> bytes:
    """Return one file of a packed gallery.

    Raises:
        NotFound: It was packed without.
    """
    with zipfile.ZipFile(io.BytesIO(gallery)) as archive:
        if name not in archive.namelist():
            raise NotFound(
                "This measurement was kept without it", todo="The pictures are there; measure again for volumes."
            )
        return archive.read(name)
