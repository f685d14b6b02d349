"""The lexicon: which words, ICD-10-CM codes and SNOMED CT codes stand for which concept. Data, readable by a radiologist.

A phrase in `words` is matched case-insensitively and at word boundaries:

    `pacemaker*`        the rest of the word is free
    `(neck|cervical) pain`   one of several words
    `leads .. capped`   up to three words between
    `first [time] seizure`   a word that may be left out
    `foot ?drop`        the space may be left out
    `pod ?#`            a number
    a space             also matches a hyphen, a slash or several spaces
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.kernel.errors import BadInput

DATA: Path = Path(__file__).parent / "data"

_GAP = r"(?:[^\w.;?]+\w[\w']*){0,3}?[^\w.;?]+"
_BETWEEN = r"[\s\-/]+"
_MAYBE = r"[\s\-/]*"
_GROUP = re.compile(r"\([^)]*\)")
_TOKEN = re.compile(r"\[[^\]]*\]|\S+")


@dataclass(frozen=True)
class Concept:
    """One notion with the words and codes that stand for it.

    Attributes:
        words: Compiled alternation of its phrases; None where only codes stand for it.
        icd10: Prefixes of ICD-10-CM codes, without the dot.
        snomed: SNOMED CT codes.
        rxnorm: RxNorm codes.
        regions: Regions of the body that a question about it looks at; empty when it says nothing of the region.
        question: True when an order that says it has stated a question.
    """

    name: str
    words: re.Pattern[str] | None
    icd10: tuple[str, ...] = ()
    snomed: frozenset[str] = frozenset()
    rxnorm: frozenset[str] = frozenset()
    regions: tuple[str, ...] = ()
    question: bool = False

    def has_icd(self, code: str) -> bool:
        """Return whether an ICD-10-CM code stands for this concept."""
        bare = code.replace(".", "").upper()
        return any(bare.startswith(prefix) for prefix in self.icd10)


@dataclass(frozen=True)
class Lexicon:
    """All concepts by name, and the cues that turn a mention around."""

    concepts: Mapping[str, Concept]
    cues: Mapping[str, re.Pattern[str]]
    sides: Mapping[str, re.Pattern[str]]
    filler: frozenset[str]

    def __getitem__(self, name: str) -> Concept:
        return self.concepts[name]


def phrase_pattern(phrase: str) -> str:
    """Return the regular expression of one phrase, without word boundaries.

    Raises:
        BadInput: An empty phrase or an unbalanced parenthesis.
    """
    tokens = _TOKEN.findall(_GROUP.sub(lambda group: group.group().replace(" ", "~"), phrase.lower()))
    if not tokens or tokens[0] == "..":
        raise BadInput(f"The phrase '{phrase}' of the lexicon is empty or begins with a gap")
    while tokens[-1].startswith("["):  # a word at the end that may be left out changes nothing
        tokens.pop()
    made, joined = "", True  # joined: what stands before needs no separator after it
    for token in tokens:
        if token == "..":  # noqa: S105 - the gap between words
            made, joined = made + _GAP, True
        elif token.startswith("["):
            made += ("" if joined else _BETWEEN) + f"(?:{_token_pattern(f'({token[1:-1]})')}{_BETWEEN})?"
            joined = True
        elif token.startswith("?"):
            made, joined = made + _MAYBE + _token_pattern(token[1:]), False
        else:
            made, joined = made + ("" if joined else _BETWEEN) + _token_pattern(token), False
    try:
        re.compile(made)
    except re.error:
        raise BadInput(f"The phrase '{phrase}' of the lexicon cannot be read", todo="Check its parentheses.") from None
    return made


def _token_pattern(token: str) -> str:
    escaped = re.escape(token)
    for mark, meaning in (
        ("\\(", "(?:"), ("\\)", ")"), ("\\|", "|"), ("\\*", r"[\w']*"), (r"\~\?", _MAYBE), ("\\~", _BETWEEN), ("\\#", r"\d+"),
    ):  # fmt: skip
        escaped = escaped.replace(mark, meaning)
    return escaped


def alternation(phrases: Iterable[str]) -> re.Pattern[str]:
    """Return one pattern for several phrases; longer ones are tried first."""
    parts = sorted((phrase_pattern(p) for p in phrases), key=len, reverse=True)
    return re.compile(r"(?<![\w])(?:" + "|".join(parts) + r")(?![\w])") if parts else re.compile(r"(?!)")


def load_lexicon(folder: Path = DATA / "lexicon") -> Lexicon:
    """Read every file of the lexicon.

    Raises:
        BadInput: A file that is no TOML, a concept that stands twice, a phrase that cannot be read.
    """
    concepts: dict[str, Concept] = {}
    cues: dict[str, re.Pattern[str]] = {}
    sides: dict[str, re.Pattern[str]] = {}
    filler: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        tables = read_toml(path)
        for name, entry in tables.get("concept", {}).items():
            if name in concepts:
                raise BadInput(
                    f"The concept '{name}' stands twice in the lexicon", where=path.name, todo="Keep one of them."
                )
            concepts[name] = _concept(name, entry, path)
        cues |= {name: alternation(words) for name, words in tables.get("cue", {}).items()}
        sides |= {name: alternation(words) for name, words in tables.get("side", {}).items()}
        filler += tables.get("filler", {}).get("words", [])
    return Lexicon(concepts, cues, sides, frozenset(filler))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        BadInput: It cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"The file cannot be read: {error}", where=path.name, todo="Mend the line it names.") from None


_KEYS = frozenset({"words", "icd10", "snomed", "rxnorm", "regions", "question"})


def _concept(name: str, entry: Mapping[str, Any], path: Path) -> Concept:
    if unknown := entry.keys() - _KEYS:
        raise BadInput(f"The concept '{name}' has unknown keys: {', '.join(sorted(unknown))}", where=path.name)
    words = entry.get("words", [])
    return Concept(
        name=name,
        words=alternation(words) if words else None,
        icd10=tuple(code.replace(".", "").upper() for code in entry.get("icd10", [])),
        snomed=frozenset(entry.get("snomed", [])),
        rxnorm=frozenset(entry.get("rxnorm", [])),
        regions=tuple(entry.get("regions", [])),
        question=bool(entry.get("question", False)),
    )
