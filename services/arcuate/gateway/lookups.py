"""What the record holds of what a message names: searches by identifier, asked together in one batch, merges followed."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from arcuate.gateway import adoption
from arcuate.gateway.mapping.model import Standing, tokens
from arcuate.gateway.mapping.plan import Needs
from arcuate.kernel import codes
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient

_MERGE_STEPS = 8
_AT_ONCE = 40  # identifiers in one search


async def look_up(
    fhir: FhirClient, needs: Needs, cancels: Mapping[str, datetime], marks: Mapping[str, datetime]
) -> Standing:
    """Return what stands in the record.

    Raises:
        Unavailable: The record does not answer.
    """
    found = await by_identifier(fhir, {"Patient": needs.patients, **needs.others})
    patients = found.pop("Patient")
    people = _People(fhir, {patient["id"]: patient for patient in patients})
    await people.follow(patient["id"] for patient in patients)
    await people.follow(_subjects(found))
    literal = {one: patient for patient in patients for one in tokens(patient) if one in needs.patients}
    adopted = await _adopted(fhir, needs, literal, people, set(_subjects(found)))
    literal |= adopted
    everyone = [*patients, *{one["id"]: one for one in adopted.values()}.values()]
    if everyone and needs.of_patients:
        # All that belongs to these patients, or to whom they were merged with.
        whose = ",".join(f"Patient/{one['id']}" for one in everyone)
        theirs = await fhir.searches([(kind, {"patient": whose}) for kind in needs.of_patients])
        found |= dict(zip(needs.of_patients, theirs, strict=True))
    standing = Standing(
        {one: people.who_counts(patient) for one, patient in literal.items()}, literal, people.successors(), found, cancels,
        marks,
    )  # fmt: skip
    appointments = found.get("Appointment", [])
    if appointments:
        asked = await _asked(fhir, appointments)
        standing = replace(standing, resources={**found, "Task": asked})
    return standing


async def _adopted(
    fhir: FhirClient, needs: Needs, literal: Mapping[str, Json], people: "_People", subjects: set[str]
) -> dict[str, Json]:
    """Numbers that nobody carries, whose value somebody carries under another assigner."""
    unknown = [one for named in needs.named if not any(n in literal for n in named.tokens) for one in named.tokens]
    candidates: dict[str, list[Json]] = {}
    for number in dict.fromkeys(unknown):
        found = await fhir.search("Patient", {"identifier": _escaped_value(adoption.value_of(number))})
        candidates[number] = [one for one in found if one.get("resourceType") == "Patient"]
        people.add(candidates[number])
        await people.follow(one["id"] for one in candidates[number])
    adopted: dict[str, Json] = {}
    for named in needs.named:
        known = {**literal, **adopted}
        adopted |= adoption.same(named, candidates, known, subjects, people.who_counts)
    return adopted


async def by_identifier(fhir: FhirClient, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[Json]]:
    """Return, by type, the resources that carry one of the identifiers; each once."""
    asked = [
        (kind, {"identifier": ",".join(map(_escaped, numbers[start : start + _AT_ONCE]))})
        for kind, numbers in wanted.items()
        for start in range(0, len(numbers), _AT_ONCE)
    ]
    found: dict[str, dict[str, Json]] = {kind: {} for kind in wanted}
    for (kind, _), matches in zip(asked, await fhir.searches(asked), strict=True):
        for resource in matches:
            if resource.get("resourceType") == kind:
                found[kind].setdefault(resource["id"], resource)
    return {kind: list(by_id.values()) for kind, by_id in found.items()}


def _escaped(token: str) -> str:
    """A token as search value: `\\`, `,`, `$` and a `|` inside the number are data (FHIR R4 3.1.1.5.7)."""
    system, value = token.split("|", 1)
    return f"{_escaped_value(system)}|{_escaped_value(value)}"


def _escaped_value(value: str) -> str:
    for sign in ("\\", ",", "$", "|"):
        value = value.replace(sign, f"\\{sign}")
    return value


def _subjects(resources: Mapping[str, Sequence[Json]]) -> list[str]:
    """Ids of the patients whom the resources are about."""
    found: list[str] = []
    for resource in (one for listed in resources.values() for one in listed):
        references = [resource.get("subject") or {}]
        references += [
            participant.get("actor") or {}
            for participant in resource.get("participant", [])
            if isinstance(participant, dict)
        ]
        found += [id for one in references if (id := reference_id(one, "Patient"))]
    return found


class _People:
    """Patients by id, and who stands in for whom."""

    def __init__(self, fhir: FhirClient, known: dict[str, Json]) -> None:
        self._fhir, self._known = fhir, known

    def add(self, patients: Iterable[Json]) -> None:
        """Take patients who have been read already."""
        for one in patients:
            self._known.setdefault(one["id"], one)

    async def follow(self, ids: Iterable[str]) -> None:
        """Read the patients of these ids and whoever they were merged into."""
        wanted = set(ids)
        for _ in range(_MERGE_STEPS):
            missing = [one for one in wanted if one not in self._known]
            for one, patient in zip(missing, await asyncio.gather(*map(self._read, missing)), strict=True):
                self._known[one] = patient
            wanted = {target for one in wanted if (target := _replaced_by(self._known[one]))}
            if not wanted:
                return

    async def _read(self, id: str) -> Json:
        try:
            return await self._fhir.read("Patient", id)
        except NotFound:
            return {"resourceType": "Patient", "id": id}

    def successors(self) -> dict[str, str]:
        """Return who counts for each merged patient."""
        found = {one: self.who_counts(patient)["id"] for one, patient in self._known.items()}
        return {one: other for one, other in found.items() if one != other}

    def who_counts(self, patient: Json) -> Json:
        """Return the patient at the end of the merges."""
        for _ in range(_MERGE_STEPS):
            target = _replaced_by(patient)
            if target is None or target not in self._known:
                return patient
            patient = self._known[target]
        return patient


def _replaced_by(patient: Json) -> str | None:
    links = [link for link in patient.get("link", []) if link.get("type") == "replaced-by"]
    return reference_id(links[0].get("other"), "Patient") if links else None


async def _asked(fhir: FhirClient, appointments: Sequence[Json]) -> list[Json]:
    """Open Tasks by which our pages asked the RIS for something about these appointments."""
    focus = ",".join(f"Appointment/{one['id']}" for one in appointments)
    query = {"focus": focus, "status": "requested,accepted"}
    found = await fhir.search("Task", query)
    return [task for task in found if _is_ask(task)]


def _is_ask(task: Json) -> bool:
    codings = (task.get("code") or {}).get("coding") or []
    return any(coding.get("system") == codes.CS_ASK for coding in codings)
