"""The utility of hourly alarms for sepsis, by the definition of the PhysioNet/CinC Challenge 2019.

An alarm pays from twelve hours before the onset of sepsis to three hours after it, most at six hours
before; silence costs ever more from there on. An alarm at any other time, or for a patient without
sepsis, costs a little. An hour more than three past the onset counts for nothing. Sums over hours and
patients are scaled so that 0 is never to alarm and 1 the best that any rule could do.

Throughout, ``series`` (n,) is a number for each stay, ``hour`` (n,) the number of each hour in it,
``label`` (n,) 0 or 1, as the challenge gives it: 1 from six hours before the onset. The onset is thus
the first labelled hour plus six, also where a stay opens with a label. The challenge counts rows; here
the hours count, which is the same wherever no hour is missing. An hour that is missing is in neither
the utility reached nor the best. Every function raises ValueError for a label that is missing, a
series that is not a whole number or unequal lengths.

Source: Reyna et al. 2020, Crit Care Med 48:210, figure 1 and the section on the utility score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.errors import NotEnoughDataError
from models import resample

Floats = npt.NDArray[np.float64]

EARLY, OPTIMAL, LATE = -12.0, -6.0, 3.0  # hours from the onset
MOST_TRUE_ALARM, LEAST_SILENCE, FALSE_ALARM, TRUE_SILENCE = 1.0, -2.0, -0.05, 0.0


@dataclass(frozen=True, kw_only=True)
class Utility:
    """``raw`` is the sum reached, ``best`` and ``inaction`` the sums of the best rule and of none."""

    raw: float
    best: float
    inaction: float

    @property
    def normalised(self) -> float:
        """(raw - inaction) / (best - inaction); NaN where nobody could be helped."""
        return float(_ratio(self.raw - self.inaction, self.best - self.inaction))


@dataclass(frozen=True, kw_only=True)
class PerPatient:
    """What alarms ``gained`` over inaction in each patient (p,), and what was ``possible`` (p,).

    The normalised utility of any set of patients is the ratio of the two sums.
    """

    gained: Floats
    possible: Floats

    @property
    def normalised(self) -> float:
        return float(_ratio(self.gained.sum(), self.possible.sum()))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A normalised utility with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The ``threshold`` of greatest utility: a risk at or above it alarms; infinite for never."""

    threshold: float
    normalised: float


def rewards(series: npt.ArrayLike, hour: npt.ArrayLike, label: npt.ArrayLike) -> tuple[Floats, Floats]:
    """What an alarm (n,) and what silence (n,) is worth in each hour.

    >>> alarm, silence = rewards([0] * 4, [1, 7, 13, 16], [0, 1, 1, 1])
    >>> alarm.round(2).tolist(), silence.round(2).tolist()
    ([0.0, 1.0, 0.33, 0.0], [0.0, 0.0, -1.33, -2.0])
    """
    code, hours, labels = np.asarray(series), np.asarray(hour, float), np.asarray(label, float)
    if not code.shape == hours.shape == labels.shape or code.ndim != 1:
        raise ValueError("series, hour and label must be one-dimensional and of equal length")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError(
            "label must be 0 or 1; rows whose label is missing are the caller's to leave out"
        )
    code = _coded(code)
    first = np.full(int(code.max(initial=-1)) + 1, np.inf)
    positive = labels == 1
    np.minimum.at(first, code[positive], hours[positive])
    since = hours - (first[code] - OPTIMAL)  # minus infinity without sepsis
    near, over = since >= EARLY, since > LATE
    alarm = np.interp(since, (EARLY, OPTIMAL, LATE), (0.0, MOST_TRUE_ALARM, 0.0))
    alarm = np.where(near, alarm, FALSE_ALARM)
    silence = np.interp(since, (OPTIMAL, LATE), (TRUE_SILENCE, LEAST_SILENCE))
    return alarm, np.where(over, TRUE_SILENCE, silence)


def utility(
    series: npt.ArrayLike, hour: npt.ArrayLike, label: npt.ArrayLike, alarm: npt.ArrayLike
) -> Utility:
    """The utility of the hours in which ``alarm`` (n,) is true.

    An alarm six hours ahead earns 1; the silence after it costs 2/9 more with every hour.

    >>> found = utility([0] * 10, range(1, 11), [0] * 6 + [1] * 4, [False] * 6 + [True] + [False] * 3)
    >>> round(found.raw, 3), round(found.best, 3), round(found.inaction, 3), round(found.normalised, 3)
    (-0.333, 5.833, -1.333, 0.14)
    """
    worth, silence = rewards(series, hour, label)
    return Utility(
        raw=float(np.where(_alarms(alarm, len(worth)), worth, silence).sum()),
        best=float(np.maximum(worth, silence).sum()),
        inaction=float(silence.sum()),
    )


def per_patient(
    series: npt.ArrayLike,
    hour: npt.ArrayLike,
    label: npt.ArrayLike,
    alarm: npt.ArrayLike,
    *,
    patient: npt.ArrayLike | None = None,
) -> PerPatient:
    """The same by patient, in the order of their numbers; ``patient`` (n,) is ``series`` by default.

    >>> per_patient([0, 0, 5, 5], [1, 2, 1, 2], [0, 0, 0, 1], [True, True, False, True]).gained
    array([-0.1,  1. ])
    """
    worth, silence = rewards(series, hour, label)
    code = _coded(np.asarray(series if patient is None else patient))
    if len(code) != len(worth):
        raise ValueError("patient must have one value for each row")
    gain = worth - silence
    return PerPatient(
        gained=_sums(code, np.where(_alarms(alarm, len(worth)), gain, 0.0)),
        possible=_sums(code, np.maximum(gain, 0.0)),
    )


def interval(of: PerPatient, *, bootstrap: int = 1000, seed: int = 0) -> Estimate:
    """The normalised utility with its 95 % percentile interval, resampled by patient.

    Raises NotEnoughDataError without patients. Source: as in ``models.metrics``.

    >>> interval(PerPatient(gained=np.array([1.0] * 50), possible=np.array([2.0] * 50)))
    Estimate(value=0.5, low=0.5, high=0.5)
    """
    if not len(of.gained):
        raise NotEnoughDataError("no patients to measure the utility on")
    samples = np.empty(bootstrap)
    for some, drawn in resample.draws(np.arange(len(of.gained)), bootstrap, seed):
        samples[some] = _ratio(drawn @ of.gained, drawn @ of.possible)
    low, high = resample.interval(samples, of.normalised)
    return Estimate(value=of.normalised, low=low, high=high)


def best_threshold(
    series: npt.ArrayLike, hour: npt.ArrayLike, label: npt.ArrayLike, risk: npt.ArrayLike
) -> Choice:
    """The threshold on ``risk`` (n,) that gives these rows the greatest utility: one of the risks.

    What an alarm gains over silence adds up over rows, so that a running sum by falling risk tries
    every threshold. Of equals the highest is taken, which alarms least.

    >>> found = best_threshold([0, 0, 1, 1], [1, 2, 1, 2], [0, 1, 0, 0], [0.2, 0.9, 0.1, 0.4])
    >>> found.threshold, round(found.normalised, 3)
    (0.2, 0.973)
    """
    worth, silence = rewards(series, hour, label)
    risks = np.asarray(risk, dtype=float)
    if risks.shape != worth.shape or np.isnan(risks).any():
        raise ValueError("risk must have one value for each row")
    gain = worth - silence
    order = np.argsort(-risks, kind="stable")
    last = np.flatnonzero(np.diff(risks[order], append=-np.inf))  # equal risks alarm together
    reached = np.concatenate([[0.0], np.cumsum(gain[order])[last]])
    chosen = int(reached.argmax())
    return Choice(
        threshold=float(np.concatenate([[np.inf], risks[order][last]])[chosen]),
        normalised=float(_ratio(reached[chosen], np.maximum(gain, 0.0).sum())),
    )


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """NaN where there is nothing to share."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan))


def _coded(values: npt.NDArray[np.generic]) -> npt.NDArray[np.intp]:
    """Whole numbers as 0, 1, 2 …, in their order."""
    if len(values) and not np.issubdtype(values.dtype, np.integer):
        raise ValueError("series and patient must be whole numbers")
    return np.asarray(np.unique(values, return_inverse=True)[1])


def _sums(code: npt.NDArray[np.intp], values: Floats) -> Floats:
    return np.asarray(np.bincount(code, values), dtype=np.float64)


def _alarms(alarm: npt.ArrayLike, size: int) -> npt.NDArray[np.bool_]:
    alarms = np.asarray(alarm, dtype=bool)
    if alarms.shape != (size,):
        raise ValueError("alarm must have one value for each row")
    return alarms
