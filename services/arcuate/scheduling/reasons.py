"""From XGBoost's contributions to reasons that a scheduler can use (`data/reasons.toml`)."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from arcuate.scheduling.domain import Feature, Reason

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SMALL = 0.5
_SHOWN = 5


@dataclass(frozen=True)
class Say:
    """A sentence and the bounds of features under which it holds."""

    text: str
    when: Mapping[str, tuple[float, float]]

    def holds(self, values: Mapping[str, float]) -> bool:
        """Say whether every named feature lies within its bounds; an unknown one does not."""
        return all(low <= values.get(name, math.nan) <= high for name, (low, high) in self.when.items())


@dataclass(frozen=True)
class Group:
    """Features that make one reason together."""

    name: str
    features: tuple[str, ...]
    says: tuple[Say, ...]

    def sentence(self, values: Mapping[str, float]) -> str:
        """Return the first sentence that holds, with values as people read them."""
        say = next(s for s in self.says if s.holds(values))
        return say.text.format_map(
            {name: written(name, value) for name, value in values.items() if name.isidentifier()}
        )


@dataclass(frozen=True)
class Words:
    """The table of reasons."""

    groups: tuple[Group, ...]
    inputs: Mapping[str, str]


@cache
def load_words() -> Words:
    """Read the table of reasons."""
    table = tomllib.loads((files("arcuate.scheduling") / "data" / "reasons.toml").read_text(encoding="utf-8"))
    groups = tuple(
        Group(
            g["name"], tuple(g["features"]),
            tuple(Say(s["text"], {n: (b[0], b[1]) for n, b in s.get("when", {}).items()}) for s in g["say"]),
        )
        for g in table["group"]
    )  # fmt: skip
    return Words(groups, table["inputs"])


def written(name: str, value: float) -> str:
    """Return a feature's value as people read it."""
    if math.isnan(value):
        return "?"
    if name == "weekday":
        return _DAYS[int(value)]
    if name == "hour":
        return f"{int(value):02d}:{round(value % 1 * 60):02d}"
    return str(int(value))


def missing(words: Words, features: Sequence[Feature], values: Mapping[str, float]) -> tuple[str, ...]:
    """Return words for the inputs that were not known; each is named once."""
    absent = [f.name for f in features if not f.optional and math.isnan(values[f.name])]
    return tuple(dict.fromkeys(words.inputs.get(name.split("=")[0], name) for name in absent))


def explain(
    words: Words, names: Sequence[str], values: Mapping[str, float], contributions: Sequence[float], base: float,
    chance: Callable[[float], float],
) -> tuple[Reason, ...]:  # fmt: skip
    """Return reasons, strongest first, whose points lead from the site's rate to the chance.

    The groups' contributions are added one after the other, largest first, and each gets the change of the calibrated chance
    that it makes. What is small is summed up in a last line, so that the points close.

    Args:
        contributions: One a feature, in log odds, and the common part as the last.
        base: The site's rate.
        chance: The calibrated chance at a log odds of the boosters.
    """
    at = float(contributions[-1])
    by_name = dict(zip(names, contributions[:-1], strict=True))
    sums = sorted(
        ((sum(float(by_name.get(f, 0.0)) for f in group.features), group) for group in words.groups),
        key=lambda pair: -abs(pair[0]),
    )
    reasons: list[Reason] = []
    for amount, group in sums:
        points = 100 * (chance(at + amount) - chance(at))
        at += amount
        if abs(points) >= _SMALL and len(reasons) < _SHOWN:
            reasons.append(Reason(group.sentence(values), round(points, 1)))
    rest = 100 * (chance(at) - base) - sum(r.points for r in reasons)
    if abs(rest) >= _SMALL:
        reasons.append(Reason("everything else", round(rest, 1)))
    return tuple(reasons)
