"""Bedside scores that every model must beat: what a ward has today, without a computer.

Each takes typed columns and gives (rows,) float64, higher is worse. An input that was not measured
counts as normal, as it does at the bedside and in APACHE III (Knaus 1991, Chest 100:1619); a row in
which none was measured has no score, NaN. A ratio needs both its parts.

No mart holds the level of consciousness, so that NEWS2 and qSOFA go without it and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.contract import Mart, Rows, Text

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One score. ``of`` needs the columns ``reads`` and uses those of ``optional`` that are there."""

    name: str
    label: Text
    reads: tuple[str, ...]
    of: Callable[[Rows], FloatArray]
    optional: tuple[str, ...] = ()

    def inputs(self, mart: Mart) -> tuple[str, ...]:
        """The columns of ``mart`` that it reads. Raises ContractError naming one that is not there."""
        there = (name for name in self.optional if name in mart.by_name)
        return tuple(column.name for column in mart.select([*self.reads, *there]))


# Where each next band begins, and the points of the bands from the lowest values to the highest.
NEWS2 = {
    "respiratory_rate": ((9, 12, 21, 25), (3, 1, 0, 2, 3)),
    "spo2": ((92, 94, 96), (3, 2, 1, 0)),  # scale 1; scale 2 is a clinician's to prescribe
    "sbp": ((91, 101, 111, 220), (3, 2, 1, 0, 3)),
    "heart_rate": ((41, 51, 91, 111, 131), (3, 1, 0, 1, 2, 3)),
    "temperature": ((35.1, 36.1, 38.1, 39.1), (3, 1, 0, 1, 2)),
}
ROOM_AIR = 0.21


def _points(name: str, values: FloatArray) -> FloatArray:
    """Points of one sign. Its chart has whole numbers, and tenths of a degree: 100.5 °F is 38.1 °C."""
    starts, points = NEWS2[name]
    written = np.round(values, 1 if name == "temperature" else 0)
    found = np.array(points, dtype=np.float64)[np.searchsorted(starts, written, side="right")]
    return np.where(np.isnan(values), np.nan, found)


def _news2(rows: Rows) -> FloatArray:
    """Royal College of Physicians 2017, National Early Warning Score 2, chart 1.

    >>> one = {name: np.array([np.nan]) for name in NEWS2} | {"spo2": np.array([91.0])}
    >>> _news2(one), _news2(one | {"fio2": np.array([0.4])})
    (array([3.]), array([5.]))
    """
    parts = [_points(name, rows[name]) for name in NEWS2]
    if "fio2" in rows:
        parts.append(_met(rows["fio2"], rows["fio2"] > ROOM_AIR) * 2)
    return _sum(parts)


def _qsofa(rows: Rows) -> FloatArray:
    """Singer 2016, JAMA 315:801, without altered mentation: 0 to 2 in place of 0 to 3."""
    breaths, pressure = rows["respiratory_rate"], rows["sbp"]
    return _sum([_met(breaths, breaths >= 22), _met(pressure, pressure <= 100)])


def _shock_index(rows: Rows) -> FloatArray:
    """Heart rate over systolic pressure. Allgöwer & Burri 1967, Dtsch Med Wochenschr 92:1947."""
    return np.asarray(rows["heart_rate"] / rows["sbp"])


def _sirs(rows: Rows) -> FloatArray:
    """Criteria met, 0 to 4. Bone 1992, Chest 101:1644. Immature forms are in no mart."""
    temperature, pulse, breaths = (
        rows[name] for name in ("temperature", "heart_rate", "respiratory_rate")
    )
    breathing = _met(breaths, breaths > 20)
    if "paco2" in rows:  # one criterion, met by either
        breathing = np.fmax(breathing, _met(rows["paco2"], rows["paco2"] < 32))
    criteria = [
        _met(temperature, (temperature < 36) | (temperature > 38)),
        _met(pulse, pulse > 90),
        breathing,
    ]
    if "leucocytes" in rows:
        cells = rows["leucocytes"]
        criteria.append(_met(cells, (cells < 4) | (cells > 12)))
    return _sum(criteria)


def _met(values: FloatArray, criterion: npt.NDArray[np.bool_]) -> FloatArray:
    """1 where met, 0 where not, NaN where not measured."""
    return np.where(np.isnan(values), np.nan, criterion)


def _sum(parts: list[FloatArray]) -> FloatArray:
    """What was not measured counts 0; NaN where nothing was measured."""
    points = np.stack(parts)
    return np.where(np.isnan(points).all(axis=0), np.nan, np.nansum(points, axis=0))


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            name="news2",
            label=Text("NEWS2 without consciousness", "NEWS2（不含意识）"),
            reads=tuple(NEWS2),
            optional=("fio2",),
            of=_news2,
        ),
        Score(
            name="qsofa",
            label=Text("qSOFA without consciousness", "qSOFA（不含意识）"),
            reads=("respiratory_rate", "sbp"),
            of=_qsofa,
        ),
        Score(
            name="shock_index",
            label=Text("Shock index", "休克指数"),
            reads=("heart_rate", "sbp"),
            of=_shock_index,
        ),
        Score(
            name="sirs",
            label=Text("SIRS criteria", "SIRS标准"),
            reads=("temperature", "heart_rate", "respiratory_rate"),
            optional=("paco2", "leucocytes"),
            of=_sirs,
        ),
        Score(
            name="acuity",
            label=Text("Nurse's acuity", "护士分诊级别"),
            reads=("acuity",),
            of=lambda rows: 6 - rows["acuity"],  # 1 is most urgent of 5
        ),
        Score(
            name="prior_stays",
            label=Text("Hospital stays in the year before", "前一年住院次数"),
            reads=("inpatient_stays",),
            of=lambda rows: rows["inpatient_stays"],
        ),
    )
}
"""Name -> score."""
