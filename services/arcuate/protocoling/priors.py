"""Earlier and booked exams: the same one, the same question, repeated CT. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from arcuate.protocoling.chart import Chart, Stated
from arcuate.protocoling.domain import Evidence, Exam
from arcuate.protocoling.exams import Catalogue
from arcuate.protocoling.lexicon import Lexicon
from arcuate.protocoling.reading import read
from arcuate.protocoling.resources import (
    Json,
    codings,
    days_between,
    first_code,
    objects,
    reference_of,
    string,
    text_of,
    when,
    words_of,
)

_DEAD = {"revoked", "entered-in-error", "cancelled", "draft", "noshow"}


@dataclass(frozen=True)
class Earlier:
    """One earlier or booked exam.

    Attributes:
        days_ago: Age in days; negative for the future.
        booked: It has not been done yet.
        failed: It was broken off or could not be judged.
        recommends: Its report asks for another one.
    """

    exam: Exam
    days_ago: float
    booked: bool = False
    failed: bool = False
    recommends: bool = False
    reference: str = ""


@dataclass(frozen=True)
class Priors:
    """Facts for rules; None when earlier exams were not sent.

    Attributes:
        same_days: Days since the same exam was last done.
        alike_days: Days since an exam of the same kind and region with another contrast was done.
        booked: The same exam is already booked or ordered.
        reason_to_repeat: A follow-up, a change, a recommendation or a failed study is stated.
        ct_year: CT examinations of the same region in the last 365 days.
    """

    same_days: float | None
    alike_days: float | None
    booked: bool | None
    reason_to_repeat: bool
    ct_year: int | None
    any_known: bool
    evidence: tuple[Evidence, ...] = ()


_NEVER = 1e6


def priors(chart: Chart, stated: Stated, exam: Exam, catalogue: Catalogue, lexicon: Lexicon, days: int) -> Priors:
    """Return the facts about earlier exams; `days` is how long the same exam counts as answered."""
    sent = any(found is not None for found in (chart.orders, chart.studies, chart.reports))
    found = list(_earlier(chart, catalogue, lexicon))
    done = [e for e in found if not e.booked and e.days_ago >= 0]
    good = [e for e in done if not e.failed]
    same = [e for e in good if is_same(e.exam, exam)]
    alike = [e for e in good if not is_same(e.exam, exam) and is_alike(e.exam, exam)]
    booked = [e for e in found if e.booked and is_same(e.exam, exam)]
    near = [e for e in (*same, *alike, *booked) if e.booked or e.days_ago <= days]
    region_done = [e for e in done if is_alike(e.exam, exam) and e.days_ago <= days]
    again = stated.asks("planned follow-up", "new or changed", "earlier study failed", "sudden onset")
    again = again or any(e.failed or e.recommends for e in region_done)
    ct = [e for e in done if e.exam.modality == "CT" and e.exam.region == exam.region and e.days_ago <= 365]
    return Priors(
        (min((e.days_ago for e in same), default=_NEVER)) if sent else None,
        (min((e.days_ago for e in alike), default=_NEVER)) if sent else None,
        bool(booked) if sent or chart.appointments is not None else None,
        again,
        len({int(e.days_ago) for e in ct}) if sent else None,
        bool(done),
        tuple(dict.fromkeys(_evidence(e) for e in near)),
    )


def _evidence(earlier: Earlier) -> Evidence:
    days = int(abs(earlier.days_ago))
    when_said = (
        f"booked in {days} days"
        if earlier.booked and earlier.days_ago < 0
        else "ordered, not done"
        if earlier.booked
        else f"{days} days ago"
    )
    return Evidence(f"{earlier.exam.display[:80]}, {when_said}", earlier.reference)


def is_same(one: Exam, other: Exam) -> bool:
    """Return whether two exams are the same one."""
    if not (one.known and other.known):
        return False
    if one.code and other.code:
        return one.code == other.code
    return (one.modality, one.region, one.contrast, one.side) == (
        other.modality,
        other.region,
        other.contrast,
        other.side,
    )


def is_alike(one: Exam, other: Exam) -> bool:
    """Return whether two exams look at the same region by the same means."""
    return one.known and (one.modality, one.region, one.side) == (other.modality, other.region, other.side)


def _earlier(chart: Chart, catalogue: Catalogue, lexicon: Lexicon) -> Iterator[Earlier]:
    orders = {reference_of(o): o for o in chart.orders or () if reference_of(o)}
    own = reference_of(chart.order)
    done = {
        ref
        for s in (*(chart.studies or ()), *(chart.reports or ()))
        for ref in _based_on(s)
        if s.get("status") != "cancelled"
    }
    coming = {ref for a in chart.appointments or () for ref in _based_on(a)}
    for order in chart.orders or ():
        if not _is_own(order, chart) and string(order.get("status")) not in _DEAD and order.get("intent") != "option":
            yield from _of_order(order, chart, catalogue, done, coming)
    for study in chart.studies or ():
        if own not in _based_on(study) or not own:
            yield from _of_study(study, chart, catalogue, orders)
    for report in chart.reports or ():
        yield from _of_report(report, chart, catalogue, orders, lexicon)
    for appointment in chart.appointments or ():
        if not own or own not in _based_on(appointment):
            yield from _of_appointment(appointment, chart, catalogue, orders)


def _based_on(resource: Json) -> list[str]:
    return [string(r.get("reference")) for r in objects(resource.get("basedOn"))]


def _is_own(order: Json, chart: Chart) -> bool:
    if order is chart.order or (reference_of(order) and reference_of(order) == reference_of(chart.order)):
        return True
    mine = {
        (string(i.get("system")), string(i.get("value")))
        for i in objects(chart.order.get("identifier"))
        if i.get("value")
    }
    return bool(mine & {(string(i.get("system")), string(i.get("value"))) for i in objects(order.get("identifier"))})


def _of_order(order: Json, chart: Chart, catalogue: Catalogue, done: set[str], coming: set[str]) -> Iterator[Earlier]:
    at = when(order, "occurrenceDateTime", "occurrencePeriod", "authoredOn")
    days = days_between(at, chart.now)
    exam = catalogue.of_order(order)
    if days is None or not exam.known:
        return
    reference = reference_of(order)
    if order.get("status") == "completed" or reference in done:
        yield Earlier(exam, max(days, 0.0), failed=_failed(order), reference=reference)
    elif string(order.get("status")) in {"active", "on-hold"} and (days <= 60 or reference in coming):
        yield Earlier(exam, days, booked=True, reference=reference)


def _failed(resource: Json) -> bool:
    words = " ".join(
        (words_of(resource.get("statusReason")), *(string(n.get("text")) for n in objects(resource.get("note"))))
    )
    return any(
        w in words.lower() for w in ("abort", "diagnostic", "incomplete", "motion", "not completed", "terminated")
    )


def _of_study(study: Json, chart: Chart, catalogue: Catalogue, orders: dict[str, Json]) -> Iterator[Earlier]:
    days = days_between(when(study, "started"), chart.now)
    exam = _exam_of(study, catalogue, orders, objects(study.get("procedureCode")), string(study.get("description")))
    if days is None or not exam.known or study.get("status") == "entered-in-error":
        return
    broken = (
        string(study.get("status")) in {"cancelled"}
        or _failed(study)
        or "abort" in string(study.get("description")).lower()
    )
    yield Earlier(exam, max(days, 0.0), failed=broken, reference=reference_of(study))


def _of_report(
    report: Json, chart: Chart, catalogue: Catalogue, orders: dict[str, Json], lexicon: Lexicon
) -> Iterator[Earlier]:
    if string(report.get("status")) in {"entered-in-error", "cancelled", "registered"}:
        return
    days = days_between(when(report, "effectiveDateTime", "effectivePeriod", "issued"), chart.now)
    exam = _exam_of(report, catalogue, orders, [report.get("code") or {}], "")
    if days is None or not exam.known:
        return
    said = read(string(report.get("conclusion")), lexicon)
    yield Earlier(
        exam,
        max(days, 0.0),
        failed=said.says("earlier study failed"),
        recommends=said.says("repeat recommended"),
        reference=reference_of(report),
    )


def _of_appointment(
    appointment: Json, chart: Chart, catalogue: Catalogue, orders: dict[str, Json]
) -> Iterator[Earlier]:
    if string(appointment.get("status")) in _DEAD | {"fulfilled"}:
        return
    days = days_between(when(appointment, "start", "requestedPeriod"), chart.now)
    concepts = [*objects(appointment.get("serviceType")), *objects(appointment.get("reasonCode"))]
    exam = _exam_of(appointment, catalogue, orders, concepts, string(appointment.get("description")))
    if days is not None and days < 1 and exam.known:
        yield Earlier(exam, days, booked=True, reference=reference_of(appointment))


def _exam_of(resource: Json, catalogue: Catalogue, orders: dict[str, Json], concepts: list[Json], text: str) -> Exam:
    """Return the exam of a resource: by its own codes, by the order that it is based on, or by its text."""
    for concept in concepts:
        if codings(concept) and (exam := catalogue.of_order({"code": concept})).known:
            return exam
    for reference in _based_on(resource):
        if reference in orders and (exam := catalogue.of_order(orders[reference])).known:
            return exam
    modality = next((first_code({"coding": [m]}) for m in objects(resource.get("modality"))), "")
    texts = [text, *(text_of(c) for c in concepts), f"{modality} {text}" if modality and text else ""]
    return catalogue.of_text(t for t in texts if t)
