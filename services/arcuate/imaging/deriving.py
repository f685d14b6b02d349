"""The objects that follow from a measurement: SEG, SR, pictures. Imported late: its libraries take a second to load."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from arcuate.imaging import derived, gallery, picture, secondary_capture, structures, viewing
from arcuate.imaging.gallery import Exhibit
from arcuate.imaging.picture import Layer
from arcuate.imaging.secondary_capture import KeyImage
from arcuate.imaging.seg import build_seg, present_parts
from arcuate.imaging.sr import build_sr

if TYPE_CHECKING:
    from arcuate.imaging.quantify import Measurement


@dataclass(frozen=True)
class Derived:
    """The objects that follow from a measurement, as bytes; SEG and SR only for DICOM input, gallery and key images where asked for."""

    seg: bytes | None
    sr: bytes | None
    qc: bytes
    gallery: bytes
    key_images: tuple[bytes, ...] = ()


def derive(measurement: Measurement, at: datetime, gallery: bool = True) -> Derived:
    """Make SEG and SR in one thread, pictures in another.

    Args:
        at: When it was measured, local time of the site.
        gallery: Also what the pages show of it (pictures of each structure, volumes for the viewer) and key images for the PACS; else there are none.
    """
    with ThreadPoolExecutor(1) as other:
        shown = other.submit(_pictures, measurement, gallery)
        seg, sr = _objects(measurement, at)
        qc, packed, key_images = shown.result()
    if not measurement.choice:
        return Derived(seg, sr, qc, packed)
    grid, finding = measurement.choice.grid, measurement.finding
    made = secondary_capture.build(grid, key_images, finding.model, at, measurement.pipeline)
    return Derived(seg, sr, qc, packed, tuple(derived.encode(one) for one in made))


def _objects(measurement: Measurement, at: datetime) -> tuple[bytes | None, bytes | None]:
    if not measurement.choice:
        return None, None
    grid, finding, pipeline = measurement.choice.grid, measurement.finding, measurement.pipeline
    seg = build_seg(grid, finding.labels, finding.model, at, pipeline)
    report = build_sr(grid, seg, finding.measured, finding.model, at, pipeline)
    return derived.encode(seg) if seg is not None else None, derived.encode(report)


def _pictures(measurement: Measurement, whole: bool) -> tuple[bytes, bytes, list[KeyImage]]:
    finding, volume = measurement.finding, measurement.volume
    labels, codes = finding.labels, [m.structure for m in finding.measured]
    doubt = finding.uncertainty.entropy if finding.uncertainty else None
    scan = picture.upright(volume.data, labels, volume.affine, doubt)
    qc = picture.qc_picture(scan, present_parts(labels), _captions(measurement))
    if not whole:
        return qc, b"", []
    exhibits = gallery.make(scan, codes)
    volumes = viewing.made(volume.data, labels, volume.affine, scan.window, codes, doubt)
    return qc, viewing.packed(gallery.pack(exhibits), volumes), _key_images(measurement, exhibits, qc)


def _key_images(measurement: Measurement, exhibits: Sequence[Exhibit], qc: bytes) -> list[KeyImage]:
    """Return the QC picture, and of each key structure the slice that shows most of it: outlined, and with the map of doubt."""
    made = [KeyImage("Three planes with the outlines of all structures", Image.open(BytesIO(qc)))]
    for exhibit in exhibits:
        if exhibit.structure not in secondary_capture.key_structures(measurement.pipeline.name):
            continue
        parts, cut = gallery.shown_parts(exhibit), exhibit.cut
        name = next(p.name for p in structures.parts() if p.structure == exhibit.structure)
        lines = [f"{name}, {cut.caption}", *_captions(measurement)[:1]]
        made.append(KeyImage(f"{name}, outlined", picture.captioned([picture.draw(cut, parts)], lines)))
        if cut.doubt is not None:
            doubt = picture.draw(cut, parts, layer=Layer.UNCERTAINTY)
            told = [*lines, "Map of doubt: bright = undecided. It shows where, not why."]
            made.append(KeyImage(f"{name}, map of the network's doubt", picture.captioned([doubt], told)))
    return made


def _captions(measurement: Measurement) -> list[str]:
    used = measurement.finding.model
    model = f"{used.name} {used.version} ({used.digest[:12]})"
    # The series' own words are left out: people write names into them.
    series = f"series {measurement.choice.facts.number}, " if measurement.choice else ""
    return [f"{series}model {model}", *measurement.warnings[:4]]
