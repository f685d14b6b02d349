"""FHIR R4's invariants: what elements of one object must keep among each other (`invariants.toml`, and those below that need more).

A rule answers with what is wrong and at which element, or None. Universal rules of resources (dom-2 to dom-5, ref-1) stand in `contained.py`.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from arcuate.kernel.errors import Json

UCUM = "http://unitsofmeasure.org"

_TERMS = "http://terminology.hl7.org/CodeSystem/"
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_NUMBER_TYPES = (int, float, Decimal)


@dataclass(frozen=True)
class Broken:
    """A rule that an object breaks: the element under the object ("" for the object itself), and what is wrong."""

    element: str
    what: str


Check = Callable[[Json], Broken | None]


@dataclass(frozen=True)
class Rule:
    """One invariant."""

    id: str
    check: Check


def has(value: Json, name: str) -> bool:
    """Say whether an element stands, as a value or only as its companion (`_start`); `value[x]` is any form of the choice."""
    if name in value or f"_{name}" in value:
        return True
    if not name.endswith("[x]"):
        return False
    stem = name[:-3]
    return any(one.lstrip("_").startswith(stem) and one.lstrip("_")[len(stem) :][:1].isupper() for one in value)


def _any(names: Sequence[str]) -> Check:
    said = " or ".join(names)
    return lambda value: None if any(has(value, name) for name in names) else Broken("", f"{said} must stand")


def _one(names: Sequence[str]) -> Check:
    said = " and ".join(names)
    element = names[0].removesuffix("[x]")

    def check(value: Json) -> Broken | None:
        return Broken(element, f"{said} may not stand together") if all(has(value, name) for name in names) else None

    return check


def _needs(names: Sequence[str]) -> Check:
    first, *others = names

    def check(value: Json) -> Broken | None:
        if not has(value, first):
            return None
        missing = next((name for name in others if not has(value, name)), None)
        return Broken(missing, f"where {first} stands, {missing} must stand") if missing else None

    return check


def _order(names: Sequence[str]) -> Check:
    first, second = names

    def check(value: Json) -> Broken | None:
        low, high = _at(value, first), _at(value, second)
        return Broken(second, f"{second} lies before {first}") if _after(low, high) else None

    return check


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _after(low: Any, high: Any) -> bool:
    """Say whether the first is certainly after the second: two instants, two numbers, or two dates of one length."""
    if isinstance(low, _NUMBER_TYPES) and isinstance(high, _NUMBER_TYPES):
        return low > high
    if not isinstance(low, str) or not isinstance(high, str):
        return False
    if _INSTANT.fullmatch(low) and _INSTANT.fullmatch(high):
        try:
            return _instant(low) > _instant(high)
        except ValueError:  # a leap second, or a year that the calendar does not know
            return False
    length = min(len(low), len(high), 10)
    return low[:length] > high[:length] if "T" not in low[:length] + high[:length] else False


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


_FORMS: Mapping[str, Callable[[Sequence[str]], Check]] = {"any": _any, "one": _one, "needs": _needs, "order": _order}


def _is_code(concept: Any, system: str, *codes: str) -> bool:
    listed = concept.get("coding", []) if isinstance(concept, dict) else []
    return any(isinstance(c, dict) and c.get("system") == _TERMS + system and c.get("code") in codes for c in listed)


def _booked(value: Json) -> Broken | None:
    if value.get("status") in ("proposed", "cancelled", "waitlist") or (has(value, "start") and has(value, "end")):
        return None
    return Broken("start", "only a proposed, cancelled or waitlisted appointment may lack start and end")


def _cancelled(value: Json) -> Broken | None:
    if not has(value, "cancelationReason") or value.get("status") in ("noshow", "cancelled"):
        return None
    return Broken("cancelationReason", "only a cancelled or missed appointment has a reason for it")


def _allergy_status(value: Json) -> Broken | None:
    wrong = _is_code(value.get("verificationStatus"), "allergyintolerance-verification", "entered-in-error")
    if has(value, "clinicalStatus") == wrong:
        return Broken(
            "clinicalStatus", "clinicalStatus must stand unless the entry was an error, and only then it may not"
        )
    return None


def _condition_status(value: Json) -> Broken | None:
    wrong = _is_code(value.get("verificationStatus"), "condition-ver-status", "entered-in-error")
    if wrong and has(value, "clinicalStatus"):
        return Broken("clinicalStatus", "what was entered in error has no clinicalStatus")
    return None


def _abated(value: Json) -> Broken | None:
    over = _is_code(value.get("clinicalStatus"), "condition-clinical", "resolved", "remission", "inactive")
    if has(value, "abatement[x]") and not over:
        return Broken("clinicalStatus", "what has abated is inactive, resolved or in remission")
    return None


def _own_component(value: Json) -> Broken | None:
    if not has(value, "value[x]"):
        return None
    own = _codings(value.get("code"))
    for position, component in enumerate(value.get("component") or []):
        if isinstance(component, dict) and own & _codings(component.get("code")):
            return Broken(f"component[{position}].code", "a component may not carry the code of the Observation")
    return None


def _codings(concept: Any) -> set[tuple[Any, Any]]:
    listed = concept.get("coding", []) if isinstance(concept, dict) else []
    return {(c.get("system"), c.get("code")) for c in listed if isinstance(c, dict)}


def _members(value: Json) -> Broken | None:
    if has(value, "member") and value.get("actual") is not True:
        return Broken("member", "only an actual group has members")
    return None


def _no_home(name: str) -> Check:
    def check(value: Json) -> Broken | None:
        for position, one in enumerate(value.get(name) or []):
            if isinstance(one, dict) and one.get("use") == "home":
                return Broken(f"{name}[{position}].use", "an organization has no home")
        return None

    return check


def _probability(value: Json) -> Broken | None:
    number = value.get("probabilityDecimal")
    if isinstance(number, _NUMBER_TYPES) and number > 100:
        return Broken("probabilityDecimal", "a probability is at most 100")
    return None


def _ratio(value: Json) -> Broken | None:
    if has(value, "numerator") != has(value, "denominator") or not (has(value, "numerator") or has(value, "extension")):
        return Broken("", "numerator and denominator stand together")
    return None


def _coded_unit(value: Json) -> Broken | None:
    return Broken("system", "a code needs its system") if has(value, "code") and not has(value, "system") else None


def _duration(value: Json) -> Broken | None:
    if has(value, "code") and not (value.get("system") == UCUM and has(value, "value")):
        return Broken("code", "a coded unit of time is one of UCUM and has a value")
    return None


def _uid(value: Json) -> Broken | None:
    text = value.get("value")
    if value.get("system") == "urn:dicom:uid" and isinstance(text, str) and not text.startswith("urn:oid:"):
        return Broken("value", "a DICOM UID as identifier begins with urn:oid:")
    return None


def _own_full_urls(value: Json) -> Broken | None:
    seen: set[tuple[str, Any]] = set()
    if value.get("type") == "history":
        return None
    for position, entry in enumerate(value.get("entry") or []):
        if not isinstance(entry, dict) or not isinstance(entry.get("fullUrl"), str):
            continue
        key = (entry["fullUrl"], _at(entry, "resource.meta.versionId"))
        if key in seen:
            return Broken(f"entry[{position}].fullUrl", "a fullUrl stands twice")
        seen.add(key)
    return None


def _requests(value: Json) -> Broken | None:
    expected = value.get("type") in ("batch", "transaction", "history")
    for position, entry in enumerate(value.get("entry") or []):
        if isinstance(entry, dict) and has(entry, "request") != expected:
            return Broken(
                f"entry[{position}].request", "a request stands in a batch, transaction or history, and only there"
            )
    return None


_SPECIAL: Mapping[str, Sequence[Rule]] = {
    "AllergyIntolerance": (Rule("ait-1", _allergy_status),),
    "Appointment": (Rule("app-3", _booked), Rule("app-4", _cancelled)),
    "Bundle": (Rule("bdl-3", _requests), Rule("bdl-7", _own_full_urls)),
    "Condition": (Rule("con-4", _abated), Rule("con-5", _condition_status)),
    "Group": (Rule("grp-1", _members),),
    "Identifier": (Rule("arcuate-uid", _uid),),
    "Observation": (Rule("obs-7", _own_component),),
    "Organization": (Rule("org-2", _no_home("address")), Rule("org-3", _no_home("telecom"))),
    "Ratio": (Rule("rat-1", _ratio),),
    "RiskAssessment.prediction": (Rule("ras-2", _probability),),
    "Duration": (Rule("drt-1", _duration),),
}


@cache
def _table() -> Mapping[str, Sequence[Rule]]:
    text = resources.files(__package__).joinpath("invariants.toml").read_text("utf-8")
    made: dict[str, list[Rule]] = {path: list(rules) for path, rules in _SPECIAL.items()}
    for path, rule in _listed(tomllib.loads(text)):
        made.setdefault(path, []).append(rule)
    return made


def _listed(data: Json) -> Iterator[tuple[str, Rule]]:
    for line in data["rules"]:
        form = next(name for name in _FORMS if name in line)
        yield line["at"], Rule(line["id"], _FORMS[form](line[form]))
    for kind in data["quantities"]:
        yield kind, Rule("qty-3", _coded_unit)


def rules_of(path: str) -> tuple[Rule, ...]:
    """Return the rules of an object: a type (`Period`), or a backbone by its path (`Appointment.participant`)."""
    return tuple(_table().get(path, ()))
