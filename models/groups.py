"""The groups that a version is judged in: each attribute's level of each row, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Column, Mart

AGE_BANDS = (18, 40, 65, 80)
NOT_RECORDED = "not recorded"
Levels = npt.NDArray[np.object_]


def levels(column: Column, values: npt.NDArray[Any]) -> Levels:
    """(rows,) the level of each typed value; a number falls into one of ``AGE_BANDS``.

    >>> from data.contract import Text
    >>> age = Column(name="age", kind="number", role="input", available="arrival", label=Text("", ""))
    >>> levels(age, np.array([17.0, 18.0, 80.0])).tolist()
    ['under 18', '18-39', '80+']
    """
    match column.kind:
        case "category":
            labels = np.array([*(c.id for c in column.categories), NOT_RECORDED], dtype=object)
            return np.asarray(labels[values])
        case "text":
            return np.array([value or NOT_RECORDED for value in values], dtype=object)
        case _:
            ends = [f"{low}-{high - 1}" for low, high in pairwise(AGE_BANDS)]
            named = [f"under {AGE_BANDS[0]}", *ends, f"{AGE_BANDS[-1]}+", NOT_RECORDED]
            place = np.searchsorted(AGE_BANDS, values, side="right")
            place[np.isnan(values)] = len(named) - 1
            return np.array(named, dtype=object)[place]


def of(names: Sequence[str], mart: Mart, rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, Levels]:
    """Attribute -> the level of each row; one that is recorded in no row is left out."""
    found = {name: levels(mart[name], rows[name]) for name in names}
    return {name: row for name, row in found.items() if (row != NOT_RECORDED).any()}


def crossed(names: Sequence[str], mart: Mart, rows: Mapping[str, npt.NDArray[Any]]) -> dict[str, Levels]:
    """One attribute of all ``names`` that a request tells: "sex, age" -> "female, 40-64".

    Each of several attributes with a threshold of its own would widen the sets of all: age and sex
    apart left 49 % of admissions undecided, crossed 39 %, at the same coverage of each group.
    """
    told = [name for name in names if name in mart.by_name and mart[name].role == "input"]
    if not told:
        return {}
    parts = [levels(mart[name], rows[name]) for name in told]
    joined = np.array([", ".join(row) for row in zip(*parts, strict=True)], dtype=object)
    return {", ".join(told): joined}
