"""Boosted trees as tables of all that they can add to an explanation: path-dependent TreeSHAP.

What one leaf adds depends on the row only through the conditions on the way to it, one for each distinct
column: an interval, and whether a missing value counts as in it. Which of them hold is the index into a
table (Lundberg et al. 2020, Nat Mach Intell 2:56; the tables after Yang 2021, arXiv 2109.09847). Splits
that lie close together share one: with ``p`` columns above them, ``m`` splits need ``2 ** (p + m)``
rows, about as many as their leaves need together, and of these one is read instead of one a leaf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

LARGEST = 8_000_000
"""Numbers in all tables, 32 MB."""
MOST_BITS = 16
READING = 128.0
"""Reading a number is as dear as keeping this many: a table may be larger that serves more splits."""
AT_ONCE = 1 << 21
"""Numbers that are worked out together."""

FloatArray = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a row adds to the mean margin ``bias`` takes one lookup a table.

    A condition (conditions,) holds for a number of its ``column`` from ``low`` on and not from ``high``
    on, NaN where there is no such bound, and for a missing one where ``gap`` says so. ``asked`` names
    the conditions that make a table's index, those of table i from ``asks[i]`` on: the first is worth 1,
    the next 2, and so on. From ``start[i]`` on, ``numbers`` holds for each index what it adds to the
    outputs ``into``, which are those from ``intos[i]`` on.
    """

    bias: float
    column: Ints
    low: Singles
    high: Singles
    gap: npt.NDArray[np.bool_]
    asked: Ints
    asks: Ints
    into: Ints
    intos: Ints
    start: Ints
    numbers: Singles


class Interval(NamedTuple):
    """Numbers of a column, NaN where there is no bound; ``gap``: whether a missing one is in it."""

    column: int
    low: float = math.nan
    high: float = math.nan
    gap: bool = True


class Step(NamedTuple):
    """What a row must be in one column to come here; ``share``: of the training rows asked, who was."""

    interval: Interval
    share: float = 1.0


Above = Mapping[int, Step]
"""By column, in the order in which the columns were first asked."""


class Tree(msgspec.Struct):
    """One tree as XGBoost stores it: a leaf has no children, and its condition is its value."""

    left_children: list[int]
    right_children: list[int]
    split_indices: list[int]
    split_conditions: list[float]
    split_type: list[int]
    default_left: list[int]
    sum_hessian: list[float]

    @property
    def known(self) -> bool:
        """Whether all splits are of numbers, and rows came to each."""
        splits = [node for node, left in enumerate(self.left_children) if left >= 0]
        return not any(self.split_type) and all(self.sum_hessian[node] > 0 for node in splits)

    def is_leaf(self, node: int) -> bool:
        return self.left_children[node] < 0

    def children(self, node: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The left child and the right one, each with its share of the training rows at ``node``."""
        left, right, rows = self.left_children[node], self.right_children[node], self.sum_hessian
        return (left, rows[left] / rows[node]), (right, rows[right] / rows[node])

    def going_left(self, node: int) -> Interval:
        column, cut = self.split_indices[node], self.split_conditions[node]
        return Interval(column, high=cut, gap=bool(self.default_left[node]))

    def below(self, node: int, above: Above) -> tuple[Above, Above]:
        """What a row must be to come to the left child, and to the right one."""
        column, _, cut, gap_left = self.going_left(node)
        (_, low, high, gap), share = above.get(column) or Step(Interval(column))
        # Beside a NaN, min and max return their first argument.
        less = Interval(column, low, min(cut, high), gap and gap_left)
        more = Interval(column, max(cut, low), high, gap and not gap_left)
        (_, left), (_, right) = self.children(node)
        return {**above, column: Step(less, share * left)}, {**above, column: Step(more, share * right)}


class Cut(NamedTuple):
    """The roots of the tables below a node and what they cost; the outputs and splits below it."""

    roots: list[tuple[int, Above]]
    cost: float
    outputs: frozenset[int]
    splits: int


class Leaf(NamedTuple):
    """One leaf of a table that begins at ``start`` and is ``width`` wide.

    Of each distinct column: the ``share`` of the training rows that hold to its conditions, the bits of
    the table's index that are then ``one`` and ``nought``, and the ``place`` of its output in the table.
    """

    value: float
    start: int
    width: int
    share: tuple[float, ...]
    one: tuple[int, ...]
    nought: tuple[int, ...]
    place: tuple[int, ...]


def build(trees: Sequence[Tree], output: Sequence[int], base: float) -> Tables | None:
    """The tables of ``trees``. ``output`` names, of each column, the sum that its contributions go to;
    ``base`` is the margin before any tree. None where they would be larger than ``LARGEST``.
    """
    conditions: dict[Interval, int] = {}
    asked, asks, into, intos, start = [0] * 0, [0], [0] * 0, [0], [0]
    alike: dict[tuple[int, int], list[Leaf]] = {}
    for tree in trees:
        for root, above in _cut(tree, output, 0, {}).roots:
            bits = [step.interval for step in above.values()]
            ways = {
                column: (step.share, 1 << bit, 0) for bit, (column, step) in enumerate(above.items())
            }
            found = list(_leaves(tree, root, ways, bits))
            if not bits:  # a tree of one leaf says the same of everybody
                base += found[0][0]
                continue
            outputs = dict.fromkeys(output[column] for _, way in found for column in way)
            places = {of: place for place, of in enumerate(outputs)}
            for value, way in found:
                share, one, nought = zip(*way.values(), strict=True) if way else ((), (), ())
                place = tuple(places[output[column]] for column in way)
                leaf = Leaf(value, start[-1], len(places), share, one, nought, place)
                alike.setdefault((len(bits), len(way)), []).append(leaf)
            asked += [conditions.setdefault(interval, len(conditions)) for interval in bits]
            asks.append(len(asked))
            into += outputs
            intos.append(len(into))
            start.append(start[-1] + (len(places) << len(bits)))
            if start[-1] > LARGEST:
                return None
    numbers = np.zeros(start[-1])
    bias = base + sum(_fill(numbers, *key, leaves) for key, leaves in sorted(alike.items()))
    column, low, high, gap = zip(*conditions, strict=True) if conditions else ((), (), (), ())
    return Tables(
        bias=bias,
        column=np.array(column, dtype=np.intp),
        low=np.array(low, dtype=np.float32),
        high=np.array(high, dtype=np.float32),
        gap=np.array(gap, dtype=np.bool_),
        asked=np.array(asked, dtype=np.intp),
        asks=np.array(asks, dtype=np.intp),
        into=np.array(into, dtype=np.intp),
        intos=np.array(intos, dtype=np.intp),
        start=np.array(start, dtype=np.intp),
        numbers=numbers.astype(np.float32),
    )


def _cut(tree: Tree, output: Sequence[int], node: int, above: Above) -> Cut:
    """The tables that cost least: the numbers kept, and ``READING`` times those that a row reads."""
    outputs = frozenset(output[column] for column in above)
    if tree.is_leaf(node):
        return Cut([(node, above)], _cost(len(above), len(outputs)), frozenset(), 0)
    less, more = tree.below(node, above)
    left = _cut(tree, output, tree.left_children[node], less)
    right = _cut(tree, output, tree.right_children[node], more)
    inside = left.outputs | right.outputs | {output[tree.split_indices[node]]}
    splits = left.splits + right.splits + 1
    apart, together = left.cost + right.cost, _cost(len(above) + splits, len(inside | outputs))
    if together <= apart:
        return Cut([(node, above)], together, inside, splits)
    return Cut(left.roots + right.roots, apart, inside, splits)


def _cost(bits: int, outputs: int) -> float:
    return (2.0**bits + READING) * outputs if bits <= MOST_BITS else math.inf


Way = Mapping[int, tuple[float, int, int]]
"""By column: the share of the training rows that hold to it, and the index's bits that are 1 and 0."""


def _leaves(tree: Tree, node: int, way: Way, bits: list[Interval]) -> Iterator[tuple[float, Way]]:
    """The values of the leaves below ``node`` and the ways to them. A split adds a bit to ``bits``."""
    if tree.is_leaf(node):
        yield tree.split_conditions[node], way
        return
    bit = 1 << len(bits)
    bits.append(tree.going_left(node))
    column = tree.split_indices[node]
    share, one, nought = way.get(column, (1.0, 0, 0))
    (left, less), (right, more) = tree.children(node)
    yield from _leaves(tree, left, {**way, column: (share * less, one | bit, nought)}, bits)
    yield from _leaves(tree, right, {**way, column: (share * more, one, nought | bit)}, bits)


def _fill(numbers: FloatArray, bits: int, columns: int, leaves: Sequence[Leaf]) -> float:
    """Add to ``numbers`` what these leaves say, of tables of ``bits`` and that many columns each.

    Returns their part of the mean margin.
    """
    bias = 0.0
    step = max(1, AT_ONCE // (max(1, columns) << bits))
    for begin in range(0, len(leaves), step):
        some = leaves[begin : begin + step]
        value, start, width = (np.array(each) for each in list(zip(*some, strict=True))[:3])
        share, one, nought, place = (
            np.array(each).reshape(len(some), columns) for each in list(zip(*some, strict=True))[3:]
        )
        bias += float((value * share.prod(axis=1)).sum())
        index = np.arange(1 << bits)
        held = np.zeros((len(some), len(index)), dtype=np.intp)
        for c in range(columns):
            on, off = one[:, c, None], nought[:, c, None]
            held |= ((index & (on | off)) == on).astype(np.intp) << c
        said = shapley(value, share)
        row = start[:, None] + index * width[:, None]
        for c in range(columns):
            what = np.take_along_axis(said[..., c], held, axis=1)
            np.add.at(numbers, (row + place[:, c, None]).ravel(), what.ravel())
    return bias


def shapley(value: FloatArray, share: FloatArray) -> FloatArray:
    """(leaves, 2 ** k, k) what a leaf adds, for each set of columns that hold, to each of its k columns.

    ``share`` (leaves, k) is the part of the training rows that hold in each. A Shapley value is the
    integral over t in 0..1, the moment at which the column joins, of what it then changes (Owen 1972,
    Manage Sci 18:64): of value * (held - share) * the product over the others of t * held + (1 - t) *
    share. That is a polynomial, for which Gauss's quadrature of k / 2 points or more is exact.

    >>> shapley(np.array([8.0]), np.array([[0.5, 0.25]])).tolist()
    [[[-0.5, -0.5], [0.5, -1.5], [-2.5, 1.5], [2.5, 4.5]]]
    """
    k = share.shape[1]
    held = ((np.arange(1 << k) >> np.arange(k)[:, None]) & 1).astype(np.float64)
    found = np.zeros((k, len(share), 1 << k))
    for point, weight in zip(*np.polynomial.legendre.leggauss(1 + k // 2), strict=True):
        t = (point + 1) / 2
        factor = t * held[:, None, :] + (1 - t) * share.T[:, :, None]
        # Products of what stands before and after: no division by a share of nought.
        before = np.broadcast_to(value[:, None] * weight / 2, found.shape[1:])
        after = [np.ones_like(before)]
        for i in range(k - 1, 0, -1):
            after.append(after[-1] * factor[i])
        for i in range(k):
            found[i] += before * after[k - 1 - i]
            before = before * factor[i]
    found *= held[:, None, :] - share.T[:, :, None]
    return found.transpose(1, 2, 0)
