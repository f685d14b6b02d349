"""The structures of `structures.toml`: our codes, FreeSurfer numbers and the codes of DICOM and SNOMED CT."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from arcuate.kernel.codes import CS_DICOM, CS_SNOMED, Laterality, Ucum
from arcuate.kernel.errors import Defect

# 99ARCUATE: our own codes, where no standard has one (PS3.16 8.2: private designators begin with 99).
SYSTEMS = {"SCT": CS_SNOMED, "DCM": CS_DICOM, "99ARCUATE": "urn:arcuate:cs:measure"}
# DICOM CID 244 Laterality, SNOMED CT
SIDE_CODES = {
    Laterality.LEFT: ("7771000", "Left"),
    Laterality.RIGHT: ("24028007", "Right"),
    Laterality.BILATERAL: ("51440002", "Bilateral"),
}


@dataclass(frozen=True)
class ConceptCode:
    """A code of a DICOM context group: scheme as DICOM writes it (`SCT`, `DCM`), value, meaning."""

    scheme: str
    value: str
    meaning: str

    @property
    def system(self) -> str:
        """The scheme's FHIR system."""
        return SYSTEMS[self.scheme]


VOLUME = ConceptCode("SCT", "118565006", "Volume")
ANATOMY = ConceptCode("SCT", "91723000", "Anatomical Structure")  # CID 7150 Segmentation Property Category


@dataclass(frozen=True)
class Part:
    """One structure on one side: what is measured as one value.

    Attributes:
        side: None for structures in the middle; bilateral for both sides of a paired one together.
        labels: FreeSurfer numbers of its voxels; empty where it is no set of voxels.
        volume: The code of the anatomy in SR. measures: what of it is measured; unit: in which UCUM unit.
        category: What kind of thing its segment is (CID 7150).
    """

    structure: str
    side: Laterality | None
    name: str
    labels: tuple[int, ...]
    volume: ConceptCode
    segment: ConceptCode
    colour: tuple[int, int, int]
    own_segment: bool
    plane: str
    measures: ConceptCode
    unit: str
    category: ConceptCode = ANATOMY

    @property
    def title(self) -> str:
        """How people name it: side in full, first."""
        if self.side is None:
            return self.name
        lower = f"{self.name[0].lower()}{self.name[1:]}"
        return f"Both sides, {lower}" if self.side is Laterality.BILATERAL else f"{self.side.capitalize()} {lower}"

    @property
    def key(self) -> str:
        """Its identifier within one study, for example `hippocampus-left`."""
        return f"{self.structure}-{self.side}" if self.side else self.structure


@cache
def parts() -> tuple[Part, ...]:
    """Return all parts in the order of the file: left, right, both together."""
    table = tomllib.loads(files("arcuate.imaging").joinpath("structures.toml").read_text("utf-8"))
    return tuple(part for entry in table["structure"] for part in _parts(entry))


def part(structure: str, side: Laterality | None) -> Part:
    """Return one part.

    Raises:
        Defect: The file does not know it.
    """
    found = next((p for p in parts() if p.structure == structure and p.side == side), None)
    if found is None:
        raise Defect(f"structures.toml has no {structure} with side {side or 'none'}", where="imaging/structures.toml")
    return found


def _parts(entry: dict[str, Any]) -> Iterator[Part]:
    volume = ConceptCode(**entry["volume"])
    segment = ConceptCode(**entry["segment"]) if "segment" in entry else volume
    own, colour, plane = entry.get("own_segment", True), tuple(entry["colour"]), entry.get("plane", "coronal")
    measures = ConceptCode(**entry["measures"]) if "measures" in entry else VOLUME
    unit = entry.get("unit", Ucum.MILLILITRE)
    category = ConceptCode(**entry["category"]) if "category" in entry else ANATOMY

    def made(side: Laterality | None, labels: tuple[int, ...], own: bool) -> Part:
        return Part(
            entry["code"], side, entry["name"], labels, volume, segment, colour, own, plane, measures, unit, category
        )

    if "left" not in entry:
        yield made(None, tuple(entry["middle"]), own)
        return
    for side in (Laterality.LEFT, Laterality.RIGHT):
        yield made(side, tuple(entry[side.value]), own)
    yield made(Laterality.BILATERAL, (*entry["left"], *entry["right"]), False)
