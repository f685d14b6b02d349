"""Which exam an order asks for: by its catalogue code, else narrowly by its text."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from arcuate.kernel.codes import CS_EXAM, Json
from arcuate.kernel.errors import BadInput
from arcuate.protocoling.domain import Exam
from arcuate.protocoling.lexicon import DATA, alternation, read_toml
from arcuate.protocoling.reading import normalise
from arcuate.protocoling.resources import codings, text_of

_TECHNIQUES = {
    "angiography": r"\bangiogra\w*|\b[cm]ra\b|\bcta\b",
    "venography": r"\bvenogra\w*|\b[cm]rv\b|\bctv\b",
    "rapid": r"\brapid\b|\bquick\b|\bventricle check\b|\bhaste\b",
    "functional": r"\bfunctional\b|\bfmri\b",
    "perfusion": r"\bperfusion\b",
    "stroke": r"\bstroke\b",
    "myelogram": r"\bmyelogra\w*",
    "puncture": r"\bpuncture\b",
}
_TECHNIQUE = {name: re.compile(pattern) for name, pattern in _TECHNIQUES.items()}


@dataclass(frozen=True)
class ExamWords:
    """The words by which an uncatalogued exam is understood (`data/exam_text.toml`)."""

    modality: Mapping[str, re.Pattern[str]]
    region: Mapping[str, re.Pattern[str]]
    vessels: Mapping[str, tuple[str, str]]
    contrast: Mapping[str, re.Pattern[str]]
    barred: re.Pattern[str]


@dataclass(frozen=True)
class Catalogue:
    """The department's exams by code, and the words for orders that carry none of these codes."""

    exams: Mapping[str, Exam]
    words: ExamWords

    def of_order(self, order: Json) -> Exam:
        """Return the exam of a ServiceRequest; `source` says how it was understood, `unknown` when it was not."""
        code = order.get("code")
        if not isinstance(code, dict):
            return Exam()
        for found in codings(code):
            if found.get("system") == CS_EXAM and str(found.get("code")) in self.exams:
                return self.exams[str(found["code"])]
        understood = self.of_text(t for t in (text_of(code), *(str(c.get("display", "")) for c in codings(code))) if t)
        for found in codings(code):
            listed = self.exams.get(str(found.get("code")))
            # The same code under another system, as HL7 senders write it, counts when its text says the same.
            if listed is not None and (understood.modality, understood.region) == (listed.modality, listed.region):
                return listed
        return understood

    def of_text(self, texts: Iterable[str]) -> Exam:
        """Return the exam that one of these texts names, or an unknown exam that keeps the text."""
        shown = ""
        for text in texts:
            shown = shown or text
            understood = self._understood(text)
            if understood.known:
                return understood
        return Exam(display=shown)

    def _understood(self, text: str) -> Exam:
        plain = normalise(text[:200]).replace("_", " ")
        if self.words.barred.search(plain):
            return Exam(display=text)
        modality = _only(self.words.modality, plain)
        region = _only(self.words.region, plain)
        technique = techniques(plain)
        if region and (vessels := self.words.vessels.get(region)):
            region = vessels[1] if "venography" in technique else vessels[0] if "angiography" in technique else region
        if modality == "CT" and region == "brain":
            region = "head"
        contrast, phases = self._contrast(plain, modality, technique)
        return Exam("", text, modality, region, contrast, _side(plain), technique, phases, "text")

    def _contrast(self, plain: str, modality: str | None, technique: tuple[str, ...]) -> tuple[str | None, int]:
        agent = {"MR": "gbca", "CT": "iodinated", "XA": "iodinated"}.get(modality or "")
        for kind, pattern in self.words.contrast.items():
            if pattern.search(plain):
                return ("none" if kind == "without" else agent), (2 if kind == "both" else 1)
        if modality in {"CT", "XA"} and {"angiography", "venography"} & set(technique):
            return agent, 1
        return None, 1

    def fitting(self, exam: Exam, **wanted: str | None) -> Exam | None:
        """Return the catalogue's exam that equals this one but for the wanted attributes; None when there is none."""
        target = {
            "modality": exam.modality,
            "region": exam.region,
            "contrast": exam.contrast,
            "side": exam.side,
        } | wanted
        fits = [e for e in self.exams.values() if all(getattr(e, name) == value for name, value in target.items())]
        plain = [e for e in fits if not set(e.technique) & {"rapid", "functional", "perfusion"}] or fits
        same_phases = [e for e in plain if e.phases == exam.phases] or plain
        return same_phases[0] if same_phases else None


def techniques(plain: str) -> tuple[str, ...]:
    """Return the technique words of an exam's name (normalised)."""
    return tuple(name for name, pattern in _TECHNIQUE.items() if pattern.search(plain))


def _only(patterns: Mapping[str, re.Pattern[str]], plain: str) -> str | None:
    """Return the one name whose words stand in the text; None when none does or two contradict each other."""
    found = [name for name, pattern in patterns.items() if pattern.search(plain)]
    return found[0] if len(found) == 1 else None


def _side(plain: str) -> str | None:
    left = bool(re.search(r"\b(?:left|lt|l)\b(?![- ]?spine)", plain))
    right = bool(re.search(r"\b(?:right|rt|r)\b", plain))
    if re.search(r"\b(?:bilat\w*|both|b/l)\b", plain) or (left and right):
        return "bilateral"
    return "left" if left else "right" if right else None


def load_catalogue(folder: Path = DATA) -> Catalogue:
    """Read the catalogue and the words.

    Raises:
        BadInput: A file that cannot be read, or a code that stands twice.
    """
    try:
        rows = json.loads((folder / "exam_catalogue.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"The catalogue cannot be read: {error}", where="exam_catalogue.json") from None
    exams: dict[str, Exam] = {}
    for row in rows:
        if row["code"] in exams:
            raise BadInput(f"The code {row['code']} stands twice in the catalogue", where="exam_catalogue.json")
        name = normalise(row["display"])
        exams[row["code"]] = Exam(
            row["code"], row["display"], row["modality"], row["region"], row["contrast"], row["side"], techniques(name),
            2 if "without and with" in name else 1, "catalogue",
        )  # fmt: skip
    tables = read_toml(folder / "exam_text.toml")
    words = ExamWords(
        {name: alternation(w) for name, w in tables["modality"].items()},
        {name: alternation(w) for name, w in tables["region"].items()},
        {name: (v[0], v[1]) for name, v in tables["vessels"].items()},
        {name: alternation(w) for name, w in tables["contrast"].items()},
        alternation(tables["barred"]["words"]),
    )
    return Catalogue(exams, words)
