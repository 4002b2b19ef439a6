"""How good the answers will prove to be, before any outcome is known.

**The estimate** takes each risk for what it says: of a hundred patients with 0.3 thirty will have the
outcome (confidence-based performance estimation). Taken alone it could never doubt the calibration.
So the risks are first recalibrated by what became of the version's own answers of the past year, with
an intercept and a slope, and an intercept of each site drawn towards them; observed/expected, slope
and net benefit are then foreseen as well.

**The interval** is where the truth will lie, once the outcomes are known. It holds what is not sure of
the line; what practice, seasons and hospitals move from one month to the next, as they did in the past
months; and the chance of the very patients of the window. It knows nothing of a change that has no
trace in the past outcomes: when the truth leaves it, that is news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models import sites
from models.calibration import sigmoid
from models.spec import ModelSpec
from monitoring.answers import Answers
from monitoring.foreseen import MEASURES, Line, foreseen, logit

FloatArray = npt.NDArray[np.float64]

FEWEST = 100
"""Answers that count, below which an interval would hold everything."""
FEWEST_EVENTS = 50
"""Of the rarer outcome in the past year, to recalibrate by."""
BETWEEN = (0.1, 0.05)
"""Standard deviation of intercept and slope from one month to the next, before any is seen."""
WORTH = 4
"""How many past months that is worth."""
USUAL = {"intercept": 0.15, "slope": 0.1}
"""Standard errors where the promotion tells none."""
_WIDTH, _REACH = 0.05, 12.0
_CELLS = int(2 * _REACH / _WIDTH)
_LEAST_BETWEEN = 0.02
_LEAST = 1e-9
_SHORT = np.timedelta64(10, "D")


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """What became of some answers, in cells of log-odds; it adds up, and no row is left of it.

    ``rows``, ``events`` and ``log_odds`` (their sum) have the shape (sites + 1, cells), the last row of
    no site. ``alone`` and ``together``: squares of what was left unexplained of each row, and of each
    patient's sum.
    """

    sites: tuple[str, ...]
    rows: FloatArray
    events: FloatArray
    log_odds: FloatArray
    alone: float
    together: float


def tally(answers: Answers) -> Tally:
    """Of the answers whose outcome is known and that no clinician was shown."""
    known = answers.take(answers.labelled & ~answers.shown)
    x = np.clip(logit(known.risk), -_REACH, _REACH - _WIDTH)
    shape = (len(known.sites) + 1, _CELLS)
    site = np.where(known.site < 0, len(known.sites), known.site)
    code = site * _CELLS + ((x + _REACH) / _WIDTH).astype(np.intp)

    def summed(weight: FloatArray | None) -> FloatArray:
        return np.bincount(code, weight, minlength=shape[0] * _CELLS).reshape(shape).astype(float)

    y, risk = known.outcome, known.risk
    left = y - risk * (y.sum() / risk.sum() if risk.sum() else 0.0)
    whose = pd.factorize(known.patient)[0]
    return Tally(
        sites=known.sites,
        rows=summed(None),
        events=summed(y),
        log_odds=summed(x),
        alone=float(left @ left),
        together=float(np.square(np.bincount(whose, left)).sum()),
    )


def tallies(past: Answers, like: Answers) -> list[Tally]:
    """A tally of each month of ``past``, oldest first; of each week where ``like`` is as short."""
    short = len(like) > 0 and np.ptp(like.at) < _SHORT
    of = past.at.astype("datetime64[W]" if short else "datetime64[M]")
    return [tally(past.take(of == one)) for one in np.unique(of)]


def estimate(
    answers: Answers,
    past: Answers,
    spec: ModelSpec,
    at_promotion: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """``{n, reason, basis}`` and each of ``MEASURES`` as ``{value, low, high}``, 95 %.

    Of the answers that count, known or not. ``past``: earlier answers, of which those with an outcome
    that no clinician was shown teach the calibration; ``at_promotion`` does where they are too few.
    """
    return from_tallies(answers, tallies(past, answers), spec, at_promotion, seed=seed)


def from_tallies(
    answers: Answers,
    past: Sequence[Tally],
    spec: ModelSpec,
    at_promotion: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """:func:`estimate` by a past that is counted already, a tally a window."""
    counted = answers.take(answers.counts & ~np.isnan(answers.risk))
    nothing = dict.fromkeys(MEASURES)
    if len(counted) < FEWEST:
        reason = f"{len(counted)} answers count; at least {FEWEST} are needed"
        return {"n": len(counted), "reason": reason, "basis": None, **nothing}
    line = learned(
        past,
        at_promotion,
        centre=float(logit(counted.risk).mean()),
        repeated=bool(pd.Series(counted.patient).duplicated().any()),
    )
    found = foreseen(
        counted.risk,
        counted.site,
        counted.sites,
        line,
        threshold=spec.alert_at,
        rng=np.random.default_rng(seed),
    )
    return {"n": len(counted), "reason": None, "basis": line.basis, **found}


def learned(
    past: Sequence[Tally],
    at_promotion: Mapping[str, Any] | None,
    *,
    centre: float = 0.0,
    repeated: bool = False,
) -> Line:
    """The line of the past year's outcomes; without enough of them the one of the promotion.

    ``centre``: the mean log-odds of the window, about which the promotion's slope turns. ``repeated``:
    its patients have several rows.
    """
    of_site = _by_site(past)
    rows, events, x = _cells(sum(of_site.values(), np.zeros((3, _CELLS))))
    n, came = rows.sum(), events.sum()
    if min(came, n - came) < FEWEST_EVENTS:
        return _promoted(at_promotion, centre=centre, repeated=repeated)
    alone, together = (sum(getattr(one, name) for one in past) for name in ("alone", "together"))
    spread = max(1.0, together / alone) if repeated and alone else 1.0
    mean, covariance = logistic(x, events, rows)
    shifts, unknown = _sites(of_site, mean, spread)
    between, middle, worth = _between(past, mean, shifts, spread)
    # Months that differ are so many draws of the line, however many patients each has.
    turned = np.array([[1.0, -middle], [0.0, 1.0]])
    drawn = turned @ np.diag(between**2 / worth) @ turned.T
    return Line(
        mean=mean,
        covariance=covariance * spread + drawn,
        between=between,
        centre=middle,
        sites=shifts,
        unknown=unknown,
        spread=spread,
        basis=f"{n:,.0f} answers of the past year whose outcome is known",
    )


def _promoted(at_promotion: Mapping[str, Any] | None, *, centre: float, repeated: bool) -> Line:
    told = at_promotion or {}
    line, spans = told.get("calibration") or {}, told.get("intervals") or {}
    level, slope = line.get("intercept") or 0.0, line.get("slope") or 1.0
    errors = np.array([_error(spans.get(name), usual) for name, usual in USUAL.items()])
    # The intercept of the promotion is at slope 1, so that its error is that at the middle.
    turned = np.array([[1.0, -centre], [0.0, 1.0]])
    independent = errors[0] ** 2 * (told.get("n") or 0) * (told.get("brier") or 0)
    return Line(
        mean=np.array([level + (1 - slope) * centre, slope]),
        covariance=turned @ np.diag(errors**2) @ turned.T,
        between=np.array(BETWEEN),
        centre=centre,
        sites={},
        unknown=0.0,
        spread=max(1.0, independent) if repeated else 1.0,
        basis="the calibration at promotion: too few outcomes of the past year are known",
    )


def _error(span: Mapping[str, float | None] | None, usual: float) -> float:
    """Standard error from a 95 % interval."""
    low, high = (span or {}).get("low"), (span or {}).get("high")
    return usual if low is None or high is None else (high - low) / (2 * 1.96)


def logistic(
    x: FloatArray, events: FloatArray, rows: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Maximum-likelihood intercept and slope on ``x`` (n,), and their covariance (inverse information).

    ``events`` (n,) of ``rows`` (n,), of one each without them.

    >>> mean, covariance = logistic(np.array([-1.0, 1.0]), np.array([25.0, 75.0]), np.full(2, 100.0))
    >>> abs(mean).round(3).tolist(), covariance.diagonal().round(4).tolist()
    ([0.0, 1.099], [0.0267, 0.0267])
    """
    rows = np.ones_like(x) if rows is None else rows
    beta, information = np.array([0.0, 1.0]), np.eye(2)
    for _ in range(25):
        risk = sigmoid(beta[0] + beta[1] * x)
        weight, left = rows * risk * (1 - risk), events - rows * risk
        cross = weight @ x
        # A ridge so slight that it shows only where the risk parts the outcomes without error.
        information = np.array([[weight.sum(), cross], [cross, weight @ x**2]]) + 1e-6 * np.eye(2)
        step = np.clip(np.linalg.solve(information, [left.sum(), left @ x]), -1, 1)
        beta = beta + step
        if np.abs(step).max() < 1e-10:
            break
    return beta, np.asarray(np.linalg.inv(information), dtype=np.float64)


def _by_site(past: Sequence[Tally]) -> dict[str, FloatArray]:
    """Rows, events and log-odds (3, cells) of each site, "" of none."""
    found: dict[str, FloatArray] = {}
    for one in past:
        for name, *counts in zip((*one.sites, ""), one.rows, one.events, one.log_odds, strict=True):
            found[name] = found.get(name, 0.0) + np.stack(counts)
    return found


def _cells(counts: FloatArray) -> FloatArray:
    """Rows, events and mean log-odds (3, k) of the cells in which there is anybody."""
    rows, events, log_odds = counts[:, counts[0] > 0]
    return np.stack([rows, events, log_odds / rows])


def _sites(
    of_site: Mapping[str, FloatArray], mean: FloatArray, spread: float
) -> tuple[dict[str, tuple[float, float]], float]:
    """Each site's intercept beside the line, drawn towards it, and its error; that of an unknown one."""
    found = {}
    for name, counts in of_site.items():
        rows, events, x = _cells(counts)
        rarer = min(events.sum(), (rows - events).sum())
        if name and rarer >= sites.FEWEST_EVENTS:
            value, error = _intercept(mean[0] + mean[1] * x, events, rows)
            found[name] = sites.Intercept(
                rows=int(rows.sum()),
                events=int(events.sum()),
                value=value,
                error=error * float(np.sqrt(spread)),
            )
    between = sites.spread(found)
    if between == 0:
        return {}, 0.0
    return {
        name: (sites.shrunk(one, between), between * one.error / float(np.hypot(between, one.error)))
        for name, one in found.items()
    }, between


def _intercept(log_odds: FloatArray, events: FloatArray, rows: FloatArray) -> tuple[float, float]:
    value, weight = 0.0, 1.0
    for _ in range(100):
        risk = sigmoid(log_odds + value)
        weight = float(rows @ (risk * (1 - risk)))
        step = float(np.clip((events - rows * risk).sum() / weight, -1, 1))
        value += step
        if abs(step) < 1e-10:
            break
    return value, weight**-0.5


def _between(
    past: Sequence[Tally], mean: FloatArray, shifts: Mapping[str, tuple[float, float]], spread: float
) -> tuple[FloatArray, float, int]:
    """How intercept and slope vary between windows, about which log-odds, and how many there were.

    By the method of moments (DerSimonian & Laird 1986) beside ``WORTH`` windows of ``BETWEEN``; each
    window's own is one step of the likelihood from the line.
    """
    windows = []
    for one in past:
        of_site = _by_site([one])
        parts = [(_cells(counts), shifts.get(name, (0.0, 0.0))[0]) for name, counts in of_site.items()]
        rows, events, x = np.concatenate([cells for cells, _ in parts], axis=1)
        moved = np.concatenate([np.full(cells.shape[1], shift) for cells, shift in parts])
        risk = sigmoid(mean[0] + mean[1] * x + moved)
        weight, left = rows * risk * (1 - risk), events - rows * risk
        if weight.sum() >= 1:
            windows.append((weight.sum(), weight @ x, weight @ x**2, left.sum(), left @ x))
    if not windows:  # the risk parts the outcomes without error
        return np.array(BETWEEN), 0.0, 1
    s0, s1, s2, g0, g1 = np.array(windows).T
    centre = float(s1.sum() / s0.sum())
    level = s0, g0 / s0
    about = np.maximum(s2 - 2 * centre * s1 + centre**2 * s0, _LEAST)
    tilt = about, (g1 - centre * g0) / about
    found = [
        (WORTH * usual**2 + max(0, len(s0) - 1) * _moments(weight / spread, value))
        / (WORTH + max(0, len(s0) - 1))
        for usual, (weight, value) in zip(BETWEEN, (level, tilt), strict=True)
    ]
    return np.sqrt(np.maximum(found, _LEAST_BETWEEN**2)), centre, len(s0)


def _moments(weight: FloatArray, value: FloatArray) -> float:
    """Variance between values whose own variances are 1 / ``weight``; it may come out below 0."""
    if len(value) < 2:
        return 0.0
    mean = (weight @ value) / weight.sum()
    scale = weight.sum() - (weight**2).sum() / weight.sum()
    return float((weight @ (value - mean) ** 2 - (len(value) - 1)) / scale)
