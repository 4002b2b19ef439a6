"""Ordered levels from one margin: the proportional-odds model, and cut-points at the least cost.

logit P(level k or more urgent) = log-odds of the model's event + offset k. All levels share the
margin's slope, so that the contributions that explain one of these risks explain each of them.

Sources: McCullagh 1980, J R Stat Soc B 42:109 (the proportional-odds model); Cohen 1968, Psychol Bull
70:213 (weighted kappa); Dinkelbach 1967, Manage Sci 13:492 (the least of a ratio of sums).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError
from models import calibration
from models.calibration import Calibration, sigmoid
from models.sites import intercept

FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Ordinal:
    """``offsets`` (levels - 1,) rise, from the most urgent level on; 0 at the model's event.

    ``kappa_cuts``: the log-odds that agree best with the tuning rows, beside which the cut-points in
    use are shown; those weigh under-triage.
    """

    offsets: tuple[float, ...]
    kappa_cuts: tuple[float, ...] = ()

    def at_most(self, log_odds: FloatArray) -> FloatArray:
        """(rows, levels) chance of each level or a more urgent one; the last column is 1."""
        found = sigmoid(log_odds[:, None] + np.asarray(self.offsets))
        return np.hstack([found, np.ones((len(log_odds), 1))])

    def probabilities(self, log_odds: FloatArray) -> FloatArray:
        """(rows, levels) chance of each level, the most urgent first; a row adds up to 1.

        >>> Ordinal(offsets=(-1.0, 0.0, 1.0)).probabilities(np.array([0.0])).round(3)
        array([[0.269, 0.231, 0.231, 0.269]])
        """
        return np.diff(self.at_most(log_odds), axis=1, prepend=0.0)


def fit(
    margin: FloatArray, level: FloatArray, *, levels: int, urgent: int
) -> tuple[Calibration, Ordinal]:
    """The line of the event, a level of ``urgent`` or more urgent, and the offsets of the others.

    The slope is the event's own, so that its risk is calibrated as any other model's; each offset makes
    the expected number of its level or a more urgent one the number observed. ``level``: 1 to
    ``levels``, 1 the most urgent. Raises NotEnoughDataError where a level has too few rows for that.
    """
    line = calibration.fit(margin, (level <= urgent).astype(np.float64))
    log_odds = line.log_odds(margin)
    offsets = []
    for cut in range(1, levels):
        reached = (level <= cut).astype(np.float64)
        try:
            offsets.append(intercept(log_odds, reached).value if cut != urgent else 0.0)
        except NotEnoughDataError as error:
            raise NotEnoughDataError(f"level {cut} or more urgent: {error}") from None
    return line, Ordinal(offsets=tuple(offsets))


def cost(levels: int, under_weight: float = 1.0, *, urgent: int = 0) -> FloatArray:
    """(true level, given level): the levels missed, squared; times the weight where a patient of level
    ``urgent`` or more urgent is given a less urgent one than the true.

    >>> cost(3, 8.0, urgent=1)
    array([[ 0.,  8., 32.],
           [ 1.,  0.,  1.],
           [ 4.,  1.,  0.]])
    """
    true, given = np.indices((levels, levels))
    under = (given > true) & (true < urgent)
    return np.asarray((given - true) ** 2 * np.where(under, under_weight, 1.0))


def cuts(log_odds: FloatArray, level: FloatArray, costs: FloatArray) -> FloatArray:
    """(levels - 1,) rising log-odds from which on the next more urgent level is given; exact.

    Rows are sorted once; then the least cost of any rising cut-points is a running minimum a level.
    A cut-point lies midway between two rows. A level that is never worth giving gets an empty range:
    its two cut-points are neighbouring floats.

    >>> cuts(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]), np.array([3.0, 3, 2, 2, 1, 1]), cost(3))
    array([-0.5,  1.5])
    """
    values, place = np.unique(log_odds, return_inverse=True)
    levels = len(costs)
    by_value = np.zeros((levels, len(values)))  # of giving each level, the least urgent first
    for given in range(levels):
        each = costs[level.astype(int) - 1, levels - 1 - given]
        by_value[given] = np.bincount(place, each, minlength=len(values))
    running = np.hstack([np.zeros((levels, 1)), np.cumsum(by_value, axis=1)])
    best, came = running[0], []
    for given in range(1, levels):
        gain = best - running[given]
        least = np.minimum.accumulate(gain)
        came.append(np.maximum.accumulate(np.where(gain <= least, np.arange(len(gain)), 0)))
        best = least + running[given]
    position, found = len(values), []
    for origin in reversed(came):
        position = int(origin[position])
        found.append(position)
    edges = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    rising = edges[found[::-1]]
    for index in range(1, len(rising)):
        rising[index] = max(rising[index], np.nextafter(rising[index - 1], np.inf))
    return np.asarray(rising)


def kappa_cuts(log_odds: FloatArray, level: FloatArray, *, levels: int) -> FloatArray:
    """The cut-points of the greatest quadratic kappa on these rows.

    Observed and chance disagreement are both sums over rows, so that their ratio is brought to its
    least by a few rounds of :func:`cuts`, each with the ratio reached so far as the exchange rate.
    """
    share = np.bincount(level.astype(int), minlength=levels + 1)[1:] / len(level)
    squares = cost(levels)
    chance = np.broadcast_to(share @ squares, (levels, levels))  # of a given level
    found, ratio = cuts(log_odds, level, squares), 1.0
    for _ in range(50):
        reached = 1 - kappa(level, assigned(log_odds, found, levels=levels), levels=levels)
        if reached >= ratio:
            break
        ratio = reached
        found = cuts(log_odds, level, squares - ratio * chance)
    return found


def kappa(level: FloatArray, given: npt.ArrayLike, *, levels: int) -> float:
    """Quadratic-weighted kappa: 1 is agreement, 0 what chance gives; NaN where either never varies.

    >>> kappa(np.array([1.0, 2, 3, 3]), [1, 2, 3, 2], levels=3)
    0.8
    """
    table = np.zeros((levels, levels))
    np.add.at(table, (level.astype(int) - 1, np.asarray(given).astype(int) - 1), 1.0)
    squares = cost(levels)
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(table.sum(), 1)
    apart = float((squares * chance).sum())
    return 1 - float((squares * table).sum()) / apart if apart else float("nan")


def assigned(log_odds: FloatArray, rising: Sequence[float] | FloatArray, *, levels: int) -> Ints:
    """(rows,) the level that the cut-points give, 1 the most urgent."""
    return np.asarray(levels - np.searchsorted(rising, log_odds, side="right"))
