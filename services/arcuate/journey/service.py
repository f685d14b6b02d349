"""Use cases of the journey room: take a change of the feed, bring a case forward, release or keep out what is held."""

from collections.abc import Callable, Sequence
from datetime import datetime

from sqlmodel import Session

from arcuate.journey import store
from arcuate.journey.acts import InHand, note_times, one_act
from arcuate.journey.domain import End, Facts
from arcuate.journey.facts import Found, find, gathered
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


async def take_changes(journey: Journey, changes: Sequence[Change], reached: int | None = None) -> None:
    """Find the cases that changes of the record concern, and ask for them to be looked at: all in one transaction.

    Args:
        reached: The feed's cursor behind them, which is kept with them; None where the feed is not followed by turns.

    Raises:
        Conflict: Another replica follows the feed by now; nothing was written.
    """
    now = journey.clock.now()
    # The past is read by a case, and begins none.
    news = [(one, one.resource) for one in changes if one.resource is not None and not is_history(one.resource)]

    def write(session: Session) -> None:
        if reached is not None:
            if not journey.turns.mine(session, FEED):
                raise Conflict("Another replica follows the feed")
            store.save_cursor(session, reached)
        concerned: dict[str, None] = {}
        for change, resource in news:
            found = _cases_of(session, f"{change.type}/{change.id}", resource, now)
            concerned |= dict.fromkeys(sorted(found - {journey.own.case_of(change)}))
        for case_id in concerned:
            store.wake(session, case_id, now)

    await journey.database.write(write)


def _cases_of(session: Session, own: str, resource: Json, now: datetime) -> set[str]:
    kind = resource["resourceType"]
    if kind == "ServiceRequest":
        whose = reference_id(resource.get("subject"), "Patient")
        return {store.case_of_order(session, resource["id"], whose, accession_of(resource), _uids(resource), now).id}
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
        known, told = None, False
        for _ in range(_ROUNDS):
            case = await _look(journey, case_id, known)
            if case is None:
                return None
            acted = await note_times(case) or await one_act(case)
            # A second attempt does not know under which versions the first one wrote.
            known = case.known if job.attempt == 1 else None
            if not acted:
                told = case.has_told
                break
        if case is not None and case.has_written:
            case = await _look(journey, case_id, known)
    except Unavailable as error:
        raise Later(_RECORD_AWAY_S, "the record does not answer") from error
    return None if case is None else _settled(case, again=told)


def _settled(case: InHand, *, again: bool) -> Apply:
    """Return what writes where a case stands; `again` when something was written that no act has looked at yet."""
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
        if again:
            store.wake(session, current.id, now)

    return write


def _source(facts: Facts) -> str:
    return str((facts.order or {}).get("meta", {}).get("source", ""))


async def _look(journey: Journey, case_id: str, known: Found | None = None) -> InHand | None:
    """Read a case and all that is known of it; None when it has become part of another one.

    Args:
        known: What the record held at the last look of this job, with what the job has written since. It is read again where
            the feed has brought news of the case meanwhile; the look that the news asked for is this one.
    """
    now = journey.clock.now()

    def read(session: Session) -> tuple[CaseRow | None, list[str], bool]:
        studies = store.links_of(session, case_id, "ImagingStudy")
        return store.get_case(session, case_id), studies, store.is_woken(session, case_id, now)

    row, studies, news = await journey.database.read(read)
    if row is None:
        return None
    if news:
        await journey.database.write(lambda s: store.take_up(s, case_id, row.version, now))
        row.version += 1
    if known is None or news or (known.order_id, known.links) != (row.order_id, tuple(studies)):
        known = await find(journey.fhir, row, studies)
    return InHand(journey, row, gathered(known, row, now, journey.settings), row.version, known)


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
