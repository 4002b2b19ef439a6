"""Exact SHAP of what a model says, many times faster than walking its trees.

:mod:`models.tables` works out beforehand all that the trees can add to an explanation; a row, or a block
of rows, then only looks it up. Both ways add the same numbers to the same sums in the same order, so
that a row is explained bit for bit alike in whatever company. Which trees are explained so follows from
the trees alone, never from the machine or the rows; all others are left to XGBoost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import xgboost as xgb

from models.tables import Tables, Tree, build

FEW = 256
"""Rows up to which one after the other is faster than a block."""
BLOCK = 8192
"""Rows of a block: so many that NumPy's calls cost little beside their work, in some 30 MB."""

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


class Explainer(Protocol):
    """``bias`` and a row's contributions add up to what the model says of it, before calibration."""

    @property
    def bias(self) -> float:
        """What it says on average of the training rows."""
        ...

    def contributions(self, matrix: Matrix) -> FloatArray:
        """(rows, outputs), of each row the same in whatever company."""
        ...


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Trees as tables: one call needs no lock."""

    tables: Tables
    output: Ints

    @property
    def bias(self) -> float:
        return self.tables.bias

    @cached_property
    def outputs(self) -> int:
        return int(self.output.max(initial=-1)) + 1

    def contributions(self, matrix: Matrix) -> FloatArray:
        """(rows, outputs) exact path-dependent SHAP values (Lundberg et al. 2020)."""
        found = np.zeros((len(matrix), self.outputs))
        if not len(self.tables.into):  # trees of one leaf each
            return found
        if len(matrix) <= FEW:
            for row, values in enumerate(np.asarray(matrix, dtype=np.float32)):
                found[row] = self._row(values)
            return found
        for begin in range(0, len(matrix), BLOCK):
            found[begin : begin + BLOCK] = self._block(matrix[begin : begin + BLOCK]).T
        return found

    def _row(self, values: Matrix) -> FloatArray:
        """(outputs,) of one row (columns,)."""
        tables, (width, of, base, worth) = self.tables, self._layout
        value = values.take(tables.column)
        # Beside a missing value, and a bound that is none, every comparison is false.
        fails = value < tables.low
        fails |= value >= tables.high
        fails |= (value != value) & ~tables.gap  # noqa: PLR0124 the fastest test for NaN
        # The sums of each table's bits, as differences of the sums so far.
        index = np.cumsum((~fails).take(tables.asked) * worth).take(tables.asks[1:] - 1)
        index[1:] -= index[:-1].copy()
        read = tables.numbers.take((index * width).take(of) + base)
        return np.asarray(np.bincount(tables.into, read, minlength=self.outputs))

    @cached_property
    def _layout(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Of each table its width; of each number that is read its table, and its place at index 0; of
        each condition asked its bit.
        """
        tables = self.tables
        width, bits = np.diff(tables.intos), np.diff(tables.asks)
        of = np.repeat(np.arange(len(width)), width)
        base = np.repeat(tables.start[:-1] - tables.intos[:-1], width) + np.arange(len(of))
        worth = 1 << (np.arange(len(tables.asked)) - np.repeat(tables.asks[:-1], bits))
        return width, of, base, worth

    def _block(self, matrix: Matrix) -> FloatArray:
        """(outputs, rows) of some rows."""
        rows, by_column = len(matrix), np.ascontiguousarray(matrix.T, dtype=np.float32)
        held = self._held(by_column)
        found = np.zeros((self.outputs, rows))
        index, place = np.empty(rows, dtype=np.uint16), np.empty(rows, dtype=np.intp)
        room = np.empty((max(len(numbers) for _, numbers, _ in self._unpacked), rows))
        for asked, numbers, into in self._unpacked:
            index[:] = held[asked[0]]
            for condition in asked[1:]:
                np.add(index, index, out=index)
                np.add(index, held[condition], out=index)
            place[:] = index
            read = room[: len(numbers)]
            # No index is out of bounds; "clip" spares a copy.
            np.take(numbers, place, axis=1, out=read, mode="clip")
            for output, values in zip(into, read, strict=True):
                found[output] += values
        return found

    def _held(self, by_column: Matrix) -> npt.NDArray[np.bool_]:
        """(conditions, rows) which conditions hold."""
        tables = self.tables
        held = np.empty((len(tables.column), by_column.shape[1]), dtype=np.bool_)
        missing = np.isnan(by_column)
        bounds = zip(tables.column, tables.low, tables.high, tables.gap, held, strict=True)
        for column, low, high, gap, holds in bounds:
            values = by_column[column]
            np.less(values, low, out=holds)
            if not math.isnan(high):
                np.logical_or(holds, values >= high, out=holds)
            if not gap:
                np.logical_or(holds, missing[column], out=holds)
        return np.logical_not(held, out=held)

    @cached_property
    def _unpacked(self) -> list[tuple[list[int], FloatArray, list[int]]]:
        """Each table: the conditions asked, the last bit first; (outputs, indexes); the outputs."""
        tables = self.tables
        parts = range(len(tables.start) - 1)
        return [
            (
                tables.asked[tables.asks[i] : tables.asks[i + 1]][::-1].tolist(),
                np.ascontiguousarray(
                    tables.numbers[tables.start[i] : tables.start[i + 1]]
                    .reshape(-1, tables.intos[i + 1] - tables.intos[i])
                    .T,
                    dtype=np.float64,
                ),
                tables.into[tables.intos[i] : tables.intos[i + 1]].tolist(),
            )
            for i in parts
        ]


@dataclass(frozen=True, kw_only=True)
class Walked:
    """XGBoost's own, for trees whose tables would be too large and for other kinds of model."""

    booster: xgb.Booster
    output: Ints

    @cached_property
    def bias(self) -> float:
        anybody = np.full((1, len(self.output)), np.nan, dtype=np.float32)
        return float(self._parts(anybody)[0, -1])

    def contributions(self, matrix: Matrix) -> FloatArray:
        """(rows, outputs) exact path-dependent SHAP values."""
        found = np.zeros((len(matrix), int(self.output.max(initial=-1)) + 1))
        parts = self._parts(matrix)
        for column, output in enumerate(self.output):
            found[:, output] += parts[:, column]
        return found

    def _parts(self, matrix: Matrix) -> Matrix:
        return np.asarray(self.booster.predict(xgb.DMatrix(matrix, nthread=1), pred_contribs=True))


def explainer(booster: xgb.Booster, output: npt.ArrayLike) -> Explainer:
    """The fastest exact way to explain ``booster``. ``output`` (columns,): the sum each column goes to.

    >>> X = np.array([[0.0], [0.0], [1.0], [1.0]], dtype=np.float32)
    >>> settings = {"max_depth": 1, "objective": "reg:squarederror", "base_score": 0.5,
    ...             "lambda": 0, "eta": 1, "nthread": 1}
    >>> booster = xgb.train(settings, xgb.DMatrix(X, label=[1.0, 1.0, 3.0, 3.0]), 1)
    >>> explained = explainer(booster, [0])
    >>> explained.bias, explained.contributions(X).ravel().tolist()
    (2.0, [-1.0, -1.0, 1.0, 1.0])
    """
    of = np.asarray(output, dtype=np.intp)
    tables = _tables(booster, of.tolist())
    if tables is None:
        return Walked(booster=booster, output=of)
    return Looked(tables=tables, output=of)


class _Trees(msgspec.Struct):
    trees: list[Tree]


class _Boosted(msgspec.Struct):
    name: str
    model: _Trees


class _Objective(msgspec.Struct):
    name: str


class _Learner(msgspec.Struct):
    gradient_booster: _Boosted
    learner_model_param: dict[str, str]
    objective: _Objective


class _Model(msgspec.Struct):
    learner: _Learner


def _tables(booster: xgb.Booster, output: list[int]) -> Tables | None:
    """None where the model is of a kind that is not known here, or its tables would be too large."""
    try:
        learner = msgspec.json.decode(bytes(booster.save_raw("json")), type=_Model).learner
    except msgspec.MsgspecError:
        return None
    base, trees = _base(learner), learner.gradient_booster.model.trees
    plain = learner.gradient_booster.name == "gbtree" and all(tree.known for tree in trees)
    return build(trees, output, base) if plain and base is not None else None


def _base(learner: _Learner) -> float | None:
    """The margin before any tree; None where the model has several or is on another scale."""
    about = learner.learner_model_param
    said = [float(np.float32(number)) for number in about["base_score"].strip("[]").split(",")]
    single = len(said) == 1 and int(about["num_class"]) < 2 and int(about["num_target"]) < 2
    match learner.objective.name:
        case "reg:squarederror" if single:
            return said[0]
        case "binary:logistic" if single and 0 < said[0] < 1:
            return math.log(said[0] / (1 - said[0]))
    return None
