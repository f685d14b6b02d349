"""Readers with skills and shifts, as the FHIR resources in which a site states its roster."""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

from arcuate.hospital.patients import ASSIGNER, TEST_DATA
from arcuate.kernel.codes import CS_SKILL, Json, concept
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry

SYSTEM_READER = f"urn:arcuate:id:practitioner:{ASSIGNER}"
SYSTEM_ROSTER = f"urn:arcuate:id:roster:{ASSIGNER}"
EXT_SKILL_LEVEL = "urn:arcuate:ext:skill-level"
CS_ROLE = "urn:arcuate:cs:role"


@dataclass(frozen=True)
class Reader:
    """One invented reader: levels 0 to 3 by field (`urn:arcuate:cs:skill`), and today's shift."""

    name: str
    skill: Mapping[str, int]
    trainee: bool
    begins: datetime
    ends: datetime


def load_readers(now: datetime, place: Callable[[float], datetime]) -> tuple[Reader, ...]:
    """Read the roster; `place` turns minutes from now into a time of the day."""
    text = (files("arcuate.hospital") / "data" / "readers.toml").read_text(encoding="utf-8")
    return tuple(
        Reader(r["name"], r["skill"], r.get("trainee", False), min(place(r["from"]), now), place(r["until"]))
        if r["from"] < 0
        else Reader(r["name"], r["skill"], r.get("trainee", False), place(r["from"]), place(r["until"]))
        for r in tomllib.loads(text)["reader"]
    )


def roster_entries(readers: Iterable[Reader]) -> list[Entry]:
    """Return Practitioner, PractitionerRole, Schedule and Slot of every reader; sent again, they change nothing."""
    return [entry for reader in readers for entry in _entries(reader)]


def _entries(reader: Reader) -> list[Entry]:
    def kept(resource: Json, system: str, value: str) -> Entry:
        resource = {**resource, "meta": TEST_DATA, "identifier": [{"system": system, "value": value}]}
        return bundle.update_where(resource, {"identifier": f"{system}|{value}"})

    person = kept(
        {"resourceType": "Practitioner", "active": True, "name": [{"use": "official", "text": reader.name}]},
        SYSTEM_READER, reader.name,
    )  # fmt: skip
    role = kept(
        {
            "resourceType": "PractitionerRole", "active": True,
            "practitioner": {**person.reference, "display": reader.name},
            "code": [concept(CS_ROLE, "trainee" if reader.trainee else "reader")],
            "specialty": [_skill(code, level) for code, level in reader.skill.items()],
        },
        SYSTEM_ROSTER, f"role-{reader.name}",
    )  # fmt: skip
    schedule = kept(
        {"resourceType": "Schedule", "active": True, "actor": [person.reference]},
        SYSTEM_ROSTER,
        f"schedule-{reader.name}",
    )
    day = reader.begins.astimezone(UTC).date().isoformat()
    slot = kept(
        {
            "resourceType": "Slot", "schedule": schedule.reference, "status": "busy", "comment": "on shift",
            "start": _instant(reader.begins), "end": _instant(reader.ends),
        },
        SYSTEM_ROSTER, f"shift-{reader.name}-{day}",
    )  # fmt: skip
    return [person, role, schedule, slot]


def _skill(code: str, level: int) -> Json:
    return {**concept(CS_SKILL, code), "extension": [{"url": EXT_SKILL_LEVEL, "valueInteger": level}]}


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
