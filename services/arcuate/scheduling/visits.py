"""FHIR to visits: the same reading of Appointment, Patient, ServiceRequest, Encounter and Procedure in training and in service."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from arcuate.kernel.codes import CS_EXAM, CS_FORECAST, EXT_CHANGED, Json, is_history
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.scheduling.domain import LATE, Outcome, Visit

_ENDED = {"fulfilled": Outcome.ATTENDED, "noshow": Outcome.NO_SHOW}
_FILES = ("Patient", "ServiceRequest", "Appointment", "Encounter", "Procedure")
_KNOWN_AFTER = timedelta(hours=24)
"""When an outcome counts as known where the resource does not say when it was last changed."""


def visit(appointment: Json, patient: Json | None, order: Json | None) -> Visit:
    """Return one visit.

    Raises:
        BadInput: The start is missing or has no zone.
    """
    start = instant(appointment.get("start"), "Appointment.start")
    exam, words = _exam(appointment, order)
    outcome = _outcome(appointment, start)
    return Visit(
        id=str(appointment.get("id", "")),
        patient=_actor(appointment, "Patient")[0],
        order=next((i for r in appointment.get("basedOn", []) if (i := reference_id(r, "ServiceRequest"))), None),
        start=start,
        created=instant(appointment["created"], "Appointment.created") if appointment.get("created") else None,
        minutes=_minutes(appointment, start),
        exam=exam,
        words=words,
        place=_place(appointment),
        priority=str(order["priority"]) if order and order.get("priority") else None,
        birth=_birth(patient),
        mobile=None
        if patient is None
        else any(t.get("system") in ("phone", "sms") for t in patient.get("telecom", [])),
        outcome=outcome,
        known_at=_known_at(appointment, start) if outcome else None,
    )


def instant(text: Any, where: str) -> datetime:
    """Return an aware time, with the offset in which it is written.

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


def read_history(folder: Path) -> list[Visit]:
    """Return every visit of a history of FHIR NDJSON files (`Patient.ndjson`, `Appointment.ndjson` …), by start.

    Raises:
        BadInput: A file is missing or a line cannot be read; names file and line.
    """
    for name in ("Patient", "Appointment"):
        if not (folder / f"{name}.ndjson").is_file():
            raise BadInput(
                f"The history has no file {name}.ndjson", where=str(folder), todo="Write a history first, then train."
            )
    by_type = {name: list(_lines(folder / f"{name}.ndjson")) for name in _FILES}
    patients = {p["id"]: p for p in by_type["Patient"]}
    orders = {o["id"]: o for o in by_type["ServiceRequest"]}
    appointments = {a["id"]: a for a in by_type["Appointment"]}
    found: dict[str, Visit] = {}
    for number, appointment in enumerate(appointments.values(), 1):
        if not was_booked(appointment):
            continue
        order_id = next((i for r in appointment.get("basedOn", []) if (i := reference_id(r, "ServiceRequest"))), None)
        try:
            read = visit(appointment, patients.get(_actor(appointment, "Patient")[0] or ""), orders.get(order_id or ""))
        except BadInput as error:
            raise BadInput(
                error.what, where=f"Appointment.ndjson line {number}, {error.where}", todo=error.todo
            ) from error
        found[read.id] = read
    return sorted(_with_times(found, by_type["Encounter"], by_type["Procedure"]), key=lambda v: (v.start, v.id))


def _with_times(visits: Mapping[str, Visit], encounters: Sequence[Json], procedures: Sequence[Json]) -> Iterator[Visit]:
    times: dict[str, dict[str, datetime]] = {}
    appointment_of: dict[str, str] = {}
    for encounter in encounters:
        named = next((i for r in encounter.get("appointment", []) if (i := reference_id(r, "Appointment"))), None)
        begin = (encounter.get("period") or {}).get("start")
        if named and begin:
            appointment_of[str(encounter["id"])] = named
            times.setdefault(named, {})["arrived"] = instant(begin, "Encounter.period.start")
    by_order = {v.order: v.id for v in visits.values() if v.order and v.outcome is Outcome.ATTENDED}
    for procedure in procedures:
        period = procedure.get("performedPeriod") or {}
        order = next((i for r in procedure.get("basedOn", []) if (i := reference_id(r, "ServiceRequest"))), None)
        named = appointment_of.get(reference_id(procedure.get("encounter"), "Encounter") or "") or by_order.get(
            order or ""
        )
        if named and period.get("start"):
            times.setdefault(named, {})["began"] = instant(period["start"], "Procedure.performedPeriod.start")
            if period.get("end"):
                times[named]["ended"] = instant(period["end"], "Procedure.performedPeriod.end")
    for one in visits.values():
        t = times.get(one.id, {})
        yield replace(one, arrived=t.get("arrived"), began=t.get("began"), ended=t.get("ended"))


def _lines(file: Path) -> Iterator[Json]:
    if not file.is_file():
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise BadInput(
                    "This line is no JSON object", where=f"{file.name} line {number}", todo="Write the history again."
                ) from error


def _exam(appointment: Json, order: Json | None) -> tuple[str | None, str]:
    code = (order or {}).get("code") or {}
    codings = code.get("coding") or []
    text = str(
        code.get("text")
        or next((c["display"] for c in codings if c.get("display")), "")
        or appointment.get("description")
        or ""
    )
    own = next((str(c["code"]) for c in codings if c.get("system") == CS_EXAM and c.get("code")), None)
    first = next((str(c["code"]) for c in codings if c.get("code")), None)
    return own or first or (text.lower() or None), text.lower()


def _minutes(appointment: Json, start: datetime) -> int | None:
    if appointment.get("minutesDuration") is not None:
        return int(appointment["minutesDuration"])
    if appointment.get("end"):
        return max(0, int((instant(appointment["end"], "Appointment.end") - start).total_seconds() // 60))
    return None


def _actor(appointment: Json, resource_type: str) -> tuple[str | None, str | None]:
    for participant in appointment.get("participant", []):
        actor = participant.get("actor") or {}
        found = reference_id(actor, resource_type)
        if found:
            return found, actor.get("display")
    return None, None


def _place(appointment: Json) -> str | None:
    logical_id, name = _actor(appointment, "Location")
    return name or logical_id


def _birth(patient: Json | None) -> date | None:
    text = str((patient or {}).get("birthDate") or "")
    try:
        return (
            date.fromisoformat(text) if len(text) == 10 else date(int(text[:4]), 7, 1) if text[:4].isdigit() else None
        )
    except ValueError:
        return None


def was_booked(appointment: Json) -> bool:
    """Return whether somebody was ever expected: not for a slot that was held, or asked for, and came to nothing."""
    return _stated_reason(appointment) != "never-booked"


def _stated_reason(appointment: Json) -> str | None:
    codings = (appointment.get("cancelationReason") or {}).get("coding", [])
    return next((str(c.get("code")) for c in codings if c.get("system") == CS_FORECAST), None)


def _outcome(appointment: Json, start: datetime) -> Outcome | None:
    status = str(appointment.get("status"))
    if status in _ENDED:
        return _ENDED[status]
    if status != "cancelled":
        return None
    stated = _stated_reason(appointment)
    if stated == "never-booked":
        return None
    if stated in ("late-cancel", "early-cancel"):
        return Outcome(stated)
    changed = _changed(appointment)
    if changed is None:
        return Outcome.EARLY_CANCEL
    return Outcome.LATE_CANCEL if changed > start - LATE else Outcome.EARLY_CANCEL


def _known_at(appointment: Json, start: datetime) -> datetime:
    return _changed(appointment) or start + _KNOWN_AFTER


def _changed(appointment: Json) -> datetime | None:
    """When its own system had last changed it, as far as that is known: of what was taken over, `meta.lastUpdated` says when we did so."""
    said = next(
        (one.get("valueInstant") for one in appointment.get("extension") or [] if one.get("url") == EXT_CHANGED), None
    )
    if said is not None:
        return instant(said, "Appointment.extension")
    changed = None if is_history(appointment) else (appointment.get("meta") or {}).get("lastUpdated")
    return instant(changed, "meta.lastUpdated") if changed else None
