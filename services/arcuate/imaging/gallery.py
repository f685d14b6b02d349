"""The slices kept with a measurement for the case page: one a structure, small enough to keep when the images have gone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from arcuate.imaging import picture, structures
from arcuate.imaging.picture import Cut, Plane, Upright
from arcuate.imaging.structures import Part
from arcuate.kernel.errors import NotFound

DEFAULT = "hippocampus"


@dataclass(frozen=True)
class Exhibit:
    """The best slice of one structure."""

    structure: str
    cut: Cut


def make(scan: Upright, measured: Sequence[str]) -> list[Exhibit]:
    """Choose for each measured structure the slice that shows most of it."""
    exhibits = []
    for code in dict.fromkeys(measured):
        parts = [p for p in structures.parts() if p.structure == code]
        plane = Plane(parts[0].plane)
        numbers = [n for p in parts for n in p.labels]
        exhibits.append(Exhibit(code, picture.cut(scan, plane, picture.best_index(scan, plane, numbers))))
    return exhibits


def pack(exhibits: Sequence[Exhibit]) -> bytes:
    """Return the exhibits as one compressed file (NumPy npz without objects)."""
    facts, arrays = [], {}
    for k, exhibit in enumerate(exhibits):
        c = exhibit.cut
        arrays[f"grey{k}"], arrays[f"labels{k}"] = c.grey, c.labels.astype(np.uint8)
        if c.doubt is not None:
            arrays[f"doubt{k}"] = c.doubt
        facts.append([exhibit.structure, c.plane, list(c.pixel_mm), c.number, c.count, list(c.window)])
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(packed: bytes) -> list[Exhibit]:
    """Return the exhibits of a packed file."""
    with np.load(BytesIO(packed), allow_pickle=False) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        return [
            Exhibit(
                structure,
                Cut(
                    Plane(plane),
                    arrays[f"grey{k}"],
                    arrays[f"labels{k}"],
                    (mm[0], mm[1]),
                    number,
                    count,
                    (window[0], window[1]),
                    arrays.get(f"doubt{k}"),
                ),
            )
            for k, (structure, plane, mm, number, count, window) in enumerate(facts)
        ]


def find(exhibits: Sequence[Exhibit], structure: str | None) -> Exhibit:
    """Return the exhibit of a structure, or of one with the same labels; without a name that of the hippocampus, or the first.

    Raises:
        NotFound: The structure was not measured.
    """
    wanted = structure or DEFAULT
    same = {p.structure for p in structures.parts() if p.labels and p.labels in _labels(wanted)}
    found = next((e for name in (wanted, *sorted(same)) for e in exhibits if e.structure == name), None)
    if found is None and structure is None and exhibits:
        return exhibits[0]
    if found is None:
        raise NotFound("There is no picture of this structure", todo="Ask for one of the measured structures.")
    return found


def _labels(structure: str) -> set[tuple[int, ...]]:
    return {p.labels for p in structures.parts() if p.structure == structure}


def shown_parts(exhibit: Exhibit) -> list[Part]:
    """Return the parts that are outlined: the structure's own."""
    mine = [p for p in structures.parts() if p.structure == exhibit.structure and p.labels]
    return [p for p in mine if p.side != "bilateral"]


def outlines(exhibit: Exhibit) -> dict[str, Any]:
    """Return the outlines as SVG paths in pixels of the slice, with what a page needs to lay them over the picture."""
    c = exhibit.cut
    rows, columns = c.grey.shape
    return {
        "structure": exhibit.structure,
        "plane": c.plane,
        "slice": c.number,
        "slices": c.count,
        "caption": c.caption,
        "width": columns,
        "height": rows,
        "pixel_mm": {"width": c.pixel_mm[1], "height": c.pixel_mm[0]},
        "paths": [
            {
                "structure": part.structure,
                "side": part.side,
                "title": part.title,
                "colour": "#{:02X}{:02X}{:02X}".format(*part.colour),
                "d": picture.svg_path(np.isin(c.labels, part.labels)),
            }
            for part in shown_parts(exhibit)
        ],
    }
