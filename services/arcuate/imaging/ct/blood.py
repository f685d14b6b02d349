"""Blood: what the trees take for it, part by part, each voxel counted by how much of it is expected to be blood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from arcuate.imaging.ct.atlas import Chances
from arcuate.imaging.ct.candidates import candidates
from arcuate.imaging.ct.cavity import Cavity
from arcuate.imaging.ct.tissue import Tissue
from arcuate.imaging.ct.trees import Trees
from arcuate.imaging.ct.work import Mask, Work, rules


@dataclass(frozen=True)
class Blood:
    """mask (x, y, z); parts: volume of each connected part, mL, largest first; dense_ml: left out as lime or metal."""

    mask: Mask
    parts: tuple[float, ...]
    dense_ml: float

    @property
    def ml(self) -> float:
        """All of it."""
        return float(sum(self.parts))


def find(work: Work, cavity: Cavity, chances: Chances, seen: Tissue, trees: Trees) -> Blood:
    """Find blood. A part counts where it is sure somewhere and large enough; it reaches as far as blood is likely."""
    told = rules()["blood"]
    looked = candidates(work, cavity, chances, seen)
    share = np.zeros(cavity.mask.shape, np.float32)
    share[looked.mask] = trees.chances(looked)
    numbered, count = ndimage.label(share > told["edge"])
    ml = np.bincount(numbered.ravel(), weights=share.ravel(), minlength=count + 1) / 1000
    sure = np.bincount(numbered[share > told["sure"]], minlength=count + 1) / 1000
    kept = (ml >= told["least_ml"]) & (sure >= told["least_sure_ml"])
    kept[0] = False
    parts = tuple(sorted((round(float(v), 3) for v in ml[kept]), reverse=True))
    dense = cavity.mask & (work.hu > told["most"]) & (cavity.depth > told["rim"] + 1)
    return Blood(kept[numbered] & (share > 0.5), parts, float(dense.sum()) / 1000)
