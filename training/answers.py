"""What a version and its rivals say of some rows, worked out once for whoever measures or draws it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.contract import Rows
from models.artifact import Artifact, Scored
from models.calibration import sigmoid
from models.cohort import Cohort
from models.comparator import score
from models.series import SERIES

FloatArray = npt.NDArray[np.float64]
Positions = npt.NDArray[np.intp]
EXPLAINED = 1000
"""Rows explained for the importance of features: more would hardly move it."""
BLOCK = 16_384
"""Rows whose matrix is held at once: 30 MB of one of four hundred columns, and more of its copies."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a version and its rivals say of some rows.

    ``margin`` (rows,) is the calibrated log-odds of the event, ``rivals`` the risk (rows,) that each
    comparator gives. ``positions`` are the rows that ``explained`` has the contributions of.
    """

    margin: FloatArray
    rivals: Mapping[str, FloatArray]
    positions: Positions
    explained: Scored

    @property
    def risk(self) -> FloatArray:
        """(rows,) the calibrated risk of the event."""
        return sigmoid(self.margin)


def answered(artifact: Artifact, cohort: Cohort, *, rows: int = EXPLAINED, seed: int = 0) -> Answers:
    """Everything that is asked of the model, each block's matrix made once for it and its rival.

    ``rows``: how many, drawn at random, are explained.
    """
    margins, learned = [np.empty(0)], [np.empty(0)]
    for block in _blocks(cohort):
        matrix = artifact.features.matrix({name: of[block] for name, of in cohort.rows.items()})
        margins.append(artifact.margin(matrix, cohort.site[block]))
        learned.append(artifact.rival_risk(matrix))
    rivals = {artifact.rival: np.concatenate(learned)}
    for rival in artifact.comparators:
        points = score(rival.name, cohort.rows, artifact.mart, artifact.spec.lookback)
        rivals[rival.name] = rival.risk(points)
    positions, scored = explained(artifact, cohort, rows=rows, seed=seed)
    return Answers(margin=np.concatenate(margins), rivals=rivals, positions=positions, explained=scored)


def _blocks(cohort: Cohort) -> Iterator[slice]:
    """About ``BLOCK`` rows at a time; a series stays in one piece."""
    series, start, size = cohort.rows.get(SERIES), 0, len(cohort)
    while start < size:
        end = min(start + BLOCK, size)
        if series is not None:
            others = np.flatnonzero(series[end:] != series[end - 1])
            end = end + int(others[0]) if len(others) else size
        yield slice(start, end)
        start = end


def explained(
    artifact: Artifact, cohort: Cohort, *, rows: int = EXPLAINED, seed: int = 0
) -> tuple[Positions, Scored]:
    """Up to ``rows`` positions drawn at random, in their order, and the answers there, explained."""
    size = len(cohort)
    drawn = np.random.default_rng(seed).choice(size, min(rows, size), replace=False)
    positions = np.sort(drawn)
    near, at = around(cohort, positions)
    matrix = artifact.features.matrix(near)[at]
    return positions, artifact.score_matrix(matrix, cohort.site[positions])


def around(cohort: Cohort, positions: Positions) -> tuple[Rows, Positions]:
    """The rows that the features of some ``positions`` look at, and where these stand among them.

    In a series that is all of each one's hours; elsewhere the rows themselves.
    """
    mask = np.zeros(len(cohort), dtype=bool)
    mask[positions] = True
    if SERIES in cohort.rows:
        series = cohort.rows[SERIES]
        mask = np.isin(series, series[positions])
    among = np.cumsum(mask) - 1
    return {name: values[mask] for name, values in cohort.rows.items()}, among[positions]
