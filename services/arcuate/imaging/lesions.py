"""The pipeline `wm-lesions`: white-matter lesions on a FLAIR, with the T1 of the same head where there is one.

The brain is found first; the network answers windows of a grid of 1.5 mm, which are blended; the lesions' probability is raised
to the FLAIR's own voxels, weighed by their brightness (lesion_borders.py) and cut at `probability`. What follows (places, counts)
is geometry: lesion_places.py. Rules: lesions.toml.
"""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from arcuate.imaging import lesion_borders, lesion_places, sampling, segmentation, uncertainty
from arcuate.imaging.brain_finder import Brain, find_brain
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.domain import RefusalCode, refuse
from arcuate.imaging.lesion_places import Lesion, Tissue
from arcuate.imaging.network import Network, checked, load_model
from arcuate.imaging.pipelines import Finding, Infer, Pipeline, Scan, Volume
from arcuate.imaging.sampling import Floats, Frame
from arcuate.imaging.uncertainty import POSSIBLE, SURE, Uncertainty
from arcuate.imaging.volumetry import COARSE_SPACING_MM

RULES = Path(__file__).with_name("lesions.toml")
MIDDLE = 0.5  # what the brain's median is scaled to, as in training (inference/training/lesion_generator.py)
BRIGHTEST = 1.6
MARGIN_MM = 9.0
WANTED = "FLAIR series, best a 3D FLAIR with voxels near 1 mm"
PLACES = ("periventricular", "juxtacortical", "deep", "infratentorial")
LABELS = {place: 101 + k for k, place in enumerate(PLACES)}
"""The numbers of the places in `structures.toml`."""


@dataclass(frozen=True)
class Grid:
    """The network's grid: work coordinate of voxel 0 (mm), voxel side (mm), voxels."""

    frame: Frame
    origin: NDArray[np.float64]
    step: float
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Found:
    """Lesions of one FLAIR. labels (i, j, k) uint8 on its own grid (see LABELS); mask: of all lesions; doubt: of lesion or not."""

    labels: NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    white_ml: float
    model: Model
    doubt: Uncertainty

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(i, j, k): voxels of lesions."""
        return self.labels > 0

    @property
    def load_ml(self) -> float:
        """All lesions together."""
        return sum(lesion.ml for lesion in self.lesions)


async def measure(pipeline: Pipeline, scans: Mapping[str, Scan], infer: Infer, models_dir: Path) -> Finding:
    """Count and measure white-matter lesions, as a whole and by place.

    Raises:
        NotMeasurable: With the reason.
    """
    flair, warnings = scans[pipeline.first_input], []
    beside = scans.get("t1")
    if beside is not None and not _same_space(flair, beside):
        warnings.append("The T1 series has another frame of reference than the FLAIR and was left out.")
        beside = None
    found = await find(flair.volume, beside.volume if beside else None, infer, models_dir, pipeline.models)
    told = "with the T1 of the same study" if beside else "without a T1"
    warnings.append(f"Measured on the FLAIR {told}; every lesion is to be looked at by a person.")
    spacing = np.linalg.norm(flair.volume.affine[:3, :3], axis=0)
    if spacing.max() > COARSE_SPACING_MM:
        warnings.append(f"Voxels are {spacing.max():.1f} mm long: lesions smaller than that are missed or misjudged.")
    return Finding(found.labels, values(found.lesions), {}, tuple(warnings), found.model, found.doubt)


def values(lesions: tuple[Lesion, ...]) -> tuple[Measured, ...]:
    """Load (mL) and number of lesions, as a whole and by place; 0 where there is none."""
    made = [Measured("wm-lesions-load", None, _ml(lesions)), Measured("wm-lesions-count", None, float(len(lesions)))]
    for place in PLACES:
        here = tuple(lesion for lesion in lesions if lesion.place == place)
        made.append(Measured(f"wm-lesions-{place}", None, _ml(here)))
        made.append(Measured(f"wm-lesions-{place}-count", None, float(len(here))))
    return tuple(made)


async def find(flair: Volume, t1: Volume | None, infer: Infer, models_dir: Path, models: Mapping[str, str]) -> Found:
    """Find the lesions of a FLAIR.

    Args:
        t1: A T1-weighted scan in the same patient coordinates, or None.
        models: Which folders hold the roles `finder` and `lesions`.

    Raises:
        NotMeasurable: With the reason.
    """
    finder, network = (load_model(models_dir, models[role]) for role in ("finder", "lesions"))
    segmentation.check(flair, WANTED)
    frame = await asyncio.to_thread(sampling.working_frame, flair.affine)
    brain = await find_brain(flair, frame, infer, finder)
    grid = _grid(brain, frame, network)
    image = await asyncio.to_thread(_image, flair, t1, brain, grid)
    p = await _probabilities(image, infer, network)
    used = tuple(Model(n.used.name, n.used.version, n.used.sha256) for n in (network, finder))
    model = Model(used[0].name, used[0].version, used[0].digest, used[1:])
    return await asyncio.to_thread(_found, flair, p, grid, model)


async def brain_mask(flair: Volume, infer: Infer, models_dir: Path, models: Mapping[str, str]) -> NDArray[np.bool_]:
    """Where the brain is (i, j, k) on the scan's own voxels, as coarse as the finder tells it; refused where there is none."""
    frame = await asyncio.to_thread(sampling.working_frame, flair.affine)
    finder = load_model(models_dir, models["finder"])
    brain = await find_brain(flair, frame, infer, finder)
    shape = (brain.mask.shape[0], brain.mask.shape[1], brain.mask.shape[2])
    grid = Grid(frame, brain.start + brain.step / 2, brain.step, shape)
    inside: NDArray[np.bool_] = raised(brain.mask.astype(np.float32), grid, flair.data.shape) >= 0.5
    return inside


@cache
def rules() -> Mapping[str, Any]:
    """What lesions.toml says."""
    return tomllib.loads(RULES.read_text(encoding="utf-8"))


def _ml(lesions: tuple[Lesion, ...]) -> float:
    return round(sum(lesion.ml for lesion in lesions), 3)


def _same_space(flair: Scan, t1: Scan) -> bool:
    """Whether both lie in the same patient coordinates, as far as their headers say; files without headers are taken to."""
    if flair.choice is None or t1.choice is None:
        return True
    stated = [scan.choice.instances[0].text("FrameOfReferenceUID") for scan in (flair, t1) if scan.choice]
    return bool(stated[0]) and stated[0] == stated[1]


# ---- grids and intensities --------------------------------------------------------------------------------------------


def _grid(brain: Brain, frame: Frame, network: Network) -> Grid:
    """The brain's box with a margin, at least one window large."""
    places = np.argwhere(brain.mask)
    low = brain.start + places.min(0) * brain.step - MARGIN_MM
    high = brain.start + (places.max(0) + 1) * brain.step + MARGIN_MM
    step = network.voxel_mm
    x, y, z = (max(w, int(np.ceil(n))) for w, n in zip(network.shape, (high - low) / step, strict=True))
    origin = (low + high) / 2 - (np.array((x, y, z)) - 1) * step / 2
    return Grid(frame, origin, step, (x, y, z))


def _image(flair: Volume, t1: Volume | None, brain: Brain, grid: Grid) -> Floats:
    """(2, x, y, z): FLAIR and T1 (zeros where there is none), the brain's median as MIDDLE."""
    matrix = np.diag([grid.step / brain.step] * 3)
    offset = (grid.origin - brain.start) / brain.step - 0.5
    inside = ndimage.affine_transform(brain.mask.astype(np.uint8), matrix, offset, output_shape=grid.shape, order=0) > 0
    made = np.zeros((2, *grid.shape), np.float32)
    for channel, volume in enumerate((flair, t1)):
        if volume is None:
            continue
        data, affine = sampling.blocked(volume.data, volume.affine, grid.step)
        sampled = sampling.sampled(
            data - data.min(), Frame(grid.frame.turn, np.linalg.inv(affine)), grid.origin, grid.shape, grid.step
        )
        body = sampled[inside & (sampled > 0)]
        if body.size < 1000:
            if channel == 0:
                raise refuse(RefusalCode.EMPTY, "The brain in the image is empty", "Send the original series.")
            continue  # a T1 of another place helps nobody
        made[channel] = np.clip(sampled * (MIDDLE / float(np.median(body))), 0, BRIGHTEST)
    return made


# ---- the network's answer ---------------------------------------------------------------------------------------------


async def _probabilities(image: Floats, infer: Infer, network: Network) -> Floats:
    """(classes, x, y, z) from overlapping windows, each weighing less towards its edge."""
    shape = image.shape[1:]
    total = np.zeros((len(network.classes), *shape), np.float32)
    weight = np.zeros(shape, np.float32)
    tent = _tent(network.shape)
    for window in sampling.windows(shape, network.shape):
        part = np.ascontiguousarray(image[:, *window])[None]
        answer = checked(await infer(network.used.name, {"image": part}), network)[0]
        total[:, *window] += answer * tent
        weight[window] += tent
    return total / (255.0 * weight)


def _tent(shape: tuple[int, int, int]) -> Floats:
    made = np.ones(shape, np.float32)
    for axis, n in enumerate(shape):
        ramp = np.minimum(np.arange(n) + 1, n - np.arange(n)).astype(np.float32) / (n / 2)
        made *= np.clip(ramp * 2, 0.05, 1).reshape([-1 if k == axis else 1 for k in range(3)])
    return made


def _found(flair: Volume, p: Floats, grid: Grid, model: Model) -> Found:
    limits = rules()
    lesion = raised(p[lesion_places.LESION], grid, flair.data.shape)
    lesion = lesion_borders.weighed(lesion, p, flair, grid, limits["border"])
    tissue = Tissue.of(p, grid.step)
    white_ml = tissue.white_ml
    plausible = limits["plausible"]
    if not plausible["white_low"] <= white_ml <= plausible["white_high"]:
        raise _implausible(f"{white_ml:.0f} ml of white matter")
    numbered, lesions = lesion_places.lesions(lesion >= limits["probability"], flair.affine, grid, tissue, limits)
    load = sum(one.ml for one in lesions)
    if load > plausible["share_of_white"] * (load + white_ml):
        raise _implausible(f"{load:.0f} ml of lesions beside {white_ml:.0f} ml of white matter")
    table = np.array([0, *(LABELS[one.place] for one in lesions)], np.uint8)
    labels = table[numbered]
    return Found(labels, lesions, white_ml, model, _doubt(lesion, labels > 0, flair.affine, limits["smallest_mm3"]))


def _doubt(p: Floats, counted: NDArray[np.bool_], affine: NDArray[np.float64], smallest_mm3: float) -> Uncertainty:
    """How undecided the network is between lesion and none (at most one bit), and between which loads the truth lies by its own word.

    Args:
        p: (i, j, k) probability of lesion on the scan's voxels.
        counted: Voxels of the lesions that count; what is too small to count is in neither load.
    """
    full = 255
    whole = np.round(p * full).astype(np.uint8)
    shown = uncertainty.entropy(lambda k: (whole if k else full - whole).astype(np.uint16), 2, full)
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    pieces, count = ndimage.label(p >= POSSIBLE, lesion_places.CONNECTED)
    large = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_mm3 >= smallest_mm3
    large[0] = False
    sure, possible = int((counted & (p >= SURE)).sum()), int(large[pieces].sum())
    loads = (round(sure * voxel_mm3 / 1000, 3), round(possible * voxel_mm3 / 1000, 3))
    return Uncertainty(shown, {("wm-lesions-load", ""): loads})


def raised(values: Floats, grid: Grid, shape: tuple[int, ...]) -> Floats:
    """Trilinear values of the network's grid on the scan's own voxels; 0 outside the grid."""
    return sampling.on_voxels(values, grid.frame, grid.origin, grid.step, tuple(slice(0, n) for n in shape))


def _implausible(what: str) -> Exception:
    return refuse(
        RefusalCode.NOT_PLAUSIBLE, f"Unanswerable: the measurement gave {what}",
        "Check that the series is a T2-weighted FLAIR of a whole adult head; do not use lesions of this series.",
    )  # fmt: skip
