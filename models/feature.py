"""One feature: what it is called, which columns it reads, and how it fills the matrix.

A feature is a mart column or a derived one; it may fill several columns of the matrix (one a
category), its parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Column, Rows, Text
from data.errors import ContractError


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


def from_column(column: Column) -> Feature:
    name = column.name
    parts: tuple[str, ...] = (name,)
    fill: Callable[[Rows], npt.NDArray[Any]]
    if column.kind in ("number", "integer", "flag"):

        def fill(rows: Rows) -> npt.NDArray[Any]:
            return rows[name][:, None]

    elif column.kind == "category":
        parts = tuple(f"{name}={category.id}" for category in column.categories)

        def fill(rows: Rows) -> npt.NDArray[Any]:
            return one_hot([rows[name]], len(column.categories))

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
    number = float(cell)  # of NumPy's scalars each step costs ten times as much
    if math.isnan(number):
        return None
    if column.kind == "flag":
        return bool(number)
    return int(number) if number.is_integer() else number


def one_hot(codes: Sequence[npt.NDArray[Any]], width: int) -> npt.NDArray[np.float32]:
    """One column a category, 1 where any of ``codes`` names it; NaN in a row that names none."""
    filled = np.zeros((len(codes[0]), width), dtype=np.float32)
    named = np.zeros(len(codes[0]), dtype=bool)
    for column in codes:
        present = np.flatnonzero(column >= 0)
        filled[present, column[present]] = 1
        named[present] = True
    filled[~named] = np.nan
    return filled
