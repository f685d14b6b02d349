"""PID, PD1 to Patient (segments/PID__Patient.csv), and the question whether two statements mean the same person."""

import re
import unicodedata
from dataclasses import dataclass

from arcuate.gateway.mapping import datatypes, terms
from arcuate.gateway.mapping.datatypes import Sender
from arcuate.gateway.mapping.model import ContentFault, Standing, identity_conflict, token, with_identifiers
from arcuate.gateway.profile import Profile
from arcuate.kernel import codes
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of
from arcuate.kernel.hl7v2.message import Field, Segment

_TAG = re.compile(r"[a-z]{2}(-[A-Z]{2})?\Z")


@dataclass(frozen=True)
class Person:
    """The patient of a message as it is in the transaction.

    Attributes:
        reference: For other entries.
        current: What stands in the record, None for a new one.
        entry: The change, None when there is none.
        number: Token of the number under which the message names the patient.
    """

    reference: Json
    current: Json | None
    entry: Entry | None
    number: str = ""

    @property
    def made(self) -> list[str]:
        """Return the change in words."""
        if self.entry is None:
            return []
        return ["patient changed" if self.current else "patient new"]

    @property
    def entries(self) -> list[Entry]:
        """Return the change as a list."""
        return [self.entry] if self.entry else []


def identifiers(fields: list[Field], profile: Profile, sender: Sender) -> tuple[list[Json], list[Json]]:
    """Return all identifiers of PID-3 (PID-2, PID-4; MRG-1) and those that name the patient, best first."""
    listed: list[tuple[int, Json]] = []
    everything: list[Json] = []
    for part in (part for field in fields for part in datatypes.repetitions(field)):
        found = datatypes.cx(part, sender)
        if found is None:
            continue
        kind, identifier = found
        rank = profile.rank(kind)
        if rank is not None:
            listed.append((rank, identifier))
        else:
            # Accounts, visits and insurance numbers of the same assigner live in a number space of their own.
            identifier["system"] = f"{identifier['system']}:{kind}"
        if identifier not in everything:
            everything.append(identifier)
    ranked = [identifier for _, identifier in sorted(listed, key=lambda one: one[0])]
    return everything, [one for place, one in enumerate(ranked) if one not in ranked[:place]]


def keys_of(pid: Segment, profile: Profile, sender: Sender) -> list[Json]:
    """Return the identifiers by which the patient is known; PID-2 and PID-4 count only when PID-3 names nobody."""
    for fields in ([pid[3]], [pid[2]], [pid[4]]):
        _, keys = identifiers(fields, profile, sender)
        if keys:
            return keys
    return []


def resolve(keys: list[Json], standing: Standing, where: str = "PID-3") -> Json | None:
    """Return the patient who stands under these identifiers.

    Raises:
        ContentFault: There are none; or they belong to different patients.
    """
    if not keys:
        raise ContentFault("no patient", f"{where} names no patient", where, "101")
    found = [standing.patients[token(key)] for key in keys if token(key) in standing.patients]
    if len({patient["id"] for patient in found}) > 1:
        raise identity_conflict(f"The identifiers in {where} belong to different patients", where)
    return found[0] if found else None


def person(pid: Segment, profile: Profile, sender: Sender, standing: Standing, *, registration: bool) -> Person:
    """Return the patient of a message.

    A registration event changes what it states. An order, result or booking makes an unknown patient known and fills what is
    empty; if name and birth date both disagree with what stands there, it is refused.
    """
    keys = keys_of(pid, profile, sender)
    who_counts = resolve(keys, standing)
    if who_counts is None:
        entry = bundle.create(patient({}, pid, profile, sender), {"identifier": token(keys[0])})
        return Person(entry.reference, None, entry, token(keys[0]))
    # What comes under a number that was merged away stays with the record of that number: searches follow the merge, and undoing it
    # gives the number its own back (row 024).
    current = _own(keys, who_counts, standing)
    if registration:
        changed = patient(current, pid, profile, sender)
    else:
        stated = patient({}, pid, profile, sender)
        if differs(current, stated) and differs(who_counts, stated):
            raise identity_conflict("Name and birth date both disagree with the patient of this number", "PID-5")
        changed = _filled(current, stated)
    changed = _without_others_numbers(changed, current, standing)
    reference = codes.reference("Patient", current["id"])
    if changed == current:
        return Person(reference, current, None, token(keys[0]))
    return Person(reference, current, bundle.update(changed, version_of(current)), token(keys[0]))


def _own(keys: list[Json], who_counts: Json, standing: Standing) -> Json:
    """Return the record that carries the number: the one who counts where any of the numbers is theirs, else the one merged away."""
    found = [standing.literal[token(key)] for key in keys if token(key) in standing.literal]
    if not found or any(one["id"] == who_counts["id"] for one in found):
        return who_counts
    return found[0]


def _without_others_numbers(changed: Json, current: Json, standing: Standing) -> Json:
    """A number that another record carries (one was merged into the other) stays with that record alone."""
    others = {one for one, patient in standing.literal.items() if patient["id"] != current["id"]}
    kept = [
        one for one in changed.get("identifier", []) if token(one) not in others or one in current.get("identifier", [])
    ]
    return changed if len(kept) == len(changed.get("identifier", [])) else {**changed, "identifier": kept}


def patient(current: Json, pid: Segment, profile: Profile, sender: Sender) -> Json:
    """Return the Patient with what PID states: empty keeps, `""` deletes (2.5.3)."""
    made: Json = {"resourceType": "Patient", **current}
    every, _ = identifiers([pid[3], pid[2], pid[4]], profile, sender)
    made["identifier"] = with_identifiers(current.get("identifier", []), every)
    made.setdefault("active", True)
    _set(made, "name", pid[5], [datatypes.xpn(part) for part in datatypes.repetitions(pid[5])])
    _telecom(made, pid)
    _set(made, "address", pid[11], [datatypes.xad(part) for part in datatypes.repetitions(pid[11])])
    if pid[7].null:
        made.pop("birthDate", None)
    elif moment := datatypes.ts(pid[7].value, sender, "PID-7"):
        made["birthDate"] = moment.date
    _code(made, "gender", pid[8], terms.table("sex").get(pid[8].value.strip().upper()[:1]))
    marital = terms.table("marital").get(pid[16].value.strip())
    _code(made, "maritalStatus", pid[16], codes.concept(terms.MARITAL_SYSTEM, marital) if marital else None)
    _set(made, "communication", pid[15], [_language(pid[15], sender)])
    _births(made, pid)
    _death(made, pid, sender)
    return made


def _set(made: Json, name: str, field: Field, values: list[Json | None]) -> None:
    kept = datatypes.first(values)
    if field.null:
        made.pop(name, None)
    elif kept:
        made[name] = kept


def _code(made: Json, name: str, field: Field, value: Json | str | None) -> None:
    if field.null:
        made.pop(name, None)
    elif value:
        made[name] = value


def _telecom(made: Json, pid: Segment) -> None:
    """PID-13 and PID-14 are one list in FHIR: each replaces or deletes its own part of it."""
    kept = list(made.get("telecom", []))
    for field, use, mine in ((pid[13], "home", ("home", "mobile")), (pid[14], "work", ("work",))):
        stated = datatypes.first([datatypes.xtn(part, use) for part in datatypes.repetitions(field)])
        if field.null or stated:
            kept = [one for one in kept if one.get("use") not in mine] + stated
    made["telecom"] = datatypes.first([*kept])
    if not kept:
        del made["telecom"]


def _language(field: Field, sender: Sender) -> Json | None:
    """PID-15 as a language of BCP 47 where it is one, else in the sender's words."""
    stated = datatypes.cwe(field, sender)
    if stated is None:
        return None
    code = datatypes.one_line(field.component(1))
    code = terms.table("language").get(code.casefold(), code)
    words = datatypes.one_line(field.component(2)) or code or stated["text"]
    if _TAG.match(code):
        return {"language": {"coding": [codes.coding("urn:ietf:bcp:47", code)], "text": words}, "preferred": True}
    return {"language": {"text": words}, "preferred": True}


def _births(made: Json, pid: Segment) -> None:
    """PID-24 says whether it was a birth of several; PID-25, where it is filled, which of them (PID__Patient.csv)."""
    order, several = pid[25].value.strip(), pid[24].value.strip().upper()
    if pid[25].null or pid[24].null:
        made.pop("multipleBirthInteger", None)
        made.pop("multipleBirthBoolean", None)
    elif order.isdecimal() and len(order) < 3:
        made.pop("multipleBirthBoolean", None)
        made["multipleBirthInteger"] = int(order)
    elif several in ("Y", "N") and "multipleBirthInteger" not in made:
        made["multipleBirthBoolean"] = several == "Y"


def _death(made: Json, pid: Segment, sender: Sender) -> None:
    moment = datatypes.ts(pid[29].value, sender, "PID-29")
    if pid[29].null and pid[30].null:
        made.pop("deceasedDateTime", None)
        made.pop("deceasedBoolean", None)
    elif moment:
        made.pop("deceasedBoolean", None)
        made["deceasedDateTime"] = moment.fhir
    elif pid[30].value in ("Y", "N") and "deceasedDateTime" not in made:
        made["deceasedBoolean"] = pid[30].value == "Y"


def _filled(current: Json, stated: Json) -> Json:
    """Return the patient with what was not known yet."""
    filled = {**{name: value for name, value in stated.items() if name not in current}, **current}
    filled["identifier"] = with_identifiers(current.get("identifier", []), stated.get("identifier", []))
    return filled


def differs(current: Json, stated: Json) -> bool:
    """Say whether name and birth date both disagree; what one side does not state cannot disagree."""
    mine, other = current.get("birthDate"), stated.get("birthDate")
    if not mine or not other or mine.startswith(other) or other.startswith(mine):
        return False
    mine_names, other_names = _names(current), _names(stated)
    if not mine_names or not other_names:
        return False
    return not any(_same_name(one, two) for one in mine_names for two in other_names)


def agrees(current: Json, stated: Json) -> bool:
    """Say whether both state name and birth date, and both are the same."""
    mine, other = current.get("birthDate"), stated.get("birthDate")
    if not mine or not other or not (mine.startswith(other) or other.startswith(mine)):
        return False
    return any(_same_name(one, two) for one in _names(current) for two in _names(stated))


def _names(resource: Json) -> list[tuple[str, str]]:
    found = [
        (_fold(name.get("family", "")), _fold((name.get("given") or [""])[0])) for name in resource.get("name", [])
    ]
    return [name for name in found if any(name)]


def _same_name(one: tuple[str, str], two: tuple[str, str]) -> bool:
    """Families equal, and the first given name equal or one an abbreviation of the other."""
    return one[0] == two[0] and (one[1].startswith(two[1]) or two[1].startswith(one[1]))


def _fold(name: str) -> str:
    """Without case, accents, spaces and signs: spellings differ between systems, persons do not."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(character for character in plain if character.isalnum())
