"""Measuring, the same for a folder, a NIfTI file and a received study: series, volume, labels, volumes, derived objects."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from arcuate.imaging import derived, nifti, structures
from arcuate.imaging.derived import RESEARCH_USE, Measured, Model
from arcuate.imaging.domain import Instance, NotMeasurable, Refusal, Unreadable
from arcuate.imaging.methods import loaded
from arcuate.imaging.parsing import Limits, Parser
from arcuate.imaging.pipelines import SHADOW, Finding, Infer, Pipeline, Scan, Volume, asked_by, named, pipelines
from arcuate.imaging.series import Choice, choose
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.codes import Laterality, Ucum

if TYPE_CHECKING:
    from arcuate.imaging.deriving import Derived


@dataclass(frozen=True)
class Measurement:
    """What one pipeline measured in one study or file; `scans` by role, the first of which the results lie on."""

    pipeline: Pipeline
    scans: Mapping[str, Scan]
    finding: Finding

    @property
    def choice(self) -> Choice | None:
        """Which series the results lie on and why; None for a NIfTI file."""
        return self.scans[self.pipeline.first_input].choice

    @property
    def volume(self) -> Volume:
        """The scan that the results lie on."""
        return self.scans[self.pipeline.first_input].volume

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes the values less sure, in words."""
        told = [w for scan in self.scans.values() if scan.choice for w in scan.choice.warnings]
        return tuple(dict.fromkeys((*told, *self.finding.warnings)))

    def table(self) -> Table:
        """Return the values as a table for the terminal; volumes are in mL, other units stand beside their values."""
        shadow = " - shadow mode: not validated at this site" if self.pipeline.mode == SHADOW else ""
        made = Table(
            title=f"{self.pipeline.title}{shadow} (mL where no unit stands)",
            caption=f"{RESEARCH_USE}. {self.pipeline.limits}",
        )
        for heading in ("Structure", "Left", "Right", "Whole"):
            made.add_column(heading, justify="left" if heading == "Structure" else "right")
        text = {(m.structure, m.side): _written(m) for m in self.finding.measured}
        for code in dict.fromkeys(m.structure for m in self.finding.measured):
            name = next(p.name for p in structures.parts() if p.structure == code)
            whole = text.get((code, None)) or text.get((code, Laterality.BILATERAL)) or ""
            made.add_row(name, text.get((code, Laterality.LEFT), ""), text.get((code, Laterality.RIGHT), ""), whole)
        return made


@dataclass(frozen=True)
class QuantifyResult:
    """The answer to `arcuate quantify`.

    Attributes:
        measurements: One a pipeline that the study asked for and that could measure it; at least one.
        refused: Pipelines that the study asked for and that could not, with the reason.
        files: What was written, by kind; those of a further pipeline lie in a folder of its name.
        dropped: Attributes of the source with illegal values that SEG and SR leave out.
    """

    measurements: tuple[Measurement, ...]
    refused: Mapping[str, Refusal]
    files: Mapping[str, Path]
    dropped: tuple[str, ...]

    @property
    def measurement(self) -> Measurement:
        """The first one."""
        return self.measurements[0]


async def measure_study(
    found: Sequence[Instance | Unreadable],
    pipeline: Pipeline,
    parser: Parser,
    scratch: Path,
    models_dir: Path,
    infer: Infer,
) -> Measurement:
    """Choose a pipeline's series among these files and measure them.

    Args:
        scratch: A folder for the decoded volumes.

    Raises:
        NotMeasurable: With the reason.
    """
    method = asyncio.create_task(asyncio.to_thread(loaded, pipeline.method))  # while the reading process reads
    scans: dict[str, Scan] = {}
    for role, rules in pipeline.inputs.items():
        try:
            choice = await asyncio.to_thread(_chosen, found, rules, pipeline.otherwise.get(role))
        except NotMeasurable:
            if role not in pipeline.optional:
                raise
            continue
        frames = [
            (s.instance.path, s.instance.digest, s.index, s.frame.slope, s.frame.intercept) for s in choice.grid.slices
        ]
        file = scratch / f"{pipeline.name}-{role}.npy"
        data = await asyncio.to_thread(parser.pixels, frames, choice.grid.shape, file)
        scans[role] = Scan(choice, Volume(data, choice.grid.affine))
    return Measurement(pipeline, scans, await (await method)(pipeline, scans, infer, models_dir))


def _chosen(found: Sequence[Instance | Unreadable], rules: str, otherwise: str | None) -> Choice:
    """Choose by the rules, or by the second ones where the first find nothing; the first ones' reason counts where neither do."""
    try:
        return choose(found, rules)
    except NotMeasurable:
        if otherwise is None:
            raise
        with contextlib.suppress(NotMeasurable):
            return choose(found, otherwise)
        raise


async def measure_nifti(
    paths: Mapping[str, Path], pipeline: Pipeline, parser: Parser, scratch: Path, models_dir: Path, infer: Infer
) -> Measurement:
    """Measure NIfTI files, by role, on the grid of the first.

    Raises:
        NotMeasurable: With the reason.
    """
    method = asyncio.create_task(asyncio.to_thread(loaded, pipeline.method))
    scans: dict[str, Scan] = {}
    for role, path in paths.items():
        data, affine = await asyncio.to_thread(parser.nifti, path, scratch / f"{pipeline.name}-{role}.npy")
        scans[role] = Scan(None, Volume(data, affine))
    return Measurement(pipeline, scans, await (await method)(pipeline, scans, infer, models_dir))


async def quantify(
    path: Path,
    out: Path | None,
    models_dir: Path,
    infer: Infer,
    at: datetime | None = None,
    limits: Limits | None = None,
    pipeline: str | None = None,
    also: Mapping[str, Path] | None = None,
) -> QuantifyResult:
    """Measure a DICOM folder or a NIfTI file.

    Args:
        path: A folder with the DICOM files of one study, or a .nii or .nii.gz.
        out: Where to write `volumes.json`, `qc.png`, `labels.nii.gz` and, for DICOM, `segmentation.dcm` and
            `measurements.dcm`; nothing is written without it.
        infer: Reaches the networks (see `oip_client.py`).
        pipeline: Only this one; else a folder is measured by those that its series ask for, a NIfTI file by the first.
        also: Further NIfTI files by role.

    Raises:
        NotMeasurable: With a reason that a technologist can act on.
        NotFound: No pipeline of that name.
    """
    only = named(pipeline) if pipeline else None
    made: list[Measurement] = []
    refused: dict[str, NotMeasurable] = {}
    with Parser(limits) as parser, tempfile.TemporaryDirectory(prefix="arcuate-") as folder:
        scratch = Path(folder)
        deriving = asyncio.create_task(asyncio.to_thread(_deriving))
        if path.is_dir():
            found = await asyncio.to_thread(parser.folder, path)
            for one in (only,) if only else asked_by(found):
                try:
                    made.append(await measure_study(found, one, parser, scratch, models_dir, infer))
                except NotMeasurable as error:
                    refused[one.name] = error
            if not made:
                raise next(iter(refused.values()))
        else:
            one = only or pipelines()[0]
            paths = {one.first_input: path} | dict(also or {})
            made.append(await measure_nifti(paths, one, parser, scratch, models_dir, infer))
        instances = [i for m in made for scan in m.scans.values() if scan.choice for i in scan.choice.instances]
        dropped = derived.dropped_values(instances)
        files: dict[str, Path] = {}
        if out is not None:
            derive = await deriving
            when = at or SystemClock().now().astimezone(UTC)
            for measurement in made:
                files |= await asyncio.to_thread(_write, out, measurement, dropped, when, derive)
    return QuantifyResult(tuple(made), {name: error.refusal for name, error in refused.items()}, files, dropped)


def summary(measurement: Measurement, dropped: Sequence[str] = ()) -> dict[str, Any]:
    """Return a measurement as JSON: what `volumes.json` holds and the room keeps."""
    pipeline, finding = measurement.pipeline, measurement.finding
    chosen = {role: _series(scan.choice) for role, scan in measurement.scans.items() if scan.choice}
    told = [(m, structures.part(m.structure, m.side)) for m in finding.measured]
    return {
        "pipeline": pipeline.name,
        "mode": pipeline.mode,
        "research_use": f"{RESEARCH_USE}. {pipeline.limits}",
        "method": pipeline.said_method,
        "models": [_model(finding.model), *(_model(other) for other in finding.model.others)],
        "series": chosen.pop(pipeline.first_input, None),
        "further_series": chosen,
        "volumes": [
            {"structure": m.structure, "side": m.side, "ml": m.value, "title": p.title}
            for m, p in told
            if p.unit == Ucum.MILLILITRE
        ],
        "values": [
            {"structure": m.structure, "side": m.side, "value": m.value, "unit": p.unit, "title": p.title}
            for m, p in told
            if p.unit != Ucum.MILLILITRE
        ],
        "ranges": _by_part(finding, finding.uncertainty.ranges if finding.uncertainty else {}),
        "intervals": _by_part(finding, finding.uncertainty.intervals if finding.uncertainty else {}),
        "not_measured": dict(finding.absent),
        "quality": finding.quality,
        "model_reason": finding.model_reason,
        "warnings": list(measurement.warnings),
        "left_out_of_objects": list(dropped),
    }


def _by_part(finding: Finding, stated: Mapping[tuple[str, str], tuple[float, float]]) -> dict[str, list[float]]:
    """Return what is stated of structures and sides for each measured part that it is stated of, mL."""
    sides = {None: "", Laterality.BILATERAL: "", Laterality.LEFT: "left", Laterality.RIGHT: "right"}
    return {
        structures.part(m.structure, m.side).key: list(stated[m.structure, sides[m.side]])
        for m in finding.measured
        if (m.structure, sides[m.side]) in stated
    }


def _scanner(choice: Choice) -> str:
    """Return maker, model and station of the scanner as the images state them; empty where they do not state all three."""
    first = choice.grid.slices[0].instance
    told = [first.text(k).strip() for k in ("Manufacturer", "ManufacturerModelName", "StationName")]
    return ", ".join(told) if all(told) else ""


def _series(choice: Choice) -> dict[str, Any]:
    return {
        "uid": choice.facts.uid,
        "number": choice.facts.number,
        "description": choice.facts.description,
        "reason": choice.reason,
        "scanner": _scanner(choice),
        "slices": choice.grid.shape[2],
        "spacing_mm": [round(s, 4) for s in choice.grid.spacing],
        "not_chosen": [{"series": p.facts.title, "reason": str(p.refusal)} for p in choice.passed],
    }


def _written(m: Measured) -> str:
    unit = structures.part(m.structure, m.side).unit
    return f"{m.value:,.2f}" if unit == Ucum.MILLILITRE else f"{m.value:g} {'' if unit == Ucum.ONE else unit}".strip()


def _model(model: Model) -> dict[str, str]:
    return {"name": model.name, "version": model.version, "sha256": model.digest}


def _deriving() -> Callable[[Measurement, datetime, bool], "Derived"]:
    """Load the libraries of SEG and SR, and their tables of the standard, while the reading process reads."""
    from highdicom._standard_utils import is_attribute_in_iod
    from pydicom.uid import SegmentationStorage

    from arcuate.imaging.deriving import derive

    is_attribute_in_iod("ContentDate", SegmentationStorage)
    return derive


def _write(
    out: Path,
    measurement: Measurement,
    dropped: Sequence[str],
    at: datetime,
    derive: Callable[[Measurement, datetime, bool], "Derived"],
) -> dict[str, Path]:
    first = measurement.pipeline == pipelines()[0]
    prefix = "" if first else f"{measurement.pipeline.name} "
    out = out if first else out / measurement.pipeline.name
    out.mkdir(parents=True, exist_ok=True)
    made = derive(measurement, at, False)
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
            files[prefix + kind] = out / name
    files[f"{prefix}labels"] = out / "labels.nii.gz"
    nifti.write_labels(files[f"{prefix}labels"], np.asarray(measurement.finding.labels), measurement.volume.affine)
    return files
