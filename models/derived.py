"""Features that are not a column but follow from some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Mart, Rows, Text
from models.feature import Feature, one_hot

REASONS = tuple(f"reason_{n}" for n in range(1, 6))
DIAGNOSES = tuple(f"diagnosis_{n}" for n in range(1, 4))


def _any_of(mart: Mart, name: str, label: Text, columns: tuple[str, ...]) -> Feature:
    """The categories that several columns name together, whichever stands first."""
    categories = mart[columns[0]].categories

    def show(rows: Rows, i: int) -> list[str] | None:
        given = [categories[rows[column][i]].id for column in columns if rows[column][i] >= 0]
        return list(dict.fromkeys(given)) or None

    return Feature(
        name=name,
        label=label,
        unit=None,
        reads=columns,
        parts=tuple(f"{name}={category.id}" for category in categories),
        fill=lambda rows: one_hot([rows[column] for column in columns], len(categories)),
        show=show,
    )


def _shock_index(_: Mart) -> Feature:
    """Heart rate over systolic pressure: rises before either alone looks wrong (Allgöwer 1967)."""

    def fill(rows: Rows) -> npt.NDArray[Any]:
        return (rows["heart_rate"] / rows["sbp"])[:, None]

    def show(rows: Rows, i: int) -> float | None:
        value = rows["heart_rate"][i] / rows["sbp"][i]
        return None if np.isnan(value) else round(float(value), 2)

    return Feature(
        name="shock_index",
        label=Text("Shock index", "休克指数"),
        unit=None,
        reads=("heart_rate", "sbp"),
        parts=("shock_index",),
        fill=fill,
        show=show,
    )


DERIVED: dict[str, Callable[[Mart], Feature]] = {
    "reasons": lambda mart: _any_of(mart, "reasons", Text("Reasons for the visit", "就诊原因"), REASONS),
    "diagnosis_groups": lambda mart: _any_of(
        mart, "diagnosis_groups", Text("Diagnoses", "诊断"), DIAGNOSES
    ),
    "shock_index": _shock_index,
}
"""Name -> how to make one on a mart."""
