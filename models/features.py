"""Columns to matrix. The same function trains and serves.

A feature is a mart column or a derived one; it may fill several columns of the matrix (one a
category). Explanations are summed back to features, which is exact because contributions add up.
Missing values stay missing: the trees learn which side they go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Column, Mart, Rows, Text
from data.errors import ContractError

Matrix = npt.NDArray[np.float32]
REASONS = tuple(f"reason_{n}" for n in range(1, 6))


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One line of an explanation. ``fill`` gives its columns of the matrix, (rows, width)."""

    name: str
    label: Text
    unit: str | None
    reads: tuple[str, ...]
    parts: tuple[str, ...]
    fill: Callable[[Rows], npt.NDArray[Any]]
    show: Callable[[Rows, int], Any]


def _from_column(column: Column) -> Feature:
    name = column.name
    parts: tuple[str, ...] = (name,)
    fill: Callable[[Rows], npt.NDArray[Any]]
    if column.kind in ("number", "integer", "flag"):

        def fill(rows: Rows) -> npt.NDArray[Any]:
            return rows[name][:, None]

    elif column.kind == "category":
        parts = tuple(f"{name}={category.id}" for category in column.categories)

        def fill(rows: Rows) -> npt.NDArray[Any]:
            return _one_hot([rows[name]], len(column.categories))

    else:
        raise ContractError(f"{name}: a {column.kind} column cannot be a feature")
    return Feature(
        name=name,
        label=column.label,
        unit=column.unit,
        reads=(name,),
        parts=parts,
        fill=fill,
        show=lambda rows, i: show_cell(column, rows[name][i]),
    )


def show_cell(column: Column, cell: Any) -> Any:
    """A typed cell as JSON shows it: the category's id, a whole number without a point, or None."""
    match column.kind:
        case "category":
            return None if cell < 0 else column.categories[cell].id
        case "text":
            return cell
        case "time":
            return None if np.isnat(cell) else str(cell)
        case _ if np.isnan(cell):
            return None
        case "flag":
            return bool(cell)
        case "integer":
            return int(cell)
        case "number":
            return int(cell) if cell == int(cell) else float(cell)


def _one_hot(codes: Sequence[npt.NDArray[Any]], width: int) -> npt.NDArray[np.float32]:
    """One column a category, 1 where any of ``codes`` names it; NaN in a row that names none."""
    filled = np.zeros((len(codes[0]), width), dtype=np.float32)
    named = np.zeros(len(codes[0]), dtype=bool)
    for column in codes:
        present = np.flatnonzero(column >= 0)
        filled[present, column[present]] = 1
        named[present] = True
    filled[~named] = np.nan
    return filled


def _reasons(mart: Mart) -> Feature:
    """All reasons for the visit together: which one stands first is a habit of the desk."""
    categories = mart[REASONS[0]].categories

    def show(rows: Rows, i: int) -> list[str] | None:
        given = [categories[rows[name][i]].id for name in REASONS if rows[name][i] >= 0]
        return list(dict.fromkeys(given)) or None

    return Feature(
        name="reasons",
        label=Text("Reasons for the visit", "就诊原因"),
        unit=None,
        reads=REASONS,
        parts=tuple(f"reasons={category.id}" for category in categories),
        fill=lambda rows: _one_hot([rows[name] for name in REASONS], len(categories)),
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


DERIVED: dict[str, Callable[[Mart], Feature]] = {"reasons": _reasons, "shock_index": _shock_index}
"""Features that are not a column: name -> how to make one on a mart."""


@dataclass(frozen=True)
class FeatureMap:
    """The features of a model, in order, on one mart."""

    mart: Mart
    features: tuple[Feature, ...]

    @classmethod
    def of(cls, mart: Mart, names: Sequence[str]) -> FeatureMap:
        """Raises ContractError naming a feature that is neither a column nor derived, or is twice."""
        if len(set(names)) != len(names):
            raise ContractError(f"a feature stands twice: {', '.join(names)}")
        return cls(
            mart, tuple(DERIVED[n](mart) if n in DERIVED else _from_column(mart[n]) for n in names)
        )

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The mart columns read, in the mart's order."""
        wanted = {name for feature in self.features for name in feature.reads}
        return tuple(column.name for column in self.mart.columns if column.name in wanted)

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return tuple(part for feature in self.features for part in feature.parts)

    @cached_property
    def starts(self) -> npt.NDArray[np.intp]:
        """Where each feature's columns begin in the matrix."""
        widths = [len(feature.parts) for feature in self.features]
        return np.cumsum([0, *widths[:-1]])

    def matrix(self, rows: Rows) -> Matrix:
        """(rows, parts), float32, missing is NaN. The order of the columns in ``rows`` is irrelevant."""
        size = len(rows[self.inputs[0]])
        filled = np.empty((size, len(self.parts)), dtype=np.float32)
        for feature, start in zip(self.features, self.starts, strict=True):
            filled[:, start : start + len(feature.parts)] = feature.fill(rows)
        return filled

    def by_feature(self, parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Contributions (rows, parts) summed to (rows, features)."""
        return np.add.reduceat(parts, self.starts, axis=1)
