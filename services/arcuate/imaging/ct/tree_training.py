"""Growing the trees that tell blood, from scans whose blood is known: a pool of described voxels on disk, then two looks.

The second look learns from what first looks said of heads that they had not seen; so its figures are those of new heads. The same pool
gives the same trees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from arcuate.imaging import sampling
from arcuate.imaging.ct import candidates as describing
from arcuate.imaging.ct import cavity, tissue
from arcuate.imaging.ct.atlas import Atlas
from arcuate.imaging.ct.candidates import FEATURES, Candidates, candidates
from arcuate.imaging.ct.trees import CONTEXT, FILES, context
from arcuate.imaging.ct.work import RULES, Mask, prepared
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.sampling import Floats, Frame

_GROWTH: dict[str, Any] = {
    "objective": "reg:logistic", "tree_method": "hist", "eta": 0.06, "subsample": 0.7, "colsample_bytree": 0.4,
    "min_child_weight": 300, "reg_lambda": 5, "seed": 1, "nthread": 1,
}  # fmt: skip
FIRST, SECOND = (9, 240), (8, 160)  # depth, number of trees
HALVED = 2 / 3  # of the trees of a first look that only prepares the second
# Voxels of a scan that are learnt from: with blood, without, and without but like it.
_BLOOD, _NONE, _HARD = 12_000, 9_000, 8_000
_LIKE_BLOOD = 18.0  # HU above the brain
_DOUBTED = 0.05  # chance that a first look gave a voxel without blood


@dataclass(frozen=True)
class Scan:
    """A scan in HU whose blood is known: mask (x, y, z) on a grid of 1 mm whose indices are RAS mm of the scan's affine."""

    head: str
    volume: Volume
    blood: Mask


def way_of_describing() -> str:
    """What changes when voxels are described in another way: scans described before are then of no use."""
    return hashlib.sha256(Path(describing.__file__).read_bytes() + RULES.read_bytes()).hexdigest()[:12]


def describe(scan: Scan, known: Atlas, path: Path) -> None:
    """Write the described voxels of a scan into a file of the pool.

    Raises:
        NotMeasurable: The scan cannot be read.
    """
    work = prepared(scan.volume)
    room = cavity.find(work)
    found = candidates(work, room, known.on(room), tissue.tissue(work, room))
    truth = sampling.sampled(
        scan.blood.astype(np.float32), Frame(work.frame.turn, np.eye(4)), work.origin, work.hu.shape, 1.0
    )
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as file:
        np.savez(
            file, head=scan.head, mask=np.packbits(found.mask), shape=found.mask.shape,
            features=found.features.astype(np.float16), share=np.rint(255 * truth[found.mask]).astype(np.uint8),
        )  # fmt: skip
    part.replace(path)


def grow(pool: Sequence[Path], say: Callable[[str], None]) -> dict[str, bytes]:
    """Grow both looks; returns the files' contents by name."""
    heads = sorted({_head(path) for path in pool})
    halves = (heads[0::2], heads[1::2])
    rows = _Rows()
    for half, others in (halves, halves[::-1]):
        once = _first([p for p in pool if _head(p) in half], round(HALVED * FIRST[1]))
        for one in _described(p for p in pool if _head(p) in others):
            chance = once.inplace_predict(one.found.features)
            both = np.concatenate([one.found.features, context(one.found.mask, chance, one.found.features[:, 0])], 1)
            rows.take(both, one.share, chance > _DOUBTED)
        say(f"A first look at {len(half)} heads, asked about the others")
    second = _grown(rows, SECOND, (*FEATURES, *CONTEXT))
    first = _first(pool, FIRST[1])
    say(f"Both looks are grown from {len(pool)} scans of {len(heads)} heads")
    return dict(zip(FILES, (bytes(made.save_raw("ubj")) for made in (first, second)), strict=True))


@dataclass(frozen=True)
class _Described:
    found: Candidates
    share: Floats


def _head(path: Path) -> str:
    with np.load(path) as held:
        return str(held["head"])


def _described(paths: Iterator[Path]) -> Iterator[_Described]:
    for path in paths:
        with np.load(path) as held:
            shape = tuple(int(n) for n in held["shape"])
            mask = np.unpackbits(held["mask"], count=int(np.prod(shape))).reshape(shape).astype(np.bool_)
            yield _Described(
                Candidates(mask, held["features"].astype(np.float32)), held["share"].astype(np.float32) / 255
            )


class _Rows:
    """Voxels to learn from, thinned out: those with blood and those like it more often than the rest, and weighted back.

    In full: shares are summed up to a volume, so that their expectation must be true. Weights that were evened out made large bleeds in
    sulci, among whose blood the most voxels without any lie, too large.
    """

    def __init__(self) -> None:
        self._random = np.random.default_rng(3)
        self._parts: list[tuple[Floats, Floats, Floats]] = []

    def take(self, features: Floats, share: Floats, doubted: NDArray[np.bool_] | None = None) -> None:
        """Take a part of one scan's voxels."""
        blood = share > 0
        hard = ~blood & (features[:, FEATURES.index("clear_1")] > _LIKE_BLOOD)
        if doubted is not None:
            hard |= ~blood & doubted
        rate = np.where(blood, _share(_BLOOD, blood), _share(_NONE, ~blood))
        rate = np.where(hard, np.maximum(rate, _share(_HARD, hard)), rate)
        kept = self._random.random(len(share)) < rate
        self._parts.append((features[kept], share[kept], np.asarray(1 / rate[kept], np.float32)))

    def matrix(self, names: Sequence[str]) -> xgb.QuantileDMatrix:
        """All of them."""
        features, share, weight = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        self._parts.clear()
        return xgb.QuantileDMatrix(features, share, weight=weight, feature_names=list(names))


def _share(wanted: int, among: NDArray[np.bool_]) -> float:
    return min(1.0, wanted / max(int(among.sum()), 1))


def _first(pool: Sequence[Path], trees: int) -> xgb.Booster:
    rows = _Rows()
    for one in _described(iter(pool)):
        rows.take(one.found.features, one.share)
    return _grown(rows, (FIRST[0], trees), FEATURES)


def _grown(rows: _Rows, size: tuple[int, int], names: Sequence[str]) -> xgb.Booster:
    depth, trees = size
    return xgb.train({**_GROWTH, "max_depth": depth}, rows.matrix(names), trees)
