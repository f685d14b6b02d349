"""Measuring, the same for a folder, a NIfTI file and a received study: series, volume, labels, volumes, derived objects."""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from rich.table import Table

from arcuate.imaging import derived, gallery, nifti, picture, segmentation, structures
from arcuate.imaging.derived import RESEARCH_USE, Measured, Model
from arcuate.imaging.domain import Instance, Unreadable
from arcuate.imaging.parsing import Limits, Parser
from arcuate.imaging.seg import build_seg, present_parts
from arcuate.imaging.segmentation import Infer, Segmentation, Volume
from arcuate.imaging.series import Choice, choose
from arcuate.imaging.sr import build_sr
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.codes import Laterality

METHOD = "Sum of segmented voxels at 1 mm; labels by a neural network (T1-weighted MR)"
LIMITS_OF_METHOD = (
    "Trained on synthetic contrasts from label maps of adults; "
    "not checked on children, after surgery, or with large lesions."
)


@dataclass(frozen=True)
class Measurement:
    """What was measured on one volume.

    Attributes:
        choice: Which series and why; None for a NIfTI file.
        absent: Structure code to the reason why it has no volume.
        warnings: What makes the values less sure, in words.
    """

    choice: Choice | None
    volume: Volume
    segmentation: Segmentation
    measured: tuple[Measured, ...]
    absent: Mapping[str, str]
    model: Model
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Derived:
    """The objects that follow from a measurement, as bytes; SEG and SR only for DICOM input."""

    seg: bytes | None
    sr: bytes | None
    qc: bytes
    gallery: bytes


@dataclass(frozen=True)
class QuantifyResult:
    """The answer to `arcuate quantify`.

    Attributes:
        files: What was written, by kind.
        dropped: Attributes of the source with illegal values that SEG and SR leave out.
    """

    measurement: Measurement
    files: Mapping[str, Path]
    dropped: tuple[str, ...]

    def table(self) -> Table:
        """Return the volumes as a table for the terminal."""
        made = Table(title="Volumes (mL)", caption=f"{RESEARCH_USE}. {LIMITS_OF_METHOD}")
        for heading in ("Structure", "Left", "Right", "Whole"):
            made.add_column(heading, justify="left" if heading == "Structure" else "right")
        ml = {(m.structure, m.side): f"{m.ml:,.2f}" for m in self.measurement.measured}
        for code in dict.fromkeys(m.structure for m in self.measurement.measured):
            name = next(p.name for p in structures.parts() if p.structure == code)
            whole = ml.get((code, None)) or ml.get((code, Laterality.BILATERAL)) or ""
            made.add_row(name, ml.get((code, Laterality.LEFT), ""), ml.get((code, Laterality.RIGHT), ""), whole)
        return made


async def measure_series(
    found: Sequence[Instance | Unreadable], parser: Parser, scratch: Path, models_dir: Path, infer: Infer
) -> Measurement:
    """Choose a series among these files and measure it.

    Args:
        scratch: A folder for the decoded volume.

    Raises:
        NotMeasurable: With the reason.
    """
    choice = await asyncio.to_thread(choose, found)
    frames = [
        (s.instance.path, s.instance.digest, s.index, s.frame.slope, s.frame.intercept) for s in choice.grid.slices
    ]
    data = await asyncio.to_thread(parser.pixels, frames, choice.grid.shape, scratch / "volume.npy")
    return await _measure(choice, Volume(data, choice.grid.affine), models_dir, infer)


async def measure_nifti(path: Path, parser: Parser, scratch: Path, models_dir: Path, infer: Infer) -> Measurement:
    """Measure a NIfTI file on its own grid.

    Raises:
        NotMeasurable: With the reason.
    """
    data, affine = await asyncio.to_thread(parser.nifti, path, scratch / "volume.npy")
    return await _measure(None, Volume(data, affine), models_dir, infer)


def derive(measurement: Measurement, at: datetime) -> Derived:
    """Make SEG, SR and pictures.

    Args:
        at: When it was measured, local time of the site.
    """
    labels = measurement.segmentation.labels
    seg_file = sr_file = None
    if measurement.choice:
        grid = measurement.choice.grid
        seg = build_seg(grid, labels, measurement.model, at)
        seg_file = derived.encode(seg) if seg is not None else None
        sr_file = derived.encode(_report(measurement, seg, at))
    scan = picture.upright(measurement.volume.data, labels, measurement.volume.affine)
    exhibits = gallery.make(scan, [m.structure for m in measurement.measured])
    return Derived(
        seg_file,
        sr_file,
        picture.qc_picture(scan, present_parts(labels), _captions(measurement)),
        gallery.pack(exhibits),
    )


async def quantify(
    path: Path,
    out: Path | None,
    models_dir: Path,
    infer: Infer,
    at: datetime | None = None,
    limits: Limits | None = None,
) -> QuantifyResult:
    """Measure a DICOM folder or a NIfTI file.

    Args:
        path: A folder with the DICOM files of one study, or a .nii or .nii.gz.
        out: Where to write `volumes.json`, `qc.png`, `labels.nii.gz` and, for DICOM, `segmentation.dcm` and
            `measurements.dcm`; nothing is written without it.
        infer: Reaches the networks (see `oip_client.py`).

    Raises:
        NotMeasurable: With a reason that a technologist can act on.
    """
    with Parser(limits) as parser, tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
        scratch = Path(folder)
        if path.is_dir():
            found = await asyncio.to_thread(parser.folder, path)
            measurement = await measure_series(found, parser, scratch, models_dir, infer)
        else:
            measurement = await measure_nifti(path, parser, scratch, models_dir, infer)
        dropped = derived.dropped_values(measurement.choice.instances) if measurement.choice else ()
        files: dict[str, Path] = {}
        if out is not None:
            files = await asyncio.to_thread(
                _write, out, measurement, dropped, at or SystemClock().now().astimezone(UTC)
            )
    return QuantifyResult(measurement, files, dropped)


def summary(measurement: Measurement, dropped: Sequence[str] = ()) -> dict[str, Any]:
    """Return a measurement as JSON: what `volumes.json` holds and the room keeps."""
    choice = measurement.choice
    return {
        "research_use": f"{RESEARCH_USE}. {LIMITS_OF_METHOD}",
        "method": METHOD,
        "models": [_model(measurement.model), *(_model(other) for other in measurement.model.others)],
        "series": {
            "uid": choice.facts.uid,
            "number": choice.facts.number,
            "description": choice.facts.description,
            "reason": choice.reason,
            "slices": choice.grid.shape[2],
            "spacing_mm": [round(s, 4) for s in choice.grid.spacing],
            "not_chosen": [{"series": p.facts.title, "reason": str(p.refusal)} for p in choice.passed],
        }
        if choice
        else None,
        "volumes": [
            {"structure": m.structure, "side": m.side, "ml": m.ml, "title": structures.part(m.structure, m.side).title}
            for m in measurement.measured
        ],
        "not_measured": dict(measurement.absent),
        "warnings": list(measurement.warnings),
        "left_out_of_objects": list(dropped),
    }


async def _measure(choice: Choice | None, volume: Volume, models_dir: Path, infer: Infer) -> Measurement:
    found = await segmentation.segment(volume, infer, models_dir)
    used = [Model(m.name, m.version, m.sha256) for m in found.models]
    model = Model(used[-1].name, used[-1].version, used[-1].digest, tuple(used[:-1]))
    measured = tuple(Measured(v.code, _side(v.code, v.side), v.ml) for v in found.volumes if v.ml > 0)
    empty = {v.code: "No voxel of it was found." for v in found.volumes if v.ml <= 0}
    warnings = (*(choice.warnings if choice else ()), *found.quality.warnings)
    return Measurement(
        choice, volume, found, measured, {**empty, **found.not_measured}, model, tuple(dict.fromkeys(warnings))
    )


def _side(code: str, side: str) -> Laterality | None:
    if side:
        return Laterality(side)
    paired = any(p.structure == code and p.side is not None for p in structures.parts())
    return Laterality.BILATERAL if paired else None


def _report(measurement: Measurement, seg: Dataset | None, at: datetime) -> Dataset:
    assert measurement.choice is not None
    return build_sr(measurement.choice.grid, seg, measurement.measured, measurement.model, at)


def _captions(measurement: Measurement) -> list[str]:
    model = f"{measurement.model.name} {measurement.model.version} ({measurement.model.digest[:12]})"
    # The series' own words are left out: people write names into them.
    series = f"series {measurement.choice.facts.number}, " if measurement.choice else ""
    return [f"{series}model {model}", *measurement.warnings[:4]]


def _model(model: Model) -> dict[str, str]:
    return {"name": model.name, "version": model.version, "sha256": model.digest}


def _write(out: Path, measurement: Measurement, dropped: Sequence[str], at: datetime) -> dict[str, Path]:
    out.mkdir(parents=True, exist_ok=True)
    made = derive(measurement, at)
    text = json.dumps(summary(measurement, dropped), indent=1, ensure_ascii=False) + "\n"
    contents = {
        "volumes": ("volumes.json", text.encode()),
        "segmentation": ("segmentation.dcm", made.seg),
        "report": ("measurements.dcm", made.sr),
        "picture": ("qc.png", made.qc),
    }
    files = {}
    for kind, (name, content) in contents.items():
        if content is not None:
            (out / name).write_bytes(content)
            files[kind] = out / name
    files["labels"] = out / "labels.nii.gz"
    nifti.write_labels(files["labels"], np.asarray(measurement.segmentation.labels), measurement.volume.affine)
    return files
