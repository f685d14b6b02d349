"""The waiting model: minutes from arrival to the begin of the exam, and minutes on the table, as 10, 50 and 90 % quantiles.

One booster a target gives three quantiles; they are sorted, so that they never cross, and both ends are moved by one figure found on
later days (conformal), so that 80 % of the true values lie inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from arcuate.kernel.errors import BadInput
from arcuate.scheduling import boosting, reasons
from arcuate.scheduling.attendance import beyond
from arcuate.scheduling.domain import Confidence, Feature, Forecast, ModelName, Moment, Quantiles, vector
from arcuate.scheduling.features import DURATION, WAIT, names, one_of
from arcuate.scheduling.modelfile import open_folder

Floats = npt.NDArray[np.float64]

NAME = "waiting"
TARGETS = ("wait", "duration")


@dataclass(frozen=True)
class Target:
    """One forecast: booster, its features, what widens its ends, and the least possible value in minutes."""

    booster: xgb.Booster
    features: tuple[Feature, ...]
    widen: float
    least: float

    def of(self, rows: Sequence[dict[str, float]]) -> Floats:
        """Return minutes (n, 3), never crossing, never below the least possible value."""
        return conform(
            boosting.quantiles(self.booster, boosting.matrix(rows, names(self.features))), self.widen, self.least
        )


def conform(quantiles: Floats, widen: float, least: float) -> Floats:
    """Return quantiles whose ends are moved outwards (or inwards) by `widen` minutes, sorted and cut at the least value."""
    moved = quantiles + np.array([-widen, 0.0, widen])
    moved[:, 0] = np.minimum(moved[:, 0], moved[:, 1])
    moved[:, 2] = np.maximum(moved[:, 2], moved[:, 1])
    return np.maximum(moved, least)


@dataclass(frozen=True)
class WaitingModel:
    """A loaded model; it answers without I/O."""

    targets: Mapping[str, Target]
    ranges: Mapping[str, tuple[float, float]]
    name: ModelName

    def forecast(self, moment: Moment) -> Forecast:
        """Return wait and duration at a moment.

        For somebody who is here the booster forecasts what is left of the wait; the minutes already waited are added.
        """
        values = {target: vector(t.features, moment) for target, t in self.targets.items()}
        if outside := beyond(self.ranges, values["wait"]):
            return booked_rate(moment, outside, self.name)
        words = reasons.load_words()
        absent = tuple(
            dict.fromkeys(
                w for target, t in self.targets.items() for w in reasons.missing(words, t.features, values[target])
            )
        )
        waited = max(0.0, values["wait"]["waited"])
        found = {
            target: Quantiles(*(float(v) + (waited if target == "wait" else 0.0) for v in t.of([values[target]])[0]))
            for target, t in self.targets.items()
        }
        confidence = Confidence.LOW if absent else Confidence.USUAL
        return Forecast(confidence, {}, found, absent, "", self.name, values["wait"])


def features_of(target: str, exams: Sequence[str], places: Sequence[str]) -> tuple[Feature, ...]:
    """Return the features of a target, with one for each exam and place that training has seen often enough."""
    return (WAIT if target == "wait" else DURATION) + one_of("exam", exams) + one_of("place", places)


def load(path: Path) -> WaitingModel:
    """Load the model of a folder after its hashes were checked.

    Raises:
        NotFound: There is none.
        BadInput: It was changed, or was made for other features.
    """
    folder = open_folder(path, NAME)
    table = folder.json_of("quantiles.json")
    targets = {}
    for target in TARGETS:
        features = features_of(target, table["exams"], table["places"])
        if names(features) != list(folder.toml["inputs"][target]):
            raise BadInput(
                "The model was made for other features than this version computes",
                where=str(path),
                todo="arcuate train waiting",
            )
        targets[target] = Target(
            boosting.load(folder.bytes_of(f"{target}.ubj")),
            features,
            float(table["widen"][target]),
            float(table["least"][target]),
        )
    ranges = {name: (float(low), float(high)) for name, (low, high) in table["ranges"].items()}
    return WaitingModel(targets, ranges, folder.name)


# Rules where no model answers: general figures, stated as such in the answer.
_WAIT = Quantiles(0.0, 15.0, 45.0)
_SPREAD = (0.55, 0.8, 1.15)
_SLOT = 30


def booked_rate(moment: Moment, why: str, model: ModelName | None = None) -> Forecast:
    """Return the rule that answers without a model: the slot's minutes for the duration, a general range for the wait.

    The wait of somebody who is here is never stated shorter than what was waited already.
    """
    minutes = moment.visit.minutes or _SLOT
    duration = Quantiles(*(minutes * share for share in _SPREAD))
    waited = 0.0
    if moment.visit.arrived is not None:
        waited = max(0.0, (moment.decided_at - moment.visit.arrived).total_seconds() / 60)
    wait = Quantiles(max(_WAIT.p10, waited), max(_WAIT.p50, waited), max(_WAIT.p90, waited + minutes))
    return Forecast(Confidence.FALLBACK, {}, {"wait": wait, "duration": duration}, (), why, model)
