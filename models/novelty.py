"""How unlike the training rows one patient's inputs are, and in what.

Each input is asked which share of the training rows is at least as strange in it. For a number that
is twice the share at least as far out on its side; past the last value that can be told, the tail
goes on as an exponential (peaks over a threshold: Davison & Smith 1990, J R Stat Soc B 52:393). For
a category or a flag it is the share of rows in cells no more common than its own. Numbers that go
together are asked together too, by what the one leaves unexplained of the other: 80 systolic is
possible and 130 diastolic is, both at once is a swap. What was not measured is not strange, however
rare that was at training: who sends less has not an odder patient, and :mod:`models.support` asks for
what is missing.

The surprise is minus the logarithm of that share. A row's score adds its ``STRANGEST`` largest (the
rank truncated product of Dudbridge & Koeleman 2003, Genet Epidemiol 25:360): of forty inputs the
others are ordinary, and their sum would drown the three. How strange that makes the row is read off
the scores of the training rows, and the three are the reason to show.

The bins of ``models.reference`` cannot serve: they hold a tenth of the rows each, so that a
temperature of 45 falls into the same cell as one of 37.5. What is kept here is as little of any
person: a share is told in steps of ``SMALLEST_CELL`` rows, and no value that fewer lie beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Column
from data.errors import NotEnoughDataError
from models.reference import SMALLEST_CELL

STRANGEST = 3
RELATED = 0.5
"""The least correlation at which two numbers are asked together, over at least ``TOGETHER`` rows."""
TOGETHER = 200
"""Of fewer, chance alone relates some two of forty numbers."""
MOST = 20.0
"""The largest surprise: one row in five hundred million. What is stranger need not be told apart."""
NOWHERE = 1e-9
"""The reach of a tail in which nobody lies: who does is as strange as can be."""
LARGEST = 200_000
"""Training rows that are looked at; of more, every second, third and so on."""
FEW = 256
"""Rows up to which all inputs are asked in one pass; of more, one input after the other is faster."""
TOLD = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995)
"""The quantiles that are kept of a number and of the score."""

FloatArray = npt.NDArray[np.float64]
AnyRows = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Tails:
    """How far out a number lies.

    ``below`` is the share of training rows with the value of each of ``edges`` or a lower one,
    ``above`` with it or a higher one; ``reach`` how far beyond the first and the last edge the rows
    that lie there are on average.
    """

    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]
    reach: tuple[float, float]

    @cached_property
    def table(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        return np.array(self.edges), np.log(self.below), np.log(self.above)

    def lower(self, values: FloatArray) -> FloatArray:
        """Log of the share of training rows with the value or a lower one; NaN where there is none."""
        edges, below, _ = self.table
        past = np.maximum(edges[0] - values, 0) / self.reach[0]
        return np.asarray(np.interp(values, edges, below) - past)

    def higher(self, values: FloatArray) -> FloatArray:
        """The same, with the value or a higher one."""
        edges, _, above = self.table
        past = np.maximum(values - edges[-1], 0) / self.reach[1]
        return np.asarray(np.interp(values, edges, above) - past)

    def surprise(self, values: FloatArray) -> FloatArray:
        """Minus the log of twice the share at least as far out on its side."""
        share = math.log(2) + np.minimum(self.lower(values), self.higher(values))
        return np.asarray(np.clip(-share, 0, MOST))


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number."""

    columns: tuple[str]
    tails: Tails

    def surprise(self, rows: AnyRows) -> FloatArray:
        found = self.tails.surprise(rows[self.columns[0]])
        return np.where(np.isnan(found), 0.0, found)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is left of the first number without ``slope`` times the second; no surprise without both."""

    columns: tuple[str, str]
    slope: float
    tails: Tails

    def surprise(self, rows: AnyRows) -> FloatArray:
        first, second = (rows[name] for name in self.columns)
        found = self.tails.surprise(first - self.slope * second)
        return np.where(np.isnan(found), 0.0, found)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A category or flag. ``shares``: of each cell, rows in cells no more common; the last is "missing".

    A number that hardly any training row had is one too: its cells are "known" and "missing".
    """

    columns: tuple[str]
    shares: tuple[float, ...]

    @cached_property
    def table(self) -> FloatArray:
        return -np.log(self.shares)

    def surprise(self, rows: AnyRows) -> FloatArray:
        return np.asarray(self.table[_codes(rows[self.columns[0]], len(self.shares) - 1)])


Asked = Number | Pair | Cells


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What is strange: an input, or two that do not go together, and the share of training rows at
    least as strange in it (of the rarest, extrapolated).
    """

    columns: tuple[str, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class _Together:
    """All that is asked, in arrays: for a few rows, NumPy's calls are what takes the time.

    The first axis is the inputs, numbers and pairs or cells. ``edges`` ends in infinities; ``lines`` are
    the pieces of straight line between edges, of both tails as :func:`numpy.interp` draws them.
    """

    numbers: tuple[str, ...]
    firsts: npt.NDArray[np.intp]
    seconds: npt.NDArray[np.intp]
    slopes: FloatArray
    edges: FloatArray
    ends: FloatArray
    reach: FloatArray
    lines: FloatArray
    cells: tuple[str, ...]
    last: npt.NDArray[np.intp]
    starts: npt.NDArray[np.intp]
    shares: FloatArray

    @classmethod
    def of(cls, numbers: Sequence[Number], pairs: Sequence[Pair], cells: Sequence[Cells]) -> _Together:
        names = tuple(number.columns[0] for number in numbers)
        tails = [*(number.tails for number in numbers), *(pair.tails for pair in pairs)]
        most = max((len(of.edges) for of in tails), default=0)
        edges = np.full((len(tails), most, 1), np.inf)
        # Of the edge below a value and the slope from there on, in each tail.
        lines = np.zeros((5, len(tails), most + 1))
        for row, of in enumerate(tails):
            at, below, above = of.table
            edges[row, : len(at), 0] = at
            here = lines[:, row, 1 : len(at) + 1]
            here[0], here[1], here[2] = at, below, above
            here[3, :-1], here[4, :-1] = np.diff(below) / np.diff(at), np.diff(above) / np.diff(at)
        sizes = [len(each.shares) for each in cells]
        return cls(
            numbers=names,
            firsts=np.array([names.index(pair.columns[0]) for pair in pairs], dtype=np.intp),
            seconds=np.array([names.index(pair.columns[1]) for pair in pairs], dtype=np.intp),
            slopes=np.array([pair.slope for pair in pairs]).reshape(-1, 1),
            edges=edges,
            ends=np.array([(of.edges[0], of.edges[-1]) for of in tails]).reshape(-1, 2).T[:, :, None],
            reach=np.array([of.reach for of in tails]).reshape(-1, 2).T[:, :, None],
            lines=lines.reshape(5, -1),
            cells=tuple(each.columns[0] for each in cells),
            last=np.array(sizes, dtype=np.intp).reshape(-1, 1) - 1,
            starts=np.cumsum([0, *sizes[:-1]]).reshape(-1, 1) if cells else np.zeros((0, 1), np.intp),
            shares=np.concatenate([np.empty(0), *(each.table for each in cells)]),
        )

    def surprises(self, rows: AnyRows) -> FloatArray:
        """(n, asked)."""
        found = []
        if self.numbers:
            values = np.array([rows[name] for name in self.numbers])
            if len(self.firsts):
                left = values[self.firsts] - self.slopes * values[self.seconds]
                values = np.concatenate([values, left])
            found.append(self._tails(values))
        if self.cells:
            found.append(self._cells([rows[name] for name in self.cells]))
        return np.concatenate(found).T

    def _tails(self, values: FloatArray) -> FloatArray:
        first, last = self.ends
        within = np.minimum(np.maximum(values, first), last)
        piece = (self.edges <= within[:, None, :]).sum(axis=1)
        piece += np.arange(0, self.lines.shape[1], self.edges.shape[1] + 1)[:, None]
        edge, below, above, falling, rising = self.lines.take(piece, axis=1)
        beyond = within - edge
        lower = falling * beyond + below - np.maximum(first - values, 0) / self.reach[0]
        higher = rising * beyond + above - np.maximum(values - last, 0) / self.reach[1]
        share = math.log(2) + np.minimum(lower, higher)
        surprise = np.minimum(np.maximum(-share, 0), MOST)
        return np.where(np.isnan(surprise), 0.0, surprise)

    def _cells(self, columns: Sequence[npt.NDArray[Any]]) -> FloatArray:
        values = np.array(columns, dtype=np.float64)
        of_codes = np.array([column.dtype.kind == "i" for column in columns])[:, None]
        missing = np.isnan(values) | (of_codes & (values < 0))
        codes = np.where(missing, self.last, np.where(self.last > 1, values, 0)).astype(np.intp)
        return self.shares.take(codes + self.starts)


@dataclass(frozen=True, kw_only=True)
class Novelty:
    """What is usual in each input, in pairs of them, and (``scores``) in their sum."""

    rows: int
    numbers: tuple[Number, ...]
    pairs: tuple[Pair, ...]
    cells: tuple[Cells, ...]
    scores: Tails

    @cached_property
    def _asked(self) -> tuple[Asked, ...]:
        return (*self.numbers, *self.pairs, *self.cells)

    @cached_property
    def _together(self) -> _Together:
        return _Together.of(self.numbers, self.pairs, self.cells)

    def score(self, rows: AnyRows) -> FloatArray:
        """(n,) the sum of the ``STRANGEST`` largest surprises."""
        return _score(self.surprises(rows))

    def surprises(self, rows: AnyRows) -> FloatArray:
        """(n, asked) of the numbers, the pairs and the cells; the same bit for bit either way."""
        few = len(rows[self._asked[0].columns[0]]) <= FEW
        return self._together.surprises(rows) if few else _surprises(self._asked, rows)

    def percentile(self, rows: AnyRows) -> FloatArray:
        """(n,) the share of training rows that are less strange."""
        return np.asarray(-np.expm1(self.scores.higher(self.score(rows))))

    def drivers(self, rows: AnyRows) -> list[tuple[Driver, ...]]:
        """What makes up the score of each row, the strangest first."""
        surprises = self.surprises(rows)
        strangest = np.argsort(-surprises, axis=1, kind="stable")[:, :STRANGEST]
        shares = np.exp(-np.take_along_axis(surprises, strangest, axis=1))
        return [
            tuple(
                Driver(columns=self._asked[index].columns, share=float(share))
                for index, share in zip(*of_row, strict=True)
            )
            for of_row in zip(strangest, shares, strict=True)
        ]


def fit(columns: Sequence[Column], rows: AnyRows) -> Novelty:
    """What is usual in ``columns`` (numbers, integers, flags, categories) of the training ``rows``.

    Raises NotEnoughDataError where there are too few rows to tell.

    >>> from data.contract import Text
    >>> age = Column(name="age", kind="number", role="input", available="triage",
    ...              label=Text("Age", "年龄"))
    >>> usual = fit([age], {"age": np.linspace(20, 80, 30_001)})
    >>> usual.percentile({"age": np.array([50.0, 79.0, 110.0])}).round(2).tolist()
    [0.0, 0.97, 1.0]
    >>> (driver,) = usual.drivers({"age": np.array([79.0])})[0]
    >>> driver.columns, round(driver.share, 2)
    (('age',), 0.03)
    """
    n = len(rows[columns[0].name])
    if n < 2 * SMALLEST_CELL:
        raise NotEnoughDataError(f"{n} rows do not tell what is usual")
    step = -(-n // LARGEST)
    seen = {column.name: rows[column.name][::step] for column in columns}
    found = {c.name: _tails(seen[c.name]) for c in columns if c.kind in ("number", "integer")}
    tails = {name: of for name, of in found.items() if of}
    numbers = tuple(Number(columns=(name,), tails=of) for name, of in tails.items())
    pairs = tuple(_pairs({name: seen[name] for name in tails}))
    cells = tuple(_cells(column, seen[column.name]) for column in columns if column.name not in tails)
    scores = _tails(_score(_surprises((*numbers, *pairs, *cells), seen)))
    assert scores  # of that many rows
    return Novelty(rows=n, numbers=numbers, pairs=pairs, cells=cells, scores=scores)


def _surprises(asked: Sequence[Asked], rows: AnyRows) -> FloatArray:
    """(n, k), one column for each that is asked."""
    return np.column_stack([each.surprise(rows) for each in asked])


def _score(surprises: FloatArray) -> FloatArray:
    return np.asarray(np.sort(surprises, axis=1)[:, -STRANGEST:].sum(axis=1))


def _told(rows: npt.NDArray[np.bool_]) -> float:
    """The share of ``rows``, in steps of ``SMALLEST_CELL`` rows and never none: nobody is told apart.

    Of none the share is all: nobody says what is usual.
    """
    if len(rows) < SMALLEST_CELL:
        return 1.0
    steps = max(1, round(int(rows.sum()) / SMALLEST_CELL))
    return min(1.0, steps * SMALLEST_CELL / len(rows))


def _tails(values: FloatArray) -> Tails | None:
    """None where too few rows have a value."""
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return None
    at = sorted({float(f"{edge:.6g}") for edge in np.quantile(known, TOLD)})
    edges = [e for e in at if min((known <= e).sum(), (known >= e).sum()) >= SMALLEST_CELL]
    if not edges:
        return None
    first, last = edges[0], edges[-1]
    reach = first - known[known <= first].mean(), known[known >= last].mean() - last
    return Tails(
        edges=tuple(edges),
        below=tuple(_told(known <= edge) for edge in edges),
        above=tuple(_told(known >= edge) for edge in edges),
        reach=(max(float(reach[0]), NOWHERE), max(float(reach[1]), NOWHERE)),
    )


def _cells(column: Column, values: npt.NDArray[Any]) -> Cells:
    last = {"flag": 2, "category": len(column.categories)}.get(column.kind, 1)
    codes = _codes(values, last)
    sizes = np.bincount(codes, minlength=last + 1)
    # Among those who have one; of a number that hardly anybody has, having it is what is strange.
    among = codes if last == 1 else codes[codes < last]
    shares = [_told(sizes[among] <= size) for size in sizes[:last]]
    return Cells(columns=(column.name,), shares=(*shares, 1.0))


def _codes(values: npt.NDArray[Any], last: int) -> npt.NDArray[np.intp]:
    """The cell of each value; ``last`` where it is missing."""
    missing = values < 0 if values.dtype.kind == "i" else np.isnan(values)
    return np.where(missing, last, values if last > 1 else 0).astype(np.intp)


def _pairs(numbers: Mapping[str, FloatArray]) -> Iterator[Pair]:
    """Each number with the one that it goes with most closely, if it does at all."""
    if not numbers:
        return
    names, asked = list(numbers), set()
    correlation, slope = _related(np.array(list(numbers.values())))
    for first, second in enumerate(np.argmax(np.abs(correlation), axis=1).tolist()):
        both = frozenset((first, second))
        if both in asked or abs(correlation[first, second]) < RELATED:
            continue
        asked.add(both)
        columns, times = (names[first], names[second]), float(slope[first, second])
        tails = _tails(numbers[columns[0]] - times * numbers[columns[1]])
        if tails:
            yield Pair(columns=columns, slope=times, tails=tails)


def _related(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(k, k) correlation of each two of (k, n) numbers over the rows that have both, 0 with itself
    and where too few do; and the slope of the first on the second.
    """
    known = (~np.isnan(values)).astype(np.float64)
    centre = np.nanmean(values, axis=1, keepdims=True)  # for precision; it cancels
    centred = np.nan_to_num(values - centre)
    rows, total = known @ known.T, centred @ known.T  # total: of the first, where both are known
    spread = rows * (centred**2 @ known.T) - total**2
    common = rows * (centred @ centred.T) - total * total.T
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation, slope = common / np.sqrt(spread * spread.T), common / spread.T
    correlation[~np.isfinite(correlation) | (rows < TOGETHER)] = 0
    np.fill_diagonal(correlation, 0)
    return correlation, slope
