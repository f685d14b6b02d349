"""The synthetic dictation system: takes drafts, lets a synthetic reader sign some of them, and sends the signed report back."""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from arcuate.hospital.morning import Case
from arcuate.kernel.hl7v2.message import Message

_VOLUME = re.compile(r"\d\s?mL\b", re.IGNORECASE)
_GAP = re.compile(r"\[(\w+)[^\]]*to be dictated\]\Z", re.IGNORECASE)
_UNSIGNED = ("P", "R", "S", "I", "A")


@dataclass(frozen=True)
class Draft:
    """A draft as it came over HL7: the accession number and the text, a line each."""

    accession: str
    lines: tuple[str, ...]
    reader: str

    @property
    def measured(self) -> bool:
        """Say whether the draft states volumes."""
        return any(_VOLUME.search(line) for line in self.lines)


@dataclass(frozen=True)
class Words:
    """What synthetic readers type."""

    impressions: Sequence[str]
    findings: str


def load_words() -> Words:
    """Read `data/words.toml`."""
    table = tomllib.loads((files("arcuate.hospital") / "data" / "words.toml").read_text(encoding="utf-8"))
    return Words(table["impressions"], table["findings"])


def read_draft(raw: bytes, cases: Mapping[str, Case]) -> Draft | None:
    """Return the draft that a message carries, None when it is no draft of one of these cases (by accession number)."""
    message = Message.parse(raw)
    obr = message.first("OBR")
    if obr is None or (obr[25] and obr[25].value.strip() not in _UNSIGNED):
        return None
    numbers = [segment[n].component(1) for segment in message if segment.id in ("ORC", "OBR") for n in (18, 3, 2, 20)]
    accession = next((number for number in numbers if number in cases), None)
    if accession is None:
        return None
    lines = [
        line.rstrip()
        for segment in message
        if segment.id == "OBX" and segment[2].value.strip() in ("TX", "FT", "ST")
        for field_line in segment[5].lines
        for line in field_line.splitlines()
    ]
    reader = obr[32].component(1, 2) or obr[32].component(1) or ""
    return Draft(accession, tuple(lines), reader)


def completed(draft: Draft, words: Words) -> tuple[str, ...]:
    """Return the lines that a reader leaves of a draft: without its draft mark, its gaps filled, the impression's heading last."""
    kept: list[str] = []
    for line in draft.lines:
        gap = _GAP.match(line.strip())
        if gap is None and not line.startswith("DRAFT"):
            kept.append(line)
        elif gap is not None and gap[1].casefold() != "impression":
            kept.append(words.findings)
    while kept and not kept[-1].strip():
        kept.pop()
    if not kept or kept[-1].strip().casefold().rstrip(":") != "impression":
        kept += ["", "IMPRESSION"]
    return tuple(kept)


def impression(words: Words, case: Case, seed: int) -> str:
    """Return what the synthetic reader types below the draft of a case."""
    return random.Random(f"{seed} {case.key}").choice(list(words.impressions))  # noqa: S311 - a simulation wants a seeded source
