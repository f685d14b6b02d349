"""Side by side with a peer: brainchop's MeshNet and `arcuate quantify` on the same scans with manual labels, in one run.

    .venv/bin/python -m bench.peer_meshnet --weights model.pth --from ../shared/data/imaging/t1_manual

Each scan and its copies with inverted contrast and with slices of 5 mm are given to both programs, each as a process of its own, from the
file to the labels on the scan's grid. Scores are those of our own evaluation. The table goes into docs/reference/peer.md.
No part of `make bench`: the weights are the peer's and not in this repository (the page says where they are).
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from arcuate.imaging import evaluation
from arcuate.imaging.evaluation import Key, Score
from arcuate.imaging.pipelines import Volume
from arcuate.imaging.robustness import PLAIN, Copy, copies

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "peer.md"
MARK = "peer"
PEER, OURS = "MeshNet", "Arcuate"
# Pages stay with the process: asking the system for those of each slab again was a sixth of the CPU.
KEEP_PAGES = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "500000000",
}  # fmt: skip
COPIES = (PLAIN, "inverted inside the brain", "slices of 5 mm")


@dataclass(frozen=True)
class Cost:
    """What one whole program took; the memory is that of its largest process. `measured`: the day."""

    cpu_s: float
    wall_s: float
    peak_gb: float
    measured: str


@dataclass(frozen=True)
class Run:
    """One program on one copy of one scan: agreement with sides merged and by side, and what it cost; or why it refused."""

    tool: str
    subject: str
    copy: str
    merged: tuple[Score, ...]
    by_side: tuple[Score, ...]
    cost: Cost
    refused: str = ""


@dataclass(frozen=True)
class Schemes:
    """Label -> structure and side, of the manual labels, of ours and of the peer's; and the structures that enter the mean."""

    manual: dict[int, Key]
    ours: dict[int, Key]
    peer: dict[int, Key]
    counted: set[str]

    @classmethod
    def read(cls, data: Path) -> "Schemes":
        """Read the tables that lie in or beside a folder of scans, and the peer's."""
        folder = data / "schemes" if (data / "schemes").is_dir() else data.parent / "schemes"
        return cls(
            evaluation.read_scheme(folder / "neuromorphometrics.csv"),
            evaluation.read_scheme(folder / "freesurfer.csv"),
            evaluation.read_scheme(Path(__file__).with_name("meshnet.csv")),
            evaluation.counted(folder),
        )


def merged(table: dict[int, Key]) -> dict[int, Key]:
    """Return a scheme without sides."""
    return {label: (structure, "") for label, (structure, _) in table.items()}


def spent(command: Sequence[str], log: Path, **more: str) -> tuple[int, Cost]:
    """Run a program to its end, with these in its environment; return its exit status and what it and its children took."""
    began = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | more, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(
        used.ru_utime + used.ru_stime,
        time.monotonic() - began,
        used.ru_maxrss * 1024 / 1e9,
        f"{datetime.now(UTC):%Y-%m-%d}",
    )
    return process.returncode, cost


def peer(scan: Path, weights: Path, kept: Path, within: bool) -> tuple[NDArray[Any], Cost]:
    """Return the peer's labels of a scan, and what they cost; those of an earlier run where it kept them.

    Args:
        within: Compute only what the scan's grid needs (the same labels; the cost is then not the peer's).
    """
    labels, told = (kept / f"{scan.name.removesuffix('.nii.gz')}{end}" for end in (".nii.gz", ".json"))
    if not told.is_file():
        command = [sys.executable, "-m", "bench.meshnet", *map(str, (weights, scan, labels)), *["--within"] * within]
        status, cost = spent(command, kept / "peer.log", **KEEP_PAGES)
        if status:
            raise SystemExit(f"The peer failed on {scan.name}:\n{(kept / 'peer.log').read_text()}")
        told.write_text(json.dumps(asdict(cost)), encoding="utf-8")
    return _labels(labels), Cost(**json.loads(told.read_text(encoding="utf-8")))


def ours(scan: Path, scratch: Path) -> tuple[NDArray[Any] | None, Cost, str]:
    """Return our labels of a scan (none where it was refused), what they cost, and the refusal."""
    out = scratch / f"{scan.name}-arcuate"
    command = [sys.executable, "-m", "arcuate", "quantify", str(scan), "--out", str(out)]
    status, cost = spent(command, scratch / "ours.log")
    if status:
        return None, cost, " ".join((scratch / "ours.log").read_text(encoding="utf-8").split())
    return _labels(out / "labels.nii.gz"), cost, ""


def side_by_side(data: Path, weights: Path, kept: Path, scratch: Path) -> list[Run]:
    """Give every scan of a folder and its copies to both programs, in turns."""
    schemes, runs = Schemes.read(data), []
    for path in sorted(data.glob("*_T1w*.nii.gz")):
        subject = path.name.split("_T1w")[0]
        for copy in _copies(path, subject):
            scan = scratch / f"{subject}-{copy.name.replace(' ', '-')}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(copy.volume.data, copy.volume.affine), scan)
            labels, cost = peer(scan, weights, kept, copy.name != PLAIN)
            runs.append(_run(PEER, subject, copy, labels, schemes.peer, schemes, cost))
            found, cost, refused = ours(scan, scratch)
            runs.append(_run(OURS, subject, copy, found, schemes.ours, schemes, cost, refused))
            for run in runs[-2:]:
                said = run.refused or f"mean Dice with sides merged {evaluation.mean_dice(run.merged):.3f}"
                print(f"{subject}, {copy.name}, {run.tool}: {said}, {run.cost.cpu_s:.0f} CPU s", flush=True)
    return runs


def _copies(path: Path, subject: str) -> list[Copy]:
    image = cast("SpatialImage", nibabel.load(path))
    volume = Volume(np.asarray(image.dataobj, np.float32), np.asarray(image.affine, np.float64))
    manual = _labels(path.with_name(f"{subject}_dseg.nii.gz")).astype(np.int32)
    return [copy for copy in copies(volume, manual) if copy.name in COPIES]


def _labels(path: Path) -> NDArray[Any]:
    return np.asarray(cast("SpatialImage", nibabel.load(path)).dataobj).astype(np.int64)


def _run(
    tool: str, subject: str, copy: Copy, found: NDArray[Any] | None, table: dict[int, Key], known: Schemes, cost: Cost,
    refused: str = "",
) -> Run:  # fmt: skip
    if found is None:
        return Run(tool, subject, copy.name, (), (), cost, refused)
    ml = float(abs(np.linalg.det(copy.volume.affine[:3, :3]))) / 1000
    manual = copy.manual.astype(np.int64)
    whole, apart = (
        tuple(evaluation.compare(subject, found, its, manual, reference, known.counted, ml))
        for its, reference in ((merged(table), merged(known.manual)), (table, known.manual))
    )
    return Run(tool, subject, copy.name, whole, apart, cost)


def volume_error(score: Score) -> float:
    """Return how far a volume is off, in per cent of the manual one."""
    return 100 * (score.found_ml - score.reference_ml) / score.reference_ml


def table(runs: Sequence[Run]) -> str:
    """Return the tables of the page: the means with costs, which program is better where, Dice and volume error by structure."""
    return "\n\n".join((_means(runs), _better(runs), _structures(runs)))


def _means(runs: Sequence[Run]) -> str:
    subjects = sorted({r.subject for r in runs})
    lines = [
        f"| copy | program | {' | '.join(f'Dice {s}' for s in subjects)} | mean Dice, sides merged | mean Dice by side "
        "| mean absolute volume error % | CPU s a scan | wall s | largest process, GB |",
        "|---|---|" + "---:|" * (len(subjects) + 6),
    ]
    for name in COPIES:
        for tool in (PEER, OURS):
            these = [r for r in runs if (r.copy, r.tool) == (name, tool)]
            scored = [s for r in these for s in r.merged if s.in_mean]
            means = {r.subject: f"{evaluation.mean_dice(r.merged):.3f}" if r.merged else "refused" for r in these}
            sides = [s for r in these for s in r.by_side]
            tells = any(s.side for s in sides)
            # On the copies the peer is run within their grid only, so that its cost there is not its own.
            costs = [r.cost for r in these] if name == PLAIN else []
            lines.append(
                f"| {name} | {tool} | {' | '.join(means.get(s, '-') for s in subjects)} | **{_mean([s.dice for s in scored])}** "
                f"| {_mean([s.dice for s in sides if s.in_mean]) if tells else 'does not tell sides'} "
                f"| {_mean([abs(volume_error(s)) for s in scored], 1)} | {_mean([c.cpu_s for c in costs], 0)} "
                f"| {_mean([c.wall_s for c in costs], 0)} | {_mean([c.peak_gb for c in costs], 1)} |"
            )
    lines += [f"\n{r.subject}, {r.copy}, {r.tool}: refused: {r.refused}" for r in runs if r.refused]
    return "\n".join(lines)


def _better(runs: Sequence[Run]) -> str:
    """Which program is closer to the manual labels in which structures of the mean."""
    lines = []
    for name in (n for n in COPIES if any(r.copy == n and r.merged for r in runs)):
        dice: dict[str, list[str]] = {PEER: [], OURS: []}
        volume: dict[str, list[str]] = {PEER: [], OURS: []}
        for structure in sorted({s.structure for r in runs if r.tool == PEER for s in r.merged if s.in_mean}):
            peers, own = (
                [s for r in runs if (r.copy, r.tool) == (name, tool) for s in r.merged if s.structure == structure]
                for tool in (PEER, OURS)
            )
            if peers and own:
                ahead = np.mean([s.dice for s in own]) - np.mean([s.dice for s in peers])
                nearer = abs(np.mean([volume_error(s) for s in peers])) - abs(np.mean([volume_error(s) for s in own]))
                if abs(ahead) > 0.01:
                    dice[OURS if ahead > 0 else PEER].append(structure)
                if abs(nearer) > 3:
                    volume[OURS if nearer > 0 else PEER].append(structure)
        said = [
            f"{tool}: Dice {', '.join(dice[tool]) or 'nowhere'}; volume {', '.join(volume[tool]) or 'nowhere'}."
            for tool in (PEER, OURS)
        ]
        lines.append(f"- {name}: " + " ".join(said))
    return "Better by more than 0.01 of Dice, or a mean volume nearer by more than 3 %:\n\n" + "\n".join(lines)


def _structures(runs: Sequence[Run]) -> str:
    ways = [(name, tool) for name in COPIES for tool in (PEER, OURS)]
    head = " | ".join(f"{tool}, {name}" for name, tool in ways)
    lines = ["| Dice, sides merged | " + head + " |", "|---|" + "---:|" * len(ways)]
    errors = ["| mean volume error % | " + head + " |", "|---|" + "---:|" * len(ways)]
    for structure in sorted({s.structure for r in runs if r.tool == PEER for s in r.merged}):
        of = {
            way: [s for r in runs if (r.copy, r.tool) == way for s in r.merged if s.structure == structure]
            for way in ways
        }
        counted = all(s.in_mean for scores in of.values() for s in scores)
        named = structure if counted else f"{structure} (not in the mean)"
        lines.append(f"| {named} | " + " | ".join(_mean([s.dice for s in of[way]]) for way in ways) + " |")
        signed = [f"{np.mean([volume_error(s) for s in of[way]]):+.0f}" if of[way] else "-" for way in ways]
        errors.append(f"| {named} | " + " | ".join(signed) + " |")
    return "\n".join((*lines, "", *errors))


def _mean(values: Sequence[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f}" if values else "-"


def main() -> int:
    """Measure, print and write the page's table."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    asked.add_argument("--weights", type=Path, required=True, help="the peer's model.pth (a safetensors file)")
    asked.add_argument("--from", dest="data", type=Path, required=True, help="scans with manual labels")
    asked.add_argument("--kept", type=Path, help="keep the peer's labels and costs here, and take those that are there")
    told = asked.parse_args()
    digest = hashlib.sha256(told.weights.read_bytes()).hexdigest()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="arcuate-peer-") as folder:
        kept = told.kept.resolve() / digest[:12] if told.kept else Path(folder) / "peer"
        kept.mkdir(parents=True, exist_ok=True)
        runs = side_by_side(told.data.resolve(), told.weights.resolve(), kept, Path(folder))
    print(table(runs))
    write(PAGE, runs, f"--weights {told.weights.name} --from {told.data.name}", digest, load)
    return 0


def write(page: Path, runs: Sequence[Run], asked: str, digest: str, load: float) -> None:
    """Put the tables into the page, with what was run: our versions, the peer's weights, the day, the machine."""
    version = tomllib.loads((ROOT / "models" / "brain-t1" / "model.toml").read_text(encoding="utf-8"))["version"]
    git = ["git", "-C", str(ROOT)]
    code = subprocess.run([*git, "describe", "--always", "--abbrev=8"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "services"], check=False).returncode
    commit = (code.stdout.strip() or "no commit") + (" with changes" if changed else "")
    days = sorted({r.cost.measured for r in runs if r.tool == PEER})
    how = (
        f"`python -m bench.peer_meshnet {asked}` at {commit}; the peer was run on {' and '.join(days)} "
        f"(weights of sha256 `{digest}`). {os.cpu_count()} cores, load {load:.1f} at the start"
    )
    evaluation.put_table(page, table(runs), f"{version} of brain-t1", how, MARK)


if __name__ == "__main__":
    raise SystemExit(main())
