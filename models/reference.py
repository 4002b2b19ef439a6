"""What a version's training inputs looked like: binned counts, and no patient's row.

Monitoring holds production against it. A cell with fewer than ``SMALLEST_CELL`` people is merged
with its neighbour (numbers) or into "other" (categories), so that no count points at a person.
Sites differ in whom they see and what they measure, so each large one has a reference of its own:
held against all sites together, a clinic that counts no breaths would always look changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data.contract import Column, Text
from data.parse import MISSING

SMALLEST_CELL = 20
MOST_BINS = 10
MOST_CATEGORIES = 20  # with a cell of their own; a test over more would find nothing in a small window
SMALLEST_SITE = 200  # training rows; under that ten cells say little of a site
MOST_SITES = 30
OTHER = "other"
ABSENT = "missing"


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Counts of one column. ``labels`` and ``counts`` are of equal length; the last is "missing".

    ``edges`` are the inner edges of a number's bins (a value on an edge belongs to the upper
    one); ``kept`` the categories with a cell of their own.
    """

    column: str
    label: Text
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    kept: tuple[str, ...] = ()

    def assign(self, values: Sequence[Any] | npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """The cell of each value, as JSON shows it (number, bool, category id or None)."""
        last = len(self.labels) - 1
        if self.kept:
            cells = {name: index for index, name in enumerate(self.kept)}
            other = cells.get(OTHER, last - 1)
            # Each distinct value once: a window has many rows and few categories.
            found = pc.dictionary_encode(pa.array(values, from_pandas=True).cast(pa.string()))
            lookup = [cells.get(value, other) for value in found.dictionary.to_pylist()] + [last]
            codes = pc.fill_null(found.indices, len(lookup) - 1).to_numpy(zero_copy_only=False)
            return np.asarray(np.array(lookup, dtype=np.intp)[codes])
        numbers = np.array(values, dtype=np.float64)  # None becomes NaN
        above = np.searchsorted(self.edges, numbers, side="right")
        return np.where(np.isnan(numbers), last, above).astype(np.intp)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The inputs at training, and the risks given to the tuning rows, which no tree has seen.

    ``sites``: the same of each of the ``MOST_SITES`` largest sites with ``SMALLEST_SITE`` rows, on
    cells of its own. Where a site has no tuning rows its risk has no counts. ``patients``: what the rows
    are worth in patients (see :func:`worth`); None in a version that was trained before it was kept.
    """

    rows: int
    columns: tuple[Binned, ...]
    risk: Binned
    patients: float | None = None
    sites: Mapping[str, Reference] = field(default_factory=dict)


def worth(person: npt.NDArray[Any]) -> float:
    """How many independent rows tell as much as these, of whom each is ``person``'s.

    n² over the sum of squares of each person's rows: somebody's visits resemble each other, and of a
    few who come often less is learned than of as many who come once. For what never changes in a person
    it is exact, for anything else it is careful. Source: Kish 1965, Survey Sampling.

    >>> worth(np.array([1, 2, 3, 4])), worth(np.array([1, 1, 2, 2])), worth(np.array([1, 1, 1, 2]))
    (4.0, 2.0, 1.6)
    """
    rows = np.unique(person, return_counts=True)[1].astype(np.float64)
    return float(rows.sum() ** 2 / (rows**2).sum()) if len(rows) else 0.0


def build(
    rows: Mapping[str, npt.NDArray[Any]],
    columns: Sequence[Column],
    risk: npt.NDArray[np.float64],
    *,
    site: npt.NDArray[Any] | None = None,
    risk_site: npt.NDArray[Any] | None = None,
    person: npt.NDArray[Any] | None = None,
) -> Reference:
    """Bin each of ``columns`` over ``rows``; ``risk`` may be of other rows.

    ``site`` names the site of each row, ``risk_site`` that of each risk; without the first no site
    has a reference of its own. ``person``: whose each row is; without it each is another's.
    """
    everywhere = np.ones(len(rows[columns[0].name]), dtype=bool)
    people = np.arange(len(everywhere)) if person is None else person
    if site is None:
        return _reference(rows, columns, {"": everywhere}, {"": risk}, people)[""]
    of_row, of_risk = site.astype(str), (np.array([]) if risk_site is None else risk_site.astype(str))
    names, sizes = np.unique(of_row, return_counts=True)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MOST_SITES])
    large = [str(names[index]) for index in largest if sizes[index] >= SMALLEST_SITE]
    masks = {"": everywhere, **{name: of_row == name for name in large}}
    risks = {name: risk[of_risk == name] if risk_site is not None else risk[:0] for name in large}
    found = _reference(rows, columns, masks, {"": risk, **risks}, people)
    return replace(found.pop(""), sites=found)


def _reference(
    rows: Mapping[str, npt.NDArray[Any]],
    columns: Sequence[Column],
    masks: Mapping[str, npt.NDArray[np.bool_]],
    risks: Mapping[str, npt.NDArray[np.float64]],
    people: npt.NDArray[Any],
) -> dict[str, Reference]:
    """A reference for each mask. Column by column, since a column may have to be read from disk."""
    binned: dict[str, list[Binned]] = {name: [] for name in masks}
    for column in columns:
        values = rows[column.name]
        for name, mask in masks.items():
            binned[name].append(_bin(column, values[mask]))
    return {
        name: Reference(
            rows=int(mask.sum()),
            columns=tuple(binned[name]),
            risk=_bin_numbers(risks[name], name="risk", label=Text("Risk", "风险")),
            patients=worth(people[mask]),
        )
        for name, mask in masks.items()
    }


def _bin(column: Column, values: npt.NDArray[Any]) -> Binned:
    if column.kind in ("number", "integer"):
        return _bin_numbers(values, name=column.name, label=column.label)
    missing = MISSING[column.kind](values)
    names = ["false", "true"] if column.kind == "flag" else [c.id for c in column.categories]
    counts = np.bincount(values[~missing].astype(np.intp), minlength=len(names))
    # A category of the mart that is itself called "other" is part of the rest.
    by_size = np.argsort(-counts, kind="stable")
    large = [i for i in by_size if counts[i] >= SMALLEST_CELL and names[i] != OTHER][:MOST_CATEGORIES]
    rest = int(counts.sum() - counts[large].sum())
    # A rest of its own under the limit joins the smallest cell that is shown.
    if 0 < rest < SMALLEST_CELL and large:
        rest += int(counts[large.pop()])
    large.sort()
    kept = [names[index] for index in large]
    cells = [*(int(counts[index]) for index in large), rest]
    return Binned(
        column=column.name,
        label=column.label,
        labels=(*kept, OTHER, ABSENT),
        counts=_safe(cells, int(missing.sum())),
        kept=(*kept, OTHER),
    )


def _bin_numbers(values: npt.NDArray[np.float64], *, name: str, label: Text) -> Binned:
    present = values[~np.isnan(values)]
    edges: list[float] = []
    if len(present):
        quantiles = np.quantile(present, np.linspace(0, 1, MOST_BINS + 1)[1:-1])
        # As people read them, and no two alike: a decile of 36.6 is not 36.599999999999994.
        rounded = sorted({float(f"{edge:.4g}") for edge in quantiles})
        edges = [edge for edge in rounded if edge > present.min()]
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    while edges and counts.min() < SMALLEST_CELL:
        smallest = int(np.argmin(counts))
        # Merge with the smaller neighbour: drop the edge between the two.
        left = smallest > 0 and (
            smallest == len(counts) - 1 or counts[smallest - 1] <= counts[smallest + 1]
        )
        edges.pop(smallest - 1 if left else smallest)
        counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    return Binned(
        column=name,
        label=label,
        labels=(*ranges(edges), ABSENT),
        counts=_safe([int(count) for count in counts], int(np.isnan(values).sum())),
        edges=tuple(edges),
    )


def ranges(edges: Sequence[float]) -> tuple[str, ...]:
    """What the bins between ``edges`` are called.

    >>> ranges([36.5, 38])
    ('under 36.5', '36.5 to 38', '38 and over')
    """
    if not edges:
        return ("any",)
    shown = [f"{edge:g}" for edge in edges]
    inner = (f"{low} to {high}" for low, high in pairwise(shown))
    return (f"under {shown[0]}", *inner, f"{shown[-1]} and over")


def _safe(cells: list[int], missing: int) -> tuple[int, ...]:
    """The counts to publish, missing last. A missing cell too small for that joins the largest
    one, so that not even the difference to the number of rows tells it.
    """
    counts = [*cells, missing]
    if missing < SMALLEST_CELL:
        counts[-1] = 0
        counts[int(np.argmax(cells))] += missing
    return tuple(counts) if sum(counts) >= SMALLEST_CELL else (0,) * len(counts)
