"""Which features drive the scores, for whom, by which values, and how that moved. Pure.

**A share** is the sum of a feature's absolute contributions over that of all features. Its interval is
that of a ratio of means, by the delta method, with the rows of one patient as one draw (Cochran 1977,
Sampling Techniques, ch. 6 and 9): of a million rows a sample is explained, and it says how sure it is.

Nothing is told of fewer than ``SMALLEST_GROUP`` people: neither of a group, nor of a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.contract import Mart, Rows
from data.log.read import Pointer
from models.feature import Feature
from models.metrics import SMALLEST_GROUP
from models.reference import Reference
from monitoring import counting

Z95 = 1.959964
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """Answers with their explanation: ``contributions`` (n, features), ``risk`` (n,), ``patient`` (n,)
    a number, ``month`` (n,) as datetime64[M], typed ``inputs`` and ``groups`` by attribute.
    """

    contributions: FloatArray
    risk: FloatArray
    patient: Ints
    month: npt.NDArray[np.datetime64]
    inputs: Rows
    groups: Mapping[str, npt.NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.risk)


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What ``caremodels explain --json`` prints, and ``explained.json`` holds.

    ``n`` were scored, ``explained`` are the rows of the sample. ``reason`` says why only the training's
    shares are told, None where all is. The rest: see :func:`overall`,
    :func:`by_group`, :func:`by_month` and :func:`by_value`.
    """

    model: str
    version: str
    pointer: Pointer
    window: dict[str, str]
    zone: str
    n: int
    explained: int
    reason: str | None
    features: tuple[dict[str, Any], ...]
    groups: tuple[dict[str, Any], ...]
    months: tuple[dict[str, Any], ...]
    values: tuple[dict[str, Any], ...]
    report: str


def shares(size: FloatArray, patient: Ints) -> FloatArray:
    """(features, 3): share, and the ends of its 95 % interval, of absolute contributions (n, features).

    >>> shares(np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]), np.arange(3))[0].round(3).tolist()
    [0.5, 0.217, 0.783]
    """
    total = size.sum(axis=1)
    share = size.sum(axis=0) / total.sum()
    left = pd.DataFrame(size - total[:, None] * share).groupby(patient).sum().to_numpy()
    people = len(left)
    spread = np.sqrt(np.square(left).sum(axis=0) * people / max(1, people - 1)) / total.sum()
    low, high = np.clip(share - Z95 * spread, 0, 1), np.clip(share + Z95 * spread, 0, 1)
    return np.column_stack([share, low, high])


def overall(
    explained: Explained,
    features: Sequence[Feature],
    *,
    training: Mapping[str, float],
    alert_at: float,
) -> list[dict[str, Any]]:
    """A row a feature, the weightiest first.

    ``{feature, label, share, training, mean, alerts}``: ``mean`` is what it adds to the log-odds on
    average, ``alerts`` the same of the risks at or over ``alert_at``; None of too few people.
    ``training``: feature -> its mean absolute contribution then.
    """
    found = _shares(explained, np.ones(len(explained), dtype=bool))
    before = sum(training.values())
    alert = explained.risk >= alert_at
    means, of_alerts = (_means(explained, mask) for mask in (alert | True, alert))
    rows = [
        {
            "feature": feature.name,
            "label": {"en": feature.label.en, "zh": feature.label.zh},
            "share": None if found is None else _span(found[place]),
            "training": training.get(feature.name, 0.0) / before if before else None,
            "mean": None if means is None else float(means[place]),
            "alerts": None if of_alerts is None else float(of_alerts[place]),
        }
        for place, feature in enumerate(features)
    ]
    return sorted(rows, key=lambda row: -(row["share"] or {"value": row["training"] or 0.0})["value"])


def by_group(explained: Explained, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a level of each attribute, the largest first: ``{group, level, n, shares, means}``.

    ``shares`` and ``means`` map a feature of ``names`` to its share of the explanations there, and to
    what it adds on average; of fewer than ``SMALLEST_GROUP`` people they are None.
    """
    rows = []
    for attribute, levels in explained.groups.items():
        sizes = pd.Series(levels).value_counts(sort=True)
        rows += [
            {"group": attribute, "level": level, **_part(explained, levels == level, names)}
            for level in sizes.index
        ]
    return rows


def by_month(explained: Explained, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a calendar month, oldest first: ``{month, n, shares, means}`` as of :func:`by_group`."""
    return [
        {"month": str(month), **_part(explained, explained.month == month, names)}
        for month in np.unique(explained.month)
    ]


def by_value(
    explained: Explained,
    features: Sequence[Feature],
    mart: Mart,
    reference: Reference,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """What the values of a feature add: ``{feature, label, unit, cells: [{label, n, mean}]}``.

    Of each of ``names`` that is one column of the reference, on its cells. A cell of fewer than
    ``SMALLEST_GROUP`` people is left out.
    """
    binned = {one.column: one for one in reference.columns}
    places = {feature.name: place for place, feature in enumerate(features)}
    found = []
    for place in (places[name] for name in names if name in binned):
        feature = features[place]
        one = binned[feature.name]
        cells = counting.cells_of(one, mart[feature.name], explained.inputs[feature.name])
        rows = [
            {"label": label, "n": int(there.sum()), "mean": float(said[place])}
            for code, label in enumerate(one.labels)
            if (said := _means(explained, there := cells == code)) is not None
        ]
        label = {"en": feature.label.en, "zh": feature.label.zh}
        found.append({"feature": feature.name, "label": label, "unit": feature.unit, "cells": rows})
    return found


def _part(explained: Explained, there: BoolArray, names: Sequence[str]) -> dict[str, Any]:
    found, means = _shares(explained, there), _means(explained, there)
    if found is None or means is None:
        return {"n": int(there.sum()), "shares": None, "means": None}
    return {
        "n": int(there.sum()),
        "shares": dict(zip(names, map(_span, found), strict=True)),
        "means": dict(zip(names, means.tolist(), strict=True)),
    }


def _people(explained: Explained, there: BoolArray) -> int:
    return len(pd.unique(explained.patient[there]))


def _shares(explained: Explained, there: BoolArray) -> FloatArray | None:
    """None of too few people, or where nothing was added or taken."""
    size = np.abs(explained.contributions[there])
    if _people(explained, there) < SMALLEST_GROUP or not size.sum():
        return None
    return shares(size, explained.patient[there])


def _means(explained: Explained, there: BoolArray) -> FloatArray | None:
    if _people(explained, there) < SMALLEST_GROUP:
        return None
    return np.asarray(explained.contributions[there].mean(axis=0))


def _span(row: FloatArray) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), row.tolist(), strict=True))
