"""The arithmetic of a window: who is drawn, which cell a value falls into, what day it was; pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from data.contract import Column
from data.period import Period
from models.reference import Binned
from monitoring.answers import STATUS, Answers

MIN_ROWS = 100
"""Of a window or of one site in it; with fewer, a threshold of more than 0.4 finds nothing."""
MOST_DAYS = 400
"""Of a longer window nothing is counted day by day."""
UNDECLARED = "(field that the model does not declare)"

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Faults = dict[int, Collection[tuple[str, str]]]
"""Place of a row without a risk -> (field, rule) of each reason."""
_REASONS = msgspec.json.Decoder(list[dict[str, str]])


def drawn(
    answers: Answers, marks: FloatArray, known: Sequence[str], most: int, most_of_site: int
) -> tuple[BoolArray, BoolArray]:
    """Masks of the rows to be opened, and of those among them that count for all sites together.

    A row is drawn where its mark is under the bound of all, or that of its site, which is no lower:
    so each of the two is a random sample of its own.
    """
    scored = answers.scored
    every = min(1.0, most / max(1, int(scored.sum())))
    of_site = np.bincount(answers.site[scored & (answers.site >= 0)], minlength=len(answers.sites))
    bounds = np.full(len(answers.sites) + 1, every)  # the last is of no site
    for place, name in enumerate(answers.sites):
        if name in known:
            bounds[place] = max(every, min(1.0, most_of_site / max(1, int(of_site[place]))))
    return scored & (marks < bounds[answers.site]), scored & (marks < every)


def completing(now: Answers, past: Answers, known: Sequence[str]) -> BoolArray:
    """Mask of ``past``: the last risks of each known site that was given few now, up to ``MIN_ROWS``.

    A site that sent nothing now is silent, and is not judged by what it sent before.
    """
    found = np.zeros(len(past), dtype=bool)
    for place, name in enumerate(now.sites):
        there = now.site == place
        rows = int((now.scored & there).sum())
        if name in known and there.any() and rows < MIN_ROWS:
            found[np.flatnonzero(past.scored & (past.site == place))[rows - MIN_ROWS :]] = True
    return found


def faults_of(
    declared: Collection[str], answers: Answers, reasons: Mapping[int, str | None]
) -> tuple[Faults, BoolArray]:
    """Why rows were given no risk, from the log's JSON, and the mask of those that do not tell.

    ``declared``: the fields that may be named.
    """
    refused = STATUS.index("refused")
    unread = np.zeros(len(answers), dtype=bool)
    found: Faults = {}
    known: dict[tuple[str, str], Collection[tuple[str, str]] | None] = {}
    for place, text in reasons.items():
        rule = "reason" if answers.status[place] == refused else "rule"
        asked = text or "[]", rule
        if asked not in known:  # many rows break the same rule
            try:
                told = _REASONS.decode(asked[0])
                # A caller may put anything into the name of a field, a patient's included.
                known[asked] = {
                    (one["field"] if one["field"] in declared else UNDECLARED, one[rule]) for one in told
                }
            except (msgspec.MsgspecError, UnicodeError, KeyError):
                known[asked] = None
        pairs = known[asked]
        if pairs is None:
            unread[place] = True
        else:
            found[place] = pairs
    return found, unread


@dataclass(frozen=True)
class Days:
    """The day of each answer, counted from the first of the period; one in all of a long period."""

    day: Ints
    days: int

    @classmethod
    def of(cls, period: Period, answers: Answers) -> Days:
        days = (period.end - period.start).days
        if days > MOST_DAYS:
            return cls(np.zeros(len(answers), dtype=np.intp), 0)
        first = np.datetime64(period.start, "D")
        return cls((answers.at.astype("datetime64[D]") - first).astype(np.intp), days)


def by_site(answers: Answers, rows: Ints) -> dict[str, Ints]:
    """Site -> places in ``rows``."""
    site = answers.site[rows]
    order = np.argsort(site, kind="stable")
    ends = np.searchsorted(site[order], np.arange(len(answers.sites) + 1))
    return {name: order[ends[at] : ends[at + 1]] for at, name in enumerate(answers.sites)}


def cells_of(binned: Binned, column: Column, values: npt.NDArray[Any]) -> Ints:
    """The cell of each typed value."""
    if not binned.kept or column.kind not in ("flag", "category"):
        return binned.assign(values)
    names = ["false", "true"] if column.kind == "flag" else [one.id for one in column.categories]
    # The missing last, where a category's -1 finds it.
    cells = binned.assign([*names, None])
    codes = np.where(np.isnan(values), 2, values).astype(np.intp) if column.kind == "flag" else values
    return np.asarray(cells[codes])


def tally(binned: Binned, cells: Ints, day: Ints, days: int) -> tuple[Ints, Ints | None]:
    """Rows in each cell, and the same by day (days, cells); None where there are no days."""
    size = len(binned.labels)
    if not days:
        return np.bincount(cells, minlength=size), None
    daily = np.bincount(day * size + cells, minlength=days * size).reshape(days, size)
    return daily.sum(axis=0), daily


def sums(names: Sequence[str], contributions: FloatArray) -> dict[str, tuple[int, float, float]]:
    told = np.abs(contributions[~np.isnan(contributions).any(axis=1)])
    sums, squares = told.sum(axis=0).tolist(), (told**2).sum(axis=0).tolist()
    return {name: (len(told), *both) for name, *both in zip(names, sums, squares, strict=True)}
