"""NIfTI: label maps on their own grid. Reading happens in `parsing_process.py`, as NIfTI files come from outside too."""

from pathlib import Path

import nibabel
import numpy as np

Labels = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
Affine = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: the affine leads to the scanner's RAS space


def is_nifti(path: Path) -> bool:
    """Return whether the name is a NIfTI file's."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def write_labels(path: Path, labels: Labels, affine: Affine) -> None:
    """Write a label map (FreeSurfer numbers, uint8) with sform and qform of the same affine (voxel to RAS, mm)."""
    image = nibabel.Nifti1Image(labels.astype(np.uint8, copy=False), affine)
    image.set_sform(affine, code=SCANNER)
    image.set_qform(affine, code=SCANNER)
    image.header.set_xyzt_units("mm")
    image.header["intent_code"] = 1002  # NIFTI_INTENT_LABEL
    image.to_filename(path)
