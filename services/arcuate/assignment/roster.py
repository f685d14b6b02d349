"""The site's roster as FHIR states it: Practitioner, PractitionerRole, Schedule and Slot become readers with minutes left on shift.

- Skill: `PractitionerRole.specialty` with a coding of `urn:arcuate:cs:skill`; its level 0 to 3 is the extension
  `urn:arcuate:ext:skill-level` (valueInteger) on the specialty. Without it a named skill has level 2.
- Trainee: `PractitionerRole.code` with the code `trainee`. Sites: `PractitionerRole.location`; none named means every site.
- Shift: the Slots of a Schedule whose `actor` is the Practitioner or the PractitionerRole, whatever their status but
  `busy-unavailable` and `entered-in-error`. A pause of up to an hour does not end a shift.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from arcuate.assignment.domain import Reader
from arcuate.kernel.codes import CS_SKILL, Json
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir.bundle import reference_id

EXT_SKILL_LEVEL = "urn:arcuate:ext:skill-level"

_NAMED_LEVEL = 2
_TOP_LEVEL = 3
_PAUSE = timedelta(minutes=60)
_NOT_WORKING = frozenset({"busy-unavailable", "entered-in-error"})


@dataclass(frozen=True)
class Shift:
    """Time on shift from now on: minutes left, and minutes until it begins (0: now)."""

    minutes: int
    begins_in: int


@dataclass(frozen=True)
class _Roles:
    skill: dict[str, int]
    sites: frozenset[str] | None
    trainee: bool
    schedule_actors: frozenset[str]


def readers(resources: Sequence[Json], now: datetime, horizon: timedelta) -> list[Reader]:
    """Return everybody on the roster, in the order of their ids; `held` and `carried` are not known here.

    Args:
        resources: Practitioner, PractitionerRole, Schedule and Slot, among others.
        now: Aware time of planning.
        horizon: A shift that begins later than this from now does not count.
    """
    people = {r["id"]: r for r in resources if r.get("resourceType") == "Practitioner" and r.get("id")}
    roles: dict[str, list[Json]] = {}
    for resource in resources:
        if resource.get("resourceType") == "PractitionerRole" and resource.get("active", True):
            roles.setdefault(reference_id(resource.get("practitioner"), "Practitioner") or "", []).append(resource)
    found = []
    for person_id in sorted(key for key in roles if key):
        person = people.get(person_id, {})
        if person.get("active") is False:
            continue
        facts = _merge(person_id, roles[person_id])
        shift = _shift(_slots(resources, facts.schedule_actors), now, horizon)
        found.append(
            Reader(
                person_id, display_name(person, person_id), facts.skill, facts.sites, shift.minutes, shift.begins_in, facts.trainee
            )
        )  # fmt: skip
    return found


def display_name(person: Json, fallback: str) -> str:
    """Return the name by which colleagues know somebody."""
    name: Json = next(iter(person.get("name") or []), {})
    if name.get("text"):
        return str(name["text"])
    parts = [*name.get("given", []), name.get("family")]
    return " ".join(str(p) for p in parts if p) or f"Reader {fallback[:8]}"


def instant(text: Any, where: str) -> datetime:
    """Return an aware time.

    Raises:
        BadInput: It is no instant, or has no zone.
    """
    try:
        value = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise BadInput("This is no time with a zone", where=where, todo="Write for example 2026-03-17T14:00:00+01:00.")
    return value


def _merge(person_id: str, roles: Iterable[Json]) -> _Roles:
    skill: dict[str, int] = {}
    sites: set[str] = set()
    everywhere, trainee, actors = False, False, {f"Practitioner/{person_id}"}
    for role in roles:
        for specialty in role.get("specialty", []):
            for code, level in _levels(specialty):
                skill[code] = max(skill.get(code, 0), level)
        here = {str(place.get("reference", "")) for place in role.get("location", [])}
        sites |= here
        everywhere = everywhere or not here
        trainee = trainee or any(
            c.get("code") == "trainee" for code in role.get("code", []) for c in code.get("coding", [])
        )
        if role.get("id"):
            actors.add(f"PractitionerRole/{role['id']}")
    return _Roles(skill, None if everywhere else frozenset(sites), trainee, frozenset(actors))


def _levels(specialty: Json) -> Iterable[tuple[str, int]]:
    for coding in specialty.get("coding", []):
        if coding.get("system") != CS_SKILL or not coding.get("code"):
            continue
        stated = [e.get("valueInteger") for e in [*specialty.get("extension", []), *coding.get("extension", [])]
                  if e.get("url") == EXT_SKILL_LEVEL]  # fmt: skip
        level = stated[0] if stated and isinstance(stated[0], int) else _NAMED_LEVEL
        if not 0 <= level <= _TOP_LEVEL:
            raise BadInput(
                f"A skill level is 0 to {_TOP_LEVEL}, not {level}", where="PractitionerRole.specialty",
                todo="Correct the roster.",
            )  # fmt: skip
        yield str(coding["code"]), level


def _slots(resources: Sequence[Json], actors: frozenset[str]) -> list[tuple[datetime, datetime]]:
    schedules = {
        f"Schedule/{r.get('id')}"
        for r in resources
        if r.get("resourceType") == "Schedule"
        and r.get("active", True)
        and any(a.get("reference") in actors for a in r.get("actor", []))
    }
    return sorted(
        (instant(r.get("start"), "Slot.start"), instant(r.get("end"), "Slot.end"))
        for r in resources
        if r.get("resourceType") == "Slot"
        and r.get("status") not in _NOT_WORKING
        and r.get("schedule", {}).get("reference") in schedules
    )


def _shift(slots: Sequence[tuple[datetime, datetime]], now: datetime, horizon: timedelta) -> Shift:
    """Return the shift that runs now, or the next one that begins within the horizon."""
    ahead = [(max(start, now), end) for start, end in slots if end > now]
    if not ahead or ahead[0][0] > now + horizon:
        return Shift(0, 0)
    begins, until, seconds = ahead[0][0], ahead[0][0], 0.0
    for start, end in ahead:
        if start - until > _PAUSE:
            break
        seconds += max(0.0, (end - max(start, until)).total_seconds())
        until = max(until, end)
    return Shift(int(seconds // 60), int((begins - now).total_seconds() // 60))
