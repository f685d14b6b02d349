"""The pipeline `brain-volumes`: structures of the brain in an MR, T1-weighted where there is a choice."""

from collections.abc import Mapping
from pathlib import Path

from arcuate.imaging import structures
from arcuate.imaging.contrast import labelled
from arcuate.imaging.derived import Measured, Model
from arcuate.imaging.pipelines import Finding, Infer, Pipeline, Scan
from arcuate.kernel.codes import Laterality


async def measure(pipeline: Pipeline, scans: Mapping[str, Scan], infer: Infer, models_dir: Path) -> Finding:
    """Label the brain and sum up its structures.

    Raises:
        NotMeasurable: With the reason.
    """
    found, why = await labelled(scans[pipeline.first_input], infer, models_dir)
    used = [Model(m.name, m.version, m.sha256) for m in found.models]
    model = Model(used[-1].name, used[-1].version, used[-1].digest, tuple(used[:-1]))
    measured = tuple(Measured(v.code, _side(v.code, v.side), v.ml) for v in found.volumes if v.ml > 0)
    empty = {v.code: "No voxel of it was found." for v in found.volumes if v.ml <= 0}
    absent = {**empty, **found.not_measured}
    quality = found.quality
    return Finding(found.labels, measured, absent, quality.warnings, model, found.uncertainty, quality.score, why)


def _side(code: str, side: str) -> Laterality | None:
    if side:
        return Laterality(side)
    paired = any(p.structure == code and p.side is not None for p in structures.parts())
    return Laterality.BILATERAL if paired else None
