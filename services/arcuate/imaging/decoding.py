"""Decoding pixels into a volume file; runs in the reading process only (`parsing_process.py`)."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.filereader import dcmread, read_dataset, read_file_meta_info
from pydicom.pixels import pixel_array
from pydicom.uid import UID

from arcuate.imaging.domain import RefusalCode as Code
from arcuate.imaging.headers import DEFLATED, EXPLICIT, MEBI, Bad, Json, body_of, digest_of, read_meta


def pixels(frames: Sequence[Sequence[Any]], shape: Sequence[int], out: str, limits: Json) -> Json:
    """Decode frames into a volume file.

    Args:
        frames: For each slice in order: path, digest, index of the frame in its file, slope, intercept.
        shape: Columns, rows, slices.
        out: The .npy file to write: float32 (columns, rows, slices).
    """
    # Slice after slice in the file, each as it comes from its image.
    volume = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=tuple(shape), fortran_order=True)
    blank: list[int] = []
    opened: tuple[str, Dataset | None] = ("", None)
    for k, (path, digest, index, slope, intercept) in enumerate(frames):
        if opened[0] != path:
            opened = (path, _whole(path, digest, limits))
        plane = _decode(opened[1], index)
        if plane.shape != (shape[1], shape[0]):
            raise Bad(Code.DAMAGED, f"Slice {k + 1} decodes to another size than its header states")
        if plane.min() == plane.max():
            blank.append(k)
        volume[:, :, k] = (plane if (slope, intercept) == (1, 0) else plane.astype(np.float64) * slope + intercept).T
    _check_content(volume, blank)
    return {"minimum": float(volume.min()), "maximum": float(volume.max())}


def _whole(path: str, digest: str, limits: Json) -> Dataset:
    with Path(path).open("rb") as raw:
        syntax, start, size = read_meta(path, raw, limits)
        if digest_of(raw, start) != digest:
            raise Bad(Code.DAMAGED, "The file changed after its header was read")
        if syntax != DEFLATED:
            return dcmread(path)
        body = body_of(raw, start, size, syntax, limits)
        dataset = read_dataset(body, False, True)
        dataset.file_meta = read_file_meta_info(path)
        dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
        return dataset


def _decode(dataset: Any, index: int) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(pixel_array(dataset, index=index))
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything on bytes from outside
        raise Bad(Code.DAMAGED, f"The pixel data cannot be decoded ({type(error).__name__})") from error


def _check_content(volume: np.ndarray[Any, Any], blank: list[int]) -> None:
    if float(volume.min()) == float(volume.max()):
        raise Bad(Code.EMPTY, "All voxels have the same value: there is no image", "Send the series again.")
    filled = sorted(set(range(volume.shape[2])) - set(blank))
    if inside := [k + 1 for k in blank if filled and filled[0] < k < filled[-1]]:
        raise Bad(Code.INCOMPLETE, f"Slice {inside[0]} inside the volume is blank ({len(inside)} in all)")


def nifti(path: str, out: str, limits: Json) -> Json:
    """Read a NIfTI file into a volume file: float32 (i, j, k).

    Returns:
        Its shape, its affine (voxel to RAS, mm) and the code of the transform it came from.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    if path.endswith(".gz"):
        _check_gzip(path, 8 * limits["voxels"] + 1024)
    try:
        image = nibabel.load(path)
    except ImageFileError as error:
        raise Bad(
            Code.NOT_DICOM, "The file is neither DICOM nor NIfTI", "Give a DICOM folder, a .nii or a .nii.gz."
        ) from error
    if not isinstance(image, nibabel.Nifti1Image | nibabel.Nifti2Image):
        raise Bad(Code.NOT_DICOM, "The file is no NIfTI image", "Give a DICOM folder, a .nii or a .nii.gz.")
    shape = [int(n) for n in image.shape]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) != 3 or min(shape) < 2:
        raise Bad(Code.NOT_SUITED, f"The image has {len(shape)} dimensions, not 3", "Give one volume.")
    if np.prod(shape, dtype=np.float64) > limits["voxels"]:
        raise Bad(Code.TOO_LARGE, "The image states more voxels than any series of the head")
    code = int(image.header["sform_code"]) or int(image.header["qform_code"])
    if not code:
        raise Bad(
            Code.ORIENTATION,
            "Neither sform nor qform is set: left and right are not known",
            "Convert it from DICOM again.",
        )
    data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    if not np.isfinite(data).all():
        raise Bad(Code.DAMAGED, "The image holds values that are no numbers")
    if float(data.min()) == float(data.max()):
        raise Bad(Code.EMPTY, "All voxels have the same value: there is no image")
    np.save(out, data, allow_pickle=False)
    return {"shape": shape, "affine": np.asarray(image.affine, dtype=float).tolist(), "code": code}


def _check_gzip(path: str, limit: int) -> None:
    total = 0
    with gzip.open(path, "rb") as raw:
        try:
            while block := raw.read(MEBI):
                total += len(block)
                if total > limit:
                    raise Bad(Code.HOSTILE, "The compressed file opens to more bytes than any series of the head")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Bad(Code.DAMAGED, "The compressed file is cut or damaged") from error
