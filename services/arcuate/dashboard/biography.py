"""A case's way and its events, out of the facts themselves: a time that the hospital stated counts before the time we heard of it."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from arcuate.dashboard import facts
from arcuate.dashboard.casefile import Resources
from arcuate.dashboard.domain.case import Event, Kind, Reached, Way
from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.pages.ledger import CaseLine
from arcuate.dashboard.visits import ASKED, exam_times
from arcuate.dashboard.words import Wording, count, listed
from arcuate.kernel.codes import CS_ASK, CS_DELIVERY
from arcuate.kernel.errors import Json

_NOTES = {
    "check": Mark.MACHINE, "quantify": Mark.MACHINE, "draft": Mark.MACHINE, "assign": Mark.NEXT, "attendance": Mark.MACHINE,
    "wait": Mark.MACHINE, "released": Mark.PERSON, "parked": Mark.STOP, "booked": Mark.UNKNOWN, "scanned": Mark.DONE,
}  # fmt: skip
_SMALL = frozenset({"attendance", "wait"})
_OPEN = ("booked", "pending", "arrived", "checked-in", "fulfilled")
_SAME_VISIT = timedelta(hours=6)
_SENT = {"draft": "Draft", "booking": "Booking", "status": "Order status"}
_JOURNAL = "urn:arcuate:id:journal#"


def way_of(line: CaseLine, found: Resources) -> Way:
    """Return what the stage line is made from."""
    reached = {s.stage: Reached(s.at) for s in line.steps if s.kind == "stage"}
    stated = _stated(found)
    for stage, known in stated.items():
        if stage in reached or stage in ("ordered", "booked", "arrived"):
            reached[stage] = known
    if "quantified" in reached and not any("valueQuantity" in o for o in found.measurements):
        note = line.newest_note("quantify")
        why = "refused" if found.measurements else "not measured" if found.all("ImagingStudy") else "no images"
        reached["quantified"] = Reached(
            reached["quantified"].at, skipped=why if note or not found.measurements else "refused"
        )
    # A stage that the case passed because a room was silent has not happened.
    for ask, stage, there in (
        ("check", "checked", found.all("DetectedIssue")),
        ("draft", "drafted", found.draft or found.signed),
    ):
        if ask in line.silent and stage in reached and not there:
            reached[stage] = Reached(reached[stage].at, skipped=f"not {stage}")
    booking = newest_booking(found)
    task = found.reading or {}
    due = facts.instant(((task.get("restriction") or {}).get("period") or {}).get("end"))
    planned = facts.instant((booking or {}).get("start"))
    return Way(reached, line.stage, line.blocked, planned, due)


def newest_booking(found: Resources) -> Json | None:
    """Return the booking that counts: the latest that is not cancelled."""
    bookings = [a for a in found.all("Appointment") if a.get("status") in (*_OPEN, "noshow")]
    return max(bookings, key=lambda a: (a.get("status") != "noshow", str(a.get("start"))), default=None)


def _stated(found: Resources) -> dict[str, Reached]:
    """Return the times that resources state themselves."""
    made: dict[str, Reached] = {}
    began, ended = exam_times(found.all("Procedure"))
    arrived = [at for at, _ in _arrivals(found)]
    booked = [at for a in found.all("Appointment") if (at := facts.instant(a.get("created")))]
    delivered = [
        at for c in found.all("Communication")
        if facts.has_code((c.get("category") or [{}])[0], CS_DELIVERY, "final") and (at := facts.instant(c.get("received")))
    ]  # fmt: skip
    times: dict[str, datetime | None] = {
        "ordered": facts.instant((found.order or {}).get("authoredOn")), "booked": min(booked, default=None),
        "arrived": min(arrived, default=None), "signed": facts.instant((found.signed or {}).get("issued")),
        "delivered": min(delivered, default=None),
    }  # fmt: skip
    made |= {stage: Reached(at) for stage, at in times.items() if at is not None}
    if ended is not None:
        made["scanned"] = Reached(began or ended, ended)
    return made


def _arrivals(found: Resources) -> list[tuple[datetime, str]]:
    """Return when the person came for this exam, and where: visits of the patient within some hours of the booking."""
    planned = facts.instant((newest_booking(found) or {}).get("start"))
    made = []
    for visit in found.all("Encounter"):
        at = facts.instant((visit.get("period") or {}).get("start"))
        if at is not None and planned is not None and abs(at - planned) < _SAME_VISIT:
            places = [str((p.get("location") or {}).get("display") or "") for p in visit.get("location") or []]
            made.append((at, places[0] if places else ""))
    return sorted(made)


def events_of(line: CaseLine, found: Resources, words: Wording) -> list[Event]:
    """Return everything that happened, each with its cause."""
    made: list[Event] = [
        *_order_events(found),
        *_booking_events(found, words),
        *_exam_events(found),
        *_report_events(found),
    ]
    made += _ledger_events(line)
    made += _message_events(found)
    return made


def _ledger_events(line: CaseLine) -> Iterable[Event]:
    told: set[tuple[str, str]] = set()
    for step in line.steps:
        if step.kind == "stage":
            yield Event(step.at, Mark.SAME, f"Stage reached: {step.stage}", kind=Kind.MORE)
            continue
        title, _, cause = step.note.partition(": ")
        sentence, why = (title, cause) if cause and len(title) < 48 else (step.note, "")
        # The same words a second time are no news; they stand under All.
        small = step.stage in _SMALL or (step.stage, step.note) in told
        told.add((step.stage, step.note))
        sentence = sentence[:1].upper() + sentence[1:]
        yield Event(step.at, _NOTES.get(step.stage, Mark.SAME), sentence, why, Kind.MORE if small else Kind.MAIN)


def _order_events(found: Resources) -> Iterable[Event]:
    order = found.order
    if order is None:
        return
    if (at := facts.instant(order.get("authoredOn"))) is not None:
        by = str((order.get("requester") or {}).get("display") or "")
        yield Event(at, Mark.PERSON, f"Ordered{f' by {by}' if by else ''}", facts.exam_name(order))
    if order.get("status") == "revoked" and (at := facts.updated(order)) is not None:
        yield Event(at, Mark.UNKNOWN, "Order cancelled")


def _booking_events(found: Resources, words: Wording) -> Iterable[Event]:
    places = {f"Location/{p['id']}": str(p.get("name") or "") for p in found.all("Location")}
    for booking in found.all("Appointment"):
        start, made_at = facts.instant(booking.get("start")), facts.instant(booking.get("created"))
        place = places.get(f"Location/{facts.participant(booking, 'Location')}", "")
        if start is not None and made_at is not None:
            yield Event(made_at, Mark.PERSON, f"Booked for {words.when(start)}{f', {place}' if place else ''}")
        changed = facts.updated(booking)
        if booking.get("status") == "cancelled" and changed is not None:
            yield Event(changed, Mark.UNKNOWN, "Booking cancelled", facts.text_of(booking.get("cancelationReason")))
        if booking.get("status") == "noshow" and changed is not None:
            yield Event(changed, Mark.UNKNOWN, "Did not come")
    for task in found.all("Task"):
        asked, at = facts.codes(task.get("code"), CS_ASK), facts.instant(task.get("authoredOn"))
        if asked and at is not None:
            by = str((task.get("requester") or {}).get("display") or "")
            state = {"completed": "done by the RIS", "accepted": "the RIS has it"}.get(str(task.get("status")), "asked")
            yield Event(
                at, Mark.PERSON, f"Asked the RIS to {ASKED.get(asked[0], 'change')}", f"{by}; {state}".lstrip("; ")
            )


def _exam_events(found: Resources) -> Iterable[Event]:
    for came, place in _arrivals(found):
        yield Event(came, Mark.MESSAGE, "Checked in", place)
    began, ended = exam_times(found.all("Procedure"))
    planned = facts.instant((newest_booking(found) or {}).get("start"))
    if began is not None:
        behind = int((began - planned).total_seconds() // 60) if planned else 0
        late = behind >= 10
        yield Event(
            began, Mark.LOOK if late else Mark.RUNNING, f"Exam began{f' {behind} min after the slot' if late else ''}"
        )
    if ended is not None:
        yield Event(ended, Mark.DONE, "Exam done")
    for study in (*found.all("ImagingStudy"), *found.loose):
        if (at := facts.updated(study)) is not None:
            series, images = int(study.get("numberOfSeries") or 0), int(study.get("numberOfInstances") or 0)
            sentence = f"Images in: {count(series, 'series', 'series')}, {count(images, 'image')}"
            yield Event(at, Mark.MESSAGE, sentence, str(study.get("description") or ""))


def _report_events(found: Resources) -> Iterable[Event]:
    signed = found.signed
    if signed is not None and (at := facts.instant(signed.get("issued"))) is not None:
        people = [*(signed.get("resultsInterpreter") or []), *(signed.get("performer") or [])]
        by = next((str(p["display"]) for p in people if p.get("display")), "")
        yield Event(
            at,
            Mark.PERSON,
            f"Signed{f' by {by}' if by else ''}",
            "" if signed["status"] == "final" else str(signed["status"]),
        )
    for sent in found.all("Communication"):
        category = (sent.get("category") or [{}])[0]
        what = next((words for code, words in _SENT.items() if facts.has_code(category, CS_DELIVERY, code)), "Report")
        to = listed([str(r["display"]) for r in sent.get("recipient") or [] if r.get("display")])
        received, went = facts.instant(sent.get("received")), facts.instant(sent.get("sent"))
        if received is not None:
            yield Event(received, Mark.DONE, f"{what} received by {to or 'its receiver'}", "acknowledged")
        elif went is not None:
            yield Event(went, Mark.WAITING, f"{what} sent to {to or 'its receiver'}", "not acknowledged yet")


def _message_events(found: Resources) -> Iterable[Event]:
    """What came in by message: the journal's numbers stand in `meta.source`."""
    carried: dict[str, list[Json]] = {}
    for resource in (*([found.order] if found.order else []), *found.about):
        source = str((resource.get("meta") or {}).get("source") or "")
        if source.startswith(_JOURNAL):
            carried.setdefault(source.removeprefix(_JOURNAL).split(":")[0], []).append(resource)
    for number, resources in carried.items():
        at = min((t for r in resources if (t := facts.updated(r))), default=None)
        if at is not None:
            kinds = sorted({str(r["resourceType"]) for r in resources})
            yield Event(
                at, Mark.MESSAGE, f"Message {number} of the journal", f"stands in {listed(kinds)}", Kind.MESSAGE
            )
