"""Use cases of the assignment room: resources in, resources out."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from arcuate.assignment import receipt
from arcuate.assignment.cases import Fields, Limits, Reading, Standing, given_by_plan, readings
from arcuate.assignment.domain import Case, Exclusion, Problem, Reader, Weights, reading_minutes, reading_order
from arcuate.assignment.optimiser import Plan, plan
from arcuate.assignment.roster import readers
from arcuate.kernel.codes import CS_RECEIPT, CS_TASK, Json, concept, reference

WAITING = "waiting: no eligible reader"
_ESCALATED = "escalated"


@dataclass(frozen=True)
class Decision:
    """What was decided about one case, for ledger and receipts."""

    task_id: str
    reader: str | None
    minutes: int
    changed: bool
    lines: tuple[receipt.Line, ...]
    excluded: tuple[Exclusion, ...] = ()


@dataclass(frozen=True)
class Assigned:
    """The answer of `assign`: changed Tasks, and one decision for each case that was planned."""

    tasks: list[Json]
    decisions: list[Decision]
    plan: Plan


@dataclass(frozen=True)
class Planner:
    """What a planning step depends on besides its input."""

    fields: Fields
    weights: Weights
    limits: Limits
    horizon: timedelta
    limit_s: float
    gap: float
    zone: ZoneInfo
    monotonic: Callable[[], float]


def assign(resources: Sequence[Json], planner: Planner, now: datetime, carried: Mapping[str, int]) -> Assigned:
    """Give the open reading Tasks to readers and say why.

    A Task that was opened, or whose owner a person chose, is never changed; it only counts as load.

    Args:
        resources: Tasks with their ServiceRequests, the roster, and prior DiagnosticReports.
        carried: Minutes by reader over the days of a fair turn.

    Raises:
        BadInput: A time or a skill level in the input cannot be read.
    """
    tasks = readings(resources, planner.fields, planner.limits, now)
    staff = _with_load(readers(resources, now, planner.horizon), tasks, carried)
    to_plan = [t for t in tasks if t.standing is not Standing.HELD]
    problem = Problem(staff, [t.case for t in to_plan], planner.weights)
    made = plan(problem, limit_s=planner.limit_s, gap=planner.gap, monotonic=planner.monotonic)
    moment = receipt.Moment(now, planner.zone)
    changed, decisions = [], []
    for reading in to_plan:
        task, decision = _decide(reading, problem, made, moment)
        decisions.append(decision)
        if decision.changed:
            changed.append(task)
    return Assigned(changed, decisions, made)


def _with_load(staff: Sequence[Reader], tasks: Sequence[Reading], carried: Mapping[str, int]) -> list[Reader]:
    held = {r.id: 0 for r in staff}
    by_id = {r.id: r for r in staff}
    for reading in tasks:
        if reading.standing is Standing.HELD and reading.owner in held:
            held[reading.owner] += reading_minutes(by_id[reading.owner], reading.case)
    return [replace(r, held=held[r.id], carried=carried.get(r.id, 0)) for r in staff]


def _decide(reading: Reading, problem: Problem, made: Plan, moment: receipt.Moment) -> tuple[Json, Decision]:
    case, reader_id = reading.case, made.assign[reading.case.id]
    if reader_id is None:
        excluded = receipt.left_over(problem, made, case)
        task = waiting_task(reading, excluded, moment)
        changed = _without_times(task) != _without_times(reading.task)
        lines = tuple(receipt.Line("excluded", e.sentence) for e in excluded)
        return task, Decision(case.id, None, case.minutes, changed, lines, tuple(excluded))
    reader = problem.reader(reader_id)
    lines = tuple(receipt.given(problem, made, case, moment, raised=reading.raised, machine=reading.raised_by_machine))
    task = given_task(reading, reader, lines, moment)
    return task, Decision(case.id, reader_id, reading_minutes(reader, case), reader_id != reading.owner, lines)


def given_task(reading: Reading, reader: Reader, lines: Sequence[receipt.Line], moment: receipt.Moment) -> Json:
    """Return the Task with its owner and the receipt in `output`."""
    task = _cleared(reading, moment)
    task["status"] = "ready"
    task["owner"] = reference("Practitioner", reader.id, reader.name)
    task["output"] = [
        *task.get("output", []),
        {"type": _label("given-to"), "valueReference": reference("Practitioner", reader.id, reader.name)},
        *({"type": _label(line.label), "valueString": line.sentence} for line in lines),
    ]
    return task


def waiting_task(reading: Reading, excluded: Sequence[Exclusion], moment: receipt.Moment) -> Json:
    """Return the Task that nobody can take: ready, without owner, with the rule that excluded each reader."""
    task = _cleared(reading, moment)
    task.pop("owner", None)
    task["status"] = "ready"
    task["statusReason"] = concept(CS_TASK, "no-eligible-reader", text=WAITING)
    if reading.case.due <= 0:
        task["businessStatus"] = concept(CS_TASK, _ESCALATED, text="past its due time without a reader")
    sentences = [e.sentence for e in excluded] or ["nobody is on the roster"]
    task["output"] = [
        *task.get("output", []),
        *({"type": _label("excluded"), "valueString": sentence} for sentence in sentences),
    ]
    return task


def _cleared(reading: Reading, moment: receipt.Moment) -> Json:
    """Return a copy of the Task without what an earlier plan wrote; who handed it back stays noted."""
    task = copy.deepcopy(reading.task)
    task.pop("statusReason", None)
    if any(c.get("code") == _ESCALATED for c in (task.get("businessStatus") or {}).get("coding", [])):
        task.pop("businessStatus")
    outputs = [o for o in task.pop("output", []) if not _is_receipt(o)]
    outputs += [
        {"type": _label("handed-back"), "valueReference": reference("Practitioner", who)}
        for who in sorted(reading.case.refused_by)
    ]
    if outputs:
        task["output"] = outputs
    task["lastModified"] = moment.now.isoformat(timespec="seconds").replace("+00:00", "Z")
    return task


def _label(code: str) -> Json:
    return concept(CS_RECEIPT, code)


def _is_receipt(output: Json) -> bool:
    return any(c.get("system") == CS_RECEIPT for c in output.get("type", {}).get("coding", []))


def _without_times(task: Json) -> Json:
    return {key: value for key, value in task.items() if key not in ("lastModified", "meta")}


@dataclass(frozen=True)
class Row:
    """One row of a reader's list."""

    task_id: str
    order: str
    status: str
    priority: str
    due_in_min: int
    minutes: int
    why: str
    receipt: tuple[receipt.Line, ...]
    given: bool


def worklist(tasks: Sequence[Json], orders: Sequence[Json], planner: Planner, now: datetime) -> list[Row]:
    """Return the rows of a list in the order in which they should be read."""
    found = readings([*tasks, *orders], planner.fields, planner.limits, now)
    rows: list[tuple[Case, Row]] = []
    for reading in found:
        lines = tuple(_receipt_lines(reading.task))
        machine = reading.raised_by_machine
        if machine and all(line.sentence != machine for line in lines):
            lines += (receipt.Line("raised", machine),)  # brought forward after it was given
        why = next((line.sentence for line in lines if line.label == "why"), "taken or given by a person")
        if reading.owner is None:
            why = "shared list"
        if machine:
            why = f"{machine} ({why})"
        rows.append((
            reading.case,
            Row(
                reading.case.id, str((reading.task.get("focus") or {}).get("reference", "")), str(reading.task.get("status")),
                reading.stated.word, reading.case.due, reading.case.minutes, why, lines,
                reading.owner is not None and given_by_plan(reading.task) == reading.owner,
            ),
        ))  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda pair: reading_order(pair[0]))]


def _receipt_lines(task: Json) -> list[receipt.Line]:
    return [
        receipt.Line(str(coding.get("code")), str(output["valueString"]))
        for output in task.get("output", [])
        for coding in output.get("type", {}).get("coding", [])[:1]
        if coding.get("system") == CS_RECEIPT and "valueString" in output
    ]
