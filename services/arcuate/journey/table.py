"""The interpreter of `stages.toml`: which stage a case has reached, and what is asked next."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from arcuate.journey.domain import CONDITIONS, Answered, End, Facts, fingerprint
from arcuate.kernel.errors import Defect, Json


@dataclass(frozen=True)
class Stage:
    """One stage of the table."""

    name: str
    reached: str
    waits_for: str


@dataclass(frozen=True)
class Ask:
    """One question to a room.

    Attributes:
        follows: Names of the facts whose change makes it asked again.
        takes: Names of what goes into the Bundle.
        limit: Setting of the time limit; empty when nothing waits for the answer.
    """

    name: str
    when: tuple[str, ...]
    follows: tuple[str, ...]
    operation: str
    takes: tuple[str, ...]
    limit: str
    silent: str


@dataclass(frozen=True)
class Table:
    """The whole table."""

    stages: tuple[Stage, ...]
    asks: tuple[Ask, ...]

    def standing(self, facts: Facts) -> tuple[str, str]:
        """Return the stage at which a case stands and what it waits for."""
        if facts.held:
            return End.PARKED, f"a person: {facts.held}"
        reached = [stage for stage in self.stages if CONDITIONS[stage.reached](facts)]
        if not reached:
            return "waiting", "the order"
        last = reached[-1]
        if last.name in ("signed", "delivered"):
            return last.name, last.waits_for
        if facts.order is not None and facts.order.get("status") == "revoked":
            return End.CANCELLED, ""
        if facts.expired:
            return End.EXPIRED, ""
        return last.name, last.waits_for

    def reached(self, facts: Facts) -> list[str]:
        """Return every stage that a case has reached, in order."""
        return [stage.name for stage in self.stages if CONDITIONS[stage.reached](facts)]

    def next_asks(self, facts: Facts) -> Iterator[tuple[Ask, str]]:
        """Yield the questions that are open now, each with the mark of what it follows."""
        if facts.held:
            return
        for ask in self.asks:
            mark = mark_of(ask, facts)
            if all(CONDITIONS[name](facts) for name in ask.when) and not _settled(facts.answered.get(ask.name), mark):
                yield ask, mark


def _settled(answer: Answered | None, mark: str) -> bool:
    return answer is not None and answer.fingerprint == mark and not answer.given_up


def mark_of(ask: Ask, facts: Facts) -> str:
    """Return the mark of the resources that a question follows."""
    followed: list[Json] = []
    for name in ask.follows:
        value = getattr(facts, name)
        followed.extend([] if value is None else [value] if isinstance(value, dict) else value)
    return fingerprint(followed)


def load_table(path: Path = Path(__file__).parent / "stages.toml") -> Table:
    """Read the table.

    Raises:
        Defect: It names a condition or fact that does not exist.
    """
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    stages = tuple(Stage(s["name"], s["reached"], s["waits_for"]) for s in data["stage"])
    asks = tuple(
        Ask(
            a["name"], tuple(a["when"]), tuple(a["follows"]), a["operation"], tuple(a["takes"]), a["limit"], a["silent"]
        )
        for a in data["ask"]
    )
    unknown = [n for n in [s.reached for s in stages] + [w for a in asks for w in a.when] if n not in CONDITIONS]
    unknown += [f for a in asks for f in a.follows if not hasattr(Facts(), f)]
    if unknown:
        raise Defect(f"The stage table names what does not exist: {', '.join(unknown)}", where=str(path.name))
    return Table(stages, asks)


def as_mapping(answers: Mapping[str, Answered]) -> dict[str, dict[str, object]]:
    """Return answers as JSON, for storing."""
    return {
        n: {"fingerprint": a.fingerprint, "at": a.at.isoformat(), "given_up": a.given_up} for n, a in answers.items()
    }
