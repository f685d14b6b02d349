"""What people do from the pages, one function an act. Every act is a standard write with the person's own token; the rooms judge it."""

from datetime import timedelta

from arcuate.dashboard import facts, merges
from arcuate.dashboard.domain.frame import Mark, Notice, Viewer
from arcuate.dashboard.domain.reading import lease_of
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.visits import ASKS
from arcuate.dashboard.words import Wording
from arcuate.kernel.codes import CS_ASK, CS_RECEIPT, CS_TASK, concept, reference
from arcuate.kernel.errors import ArcuateError, BadInput, Conflict, Json, PreconditionFailed
from arcuate.kernel.fhir.bundle import reference_id

SYSTEM_PERSON = "urn:arcuate:id:person"
_OPEN_ASKS = "requested,received,accepted"
_LONGEST_REASON = 200


def stated(reason: str, ask: str) -> str:
    """Return a reason on one line, or ask for it."""
    if not reason.strip():
        raise BadInput(ask, where="reason")
    return " ".join(reason.split())[:_LONGEST_REASON]


def refused(error: ArcuateError) -> Notice:
    """Return what people read when an act was refused."""
    if isinstance(error, PreconditionFailed):
        return Notice(
            "Not saved: somebody else changed this meanwhile.", "What stands now is shown. Nothing is lost.", Mark.STOP
        )
    return Notice(f"Not done: {error.what.rstrip('.')}.", error.todo, Mark.STOP)


async def ask_ris(
    rooms: Rooms,
    viewer: Viewer,
    words: Wording,
    appointment_id: str,
    kind: str,
    to: str,
    reason: str,
    version: str = "",
) -> Notice:
    """Ask the RIS, which owns the booking, to move or cancel it; it stays as it is until the RIS confirms by message.

    Args:
        kind: "reschedule" or "cancel".
        to: The wished start as an instant; empty leaves the time to the RIS.
        version: The version of the booking that the person saw.

    Raises:
        BadInput: An unknown kind or time, or no reason.
        PreconditionFailed: The booking has changed since.
        Conflict: Something is asked already.
    """
    if kind not in ASKS:
        raise BadInput("Choose whether to move or to cancel", where="kind")
    reason = stated(reason, "Say why, in a few words")
    appointment = await rooms.fhir.read("Appointment", appointment_id)
    if version and version != facts.version(appointment):
        raise PreconditionFailed("The booking has changed since you looked", where="Appointment")
    focus = f"Appointment/{appointment_id}"
    if await rooms.fhir.search("Task", {"focus": focus, "status": _OPEN_ASKS, "code": f"{CS_ASK}|"}):
        raise Conflict("The RIS has been asked about this visit already", todo="Wait for its answer.")
    await rooms.fhir.create(_ask(appointment, viewer, words, kind, _wished(to), reason))
    when = f" to {words.when(wished)}" if (wished := facts.instant(to)) else ""
    return Notice(f"Asked the RIS to {ASKS[kind]}{when}.", "The booking stays as it is until the RIS confirms.")


def _wished(to: str) -> str:
    if to and facts.instant(to) is None:
        raise BadInput("This is no time", where="to")
    return to


def _ask(appointment: Json, viewer: Viewer, words: Wording, kind: str, to: str, reason: str) -> Json:
    now = words.now.isoformat(timespec="seconds")
    made: Json = {
        "resourceType": "Task", "status": "requested", "intent": "proposal",
        "code": concept(CS_ASK, kind, f"Ask the RIS to {ASKS[kind]}"), "focus": reference("Appointment", str(appointment["id"])),
        "authoredOn": now, "lastModified": now, "requester": person_reference(viewer),
        "description": reason,
    }  # fmt: skip
    if patient := facts.participant(appointment, "Patient"):
        made["for"] = reference("Patient", patient)
    if to:
        made["input"] = [{"type": {"text": "start"}, "valueDateTime": to}]
    return made


def person_reference(viewer: Viewer) -> Json:
    """Return a Reference to a person of the access room who is no Practitioner of the record."""
    return {"identifier": {"system": SYSTEM_PERSON, "value": viewer.id}, "display": viewer.name}


async def reader_of(rooms: Rooms, viewer: Viewer) -> Json:
    """Return the Reference under which a person reads: the Practitioner of the roster with their name, else the person."""
    for practitioner in await rooms.fhir.search("Practitioner", {"name": viewer.name, "active:not": "false"}):
        if facts.person_name(practitioner).casefold() == viewer.name.casefold():
            return reference("Practitioner", str(practitioner["id"]), viewer.name)
    return person_reference(viewer)


async def take(
    rooms: Rooms, viewer: Viewer, words: Wording, task_id: str, version: str, lease_min: float, *, over: bool = False
) -> Notice:
    """Take a case: it is this reader's, and open for the length of a lease.

    Args:
        version: The version of the Task that the person saw.
        over: Take it although another reader has it open; that is written down.

    Raises:
        PreconditionFailed: The Task has changed since.
        Conflict: Another reader has it open.
    """
    task = await _reading(rooms, task_id, version)
    lease = lease_of(task, words.now, timedelta(minutes=lease_min))
    me = await reader_of(rooms, viewer)
    mine = lease is not None and lease.by == viewer.name
    if lease is not None and not mine and not over:
        raise Conflict(
            f"{lease.by} has this case open since {words.when(lease.since)}", todo="Look, or take it over (O)."
        )
    now = words.now.isoformat(timespec="seconds")
    made = {
        **task, "status": "in-progress", "owner": me, "lastModified": now, "executionPeriod": {"start": now},
        "businessStatus": concept(CS_TASK, "chosen-by-person", text="taken by its reader"),
    }  # fmt: skip
    if lease is not None and not mine:
        made["note"] = [*task.get("note", []), {"time": now, "text": f"Taken over from {lease.by} by {viewer.name}"}]
    await rooms.fhir.update(made, facts.version(task))
    if lease is not None and not mine:
        return Notice(f"Taken over from {lease.by}.", "It is written down, and shown to them.")
    return Notice(
        "The case is yours.",
        f"Others see that you have it open, for {lease_min:.0f} min after your last act. Undo: hand back.",
    )


async def hand_back(rooms: Rooms, viewer: Viewer, words: Wording, task_id: str, version: str) -> Notice:
    """Give a case back: it goes to the shared list, and the plan does not give it to the same reader again.

    Raises:
        PreconditionFailed: The Task has changed since.
        Conflict: It is another reader's.
    """
    task = await _reading(rooms, task_id, version)
    owner = task.get("owner") or {}
    if owner.get("display") != viewer.name:
        raise Conflict("This case is not yours", todo="Only its reader hands it back.")
    now = words.now.isoformat(timespec="seconds")
    left = {k: v for k, v in task.items() if k not in ("owner", "executionPeriod", "businessStatus")}
    made = {**left, "status": "ready", "lastModified": now}
    if (practitioner := reference_id(owner, "Practitioner")) is not None:
        handed = {"type": concept(CS_RECEIPT, "handed-back"), "valueReference": reference("Practitioner", practitioner)}
        made["output"] = [*task.get("output", []), handed]
    await rooms.fhir.update(made, facts.version(task))
    return Notice("Handed back.", "It is on the shared list, and somebody else gets it.")


async def _reading(rooms: Rooms, task_id: str, version: str) -> Json:
    task = await rooms.fhir.read("Task", task_id)
    if task.get("status") in ("completed", "cancelled", "rejected", "failed"):
        raise Conflict("This case is read already", todo="Look at the case for its report.")
    if version and facts.version(task) != version:
        raise PreconditionFailed("The case has changed since you looked", where="Task")
    return task


async def release(rooms: Rooms, case_id: str, reason: str) -> Notice:
    """Let held images into their case: a person has looked at both identities.

    Raises:
        BadInput: No reason.
    """
    reason = stated(reason, "Say why you are sure, in a few words")
    await rooms.post(f"/journey/cases/{case_id}/release", {"reason": reason})
    return Notice("Released.", "The images join their order; your name and reason are kept with the case.")


async def keep_out(rooms: Rooms, case_id: str, reason: str) -> Notice:
    """Keep held images out of a case: a person has seen that they are of somebody else.

    Raises:
        BadInput: No reason.
    """
    reason = stated(reason, "Say why they do not belong here, in a few words")
    await rooms.post(f"/journey/cases/{case_id}/keep-out", {"reason": reason})
    return Notice("Kept out.", "The case goes on without these images; your name and reason are kept with it.")


async def take_merge_back(rooms: Rooms, viewer: Viewer, words: Wording, patient_id: str, reason: str) -> Notice:
    """Take the merge of a patient into another one back.

    Raises:
        BadInput: No reason.
        Conflict: There is no such merge any more.
    """
    reason = stated(reason, "Say why they are two people, in a few words")
    return await merges.take_back(rooms, viewer, words, patient_id, reason)


async def look_again(rooms: Rooms, case_id: str) -> Notice:
    """Have a case looked at once more: every question that is open is asked again."""
    await rooms.post(f"/journey/cases/{case_id}/again")
    return Notice("It is looked at again.", "What changes appears here by itself.")


async def replay(rooms: Rooms, item: str, edited: str = "") -> Notice:
    """Send a parked message through again, as received or as an edited copy; the received bytes never change."""
    await rooms.post_text(f"/gateway/errors/{item}/replay", edited)
    what = "The mended copy" if edited.strip() else "The message"
    return Notice(f"{what} is replayed.", "The received bytes stay as they are. Replaying twice changes nothing.")


async def discard(rooms: Rooms, item: str, reason: str) -> Notice:
    """Set a parked message aside; it stays in the journal.

    Raises:
        BadInput: No reason.
    """
    reason = stated(reason, "A message is set aside only with a reason")
    await rooms.post(f"/gateway/errors/{item}/discard", {"reason": reason})
    return Notice("Set aside.", "It stays in the journal, with your name and reason.")


async def release_sending(rooms: Rooms) -> Notice:
    """Send again what waits since a restore."""
    await rooms.post("/gateway/sending/release")
    return Notice("Sending goes on.", "What waits goes out in its order, a receiver at a time.")
