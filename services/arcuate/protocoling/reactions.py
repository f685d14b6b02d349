"""Earlier reactions to contrast media: which class, how bad, and whether there is a plan. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arcuate.kernel.codes import CS_SNOMED
from arcuate.protocoling.chart import Chart, Stated
from arcuate.protocoling.domain import Evidence, Exam
from arcuate.protocoling.lexicon import DATA, Concept, Lexicon, alternation, read_toml
from arcuate.protocoling.reading import Reading, normalise, read
from arcuate.protocoling.resources import (
    Json,
    codes_of,
    first_code,
    notes_of,
    objects,
    reference_of,
    string,
    text_of,
    void,
    words_of,
)

_ORDER = ("none", "unknown", "mild", "moderate", "severe")
_CLASS_OF_EXAM = {"iodinated": "iodinated", "intrathecal": "iodinated", "gbca": "gadolinium"}


@dataclass(frozen=True)
class ReactionWords:
    """`data/contrast_agents.toml`, compiled."""

    agents: Lexicon
    group_one: re.Pattern[str]
    snomed: Mapping[str, str]
    kinds: Mapping[str, re.Pattern[str]]
    near: int


@dataclass(frozen=True)
class Reaction:
    """One reaction on file or in the text."""

    agent_class: str
    severity: str
    delayed_skin: bool
    evidence: Evidence


@dataclass(frozen=True)
class Reactions:
    """Facts for rules, about the class of contrast that is ordered.

    Attributes:
        same_class: `none`, `unknown` (no reaction described), `mild`, `moderate`, `severe`; None when allergies were not sent.
        unspecified: A reaction to a contrast medium whose class nobody wrote down.
        delayed_skin: A severe delayed skin reaction to the class.
        group_one_agent: The indication names a group I gadolinium agent to be given.
    """

    same_class: str | None
    unspecified: str | None
    delayed_skin: bool | None
    group_one_agent: bool
    evidence: tuple[Evidence, ...] = ()


def load_reactions(cues: Lexicon, folder: Path = DATA) -> ReactionWords:
    """Read the words of agents and reactions.

    Raises:
        BadInput: They cannot be read.
    """
    tables = read_toml(folder / "contrast_agents.toml")
    agents = dict(tables["agents"])
    group_one = alternation(agents.pop("group_one_gadolinium"))
    concepts = {name: Concept(name, alternation(words)) for name, words in agents.items()}
    kinds = {name: alternation(words) for name, words in tables["reaction"].items()}
    return ReactionWords(
        Lexicon(concepts, cues.cues, {}, frozenset()),
        group_one,
        tables["agents_snomed"],
        kinds,
        int(tables["near"]["characters"]),
    )


def reactions(chart: Chart, stated: Stated, exam: Exam, words: ReactionWords) -> Reactions:
    """Return the facts about earlier reactions, as far as they concern the class of contrast ordered."""
    found = [r for allergy in chart.allergies or () if (r := of_allergy(allergy, words)) is not None]
    found += of_text(stated.reading, words)
    group_one = bool(words.group_one.search(stated.reading.text))
    wanted = _CLASS_OF_EXAM.get(exam.contrast or "")
    if exam.contrast is None:
        return Reactions(None, None, None, group_one)
    same = [r for r in found if r.agent_class == wanted]
    # In common use "contrast" or "dye" alone is the iodinated one; for gadolinium the class must be asked for.
    open_class = [r for r in found if r.agent_class == "unspecified"]
    if wanted == "iodinated":
        same, open_class = same + open_class, []
    if wanted is None:
        same = open_class = []
    unknown = chart.allergies is None
    return Reactions(
        _worst(same) if same or not unknown else None,
        _worst(open_class) if open_class or not unknown else None,
        any(r.delayed_skin for r in same) if same or not unknown else None,
        group_one,
        tuple(dict.fromkeys(r.evidence for r in (*same, *open_class))),
    )


def _worst(found: list[Reaction]) -> str:
    return max((r.severity for r in found), key=_ORDER.index, default="none")


def of_allergy(allergy: Json, words: ReactionWords) -> Reaction | None:
    """Return the contrast reaction that an AllergyIntolerance states, or None when it is about something else."""
    if void(allergy) or first_code(allergy.get("clinicalStatus")) in {"inactive", "resolved"}:
        return None
    entries = objects(allergy.get("reaction"))
    names = [words_of(allergy.get("code")), *(words_of(e.get("substance")) for e in entries)]
    agent = _agent(" ; ".join(n for n in names if n), allergy, words)
    if agent is None:
        return None
    told = [words_of(m) for e in entries for m in objects(e.get("manifestation"))]
    told += [string(e.get("description")) for e in entries] + [notes_of(allergy)]
    stated = [string(e.get("severity")) for e in entries if e.get("severity")]
    if allergy.get("criticality") == "high":
        stated.append("severe")
    severity, delayed = graded(" ; ".join(t for t in told if t), stated, words)
    if severity is None:
        return None
    name = (text_of(allergy.get("code")) or names[0])[:60]
    return Reaction(agent, severity, delayed, Evidence(f"{name}: {_SAID[severity]}", reference_of(allergy)))


_SAID = {
    "unknown": "reaction not described",
    "mild": "mild reaction",
    "moderate": "moderate reaction",
    "severe": "severe reaction",
}


def _agent(name: str, allergy: Json, words: ReactionWords) -> str | None:
    mentioned = {m.concept for m in read(name, words.agents).mentions if m.holds}
    for kind in ("iodinated", "gadolinium"):
        if kind in mentioned:
            return kind
    coded = [words.snomed[c] for c in codes_of(allergy.get("code"), CS_SNOMED) if c in words.snomed]
    if coded and "iodin" in normalise(name):
        return "iodinated"
    return coded[0] if coded else ("unspecified" if "unspecified" in mentioned else None)


def graded(told: str, stated: list[str], words: ReactionWords) -> tuple[str | None, bool]:
    """Return severity and whether it was a delayed skin reaction; None when what is told is no allergic reaction.

    Args:
        told: Manifestations and descriptions in words.
        stated: Severities as coded (`mild`, `moderate`, `severe`).
    """
    plain = normalise(told)
    if words.kinds["delayed_skin"].search(plain):
        return "severe", True
    hits = [kind for kind in ("severe", "moderate", "mild") if words.kinds[kind].search(plain)]
    if not hits and words.kinds["not_a_reaction"].search(plain):
        return None, False
    grades = hits + [s for s in stated if s in _ORDER]
    return max(grades, key=_ORDER.index, default="unknown"), False


_ALLERGY = re.compile(r"\b(?:allerg\w*|reaction|rxn|react\w*|anaphyl\w*|intoleran\w*|adverse|sensitiv\w*)\b")


def of_text(reading: Reading, words: ReactionWords) -> list[Reaction]:
    """Return the contrast reactions that an indication states: an agent with a reaction word near it, not denied."""
    found: list[Reaction] = []
    mentions = read(reading.text, words.agents).mentions
    for mention in mentions:
        if not mention.holds or any(
            m is not mention and m.start <= mention.start and m.end >= mention.end and m.concept != "unspecified"
            for m in mentions
        ):
            continue
        start, end = max(0, mention.start - words.near), mention.end + words.near
        around = _same_sentence(reading.text, start, mention.start, mention.end, end)
        severity, delayed = graded(around, [], words)
        if severity is None or (severity == "unknown" and not _ALLERGY.search(around)) or _denied(around):
            continue
        found.append(
            Reaction(mention.concept, severity, delayed, Evidence(f"{mention.words}: {_SAID[severity]} (indication)"))
        )
    return found


def _same_sentence(text: str, start: int, first: int, last: int, end: int) -> str:
    before = re.split(r"[.;\n](?=\s|$)", text[start:first])[-1]
    after = re.split(r"[.;\n](?=\s|$)", text[last:end])[0]
    return before + text[first:last] + after


def _denied(around: str) -> bool:
    return bool(
        re.search(
            r"\b(?:no|denies|without|never|nkda|nka)\b[^,;.]{0,24}\b(?:allerg\w*|reaction\w*|problem\w*|issue\w*)",
            around,
        )
    )
