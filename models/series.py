"""Features of an hourly series: the hours of one or many stays, in order, become a matrix.

Each feature of an hour looks back ``lookback`` hours by the hour's number (the hour itself is the
first of them) and no further, so that the recent hours of one stay give the very same bits as the
whole series of many: training and a request share this code. Hours may be missing; a missing hour
is one in which nothing was charted.

The rows are laid out on one line of hours. A step between rows is as long as the hours between
them, but never longer than the lookback, and exactly that between two series: no window can reach
across. Sums and extremes over a window are put together from windows of half its length, always in
the same order, which is what makes them equal bit for bit wherever the series begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Column, Mart, Rows, Text
from data.errors import ContractError
from models.feature import Feature, from_column, show_cell
from models.scores import SCORES, Score

SERIES = "#series"
"""Key of the series that each row belongs to, a number; where it is absent all rows are of one."""
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BEDSIDE = frozenset(
    {"heart_rate", "spo2", "temperature", "sbp", "map", "dbp", "respiratory_rate", "etco2"}
)
"""What a monitor or a nurse writes down every hour or so."""
WINDOWS = (6, 24)
"""Hours over which its course is told: since the last round, and since this time yesterday."""
GAS = frozenset({"ph", "paco2", "base_excess", "sao2", "fio2", "lactate"})
BUSY = (6, 12, 24)
"""Hours over which it is told how much is measured."""
Join = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Where each row stands on the line of hours; nothing stands on the first ``lookback`` places."""

    place: Ints
    lookback: int

    @classmethod
    def of(cls, rows: Rows, *, hour: str, lookback: int) -> Line:
        """Raises ContractError where an hour is missing, is no whole number or does not rise."""
        hours = np.asarray(rows[hour], dtype=np.float64)
        if not np.isfinite(hours).all() or (hours % 1).any():
            raise ContractError(f"{hour}: must be a whole number in each row of a series")
        steps = np.diff(hours)
        if SERIES in rows:
            steps[np.diff(rows[SERIES]) != 0] = lookback
        if (steps < 1).any():
            raise ContractError(f"{hour}: must rise from row to row of a series")
        place = np.full(len(hours), lookback, dtype=np.int64)
        place[1:] += np.cumsum(np.minimum(steps, lookback).astype(np.int64))
        return cls(place=place, lookback=lookback)

    def lay(self, values: npt.NDArray[Any]) -> Track:
        """The values (n,) on the line, NaN where no row stands."""
        line = np.full(self.place.max(initial=0) + 1, np.nan)
        line[self.place] = values
        found = np.where(np.isnan(line), 0, np.arange(len(line)))
        return Track(line=self, values=line, latest=np.maximum.accumulate(found))


@dataclass(frozen=True, kw_only=True)
class Track:
    """One column on the line. ``latest``: where the last value up to each place stands, 0 for none."""

    line: Line
    values: Floats
    latest: Ints

    def at(self, place: Ints) -> Floats:
        """The values at some places (n,), NaN where a row's own lookback does not reach."""
        reached = (place > 0) & (self.line.place - place < self.line.lookback)
        return np.where(reached, self.values[place], np.nan)

    def last(self, *, ago: int = 0) -> Floats:
        """The last known value (n,), or the last one known some hours ``ago``."""
        return self.at(self.latest[self.line.place - ago])

    def previous(self) -> Floats:
        """The value before the last known one."""
        return self.at(self.latest[np.maximum(self.latest[self.line.place] - 1, 0)])

    def since(self) -> Floats:
        """Hours since the last known value."""
        latest = self.latest[self.line.place]
        return np.where(np.isnan(self.at(latest)), np.nan, self.line.place - latest)

    def count(self, hours: int) -> Floats:
        """How many values the last ``hours`` hold."""
        return self._over(np.where(np.isnan(self.values), 0.0, 1.0), hours, np.add, 0.0)

    def total(self, hours: int) -> Floats:
        """The sum of the values in the last ``hours``; 0 of none."""
        return self._over(np.nan_to_num(self.values), hours, np.add, 0.0)

    def mean_and_sd(self, hours: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation (of the values themselves, so that one alone has none: 0)."""
        known = np.nan_to_num(self.values)
        count = self.count(hours)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self.total(hours) / count
            variance = self._over(known**2, hours, np.add, 0.0) / count - mean**2
        # What rounding leaves of equal values is no spread.
        variance[variance < ROUNDING * mean**2] = 0.0
        return mean, np.sqrt(variance)

    def lowest(self, hours: int) -> Floats:
        return self._over(self.values, hours, np.fmin, np.nan)

    def highest(self, hours: int) -> Floats:
        return self._over(self.values, hours, np.fmax, np.nan)

    def _over(self, values: Floats, hours: int, join: Join, empty: float) -> Floats:
        return window(values, hours, join, empty)[self.line.place]


ROUNDING = 1e-10  # of the square of the mean: far under any spread that is charted with two decimals


def window(line: Floats, hours: int, join: Join, empty: float) -> Floats:
    """``join`` over the last ``hours`` places of each; ``empty`` changes nothing that it joins.

    >>> window(np.array([1.0, 2.0, 4.0, 8.0]), 3, np.add, 0.0)
    array([ 1.,  3.,  7., 14.])
    """

    def before(values: Floats, back: int) -> Floats:
        moved = np.full_like(values, empty)
        moved[back:] = values[: max(len(values) - back, 0)]
        return moved

    joined, reach = np.full_like(line, empty), 0
    piece, span = line, 1
    while span <= hours:
        if hours & span:
            joined, reach = join(joined, before(piece, reach)), reach + span
        piece, span = join(piece, before(piece, span)), span * 2
    return joined


def series_feature(
    column: Column, *, lookback: int, hour: str, windows: Sequence[int] | None = None
) -> Feature:
    """A column of numbers as one feature of several parts.

    Always ``last`` (the last known value), ``since`` (hours since it), ``change`` (from the value
    before it) and ``count`` (how often it was measured: a clinician's worry); for each of ``windows``,
    in hours, ``change``, ``mean``, ``sd``, ``min`` and ``max`` over them. What is charted at the bedside
    has ``WINDOWS`` where none are given, as far as the lookback reaches; a laboratory value, which
    comes once or twice a day, has none. A part is named ``creatinine:last`` or ``heart_rate:mean_6h``.
    Raises ContractError for a column of another kind and for a window beyond the lookback.
    """
    name = column.name
    if windows is None:
        windows = tuple(hours for hours in WINDOWS if name in BEDSIDE and hours <= lookback)
    if column.kind != "number":
        raise ContractError(f"{name}: a {column.kind} column is no series of numbers")
    if not all(1 <= hours <= lookback for hours in windows):
        raise ContractError(f"{name}: a window must lie within the lookback of {lookback} hours")
    over = [f"{part}_{hours}h" for hours in windows for part in ("change", "mean", "sd", "min", "max")]

    def fill(rows: Rows) -> npt.NDArray[Any]:
        track = Line.of(rows, hour=hour, lookback=lookback).lay(rows[name])
        last = track.last()
        parts = [last, track.since(), last - track.previous(), track.count(lookback)]
        for hours in windows:
            parts += [last - track.last(ago=hours), *track.mean_and_sd(hours)]
            parts += [track.lowest(hours), track.highest(hours)]
        return np.column_stack(parts).astype(np.float32)

    def show(rows: Rows, i: int) -> Any:
        known = last_known(recent(rows, i, (name,), hour, lookback), (name,), hour, lookback)
        return show_cell(column, known[name][-1])

    return Feature(
        name=name,
        label=column.label,
        unit=column.unit,
        reads=(hour, name),
        parts=tuple(f"{name}:{part}" for part in ("last", "since", "change", "count", *over)),
        fill=fill,
        show=show,
    )


def last_known(rows: Rows, names: Sequence[str], hour: str, lookback: int) -> Rows:
    """``rows`` with the columns ``names`` carried forward for up to ``lookback`` hours."""
    line = Line.of(rows, hour=hour, lookback=lookback)
    return {**rows, **{name: line.lay(rows[name]).last() for name in names}}


def recent(rows: Rows, i: int, names: Sequence[str], hour: str, lookback: int) -> Rows:
    """All that the features of row ``i`` look back on: its hours up to it, it being the last."""
    first = max(0, i - lookback + 1)
    mine = rows[hour][first : i + 1] > rows[hour][i] - lookback
    if SERIES in rows:
        mine &= rows[SERIES][first : i + 1] == rows[SERIES][i]
    return {name: rows[name][first : i + 1][mine] for name in dict.fromkeys([hour, *names])}


def _derived(
    name: str,
    label: Text,
    reads: tuple[str, ...],
    of: Callable[[Rows], npt.NDArray[Any]],
    *,
    hour: str,
    lookback: int,
) -> Feature:
    """One number from the last known values of several columns."""

    def value(rows: Rows) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.asarray(of(last_known(rows, reads, hour, lookback)), dtype=np.float64)
        return np.where(np.isfinite(found), found, np.nan)

    def show(rows: Rows, i: int) -> float | None:
        found = value(recent(rows, i, reads, hour, lookback))[-1]
        return None if np.isnan(found) else round(float(found), 2)

    return Feature(
        name=name,
        label=label,
        unit=None,
        reads=tuple(dict.fromkeys((hour, *reads))),
        parts=(name,),
        fill=lambda rows: value(rows).astype(np.float32)[:, None],
        show=show,
    )


def _hour(mart: Mart) -> str:
    if mart.order is None:
        raise ContractError(f"mart {mart.name} has no order: its rows are no series")
    return mart.order


def _score(score: Score) -> Callable[[Mart, int], Feature]:
    """A bedside score of the last known values."""

    def made(mart: Mart, lookback: int) -> Feature:
        reads, hour = score.inputs(mart), _hour(mart)
        return _derived(score.name, score.label, reads, score.of, hour=hour, lookback=lookback)

    return made


def _ratio(name: str, label: Text, above: str, below: str) -> Callable[[Mart, int], Feature]:
    def made(mart: Mart, lookback: int) -> Feature:
        def of(rows: Rows) -> Floats:
            return np.asarray(rows[above] / rows[below])

        return _derived(name, label, (above, below), of, hour=_hour(mart), lookback=lookback)

    return made


def _sofa(mart: Mart, lookback: int) -> Feature:
    """Points of the organs that the mart tells of: no urine, no vasopressor, no Glasgow scale.

    Vincent 1996, Intensive Care Med 22:707; lungs by SpO2/FiO2, Pandharipande 2009, Crit Care Med
    37:1317. What was not measured has no points.
    """

    def of(rows: Rows) -> Floats:
        lungs = rows["spo2"] / rows["fio2"]
        points = np.zeros(len(lungs))
        for values, limits in (
            (-lungs, (-512, -357, -214, -89)),
            (-rows["platelets"], (-150, -100, -50, -20)),
            (-rows["map"], (-70,)),
            (rows["bilirubin_total"], (1.2, 2, 6, 12)),
            (rows["creatinine"], (1.2, 2, 3.5, 5)),
        ):
            for limit in limits:
                points += values >= limit if limit > 0 else values > limit
        return points

    reads = ("spo2", "fio2", "platelets", "map", "bilirubin_total", "creatinine")
    label = Text(
        "SOFA points of lungs, blood, liver, kidneys and pressure",
        "SOFA部分评分（呼吸、凝血、肝、肾、血压）",
    )
    return _derived("sofa_partial", label, reads, of, hour=_hour(mart), lookback=lookback)


def _before_icu(mart: Mart, _: int) -> Feature:
    """A patient who comes from a ward after days is not one who comes from the street."""
    hour = _hour(mart)

    def of(rows: Rows) -> Floats:
        return np.asarray(rows["hours_since_admission"] - rows[hour])

    label = Text("Hours in the hospital before intensive care", "入重症监护前住院小时数")
    # A lookback of 1: a clock that is carried forward is wrong.
    return _derived("hours_before_icu", label, ("hours_since_admission",), of, hour=hour, lookback=1)


def _workup(mart: Mart, lookback: int) -> Feature:
    """How much is being measured, whatever it shows: a clinician who worries looks more often.

    For laboratory values, for what a blood gas tells, and for what is charted at the bedside: values
    in each of the last ``BUSY`` hours and in the lookback, hours since the last one, and how many
    different ones are known. Source: Agniel 2018, BMJ 361:k1479, on when a test is asked for.
    """
    hour = _hour(mart)
    measured = [
        c.name for c in mart.columns if c.kind == "number" and c.available == "hourly" and c.loinc
    ]
    measured += [name for name in ("etco2", "fio2", "sao2") if name in mart.by_name]
    groups = {
        "laboratory": [name for name in measured if name not in BEDSIDE],
        "gas": [name for name in measured if name in GAS],
        "bedside": [name for name in measured if name in BEDSIDE],
    }
    spans = [*(hours for hours in BUSY if hours < lookback), lookback]

    def fill(rows: Rows) -> npt.NDArray[Any]:
        line, parts = Line.of(rows, hour=hour, lookback=lookback), []
        for names in groups.values():
            there = np.stack([~np.isnan(rows[name]) for name in names])
            known = np.stack([line.lay(rows[name]).last() for name in names])
            values = line.lay(there.sum(axis=0))
            parts += [values.total(hours) for hours in spans]
            parts += [line.lay(np.where(there.any(axis=0), 1.0, np.nan)).since()]
            parts += [(~np.isnan(known)).sum(axis=0)]
        return np.column_stack(parts).astype(np.float32)

    def show(rows: Rows, i: int) -> int:
        return int(fill(recent(rows, i, measured, hour, lookback))[-1, len(spans) - 1])

    said = [*(f"count_{hours}h" for hours in spans), "since", "known"]
    return Feature(
        name="workup",
        label=Text("Laboratory values asked for", "化验检查频次"),
        unit=None,
        reads=(hour, *measured),
        parts=tuple(f"workup:{group}_{part}" for group in groups for part in said),
        fill=fill,
        show=show,
    )


DERIVED_SERIES: dict[str, Callable[[Mart, int], Feature]] = {
    **{name: _score(SCORES[name]) for name in ("shock_index", "news2", "sirs")},
    "sofa_partial": _sofa,
    "bun_creatinine": _ratio(
        "bun_creatinine",
        Text("Urea nitrogen to creatinine", "尿素氮肌酐比"),
        "urea_nitrogen",
        "creatinine",
    ),
    "spo2_fio2": _ratio("spo2_fio2", Text("SpO2 to FiO2", "氧合指数（SpO2/FiO2）"), "spo2", "fio2"),
    "hours_before_icu": _before_icu,
    "workup": _workup,
    # A clock, not a measurement: it has neither a course nor a count.
    "hours_since_admission": lambda mart, _: from_column(mart["hours_since_admission"]),
}
"""Name -> how to make one on a mart, with a lookback in hours."""
