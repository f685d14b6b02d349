"""Where two label protocols agree: what label maps would say of heads that were labelled by another protocol.

    .venv/bin/python -m bench.protocols --labelmaps ../shared/data/imaging/labelmaps --manual ../shared/data/imaging/t1_manual

For each structure a line is drawn through the label maps (log of its volume against the logs of white matter and of the lateral
ventricles, which stand for the size of the head and for age) and read at the white matter and ventricles of each manually labelled head.
What comes out beside the manual volume is a difference of protocols and of people together. Nothing is trained or chosen with it.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from arcuate.imaging.evaluation import counted, read_scheme

SIZE, AGE = "cerebral_wm", "lateral_ventricles"
Volumes = dict[str, float]


def volumes(path: Path, scheme: Mapping[int, tuple[str, str]]) -> Volumes:
    """Return mL of each structure of a label map, both sides together."""
    image = cast("SpatialImage", nibabel.load(path))
    voxel = abs(float(np.linalg.det(np.asarray(image.affine)[:3, :3]))) / 1000
    found: Volumes = {}
    for label, n in enumerate(np.bincount(np.asarray(image.dataobj).astype(np.int64).ravel())):
        if n and label in scheme:
            found[scheme[label][0]] = found.get(scheme[label][0], 0.0) + float(n) * voxel
    return found


def beside(maps: list[Volumes], manual: list[Volumes], structure: str) -> tuple[list[float], float]:
    """Return what maps would say more than manual labels (ratio - 1, one a head), and by how much maps differ (deviation of the log)."""
    known, asked = (np.array([[1, np.log(one[SIZE]), np.log(one[AGE])] for one in group]) for group in (maps, manual))
    true: NDArray[Any] = np.log([one[structure] for one in maps])
    line = np.linalg.lstsq(known, true, rcond=None)[0]
    spread = float(np.sqrt(((true - known @ line) ** 2).sum() / (len(maps) - len(line))))
    said = asked @ line - np.log([one[structure] for one in manual])
    return [float(np.expm1(one)) for one in said], spread


def report(labelmaps: Path, manual: Path) -> str:
    """Return the table, in Markdown."""
    schemes = manual.parent / "schemes"
    maps = [volumes(path, read_scheme(schemes / "freesurfer.csv")) for path in sorted(labelmaps.glob("*.nii.gz"))]
    table = read_scheme(schemes / "neuromorphometrics.csv")
    heads = [volumes(path, table) for path in sorted(manual.glob("*_dseg.nii.gz"))]
    lines = [
        f"| structure | said by {len(maps)} maps, beside the manual volume, % | each head | one map differs by % |",
        "|---|---:|---|---:|",
    ]
    named = set.intersection(*(set(one) for one in maps + heads))
    for structure in sorted(counted(schemes) & named - {SIZE, AGE}):
        each, spread = beside(maps, heads, structure)
        mean = float(np.expm1(np.mean(np.log1p(each))))
        lines.append(
            f"| {structure} | {100 * mean:+.0f} | {', '.join(f'{100 * one:+.0f}' for one in each)} | {100 * spread:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labelmaps", type=Path, required=True)
    parser.add_argument("--manual", type=Path, required=True)
    told = parser.parse_args()
    print(report(told.labelmaps, told.manual))
