"""What hourly alerts were worth: the utility of the sepsis challenge, of whole stays.

An alert is worth what it is by how long before the onset it came, so that hours make sense only as a
stay. A stay belongs to the window in which it was known to be over, ``OVER`` after its last answer; its
hours before that window come from the year before. Each stay is thus measured once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.errors import NotEnoughDataError
from models import utility
from models.metrics import SMALLEST_GROUP
from models.spec import ModelSpec
from monitoring import strata
from monitoring.strata import SITE, UNOPENED, Ints, Texts
from monitoring.window import Window

OVER = np.timedelta64(12, "h")
"""A patient asked about hour by hour has left when nobody has asked for so long."""
FEWEST_STAYS = 10
"""With the outcome."""
BOOTSTRAP = 500
_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Stays:
    """Hours of whole stays, (n,) each. ``place``: among the window's answers, -1 of one before it."""

    stay: Ints
    hour: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.float64]
    alert: npt.NDArray[np.bool_]
    patient: npt.NDArray[np.int64]
    site: Ints
    place: Ints

    def take(self, rows: npt.NDArray[np.bool_] | Ints) -> _Stays:
        return _Stays(**{name: of[rows] for name, of in vars(self).items()})


def measure(window: Window, spec: ModelSpec) -> dict[str, Any] | None:
    """``{stays, events, hours, threshold, reason, value, low, high, groups}``, None of no series.

    ``value`` is the utility, 0 for never to alert and 1 for the best possible, resampled by patient;
    ``events`` the stays with the outcome. A stay counts where the outcome of every hour answered is
    known. ``groups``: the same by site and by subgroup, of the levels of at least twenty patients.
    """
    if spec.lookback is None:
        return None
    stays = _over(window, spec.alert_at)
    events = len(np.unique(stays.stay[stays.outcome == 1]))
    known = {
        "stays": len(np.unique(stays.stay)),
        "events": events,
        "hours": len(stays.stay),
        "threshold": spec.alert_at,
    }
    nothing: dict[str, Any] = {"value": None, "low": None, "high": None, "groups": []}
    if window.past_share < 1:
        return {**known, "reason": "of the year before not every day is read", **nothing}
    if events < FEWEST_STAYS or len(np.unique(stays.patient)) < SMALLEST_GROUP:
        reason = (
            f"of {known['stays']} stays that are over, with the outcome of every hour known, {events} "
            f"had it; at least {FEWEST_STAYS} are needed, and {SMALLEST_GROUP} patients"
        )
        return {**known, "reason": reason, **nothing}
    groups = []
    for attribute, level, rows in strata.shown(_levels(window, stays), stays.patient):
        some = stays.take(rows)
        events = len(np.unique(some.stay[some.outcome == 1]))
        if events >= FEWEST_STAYS:
            groups.append(
                {
                    "group": attribute,
                    "level": level,
                    "stays": len(np.unique(some.stay)),
                    "events": events,
                    **_utility(some),
                }
            )
    return {**known, "reason": None, **_utility(stays), "groups": groups}


def _over(window: Window, threshold: float) -> _Stays:
    """The hours of the stays that were over in the window, one answer an hour: the last."""
    parts = (window.past, window.answers)

    def both(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    place = np.concatenate([np.full(len(window.past), -1), np.arange(len(window.answers))])
    scored = np.flatnonzero(both("scored") & (both("encounter") >= 0))
    at, risk, outcome = (both(name)[scored] for name in ("at", "risk", "outcome"))
    stay = np.unique(both("encounter")[scored], return_inverse=True)[1]
    n = int(stay.max(initial=-1)) + 1
    first, last = np.full(n, np.datetime64("NaT", "s")), np.full(n, np.datetime64("NaT", "s"))
    np.fmin.at(first, stay, at)
    np.fmax.at(last, stay, at)
    start, end = (np.datetime64(moment, "s") for moment in (window.period.start, window.period.end))
    ended = (last + OVER >= start) & (last + OVER < end)
    known = np.bincount(stay[~both("labelled")[scored]], minlength=n) == 0
    hour = np.rint((at - first[stay]) / _HOUR).astype(np.int64)
    repeated = pd.DataFrame({"stay": stay, "hour": hour}).duplicated(keep="last").to_numpy()
    return _Stays(
        stay=stay,
        hour=hour,
        outcome=outcome,
        alert=risk >= threshold,
        patient=both("patient")[scored],
        site=both("site")[scored],
        place=place[scored],
    ).take((ended & known)[stay] & ~repeated)


def _utility(stays: _Stays) -> dict[str, float | None]:
    of = utility.per_patient(stays.stay, stays.hour, stays.outcome, stays.alert, patient=stays.patient)
    try:
        found = utility.interval(of, bootstrap=BOOTSTRAP)
    except NotEnoughDataError:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": found.value, "low": found.low, "high": found.high}


def _levels(window: Window, stays: _Stays) -> dict[str, Texts]:
    """Attribute -> level of each hour: that of the stay's first hour in the window which tells it."""
    names = np.array([*window.answers.sites, "(none named)"], dtype=object)
    found = {SITE: names[stays.site]}
    within = np.flatnonzero(stays.place >= 0)
    for attribute, level in strata.at(window, stays.place[within]).items():
        if attribute == SITE:
            continue
        told = np.flatnonzero(level != UNOPENED)
        stay, row = np.unique(stays.stay[within[told]], return_index=True)
        of = dict(zip(stay.tolist(), level[told][row].tolist(), strict=True))
        found[attribute] = np.array([of.get(one, UNOPENED) for one in stays.stay.tolist()], dtype=object)
    return found
