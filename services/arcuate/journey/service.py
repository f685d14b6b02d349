"""Use cases of the journey room: take a change of the feed, bring a case forward, release or keep out what is held."""

from collections.abc import Callable
from datetime import datetime

from sqlmodel import Session

from arcuate.journey import store
from arcuate.journey.acts import InHand, note_times, one_act
from arcuate.journey.domain import End, Facts
from arcuate.journey.facts import gather
from arcuate.journey.room import Journey
from arcuate.journey.tables import CaseRow
from arcuate.kernel.codes import SYSTEM_DICOM_UID, accession_of, is_from_elsewhere, is_history
from arcuate.kernel.errors import BadInput, Conflict, Json, NotFound, Unavailable
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.feed import Change
from arcuate.kernel.work import Apply, Job, Later

FEED_TYPES = (
    "Appointment", "AllergyIntolerance", "Communication", "Condition", "Device", "DiagnosticReport", "ImagingStudy",
    "List", "MedicationRequest", "MedicationStatement", "Observation", "Patient", "Procedure", "ServiceRequest", "Task",
)  # fmt: skip
FEED = "feed"
_OF_PATIENT = frozenset(
    {"AllergyIntolerance", "Condition", "Device", "List", "MedicationRequest", "MedicationStatement", "Observation"}
)
_ROUNDS = 16
_RECORD_AWAY_S = 5.0


async def take_change(journey: Journey, change: Change, *, in_turn: bool = False) -> None:
    """Find the cases that a change of the record concerns, and ask for them to be looked at.

    Raises:
        Conflict: `in_turn`, and another replica follows the feed by now; nothing was written.
    """
    resource, now = change.resource, journey.clock.now()
    if resource is None or is_history(resource):  # the past is read by a case, and begins none
        return
    own = f"{change.type}/{change.id}"

    def write(session: Session) -> None:
        if in_turn and not journey.turns.mine(session, FEED):
            raise Conflict("Another replica follows the feed")
        for case_id in _cases_of(session, own, resource, now):
            store.wake(session, case_id, now)

    await journey.database.write(write)


def _cases_of(session: Session, own: str, resource: Json, now: datetime) -> set[str]:
    kind = resource["resourceType"]
    if kind == "ServiceRequest":
        return {store.case_of_order(session, resource["id"], accession_of(resource), _uids(resource), now).id}
    if kind == "Patient":
        others = [str((link.get("other") or {}).get("reference", "")) for link in resource.get("link", ())]
        return store.linked_cases(session, [own, *others])
    if kind == "ImagingStudy" and is_from_elsewhere(resource):
        return set()  # an earlier study that the EHR tells of: no images have come
    if kind == "ImagingStudy":
        return store.case_of_images(session, own, accession_of(resource), _uids(resource), now)
    named = [resource.get("focus"), *resource.get("basedOn", ()), *resource.get("about", ())]
    references = [r["reference"].split("/_history")[0] for r in named if isinstance(r, dict) and r.get("reference")]
    found = store.linked_cases(session, [own, *references])
    if kind in _OF_PATIENT and not found:
        patient_id = reference_id(resource.get("subject") or resource.get("patient"), "Patient")
        return store.linked_cases(session, [f"Patient/{patient_id}"], open_only=True) if patient_id else set()
    for case_id in found:
        store.link(session, [own], case_id)
    return found


def _uids(resource: Json) -> list[str]:
    """Return the study UIDs that an order or images name."""
    return [
        str(i["value"])
        for i in resource.get("identifier", ())
        if i.get("system") == SYSTEM_DICOM_UID and i.get("value")
    ]


async def advance(journey: Journey, job: Job) -> Apply | None:
    """Bring a case as far as it goes now; returns what writes where it then stands.

    Raises:
        Later: The record does not answer, or another worker has brought the case forward.
    """
    case_id = str(job.payload["case"])
    try:
        if (
            job.attempt > 1
        ):  # whoever had this job before may still be at it: what it has read is out of date from now on
            await journey.database.write(lambda s: store.take_over(s, case_id))
        for _ in range(_ROUNDS):
            case = await _look(journey, case_id)
            if case is None:
                return None
            if not await note_times(case) and not await one_act(case):
                break
        if case is not None and case.has_written:
            case = await _look(journey, case_id)
    except Unavailable as error:
        raise Later(_RECORD_AWAY_S, "the record does not answer") from error
    return None if case is None else _settled(case)


def _settled(case: InHand) -> Apply:
    """Return what writes where a case stands."""
    journey, facts, now = case.journey, case.facts, case.journey.clock.now()
    stage, waits_for = journey.table.standing(facts)
    reached = journey.table.reached(facts) + ([stage] if stage in set(End) else [])

    def write(session: Session) -> None:
        store.fence(session, case.row.id, case.version)
        current = session.get_one(CaseRow, case.row.id)
        if current.stage != stage:
            current.stage, current.since = stage, now
        current.waits_for, current.held = waits_for, facts.held
        current.due = journey.table.due(stage, facts, current.since, journey.settings)
        current.patient_id = facts.patient["id"] if facts.patient else current.patient_id
        session.add(current)
        store.forgive(session, current.id)
        store.link(session, [f"Patient/{one['id']}" for one in facts.people], current.id)
        store.reach(session, current.id, {name: (now, _source(facts)) for name in reached if name != End.PARKED})
        if facts.held:
            mark = f"{current.id}:held:{facts.held}:{case.row.released}:{case.row.set_aside}"
            store.note(session, current.id, End.PARKED, now, facts.held, mark=mark)

    return write


def _source(facts: Facts) -> str:
    return str((facts.order or {}).get("meta", {}).get("source", ""))


async def _look(journey: Journey, case_id: str) -> InHand | None:
    """Read a case and all that is known of it; None when it has become part of another one."""

    def read(session: Session) -> tuple[CaseRow | None, list[str]]:
        return store.get_case(session, case_id), store.links_of(session, case_id, "ImagingStudy")

    row, studies = await journey.database.read(read)
    if row is None:
        return None
    gathered = await gather(journey.fhir, row, studies, journey.clock.now(), journey.settings)
    return InHand(journey, row, gathered, row.version)


async def timer(journey: Journey, job: Job) -> Apply:
    """Wake a case whose time has come."""
    now = journey.clock.now()
    return lambda session: store.wake(session, str(job.payload["case"]), now)


async def release(journey: Journey, case_id: str, by: str, reason: str) -> None:
    """Let held images into their case: a person has looked at both identities.

    Raises:
        NotFound: No such case.
        Conflict: Nothing is held there.
        BadInput: No reason is given.
    """

    def change(row: CaseRow, studies: str) -> None:
        row.released, row.set_aside = studies, ""

    await _decide(journey, case_id, f"Released by {by}", reason, change)


async def keep_out(journey: Journey, case_id: str, by: str, reason: str) -> None:
    """Keep held images out of the case, which goes on without them; they come in by themselves once the identities agree.

    Raises:
        NotFound: No such case.
        Conflict: Nothing is held there.
        BadInput: No reason is given.
    """

    def change(row: CaseRow, studies: str) -> None:
        row.set_aside = studies

    await _decide(journey, case_id, f"Kept out by {by}", reason, change)


async def _decide(
    journey: Journey, case_id: str, who: str, reason: str, change: Callable[[CaseRow, str], None]
) -> None:
    if not reason.strip():
        raise BadInput("Held images are let in or kept out only with a reason", where="reason")
    now = journey.clock.now()

    def write(session: Session) -> None:
        row = _known(session, case_id)
        if not row.held:
            raise Conflict("Nothing is held in this case", where=f"case {case_id}")
        change(row, " ".join(store.links_of(session, case_id, "ImagingStudy")))
        session.add(row)
        store.note(session, case_id, "released", now, f"{who}: {reason}")
        store.wake(session, case_id, now)

    await journey.database.write(write)


async def look_again(journey: Journey, case_id: str) -> None:
    """Have a case looked at now, whatever it waits for.

    Raises:
        NotFound: No such case.
    """
    now = journey.clock.now()
    await journey.database.write(lambda s: store.wake(s, _known(s, case_id).id, now))


def _known(session: Session, case_id: str) -> CaseRow:
    row = store.get_case(session, case_id)
    if row is None:
        raise NotFound("There is no such case", where=f"case {case_id}")
    return row
