"""Calibration, linear in log-odds.

risk = sigmoid(intercept + slope * margin). Because it is a straight line, each SHAP contribution
scales by the slope and the explanation of the calibrated risk stays exact; a bent curve (isotonic)
would leave a remainder that belongs to no feature. Platt 1999; Cox 1958 for the test of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A straight line from the booster's margin to the calibrated log-odds.

    ``sites`` holds what is added to the intercept at each site that had enough outcomes, shrunk
    towards 0, which every other site gets. ``spread`` is the standard deviation between sites.
    """

    intercept: float = 0.0
    slope: float = 1.0
    sites: Mapping[str, float] = field(default_factory=dict)
    spread: float = 0.0

    def log_odds(self, margin: FloatArray, site: npt.NDArray[np.object_] | None = None) -> FloatArray:
        """(rows,) calibrated log-odds. ``site`` names each row's; None or unknown: the overall line."""
        return self.intercept + self.slope * margin + self.shift(site, len(margin))

    def shift(self, site: npt.NDArray[np.object_] | None, size: int) -> FloatArray:
        """(rows,) what each row's site adds. It belongs to the base value of an explanation."""
        if site is None or not self.sites:
            return np.zeros(size)
        return np.array([self.sites.get(name, 0.0) for name in site], dtype=np.float64)


def sigmoid(log_odds: FloatArray) -> FloatArray:
    """Log-odds to probability; no overflow at either end.

    >>> sigmoid(np.array([0.0, -800.0]))
    array([0.5, 0. ])
    """
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)


def fit(margin: FloatArray, outcome: FloatArray) -> Calibration:
    """The maximum-likelihood line, by Newton's method. ``outcome`` is 0 or 1.

    Raises NotEnoughDataError where no line is determined: the outcome or the margin has one value
    only, or a margin parts the outcomes without error.

    >>> margin = np.repeat([-2.0, 0.0, 2.0], 1000)
    >>> outcome = np.concatenate([np.arange(1000) < n for n in (269, 500, 731)]).astype(float)
    >>> line = fit(margin, outcome)
    >>> abs(round(line.intercept, 3)), round(line.slope, 3)
    (0.0, 0.5)
    """
    if len(np.unique(outcome)) < 2:
        raise NotEnoughDataError("calibration needs both outcomes among the tuning rows")
    centre, spread = margin.mean(), margin.std()
    if spread == 0:
        raise NotEnoughDataError("calibration needs margins that differ among the tuning rows")
    design = np.column_stack([np.ones_like(margin), (margin - centre) / spread])
    sign = 2 * outcome - 1

    def loss(line: FloatArray) -> float:
        return float(np.logaddexp(0, -sign * (design @ line)).mean())

    # From a flat line, and never uphill: a full step from a far line overshoots for good.
    line = np.array([np.log(outcome.mean() / (1 - outcome.mean())), 0.0])
    for _ in range(50):
        risk = sigmoid(design @ line)
        gradient = design.T @ (outcome - risk)
        hessian = (design * (risk * (1 - risk))[:, None]).T @ design
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            break
        while np.abs(step).max() > 1e-10 and loss(line + step) > loss(line):
            step /= 2
        line += step
        if np.abs(step).max() <= 1e-10:
            slope = line[1] / spread
            return Calibration(intercept=float(line[0] - slope * centre), slope=float(slope))
    raise NotEnoughDataError("calibration finds no line: a margin parts the outcomes without error")
