"""The room's use cases: check an order, answer an order-sign hook, take feedback."""

import asyncio
import json
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import CS_EXAM, CS_KNOWN, IMAGING_CATEGORY
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput, PreconditionFailed, StorageFault
from arcuate.kernel.fhir.bundle import collection, require_bundle, resources
from arcuate.kernel.log import get_logger
from arcuate.protocoling import store
from arcuate.protocoling.cards import Made, flag_card, incomplete_card, protocol_card
from arcuate.protocoling.chart import Chart
from arcuate.protocoling.domain import Decision, Exam, FlagClass, Severity, Undecided
from arcuate.protocoling.facts import gather
from arcuate.protocoling.issues import detected_issues, with_protocol
from arcuate.protocoling.prefetch import SOURCES, Received, chart_of, patients_of, receive
from arcuate.protocoling.resources import (
    Json,
    codes_of,
    entries,
    moment,
    objects,
    reference_of,
    string,
    text_of,
    words_of,
)
from arcuate.protocoling.rulebook import Rulebook
from arcuate.protocoling.settings import ProtocolingSettings
from arcuate.protocoling.wording import NO_CONTRAST_STATED, NOT_IN_CATALOGUE, could_not_run

_KEEP_WITHIN_S = 0.4
SERVICE = "arcuate-protocoling"
_log = get_logger("protocoling")

Examine = Callable[[Chart, Rulebook, Callable[[], bool]], Decision]


@dataclass(frozen=True)
class Protocoling:
    """What the use cases work with.

    Attributes:
        examine: Examines one chart; a parameter so that a test can let it be slow or fail.
    """

    rulebook: Rulebook
    clock: Clock
    database: Database
    pool: ThreadPoolExecutor
    settings: ProtocolingSettings
    examine: Examine


def examine(chart: Chart, rulebook: Rulebook, go_on: Callable[[], bool]) -> Decision:
    """Apply all rules to one order. Pure but for `go_on`; never raises on valid FHIR."""
    facts = gather(chart, rulebook.knowledge)
    decision = rulebook.decide(facts, go_on)
    notes = []
    if not facts.exam.known:
        notes.append(NOT_IN_CATALOGUE)
    elif facts.exam.contrast is None:
        notes.append(NO_CONTRAST_STATED)
    if facts.stated.reading.cut:
        notes.append("The indication is too long and was not read to its end.")
    return replace(decision, notes=tuple(notes))


async def check(room: Protocoling, bundle: Json) -> Json:
    """Answer `ServiceRequest/$check`: the first ServiceRequest of the Bundle is the order; the rest is all that is known.

    Raises:
        BadInput: No collection Bundle, or no ServiceRequest in it.
    """
    given = list(resources(require_bundle(bundle, "collection")))
    order = next((r for r in given if r.get("resourceType") == "ServiceRequest"), None)
    if order is None:
        raise BadInput(
            "The Bundle holds no ServiceRequest", where="Bundle.entry", todo="Put the order to be checked first."
        )
    now = room.clock.now()
    chart = _whole_chart(order, given, now)
    decision, milliseconds = await _examined(room, chart, room.settings.check_within_s)
    incomplete = could_not_run(decision, _unanswered(given).values())
    answered = detected_issues(decision, order, now, incomplete)
    if decision.suggestion is not None and order.get("code"):
        answered.append(with_protocol(order, decision.suggestion))
    await _keep(room, [_answer(room, "check", order, decision, now, milliseconds)])
    return collection(answered)


def _whole_chart(order: Json, given: list[Json], now: datetime) -> Chart:
    """Return the chart of a `$check`: whatever is not in the Bundle is not on file."""
    by_kind: dict[str, list[Json]] = {}
    for resource in given:
        if resource is not order:
            by_kind.setdefault(string(resource.get("resourceType")), []).append(resource)

    unanswered = _unanswered(given)

    def found(*kinds: str) -> tuple[Json, ...]:
        return tuple(r for kind in kinds for r in by_kind.get(kind, ()))

    def known(*kinds: str) -> tuple[Json, ...] | None:
        """What nobody could look up is not known, unless something of it is on file all the same."""
        return found(*kinds) or (None if unanswered.keys() & set(kinds) else ())

    return Chart(
        order=order, now=now, patient=next(iter(_own_patient(order, by_kind.get("Patient", []))), None), encounters=found("Encounter"),
        observations=known("Observation"), conditions=known("Condition"), devices=known("Device"), allergies=known("AllergyIntolerance"),
        medications=known("MedicationStatement", "MedicationRequest"), orders=found("ServiceRequest"), studies=found("ImagingStudy"),
        reports=found("DiagnosticReport"), appointments=found("Appointment"),
    )  # fmt: skip


def _unanswered(given: list[Json]) -> dict[str, str]:
    """Return what the EHR was asked for and did not answer, by type, in words (List.entry.flag)."""
    entries = [entry for one in given if one.get("resourceType") == "List" for entry in objects(one.get("entry"))]
    found: dict[str, str] = {}
    for entry in entries:
        flags = [
            string(one.get("code"))
            for one in objects((entry.get("flag") or {}).get("coding"))
            if one.get("system") == CS_KNOWN
        ]
        item = entry.get("item") or {}
        if flags and flags[0] != "answered":
            found[string(item.get("type"))] = string(item.get("display"))
    return found


def _own_patient(order: Json, patients: list[Json]) -> list[Json]:
    wanted = set(patients_of(order))
    return [p for p in patients if p.get("id") in wanted] or (patients if len(patients) == 1 else [])


async def _examined(room: Protocoling, chart: Chart, seconds: float) -> tuple[Decision, int]:
    """Examine in a thread, for so long at most; what is not ready then counts as checks that could not run."""
    began = room.clock.monotonic()
    stopped = asyncio.Event()

    def go_on() -> bool:
        return not stopped.is_set()

    future: Future[Decision] = room.pool.submit(room.examine, chart, room.rulebook, go_on)
    try:
        decision = await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except TimeoutError:
        stopped.set()
        _log.warning("check_out_of_time", seconds=seconds)
        decision = Decision(undecided=tuple(Undecided(c, "time was up") for c in FlagClass))
    except Exception as error:  # noqa: BLE001 - an order is never left unanswered because a check failed inside
        _log.error("check_failed", error=type(error).__name__)
        decision = Decision(undecided=tuple(Undecided(c, "the check failed inside") for c in FlagClass))
    return decision, round((room.clock.monotonic() - began) * 1000)


def _answer(
    room: Protocoling, asked_by: str, order: Json, decision: Decision, now: datetime, milliseconds: int, outcome: str = "answered",
    cards: tuple[store.Shown, ...] = (),
) -> store.Answer:  # fmt: skip
    return store.Answer(
        str(uuid.uuid4()),
        now,
        asked_by,
        reference_of(order),
        room.rulebook.digest,
        outcome,
        decision,
        milliseconds,
        cards,
    )


async def _keep(room: Protocoling, answers: list[store.Answer]) -> None:
    """Keep answers; a full disk must not take the answer away from whoever asked."""
    try:
        await asyncio.wait_for(room.database.write(lambda session: store.keep(session, answers)), _KEEP_WITHIN_S)
    except (StorageFault, TimeoutError):
        _log.error("decision_not_kept", count=len(answers))


# ---- CDS Hooks --------------------------------------------------------------------------------------------------------


def discovery() -> Json:
    """Return the answer of `GET /cds-services`."""
    return {
        "services": [
            {
                "hook": "order-sign",
                "id": SERVICE,
                "title": "Is this the right exam, and is it safe?",
                "description": (
                    "Checks imaging orders of the head, neck and spine by rules: MR safety, contrast, pregnancy, side, body part, "
                    "duplicates, priority; suggests a protocol. Answers from prefetch alone."
                ),
                "prefetch": {key: source.template for key, source in SOURCES.items()},
                "usageRequirements": "Fill the prefetch: the service fetches nothing by itself. What is not sent is said in a card.",
            }
        ]
    }


async def order_sign(room: Protocoling, request: Json) -> Json:
    """Answer an order-sign hook.

    Raises:
        BadInput: The request is not of the form of CDS Hooks 2.0.
        PreconditionFailed: Something in it is about another patient.
    """
    patient_id, drafts = _context(request)
    now = room.clock.now()
    try:
        received = _received(request, patient_id, drafts)
    except PreconditionFailed:
        _log.warning("prefetch_of_another_patient", hook_instance=string(request.get("hookInstance"))[:36])
        refused = [
            _answer(room, "order-sign", order, Decision(), now, 0, "refused: another patient") for order in drafts[:1]
        ]
        await _keep(room, refused)
        raise
    shown = drafts[: room.settings.drafts]
    made: list[Made] = []
    answers = []
    results = await asyncio.gather(
        *(_examined(room, chart_of(order, received, now), room.settings.answer_within_s) for order in shown)
    )
    for order, (decision, milliseconds) in zip(shown, results, strict=True):
        cards = _cards(room, order, decision, received)
        made += cards
        answers.append(
            _answer(room, "order-sign", order, decision, now, milliseconds, cards=tuple(c.shown for c in cards))
        )
    if len(drafts) > len(shown):
        made.append(incomplete_card(f"{len(drafts) - len(shown)} further draft orders were not checked."))
    await _keep(room, answers)
    return {"cards": [c.card for c in made]}


def _context(request: Json) -> tuple[str, list[Json]]:
    if request.get("hook") != "order-sign":
        raise BadInput("This service answers the hook order-sign only", where="hook")
    try:
        uuid.UUID(string(request.get("hookInstance")))
    except ValueError:
        raise BadInput("hookInstance is a UUID", where="hookInstance") from None
    context = request.get("context")
    if not isinstance(context, dict) or not string(context.get("patientId")):
        raise BadInput("context.patientId is required", where="context.patientId")
    if not isinstance(context.get("draftOrders"), dict) or context["draftOrders"].get("resourceType") != "Bundle":
        raise BadInput("context.draftOrders is a Bundle", where="context.draftOrders")
    drafts = [r for r in entries(context["draftOrders"]) if r.get("resourceType") == "ServiceRequest"]
    return string(context["patientId"]), [order for order in drafts if looks_like_imaging(order)]


def _received(request: Json, patient_id: str, drafts: list[Json]) -> Received:
    for order in drafts:
        if any(name and name != patient_id for name in patients_of(order)):
            raise PreconditionFailed(
                "A draft order is about another patient than context.patientId; nothing was checked",
                where="context.draftOrders",
            )
    return receive(request.get("prefetch"), patient_id)


_IMAGING = frozenset(str(c["code"]) for c in IMAGING_CATEGORY["coding"])
_IMAGING_WORDS = (
    "mri",
    "mr ",
    "ct",
    "cat scan",
    "x-ray",
    "xray",
    "angio",
    "fluoro",
    "ultrasound",
    "us ",
    "xr",
    "pet",
    "scan",
)


def looks_like_imaging(order: Json) -> bool:
    """Return whether a draft is an imaging order; laboratory and other drafts get no cards."""
    code = order.get("code")
    if codes_of(code, CS_EXAM) or any(
        _IMAGING & set(codes_of(c, str(IMAGING_CATEGORY["coding"][0]["system"])))
        for c in objects(order.get("category"))
    ):
        return True
    words = f"{text_of(code)} {words_of(code)} ".lower()
    return any(words.startswith(w) or f" {w.strip()} " in words for w in _IMAGING_WORDS)


def _cards(room: Protocoling, order: Json, decision: Decision, received: Received) -> list[Made]:
    catalogue = room.rulebook.knowledge.catalogue
    exam: Exam = catalogue.of_order(order)
    ranked = sorted(decision.flags, key=lambda f: f.severity is not Severity.INTERRUPTIVE)
    made = [flag_card(flag, order, exam, catalogue) for flag in ranked]
    if decision.suggestion is not None:
        made.append(protocol_card(decision.suggestion, order))
    extra = [f"{received.unattributed} resources without a patient were left out."] if received.unattributed else []
    if sentence := could_not_run(decision, received.missing, received.partial, extra):
        made.append(incomplete_card(sentence))
    return made


async def take_feedback(room: Protocoling, body: Json) -> int:
    """Keep the feedback of a client; return how many entries.

    Raises:
        BadInput: An entry is not of the form of CDS Hooks 2.0.
    """
    given = body.get("feedback")
    if not isinstance(given, list) or len(given) > 200:
        raise BadInput("feedback is an array of at most 200 entries", where="feedback")
    taken = [_feedback(entry, f"feedback[{n}]") for n, entry in enumerate(given)]
    now = room.clock.now()
    await room.database.write(lambda session: store.keep_feedback(session, taken, now))
    return len(taken)


def _feedback(entry: Any, where: str) -> store.Feedback:
    if not isinstance(entry, dict) or not string(entry.get("card")):
        raise BadInput("An entry names its card", where=f"{where}.card")
    outcome = string(entry.get("outcome"))
    if outcome not in {"accepted", "overridden"}:
        raise BadInput("outcome is accepted or overridden", where=f"{where}.outcome")
    at = moment(entry.get("outcomeTimestamp"))
    if at is None:
        raise BadInput("outcomeTimestamp is a date and time with zone", where=f"{where}.outcomeTimestamp")
    accepted = tuple(string(a.get("id"))[:64] for a in objects(entry.get("acceptedSuggestions")))
    override: Json = next(iter(objects(entry.get("overrideReason"))), {})
    reason: Json = next(iter(objects(override.get("reason"))), {})
    code, system = string(reason.get("code"))[:100] or None, string(reason.get("system"))[:200] or None
    return store.Feedback(
        string(entry["card"])[:64],
        outcome,
        accepted,
        (system, code),
        string(override.get("userComment"))[:1000] or None,
        at,
    )


def rules_listed(room: Protocoling) -> list[Json]:
    """Return every rule as people read it."""
    return [
        {
            "id": r.id, "version": r.version, "class": r.flag_class, "severity": r.severity, "when": [c.source for c in r.when],
            "unless": [c.source for c in r.unless], "sentence": r.sentence, "fix": r.fix.sentence, "source": r.source, "content": r.digest,
        }
        for r in room.rulebook.rules
    ]  # fmt: skip


async def tidy(room: Protocoling) -> None:
    """Forget what is older than the keeping time."""
    before = room.clock.now() - timedelta(days=room.settings.keep_days)
    await room.database.write(lambda session: store.forget(session, before))


def listed_counts(rows: list[tuple[str, int, int, int]]) -> str:
    """Return the counts of cards and feedback as JSON."""
    return json.dumps([{"rule": r, "shown": s, "accepted": a, "overridden": o} for r, s, a, o in rows])
