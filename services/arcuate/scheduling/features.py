"""What the models may know, each number by one function, in training and in service.

Not used, on purpose: sex, marital status, postal code, language, insurance, and everything known only after the decision. The
telephone number is the one on file now: a registry keeps no history of it, and a site should check that numbers are not added
or removed because of a missed visit.
"""

from collections.abc import Sequence
from datetime import datetime

from arcuate.scheduling.domain import Feature, Moment, Outcome, Visit

_STOOD = (Outcome.ATTENDED, Outcome.NO_SHOW, Outcome.LATE_CANCEL)
_DAY = 86400.0
_SHRINK_VISITS, _SHRINK_MISSES = 4.0, 0.3
"""A person with few visits is taken near the general share of misses."""


def _days(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() / _DAY


def _lead_days(m: Moment) -> float | None:
    return None if m.visit.created is None else max(0.0, _days(m.visit.created, m.visit.start))


def _notice_days(m: Moment) -> float | None:
    return _days(m.decided_at, m.visit.start)


def _hour(m: Moment) -> float:
    start = m.local(m.visit.start)
    return start.hour + start.minute / 60


def _weekday(m: Moment) -> float:
    return float(m.local(m.visit.start).weekday())


def _age(m: Moment) -> float | None:
    return None if m.visit.birth is None else (m.local(m.visit.start).date() - m.visit.birth).days / 365.25


def _minutes(m: Moment) -> float | None:
    return None if m.visit.minutes is None else float(m.visit.minutes)


def _modality(*words: str) -> "Feature":
    def of(m: Moment) -> float | None:
        if not m.visit.words:
            return None
        return float(any(word in m.visit.words for word in words))

    return Feature(f"is_{words[0].strip()}", of)


def _contrast(m: Moment) -> float | None:
    if not m.visit.words:
        return None
    words = m.visit.words.replace("without and with contrast", "with contrast").replace("without contrast", "")
    return float("contrast" in words or "angiogra" in words or "cta" in words)


def _urgency(m: Moment) -> float | None:
    return {"routine": 0.0, "urgent": 1.0, "asap": 1.0, "stat": 2.0}.get(m.visit.priority or "")


def _mobile(m: Moment) -> float | None:
    return None if m.visit.mobile is None else float(m.visit.mobile)


def _others(m: Moment) -> list[Visit]:
    """Return the other visits that were booked by then."""
    return [v for v in m.others if v.id != m.visit.id and (v.created is None or v.created <= m.decided_at)]


def _told(visit: Visit, m: Moment) -> bool:
    """Say whether a visit's outcome was known at the decision."""
    return visit.known_at is not None and visit.known_at <= m.decided_at


def stood(m: Moment) -> list[Visit]:
    """Return the patient's earlier visits that were kept, missed or cancelled late, as far as known then; oldest first."""
    found = [v for v in _others(m) if v.outcome in _STOOD and v.start < m.decided_at and _told(v, m)]
    return sorted(found, key=lambda v: v.start)


def _count(outcome: Outcome) -> "Feature":
    def of(m: Moment) -> float:
        return float(sum(v.outcome is outcome for v in stood(m)))

    return Feature(f"past_{outcome.value.replace('-', '_')}", of)


def _past_visits(m: Moment) -> float:
    return float(len(stood(m)))


def _miss_share(m: Moment) -> float:
    past = stood(m)
    missed = sum(v.outcome is Outcome.NO_SHOW for v in past)
    return (missed + _SHRINK_MISSES) / (len(past) + _SHRINK_VISITS)


def _last_missed(m: Moment) -> float | None:
    past = stood(m)
    return None if not past else float(past[-1].outcome is Outcome.NO_SHOW)


def _days_since_last(m: Moment) -> float | None:
    past = stood(m)
    return None if not past else min(730.0, _days(past[-1].start, m.decided_at))


def _moved(m: Moment) -> float:
    """Count earlier dates of the same order that were cancelled before this one was booked."""
    created = m.visit.created or m.decided_at
    gone = (Outcome.EARLY_CANCEL, Outcome.LATE_CANCEL)
    same_order = [v for v in _others(m) if v.order is not None and v.order == m.visit.order]
    return float(
        sum(v.created is not None and v.created < created and v.outcome in gone and _told(v, m) for v in same_order)
    )


ATTENDANCE: tuple[Feature, ...] = (
    Feature("lead_days", _lead_days),
    Feature("notice_days", _notice_days),
    Feature("hour", _hour),
    Feature("weekday", _weekday),
    Feature("age", _age),
    Feature("minutes", _minutes),
    _modality("mr"),
    _modality("ct"),
    Feature("contrast", _contrast),
    Feature("urgency", _urgency),
    Feature("mobile_on_file", _mobile),
    Feature("past_visits", _past_visits),
    _count(Outcome.NO_SHOW),
    _count(Outcome.LATE_CANCEL),
    Feature("miss_share", _miss_share),
    Feature("last_missed", _last_missed, optional=True),
    Feature("days_since_last", _days_since_last, optional=True),
    Feature("moved", _moved),
)


# --- waits: each function looks only at what had happened by then -----------------------------------------------------------


def _by(m: Moment, when: datetime | None) -> datetime | None:
    return when if when is not None and when <= m.decided_at else None


def _minutes_between(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() / 60


def _here(m: Moment) -> float:
    return float(_by(m, m.visit.arrived) is not None)


def _to_slot(m: Moment) -> float:
    return _minutes_between(m.decided_at, m.visit.start)


def _arrived_early(m: Moment) -> float | None:
    arrived = _by(m, m.visit.arrived)
    return None if arrived is None else _minutes_between(arrived, m.visit.start)


def _waited(m: Moment) -> float:
    arrived = _by(m, m.visit.arrived)
    return 0.0 if arrived is None else _minutes_between(arrived, m.decided_at)


def open_before(m: Moment) -> list[Visit]:
    """Return the visits at that place that come before this one and have not begun."""
    return [v for v in _others(m) if v.start < m.visit.start and _by(m, v.began) is None and _may_still_come(v, m)]


def _may_still_come(visit: Visit, m: Moment) -> bool:
    if visit.outcome is not None and _told(visit, m):
        return False
    # Whoever is more than half an hour late and not here is not waited for.
    return _by(m, visit.arrived) is not None or _minutes_between(visit.start, m.decided_at) < 30


def _ahead(m: Moment) -> float:
    return float(len(open_before(m)))


def _ahead_here(m: Moment) -> float:
    return float(sum(_by(m, v.arrived) is not None for v in open_before(m)))


def _ahead_minutes(m: Moment) -> float:
    return float(sum(v.minutes or 30 for v in open_before(m)))


def _on_table(m: Moment) -> list[Visit]:
    return [v for v in _others(m) if _by(m, v.began) is not None and _by(m, v.ended) is None]


def _on_table_left(m: Moment) -> float:
    """Return the booked minutes that the exam on the table still has, 0 when the table is empty."""
    left = [(v.minutes or 30) - _minutes_between(v.began, m.decided_at) for v in _on_table(m) if v.began]
    return max(left, default=0.0)


def _table_busy(m: Moment) -> float:
    return float(bool(_on_table(m)))


def _running_late(m: Moment) -> float | None:
    """Return by how many minutes the last exam that began did so after its slot; not known before the first."""
    begun = [(v.began, v.start) for v in _others(m) if v.began is not None and v.began <= m.decided_at]
    return None if not begun else _minutes_between(max(begun)[1], max(begun)[0])


def _standing(m: Moment) -> list[Visit]:
    return [v for v in _others(m) if not (v.outcome in (Outcome.EARLY_CANCEL, Outcome.LATE_CANCEL) and _told(v, m))]


def _today(m: Moment) -> float:
    return float(len(_standing(m)))


def _booked_before(m: Moment) -> float:
    """Return the booked minutes of that day and place before this slot."""
    return float(sum(v.minutes or 30 for v in _standing(m) if v.start < m.visit.start))


def _gap_before(m: Moment) -> float | None:
    """Return the free minutes between the visit booked before and this slot."""
    before = [(v.start, v.minutes or 30) for v in _standing(m) if v.start < m.visit.start]
    return None if not before else _minutes_between(max(before)[0], m.visit.start) - max(before)[1]


DURATION: tuple[Feature, ...] = (
    Feature("minutes", _minutes),
    _modality("mr"),
    _modality("ct"),
    Feature("contrast", _contrast),
    Feature("urgency", _urgency),
    Feature("age", _age),
    Feature("hour", _hour),
)

WAIT: tuple[Feature, ...] = (
    *DURATION,
    Feature("weekday", _weekday),
    Feature("is_here", _here),
    Feature("to_slot", _to_slot),
    Feature("arrived_early", _arrived_early, optional=True),
    Feature("waited", _waited),
    Feature("ahead", _ahead),
    Feature("ahead_here", _ahead_here),
    Feature("ahead_minutes", _ahead_minutes),
    Feature("on_table_left", _on_table_left),
    Feature("table_busy", _table_busy),
    Feature("running_late", _running_late, optional=True),
    Feature("today", _today),
    Feature("booked_before", _booked_before),
    Feature("gap_before", _gap_before, optional=True),
)


def one_of(kind: str, known: Sequence[str]) -> tuple[Feature, ...]:
    """Return one feature for each known exam or place; all are unknown when the visit's own was never seen in training.

    Args:
        kind: `exam` or `place`.
    """
    seen = frozenset(known)

    def feature(name: str) -> Feature:
        def of(m: Moment) -> float | None:
            value = m.visit.exam if kind == "exam" else m.visit.place
            return float(value == name) if value in seen else None

        return Feature(f"{kind}={name}", of)

    return tuple(feature(name) for name in sorted(seen))


def names(features: Sequence[Feature]) -> list[str]:
    """Return the names in the models' order."""
    return [f.name for f in features]
