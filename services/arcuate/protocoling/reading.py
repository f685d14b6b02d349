"""A modest understanding of the indication: which concepts it names, which of them it denies, on which side, since when.

It knows no grammar. It finds phrases of the lexicon and looks at the words around them (cues in `data/lexicon/cues.toml`): denied
("no", "denies"), of the family, in the past, taken out again. What it cannot do stands in the room's README.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from arcuate.protocoling.lexicon import Lexicon

LIMIT = 2000
"""Characters of an indication that are read; the rest is left out and said so."""

_SENTENCE_END = re.compile(r"[;!\n]+|\s-\s|\.(?=\s|$)|\?(?=\s+\w)")
_WORD = re.compile(r"\w[\w']*")
_FRESH = re.compile(
    r",\s*(?:new|now|worse\w*|increas\w*|recent|acute|sudden\w*|progress\w*|c/o|has|pt|ongoing|persistent)\b"
)
_NOT_BEFORE = re.compile(r"\b(?:not|never|hasn't|yet|no|cannot be|can't be)\W*(?:\w+\W+)?$")
_BARE_NO = re.compile(r"^\s*[:\-=?(]\s*no\s*(?:$|[,;.)])")
_LIST_TAIL = re.compile(r"\b(?:or|nor)\b")
_NEAR = 6
_WINDOW = 160
_LIST_REACH = 14


@dataclass(frozen=True)
class Mention:
    """One place where a concept is named.

    Attributes:
        words: The matched words, lower case.
        denied: The text says that it is not so.
        denied_after: It says so only by what follows ("orbit x-ray neg").
        family: It is said of a relative.
        past: It is said of the past.
        removed: It was taken out or is over.
    """

    concept: str
    words: str
    start: int
    end: int
    denied: bool = False
    denied_after: bool = False
    family: bool = False
    past: bool = False
    removed: bool = False

    @property
    def holds(self) -> bool:
        """True when the text says it of this person and does not deny it."""
        return not (self.denied or self.family)


@dataclass(frozen=True)
class SideWord:
    """One side that the text names, and what it is the side of (a group of `sides.toml`, or empty)."""

    side: str
    group: str
    words: str


@dataclass(frozen=True)
class Reading:
    """What was understood of a text."""

    text: str
    mentions: tuple[Mention, ...]
    sides: tuple[SideWord, ...]
    cut: bool = False

    def of(self, *concepts: str) -> tuple[Mention, ...]:
        """Return the mentions of these concepts."""
        return tuple(m for m in self.mentions if m.concept in concepts)

    def says(self, *concepts: str) -> bool:
        """Return whether the text says one of them of this person, now or in the past."""
        return any(m.holds and not m.removed for m in self.of(*concepts))

    def denies(self, *concepts: str) -> bool:
        """Return whether the text names one of them only to deny it."""
        found = self.of(*concepts)
        return bool(found) and all(m.denied or m.removed for m in found)


def normalise(text: str) -> str:
    """Return the text in lower case with plain spaces, dashes and quotes; control characters become spaces."""
    plain = unicodedata.normalize("NFKC", text).lower()
    plain = plain.translate(
        {0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2013: "-", 0x2014: "-", 0x2018: "'", 0x2019: "'", 0x2192: ">"}
    )
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " for c in plain)


def read(text: str, lexicon: Lexicon) -> Reading:
    """Read an indication; never raises, and says when a text was too long to be read to its end."""
    plain = normalise(text[:LIMIT])[: 2 * LIMIT]
    sentences = list(_sentences(plain))
    mentions = [
        _judged(Mention(concept.name, found.group(), found.start(), found.end()), plain, sentences, lexicon)
        for concept in lexicon.concepts.values()
        if concept.words is not None
        for found in concept.words.finditer(plain)
    ]
    return Reading(plain, tuple(mentions), tuple(read_sides(plain, lexicon)), len(text) > LIMIT)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for end in _SENTENCE_END.finditer(text):
        yield start, end.end()
        start = end.end()
    yield start, len(text)


def _judged(mention: Mention, text: str, sentences: list[tuple[int, int]], lexicon: Lexicon) -> Mention:
    first, last = next((s for s in sentences if s[0] <= mention.start < s[1]), (0, len(text)))
    before = text[max(first, mention.start - _WINDOW) : mention.start]
    after = text[mention.end : min(last, mention.end + _WINDOW)]
    cues = lexicon.cues
    if stops := list(cues["stop"].finditer(before)):
        before = before[stops[-1].end() :]
    if fresh := list(_FRESH.finditer(before)):
        before = before[fresh[-1].start() + 1 :]
    if stop := cues["stop"].search(after):
        after = after[: stop.start()]
    denied_before = _denied_before(before, after, lexicon)
    denied_after = _follows(cues["denied_after"], after, 2) or bool(_BARE_NO.match(after))
    return Mention(
        mention.concept,
        mention.words,
        mention.start,
        mention.end,
        denied=denied_before or denied_after,
        denied_after=denied_after and not denied_before,
        family=(bool(cues["family"].search(before)) or _follows(cues["family_after"], after, 2))
        and not cues["family"].search(mention.words),
        past=_precedes(cues["past"], before, 4),
        removed=_follows(cues["removed_after"], after, 4) or _precedes(cues["removed"], before, 3),
    )


def _denied_before(before: str, after: str, lexicon: Lexicon) -> bool:
    """Return whether a denial before the mention reaches it: near, or through a list that ends in "or"."""
    cues = lexicon.cues
    innocent = [m.span() for m in cues["not_a_denial"].finditer(before)]
    for cue, wide in (("denied", False), ("denied_list", True)):
        for found in cues[cue].finditer(before):
            if any(a <= found.start() < b for a, b in innocent):
                continue
            between = before[found.end() :]
            words = len(_WORD.findall(between))
            if "," not in between and "+" not in between:
                if words <= (_LIST_REACH if wide else _NEAR):
                    return True
            elif words <= _LIST_REACH and (wide or _LIST_TAIL.search(between) or _LIST_TAIL.search(after[:60])):
                return True
    return False


def _precedes(cue: re.Pattern[str], before: str, reach: int) -> bool:
    found = list(cue.finditer(before))
    return (
        bool(found) and "," not in before[found[-1].end() :] and len(_WORD.findall(before[found[-1].end() :])) <= reach
    )


def _follows(cue: re.Pattern[str], after: str, reach: int) -> bool:
    found = cue.search(after)
    if found is None:
        return False
    between = after[: found.start()]
    # "leads capped, generator removed": behind a comma it is said of something else, unless it follows at once.
    if _NOT_BEFORE.search(between) or ("," in between and _WORD.search(between.rpartition(",")[2])):
        return False
    return len(_WORD.findall(between)) <= reach


_SIDE = re.compile(
    r"(?<![\w/])(?:(?P<bilateral>bilateral(?:ly)?|bilat\.?|b/l|both(?: sides)?|r>l|l>r|r=l|l=r"
    r"|(?:left|right) (?:and|or|>|<|/) ?(?:left|right)|[lr] ?(?:and|&) ?[lr])"
    r"|(?P<left>left|lt|l|lft)|(?P<right>right|rt|r))(?:[- ]?sided?)?(?![\w/>])"
)
_NOT_A_SIDE = re.compile(
    r"(?:left|right|rt|lt|l|r)[- ]+(?:hand(?:ed|er)|handedness|away|now|dominant|the (?:hospital|clinic|ed)|ama\b|untreated|over\b|on\b"
    r"|spine|s spine)|(?:r|l)\.?h\.?d\b|all right|(?<=\d )l\b|\bl[- ]?s[- ]?spine|was left|has left|had left|r\.o\."
)
_CLAUSE = re.compile(r"[,;:.?(]|\b(?:and|but|with|then|after|s/p|now|for|h/o|hx|due to|2/2|from)\b")


def read_sides(text: str, lexicon: Lexicon) -> Iterator[SideWord]:
    """Yield each side that a text names, with the part of the body that stands nearest in the same clause."""
    barred = [m.span() for m in _NOT_A_SIDE.finditer(text)]
    found = [m for m in _SIDE.finditer(text) if not any(a <= m.start() < b for a, b in barred)]
    for position, match in enumerate(found):
        side = str(match.lastgroup)
        limit = found[position + 1].start() if position + 1 < len(found) else len(text)
        after = _CLAUSE.split(text[match.end() : limit], maxsplit=1)[0]
        begin = found[position - 1].end() if position else 0
        before = _CLAUSE.split(text[begin : match.start()])[-1]
        group = _group(after, lexicon, first=True) or _group(before, lexicon, first=False)
        yield SideWord(side, group, f"{match.group()} {' '.join(after.split()[:2])}".strip())


def _group(text: str, lexicon: Lexicon, *, first: bool) -> str:
    """Return the group of the word nearest to the side: the first one after it, or the last one before it."""
    hits = [(m.start(), name) for name, pattern in lexicon.sides.items() for m in pattern.finditer(text)]
    if not hits:
        return ""
    start, name = min(hits) if first else max(hits)
    distance = len(_WORD.findall(text[:start] if first else text[start:]))
    return name if distance <= 5 else ""
