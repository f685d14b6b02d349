"""The objects that follow from a measurement: SEG, SR, pictures. Imported late: its libraries take a second to load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from arcuate.imaging import derived, gallery, picture, viewing
from arcuate.imaging.seg import build_seg, present_parts
from arcuate.imaging.sr import build_sr

if TYPE_CHECKING:
    from arcuate.imaging.quantify import Measurement


@dataclass(frozen=True)
class Derived:
    """The objects that follow from a measurement, as bytes; SEG and SR only for DICOM input, the gallery where it was asked for."""

    seg: bytes | None
    sr: bytes | None
    qc: bytes
    gallery: bytes


def derive(measurement: Measurement, at: datetime, gallery: bool = True) -> Derived:
    """Make SEG and SR in one thread, pictures in another.

    Args:
        at: When it was measured, local time of the site.
        gallery: Also what the pages show of it (pictures of each structure, volumes for the viewer); else it is empty.
    """
    with ThreadPoolExecutor(1) as other:
        shown = other.submit(_pictures, measurement, gallery)
        seg, sr = _objects(measurement, at)
        qc, packed = shown.result()
    return Derived(seg, sr, qc, packed)


def _objects(measurement: Measurement, at: datetime) -> tuple[bytes | None, bytes | None]:
    if not measurement.choice:
        return None, None
    grid, finding, pipeline = measurement.choice.grid, measurement.finding, measurement.pipeline
    seg = build_seg(grid, finding.labels, finding.model, at, pipeline)
    report = build_sr(grid, seg, finding.measured, finding.model, at, pipeline)
    return derived.encode(seg) if seg is not None else None, derived.encode(report)


def _pictures(measurement: Measurement, whole: bool) -> tuple[bytes, bytes]:
    finding, volume = measurement.finding, measurement.volume
    labels, codes = finding.labels, [m.structure for m in finding.measured]
    doubt = finding.uncertainty.entropy if finding.uncertainty else None
    scan = picture.upright(volume.data, labels, volume.affine, doubt)
    qc = picture.qc_picture(scan, present_parts(labels), _captions(measurement))
    if not whole:
        return qc, b""
    exhibits = gallery.make(scan, codes)
    volumes = viewing.made(volume.data, labels, volume.affine, scan.window, codes, doubt)
    return qc, viewing.packed(gallery.pack(exhibits), volumes)


def _captions(measurement: Measurement) -> list[str]:
    used = measurement.finding.model
    model = f"{used.name} {used.version} ({used.digest[:12]})"
    # The series' own words are left out: people write names into them.
    series = f"series {measurement.choice.facts.number}, " if measurement.choice else ""
    return [f"{series}model {model}", *measurement.warnings[:4]]
