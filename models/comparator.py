"""What a version is measured against: bedside scores and the majority, as risks.

A score ranks patients; to stand beside a model in calibration and net benefit it needs a risk. It gets
the best that a straight line in log-odds can give it, learned from the rows that taught the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Mart, Rows
from data.errors import NotEnoughDataError
from models import calibration, series
from models.calibration import Calibration, sigmoid
from models.scores import SCORES

FloatArray = npt.NDArray[np.float64]
MAJORITY = "majority"
"""Everybody gets the share with the outcome."""


@dataclass(frozen=True, kw_only=True)
class Comparator:
    """``line`` from the score to log-odds, ``missing`` the log-odds of a row without a score."""

    name: str
    line: Calibration
    missing: float

    def risk(self, score: FloatArray) -> FloatArray:
        """(rows,) probabilities."""
        known = np.where(np.isnan(score), 0.0, score)
        return sigmoid(np.where(np.isnan(score), self.missing, self.line.log_odds(known)))


def score(
    name: str, rows: Mapping[str, npt.NDArray[Any]], mart: Mart, lookback: int | None
) -> FloatArray:
    """(rows,) the score; of a series, on the values last known. ``majority`` has none: NaN."""
    if name == MAJORITY:
        return np.full(len(next(iter(rows.values()))), np.nan)
    found = SCORES[name]
    known: Rows = dict(rows)
    if lookback is not None:
        wanted = [column for column in (*found.reads, *found.optional) if column in rows]
        known = series.last_known(known, wanted, mart.order or "", lookback)
    return found.of(known)


def fit(name: str, scores: FloatArray, outcome: FloatArray) -> Comparator:
    """A line on the rows that have a score, and the share with the outcome among the others.

    Where the score tells nothing apart everybody gets the share with the outcome.
    """
    known = ~np.isnan(scores)
    try:
        line = calibration.fit(scores[known], outcome[known])
    except NotEnoughDataError:
        line = Calibration(intercept=_log_odds(outcome), slope=0.0)
    return Comparator(
        name=name, line=line, missing=_log_odds(outcome if known.all() else outcome[~known])
    )


def _log_odds(outcome: FloatArray) -> float:
    """Of the share with the outcome; half an event is added to either side, so that it is finite."""
    return float(np.log((outcome.sum() + 0.5) / (len(outcome) - outcome.sum() + 0.5)))
