"""How well given levels agree with true ones: weighted kappa, under- and over-triage.

Levels run from 1, the most urgent. Every figure follows from counts of rows (true level, given level),
so that a bootstrap sample is a table of its own and a thousand samples are one array of tables.

Sources: Cohen 1968, Psychol Bull 70:213 (weighted kappa); Fleiss & Cohen 1973, Educ Psychol Meas
33:613 (squared weights); Rotondo et al. 2014, Resources for Optimal Care of the Injured Patient,
ch. 16 (under- and over-triage, under 5 % and under 35 % by the surgeons' committee on trauma).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.errors import NotEnoughDataError
from models import resample
from models.resample import Floats

Counts = npt.NDArray[np.intp]


def confusion(level: npt.ArrayLike, given: npt.ArrayLike, *, levels: int) -> Counts:
    """(levels, levels) how many rows of each true level (down) were given each level (across).

    Raises ValueError for a level that is none of 1 to ``levels``, or unequal lengths.

    >>> confusion([1, 2, 2], [1, 1, 2], levels=2)
    array([[1, 0],
           [1, 1]])
    """
    return np.bincount(_cells(level, given, levels), minlength=levels**2).reshape(levels, levels)


def kappa(table: npt.ArrayLike) -> Floats:
    """(...) quadratic-weighted kappa of tables (..., levels, levels).

    1 is agreement, 0 what chance gives; NaN where either never varies.

    >>> kappa([[1, 0, 0], [0, 1, 0], [0, 1, 1]]).item()
    0.8
    """
    counts = np.asarray(table, dtype=float)
    true, given = np.indices(counts.shape[-2:])
    apart = (true - given) ** 2
    total = counts.sum(axis=(-2, -1), keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = counts.sum(axis=-1, keepdims=True) * counts.sum(axis=-2, keepdims=True) / total
        by_chance = (apart * chance).sum(axis=(-2, -1))
        share = (apart * counts).sum(axis=(-2, -1)) / np.where(by_chance > 0, by_chance, np.nan)
    return np.asarray(1 - share)


def triage(table: npt.ArrayLike, *, urgent: int) -> dict[str, Floats]:
    """Measure -> (...) of tables (..., levels, levels); levels up to ``urgent`` are the urgent ones.

    sensitivity_urgent: of the urgent rows, given an urgent level; under_urgent is the rest of them.
    specificity_urgent: of the others, given none; over_urgent is the rest of them. under_triage and
    over_triage: of all rows, given a less, or more, urgent level than the true one.

    >>> found = triage([[8, 2], [3, 7]], urgent=1)
    >>> found["sensitivity_urgent"].item(), found["under_triage"].item()
    (0.8, 0.1)
    """
    counts = np.asarray(table, dtype=float)
    numbers = np.arange(1, counts.shape[-1] + 1)
    true, given = np.meshgrid(numbers, numbers, indexing="ij")

    def total(cells: npt.NDArray[np.bool_]) -> Floats:
        return np.asarray(counts[..., cells].sum(axis=-1))

    everybody = total(true > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = total((true <= urgent) & (given <= urgent)) / total(true <= urgent)
        spared = total((true > urgent) & (given > urgent)) / total(true > urgent)
        return {
            "kappa": kappa(counts),
            "sensitivity_urgent": found,
            "specificity_urgent": spared,
            "under_triage": total(given > true) / everybody,
            "over_triage": total(given < true) / everybody,
            "under_urgent": 1 - found,
            "over_urgent": 1 - spared,
        }


def measure(
    level: npt.ArrayLike,
    given: npt.ArrayLike,
    *,
    levels: int,
    urgent: int,
    coarser: Sequence[int] | None = None,
    others: Mapping[str, npt.ArrayLike] | None = None,
    harm: npt.ArrayLike | None = None,
    cluster: npt.ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Columns measure, value, low, high, all from the same resamples of ``cluster`` (rows, without it).

    The measures of :func:`triage`; ``kappa_coarser`` with the levels taken together as ``coarser``
    numbers them (levels,), from 1; ``kappa_NAME`` of each of the ``others``, levels given in another
    way. ``harm`` (n,) is 1 where it came about, NaN where that is not known: ``missed`` is the share of
    the harmed that were given no urgent level, ``missed_true`` the share whose true level is none.
    Intervals as in ``models.metrics``.

    >>> measure([1, 2, 1, 2] * 20, [1, 2, 2, 2] * 20, levels=2, urgent=1)["value"].head(2).tolist()
    [0.5, 0.5]
    """
    true = np.asarray(level)
    if not len(true):
        raise NotEnoughDataError("no rows to compare levels on")
    ways = {"": given, **(others or {})}
    cells = np.stack([_cells(true, of, levels) for of in ways.values()])
    harmed = np.zeros(len(true)) if harm is None else np.nan_to_num(np.asarray(harm, dtype=float))
    if harmed.shape != true.shape:
        raise ValueError("harm must have one value for each row")
    flags = np.stack([harmed, harmed * (np.asarray(given) > urgent), harmed * (true > urgent)])
    clusters, _ = resample.coded(cluster, len(true), "cluster")
    sums = _by_cluster(cells, flags, clusters, levels)

    def figures(drawn: Floats) -> dict[str, Floats]:
        """(b,) of each measure; ``drawn`` is (clusters, b)."""
        counted = np.moveaxis(np.asarray(sums @ drawn), -1, 0)
        tables = counted[:, : len(ways) * levels**2].reshape(-1, len(ways), levels, levels)
        found = triage(tables[:, 0], urgent=urgent)
        if coarser is not None:
            found["kappa_coarser"] = kappa(_merged(tables[:, 0], coarser))
        for k, name in enumerate(list(ways)[1:], start=1):
            found[f"kappa_{name}"] = kappa(tables[:, k])
        if harm is not None:
            whole, missed, missed_true = counted[:, -3:].T
            with np.errstate(divide="ignore", invalid="ignore"):
                found |= {"missed": missed / whole, "missed_true": missed_true / whole}
        return found

    values = {name: float(of[0]) for name, of in figures(np.ones((sums.shape[1], 1))).items()}
    samples = [figures(drawn.T) for _, drawn in resample.draws(clusters, bootstrap, seed)]
    rows = []
    for name, value in values.items():
        spread = np.concatenate([np.empty(0), *(sample[name] for sample in samples)])
        rows.append((name, value, *resample.interval(spread, value)))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high"])


def _cells(level: npt.ArrayLike, given: npt.ArrayLike, levels: int) -> Counts:
    """(n,) the place of each row in a table, row by row of it."""
    true, answered = np.asarray(level), np.asarray(given)
    if true.shape != answered.shape or true.ndim != 1:
        raise ValueError("level and given must be one-dimensional and of equal length")
    if not (np.isin(true, range(1, levels + 1)).all() and np.isin(answered, range(1, levels + 1)).all()):
        raise ValueError(f"a level must be a whole number from 1 to {levels}")
    return np.asarray((true.astype(np.intp) - 1) * levels + answered.astype(np.intp) - 1)


def _by_cluster(cells: Counts, flags: Floats, clusters: Counts, levels: int) -> Any:
    """Sparse (ways * levels ** 2 + flags, clusters): what each cluster adds to each sum."""
    from scipy.sparse import csr_array, vstack

    width = int(clusters.max()) + 1
    ones = np.ones(len(clusters))
    tables = [csr_array((ones, (of, clusters)), shape=(levels**2, width)) for of in cells]
    told = [csr_array((of, (0 * clusters, clusters)), shape=(1, width)) for of in flags]
    return vstack([*tables, *told], format="csr")


def _merged(tables: Floats, coarser: Sequence[int]) -> Floats:
    """(..., k, k) tables of the levels taken together."""
    into = np.eye(max(coarser))[np.asarray(coarser) - 1]
    return np.asarray(into.T @ tables @ into)
