"""What is done for one case: images joined, Tasks tended, rooms asked. Every write is fenced by the version of the case."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlmodel import Session

from arcuate.journey import store
from arcuate.journey.asking import ask_room, keep, pause_s
from arcuate.journey.domain import (
    Answered,
    End,
    Facts,
    images_of,
    instant,
    late_images,
    open_late_task,
    reading_due,
    ready_to_read,
    scanned,
    signed,
)
from arcuate.journey.facts import Found, Gathered, missed
from arcuate.journey.raising import raised, sentence
from arcuate.journey.room import Journey
from arcuate.journey.table import Ask
from arcuate.journey.tables import CaseRow
from arcuate.kernel.codes import CS_TASK, concept, identifier, job_system, reference
from arcuate.kernel.errors import ArcuateError, Conflict, Json, NotFound, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.work import Later

_OWN_FAULT = 500
_TURN_S = 60.0
_ROSTER = "roster"


@dataclass
class InHand:
    """A case as one worker has read it.

    Attributes:
        version: Of the row; a write under an older one is refused (`Later`).
        known: What the record holds, with what was written since it was read; None where it must be read again.
        has_told: Whether something was written into the record since the case was read.
    """

    journey: Journey
    row: CaseRow
    gathered: Gathered
    version: int
    known: Found | None
    has_told: bool = False

    @property
    def facts(self) -> Facts:
        """All that is known of the case."""
        return self.gathered.facts

    @property
    def has_written(self) -> bool:
        """Whether the row says more by now than was read."""
        return self.version != self.row.version

    async def write(self, fn: Callable[[Session], Any]) -> None:
        """Write, unless another worker has brought the case forward meanwhile."""

        def fenced(session: Session) -> None:
            store.fence(session, self.row.id, self.version)
            fn(session)

        await self.journey.database.write(fenced)
        self.version += 1

    def told(self, stored: Sequence[Json], *, whole: bool = True) -> None:
        """Take into account what was written into the record for this case.

        Args:
            stored: The resources, with id and version.
            whole: False where they may stand there otherwise than they are stated here.
        """
        self.has_told = self.has_told or bool(stored) or not whole
        self.journey.own.note(self.row.id, stored)
        self.known = self.known.with_written(stored) if self.known is not None and whole else None

    async def update(self, resource: Json) -> Json:
        """Write a changed resource over the version that was read, and return it as stored."""
        stored = await self.journey.fhir.update(resource, resource["meta"]["versionId"])
        self.told([stored])
        return stored

    async def create(self, made: Json, number: str) -> None:
        """Write a resource of the journey's own, unless it is there."""
        self.told([await self.journey.fhir.create(made, {"identifier": f"{job_system('journey')}|{number}"})])


async def note_times(case: InHand) -> bool:
    """Remember when the exam ended, when a visit was missed and what was there when the report was signed; True when one was new."""
    row, facts, now, settings = case.row, case.facts, case.journey.clock.now(), case.journey.settings
    is_scanned, is_missed, is_signed = scanned(facts), missed(facts), signed(facts)
    if not (
        (is_scanned and row.scanned_at is None)
        or is_missed != (row.missed_at is not None)
        or (is_signed and row.read_with is None)
    ):
        return False

    def write(session: Session) -> None:
        current = session.get_one(CaseRow, row.id)
        if is_scanned and current.scanned_at is None:
            current.scanned_at = now
            if settings.images_wait_s > 0:
                store.wake(session, row.id, now, now + timedelta(seconds=settings.images_wait_s), "images")
        if is_missed and current.missed_at is None:
            current.missed_at = now
            store.wake(session, row.id, now, now + timedelta(seconds=settings.no_show_expiry_s), "missed")
            store.note(
                session, row.id, "booked", now, "The patient did not come", mark=f"{row.id}:missed:{now.isoformat()}"
            )
        if not is_missed:
            current.missed_at = None
        if is_signed and current.read_with is None:
            current.read_with = " ".join(sorted(_read_with(case)))
        session.add(current)

    await case.write(write)
    return True


def _read_with(case: InHand) -> frozenset[str]:
    """The images that stood in the record before the report did."""
    told = [at for r in case.facts.signed_reports if (at := instant(r.get("meta", {}).get("lastUpdated")))]
    studies = [*case.facts.studies, *case.gathered.unjoined]
    return images_of(s for s in studies if told and _stood(s, max(told)))


def _stood(study: Json, moment: datetime) -> bool:
    at = instant(study.get("meta", {}).get("lastUpdated"))
    return at is not None and at <= moment


async def one_act(case: InHand) -> bool:
    """Do the next thing for a case; False when nothing is left to do now."""
    facts = case.facts
    if case.gathered.unjoined and facts.order and facts.patient:
        await _join(case, facts.order)
        return True
    if await _tend_task(case) or await _tend_priority(case) or await _tend_draft(case) or await _tend_late(case):
        return True
    for ask, mark in case.journey.table.next_asks(facts):
        if not _too_soon(case, ask, mark) and await _put(case, ask, mark):
            return True
    return False


def _too_soon(case: InHand, ask: Ask, mark: str) -> bool:
    """Return whether the same question was given up a moment ago: a timer puts it again."""
    before = case.facts.answered.get(ask.name)
    if before is None or not before.given_up or before.fingerprint != mark:
        return False
    return before.again is not None and case.journey.clock.now() < before.again


async def _join(case: InHand, order: Json) -> None:
    """Make images part of the order: its subject and basedOn; what the images themselves said of the person is dropped."""
    studies = case.gathered.unjoined
    entries = []
    for study in studies:
        joined = {k: v for k, v in study.items() if k != "contained"}
        joined |= {"subject": order["subject"], "basedOn": [reference("ServiceRequest", order["id"])]}
        entries.append(bundle.update(joined, study["meta"]["versionId"]))
    mark = "+".join(f"{s['id']}.{s['meta']['versionId']}" for s in studies)
    journey, row = case.journey, case.row
    await journey.fhir.transaction(
        bundle.transaction(entries, identifier(job_system("journey"), f"{row.id}:join:{mark}"))
    )
    case.told([], whole=False)
    now = journey.clock.now()
    text = "Images joined to the order" if len(studies) == 1 else f"{len(studies)} image studies joined to the order"
    await case.write(lambda s: store.note(s, row.id, "scanned", now, text, mark=f"{row.id}:join:{mark}"))


def _ended(facts: Facts) -> str:
    """How the reading ends, or an empty text while it does not."""
    order: Json = facts.order or {}
    gone = order.get("status") in ("revoked", "entered-in-error") or facts.expired
    return "completed" if signed(facts) else "cancelled" if gone else ""


async def _tend_task(case: InHand) -> bool:
    """Create the reading task when the case can be read, and end it when the case is."""
    facts, journey, row = case.facts, case.journey, case.row
    order, task = facts.order, facts.open_task
    if order is None:
        return False
    if ended := _ended(facts):
        if task is None:
            return False
        await case.update({**task, "status": ended})
        return True
    # An order that was cancelled and placed again is read anew, by a Task of its own.
    again = row.stage in (End.CANCELLED, End.EXPIRED) and all(t.get("status") == "cancelled" for t in facts.tasks)
    if (facts.tasks and not again) or not ready_to_read(facts):
        return False
    number = f"read:{order['id']}" + (f":{len(facts.tasks)}" if facts.tasks else "")
    due = reading_due(order, row.scanned_at or journey.clock.now(), _due_minutes(journey))
    made: Json = {
        **_task(journey, order, number, "read", "Read the exam"),
        "priority": order.get("priority", "routine"),
        "restriction": {"period": {"end": due.isoformat(timespec="seconds")}},
    }
    await case.create(made, number)
    return True


async def _tend_priority(case: InHand) -> bool:
    """Bring the reading forward where a machine that the site has switched on asks for it."""
    facts, journey = case.facts, case.journey
    if facts.open_task is None or signed(facts):
        return False
    made = raised(facts.open_task, facts.observations, journey.clock.now(), _due_minutes(journey))
    if made is None:
        return False
    await case.update(made)
    row, now, text = case.row, journey.clock.now(), sentence(made)
    await case.write(lambda s: store.note(s, row.id, "assigned", now, text, mark=f"{row.id}:raised:{made['id']}"))
    return True


def _task(journey: Journey, order: Json, number: str, code: str, display: str) -> Json:
    return {
        "resourceType": "Task", "identifier": [identifier(job_system("journey"), number)], "status": "ready", "intent": "order",
        "code": concept(CS_TASK, code, display), "focus": reference("ServiceRequest", order["id"]), "for": order["subject"],
        "authoredOn": journey.clock.now().isoformat(timespec="seconds"),
    }  # fmt: skip


def _due_minutes(journey: Journey) -> dict[str, float]:
    settings = journey.settings
    urgent = settings.reading_due_urgent_min
    return {
        "stat": settings.reading_due_stat_min,
        "asap": urgent,
        "urgent": urgent,
        "routine": settings.reading_due_routine_min,
    }


async def _tend_draft(case: InHand) -> bool:
    """Take the draft back when the order is cancelled: nobody is to read on from it."""
    draft = case.facts.draft
    if draft is None or _ended(case.facts) != "cancelled":
        return False
    await case.update({**draft, "status": "cancelled"})
    now = case.journey.clock.now()
    await case.write(
        lambda s: store.note(s, case.row.id, "drafted", now, "The draft was taken back: the order is cancelled")
    )
    return True


async def _tend_late(case: InHand) -> bool:
    """Tell the reader of images that came after the report was signed: the report itself is not touched."""
    facts, journey = case.facts, case.journey
    late = late_images(facts)
    if not late or facts.order is None:
        return False
    mark = hashlib.sha256(" ".join(sorted(late)).encode()).hexdigest()[:16]
    number = f"late:{facts.order['id']}:{mark}"
    if any(i.get("value") == number for task in facts.late for i in task.get("identifier", ())):
        return False
    made = {
        **_task(journey, facts.order, number, "late-images", "Look at late images"),
        "priority": "urgent",
        "description": "Images came after the report was signed. Do they change it?",
    }
    if owner := next((task["owner"] for task in facts.tasks if task.get("owner")), None):
        made["owner"] = owner
    for task in (t for t in facts.late if open_late_task(Facts(late=(t,)))):
        await case.update({**task, "status": "cancelled"})
    await case.create(made, number)
    now = journey.clock.now()
    text = "Images came after the report was signed: the reader is asked to look at them"
    await case.write(lambda s: store.note(s, case.row.id, "signed", now, text, mark=f"{case.row.id}:{number}"))
    return True


async def _put(case: InHand, ask: Ask, mark: str) -> bool:
    """Put one question; False when it has to be put again later."""
    if ask.name != "assign":
        return await _ask(case, ask, mark)
    # Readers are given out one case after the other: two questions at once would both see the same reader free.
    async with case.journey.roster:
        if not await case.journey.turns.take(_ROSTER, _TURN_S):
            raise Later(0.5, "another replica is giving out readers")
        try:
            return await _ask(case, ask, mark)
        finally:
            await case.journey.turns.end(_ROSTER)


async def _ask(case: InHand, ask: Ask, mark: str) -> bool:
    journey, row, facts, now = case.journey, case.row, case.facts, case.journey.clock.now()
    try:
        answer = await ask_room(journey.http, journey.fhir, ask, facts)
    except (Conflict, NotFound):
        raise
    except ArcuateError as error:
        if error.status >= _OWN_FAULT:
            return await _silent(case, ask, mark, error)
        # The room refuses the question: asking again with the same facts would not help.
        journey.log.warning("question refused", case=row.id, ask=ask.name, status=error.status)
        sentence, pause = f"{ask.name}: refused ({error.what})", 0.0
    else:
        kept = await keep(journey.fhir, ask, answer, facts, row.id, mark, now)
        case.told(kept.stored, whole=kept.whole)
        sentence = kept.sentence
        pause = pause_s(ask, answer, sentence, now - _first_asked(facts, ask, mark, now))
    again = now + timedelta(seconds=pause) if pause else None

    def write(session: Session) -> None:
        store.save_answer(session, row.id, ask.name, Answered(mark, now, given_up=again is not None, again=again))
        store.note(session, row.id, ask.name, now, sentence, mark=f"{row.id}:{ask.name}:{mark}:{sentence}")
        if again is not None:
            # The room has answered: it is not silent, but from when on it was asked counts.
            first = _first_asked(facts, ask, mark, now)
            store.save_answer(session, row.id, f"asked:{ask.name}", Answered(mark, first))
            store.wake(session, row.id, now, again, f"again:{ask.name}")

    await case.write(write)
    return again is None


def _first_asked(facts: Facts, ask: Ask, mark: str, now: datetime) -> datetime:
    asked = facts.answered.get(f"asked:{ask.name}")
    return asked.at if asked is not None and asked.fingerprint == mark else now


async def _silent(case: InHand, ask: Ask, mark: str, error: ArcuateError) -> bool:
    """A room does not answer, or is still at work: come back later, and after the time limit go on without."""
    journey, row, facts, now = case.journey, case.row, case.facts, case.journey.clock.now()
    working = isinstance(error, Unavailable) and error.code == "incomplete"
    first = _first_asked(facts, ask, mark, now)
    limit = float(getattr(journey.settings, ask.limit)) if ask.limit else 0.0
    over = bool(ask.limit) and now >= first + timedelta(seconds=limit)
    pause = error.retry_after_s if working and isinstance(error, Unavailable) else journey.settings.ask_again_s

    def write(session: Session) -> None:
        store.save_answer(session, row.id, f"asked:{ask.name}", Answered(mark, first, given_up=not working))
        if over:
            store.save_answer(
                session, row.id, ask.name, Answered(mark, now, given_up=True, again=now + timedelta(seconds=pause))
            )
        if over or not working:
            store.note(session, row.id, ask.name, now, ask.silent, mark=f"{row.id}:{ask.name}:{mark}:silent")
        elif ask.limit:
            store.wake(session, row.id, now, first + timedelta(seconds=limit), f"limit:{ask.name}:{mark}")
        store.wake(session, row.id, now, now + timedelta(seconds=pause), f"again:{ask.name}")

    await case.write(write)
    before = facts.answered.get(ask.name)
    return over and not (before is not None and before.given_up)
