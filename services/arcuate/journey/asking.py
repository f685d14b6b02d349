"""Asking the rooms: what goes in, what comes back, and how the answer is written."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import httpx

from arcuate.journey.domain import Facts
from arcuate.journey.facts import material
from arcuate.journey.table import Ask
from arcuate.kernel.codes import CS_PROTOCOL, job_system, reference
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry
from arcuate.kernel.fhir.client import FhirClient, call_operation

_KEPT = frozenset(
    {"DetectedIssue", "RiskAssessment", "Observation", "Device", "Task", "DiagnosticReport", "Provenance"}
)
_BASED_ON = frozenset({"Observation", "DiagnosticReport"})
_LONGEST_ANSWER_S = 30.0
_NO_READER_S = 300.0
# A model that was late may be back in a minute; one that is not installed comes with a start of its room.
_MODEL_PAUSES_S = {"silent": (60.0, 900.0), "absent": (900.0, 21600.0)}
_MODEL_AWAY = "urn:arcuate:ext:model-away"


async def ask_room(http: httpx.AsyncClient, fhir: FhirClient, ask: Ask, facts: Facts) -> Json:
    """Ask one question; returns the answer.

    After a merge the room sees one person: whatever names the patient of the order names the one who counts, and the answer is about
    the patient of the order again, so that undoing the merge takes it along.

    Raises:
        Unavailable: The room does not answer, or is still at work (`code` is `incomplete`).
    """
    taken = await material(fhir, ask.takes, facts)
    counts, own = _counts(facts), _own(facts)
    merged = {f"Patient/{p['id']}": counts for p in facts.people} if own != counts else {}
    asked = bundle.collection([_named(resource, merged) for resource in taken])
    answer = await call_operation(http, ask.operation, asked, timeout_s=_LONGEST_ANSWER_S)
    back = {counts: own} if merged else {}
    entries = [{**e, "resource": _named(e["resource"], back)} for e in answer.get("entry") or () if e.get("resource")]
    return {**answer, "entry": entries}


def _counts(facts: Facts) -> str:
    return f"Patient/{facts.patient['id']}" if facts.patient else ""


def _own(facts: Facts) -> str:
    return str((facts.order or {}).get("subject", {}).get("reference", "")) or _counts(facts)


def _named(resource: Json, names: Mapping[str, str]) -> Json:
    """Return a resource in which other names stand for patients; Tasks are everybody's and stay as they are."""
    if not names or resource.get("resourceType") in ("Task", "Patient"):
        return resource

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: names.get(v, v) if k == "reference" and isinstance(v, str) else changed(v) for k, v in value.items()
            }
        return [changed(one) for one in value] if isinstance(value, list) else value

    return dict(changed(resource))


class Kept(NamedTuple):
    """What became of an answer.

    Attributes:
        sentence: For the case's history.
        stored: What was written, with id and version.
        whole: False where it may stand in the record otherwise than it is stated here.
    """

    sentence: str
    stored: list[Json]
    whole: bool


async def keep(fhir: FhirClient, ask: Ask, answer: Json, facts: Facts, case_id: str, mark: str, now: datetime) -> Kept:
    """Write an answer into the record in one transaction.

    Raises:
        PreconditionFailed: Somebody has changed meanwhile what the answer replaces.
    """
    entries = list(_entries(answer, facts))
    if ask.name == "check":
        entries += _withdrawn(answer, facts)
    stored: list[Json] | None = []
    if entries:
        source = {
            "system": job_system("journey"),
            "value": f"{case_id}:{ask.name}:{mark}{_again(ask, facts, mark, now)}",
        }
        stored = _stored(entries, await fhir.transaction(bundle.transaction(entries, source)))
    return Kept(sentence_of(ask.name, answer, facts), stored or [], stored is not None)


def _stored(entries: Sequence[Entry], answer: Json) -> list[Json] | None:
    """Return what a transaction wrote, under the ids and versions that its answer names; None where it does not name them."""
    answered = answer.get("entry") or []
    if len(answered) != len(entries):
        return None
    made: list[Json] = []
    for entry, one in zip(entries, answered, strict=True):
        response, resource = one.get("response") or {}, entry.resource
        parts = str(response.get("location", "")).rsplit("/", 3)
        if resource is None or len(parts) != 4 or parts[2] != "_history":
            return None
        meta = {**resource.get("meta", {}), "versionId": parts[3], "lastUpdated": response.get("lastModified", "")}
        made.append({**resource, "id": parts[1], "meta": meta})
    return made


def _again(ask: Ask, facts: Facts, mark: str, now: datetime) -> str:
    """Return what tells a question put again from the one before: under the same identity the record answers as it did then.

    It is named after the answer that it replaces, so that a worker which stopped half way writes the same thing again.
    """
    if ask.name == "assign":  # a reader may be found later for the same order: that question is a new one each time
        return f":{now.timestamp():.3f}"
    before = facts.answered.get(ask.name)
    replaces = before is not None and before.given_up and before.fingerprint == mark
    return f":after:{before.at.timestamp():.3f}" if before is not None and replaces else ""


def model_away(answer: Json) -> str:
    """Return `silent` or `absent` where a room answered by its fallback because a model was away; else an empty text."""
    resources = [entry.get("resource") or {} for entry in answer.get("entry") or ()]
    extensions = [one for resource in resources for one in resource.get("extension") or ()]
    return next((str(one.get("valueCode")) for one in extensions if one.get("url") == _MODEL_AWAY), "")


def pause_s(ask: Ask, answer: Json, sentence: str, asked_for: timedelta) -> float:
    """Return after how many seconds a question is put again though it was answered; 0 where the answer stands.

    Args:
        sentence: What a person reads about the answer.
        asked_for: How long ago the same question was put first: the longer a model has been away, the more rarely it is asked.
    """
    if ask.name == "assign":
        return _NO_READER_S if sentence.lower().startswith("waiting") else 0.0
    least, most = _MODEL_PAUSES_S.get(model_away(answer), (0.0, 0.0))
    return min(max(asked_for.total_seconds(), least), most)


def _entries(answer: Json, facts: Facts) -> Iterable[Entry]:
    for entry in answer.get("entry") or ():
        resource = entry.get("resource") or {}
        if resource.get("resourceType") not in _KEPT or _stands(resource, facts):
            continue
        if (
            resource["resourceType"] in _BASED_ON
            and facts.order
            and not resource.get("focus")
            and not resource.get("basedOn")
        ):
            resource = {**resource, "basedOn": [reference("ServiceRequest", facts.order["id"])]}
        full_url = str(entry.get("fullUrl") or "")
        yield _entry(resource, full_url if full_url.startswith("urn:uuid:") else None)


def _stands(resource: Json, facts: Facts) -> bool:
    """Say whether a flag stands in the record already: found again, it keeps the time at which it was found first."""
    if resource["resourceType"] != "DetectedIssue":
        return False
    name, said = _identifier(resource), _said(resource)
    return name is not None and any(_identifier(flag) == name and _said(flag) == said for flag in facts.flags)


def _said(flag: Json) -> Json:
    return {name: value for name, value in flag.items() if name not in ("id", "meta", "identifiedDateTime")}


def _entry(resource: Json, full_url: str | None) -> Entry:
    if resource.get("id"):
        made = bundle.update(resource, resource.get("meta", {}).get("versionId"))
    elif known := _identifier(resource):
        made = bundle.update_where(resource, {"identifier": known})
    else:
        made = bundle.create(resource)
    return Entry(made.method, made.url, made.resource, full_url or made.full_url, made.conditions)


def _identifier(resource: Json) -> str | None:
    identifiers = resource.get("identifier") or []
    first = identifiers[0] if isinstance(identifiers, list) and identifiers else {}
    return f"{first['system']}|{first['value']}" if first.get("system") and first.get("value") else None


def _withdrawn(answer: Json, facts: Facts) -> list[Entry]:
    """Return the flags of before that no rule raises any more, marked as cancelled."""
    raised = {_identifier(flag) for flag in bundle.of_type(answer, "DetectedIssue")}
    gone = [flag for flag in facts.flags if _identifier(flag) not in raised]
    return [bundle.update({**flag, "status": "cancelled"}, flag["meta"]["versionId"]) for flag in gone]


def sentence_of(name: str, answer: Json, facts: Facts) -> str:
    """Return what a person reads about an answer."""
    match name:
        case "check":
            return _check_sentence(answer)
        case "quantify":
            return _measured_sentence(answer)
        case "assign":
            own = {t["id"] for t in facts.tasks}
            task = next((t for t in bundle.of_type(answer, "Task") if t.get("id") in own), None)
            if task is not None and task.get("owner"):
                return f"Given to {task['owner'].get('display') or 'a reader'}"
            return str((task or {}).get("statusReason", {}).get("text") or "Waiting: no eligible reader")
        case "draft":
            return "Draft revised" if facts.draft else "Draft written"
        case "attendance":
            return (
                "The site's rate is shown: no model answers" if model_away(answer) else "Chance of attendance predicted"
            )
        case _:
            return "A general rule is shown: no model answers" if model_away(answer) else "Wait and duration predicted"


def _check_sentence(answer: Json) -> str:
    issues = bundle.of_type(answer, "DetectedIssue")
    flags = [i for i in issues if not any(c.get("code") == "incomplete" for c in i.get("code", {}).get("coding", ()))]
    severe = sum(flag.get("severity") == "high" for flag in flags)
    details = [d for order in bundle.of_type(answer, "ServiceRequest") for d in order.get("orderDetail", ())]
    suggested = [
        c.get("display") or c.get("code")
        for d in details
        for c in d.get("coding", ())
        if c.get("system") == CS_PROTOCOL
    ]
    protocol = f"; protocol suggested: {suggested[0]}" if suggested else ""
    if not flags:
        return f"Checked: nothing found{protocol}"
    found = "1 flag" if len(flags) == 1 else f"{len(flags)} flags"
    return f"Checked: {found}{f', {severe} of them to stop at' if severe else ''}{protocol}"


def _measured_sentence(answer: Json) -> str:
    observations = bundle.of_type(answer, "Observation")
    values = [o for o in observations if "valueQuantity" in o]
    if values:
        return f"Measured: {len(values)} values, not reviewed"
    notes = [n.get("text", "") for o in observations for n in o.get("note", ())]
    return f"Not measured: {notes[0]}" if notes else "Not measured"
