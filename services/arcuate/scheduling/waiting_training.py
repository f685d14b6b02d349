"""Training and evaluation of the waiting model, split by whole days."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta, tzinfo
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arcuate.kernel.errors import BadInput
from arcuate.scheduling import boosting, cards, measures
from arcuate.scheduling.attendance_training import refuse_leaks
from arcuate.scheduling.domain import Feature, Moment, Outcome, Visit, vector
from arcuate.scheduling.features import names
from arcuate.scheduling.modelfile import Data, dump_json, write_folder
from arcuate.scheduling.visits import read_history
from arcuate.scheduling.waiting import NAME, TARGETS, Target, conform, features_of, load

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_VISITS = 500
_OFTEN = 30
_EVERY = timedelta(minutes=20)
_LOOKS = 3
_OPENS_BEFORE = timedelta(minutes=90)
"""The morning's look: so long before the first slot of that day and place."""
_LONGEST_WAIT_MIN = 480.0
_BLANKED = 0.05
_LEAST = {"wait": 0.0, "duration": 1.0}
_RANGED = ("minutes",)


@dataclass(frozen=True)
class Row:
    """One forecast to learn from: a moment and the true minutes."""

    moment: Moment
    values: dict[str, float]
    minutes: float
    day: date


def train(
    history: Path,
    out: Path,
    seed: int,
    *,
    site: str = "synthetic department",
    synthetic: bool = True,
    zone: tzinfo | None = None,
    draws: int = 200,
) -> cards.Metrics:
    """Train on a history of FHIR NDJSON files and write the model folder; see `attendance_training.train` for the arguments.

    Raises:
        BadInput: Too few visits with arrival, begin and end.
        Refused: A feature uses what was not known at the moment (a leak).
    """
    visits = read_history(history)
    seen = [v for v in visits if v.arrived and v.began and v.ended and v.began >= v.arrived]
    if len(seen) < _LEAST_VISITS:
        raise BadInput(
            f"{len(seen)} visits with arrival, begin and end are too few to train on", where=str(history),
            todo=f"At least {_LEAST_VISITS} are needed; until then a rule by the booked minutes answers.",
        )  # fmt: skip
    days = sorted({v.start.date() for v in seen})
    first, second = days[len(days) * 6 // 10], days[len(days) * 8 // 10]
    early = [v for v in seen if v.start.date() < first]
    exams, places = _often(v.exam for v in early), _often(v.place for v in early)
    targets, lines, widened, counts = {}, [], {}, {}
    for target in TARGETS:
        features = features_of(target, exams, places)
        moments = _moments(visits, target, zone)
        refuse_leaks(features, [m for m, _ in moments], seed)
        rows = [Row(m, vector(features, m), minutes, m.visit.start.date()) for m, minutes in moments]
        parts = (
            [r for r in rows if r.day < first],
            [r for r in rows if first <= r.day < second],
            [r for r in rows if r.day >= second],
        )
        targets[target] = _fit(target, features, parts[0], parts[1], seed)
        widened[target] = targets[target].widen
        counts[target] = (len(parts[0]), len(parts[1]))
        lines += judge(target, targets[target], parts[2], seed, train=parts[0], draws=draws)
    metrics = cards.Metrics(tuple(lines), {})
    low, high = min(v.minutes or 30 for v in early), max(v.minutes or 30 for v in early)
    table = {
        "exams": exams, "places": places, "widen": {t: round(w, 3) for t, w in widened.items()}, "least": _LEAST,
        "ranges": {name: [low, high] for name in _RANGED}, "levels": list(boosting.LEVELS),
    }  # fmt: skip
    files = {f"{name}.ubj": bytes(t.booster.save_raw("ubj")) for name, t in targets.items()}
    files["quantiles.json"] = dump_json(table)
    data = Data(site, synthetic, str(days[0]), str(days[-1]), len(seen), len({v.patient for v in seen}), seed)
    write_folder(
        out, NAME, "minutes of waiting and on the table", files, data,
        {
            "inputs": {t: names(targets[t].features) for t in TARGETS},
            "outputs": {"quantiles": list(boosting.LEVELS), "resource": "Observation"},
        },
        cards.waiting_card(metrics, data, counts["wait"][0], counts["wait"][1], widened),
    )  # fmt: skip
    return metrics


def evaluate(
    model: Path, history: Path, seed: int = 0, *, zone: tzinfo | None = None, after: date | None = None
) -> cards.Metrics:
    """Judge a stored model on a history, whole or only on days after a date."""
    loaded = load(model)
    visits = read_history(history)
    lines = []
    for target, fitted in loaded.targets.items():
        rows = [
            Row(m, vector(fitted.features, m), minutes, m.visit.start.date())
            for m, minutes in _moments(visits, target, zone)
            if after is None or m.visit.start.date() > after
        ]
        if not rows:
            raise BadInput("No visit of the history lies after that time", where=str(history))
        lines += judge(target, fitted, rows, seed)
    return cards.Metrics(tuple(lines), {})


def _moments(visits: Sequence[Visit], target: str, zone: tzinfo | None) -> list[tuple[Moment, float]]:
    """Return moments with the true minutes, in order of time.

    A wait is forecast in the morning, at arrival and while waiting; what is learnt is what is left of it from then (or from arrival).
    """
    by_day: dict[tuple[str | None, date], list[Visit]] = {}
    for one in visits:
        by_day.setdefault((one.place, one.start.date()), []).append(one)
    found = []
    for one in visits:
        if (
            one.outcome is not Outcome.ATTENDED
            or not (one.arrived and one.began and one.ended)
            or one.began < one.arrived
        ):
            continue
        others = tuple(by_day[one.place, one.start.date()])
        if target == "duration":
            minutes = (one.ended - one.began).total_seconds() / 60
            found.append((Moment(one, min(one.arrived, one.start), (), zone), minutes))
            continue
        if (one.began - one.arrived).total_seconds() / 60 > _LONGEST_WAIT_MIN:
            continue
        morning = min(v.start for v in others) - _OPENS_BEFORE
        looks = [morning] if one.created is None or one.created <= morning < one.arrived else []
        looks += [t for i in range(_LOOKS + 1) if (t := one.arrived + i * _EVERY) < one.began]
        for at in looks:
            left = (one.began - max(at, one.arrived)).total_seconds() / 60
            found.append((Moment(one, at, others, zone), left))
    return sorted(found, key=lambda pair: (pair[0].decided_at, pair[0].visit.id))


def _fit(
    target: str, features: Sequence[Feature], train_rows: Sequence[Row], later: Sequence[Row], seed: int
) -> Target:
    columns = names(features)
    x = boosting.matrix([r.values for r in train_rows], columns)
    source = np.random.default_rng(seed)
    for prefix in ("exam=", "place=", "age", "urgency", "minutes"):
        away = source.random(len(x)) < _BLANKED
        for i in (i for i, name in enumerate(columns) if name.startswith(prefix)):
            x[away, i] = np.nan
    booster = boosting.fit_quantiles(x, _minutes(train_rows), seed)
    bare = Target(booster, tuple(features), 0.0, _LEAST[target])
    raw = boosting.quantiles(booster, boosting.matrix([r.values for r in later], columns))
    return Target(booster, bare.features, _widening(raw, _minutes(later), _LEAST[target]), _LEAST[target])


def _widening(quantiles: Floats, truth: Floats, least: float) -> float:
    """Return by how much both ends must move so that 80 % of later values lie inside; never so far inwards that more is cut off."""
    outside = np.maximum(quantiles[:, 0] - truth, truth - quantiles[:, 2])
    widen = float(np.quantile(outside, 0.8))
    inside = conform(quantiles, widen, least)
    covered = float(((truth >= inside[:, 0]) & (truth <= inside[:, 2])).mean())
    return widen if covered >= 0.79 else max(0.0, widen)


def judge(
    target: str, fitted: Target, rows: Sequence[Row], seed: int, *, train: Sequence[Row] = (), draws: int = 200
) -> list[cards.Line]:
    """Measure a target on rows that it has not seen; with training rows also against simple opponents."""
    parts: dict[str, list[Row]] = {"all": list(rows)}
    if target == "wait":
        parts |= {
            "in the morning": [r for r in rows if not r.values["is_here"]],
            "at arrival": [r for r in rows if r.values["is_here"] and r.values["waited"] < 1],
            "while waiting": [r for r in rows if r.values["is_here"] and r.values["waited"] >= 1],
        }
    lines = []
    for part, members in parts.items():
        if len(members) < 50:
            continue
        truth, groups = _minutes(members), _groups(members)
        forecasts = {"model": fitted.of([r.values for r in members])}
        if train:
            forecasts |= _opponents(target, members, train)
        for kind, forecast in forecasts.items():
            measured = measures.quantile_measures(truth, forecast, groups, seed, draws)
            lines.append(cards.Line(target, part, kind, len(members), float(truth.mean()), measured))
    return lines


def _opponents(target: str, rows: Sequence[Row], train: Sequence[Row]) -> dict[str, Floats]:
    known = _minutes(train)
    one = np.tile(np.quantile(known, boosting.LEVELS), (len(rows), 1))
    if target == "duration":
        ratio = np.quantile(known / np.array([r.moment.visit.minutes or 30 for r in train]), boosting.LEVELS)
        return {"median": one, "booked minutes": np.array([(r.moment.visit.minutes or 30) * ratio for r in rows])}

    def key(row: Row) -> tuple[bool, int]:
        return bool(row.values["is_here"]), min(int(row.values["ahead"]), 12)

    groups: dict[tuple[bool, int], list[float]] = {}
    for row in train:
        groups.setdefault(key(row), []).append(row.minutes)
    tables = {k: np.quantile(v, boosting.LEVELS) for k, v in groups.items() if len(v) >= 20}
    return {"median": one, "by queue": np.array([tables.get(key(r), one[0]) for r in rows])}


def _minutes(rows: Sequence[Row]) -> Floats:
    return np.array([r.minutes for r in rows])


def _groups(rows: Sequence[Row]) -> Ints:
    return np.array([r.day.toordinal() for r in rows])


def _often(values: Iterable[str | None]) -> list[str]:
    counts = Counter(v for v in values if v)
    return sorted(v for v, n in counts.items() if n >= _OFTEN)
