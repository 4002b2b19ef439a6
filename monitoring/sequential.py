"""Tests that may be looked at every month, and still alarm falsely as rarely as they promise.

**Testing by betting** (Waudby-Smith & Ramdas 2024, J R Stat Soc B 86:1). Somebody bets that more events
come than ``u``, the most that is tolerated of a patient: the capital is multiplied by

    1 + (r - 1) (y - u) / (1 - u),      r > 1,

which is fair or worse for the better as long as P(y = 1) <= u. Whenever one looks, the chance that
the capital ever reached c is at most 1 / c (Ville 1939, Étude critique de la notion de collectif). With
r < 1 the same bets on fewer events than ``u``. Several r are tried with a share of the capital each.

**A change in June.** A bet that began in January has lost by then what it would win. So every look of
the year begins a bet of its own, and what counts is their sum (Shin, Ramdas & Rinaldo 2023,
E-detectors): the chance that it reaches c within L looks is at most L / c. Watched for longer, bets of
the year before stand beside those of a year, and that may be twice as much; ``benchmarks/estimates.py``
finds it under half of it.

**Several rows of one patient** rise and fall together: bet on one after the other they would promise far
more than they hold. Their log-capital is divided by how much more their sums vary than those of single
rows would (quasi-likelihood: McCullagh & Nelder 1989, Generalized Linear Models, ch. 9). That holds for
many patients, no longer for any number; of a row a patient it changes nothing.

Log-capital adds over patients, so that a window is a vector of sums, and a year a few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MORE = (1.1, 1.25, 1.5, 2.0, 3.0)
"""How many times as many events as tolerated are bet on."""
FEWER = (0.9, 0.8, 0.65, 0.5, 0.33)
STAKES = (0.1, 0.25, 0.5, 0.75)
"""Shares of the capital that are bet on a mean below 0."""
CERTAIN = 0.999
"""A patient of whom nearly any outcome is tolerated tells nothing."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``value``: log10 of the capital over what it was. ``start``: the look whose bet won most."""

    value: float
    start: int


def capital(outcome: FloatArray, bound: FloatArray, *, more: bool) -> FloatArray:
    """(bets,) the log-capital that a window's patients (n,) leave of bets against ``bound`` (n,).

    ``more``: that more events come than ``bound``, the chance of one that is tolerated; else fewer.

    >>> bet = capital(np.array([1.0, 0.0]), np.array([0.5, 0.5]), more=True)
    >>> round(float(np.exp(bet[2])), 3)  # r = 1.5: an event 1.5, none 0.5
    0.75
    """
    known = (bound > 0) & (bound < CERTAIN)
    y, u = outcome[known], bound[known]
    sums = []
    for r in MORE if more else FEWER:
        # Nobody has a chance of more than 1: of a patient near it the bet is the smaller.
        ratio = np.minimum(r, CERTAIN / u) if more else r
        sums.append(np.log1p((ratio - 1) * (y - u) / (1 - u)).sum())
    return np.array(sums)


def below_zero(gain: FloatArray, *, most: float, stakes: Sequence[float] = STAKES) -> FloatArray:
    """(bets,) the log-capital of bets that the mean of ``gain`` (n,), never over ``most``, is below 0.

    >>> round(float(np.exp(below_zero(np.array([-1.0, 1.0]), most=1.0)[2])), 4)  # 1.5 times 0.5
    0.75
    """
    return np.array([np.log1p(-stake / most * gain).sum() for stake in stakes])


def evidence(windows: Sequence[FloatArray], *, looks: int, spread: float = 1.0) -> Evidence:
    """What the bets of the last ``looks`` windows, oldest first, have won by now.

    ``spread``: of several rows a patient, :func:`models.metrics.design_effect` of them all.

    Compare ``value`` with log10(streams / alpha), where alpha is the chance of a false alarm in a year
    over all streams.

    >>> evidence([np.log([1.0]), np.log([40.0])], looks=2).start
    0
    >>> round(evidence([np.log([0.1]), np.log([40.0])], looks=2).value, 3)  # (4 + 40) / 2
    1.342
    """
    recent = list(windows)[-looks:]
    if not recent:
        return Evidence(value=0.0, start=0)
    # Of the bet that began at each look, by now: the sum of the windows since, the mean over the bets.
    since = np.cumsum(np.stack(recent)[::-1], axis=0)[::-1] / max(1.0, spread)
    waiting = looks - len(recent)
    # In logarithms: a year of many patients may lose more than a number can say.
    won = _log_sum(since) - np.log(since.shape[1])
    begun = float(_log_sum(won))
    total = np.logaddexp(begun, np.log(waiting)) if waiting else begun
    return Evidence(
        value=float((total - np.log(looks)) / np.log(10)),
        start=len(windows) - len(recent) + int(np.argmax(won)),
    )


def _log_sum(logs: FloatArray) -> FloatArray:
    """Logarithm of the sum over the last axis."""
    top = logs.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logs - top).sum(axis=-1)))
