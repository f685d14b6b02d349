"""XGBoost as this room uses it: a bag of small boosters for chances, one booster for quantiles; kept as UBJ bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xgboost as xgb

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVELS = (0.1, 0.5, 0.9)
_MEMBERS = 5
_MOST_ROUNDS = 300
_MOST_QUANTILE_ROUNDS = 150
"""Three trees a round: this keeps a model under a megabyte."""
_PATIENCE = 25


def matrix(rows: Sequence[dict[str, float]], names: Sequence[str]) -> Floats:
    """Return feature rows as an array (n, features); not-a-number = not known."""
    return np.array([[row[name] for name in names] for row in rows], float).reshape(len(rows), len(names))


def _data(x: Floats, y: Floats | None = None) -> xgb.DMatrix:
    return xgb.DMatrix(x, label=y, missing=float("nan"), nthread=1)


@dataclass(frozen=True)
class Bag:
    """Boosters of the same kind, each trained on its own draw of patients: their spread is part of the uncertainty."""

    members: tuple[xgb.Booster, ...]

    def margins(self, x: Floats) -> Floats:
        """Return the log odds of each member, (n, members)."""
        data = _data(x)
        return np.stack([m.predict(data, output_margin=True).astype(float) for m in self.members], axis=1)

    def contributions(self, x: Floats) -> Floats:
        """Return each member's contributions to the log odds, (members, n, features + 1).

        The last column is the common part; the sum over the columns is the member's log odds.
        """
        data = _data(x)
        return np.stack([m.predict(data, pred_contribs=True).astype(float) for m in self.members])

    def to_bytes(self) -> list[bytes]:
        """Return each member as UBJ."""
        return [bytes(m.save_raw("ubj")) for m in self.members]


def load(raw: bytearray) -> xgb.Booster:
    """Return a booster from UBJ bytes."""
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(raw)
    return booster


def fit_bag(x: Floats, y: Floats, groups: Ints, seed: int, rising: Sequence[bool]) -> Bag:
    """Train a bag; the number of trees is found on the last fifth of the rows, which must be in order of time.

    Args:
        groups: Patient of each row: whole patients are drawn.
        rising: For each feature whether the chance may only rise with it.
    """
    params = {
        "objective": "binary:logistic", "eta": 0.08, "max_depth": 3, "min_child_weight": 15.0, "subsample": 0.8,
        "colsample_bytree": 0.7, "lambda": 5.0, "tree_method": "hist", "nthread": 1, "seed": seed,
        "monotone_constraints": tuple(int(r) for r in rising),
    }  # fmt: skip
    rounds = _rounds(params, x, y, "logloss", _MOST_ROUNDS)
    source = np.random.default_rng(seed)
    by_group = _parts(groups)
    keys = sorted(by_group)
    members = []
    for number in range(_MEMBERS):
        drawn = np.concatenate([by_group[keys[i]] for i in source.integers(0, len(keys), len(keys))])
        members.append(xgb.train({**params, "seed": seed + number}, _data(x[drawn], y[drawn]), rounds))
    return Bag(tuple(members))


def fit_quantiles(x: Floats, y: Floats, seed: int) -> xgb.Booster:
    """Train one booster for the 10, 50 and 90 % quantiles; rows must be in order of time."""
    params = {
        "objective": "reg:quantileerror", "quantile_alpha": list(LEVELS), "eta": 0.15, "max_depth": 4, "min_child_weight": 15.0,
        "subsample": 0.8, "colsample_bytree": 0.8, "lambda": 2.0, "tree_method": "hist", "nthread": 1, "seed": seed,
    }  # fmt: skip
    return xgb.train(params, _data(x, y), _rounds(params, x, y, "quantile", _MOST_QUANTILE_ROUNDS))


def quantiles(booster: xgb.Booster, x: Floats) -> Floats:
    """Return minutes (n, 3) at 10, 50 and 90 %, sorted in each row so that they never cross."""
    return np.sort(booster.predict(_data(x)).astype(float).reshape(len(x), len(LEVELS)), axis=1)


def _rounds(params: dict[str, object], x: Floats, y: Floats, metric: str, most: int) -> int:
    """Return the number of rounds that serves the last fifth of the rows best."""
    cut = len(x) * 4 // 5
    trained = xgb.train(
        {**params, "eval_metric": metric}, _data(x[:cut], y[:cut]), most, evals=[(_data(x[cut:], y[cut:]), "later")],
        early_stopping_rounds=_PATIENCE, verbose_eval=False,
    )  # fmt: skip
    return int(trained.best_iteration) + 1


def _parts(groups: Ints) -> dict[int, Ints]:
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    return {int(groups[part[0]]): part for part in np.split(order, starts[1:])}
