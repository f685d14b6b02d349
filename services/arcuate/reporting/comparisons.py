"""Left against right, and now against an earlier date, as sentences: beside the limit of measurement error, or within it. Pure.

The imaging room has compared (same model, version and weights only) and judged; nothing is counted here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from arcuate.kernel.codes import Json
from arcuate.reporting.wording import one_line

CS_COMPARISON = "urn:arcuate:cs:comparison"
_STANDING = frozenset({"preliminary", "final"})
_BEYOND = "beyond-measurement-error"


@dataclass(frozen=True)
class Comparisons:
    """What a template may print.

    Attributes:
        beyond: One sentence for each comparison that measurement error does not explain.
        within: One sentence a kind and limit, with the structures of which it holds.
        sources: Where the limits come from.
    """

    beyond: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class _One:
    title: str
    kind: str
    words: str
    percent: Decimal
    limit: Decimal
    beyond: bool
    source: str


def comparisons_of(observations: Sequence[Json], touched: frozenset[str], structure_of: Any) -> Comparisons:
    """Return the comparisons of the machine's values.

    Args:
        observations: Those of the order's studies.
        touched: Structures of which a person has corrected or rejected a value: what was compared is not what stands now.
        structure_of: Returns an Observation's structure.
    """
    found = [
        one for o in observations if o.get("status") in _STANDING and structure_of(o) not in touched for one in _of(o)
    ]
    beyond = tuple(_sentence(one) for one in found if one.beyond)
    groups: dict[tuple[str, str, Decimal], list[str]] = {}
    for one in found:
        if not one.beyond:
            groups.setdefault((one.kind, one.words, one.limit), []).append(one.title)
    within = tuple(_within(kind, words, limit, titles) for (kind, words, limit), titles in groups.items())
    return Comparisons(beyond, within, tuple(dict.fromkeys(one.source for one in found if one.source)))


def _of(observation: Json) -> Iterator[_One]:
    named = str(
        (observation.get("bodySite") or {}).get("text") or (observation.get("code") or {}).get("text") or "value"
    )
    for component in observation.get("component") or []:
        kind = next((c for c in _codes(component.get("code")) if c in ("asymmetry", "change")), "")
        limits = (component.get("referenceRange") or [{}])[0]
        percent, limit = _number(component.get("valueQuantity")), _number(limits.get("high"))
        if not kind or percent is None or limit is None:
            continue
        judged = [c for i in component.get("interpretation") or [] for c in _codes(i)]
        words = one_line(str((component.get("code") or {}).get("text") or ""), 160)
        title = one_line(named.removeprefix("Both sides, ").capitalize(), 60)
        yield _One(title, kind, words, percent, limit, _BEYOND in judged, one_line(str(limits.get("text") or ""), 300))


def _sentence(one: _One) -> str:
    share, limit = f"{abs(one.percent):.0f} %", f"measurement error up to {one.limit.normalize():f} %"
    if one.kind == "asymmetry":
        return f"{one.title}: right {share} {'larger' if one.percent > 0 else 'smaller'} than left ({limit})"
    return f"{one.title}: {share} {'larger' if one.percent > 0 else 'smaller'} ({limit}). {one.words}"


def _within(kind: str, words: str, limit: Decimal, titles: Sequence[str]) -> str:
    what = "Sides" if kind == "asymmetry" else words
    return f"{what}: within measurement error ({limit.normalize():f} %): {', '.join(dict.fromkeys(titles))}"


def _codes(concept: Any) -> list[str]:
    codings = (concept or {}).get("coding") or []
    return [str(c.get("code")) for c in codings if c.get("system") == CS_COMPARISON]


def _number(quantity: Any) -> Decimal | None:
    try:
        made = Decimal(str((quantity or {}).get("value")))
    except InvalidOperation:
        return None
    return made if made.is_finite() else None
