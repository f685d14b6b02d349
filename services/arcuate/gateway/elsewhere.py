"""FHIR resources of another server (an EHR, a Bulk Data export, a row of a table) as resources of ours. Pure.

Another server's ids mean nothing here: a resource is found again by a number of our own for it (`urn:arcuate:id:elsewhere:SOURCE|Type/id`)
and, before that, by the business identifiers that it shares with what is known already, so that nothing stands twice. A patient is found
by numbers with their assigner alone, never by name.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from arcuate.gateway import history
from arcuate.gateway.mapping import pid
from arcuate.gateway.mapping.model import ContentFault, Mapped, identity_conflict, token, tokens, with_identifiers
from arcuate.kernel import codes
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir import bundle, strict
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import version_of

# In the order in which they refer to each other.
TYPES = (
    "Patient", "Practitioner", "Location", "Device", "ServiceRequest", "Appointment", "Encounter", "Procedure", "Observation",
    "AllergyIntolerance", "Condition", "MedicationRequest", "MedicationStatement", "ImagingStudy", "DiagnosticReport",
)  # fmt: skip
_WHOSE = ("subject", "patient")
_NOT_KEPT = ("id", "meta", "implicitRules")
_NO_PATIENT = ("Practitioner", "Location", "Device")
Rank = Callable[[str], int | None]


def own_identifier(source: str, reference: str) -> Json:
    """Return our number for another server's resource.

    Args:
        source: What we call that server.
        reference: `Type/id` there.
    """
    return {"system": codes.elsewhere_system(source), "value": reference}


def is_resource(raw: bytes) -> bool:
    """Say whether these bytes are JSON rather than HL7."""
    return raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


@dataclass
class Asked:
    """Resources of another server, and what the record must be asked for them.

    Attributes:
        resources: With their own ids, in the order in which they refer to each other.
        wanted: Identifier tokens by type.
    """

    source: str
    resources: Sequence[Json]
    wanted: dict[str, list[str]] = field(default_factory=dict)


def read(raw: bytes, source: str, systems: Mapping[str, str]) -> Asked:
    """Return what a frame of the past holds: one resource, or a collection of those that a row became.

    Raises:
        ContentFault: It is no resource of a type that is used.
    """
    try:
        found = strict.loads(raw, strict.HOUSE)
    except BadInput as error:
        raise ContentFault("unreadable", error.what, error.where, "102") from error
    listed = list(bundle.resources(found)) if found.get("resourceType") == "Bundle" else [found]
    return asked(listed, source, systems)


def asked(resources: Sequence[Json], source: str, systems: Mapping[str, str]) -> Asked:
    """Return resources with the questions that they raise.

    Raises:
        ContentFault: One of them has no id, or a type that is not used.
    """
    for one in resources:
        if one.get("resourceType") not in TYPES or not isinstance(one.get("id"), str):
            raise ContentFault(
                "unknown resource type",
                "This is no resource of a type that is used, or has no id",
                "resourceType",
                "200",
            )
    ordered = sorted((_translated(one, systems) for one in resources), key=lambda one: TYPES.index(one["resourceType"]))
    made = Asked(source, ordered)
    for one in ordered:
        kind = one["resourceType"]
        _want(made, kind, token(own_identifier(source, f"{kind}/{one['id']}")))
        for number in _numbers(one):
            _want(made, kind, token(number))
        for reference in _references(one):
            if named := _named(reference):
                _want(made, named.split("/")[0], token(own_identifier(source, named)))
    return made


def _want(made: Asked, kind: str, number: str) -> None:
    listed = made.wanted.setdefault(kind, [])
    if number not in listed:
        listed.append(number)


def _translated(resource: Json, systems: Mapping[str, str]) -> Json:
    """A number space that HL7 messages name by another word is one: the settings say which."""
    numbers = [
        {**one, "system": systems.get(str(one.get("system")), one.get("system"))} if one.get("system") else one
        for one in resource.get("identifier") or []
        if isinstance(one, dict)
    ]
    numbers = [{**one, "system": codes.SYSTEM_ACCESSION} if _kind(one) == "ACSN" else one for one in numbers]
    return {**resource, "identifier": numbers} if numbers else resource


def _kind(identifier: Json) -> str:
    codings = (identifier.get("type") or {}).get("coding") or [{}]
    return str(codings[0].get("code") or "")


def _numbers(resource: Json) -> list[Json]:
    return [one for one in resource.get("identifier") or [] if one.get("system") and one.get("value")]


def _references(value: Any) -> Iterator[Json]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value
        for name, inner in value.items():
            if name != "contained":
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _named(reference: Json) -> str | None:
    """`Type/id` of a literal reference to a type that is used."""
    parts = str(reference["reference"]).split("/_history/")[0].rsplit("/", 2)[-2:]
    return "/".join(parts) if len(parts) == 2 and parts[0] in TYPES and parts[1] else None


@dataclass
class _Taking:
    """One transaction in the making: what another server's references are here."""

    asked: Asked
    found: Mapping[str, Sequence[Json]]
    rank: Rank
    past: bool
    references: dict[str, Json] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def known(self, named: str) -> Json | None:
        """Return our reference for another server's resource."""
        if named in self.references:
            return self.references[named]
        kind = named.split("/", maxsplit=1)[0]
        number = token(own_identifier(self.asked.source, named))
        stands = next((one for one in self.found.get(kind, ()) if number in tokens(one)), None)
        return codes.reference(kind, stands["id"]) if stands else None


def taken_over(
    asked: Asked, found: Mapping[str, Sequence[Json]], rank: Rank, *, past: bool, known: Mapping[str, Json] | None = None
) -> Mapped:  # fmt: skip
    """Return what another server's resources become.

    Args:
        found: What stands in the record under the numbers that were asked for.
        rank: How well a type of table 0203 names a patient; None where it numbers something else.
        past: They are of before the start.
        known: Our references for what is known already, by `Type/id` there.

    Raises:
        ContentFault: A patient is not known, or is somebody else.
    """
    taking = _Taking(asked, found, rank, past, dict(known or {}))
    for resource in asked.resources:
        _take(taking, resource)
    return Mapped(
        taking.entries, taking.made, stale=not taking.entries, note="" if taking.entries else "All of it stands already"
    )


def _take(taking: _Taking, resource: Json) -> None:
    kind, named = resource["resourceType"], f"{resource['resourceType']}/{resource['id']}"
    number = own_identifier(taking.asked.source, named)
    made = ours(resource, number, taking.known)
    stands, again = _standing(taking, resource, number)
    if stands is None:
        entry = bundle.create(_dated(taking, made, resource), {"identifier": token(number)})
        taking.references[named] = entry.reference
        taking.entries.append(entry)
        taking.made.append(f"{kind} new")
        return
    taking.references[named] = codes.reference(kind, stands["id"])
    if kind == "Patient" and pid.differs(stands, made):
        raise identity_conflict(
            "Name and birth date both disagree with the patient of this number", "Patient.identifier"
        )
    if again and codes.is_history(stands) == taking.past:
        made["identifier"] = with_identifiers(stands.get("identifier", []), made["identifier"])
        changed = _dated(taking, {**made, "id": stands["id"], "meta": stands["meta"]}, resource)
    elif taking.past:
        # Another system has told of it, or live traffic has: its words stand, and the archive's number is added.
        changed = {**stands, "identifier": with_identifiers(stands.get("identifier", []), [number])}
    else:
        return  # what came as a message stands once
    if changed != stands:
        taking.entries.append(bundle.update(changed, version_of(stands)))
        taking.made.append(f"{kind} changed")


def _dated(taking: _Taking, made: Json, resource: Json) -> Json:
    return history.marked(made, _changed(resource)) if taking.past else made


def _standing(taking: _Taking, resource: Json, number: Json) -> tuple[Json | None, bool]:
    """What stands here of a resource, and whether it came from the same server before.

    Raises:
        ContentFault: Its numbers belong to several.
    """
    stands = taking.found.get(resource["resourceType"], ())
    same = next((one for one in stands if token(number) in tokens(one)), None)
    if same is not None:
        return same, True
    kind = resource["resourceType"]
    naming = [one for one in _numbers(resource) if kind != "Patient" or taking.rank(_kind(one)) is not None]
    wanted = set(map(token, naming))
    matches = {one["id"]: one for one in stands if wanted & set(tokens(one))}
    if len(matches) > 1:
        raise identity_conflict(f"The numbers of this {kind} belong to different ones", f"{kind}.identifier")
    return next(iter(matches.values()), None), False


def ours(resource: Json, number: Json, known: Callable[[str], Json | None]) -> Json:
    """Return a resource of another server with its references as they are here.

    Args:
        known: Our reference for `Type/id` of that server, None where nothing is known of it.

    Raises:
        ContentFault: Its patient is not known.
    """
    kind = resource["resourceType"]
    kept = {name: value for name, value in resource.items() if name not in _NOT_KEPT}
    made: Json = _rewritten(kept, known, number["system"])
    made["identifier"] = with_identifiers(made.get("identifier", []), [number])
    if kind not in ("Patient", *_NO_PATIENT) and not any(known(one) for one in patients(resource)):
        raise ContentFault(
            "no patient", "Whose this is, is not known: take the patients over first", f"{kind}.subject", "204"
        )
    return made


def _rewritten(value: Any, known: Callable[[str], Json | None], system: str) -> Any:
    if isinstance(value, list):
        return [_rewritten(one, known, system) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: one if name == "contained" else _rewritten(one, known, system) for name, one in value.items()}
    reference = value.get("reference")
    if not isinstance(reference, str) or reference.startswith("#"):
        return made
    del made["reference"]
    named = _named(value)
    here = known(named) if named else None
    if here is not None:
        return {**made, **here}
    # What is not known here keeps its number there: a logical reference.
    parts = "/".join(reference.split("/_history/")[0].rsplit("/", 2)[-2:])
    made.setdefault("identifier", {"system": system, "value": parts})
    return made


def patients(resource: Json) -> list[str]:
    """Return the patients (`Patient/id` there) whom a resource is about."""
    stated = [resource.get(name) for name in _WHOSE]
    stated += [one.get("actor") for one in resource.get("participant") or [] if isinstance(one, dict)]
    named = [_named(one) for one in stated if isinstance(one, dict) and isinstance(one.get("reference"), str)]
    return [one for one in named if one and one.startswith("Patient/")]


def _changed(resource: Json) -> datetime | None:
    """When its own server had last changed it; where it does not say so, when the visit of an Appointment was over."""
    for text in ((resource.get("meta") or {}).get("lastUpdated"), resource.get("end"), resource.get("start")):
        try:
            moment = datetime.fromisoformat(str(text))
        except ValueError:
            continue
        if moment.tzinfo is not None:
            return moment
    return None
