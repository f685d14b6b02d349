"""The interpreter of `stages.toml`: which stage a case has reached, and what is asked next."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from arcuate.journey.domain import (
    CONDITIONS,
    COUNTS_FROM,
    Answered,
    End,
    Facts,
    blocked,
    fingerprint,
    open_late_task,
    priority_group,
    refused_delivery,
)
from arcuate.kernel.errors import Defect, Json


@dataclass(frozen=True)
class Stage:
    """One stage of the table.

    Attributes:
        limit: Setting that says how many seconds a case may stand here (`{priority}` is replaced); empty: for ever.
        counts_from: What the time is counted from, instead of when the stage was reached.
        listed: List of the reconciler on which it then stands.
        overdue: What people read there.
    """

    name: str
    reached: str
    waits_for: str
    limit: str = ""
    counts_from: str = ""
    listed: str = "stuck"
    overdue: str = ""


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
    aside: Mapping[str, Stage]

    def stage(self, name: str) -> Stage | None:
        """Return a stage, or what stands beside the stages (`waiting`, `parked`); None for the ends."""
        return next((s for s in self.stages if s.name == name), self.aside.get(name))

    def due(self, name: str, facts: Facts, since: datetime, settings: object) -> datetime | None:
        """Return until when a case may stand in a stage; None where nothing is overdue."""
        stage = self.stage(name)
        if stage is None or not (stage.limit or stage.counts_from):
            return None
        begins = (COUNTS_FROM[stage.counts_from](facts) if stage.counts_from else None) or since
        limit = stage.limit.replace("{priority}", priority_group(facts.order))
        return begins + timedelta(seconds=float(getattr(settings, limit)) if limit else 0.0)

    def standing(self, facts: Facts) -> tuple[str, str]:
        """Return the stage at which a case stands and what it waits for."""
        revoked = facts.order is not None and facts.order.get("status") == "revoked"
        if blocked(facts) and not revoked:
            return End.PARKED, f"a person: {facts.held}"
        reached = [stage for stage in self.stages if CONDITIONS[stage.reached](facts)]
        if not reached:
            return "waiting", self.aside["waiting"].waits_for
        last = reached[-1]
        if last.name == "signed" and refused_delivery(facts):
            return last.name, "a person: a receiver refused the report"
        if last.name == "delivered" and open_late_task(facts):
            return last.name, "a reader: images came after the report was signed"
        if last.name in ("signed", "delivered"):
            return last.name, last.waits_for
        if revoked:
            return End.CANCELLED, ""
        if facts.expired:
            return End.EXPIRED, ""
        return last.name, last.waits_for

    def reached(self, facts: Facts) -> list[str]:
        """Return every stage that a case has reached, in order."""
        return [stage.name for stage in self.stages if CONDITIONS[stage.reached](facts)]

    def next_asks(self, facts: Facts) -> Iterator[tuple[Ask, str]]:
        """Yield the questions that are open now, each with the mark of what it follows."""
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
    stages = tuple(Stage(**s) for s in data["stage"])
    aside = {s["name"]: Stage(reached="", **s) for s in data.get("aside", ())}
    asks = tuple(
        Ask(
            a["name"], tuple(a["when"]), tuple(a["follows"]), a["operation"], tuple(a["takes"]), a["limit"], a["silent"]
        )
        for a in data["ask"]
    )
    unknown = [n for n in [s.reached for s in stages] + [w for a in asks for w in a.when] if n not in CONDITIONS]
    unknown += [f for a in asks for f in a.follows if not hasattr(Facts(), f)]
    unknown += [s.counts_from for s in stages if s.counts_from and s.counts_from not in COUNTS_FROM]
    if unknown:
        raise Defect(f"The stage table names what does not exist: {', '.join(unknown)}", where=str(path.name))
    return Table(stages, asks, aside)


def as_mapping(answers: Mapping[str, Answered]) -> dict[str, dict[str, object]]:
    """Return answers as JSON, for storing."""
    return {
        name: {
            "fingerprint": a.fingerprint, "at": a.at.isoformat(), "given_up": a.given_up,
            "again": a.again.isoformat() if a.again else None,
        }
        for name, a in answers.items()
    }  # fmt: skip
