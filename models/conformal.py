"""Sets of outcomes that hold the true one as often as stated: split conformal prediction.

Of the tuning rows of one class take the score 1 - p, p the probability that the model gave to that
class. The threshold is their k-th smallest, k = ceil((n + 1) coverage), and a class is in the set of
a new row if its score there is no higher. Where new rows are exchangeable with the tuning rows, the
set holds the true class with at least the stated probability, whatever the model is worth (Vovk,
Gammerman & Shafer 2005, Algorithmic Learning in a Random World, ch. 4). Where they are not, as when
practice changes, nothing is promised: :func:`covered` measures what is left of it.

**By class.** A threshold of its own for each class (Mondrian; Sadinle, Lei & Wasserman 2019, J Am
Stat Assoc 114:223): of a rare outcome, 90 % of all rows are covered by sets that never name it.

**By group.** The same among the rows of each level of an attribute (Romano, Barber, Sabatti & Candès
2020, Harvard Data Sci Rev 2(2)), and so in all of them together; levels of few rows are taken as one.
Of several attributes the set is the union: as it holds the set of each of its levels, it covers at
least as often in every one. Each attribute more makes sets larger; crossed into one, age and sex ask
for less.

A set is no interval around the risk. Both classes in it: this model cannot tell them apart here.
None in it: neither is like the rows that it was tuned on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import ContractError, NotEnoughDataError

SMALLEST_LEVEL = 20
"""Rows of a level; the figures of fewer say more about them than about the sets."""
ALWAYS = 1.0
"""The threshold that no score exceeds."""
REST = ""
"""The levels of an attribute that have too few rows, and those that had none, taken as one."""

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]
Groups = Mapping[str, npt.NDArray[Any]]
"""Attribute -> its level in each row, (n,) text; None and blank read "missing"."""


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """Thresholds of the score 1 - p, one a class: ``by_group`` of attribute and level, and ``overall``
    where no attribute has a level of its own. ``REST`` stands for the levels that are not named.

    ``rows`` counts the tuning rows of each class. ``ordinal``: the classes are in order, and a set
    is a run of them without a gap (filling one only adds to it, so that coverage holds).
    """

    classes: tuple[int, ...]
    coverage: float
    smallest: int
    ordinal: bool
    rows: tuple[int, ...]
    overall: tuple[float, ...]
    by_group: Mapping[str, Mapping[str, tuple[float, ...]]]

    @property
    def undecided(self) -> tuple[int, ...]:
        """The classes with fewer than ``smallest`` tuning rows: they are in every set."""
        return tuple(c for c, n in zip(self.classes, self.rows, strict=True) if n < self.smallest)

    def sets(self, probabilities: FloatArray, groups: Groups) -> BoolArray:
        """(n, k) which classes are in the set of each row; ``probabilities`` is (n, k).

        Raises ContractError naming an attribute with thresholds that ``groups`` lacks (what is
        promised in its levels must not lapse in silence), ValueError where shapes do not fit.
        """
        _hold(probabilities, len(self.classes), groups)
        chosen = []
        for attribute, levels in self.by_group.items():
            if attribute not in groups:
                raise ContractError(f"prediction sets need the group {attribute}")
            of_row = [levels.get(level, levels[REST]) for level in _text(groups[attribute])]
            chosen.append(np.reshape(of_row, probabilities.shape))
        threshold = np.maximum.reduce(chosen or [np.array(self.overall)])
        within = 1 - probabilities <= threshold
        if self.ordinal:
            up = np.logical_or.accumulate(within, axis=1)
            down = np.logical_or.accumulate(within[:, ::-1], axis=1)[:, ::-1]
            within = up & down
        return np.asarray(within)


@dataclass(frozen=True, kw_only=True)
class Covered:
    """What sets did on some rows: all (``group`` ""), or a ``level`` of an attribute; of one true
    ``class_``, or of any (None).

    ``coverage`` is the share of sets with the true class in them, ``size`` their mean number of
    classes, ``ambiguous`` the share with more than one, ``empty`` with none. All four are None under
    ``SMALLEST_LEVEL`` rows.
    """

    group: str
    level: str
    class_: int | None
    n: int
    coverage: float | None
    size: float | None
    ambiguous: float | None
    empty: float | None


def fit(
    probabilities: FloatArray,
    truth: Ints,
    *,
    groups: Groups,
    classes: tuple[int, ...] | None = None,
    coverage: float = 0.9,
    smallest: int = 100,
    ordinal: bool = False,
) -> Conformal:
    """Thresholds from rows that the model did not learn from.

    ``probabilities`` is (n, k), ``truth`` (n,) the index of the true class among ``classes`` (0 to
    k - 1, if not given). Where a class has fewer than ``smallest`` rows in a level, the threshold is
    that of ``REST``; where it has too few there, the overall one; and there, ``ALWAYS``. Raises
    NotEnoughDataError without rows, ValueError where shapes or ranges do not fit.

    Ten rows of each class; the 10th smallest score of class 0 is 0.55, of class 1 it is 0.6.

    >>> risk = np.concatenate([np.arange(0.10, 0.56, 0.05), np.arange(0.40, 0.86, 0.05)])
    >>> made = fit(np.column_stack([1 - risk, risk]), np.repeat([0, 1], 10), groups={}, smallest=10)
    >>> np.round(made.overall, 2).tolist()
    [0.55, 0.6]
    >>> made.sets(np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]]), {}).tolist()
    [[True, False], [True, True], [False, True]]
    """
    names = tuple(range(probabilities.shape[1])) if classes is None else classes
    _hold(probabilities, len(names), groups)
    if not len(truth):
        raise NotEnoughDataError("prediction sets need tuning rows")
    if truth.shape != (len(probabilities),) or not np.isin(truth, range(len(names))).all():
        raise ValueError("truth must be the index of a class for each row")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must lie in (0, 1): {coverage}")
    score = 1 - probabilities[np.arange(len(truth)), truth]
    of_class = [truth == index for index in range(len(names))]

    def thresholds(rows: list[BoolArray], otherwise: Sequence[float]) -> tuple[float, ...]:
        """Of the ``rows`` of each class, where they are enough."""
        return tuple(
            _threshold(score[some], coverage) if some.sum() >= smallest else fallback
            for some, fallback in zip(rows, otherwise, strict=True)
        )

    overall = thresholds(of_class, [ALWAYS] * len(names))
    nobody = np.zeros(len(truth), dtype=bool)
    by_group = {}
    for attribute, given in groups.items():
        levels = {name: [rows & of for of in of_class] for name, rows in _levels(given)}
        pooled = [
            np.logical_or.reduce([nobody, *(rows for rows in of_levels if rows.sum() < smallest)])
            for of_levels in zip(*levels.values(), strict=True)
        ]
        rest = thresholds(pooled, overall)
        own = {name: thresholds(of_level, rest) for name, of_level in levels.items()}
        own = {name: found for name, found in own.items() if found != rest}
        if own:
            by_group[attribute] = {REST: rest, **own}
    return Conformal(
        classes=names,
        coverage=coverage,
        smallest=smallest,
        ordinal=ordinal,
        rows=tuple(int(rows.sum()) for rows in of_class),
        overall=overall,
        by_group=by_group,
    )


def covered(
    sets: BoolArray, truth: Ints, *, groups: Groups, classes: tuple[int, ...] | None = None
) -> list[Covered]:
    """What ``sets`` (n, k) did, overall and in each level, of any class and of each.

    ``truth`` and ``classes`` as in :func:`fit`. A level under ``SMALLEST_LEVEL`` rows has one line,
    which tells its rows and no more.
    """
    names = tuple(range(sets.shape[1])) if classes is None else classes
    found: list[Covered] = []
    strata = [("", "", np.ones(len(truth), dtype=bool))]
    strata += [(group, *level) for group, given in groups.items() for level in _levels(given)]
    for group, level, rows in strata:
        found.append(_measured(sets, truth, rows, group=group, level=level, class_=None))
        if found[-1].coverage is not None:
            found += [
                _measured(sets, truth, rows & (truth == i), group=group, level=level, class_=name)
                for i, name in enumerate(names)
            ]
    return found


def _threshold(scores: FloatArray, coverage: float) -> float:
    """The k-th smallest, k = ceil((n + 1) coverage); past the last there is none to exceed."""
    # Rounded first: 100 times 0.55 comes out a hair above 55.
    k = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(np.partition(scores, k - 1)[k - 1]) if k <= len(scores) else ALWAYS


def _levels(given: npt.NDArray[Any]) -> Iterator[tuple[str, BoolArray]]:
    """Each level and the mask of its rows."""
    texts = _text(given)
    for level in np.unique(texts).tolist():
        yield level, texts == level


def _text(levels: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    return np.array(
        ["missing" if level in (None, "") else str(level) for level in levels], dtype=np.str_
    )


def _measured(
    sets: BoolArray, truth: Ints, rows: BoolArray, *, group: str, level: str, class_: int | None
) -> Covered:
    n = int(rows.sum())
    shares: list[float | None] = [None] * 4
    if n >= SMALLEST_LEVEL:
        some = sets[rows]
        size = some.sum(axis=1)
        held = some[np.arange(n), truth[rows]]
        shares = [float(of.mean()) for of in (held, size, size > 1, size == 0)]
    coverage, mean_size, ambiguous, empty = shares
    return Covered(
        group=group,
        level=level,
        class_=class_,
        n=n,
        coverage=coverage,
        size=mean_size,
        ambiguous=ambiguous,
        empty=empty,
    )


def _hold(probabilities: FloatArray, k: int, groups: Groups) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] != k:
        raise ValueError(f"probabilities must be of shape (n, {k})")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    for attribute, levels in groups.items():
        if levels.shape != (len(probabilities),):
            raise ValueError(f"group {attribute} must have one level for each row")
