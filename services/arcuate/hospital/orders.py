"""Orders as people write them: abbreviations, typos, denials, thin ones, and some with an error a rule should find."""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from arcuate.hospital.exams import Exam
from arcuate.hospital.settings import HospitalSettings


@dataclass(frozen=True)
class Fault:
    """An error in an order: the exam, the text as typed, the flag class that should find it, and why."""

    flag: str
    exam: str
    text: str
    why: str
    sex: str = ""
    age: int = 0


@dataclass(frozen=True)
class Wording:
    """The phrases of `data/indications.toml`: by region, and those for any region; `only` holds those that fit one sex, by `F` and `M`."""

    regions: Mapping[str, Mapping[str, Sequence[str]]]
    past: Sequence[str]
    deny: Sequence[str]
    poor: Sequence[str]
    typos: Sequence[Sequence[str]]
    faults: tuple[Fault, ...]
    only: Mapping[str, Sequence[str]]

    def fitting(self, phrases: Sequence[str], sex: str) -> Sequence[str]:
        """Return those of some phrases that can be said of a person of that sex (HL7 table 0001: `F`, `M`)."""
        return [one for one in phrases if all(one not in said for of, said in self.only.items() if of != sex)]


def load_wording() -> Wording:
    """Read the phrases."""
    text = (files("arcuate.hospital") / "data" / "indications.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = tomllib.loads(text)
    faults = tuple(
        Fault(row["class"], row["exam"], row["text"], row["why"], row.get("sex", ""), row.get("age", 0))
        for row in table.pop("fault")
    )
    common = table.pop("any")
    return Wording(table, common["past"], common["deny"], common["poor"], common["typos"], faults, common["only"])


def write_indication(exam: Exam, wording: Wording, settings: HospitalSettings, source: random.Random, sex: str) -> str:
    """Return an indication for that exam and sex as somebody in a hurry types it; the side agrees with a sided exam."""
    if source.random() < settings.poor_indication_share * 0.5:
        return source.choice(wording.poor)
    region = wording.regions[exam.region]
    parts = [source.choice(wording.fitting(region["complaint"], sex))]
    if source.random() < settings.prior_named_share:
        parts.append(source.choice(wording.fitting(wording.past, sex)))
    if source.random() < 0.4:
        parts.append(source.choice(wording.fitting(wording.deny, sex)))
    if source.random() < 1 - settings.poor_indication_share:
        parts.append(source.choice(region["ask"]))
    text = _fill(source.choice([", ", ". ", "; ", " - "]).join(parts), exam.side, source)
    return _mistype(text, wording.typos, source)


def _fill(text: str, side: str, source: random.Random) -> str:
    side = side or source.choice(["left", "right"])
    short = side[0].upper() if source.random() < 0.5 else side
    values = {
        "side": short, "Side": side.capitalize(), "weeks": source.randint(1, 9), "months": source.randint(2, 18),
        "years": source.randint(1, 12), "hours": source.randint(1, 9), "lab": f"{source.randint(30, 180)} ng/mL",
    }  # fmt: skip
    return re.sub(r"\{(\w+)\}", lambda m: str(values[m[1]]), text)


def _mistype(text: str, typos: Sequence[Sequence[str]], source: random.Random) -> str:
    if source.random() < 0.15:
        for right, wrong in typos:
            text = text.replace(right, wrong)
    if source.random() < 0.1:
        text = text.upper()
    elif source.random() < 0.2:
        text = text[:1].upper() + text[1:]
    return text
