"""Visits, what is known of them at a moment, and chances with their reasons: pure, without I/O."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from enum import StrEnum


class Outcome(StrEnum):
    """What came of a visit. A late cancellation came less than 24 h before the start."""

    ATTENDED = "attended"
    NO_SHOW = "no-show"
    LATE_CANCEL = "late-cancel"
    EARLY_CANCEL = "early-cancel"


LATE = timedelta(hours=24)


@dataclass(frozen=True)
class Visit:
    """One appointment with what is known of patient and order.

    Attributes:
        patient: Id of the patient; None when the appointment names none.
        exam: Code of the exam (`urn:arcuate:cs:exam`), or the text where there is no code.
        words: The exam in words, lower case.
        place: Name or id of the scanner.
        priority: ServiceRequest.priority.
        mobile: True if a mobile or other telephone number is on file; None when the patient is not known.
        known_at: When the outcome became known.
        arrived, began, ended: Arrival, and begin and end of the exam.
    """

    id: str
    patient: str | None
    order: str | None
    start: datetime
    created: datetime | None = None
    minutes: int | None = None
    exam: str | None = None
    words: str = ""
    place: str | None = None
    priority: str | None = None
    birth: date | None = None
    mobile: bool | None = None
    outcome: Outcome | None = None
    known_at: datetime | None = None
    arrived: datetime | None = None
    began: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Moment:
    """A visit at the time of a decision, with the other visits that bear on it.

    Attributes:
        decided_at: The decision; nothing later may be used.
        others: For attendance the same patient's other visits; for waits the other visits of that day and place.
        zone: The site's zone; None takes the offset in which each time is written.
    """

    visit: Visit
    decided_at: datetime
    others: tuple[Visit, ...] = ()
    zone: tzinfo | None = None

    def local(self, when: datetime) -> datetime:
        """Return a time on the site's clock."""
        return when.astimezone(self.zone) if self.zone is not None else when


def as_of(moment: Moment) -> Moment:
    """Return the moment with every fact taken away that was not known then.

    The visit's own outcome is never known at its decision. What happened to others stays if it happened before.
    """
    decided = moment.decided_at
    visit = replace(
        moment.visit, outcome=None, known_at=None, began=None, ended=None,
        arrived=_before(moment.visit.arrived, decided),
    )  # fmt: skip
    others = tuple(
        _known(other, decided) for other in moment.others if other.created is None or other.created <= decided
    )
    return replace(moment, visit=visit, others=others)


def _known(visit: Visit, decided: datetime) -> Visit:
    times = (visit.known_at, visit.arrived, visit.began, visit.ended)
    if (visit.outcome is None or visit.known_at is not None) and all(t is None or t <= decided for t in times):
        return visit
    unknown = visit.known_at is None or visit.known_at > decided
    return replace(
        visit, outcome=None if unknown else visit.outcome, known_at=None if unknown else visit.known_at,
        arrived=_before(visit.arrived, decided), began=_before(visit.began, decided), ended=_before(visit.ended, decided),
    )  # fmt: skip


def _before(when: datetime | None, decided: datetime) -> datetime | None:
    return when if when is not None and when <= decided else None


@dataclass(frozen=True)
class Feature:
    """One number that a model may use: computed by the same function in training and in service.

    Attributes:
        optional: It may be unknown by its nature (days since the last visit of somebody who never came): not listed as missing.
    """

    name: str
    of: Callable[[Moment], float | None]
    optional: bool = False


def vector(features: Sequence[Feature], moment: Moment) -> dict[str, float]:
    """Return the features of a moment as it was known then; what is not known is not-a-number."""
    known = as_of(moment)
    found = {}
    for feature in features:
        value = feature.of(known)
        found[feature.name] = math.nan if value is None else float(value)
    return found


def leaks(features: Sequence[Feature], moments: Sequence[Moment]) -> list[str]:
    """Return the names of features that change when facts later than the decision are taken away (FAULTS 063)."""
    found = set()
    for moment in moments:
        known = as_of(moment)
        for feature in features:
            if feature.name not in found and not _same(feature.of(moment), feature.of(known)):
                found.add(feature.name)
    return sorted(found)


def _same(a: float | None, b: float | None) -> bool:
    a, b = math.nan if a is None else a, math.nan if b is None else b
    return a == b or (math.isnan(a) and math.isnan(b))


class Confidence(StrEnum):
    """How far an answer can be relied on."""

    USUAL = "usual"
    LOW = "low"  # inputs are missing
    FALLBACK = "fallback"  # no model answered: the site's rate


class Away(StrEnum):
    """Why a model gave no answer, where that has nothing to do with the visit: asked again later, it may."""

    SILENT = "silent"  # loaded, but late or broken: it may answer at any moment
    ABSENT = "absent"  # not loaded: it answers after a start with one


@dataclass(frozen=True)
class Reason:
    """One reason in a scheduler's words and what it does to the chance, in points of a hundred."""

    sentence: str
    points: float


@dataclass(frozen=True)
class Chance:
    """A chance between 0 and 1 with its 80 % interval.

    Attributes:
        like: Past visits with like chances, and how many of them had the outcome; None where no model answered.
        base: The site's rate from which the reasons start.
    """

    value: float
    low: float
    high: float
    base: float
    reasons: tuple[Reason, ...] = ()
    like: tuple[int, int] | None = None


@dataclass(frozen=True)
class Quantiles:
    """Minutes: 10, 50 and 90 %."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True)
class ModelName:
    """Which model answered."""

    name: str
    version: str
    sha256: str
    data_until: str
    synthetic: bool
    site: str


@dataclass(frozen=True)
class Forecast:
    """One answer for one visit.

    Attributes:
        chances: By `no-show` and `late-cancel`, for attendance.
        minutes: By `wait` and `duration`, for waits.
        missing: Words for inputs that were not known.
        why_fallback: A sentence; empty when a model answered.
        away: Set where the fallback answers because the model was away, not because of what is known of the visit.
    """

    confidence: Confidence
    chances: Mapping[str, Chance]
    minutes: Mapping[str, Quantiles]
    missing: tuple[str, ...] = ()
    why_fallback: str = ""
    model: ModelName | None = None
    features: Mapping[str, float] | None = None
    away: Away | None = None


def sigmoid(x: float) -> float:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


def logit(p: float) -> float:
    """Return the log odds of a chance; 0 and 1 are moved a little inside."""
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


Z80 = 1.2815515655446004
"""Half width of an 80 % normal interval in standard deviations."""


def rate_interval(events: int, count: int) -> tuple[float, float]:
    """Return an 80 % interval of a rate (normal on the log odds, half an event added to each side)."""
    centre = math.log((events + 0.5) / (count - events + 0.5))
    half = Z80 * math.sqrt(1 / (events + 0.5) + 1 / (count - events + 0.5))
    return sigmoid(centre - half), sigmoid(centre + half)
