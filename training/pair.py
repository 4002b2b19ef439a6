"""Matrix and outcome of some rows, written block by block to a file that is mapped into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from data.contract import Rows
from models.cohort import Cohort
from models.features import FeatureMap, Matrix
from models.series import SERIES

FloatArray = npt.NDArray[np.float64]
Change = Callable[[Matrix], tuple[Matrix, npt.NDArray[np.intp]]]
"""A matrix to another one, and the row of the first that each row of the second was made from."""
BLOCK = 131_072
"""Rows a block: some hundred MiB of a matrix of two hundred columns."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``matrix`` (rows, parts) lies in the file ``path``; ``outcome`` (rows,) in memory.

    ``target`` is what the trees learn: the outcome, or how urgent the level of an ordinal model is.
    """

    matrix: Matrix
    outcome: FloatArray
    target: FloatArray
    path: Path

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        mask: npt.NDArray[np.bool_],
        features: FeatureMap,
        path: Path,
        *,
        change: Change = lambda matrix: (matrix, np.arange(len(matrix))),
    ) -> Pair:
        """The features of the rows of ``mask``, each block passed through ``change``."""
        positions = np.flatnonzero(mask)
        names = [name for name in (*features.inputs, SERIES) if name in cohort.rows]
        source = [np.empty(0, dtype=np.intp)]
        with path.open("wb") as file:
            for block in _blocks(positions, cohort.rows.get(SERIES)):
                rows = {name: cohort.rows[name][block] for name in names}
                matrix, made_from = change(features.matrix(rows))
                matrix.tofile(file)
                source.append(block[made_from])
        stored = np.memmap(path, np.float32, mode="r") if len(positions) else np.empty(0, np.float32)
        rows_of = np.concatenate(source)
        outcome = np.asarray(cohort.outcome[rows_of])
        return cls(
            matrix=np.asarray(stored).reshape(-1, len(features.parts)),
            outcome=outcome,
            target=outcome if cohort.level is None else -np.asarray(cohort.level[rows_of]),
            path=path,
        )

    def __len__(self) -> int:
        return len(self.outcome)

    def blocks(self) -> Iterator[tuple[Matrix, FloatArray]]:
        """Matrix and target, ``BLOCK`` rows at a time."""
        for start in range(0, len(self), BLOCK):
            yield self.matrix[start : start + BLOCK], self.target[start : start + BLOCK]

    def sample(self, size: int, *, seed: int) -> tuple[Matrix, FloatArray]:
        """``size`` rows drawn at random, in their order; all where there are no more."""
        if len(self) <= size:
            return self.matrix, self.outcome
        drawn = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        return self.matrix[drawn], self.outcome[drawn]

    def dmatrix(self, *, budget: int, like: xgb.DMatrix | None = None) -> xgb.DMatrix:
        """As XGBoost takes it: in memory up to ``budget`` bytes, past it in pages on disk.

        ``like``: the training rows' matrix, whose bins a tuning matrix on disk shares.
        """
        paged = isinstance(like, xgb.ExtMemQuantileDMatrix) or self.matrix.nbytes > budget
        if not paged:
            return xgb.DMatrix(self.matrix, self.target)
        same = like if isinstance(like, xgb.ExtMemQuantileDMatrix) else None
        return xgb.ExtMemQuantileDMatrix(_Pages(self), ref=same)


def imputed(train: Pair, tune: Pair, test: Pair) -> tuple[Pair, Pair, Pair]:
    """The same, each gap filled with the median of the training rows, so that no gap can be told.

    In memory, and in place of the files: it is for comparisons.
    """
    sample, _ = train.sample(BLOCK, seed=0)
    known = ~np.isnan(sample).all(axis=0)
    medians = np.zeros(sample.shape[1], dtype=np.float32)
    medians[known] = np.nanmedian(sample[:, known], axis=0)

    def filled(pair: Pair) -> Pair:
        return replace(pair, matrix=np.where(np.isnan(pair.matrix), medians, pair.matrix))

    return filled(train), filled(tune), filled(test)


def _blocks(
    positions: npt.NDArray[np.intp], series: npt.NDArray[np.int64] | None
) -> Iterator[npt.NDArray[np.intp]]:
    """Some ``BLOCK`` positions at a time; a series stays in one piece."""
    start = 0
    while start < len(positions):
        end = min(start + BLOCK, len(positions))
        if series is not None:
            last = series[positions[end - 1]]
            while end < len(positions) and series[positions[end]] == last:
                end += 1
        yield positions[start:end]
        start = end


class _Pages(xgb.DataIter):  # type: ignore[misc]  # it ships no types
    """Hands XGBoost one block after the other; it keeps its pages beside the matrix's file."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._left = pair.blocks()
        super().__init__(cache_prefix=f"{pair.path}.pages")

    def next(self, input_data: Callable[..., Any]) -> bool:
        block = next(self._left, None)
        if block is None:
            return False
        input_data(data=np.array(block[0]), label=block[1])
        return True

    def reset(self) -> None:
        self._left = self._pair.blocks()


class Masked(Mapping[str, Any]):
    """The columns of ``rows`` at ``mask``, each made when it is asked for and none kept."""

    def __init__(self, rows: Rows, mask: npt.NDArray[np.bool_]) -> None:
        self._rows, self._mask = rows, mask

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self._rows[name][self._mask])

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
