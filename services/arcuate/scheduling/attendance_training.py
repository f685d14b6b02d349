"""Training and evaluation of the attendance model: rows as of the decision, split by time, calibrated and judged on later visits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from arcuate.kernel.errors import BadInput, Refused
from arcuate.scheduling import boosting, cards, measures
from arcuate.scheduling.attendance import NAME, OUTCOMES, AttendanceModel, Calibration, load
from arcuate.scheduling.boosting import Bag
from arcuate.scheduling.domain import LATE, Feature, ModelName, Moment, Outcome, Visit, leaks, vector
from arcuate.scheduling.features import ATTENDANCE, names
from arcuate.scheduling.modelfile import Data, dump_json, write_folder
from arcuate.scheduling.visits import read_history

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_VISITS = 500
_BLANKED = 0.05
_CHECKED = 2000
_TOO_GOOD = 0.9
_ROW = 100
_RISING = frozenset({"past_no_show", "miss_share", "last_missed", "moved"})
_BLANK_TOGETHER = (
    ("age",), ("mobile_on_file",), ("urgency",), ("minutes",), ("lead_days",), ("is_mr", "is_ct", "contrast"),
)  # fmt: skip
_RANGED = ("lead_days", "age", "minutes", "hour")


@dataclass(frozen=True)
class Row:
    """One training row: a visit at the moment of booking, or 24 h before its start."""

    moment: Moment
    values: dict[str, float]
    outcome: Outcome
    at_booking: bool

    @property
    def start(self) -> datetime:
        """Return the visit's start."""
        return self.moment.visit.start


@dataclass(frozen=True)
class Split:
    """Rows before, between and after two times: to train, to calibrate, to judge."""

    train: list[Row]
    calibrate: list[Row]
    judge: list[Row]


def train(
    history: Path, out: Path, seed: int, *, site: str = "synthetic department", synthetic: bool = True, zone: tzinfo | None = None,
    features: Sequence[Feature] = ATTENDANCE, draws: int = 200,
) -> cards.Metrics:  # fmt: skip
    """Train on a history of FHIR NDJSON files and write the model folder.

    Args:
        history: Folder with Patient, ServiceRequest, Appointment, Encounter and Procedure as `Type.ndjson`.
        out: The model's folder, for example `models/attendance`.
        site: Whose history it is; the pages warn while it is not the running site's.
        synthetic: Whether the history is invented; the card and every answer say so.
        zone: The site's zone for weekday and hour; None takes the offset in which each time is written.
        draws: Bootstrap draws behind each interval of the card.

    Raises:
        BadInput: Too little history, or it cannot be read.
        Refused: A feature uses what was not known at the decision (a leak).
    """
    visits = _known_visits(history)
    if len(visits) < _LEAST_VISITS:
        raise BadInput(
            f"{len(visits)} visits with an outcome are too few to train on", where=str(history),
            todo=f"At least {_LEAST_VISITS} are needed; until then the site's rate answers.",
        )  # fmt: skip
    moments = list(_moments(visits, zone))
    refuse_leaks(features, [m for m, _, _ in moments], seed)
    split = split_by_time([Row(m, vector(features, m), outcome, booking) for m, outcome, booking in moments])
    model = _fit(split, features, seed)
    metrics = judge(model, split.judge, seed, draws)
    _refuse_too_good(metrics)
    _write(out, model, metrics, split, visits, Data(
        site, synthetic, str(min(v.start for v in visits).date()), str(max(v.start for v in visits).date()), len(visits),
        len({v.patient for v in visits}), seed,
    ))  # fmt: skip
    return metrics


def evaluate(
    model: Path, history: Path, seed: int = 0, *, zone: tzinfo | None = None, after: datetime | None = None
) -> cards.Metrics:
    """Judge a stored model on a history, whole or only on visits that start after a time."""
    loaded = load(model)
    visits = _known_visits(history)
    rows = [
        Row(m, vector(ATTENDANCE, m), outcome, booking)
        for m, outcome, booking in _moments(visits, zone)
        if after is None or m.decided_at > after
    ]
    if not rows:
        raise BadInput("No visit of the history lies after that time", where=str(history))
    return judge(loaded, rows, seed)


def _known_visits(history: Path) -> list[Visit]:
    """Return the visits with an outcome, up to the last day on which one stood.

    Of later ones only those cancelled in good time are known yet: they would make late bookings look as if they were never missed.
    """
    visits = [v for v in read_history(history) if v.outcome is not None]
    last = max((v.start for v in visits if v.outcome is not Outcome.EARLY_CANCEL), default=None)
    return [] if last is None else [v for v in visits if v.start <= last]


def _moments(visits: Sequence[Visit], zone: tzinfo | None) -> Sequence[tuple[Moment, Outcome, bool]]:
    """Return the decisions of each visit with the outcome: at booking, and 24 h before if it still stood then."""
    by_patient: dict[str | None, list[Visit]] = {}
    for one in visits:
        by_patient.setdefault(one.patient, []).append(one)
    found = []
    for one in visits:
        assert one.outcome is not None
        others = tuple(by_patient[one.patient]) if one.patient else ()
        created = one.created or one.start - LATE
        found.append((Moment(one, min(created, one.start), others, zone), one.outcome, True))
        if created < one.start - LATE and one.outcome is not Outcome.EARLY_CANCEL:
            found.append((Moment(one, one.start - LATE, others, zone), one.outcome, False))
    return found


def refuse_leaks(features: Sequence[Feature], moments: Sequence[Moment], seed: int) -> None:
    """Refuse features that change when what happened after the decision is taken away (FAULTS 063).

    Raises:
        Refused: Names them.
    """
    source = np.random.default_rng(seed)
    drawn = [moments[i] for i in source.permutation(len(moments))[:_CHECKED]]
    if found := leaks(features, drawn):
        raise Refused(
            f"Features use what was not known at the decision: {', '.join(found)}", where="features",
            todo="Take them out, or compute them from what was known then.",
        )  # fmt: skip


def split_by_time(rows: Sequence[Row]) -> Split:
    """Split at 60 and 80 % of the starts; a row whose decision lies before its part, but whose start does not, is left out.

    The first tenth only is history: nobody's past is known there, which later rows would not resemble.
    """
    ordered = sorted(rows, key=lambda r: (r.moment.decided_at, r.moment.visit.id))
    starts = sorted(r.start for r in rows)
    opening, first, second = (starts[len(starts) * part // 10] for part in (1, 6, 8))
    return Split(
        [r for r in ordered if opening <= r.moment.decided_at and r.start < first],
        [r for r in ordered if first <= r.moment.decided_at and r.start < second],
        [r for r in ordered if second <= r.moment.decided_at],
    )


def _fit(split: Split, features: Sequence[Feature], seed: int) -> AttendanceModel:
    x = boosting.matrix([r.values for r in split.train], names(features))
    _blank(x, names(features), np.random.default_rng(seed))
    groups = _groups(split.train)
    rising = [f.name in _RISING for f in features]
    bags, calibrations = {}, {}
    for number, outcome in enumerate(OUTCOMES):
        bags[outcome] = boosting.fit_bag(x, _truth(split.train, outcome), groups, seed + 100 * number, rising)
        calibrations[outcome] = calibrate(bags[outcome], split.calibrate, outcome, names(features))
    ranges = {}
    for name in _RANGED:
        known = np.array([r.values[name] for r in split.train])
        ranges[name] = (float(np.nanmin(known)), float(np.nanmax(known)))
    unnamed = ModelName(NAME, "", "", "", True, "")
    return AttendanceModel(bags, calibrations, ranges, unnamed, features)


def _blank(x: Floats, columns: Sequence[str], source: np.random.Generator) -> None:
    """Take inputs away at random, so that the boosters learn what to say when one is not known."""
    for group in _BLANK_TOGETHER:
        rows = np.flatnonzero(source.random(len(x)) < _BLANKED)
        for name in group:
            if name in columns:
                x[rows, columns.index(name)] = np.nan


def calibrate(bag: Bag, rows: Sequence[Row], outcome: str, columns: Sequence[str]) -> Calibration:
    """Fit the line from log odds to chance on later visits, and count what happened along it."""
    from sklearn.linear_model import LogisticRegression

    truth = _truth(rows, outcome)
    if truth.sum() < 20:
        raise BadInput(f"Only {int(truth.sum())} visits to calibrate {outcome} on", todo="Train on a longer history.")
    margins = bag.margins(boosting.matrix([r.values for r in rows], columns)).mean(axis=1)
    line = LogisticRegression(C=1e6).fit(margins[:, None], truth)
    order = np.argsort(margins, kind="stable")
    parts = np.array_split(order, max(1, len(order) // _ROW))
    table = tuple((round(float(margins[p].mean()), 5), len(p), int(truth[p].sum())) for p in parts)
    return Calibration(float(line.coef_[0, 0]), float(line.intercept_[0]), float(truth.mean()), table)


def judge(model: AttendanceModel, rows: Sequence[Row], seed: int, draws: int = 200) -> cards.Metrics:
    """Measure a model on rows that it has not seen, against the site's rate and past misses."""
    parts = {
        "24 h before": [r for r in rows if not r.at_booking],
        "at booking": [r for r in rows if r.at_booking],
        "at booking, a day or more ahead": [r for r in rows if r.at_booking and r.values["lead_days"] >= 1],
        "24 h before, first visit": [r for r in rows if not r.at_booking and r.values["past_visits"] == 0],
    }
    lines, held = [], {}
    for outcome in OUTCOMES:
        base = model.calibrations[outcome].base
        for part, members in parts.items():
            if len(members) < 100 or not _truth(members, outcome).any():
                continue
            truth, groups = _truth(members, outcome), _groups(members)
            values = [r.values for r in members]
            forecasts = {
                "model": model.chances(values, outcome),
                "site's rate": np.full(len(members), base),
                "past misses": _past_misses(members, outcome, base),
            }
            for kind, chance in forecasts.items():
                measured = measures.bootstrap(truth, chance, groups, measures.CHANCE_MEASURES, seed, draws)
                lines.append(cards.Line(outcome, part, kind, len(members), float(truth.mean()), measured))
        held[outcome] = _interval_held(model, parts["24 h before"], outcome)
    return cards.Metrics(tuple(lines), held)


def _interval_held(model: AttendanceModel, rows: Sequence[Row], outcome: str) -> tuple[int, int]:
    """Return of how many groups of like chance the observed rate lay inside the mean 80 % interval, and how many groups there were."""
    values, truth = [r.values for r in rows], _truth(rows, outcome)
    chance, bounds = model.chances(values, outcome), model.intervals(values, outcome)
    parts = np.array_split(np.argsort(chance, kind="stable"), 20)
    inside = sum(bounds[p, 0].mean() <= truth[p].mean() <= bounds[p, 1].mean() for p in parts if len(p))
    return int(inside), len(parts)


def _past_misses(rows: Sequence[Row], outcome: str, base: float) -> Floats:
    """Return the baseline that every desk has: the person's own share of such visits, shrunk to the site's rate."""
    name = f"past_{outcome.replace('-', '_')}"
    return np.array([(r.values[name] + 5 * base) / (r.values["past_visits"] + 5) for r in rows])


def _truth(rows: Sequence[Row], outcome: str) -> Floats:
    return np.array([float(r.outcome.value == outcome) for r in rows])


def _groups(rows: Sequence[Row]) -> Ints:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(r.moment.visit.patient or r.moment.visit.id, len(numbers)) for r in rows])


def _refuse_too_good(metrics: cards.Metrics) -> None:
    for line in metrics.lines:
        if line.kind == "model" and line.measured["AUC"].value > _TOO_GOOD:
            raise Refused(
                f"AUC {line.measured['AUC'].value:.2f} for {line.outcome} is too good to be true: look for a leak",
                todo="Serious studies with a split in time report 0.66 to 0.75; check what was known at the decision.",
            )


def _write(
    out: Path, model: AttendanceModel, metrics: cards.Metrics, split: Split, visits: Sequence[Visit], data: Data
) -> None:
    files = {
        f"{outcome}-{number}.ubj": raw
        for outcome, bag in model.bags.items()
        for number, raw in enumerate(bag.to_bytes())
    }
    files["calibration.json"] = dump_json({outcome: c.to_json() for outcome, c in model.calibrations.items()})
    files["ranges.json"] = dump_json({name: list(bounds) for name, bounds in model.ranges.items()})
    tables: dict[str, dict[str, Any]] = {
        "inputs": {"features": names(model.features), "resources": ["Appointment", "Patient", "ServiceRequest", "earlier Appointments"]},
        "outputs": {"chances": list(OUTCOMES), "interval": "80 %", "resource": "RiskAssessment"},
        "population": {"rows_to_train": len(split.train), "rows_to_calibrate": len(split.calibrate), "rows_to_judge": len(split.judge)},
    }  # fmt: skip
    write_folder(out, NAME, "chance that a booked visit is missed, or cancelled less than 24 h before", files, data, tables,
                 cards.attendance_card(metrics, data, len(split.train), len(split.calibrate)))  # fmt: skip
