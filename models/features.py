"""Columns to matrix. The same function trains and serves.

Explanations are summed back from the matrix's columns to features, which is exact because
contributions add up. Missing values stay missing: the trees learn which side they go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from data.contract import Mart, Rows
from data.errors import ContractError
from models.derived import DERIVED
from models.feature import Feature, from_column
from models.series import DERIVED_SERIES, series_feature

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FeatureMap:
    """The features of a model, in order, on one mart."""

    mart: Mart
    features: tuple[Feature, ...]

    @classmethod
    def of(cls, mart: Mart, names: Sequence[str], lookback: int | None = None) -> FeatureMap:
        """``lookback``: the hours that an hourly feature of a series looks back.

        Raises ContractError naming a feature that is neither a column nor derived, or is twice.
        """
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ContractError(f"a feature stands twice: {', '.join(twice)}")
        if lookback is not None:
            return cls(mart, tuple(_of_series(mart, name, lookback) for name in names))
        return cls(
            mart, tuple(DERIVED[n](mart) if n in DERIVED else from_column(mart[n]) for n in names)
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

    def constraints(self, monotone: Mapping[str, int]) -> tuple[int, ...]:
        """1, -1 or 0 for each column of the matrix. ``monotone`` names features of one part, or parts.

        Raises ContractError naming what is neither.
        """
        signs = dict.fromkeys(self.parts, 0)
        single = {f.name: f.parts[0] for f in self.features if len(f.parts) == 1}
        for name, sign in monotone.items():
            part = single.get(name, name)
            if part not in signs:
                raise ContractError(f"monotone names {name}, which is no part of the features")
            signs[part] = sign
        return tuple(signs.values())


def _of_series(mart: Mart, name: str, lookback: int) -> Feature:
    if name in DERIVED_SERIES:
        return DERIVED_SERIES[name](mart, lookback)
    if mart[name].available == "hourly" and name != mart.order:
        return series_feature(mart[name], lookback=lookback, hour=mart.order or "")
    return from_column(mart[name])
