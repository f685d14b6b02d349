"""Reading Tasks as FHIR states them: what may be given, what is held, and what a person has decided."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib.resources import files

from arcuate.assignment.domain import Case, Priority, aged
from arcuate.assignment.roster import instant
from arcuate.kernel.codes import CS_RECEIPT, CS_TASK, Json
from arcuate.kernel.fhir.bundle import reference_id

READ = "read"
CHOSEN_BY_PERSON = "chosen-by-person"
RAISED_BY_MACHINE = "raised-by-machine"

_OPEN = frozenset({"requested", "received", "ready"})
_IN_HAND = frozenset({"accepted", "in-progress", "on-hold"})
_PRIORITIES = {
    "stat": Priority.CRITICAL,
    "asap": Priority.URGENT,
    "urgent": Priority.URGENT,
    "routine": Priority.ROUTINE,
}


class Standing(StrEnum):
    """Where a reading Task stands for planning."""

    OPEN = "open"  # nobody has it
    GIVEN = "given"  # an earlier plan gave it, nobody opened it: it may move
    HELD = "held"  # opened, or given by a person: it stays


@dataclass(frozen=True)
class Field:
    """What an exam asks of its reader: the field's code, nominal minutes, least and wished level."""

    field: str
    minutes: int
    need: int
    want: int


@dataclass(frozen=True)
class Fields:
    """The table of `data/fields.toml`."""

    default: Field
    rows: tuple[tuple[tuple[str, ...], Field], ...]

    def of(self, order: Json | None) -> Field:
        """Return what the order's exam asks for; the first row whose word occurs in its codes, displays or text."""
        code = (order or {}).get("code") or {}
        codes = {str(c.get("code", "")).lower() for c in code.get("coding", [])}
        text = (
            " ".join([str(code.get("text", "")), *(str(c.get("display", "")) for c in code.get("coding", []))]).lower()
            + " "
        )
        for words, asked in self.rows:
            if any(word[1:] in codes if word.startswith("=") else word in text for word in words):
                return asked
        return self.default


def load_fields() -> Fields:
    """Read the table of fields."""
    table = tomllib.loads((files("arcuate.assignment") / "data" / "fields.toml").read_text(encoding="utf-8"))
    rows = tuple((tuple(w.lower() for w in row.pop("words")), Field(**row)) for row in table["exam"])
    return Fields(Field(**table["default"]), rows)


@dataclass(frozen=True)
class Reading:
    """One reading Task with what planning needs of it."""

    task: Json
    case: Case
    stated: Priority
    standing: Standing
    owner: str | None

    @property
    def raised_by_machine(self) -> str:
        """Why a machine brought it forward, as journey wrote it into the Task; empty where none did."""
        reason = self.task.get("reasonCode") or {}
        codes = {c.get("code") for c in reason.get("coding", []) if c.get("system") == CS_TASK}
        return str(reason.get("text") or "") if RAISED_BY_MACHINE in codes else ""

    @property
    def raised(self) -> bool:
        """True if planning sees it as more urgent than its order says."""
        return self.case.priority < self.stated


@dataclass(frozen=True)
class Limits:
    """Times that planning needs: minutes to read by priority where the Task states no due time, and when a routine case ages."""

    due_minutes: tuple[int, int, int]
    ageing_minutes: int


def readings(resources: Sequence[Json], fields: Fields, limits: Limits, now: datetime) -> list[Reading]:
    """Return the reading Tasks that are open or held; finished and cancelled ones are left out."""
    orders = {
        f"ServiceRequest/{r['id']}": r for r in resources if r.get("resourceType") == "ServiceRequest" and r.get("id")
    }
    priors = _prior_readers(resources)
    found = []
    for task in resources:
        if task.get("resourceType") == "Task" and is_reading(task) and task.get("status") in _OPEN | _IN_HAND:
            order = orders.get(str((task.get("focus") or {}).get("reference")))
            found.append(_reading(task, order, priors, fields, limits, now))
    return found


def is_reading(task: Json) -> bool:
    """Say whether a Task is a reading (code `urn:arcuate:cs:task|read`)."""
    return any(c.get("system") == CS_TASK and c.get("code") == READ for c in (task.get("code") or {}).get("coding", []))


def _reading(
    task: Json, order: Json | None, priors: Mapping[str, str], fields: Fields, limits: Limits, now: datetime
) -> Reading:
    stated = _PRIORITIES.get(str(task.get("priority") or (order or {}).get("priority") or "routine"), Priority.ROUTINE)
    due = _due(task, order, stated, limits, now)
    asked = fields.of(order)
    owner = reference_id(task.get("owner"), "Practitioner")
    standing = _standing(task, owner)
    places = (order or {}).get("locationReference") or []
    given_to = given_by_plan(task)
    handed_back = {given_to} if owner is None and given_to else set()
    case = Case(
        id=str(task.get("id")),
        minutes=asked.minutes,
        subject=asked.field,
        priority=aged(stated, due, limits.ageing_minutes),
        need=max(asked.need, 1) if stated is Priority.CRITICAL and asked.need else asked.need,
        want=asked.want,
        due=due,
        site=str(places[0]["reference"]) if places and places[0].get("reference") else None,
        prior=priors.get(str((task.get("for") or {}).get("reference"))),
        now_with=owner if standing is Standing.GIVEN else None,
        refused_by=frozenset(handed_back | handed_back_by(task)),
    )
    return Reading(task, case, stated, standing, owner)


def _due(task: Json, order: Json | None, stated: Priority, limits: Limits, now: datetime) -> int:
    end = ((task.get("restriction") or {}).get("period") or {}).get("end")
    if end is not None:
        due = instant(end, "Task.restriction.period.end")
    else:
        begun = task.get("authoredOn") or (order or {}).get("authoredOn")
        since = instant(begun, "Task.authoredOn") if begun else now
        due = since + timedelta(minutes=limits.due_minutes[stated])
    # From minute to minute, so that the clock time of a receipt is that of the Task.
    return int((_minute(due) - _minute(now)).total_seconds() // 60)


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def _standing(task: Json, owner: str | None) -> Standing:
    if task.get("status") in _IN_HAND:
        return Standing.HELD
    if owner is None:
        # An owner that is no Practitioner (a team, an organisation) was named by somebody else: not ours to change.
        return Standing.HELD if task.get("owner") else Standing.OPEN
    chosen = any(c.get("code") == CHOSEN_BY_PERSON for c in (task.get("businessStatus") or {}).get("coding", []))
    return Standing.GIVEN if owner == given_by_plan(task) and not chosen else Standing.HELD


def given_by_plan(task: Json) -> str | None:
    """Return the reader to whom the last plan gave the Task (`Task.output` of type `given-to`)."""
    return next(iter(_output_readers(task, "given-to")), None)


def handed_back_by(task: Json) -> frozenset[str]:
    """Return the readers who gave the Task back (`Task.output` of type `handed-back`)."""
    return frozenset(_output_readers(task, "handed-back"))


def _output_readers(task: Json, label: str) -> list[str]:
    found = []
    for output in task.get("output", []):
        if any(
            c.get("system") == CS_RECEIPT and c.get("code") == label for c in output.get("type", {}).get("coding", [])
        ):
            reader = reference_id(output.get("valueReference"), "Practitioner")
            if reader:
                found.append(reader)
    return found


def _prior_readers(resources: Sequence[Json]) -> dict[str, str]:
    """Return who read each patient's newest earlier study, by patient reference."""
    newest: dict[str, tuple[str, str]] = {}
    for report in resources:
        if report.get("resourceType") != "DiagnosticReport" or report.get("status") not in (
            "final",
            "amended",
            "corrected",
        ):
            continue
        readers = [
            reference_id(r, "Practitioner")
            for r in [*report.get("resultsInterpreter", []), *report.get("performer", [])]
        ]
        reader = next((r for r in readers if r), None)
        patient = str((report.get("subject") or {}).get("reference", ""))
        when = str(report.get("issued") or report.get("effectiveDateTime") or "")
        if reader and patient and when >= newest.get(patient, ("", ""))[0]:
            newest[patient] = (when, reader)
    return {patient: reader for patient, (_, reader) in newest.items()}
