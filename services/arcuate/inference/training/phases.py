"""The steps of a training, in order: what each trains, on which grid, how widely, at which rate, for how long."""

from __future__ import annotations

from dataclasses import dataclass

from arcuate.inference.training.generator import WEIGHTINGS, Grid, Range


@dataclass(frozen=True)
class Phase:
    """name is also the checkpoint's file name. minutes is the phase's share of a first training, rate its first
    learning rate. network: finder, core, grown (which starts from core) or wide (from grown). begins_with: the model whose weights
    a first training starts from. widen_steps: over so many steps the share of samples as wide as `reach` rises from a tenth to all;
    the rest is T1-like, since contrasts widened at once throw the detail away (measured: Dice 0.695 to 0.461)."""

    name: str
    network: str
    grid: Grid
    reach: Range
    rate: float
    minutes: float
    begins_with: str = ""
    widen_steps: int = 0


FINDER = Phase(
    "finder", "finder", Grid((56, 64, 72), 4.0),
    Range(contrast=0.4, stripped=0.25, rotation=12, shift=30, cut=0.35, whole_head=True), 2e-3, 10,
)  # fmt: skip
CORE = Phase("core", "core", Grid((40, 48, 40), 4.0), Range(), 2e-3, 45)
GROWN = Phase("grown", "grown", Grid((80, 96, 80), 2.0), Range(), 1.5e-3, 60)
WIDE = Phase("wide", "wide", Grid((80, 96, 80), 2.0), Range(thick=0.35), 8e-4, 90)
ANY = Phase(
    "any", "wide", Grid((80, 96, 80), 2.0), Range(contrast=0.3, weightings=tuple(WEIGHTINGS), thick=0.4), 1e-3, 120,
    begins_with="brain-t1", widen_steps=800,
)  # fmt: skip

PLANS: dict[str, tuple[Phase, ...]] = {"brain-finder": (FINDER,), "brain-t1": (CORE, GROWN, WIDE), "brain-any": (ANY,)}
"""Model name -> its phases; the last one's weights are shipped."""


@dataclass(frozen=True)
class ShippedModel:
    """What model.toml says of a model: its task in words, on whom, the voxels of its grid and their side in mm."""

    task: str
    population: str
    shape: tuple[int, int, int]
    voxel: float


SHIPPED = {
    "brain-finder": ShippedModel(
        "Find the brain in a head of any field of view: brain against the rest, 4 mm",
        "Adults, MR of the head with or without skull; trained on synthetic images only",
        (56, 64, 72), 4.0,
    ),
    "brain-t1": ShippedModel(
        "Label 32 structures of the brain in a T1-weighted MR, box of 160 x 192 x 160 mm",
        "Adults, T1-weighted MR with or without skull; trained on synthetic images only",
        (80, 96, 80), 2.0,
    ),
    "brain-any": ShippedModel(
        "Label 32 structures of the brain in an MR of any weighting (T1, T2, FLAIR, PD), box of 160 x 192 x 160 mm",
        "Adults, MR of the head with or without skull; trained on synthetic images only",
        (80, 96, 80), 2.0,
    ),
}  # fmt: skip
