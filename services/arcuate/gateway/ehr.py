"""What rules and models need to know of a patient, asked of the EHR when an order is placed and once more before the visit.

The answers go into the record like those of a door: one transaction, with its source and a Provenance, so that whoever follows the feed
sees them. A List beside them says, type by type, what was answered and when, and what could not be: not known is not none.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from importlib import resources

from sqlmodel import Session

from arcuate.gateway import elsewhere, lookups
from arcuate.gateway.mapping import pid
from arcuate.gateway.mapping.model import ContentFault, token, tokens
from arcuate.gateway.profile import Profiles
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.tables import work
from arcuate.kernel import codes
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import (
    ArcuateError,
    BadInput,
    Conflict,
    Gone,
    Json,
    NotFound,
    NotSupported,
    Refused,
    Unavailable,
)
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.bundle import Entry, reference_id
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import Change
from arcuate.kernel.log import get_logger
from arcuate.kernel.work import Job, Later, Park

ASK = "ehr"
SOURCE = "ehr"
TYPES = ("ServiceRequest", "Appointment")
ANSWERED, SILENT, REFUSED, NOBODY = "answered", "silent", "refused", "no-such-patient"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 15.0, 600.0
_PLACE = re.compile(r"Bundle\.entry\[(\d+)\]")
_ASSUMED = codes.patient_system("from.")


@dataclass(frozen=True)
class Question:
    """One type that is asked for (`ehr.toml`)."""

    type: str
    words: str
    query: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False


@cache
def questions() -> tuple[Question, ...]:
    """Return `ehr.toml`."""
    text = resources.files("arcuate.gateway").joinpath("ehr.toml").read_text("utf-8")
    return tuple(Question(**one) for one in tomllib.loads(text)["ask"])


@dataclass(frozen=True)
class Answer:
    """What the EHR answered to one question: `state` is one of the four words above, `why` for people."""

    question: Question
    state: str
    found: Sequence[Json] = ()
    why: str = ""


class WrongPatient(ArcuateError):
    """The EHR's answer is not about the patient who was asked for."""


@dataclass
class Ehr:
    """Asks the EHR.

    Attributes:
        down: Since when it has not answered; None while it does.
    """

    record: FhirClient
    ehr: FhirClient
    profiles: Profiles
    settings: GatewaySettings
    clock: Clock
    down: datetime | None = None
    cause: str = ""
    pause_s: float = _FIRST_PAUSE_S

    def question(self, change: Change) -> Callable[[Session], object] | None:
        """Return what puts the question into the line that a change of the record raises: an order was placed, a visit was booked."""
        resource, now = change.resource, self.clock.now()
        if resource is None or codes.is_history(resource):
            return None
        if change.type == "ServiceRequest" and resource.get("status") in ("active", "on-hold"):
            return _line_up(reference_id(resource.get("subject"), "Patient"), f"order:{change.id}", now, now)
        start = _instant(resource.get("start"))
        if change.type == "Appointment" and resource.get("status") == "booked" and start is not None and start > now:
            actors = [one.get("actor") for one in resource.get("participant") or []]
            patient = next((found for one in actors if (found := reference_id(one, "Patient"))), None)
            due = max(now, start - timedelta(hours=self.settings.ehr_before_visit_h))
            return _line_up(patient, f"visit:{change.id}:{start.isoformat()}", due, now)
        return None

    async def ask(self, job: Job) -> None:
        """Ask everything about one patient and write what is answered (handler of work).

        Raises:
            Later: The record or the EHR does not answer.
            Park: The EHR answered about somebody else; a person must look.
        """
        try:
            patient = await self._patient(job)
            if patient is None:
                return
            answers = await self._write(patient, await self._answers(patient), job)
        except Unavailable as error:
            raise Later(5.0, "the record does not answer") from error
        silent = [one for one in answers if one.state == SILENT]
        if silent:
            self._is_down(silent[0].why)
            raise Later(self._longer(), "the EHR does not answer")
        self._is_up()
        if wrong := [one for one in answers if one.state == REFUSED]:
            raise Park("; ".join(dict.fromkeys(one.why for one in wrong)))

    async def _patient(self, job: Job) -> Json | None:
        """The patient to ask for; None where the question has been overtaken."""
        why, _, rest = str(job.payload["why"]).partition(":")
        try:
            if why == "visit":
                appointment, _, start = rest.partition(":")
                stands = await self.record.read("Appointment", appointment)
                if stands.get("status") != "booked" or _instant(stands.get("start")) != _instant(start):
                    return None
            patient = await self.record.read("Patient", str(job.payload["patient"]))
        except (NotFound, Gone):
            return None
        if why == "order" and job.attempt == 1 and await self._is_fresh(patient):
            return None
        return patient

    async def _is_fresh(self, patient: Json) -> bool:
        stands = await self.record.one("List", {"identifier": token(_list_number(patient))})
        at = _instant((stands or {}).get("date"))
        whole = all(_flag(entry) == ANSWERED for entry in (stands or {}).get("entry") or [])
        return at is not None and whole and self.clock.now() - at < timedelta(hours=self.settings.ehr_fresh_h)

    async def _answers(self, patient: Json) -> list[Answer]:
        try:
            theirs = await self._found(patient)
        except WrongPatient as error:
            return [Answer(one, REFUSED, (), error.what) for one in questions()]
        except (Unavailable, BadInput, ArcuateError) as error:
            return [Answer(one, SILENT, (), error.what) for one in questions()]
        if theirs is None:
            return [Answer(one, NOBODY, (), "The EHR knows none of this patient's numbers") for one in questions()]
        return [await self._answer(one, theirs) for one in questions()]

    async def _found(self, patient: Json) -> Json | None:
        """The EHR's patient with one of our patient's numbers, assigner and all; never by name.

        Raises:
            WrongPatient: The answer holds somebody else, or several.
        """
        back = {ours: theirs for theirs, ours in self.settings.identifier_systems.items()}
        numbers = [
            {"system": back.get(one["system"], one["system"]), "value": one["value"]}
            for one in patient.get("identifier") or []
            if one.get("system")
            and one.get("value")
            and not str(one["system"]).startswith(_ASSUMED)
            and self._names(one)
        ]
        for number in numbers:
            if str(number["system"]).startswith("urn:arcuate:id:"):
                continue  # a number space of ours that the EHR knows by no name
            found = [
                one
                for one in await self._search("Patient", {"identifier": token(number)})
                if one.get("resourceType") == "Patient"
            ]
            if not found:
                continue
            if len(found) > 1 or token(number) not in tokens(found[0]):
                raise WrongPatient("The EHR answered with another patient, or with several, for one patient number")
            if pid.differs(patient, found[0]):
                raise WrongPatient("The EHR's patient with this number has another name and another birth date")
            return found[0]
        return None

    def _names(self, identifier: Json) -> bool:
        """Say whether a number names the patient: account and insurance numbers do not."""
        codings = (identifier.get("type") or {}).get("coding") or [{}]
        return self.profiles.of("", "").rank(str(codings[0].get("code") or "")) is not None

    async def _search(self, kind: str, query: Mapping[str, str]) -> list[Json]:
        return await self.ehr.search(kind, {**query, "_count": "100"})

    async def _answer(self, question: Question, theirs: Json) -> Answer:
        try:
            found = await self._search(question.type, {"patient": f"Patient/{theirs['id']}", **question.query})
        except (NotSupported, NotFound, BadInput) as error:
            return Answer(question, NOBODY, (), f"The EHR does not answer this: {error.what}"[:200])
        except ArcuateError as error:
            return Answer(question, SILENT, (), error.what)
        kept = [one for one in found if one.get("resourceType") == question.type and isinstance(one.get("id"), str)]
        if any(set(elsewhere.patients(one)) != {f"Patient/{theirs['id']}"} for one in kept):
            return Answer(
                question,
                REFUSED,
                (),
                f"The EHR's answer about {question.words} holds another patient; none of it was taken",
            )
        return Answer(question, ANSWERED, kept)

    async def _write(self, patient: Json, answers: Sequence[Answer], job: Job) -> list[Answer]:
        """Write what was answered, and which questions were not, in one transaction; returns the answers as they were taken.

        A type of which the record takes a resource not is refused whole, and the others are written without it.
        """
        stands = await self.record.one("List", {"identifier": token(_list_number(patient))})
        while True:
            entries = [
                entry
                for answer in answers
                if answer.state == ANSWERED
                for entry in await self._entries(patient, answer)
            ]
            told = _list(patient, answers, self.clock.now())
            if (
                stands is None
                or entries
                or _said(stands) != _said(told)
                or all(one.state == ANSWERED for one in answers)
            ):
                entries.append(bundle.update_where(told, {"identifier": token(_list_number(patient))}))
            try:
                if entries:
                    await self.record.transaction(bundle.transaction(entries, self._source(job)))
                return list(answers)
            except (BadInput, Conflict, Refused) as error:
                place = _PLACE.search(f"{error.where} {error.what}")
                bad = entries[int(place.group(1))].resource if place else None
                kind = (bad or {}).get("resourceType")
                if kind not in {one.question.type for one in answers if one.state == ANSWERED}:
                    raise
                why = f"The record does not take the EHR's {kind}: {error.what}"[:300]
                answers = [
                    replace(one, state=REFUSED, found=(), why=why) if one.question.type == kind else one
                    for one in answers
                ]

    def _source(self, job: Job) -> Json:
        return codes.identifier(
            codes.job_system("gateway"), f"ehr-{job.id}-{job.attempt}-{self.clock.now().timestamp():.3f}"
        )

    async def _entries(self, patient: Json, answer: Answer) -> list[Entry]:
        theirs = {elsewhere.patients(one)[0] for one in answer.found}
        known = {one: codes.reference("Patient", patient["id"]) for one in theirs}
        asked = elsewhere.asked(answer.found, SOURCE, self.settings.identifier_systems)
        found = await lookups.by_identifier(self.record, asked.wanted)
        standing = await self.record.search(answer.question.type, {"patient": f"Patient/{patient['id']}"})
        fresh = [one for one in asked.resources if not _stands(one, standing)]
        asked.resources = fresh
        try:
            entries = list(
                elsewhere.taken_over(asked, found, self.profiles.of("", "").rank, past=False, known=known).entries
            )
        except ContentFault as fault:
            get_logger("gateway").warning("answer of the EHR not taken", type=answer.question.type, reason=fault.what)
            return []
        if answer.question.whole:
            there = {
                token(elsewhere.own_identifier(SOURCE, f"{one['resourceType']}/{one['id']}")) for one in answer.found
            }
            entries += [
                bundle.delete(one["resourceType"], one["id"])
                for one in standing
                if (own := _own(one)) and own not in there
            ]
        return entries

    def _is_down(self, why: str) -> None:
        if self.down is None:
            self.down, self.cause = self.clock.now(), why
            get_logger("gateway").error("alert: the EHR does not answer; the rules say what is not known", reason=why)

    def _is_up(self) -> None:
        if self.down is not None:
            get_logger("gateway").error("recovered: the EHR answers again")
        self.down, self.cause, self.pause_s = None, "", _FIRST_PAUSE_S

    def _longer(self) -> float:
        pause, self.pause_s = self.pause_s, min(self.pause_s * 2, _LONGEST_PAUSE_S)
        return pause


def _line_up(patient: str | None, why: str, due: datetime, now: datetime) -> Callable[[Session], object] | None:
    if patient is None:
        return None
    keys, payload = (f"{ASK}:{patient}",), {"patient": patient, "why": why}
    return lambda session: work.enqueue(
        session, ASK, now=now, due=due, keys=keys, payload=payload, dedupe=f"{ASK}:{why}"
    )


def _own(resource: Json) -> str | None:
    """The number under which we wrote a resource of the EHR."""
    system = elsewhere.own_identifier(SOURCE, "")["system"]
    return next((token(one) for one in resource.get("identifier") or [] if one.get("system") == system), None)


def _stands(resource: Json, standing: Sequence[Json]) -> bool:
    """Say whether a message has told the same already: the same code, and for a value the same time."""
    return any(_own(one) is None and _same(resource, one) for one in standing)


def _same(one: Json, other: Json) -> bool:
    if one["resourceType"] not in ("Observation", "AllergyIntolerance", "Condition"):
        return False
    coded = [
        {
            (str(coding.get("system")), str(coding.get("code")))
            for coding in (each.get("code") or {}).get("coding") or []
            if coding.get("code")
        }
        for each in (one, other)
    ]
    if not coded[0] & coded[1]:
        return False
    if one["resourceType"] != "Observation":
        return True
    times = [_instant(each.get("effectiveDateTime")) for each in (one, other)]
    return times[0] is not None and times[0] == times[1]


def _list_number(patient: Json) -> Json:
    return codes.identifier("urn:arcuate:id:ehr-answer", str(patient["id"]))


def _list(patient: Json, answers: Sequence[Answer], now: datetime) -> Json:
    """What the EHR was asked of a patient, and what it answered (R4 List: entries by type, with a flag and a date)."""
    entries = [
        {
            "flag": codes.concept(codes.CS_KNOWN, one.state, text=one.why or None),
            "date": now.isoformat(timespec="seconds"),
            "item": {"type": one.question.type, "display": one.question.words},
        }
        for one in answers
    ]  # fmt: skip
    return {
        "resourceType": "List", "identifier": [_list_number(patient)], "status": "current", "mode": "snapshot", "title": "Asked of the EHR",
        "subject": codes.reference("Patient", patient["id"]), "date": now.isoformat(timespec="seconds"), "entry": entries,
    }  # fmt: skip


def _said(told: Json) -> list[tuple[str, str]]:
    return [(str((entry.get("item") or {}).get("type")), _flag(entry)) for entry in told.get("entry") or []]


def _flag(entry: Json) -> str:
    codings = (entry.get("flag") or {}).get("coding") or [{}]
    return str(codings[0].get("code"))


def _instant(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
