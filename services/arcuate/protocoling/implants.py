"""Implants, devices and metal for MR: what is known of each, from devices, conditions and the indication. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from arcuate.kernel.codes import CS_SNOMED
from arcuate.kernel.errors import BadInput
from arcuate.protocoling.chart import Chart, Stated, icd_of
from arcuate.protocoling.domain import Evidence
from arcuate.protocoling.lexicon import DATA, Concept, Lexicon, alternation, read_toml
from arcuate.protocoling.reading import Mention, Reading, read
from arcuate.protocoling.resources import (
    Json,
    codes_of,
    first_code,
    notes_of,
    objects,
    reference_of,
    string,
    void,
    words_of,
)

POLICIES = frozenset({"identify", "unsafe", "metal", "eye", "step", "none"})


@dataclass(frozen=True)
class ImplantKind:
    """One row of `data/implants.toml`."""

    name: str
    policy: str
    concept: Concept
    step: str = ""


@dataclass(frozen=True)
class ImplantList:
    """All kinds, and a lexicon of their words and of the words that decide about them."""

    kinds: Mapping[str, ImplantKind]
    lexicon: Lexicon


@dataclass
class _Known:
    """What has been gathered of one kind so far."""

    kind: ImplantKind
    said: bool = False
    removed: bool = False
    conditional: bool = False
    incompatible: bool = False
    cleared: bool = False
    eye_cleared: bool = False
    planned: bool = False
    evidence: list[Evidence] = field(default_factory=list)


@dataclass(frozen=True)
class Implants:
    """Facts for rules: names of implants by what they mean; None when devices were not sent and the text names none.

    Attributes:
        unsafe: No MR as ordered (including those stated to be not MR conditional).
        unidentified: Make, model or clearance is not known.
        uncleared: Labelled MR conditional, clearance not stated.
        metal: Metal whose place or kind is unknown.
        eye: Metal in the eye without X-ray or CT.
        steps: Need something before or after the scan that is not planned.
        cleared: Labelled or identified, and cleared.
    """

    unsafe: tuple[str, ...] | None
    unidentified: tuple[str, ...] | None
    uncleared: tuple[str, ...] | None
    metal: tuple[str, ...] | None
    eye: tuple[str, ...] | None
    steps: tuple[str, ...] | None
    cleared: tuple[str, ...]
    step_words: str
    evidence: tuple[Evidence, ...]


def load_implants(cues: Lexicon, folder: Path = DATA) -> ImplantList:
    """Read the kinds and words.

    Raises:
        BadInput: An unknown policy, or words that cannot be read.
    """
    kinds: dict[str, ImplantKind] = {}
    concepts: dict[str, Concept] = {}
    for name, row in read_toml(folder / "implants.toml")["implant"].items():
        if row["policy"] not in POLICIES:
            raise BadInput(f"The implant '{name}' has the unknown policy '{row['policy']}'", where="implants.toml")
        concept = Concept(
            name,
            alternation(row["words"]),
            tuple(c.replace(".", "") for c in row.get("icd10", [])),
            frozenset(row.get("snomed", [])),
        )
        kinds[name] = ImplantKind(name, row["policy"], concept, row.get("step", ""))
        concepts[name] = concept
    for name, words in read_toml(folder / "implant_words.toml").items():
        concepts[f"word:{name}"] = Concept(f"word:{name}", alternation(words))
    return ImplantList(kinds, Lexicon(concepts, cues.cues, {}, frozenset()))


def implants(chart: Chart, stated: Stated, listed: ImplantList) -> Implants:
    """Return the facts about implants."""
    known: dict[str, _Known] = {}
    for device in chart.devices or ():
        if not void(device):
            over = device.get("status") == "inactive"
            _add(known, listed, _device_words(device), [device.get("type")], "device list", reference_of(device), over)
    for condition in chart.conditions or ():
        if not void(condition) and first_code(condition.get("clinicalStatus")) not in {
            "inactive",
            "resolved",
            "remission",
        }:
            _add(
                known,
                listed,
                words_of(condition.get("code")),
                [condition.get("code")],
                "problem list",
                reference_of(condition),
            )
    indication = read(stated.reading.text, listed.lexicon)
    named = _add_reading(known, indication, listed, "indication", "")
    if all(listed.kinds[name].policy == "none" for name in named):
        # The text names no implant of its own: its words are about those on file ("device clinic ok for 1.5 T").
        for entry in known.values():
            _decide(entry, indication, 0, len(indication.text))
    for code in stated.order_icd:
        for kind in listed.kinds.values():
            if kind.concept.has_icd(code) and kind.name not in known:
                known[kind.name] = _Known(
                    kind, said=True, evidence=[Evidence(f"{kind.name} (code {code} on the order)")]
                )
    return _sorted(known, chart.devices is None)


def _device_words(device: Json) -> str:
    names = [string(n.get("name")) for n in objects(device.get("deviceName"))]
    safety = [words_of(s) for s in objects(device.get("safety"))]
    parts = [
        words_of(device.get("type")),
        *names,
        string(device.get("modelNumber")),
        string(device.get("manufacturer")),
        *safety,
        notes_of(device),
    ]
    return " , ".join(part for part in parts if part)


def _add(
    known: dict[str, _Known],
    listed: ImplantList,
    words: str,
    concepts: list[object],
    where: str,
    reference: str,
    over: bool = False,
) -> None:
    reading = read(words, listed.lexicon)
    snomed = {code for concept in concepts for code in codes_of(concept, CS_SNOMED)}
    icd = list(icd_of([c for c in concepts if isinstance(c, dict)]))
    said = _add_reading(known, reading, listed, where, reference, over)
    for kind in listed.kinds.values():
        coded = kind.concept.snomed & snomed or any(kind.concept.has_icd(code) for code in icd)
        if coded and kind.name not in said:
            entry = known.setdefault(kind.name, _Known(kind))
            entry.said = True
            entry.removed |= over
            _decide(entry, reading, 0, len(reading.text))
            entry.evidence.append(Evidence(f"{kind.name} ({where})", reference))


def _add_reading(
    known: dict[str, _Known], reading: Reading, listed: ImplantList, where: str, reference: str, over: bool = False
) -> set[str]:
    """Take up every implant that a text names; return their names."""
    named = [m for m in reading.mentions if m.concept in listed.kinds]
    harmless = [m for m in named if listed.kinds[m.concept].policy == "none"]
    named = [m for m in named if m in harmless or not any(_inside(m, h) for h in harmless)]
    said: set[str] = set()
    for mention in named:
        if not mention.holds:
            continue
        entry = known.setdefault(mention.concept, _Known(listed.kinds[mention.concept]))
        entry.said = True
        # Metal that was taken out of an eye still needs its X-ray; a capped lead stays when the generator goes.
        entry.removed |= (mention.removed and entry.kind.policy != "eye") or over
        first, last = _reach(mention, named)
        _decide(entry, reading, first, last or len(reading.text))
        entry.evidence.append(Evidence(f"{mention.concept} ({where})", reference))
        said.add(mention.concept)
    return said


def _inside(mention: Mention, other: Mention) -> bool:
    return (
        other.start <= mention.start
        and mention.end <= other.end
        and (other.end - other.start) > (mention.end - mention.start)
    )


def _reach(mention: Mention, named: list[Mention]) -> tuple[int, int]:
    """Return the part of the text whose words are about this implant: between the neighbours of another kind."""
    others = [m for m in named if m.concept != mention.concept and not _overlap(m, mention)]
    first = max((m.end for m in others if m.end <= mention.start), default=0)
    last = min((m.start for m in others if m.start >= mention.end), default=0)
    return first, last


def _overlap(one: Mention, other: Mention) -> bool:
    return one.start < other.end and other.start < one.end


def _decide(entry: _Known, reading: Reading, first: int, last: int) -> None:
    words = [m for m in reading.mentions if m.concept.startswith("word:") and m.start >= first and m.end <= last]
    against = [m for m in words if m.concept == "word:not_conditional"]
    entry.incompatible |= bool(against)
    entry.removed |= any(m.concept == "word:gone" and not m.denied for m in words)
    pending = [m for m in words if m.concept == "word:pending"]
    for word in words:
        if word.denied and not (word.denied_after and word.concept == "word:eye_cleared"):
            entry.incompatible |= word.concept == "word:conditional"
            continue
        if word.concept == "word:conditional" and not any(_overlap(word, m) for m in against):
            entry.conditional = True
        entry.cleared |= word.concept == "word:cleared" and not any(_overlap(word, m) for m in pending)
        entry.eye_cleared |= word.concept == "word:eye_cleared"
        entry.planned |= word.concept == "word:planned"


def _sorted(known: Mapping[str, _Known], devices_unknown: bool) -> Implants:
    groups: dict[str, list[_Known]] = {}
    for entry in known.values():
        if entry.said and not entry.removed:
            groups.setdefault(_group(entry), []).append(entry)
    evidence = [e for group, members in groups.items() if group != "none" for entry in members for e in entry.evidence]

    def names(group: str) -> tuple[str, ...] | None:
        found = tuple(entry.kind.name for entry in groups.get(group, ()))
        return None if devices_unknown and not found else found

    steps = " ".join(dict.fromkeys(entry.kind.step for entry in groups.get("step", ())))
    return Implants(
        names("unsafe"), names("unidentified"), names("uncleared"), names("metal"), names("eye"), names("step"), names("cleared") or (),
        steps, tuple(dict.fromkeys(evidence)),
    )  # fmt: skip


def _group(entry: _Known) -> str:
    policy = entry.kind.policy
    if policy == "identify":
        return _identified(entry)
    if policy in {"metal", "eye"}:
        done = entry.eye_cleared or (policy == "metal" and (entry.cleared or entry.conditional))
        return "cleared" if done else policy
    if policy == "step":
        return "cleared" if entry.planned else "step"
    return policy


def _identified(entry: _Known) -> str:
    if entry.incompatible:
        return "unsafe"
    if entry.cleared:
        return "cleared"
    return "uncleared" if entry.conditional else "unidentified"
