"""Today's visits out of the record: Appointment with what refers to it (rooms.md, section 2)."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from arcuate.dashboard import facts
from arcuate.dashboard.domain.board import GONE, Asked, Chance, Flag, Forecast, Reason, Visit
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording
from arcuate.kernel.codes import CS_ASK, CS_FLAG, CS_FORECAST
from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.bundle import reference_id

_OPEN_ASK = ("requested", "received", "accepted")
_MOST = "500"
_UNNAMED = "no scanner named"
# What stands behind a code of `urn:arcuate:cs:ask`, as people say it.
ASKS = {"reschedule": "move", "cancel": "cancel"}
# Other doors ask too: $book of the record.
ASKED = {**ASKS, "book": "book"}


@dataclass(frozen=True)
class DayResources:
    """All that the record says of a day's visits."""

    appointments: list[Json]
    others: Mapping[str, Json]
    about_visit: Mapping[str, list[Json]]
    about_order: Mapping[str, list[Json]]


async def read_day(rooms: Rooms, day: date) -> DayResources:
    """Read a day's appointments and everything that refers to them."""
    found = await rooms.fhir.search(
        "Appointment",
        {
            "date": day.isoformat(), "_count": _MOST,
            "_include": ["Appointment:patient", "Appointment:location", "Appointment:based-on"],
            "_revinclude": ["RiskAssessment:basis", "Observation:focus", "Task:focus", "Encounter:appointment"],
        },
    )  # fmt: skip
    return await _with_orders(rooms, found)


async def read_visit(rooms: Rooms, appointment_id: str) -> DayResources:
    """Read one appointment and everything that refers to it."""
    found = await rooms.fhir.search(
        "Appointment",
        {
            "_id": appointment_id, "_include": ["Appointment:patient", "Appointment:location", "Appointment:based-on"],
            "_revinclude": ["RiskAssessment:basis", "Observation:focus", "Task:focus", "Encounter:appointment"],
        },
    )  # fmt: skip
    return await _with_orders(rooms, found)


async def _with_orders(rooms: Rooms, found: list[Json]) -> DayResources:
    orders = ",".join(f"ServiceRequest/{r['id']}" for r in facts.of_type(found, "ServiceRequest"))
    flags: list[Json] = []
    procedures: list[Json] = []
    if orders:
        flags, procedures = await asyncio.gather(
            rooms.fhir.search("DetectedIssue", {"implicated": orders, "_count": _MOST}),
            rooms.fhir.search("Procedure", {"based-on": orders, "_count": _MOST}),
        )
    about_visit: dict[str, list[Json]] = defaultdict(list)
    about_order: dict[str, list[Json]] = defaultdict(list)
    for resource in found:
        for reference in _visits_of(resource):
            about_visit[reference].append(resource)
    for resource in (*flags, *procedures):
        for item in (*(resource.get("implicated") or []), *(resource.get("basedOn") or [])):
            about_order[facts.target(item)].append(resource)
    return DayResources(facts.of_type(found, "Appointment"), facts.by_reference(found), about_visit, about_order)


def _visits_of(resource: Json) -> Iterable[str]:
    match resource["resourceType"]:
        case "RiskAssessment":
            items = resource.get("basis") or []
        case "Observation":
            items = resource.get("focus") or []
        case "Encounter":
            items = resource.get("appointment") or []
        case "Task":
            items = [resource.get("focus")]
        case _:
            items = []
    return (facts.target(item) for item in items)


def visits_of(
    day: DayResources, cases: Mapping[str, str], arrivals: Mapping[str, datetime], words: Wording
) -> list[Visit]:
    """Return the visits of a day.

    Args:
        cases: Id of the case by `ServiceRequest/id`, as far as the ledger said.
        arrivals: When somebody came, by appointment id, as far as the live waiting line said.
    """
    return [
        visit
        for appointment in day.appointments
        if appointment.get("status") not in GONE
        and (visit := visit_of(appointment, day, cases, arrivals, words)) is not None
    ]


def visit_of(
    appointment: Json, day: DayResources, cases: Mapping[str, str], arrivals: Mapping[str, datetime], words: Wording
) -> Visit | None:
    """Return one visit; None for an appointment without a time."""
    start = facts.instant(appointment.get("start"))
    if start is None:
        return None
    end = facts.instant(appointment.get("end")) or start + timedelta(
        minutes=int(appointment.get("minutesDuration") or 30)
    )
    order = next((o for b in appointment.get("basedOn") or [] if (o := day.others.get(facts.target(b)))), None)
    patient = day.others.get(f"Patient/{facts.participant(appointment, 'Patient')}")
    place = day.others.get(f"Location/{facts.participant(appointment, 'Location')}")
    about = day.about_visit.get(f"Appointment/{appointment['id']}", [])
    of_order = day.about_order.get(f"ServiceRequest/{order['id']}", []) if order else []
    began, ended = exam_times(facts.of_type(of_order, "Procedure"))
    return Visit(
        id=str(appointment["id"]), scanner=str(place["name"]) if place and place.get("name") else _UNNAMED, start=start,
        end=max(end, start + timedelta(minutes=5)), status=str(appointment.get("status")), name=facts.person_name(patient),
        short=facts.short_name(patient), exam=facts.short_exam(facts.exam_name(order, appointment)),
        case=cases.get(f"ServiceRequest/{order['id']}", "") if order else "", phone=facts.phone(patient),
        about=facts.person_line(patient, words.now.astimezone(words.zone).date()),
        priority=str((order or {}).get("priority") or "routine"), arrived=_arrived(appointment, about, arrivals), began=began,
        ended=ended, chance=_newest_chance(about), wait=_minutes(about, "wait"), duration=_minutes(about, "duration"),
        flags=flags_of(facts.of_type(of_order, "DetectedIssue")), asked=_asked(facts.of_type(about, "Task"), words),
        scanner_named=place is not None,
    )  # fmt: skip


def exam_times(procedures: Sequence[Json]) -> tuple[datetime | None, datetime | None]:
    """Return when the exam began and ended; a step without a time counts from when the record heard of it."""
    running = next((p for p in procedures if p.get("status") == "in-progress"), None)
    done = next((p for p in procedures if p.get("status") == "completed"), None)
    if done is not None:
        period = done.get("performedPeriod") or {}
        began = facts.instant(period.get("start")) or facts.instant(done.get("performedDateTime"))
        return began, facts.instant(period.get("end")) or facts.updated(done)
    if running is not None:
        return facts.instant((running.get("performedPeriod") or {}).get("start")) or facts.updated(running), None
    return None, None


def _arrived(appointment: Json, about: Sequence[Json], arrivals: Mapping[str, datetime]) -> datetime | None:
    if appointment.get("status") not in ("arrived", "checked-in", "fulfilled"):
        return None
    stated = (facts.instant((e.get("period") or {}).get("start")) for e in facts.of_type(about, "Encounter"))
    known = arrivals.get(str(appointment["id"])) or next((s for s in stated if s), None)
    return known or facts.updated(appointment)


def _newest_chance(about: Sequence[Json]) -> Chance | None:
    forecasts = [r for r in facts.of_type(about, "RiskAssessment") if r.get("status") == "final"]
    forecasts.sort(key=lambda r: str(r.get("occurrenceDateTime") or ""))
    return chance_of(forecasts[-1]) if forecasts else None


def chance_of(forecast: Json) -> Chance | None:
    """Return the chance that a RiskAssessment states."""
    by_outcome = {
        code: p for p in forecast.get("prediction") or [] for code in facts.codes(p.get("outcome"), CS_FORECAST)
    }
    prediction = by_outcome.get("no-show")
    if prediction is None or "probabilityDecimal" not in prediction:
        return None
    value = float(prediction["probabilityDecimal"])
    spread = (facts.extension(prediction, "interval") or {}).get("valueRange") or {}
    low, high = ((spread.get(side) or {}).get("value") for side in ("low", "high"))
    cancel = by_outcome.get("late-cancel", {}).get("probabilityDecimal")
    fallback = facts.codes(forecast.get("method"), "urn:arcuate:cs:model") == ["fallback"]
    why = next((str(n["text"]) for n in forecast.get("note") or [] if not n.get("extension")), "site rate")
    return Chance(
        value, value if low is None else float(low) / 100, value if high is None else float(high) / 100, tuple(_reasons(forecast)),
        why if fallback else "", facts.text_of(forecast.get("method")), _like(prediction), None if cancel is None else float(cancel),
    )  # fmt: skip


def _reasons(forecast: Json) -> Iterable[Reason]:
    for note in forecast.get("note") or []:
        parts = {p.get("url"): p for p in (facts.extension(note, "reason") or {}).get("extension") or []}
        if (parts.get("outcome") or {}).get("valueCode") == "no-show" and "sentence" in parts:
            yield Reason(
                str(parts["sentence"]["valueString"]), float((parts.get("points") or {}).get("valueDecimal") or 0)
            )


def _like(prediction: Json) -> tuple[int, int] | None:
    parts = {
        p.get("url"): p.get("valueInteger") for p in (facts.extension(prediction, "like") or {}).get("extension") or []
    }
    return (int(parts["events"]), int(parts["visits"])) if {"events", "visits"} <= parts.keys() else None


def _minutes(about: Sequence[Json], code: str) -> Forecast | None:
    for observation in facts.of_type(about, "Observation"):
        if facts.has_code(observation.get("code"), CS_FORECAST, code):
            q = [facts.component_minutes(observation, name) for name in ("p10", "p50", "p90")]
            if all(value is not None for value in q):
                return Forecast(float(q[0] or 0), float(q[1] or 0), float(q[2] or 0))
    return None


def flags_of(issues: Iterable[Json]) -> tuple[Flag, ...]:
    """Return the flags that stand, what must be settled first before the rest."""
    standing = [i for i in issues if i.get("status") not in ("cancelled", "entered-in-error")]
    standing.sort(key=lambda i: ("high", "moderate", "low").index(str(i.get("severity") or "low")))
    return tuple(_flag(issue) for issue in standing)


def _flag(issue: Json) -> Flag:
    fixes = [facts.text_of(m.get("action")) for m in issue.get("mitigation") or []]
    rule = next(
        (str(i["value"]) for i in issue.get("identifier") or [] if i.get("system") == "urn:arcuate:id:flag"), ""
    )
    evidence = tuple(facts.text_of(c) for e in issue.get("evidence") or [] for c in e.get("code") or [])
    codings = [c for c in (issue.get("code") or {}).get("coding") or [] if c.get("system") == CS_FLAG]
    title = str(codings[0].get("display") or codings[0].get("code")) if codings else facts.text_of(issue.get("code"))
    named = " ".join(rule.split("/")[:2])
    severe, fix = issue.get("severity") == "high", fixes[0] if fixes else ""
    return Flag(str(issue.get("id")), title, str(issue.get("detail") or ""), fix, severe, named, evidence)


def _asked(tasks: Sequence[Json], words: Wording) -> Asked | None:
    mine = [t for t in tasks if t.get("status") in _OPEN_ASK and facts.codes(t.get("code"), CS_ASK)]
    if not mine:
        return None
    task = max(mine, key=lambda t: str(t.get("authoredOn") or ""))
    what = ASKED.get(facts.codes(task.get("code"), CS_ASK)[0], "change")
    inputs = {(i.get("type") or {}).get("text"): i for i in task.get("input") or []}
    wished = facts.instant(inputs.get("start", {}).get("valueDateTime"))
    if wished is not None:
        what = f"{what} to {words.when(wished)}"
    by = str((task.get("requester") or {}).get("display") or "")
    return Asked(what, facts.instant(task.get("authoredOn")), by, task.get("status") == "accepted")


def order_id_of(appointment: Json) -> str | None:
    """Return the id of the order that an appointment is for."""
    return next((found for b in appointment.get("basedOn") or [] if (found := reference_id(b, "ServiceRequest"))), None)
