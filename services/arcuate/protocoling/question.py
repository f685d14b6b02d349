"""The question behind an order: on which region and side it is, by text, level and code; and whether there is one at all. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from arcuate.protocoling.chart import Chart, Stated, indication_of
from arcuate.protocoling.domain import Exam
from arcuate.protocoling.lexicon import DATA, Lexicon, read_toml
from arcuate.protocoling.reading import normalise
from arcuate.protocoling.resources import codings, objects, string, text_of, words_of
from arcuate.protocoling.statements import spinal_levels


@dataclass(frozen=True)
class IcdSides:
    """ICD-10-CM codes whose character S tells the side of one group."""

    patterns: tuple[re.Pattern[str], ...]
    group: str
    characters: Mapping[str, str]
    barred: frozenset[str]

    def side(self, code: str) -> str | None:
        """Return the side of a code without its dot."""
        if code in self.barred:
            return None
        found = next((m for pattern in self.patterns if (m := pattern.match(code))), None)
        return self.characters.get(found.group("side")) if found else None


@dataclass(frozen=True)
class RegionTable:
    """`data/regions.toml`."""

    covers: Mapping[str, frozenset[str]]
    names: Mapping[str, str]
    sided: Mapping[str, tuple[frozenset[str], frozenset[str]]]
    icd: tuple[IcdSides, ...]


_SIDE_CHARACTERS = {"1": "right", "2": "left", "3": "bilateral"}


def load_regions(folder: Path = DATA) -> RegionTable:
    """Read the table.

    Raises:
        BadInput: It cannot be read.
    """
    tables = read_toml(folder / "regions.toml")
    icd = tuple(
        IcdSides(
            tuple(_icd_pattern(code) for code in row["codes"]),
            row["group"],
            row.get("characters", _SIDE_CHARACTERS),
            frozenset(row.get("not", [])),
        )
        for row in tables["icd_side"]
    )
    sided = {name: (frozenset(s["strong"]), frozenset(s["weak"])) for name, s in tables["sided"].items()}
    return RegionTable({n: frozenset(r) for n, r in tables["covers"].items()}, tables["names"], sided, icd)


def _icd_pattern(code: str) -> re.Pattern[str]:
    """Return the expression of one entry: the last S is the character of the side, X and the point stand for themselves."""
    bare = code.replace(".", "")
    before, _, after = bare.rpartition("S")
    return re.compile(re.escape(before) + "(?P<side>[0-9])" + re.escape(after))


# ---- region -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Facts for rules.

    Attributes:
        regions: Regions on which the question is; empty when it does not say.
        elsewhere: What the question is about, in words, when the ordered region covers none of it; None when the exam is unknown.
        stated: `stated`, `code only` (the text says nothing, a code does), `filler` (words without a question), `empty`.
        side_conflicts: Contradictions of side, as sentences.
        side_conflict_with_exam: One of them is with the side of the ordered exam.
    """

    regions: tuple[str, ...]
    elsewhere: str | None
    covered: bool | None
    stated: str
    side_conflicts: tuple[str, ...]
    side_conflict_with_exam: bool
    words: int


_SPINE = frozenset({"cervical spine", "thoracic spine", "lumbar spine"})


def question(chart: Chart, stated: Stated, exam: Exam, lexicon: Lexicon, table: RegionTable) -> Question:
    """Return the facts about the question."""
    sets = list(_region_sets(stated, lexicon))
    if exam.region is not None and "spine" in exam.region:
        sets = [
            s for s in sets if len(_SPINE & set(s)) == 1
        ] or sets  # a named level or part decides before "myelopathy"
    regions = tuple(dict.fromkeys(r for s in sets for r in s))
    covers = table.covers.get(exam.region or "")
    covered = None if covers is None else (not sets or any(covers & set(s) for s in sets))
    elsewhere = None
    if covered is False:
        elsewhere = " and ".join(dict.fromkeys(table.names.get(s[0], s[0]) for s in sets[:2]))
    conflicts = list(side_conflicts(chart, stated, exam, table))
    text = indication_of(chart.order)
    return Question(
        regions, elsewhere, covered, _how_stated(text, stated, lexicon), tuple(sentence for sentence, _ in conflicts),
        any(with_exam for _, with_exam in conflicts), len(text.split()),
    )  # fmt: skip


def _region_sets(stated: Stated, lexicon: Lexicon) -> Iterator[tuple[str, ...]]:
    """Yield the regions of each thing asked for, in words or by a code; what is past is not asked for."""
    held = [m for m in stated.reading.mentions if m.holds and not m.removed and lexicon[m.concept].regions]
    current = [m for m in held if not m.past]
    sets = [lexicon[m.concept].regions for m in current]
    sets += [(region,) for region in spinal_levels(stated.reading.text)]
    sets += [lexicon[name].regions for name in sorted(stated.coded) if lexicon[name].regions]
    yield from dict.fromkeys(sets)


_PLAIN_WORD = re.compile(r"[a-z][a-z']*")
_SAYS_NOTHING = (
    "Z00",
    "Z01",
    "Z02",
    "Z09",
    "Z12",
    "Z13",
    "Z71",
    "Z76",
    "Z79",
    "R52",
    "R68",
    "R69",
    "R93",
    "R99",
    "Z99.8",
)


def _how_stated(text: str, stated: Stated, lexicon: Lexicon) -> str:
    words = _PLAIN_WORD.findall(normalise(text))
    telling = [w for w in words if w not in lexicon.filler and len(w) > 1]
    if telling:
        return "stated"
    if any(not code.startswith(_SAYS_NOTHING) for code in stated.order_icd):
        return "code only"
    return "filler" if words else "empty"


# ---- side -------------------------------------------------------------------------------------------------------------


def side_conflicts(chart: Chart, stated: Stated, exam: Exam, table: RegionTable) -> Iterator[tuple[str, bool]]:
    """Yield each contradiction of side as a sentence, and whether it is with the ordered exam."""
    ordered = exam.side if exam.side in {"left", "right"} else None
    for other, where in _order_sides(chart):
        if ordered and other != ordered:
            yield f"The exam is for the {ordered}, the order's {where} says {other}.", True
    coded = [(group, side) for code in stated.order_icd if (found := icd_side(code, table)) for group, side in [found]]
    if ordered and exam.region is not None and exam.region in table.sided:
        strong, weak = table.sided[exam.region]
        said = _said_sides(stated, strong) or _said_sides(stated, weak)
        if said and ordered not in said and "bilateral" not in said:
            yield f"The exam is for the {ordered}, the indication says {_one(said)}.", True
        for group, side in coded:
            if group in strong and side not in ("bilateral", ordered):
                yield f"The exam is for the {ordered}, the diagnosis code for the {side}.", True
    for group, side in coded:
        said = _said_sides(stated, frozenset({group}))
        if len(said) == 1 and side != "bilateral" and said <= {"left", "right"} and side not in said:
            yield f"The indication says {_one(said)}, the diagnosis code {side}.", False


def icd_side(code: str, table: RegionTable) -> tuple[str, str] | None:
    """Return (group, side) of an ICD-10-CM code that carries a side."""
    bare = code.replace(".", "").upper()
    for row in table.icd:
        if (side := row.side(bare)) is not None:
            return row.group, side
    return None


def _said_sides(stated: Stated, groups: frozenset[str]) -> set[str]:
    return {s.side for s in stated.reading.sides if s.group in groups}


def _one(sides: set[str]) -> str:
    return " and ".join(sorted(sides))


_NAMED = re.compile(r"\b(left|right|lt|rt)\b", re.IGNORECASE)


def _order_sides(chart: Chart) -> Iterator[tuple[str, str]]:
    """Yield the sides that the order's own elements state beside the exam's code."""
    order = chart.order
    code = order.get("code")
    places = [("text", text_of(code)), ("name", " ".join(string(c.get("display")) for c in codings(code)))]
    places += [("body site", words_of(site)) for site in objects(order.get("bodySite"))]
    for where, text in places:
        found = {("left" if w.lower() in {"left", "lt"} else "right") for w in _NAMED.findall(text)}
        if len(found) == 1:
            yield found.pop(), where
