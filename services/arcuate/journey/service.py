"""Use cases of the journey room: take a change of the feed, bring a case forward, release what is held."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import httpx
from sqlmodel import Session

from arcuate.journey import store
from arcuate.journey.asking import ask_room
from arcuate.journey.domain import Answered, End, Facts, reading_due, ready_to_read, scanned, signed
from arcuate.journey.facts import Gathered, gather, missed
from arcuate.journey.settings import JourneySettings
from arcuate.journey.table import Ask, Table
from arcuate.journey.tables import CaseRow
from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import CS_TASK, accession_of, concept, identifier, job_system, reference
from arcuate.kernel.db import Database
from arcuate.kernel.errors import ArcuateError, BadInput, Conflict, Json, NotFound, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import Change
from arcuate.kernel.log import Logger
from arcuate.kernel.work import Job

FEED_TYPES = (
    "Appointment", "AllergyIntolerance", "Communication", "Condition", "Device", "DiagnosticReport", "ImagingStudy", "Observation",
    "Patient", "Procedure", "ServiceRequest", "Task",
)  # fmt: skip
_OF_PATIENT = frozenset({"AllergyIntolerance", "Condition", "Device", "Observation"})
_ROUNDS = 12
_NO_READER_S = 300.0


@dataclass(frozen=True)
class Journey:
    """What the use cases need."""

    database: Database
    fhir: FhirClient
    http: httpx.AsyncClient
    clock: Clock
    settings: JourneySettings
    table: Table
    log: Logger
    roster: asyncio.Lock = field(default_factory=asyncio.Lock)


async def take_change(journey: Journey, change: Change) -> None:
    """Find the cases that a change of the record concerns, and ask for them to be looked at."""
    resource, now = change.resource, journey.clock.now()
    if resource is None:
        return
    own = f"{change.type}/{change.id}"

    def write(session: Session) -> None:
        for case_id in _cases_of(session, own, resource, now):
            store.wake(session, case_id, now)

    await journey.database.write(write)


def _cases_of(session: Session, own: str, resource: Json, now: datetime) -> set[str]:
    kind = resource["resourceType"]
    if kind == "ServiceRequest":
        return {store.case_of_order(session, resource["id"], accession_of(resource), now).id}
    if kind == "Patient":
        return store.cases_of_patient(session, resource["id"])
    named = [resource.get("focus"), *resource.get("basedOn", ()), *resource.get("about", ())]
    references = [r["reference"].split("/_history")[0] for r in named if isinstance(r, dict) and r.get("reference")]
    found = store.linked_cases(session, [own, *references])
    if kind == "ImagingStudy" and (accession := accession_of(resource)):
        found.add(store.case_of_accession(session, accession, now).id)
    if kind in _OF_PATIENT and not found:
        patient_id = reference_id(resource.get("subject") or resource.get("patient"), "Patient")
        return store.cases_of_patient(session, patient_id) if patient_id else set()
    for case_id in found:
        store.link(session, [own], case_id)
    return found


async def advance(journey: Journey, job: Job) -> Callable[[Session], None]:
    """Bring a case as far as it goes now; returns what writes where it then stands."""
    case_id = str(job.payload["case"])
    for _ in range(_ROUNDS):
        row, gathered = await _look(journey, case_id)
        await _note_times(journey, row, gathered.facts)
        if not await _one_act(journey, row, gathered):
            break
    row, gathered = await _look(journey, case_id)
    now = journey.clock.now()
    stage, waits_for = journey.table.standing(gathered.facts)
    reached = journey.table.reached(gathered.facts) + ([stage] if stage in set(End) else [])

    def write(session: Session) -> None:
        current = session.get_one(CaseRow, case_id)
        if current.stage != stage:
            current.stage, current.since = stage, now
        current.waits_for, current.held = waits_for, gathered.facts.held
        patient = gathered.facts.patient
        current.patient_id = patient["id"] if patient else current.patient_id
        session.add(current)
        store.reach(session, case_id, {name: (now, _source(gathered.facts)) for name in reached if name != End.PARKED})
        if gathered.facts.held:
            store.note(
                session,
                case_id,
                End.PARKED,
                now,
                gathered.facts.held,
                mark=f"{case_id}:held:{gathered.facts.held}:{row.released}",
            )

    return write


def _source(facts: Facts) -> str:
    return str((facts.order or {}).get("meta", {}).get("source", ""))


async def _look(journey: Journey, case_id: str) -> tuple[CaseRow, Gathered]:
    def read(session: Session) -> tuple[CaseRow, list[str]]:
        return session.get_one(CaseRow, case_id), store.links_of(session, case_id, "ImagingStudy")

    row, studies = await journey.database.read(read)
    return row, await gather(journey.fhir, row, studies, journey.clock.now(), journey.settings)


async def _note_times(journey: Journey, row: CaseRow, facts: Facts) -> None:
    """Remember when the exam ended and when a visit was missed, and set the timers that follow from it."""
    now, settings = journey.clock.now(), journey.settings
    is_missed = missed(facts)
    if not ((scanned(facts) and row.scanned_at is None) or is_missed != (row.missed_at is not None)):
        return

    def write(session: Session) -> None:
        current = session.get_one(CaseRow, row.id)
        if scanned(facts) and current.scanned_at is None:
            current.scanned_at = now
            store.wake(session, row.id, now, now + timedelta(seconds=settings.images_wait_s), "images")
        if is_missed and current.missed_at is None:
            current.missed_at = now
            store.wake(session, row.id, now, now + timedelta(seconds=settings.no_show_expiry_s), "missed")
            store.note(
                session, row.id, "booked", now, "The patient did not come", mark=f"{row.id}:missed:{now.isoformat()}"
            )
        if not is_missed:
            current.missed_at = None
        session.add(current)

    await journey.database.write(write)


async def _one_act(journey: Journey, row: CaseRow, gathered: Gathered) -> bool:
    """Do the next thing for a case; False when nothing is left to do now."""
    facts = gathered.facts
    if gathered.unjoined and facts.order and facts.patient:
        await _join(journey, row, gathered.unjoined, facts.order, facts.patient)
        return True
    if await _tend_task(journey, row, facts):
        return True
    for ask, mark in journey.table.next_asks(facts):
        if not _too_soon(journey, ask, mark, facts) and await _put(journey, row, ask, mark, facts):
            return True
    return False


def _too_soon(journey: Journey, ask: Ask, mark: str, facts: Facts) -> bool:
    """Return whether the same question was given up a moment ago: a timer puts it again."""
    before = facts.answered.get(ask.name)
    if before is None or not before.given_up or before.fingerprint != mark:
        return False
    pause = _NO_READER_S if ask.name == "assign" else journey.settings.ask_again_s
    return journey.clock.now() < before.at + timedelta(seconds=pause)


async def _join(journey: Journey, row: CaseRow, studies: tuple[Json, ...], order: Json, patient: Json) -> None:
    """Make images part of the order: subject and basedOn; what the images themselves said of the person is dropped."""
    entries = []
    for study in studies:
        joined = {k: v for k, v in study.items() if k != "contained"}
        joined |= {
            "subject": reference("Patient", patient["id"]),
            "basedOn": [reference("ServiceRequest", order["id"])],
        }
        entries.append(bundle.update(joined, study["meta"]["versionId"]))
    mark = "+".join(f"{s['id']}.{s['meta']['versionId']}" for s in studies)
    await journey.fhir.transaction(
        bundle.transaction(entries, identifier(job_system("journey"), f"{row.id}:join:{mark}"))
    )
    now = journey.clock.now()
    text = "Images joined to the order" if len(studies) == 1 else f"{len(studies)} image studies joined to the order"
    await journey.database.write(lambda s: store.note(s, row.id, "scanned", now, text, mark=f"{row.id}:join:{mark}"))


async def _tend_task(journey: Journey, row: CaseRow, facts: Facts) -> bool:
    """Create the reading task when the case can be read, and end it when the case is."""
    order, task = facts.order, facts.open_task
    if order is None or facts.held:
        return False
    ended = "completed" if signed(facts) else "cancelled" if order.get("status") == "revoked" or facts.expired else ""
    if ended:
        if task is None:
            return False
        await journey.fhir.update({**task, "status": ended}, task["meta"]["versionId"])
        return True
    if facts.tasks or not ready_to_read(facts):
        return False
    due = reading_due(order, row.scanned_at or journey.clock.now(), _due_minutes(journey.settings))
    made: Json = {
        "resourceType": "Task",
        "identifier": [identifier(job_system("journey"), f"read:{order['id']}")],
        "status": "ready", "intent": "order", "code": concept(CS_TASK, "read", "Read the exam"),
        "priority": order.get("priority", "routine"), "focus": reference("ServiceRequest", order["id"]),
        "for": order["subject"], "authoredOn": journey.clock.now().isoformat(timespec="seconds"),
        "restriction": {"period": {"end": due.isoformat(timespec="seconds")}},
    }  # fmt: skip
    await journey.fhir.create(made, {"identifier": f"{job_system('journey')}|read:{order['id']}"})
    return True


def _due_minutes(settings: JourneySettings) -> dict[str, float]:
    urgent = settings.reading_due_urgent_min
    return {
        "stat": settings.reading_due_stat_min,
        "asap": urgent,
        "urgent": urgent,
        "routine": settings.reading_due_routine_min,
    }


async def _put(journey: Journey, row: CaseRow, ask: Ask, mark: str, facts: Facts) -> bool:
    """Put one question; False when it has to be put again later."""
    now = journey.clock.now()
    try:
        if ask.name == "assign":
            async with journey.roster:
                outcome = await ask_room(journey.http, journey.fhir, ask, facts, row.id, mark, now)
        else:
            outcome = await ask_room(journey.http, journey.fhir, ask, facts, row.id, mark, now)
    except Unavailable as error:
        return await _silent(journey, row, ask, mark, facts, error)
    except (Conflict, NotFound):
        raise
    except ArcuateError as error:
        # The room refuses the question: asking again with the same facts would not help.
        journey.log.warning("question refused", case=row.id, ask=ask.name, status=error.status)
        sentence = f"{ask.name}: refused ({error.what})"
    else:
        sentence = outcome.sentence
    waiting = ask.name == "assign" and sentence.lower().startswith("waiting")

    def write(session: Session) -> None:
        store.save_answer(session, row.id, ask.name, Answered(mark, now, given_up=waiting))
        store.note(session, row.id, ask.name, now, sentence, mark=f"{row.id}:{ask.name}:{mark}:{sentence}")
        if waiting:
            store.wake(session, row.id, now, now + timedelta(seconds=_NO_READER_S), "reader")

    await journey.database.write(write)
    return not waiting


async def _silent(journey: Journey, row: CaseRow, ask: Ask, mark: str, facts: Facts, error: Unavailable) -> bool:
    """A room does not answer, or is still at work: come back later, and after the time limit go on without."""
    now = journey.clock.now()
    working = error.code == "incomplete"
    asked = facts.answered.get(f"asked:{ask.name}")
    first = asked.at if asked is not None and asked.fingerprint == mark else now
    limit = float(getattr(journey.settings, ask.limit)) if ask.limit else 0.0
    over = bool(ask.limit) and now >= first + timedelta(seconds=limit)
    due = now + timedelta(seconds=error.retry_after_s if working else journey.settings.ask_again_s)

    def write(session: Session) -> None:
        store.save_answer(session, row.id, f"asked:{ask.name}", Answered(mark, first))
        if over:
            store.save_answer(session, row.id, ask.name, Answered(mark, now, given_up=True))
        if over or not working:
            store.note(session, row.id, ask.name, now, ask.silent, mark=f"{row.id}:{ask.name}:{mark}:silent")
        elif ask.limit:
            store.wake(session, row.id, now, first + timedelta(seconds=limit), f"limit:{ask.name}:{mark}")
        store.wake(session, row.id, now, due, f"again:{ask.name}")

    await journey.database.write(write)
    before = facts.answered.get(ask.name)
    return over and not (before is not None and before.given_up)


async def timer(journey: Journey, job: Job) -> Callable[[Session], None]:
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
    if not reason.strip():
        raise BadInput("Held images are released only with a reason", where="reason")
    now = journey.clock.now()

    def write(session: Session) -> None:
        row = store.get_case(session, case_id)
        if row is None:
            raise NotFound("There is no such case", where=f"case {case_id}")
        if not row.held:
            raise Conflict("Nothing is held in this case", where=f"case {case_id}")
        row.released = " ".join(store.links_of(session, case_id, "ImagingStudy"))
        session.add(row)
        store.note(session, case_id, "released", now, f"Released by {by}: {reason}")
        store.wake(session, case_id, now)

    await journey.database.write(write)
