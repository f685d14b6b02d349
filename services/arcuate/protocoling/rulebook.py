"""Rules and protocols as data (`rules/*.toml`, `data/protocols.toml`): read, checked, applied in order."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.kernel.errors import BadInput
from arcuate.protocoling.domain import HOLD, Absent, Decision, Fix, Flag, FlagClass, Severity, Suggestion, Undecided
from arcuate.protocoling.facts import NAMES, Facts, Knowledge, load_knowledge
from arcuate.protocoling.interpreter import Condition, Verdict, parse
from arcuate.protocoling.lexicon import DATA, read_toml

RULES: Path = Path(__file__).parent / "rules"
ACTIONS = frozenset({"", "set_priority", "replace_exam", "withdraw", "order_egfr"})
_RULE_KEYS = frozenset(
    {
        "id",
        "version",
        "class",
        "severity",
        "when",
        "unless",
        "sentence",
        "fix",
        "action",
        "argument",
        "source",
        "replaces",
    }
)
_PLACE = re.compile(r"\{(\w+)\.(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        when: All must hold.
        unless: None may hold.
        replaces: Rules of the same class that say nothing when this one fires.
        digest: Hash of its content; a changed rule has another one.
    """

    id: str
    version: int
    flag_class: FlagClass
    severity: Severity
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...]
    sentence: str
    fix: Fix
    source: str
    replaces: tuple[str, ...]
    digest: str

    def verdict(self, facts: Facts) -> Verdict:
        """Return whether the rule fires; None when a fact is missing that nobody could look up."""
        if any(condition.holds(facts) is True for condition in self.unless):
            return False
        verdicts = [condition.holds(facts) for condition in self.when]
        if False in verdicts:
            return False
        return None if None in verdicts else True


@dataclass(frozen=True)
class ProtocolRow:
    """One row of `data/protocols.toml`: the first whose conditions hold names the protocol."""

    id: str
    name: str
    when: tuple[Condition, ...]
    why: str


@dataclass(frozen=True)
class Rulebook:
    """All rules, all protocol rows, and the knowledge that they are about."""

    knowledge: Knowledge
    rules: tuple[Rule, ...]
    rows: tuple[ProtocolRow, ...]
    names: Mapping[str, str]
    digest: str

    def decide(self, facts: Facts, go_on: Callable[[], bool] = lambda: True) -> Decision:
        """Apply every rule; `go_on` is asked before each one and ends the work when the time is up.

        A rule that fails inside counts as one that could not run: never as silence.
        """
        fired: list[tuple[Rule, Flag]] = []
        undecided: list[Undecided] = []
        ran = 0
        for position, rule in enumerate(self.rules):
            if not go_on():
                undecided += [Undecided(r.flag_class, "time was up") for r in self.rules[position:]]
                break
            verdict, fault = _applied(rule, facts)
            ran += verdict is not None
            if verdict:
                fired.append((rule, _flag(rule, facts)))
            elif verdict is None and (fault or facts.exam.known):  # an unknown exam is said once, not rule by rule
                undecided.append(Undecided(rule.flag_class, fault or "facts were not sent"))
        silenced = {name for rule, _ in fired for name in rule.replaces}
        flags = tuple(flag for rule, flag in fired if rule.id not in silenced)
        return Decision(flags, self.suggest(facts, flags), tuple(dict.fromkeys(undecided)), ran)

    def suggest(self, facts: Facts, flags: Collection[Flag]) -> Suggestion | None:
        """Return the protocol: HOLD while an interruptive flag waits for an answer, else the first row that fits."""
        stops = [f for f in flags if f.severity is Severity.INTERRUPTIVE and f.flag_class is not FlagClass.PRIORITY]
        if stops:
            return Suggestion(HOLD, self.names[HOLD], f"Open: {stops[0].sentence}", "hold")
        for row in self.rows:
            if all(condition.holds(facts) is True for condition in row.when):
                return Suggestion(row.name, self.names[row.name], row.why, row.id)
        return None


def _applied(rule: Rule, facts: Facts) -> tuple[Verdict, str]:
    try:
        return rule.verdict(facts), ""
    except Exception as error:  # noqa: BLE001 - one broken rule must not silence the others
        return None, f"the rule {rule.id} failed inside ({type(error).__name__})"


def _flag(rule: Rule, facts: Facts) -> Flag:
    fix = Fix(filled(rule.fix.sentence, facts), rule.fix.action, filled(rule.fix.argument, facts))
    return Flag(
        rule.id,
        rule.version,
        rule.flag_class,
        rule.severity,
        filled(rule.sentence, facts),
        fix,
        rule.source,
        facts.evidence(rule.flag_class),
    )


def filled(sentence: str, facts: Facts) -> str:
    """Return a sentence with the facts that it names in braces."""
    return _PLACE.sub(lambda place: _shown(facts.value(place.group(1), place.group(2))), sentence)


def _shown(value: object) -> str:
    if value is None or isinstance(value, Absent):
        return "not known"
    if isinstance(value, tuple):
        return ", ".join(str(v) for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def load_rulebook(rules: Path = RULES, data: Path = DATA, knowledge: Knowledge | None = None) -> Rulebook:
    """Read and check every rule and protocol row.

    Raises:
        BadInput: What is wrong, in which file and rule.
    """
    known = knowledge or load_knowledge()
    concepts = known.lexicon.concepts.keys()
    made = [rule for path in sorted(rules.glob("*.toml")) for rule in _rules(path, concepts)]
    ids = [rule.id for rule in made]
    for rule in made:
        if ids.count(rule.id) > 1:
            raise BadInput(f"Two rules have the id '{rule.id}'", todo="Give each rule its own id.")
        if missing := set(rule.replaces) - set(ids):
            raise BadInput(f"The rule '{rule.id}' replaces rules that do not exist: {', '.join(sorted(missing))}")
    names = json.loads((data / "protocol_names.json").read_text(encoding="utf-8"))
    rows = tuple(_rows(data / "protocols.toml", concepts, names))
    digest = hashlib.sha256("".join(rule.digest for rule in made).encode() + repr(rows).encode()).hexdigest()
    return Rulebook(known, tuple(made), rows, names, digest[:16])


def _rules(path: Path, concepts: Collection[str]) -> Iterator[Rule]:
    for position, entry in enumerate(read_toml(path).get("rule", []), 1):
        yield _rule(entry, concepts, f"{path.name}, rule {entry.get('id', position)}")


def _rule(entry: Mapping[str, Any], concepts: Collection[str], where: str) -> Rule:
    if wrong := entry.keys() ^ (entry.keys() & _RULE_KEYS):
        raise BadInput(
            f"Unknown keys: {', '.join(sorted(wrong))}",
            where=where,
            todo=f"Known are: {', '.join(sorted(_RULE_KEYS))}.",
        )
    needed = ("id", "version", "class", "severity", "when", "sentence", "fix", "source")
    if absent := [key for key in needed if not entry.get(key)]:
        raise BadInput(
            f"The rule lacks: {', '.join(absent)}", where=where, todo="Every rule says what it is, why, and what to do."
        )
    try:
        flag_class, severity = FlagClass(entry["class"]), Severity(entry["severity"])
    except ValueError as error:
        raise BadInput(str(error), where=where, todo="Classes and severities stand in domain.py.") from None
    fix = Fix(entry["fix"], entry.get("action", ""), entry.get("argument", ""))
    if fix.action not in ACTIONS:
        raise BadInput(
            f"There is no action '{fix.action}'", where=where, todo=f"There are: {', '.join(sorted(ACTIONS - {''}))}."
        )
    for text in (entry["sentence"], fix.sentence, fix.argument):
        _check_places(text, where)
    return Rule(
        id=entry["id"], version=int(entry["version"]), flag_class=flag_class, severity=severity,
        when=tuple(parse(c, concepts, where) for c in entry["when"]),
        unless=tuple(parse(c, concepts, where) for c in entry.get("unless", [])),
        sentence=entry["sentence"], fix=fix, source=entry["source"], replaces=tuple(entry.get("replaces", [])),
        digest=hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16],
    )  # fmt: skip


def _check_places(text: str, where: str) -> None:
    for place in _PLACE.finditer(text):
        if (place.group(1), place.group(2)) not in NAMES:
            raise BadInput(f"There is no fact '{place.group(1)}.{place.group(2)}' to put into a sentence", where=where)


def _rows(path: Path, concepts: Collection[str], names: Mapping[str, str]) -> Iterator[ProtocolRow]:
    for position, entry in enumerate(read_toml(path).get("protocol", []), 1):
        where = f"{path.name}, row {position}"
        if entry.get("name") not in names:
            raise BadInput(
                f"'{entry.get('name')}' is no protocol name", where=where, todo="Names stand in protocol_names.json."
            )
        yield ProtocolRow(
            f"row-{position}",
            entry["name"],
            tuple(parse(c, concepts, where) for c in entry["when"]),
            entry.get("why", names[entry["name"]]),
        )
