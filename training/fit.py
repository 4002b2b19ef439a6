"""Fit the trees and the logistic regression beside them, on the very same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from data.errors import NotEnoughDataError
from models.features import FeatureMap, Matrix
from models.linear import Logistic
from models.spec import Boosting
from training.pair import Pair

FloatArray = npt.NDArray[np.float64]
FEWEST_EVENTS = 20
BUDGET = 1 << 30
"""Bytes of a matrix that is held in memory. XGBoost needs about as much again for its own copy."""
MOST_LOGISTIC = 250_000
WITHHELD_COPIES = 0.3
"""Share of the training rows that are repeated with inputs withheld."""
Progress = Callable[[int], None]


class _Report(xgb.callback.TrainingCallback):  # type: ignore[misc]  # it ships no types
    """Tells a person at a terminal how many trees stand."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress

    def after_iteration(self, model: object, epoch: int, evals_log: object) -> bool:
        del model, evals_log
        self._progress(epoch + 1)
        return False


def with_gaps(
    matrix: Matrix, features: FeatureMap, *, rng: np.random.Generator
) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """The rows, and copies of some of them from which inputs are withheld; and of which row each is.

    A survey's chart says yes or no to every chronic condition; a caller may not know them at all.
    Trees that never saw a gap send it down an arbitrary branch, as if the patient had the disease.
    The copies teach them what a gap means: half of them lose the whole history, and each other
    feature is withheld from a tenth.
    """
    rows = rng.choice(len(matrix), int(WITHHELD_COPIES * len(matrix)), replace=False)
    copies = matrix[rows]
    no_history = rng.random(len(rows)) < 0.5
    for feature, start in zip(features.features, features.starts, strict=True):
        known = {features.mart[name].available for name in feature.reads}
        withheld = no_history if known == {"history"} else rng.random(len(rows)) < 0.1
        copies[withheld, start : start + len(feature.parts)] = np.nan
    return np.vstack([matrix, copies]), np.concatenate([np.arange(len(matrix)), rows])


def hold(**pairs: Pair) -> None:
    """Raises NotEnoughDataError naming the part with fewer than ``FEWEST_EVENTS`` of one outcome."""
    for name, pair in pairs.items():
        fewest = int(min(pair.outcome.sum(), len(pair) - pair.outcome.sum()))
        if fewest < FEWEST_EVENTS:
            raise NotEnoughDataError(
                f"the {name} rows hold {fewest} of the rarer outcome; {FEWEST_EVENTS} are needed"
            )


def parameters(
    settings: Boosting, *, ordinal: bool, monotone: Sequence[int] = (), seed: int, threads: int = 2
) -> dict[str, Any]:
    """What XGBoost is told. An ordinal model's trees learn how urgent the level is, by least squares."""
    return {
        "objective": "reg:squarederror" if ordinal else "binary:logistic",
        "eval_metric": "rmse" if ordinal else "logloss",
        "tree_method": "hist",
        "max_depth": settings.max_depth,
        "learning_rate": settings.learning_rate,
        "min_child_weight": settings.min_child_weight,
        "subsample": settings.subsample,
        "colsample_bytree": settings.colsample_bytree,
        "reg_lambda": settings.reg_lambda,
        "num_parallel_tree": settings.trees_a_round,
        **({"monotone_constraints": tuple(monotone)} if any(monotone) else {}),
        "seed": seed,
        "nthread": threads,
    }


def boosted(
    train: Pair,
    tune: Pair,
    *,
    settings: Boosting,
    ordinal: bool = False,
    monotone: Sequence[int] = (),
    seed: int,
    budget: int = BUDGET,
    threads: int = 2,
    progress: Progress | None = None,
) -> xgb.Booster:
    """Trees stopped early on the tuning rows. ``monotone``: 1, -1 or 0 for each column of the matrix.

    Raises NotEnoughDataError where either set has fewer than ``FEWEST_EVENTS`` of one outcome.
    """
    hold(training=train, tuning=tune)
    learned = train.dmatrix(budget=budget)
    booster = xgb.train(
        parameters(settings, ordinal=ordinal, monotone=monotone, seed=seed, threads=threads),
        learned,
        settings.rounds,
        evals=[(tune.dmatrix(budget=budget, like=learned), "tune")],
        early_stopping_rounds=settings.early_stopping_rounds,
        verbose_eval=False,
        callbacks=[_Report(progress)] if progress else None,
    )
    return booster[: booster.best_iteration + 1]


def margins(learner: xgb.Booster | Logistic, pair: Pair) -> FloatArray:
    """(rows,) what a learner says in log-odds, before any calibration."""

    def said(matrix: Matrix) -> Any:
        if isinstance(learner, Logistic):
            return learner.log_odds(matrix)
        return learner.inplace_predict(matrix, predict_type="margin")

    return np.concatenate([np.empty(0), *(said(matrix) for matrix, _ in pair.blocks())])


def logistic(train: Pair, *, seed: int) -> Logistic:
    """Penalised logistic regression on imputed, standardised columns.

    scikit-learn's, by Newton's method: the rows far outnumber the columns. It learns from
    ``MOST_LOGISTIC`` rows at most, drawn at random: a few hundred coefficients gain nothing from more.
    """
    from sklearn.linear_model import LogisticRegression

    matrix, outcome = train.sample(MOST_LOGISTIC, seed=seed)
    missing = np.isnan(matrix)
    known = ~missing.all(axis=0)
    medians = np.zeros(matrix.shape[1])
    medians[known] = np.nanmedian(matrix[:, known], axis=0)
    spread = np.where(missing, 0.0, matrix - medians).std(axis=0)
    scales = np.where(spread > 0, spread, 1.0)
    # One-hot columns of one feature are missing together: one indicator of each pattern will do.
    patterns: dict[bytes, int] = {}
    for position in np.flatnonzero(missing.any(axis=0) & known):
        patterns.setdefault(missing[:, position].tobytes(), int(position))
    indicators = tuple(patterns.values())
    design = Logistic.design(matrix, tuple(medians), tuple(scales), indicators)
    model = LogisticRegression(solver="newton-cholesky", random_state=seed).fit(design, outcome)
    return Logistic(
        medians=tuple(map(float, medians)),
        scales=tuple(map(float, scales)),
        indicators=indicators,
        coefficients=tuple(map(float, model.coef_[0])),
        intercept=float(model.intercept_[0]),
        means=tuple(map(float, design.mean(axis=0))),
    )
