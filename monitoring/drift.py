"""Has the window left the reference? Cells, statistics and thresholds; pure.

**The statistic** is the population stability index over the cells of a column, "missing" a cell of
its own: PSI = sum (p - q) ln(p / q), p the window's share and q the reference's.

**The threshold** is an effect that matters plus what chance alone may add. Without drift
PSI is to first order sum (p - q)^2 / q, and p - q has the variance q (1 - q) (1/n + 1/m) for n people
in the window and m in the reference, so that PSI / (1/n + 1/m) follows chi-square with k - 1
degrees of freedom for k cells (Yurdakul & Naranjo 2020, J Risk Model Validation 14(4):89). With c
tests in one window (columns times sites)

    threshold = FLOOR + (1/n + 1/m) chi-square quantile(1 - ALPHA / c; k - 1).

0.1 is the customary border of a shift worth a look (Siddiqi 2006, Credit Risk Scorecards). The
quantile is Bonferroni's. It holds while cells are not rare, so those that are get merged first, and
for independent rows: n and m are what the rows are worth in patients (:func:`models.reference.worth`),
as somebody's visits resemble each other.

**A small site** that has fewer than ``MIN_ROWS`` risks in the window is judged with its last answers
before it, as many as make up that number: each look then holds some rows of the look before.

**Refusals.** The reference refused nothing: rows of the wrong type or unit never came into it. A
share of ``TOLERATED`` is everyday slips; more is drift once a binomial count would hardly reach it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrik, chdtri, ndtri

from data.contract import Text
from models.artifact import Artifact
from models.reference import ABSENT, OTHER, SMALLEST_CELL, Binned, ranges
from monitoring.counting import MIN_ROWS
from monitoring.window import Counts, Window

FLOOR = 0.1
ALPHA = 0.05
"""Chance of any false alarm among the tests that are made at once, unless told."""
LOST = 0.1
"""The share of rows in which a value is no longer recorded, or suddenly is, that is worth a look."""
TOLERATED = 0.005
EXPECTED = 5
"""The least count that chi-square wants in a cell (Cochran 1954, Biometrics 10:417)."""
SCALE = 10_000
"""Rows to which either side is drawn out for Evidently: its time must not grow with the window."""

WORDS = {ABSENT: "not recorded", OTHER: "all others", "false": "no", "true": "yes"}
"""What a person reads for a cell's label."""

Ints = npt.NDArray[np.intp]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the verdict. ``site`` None: all together. Without a threshold it is told only."""

    column: str
    site: str | None
    statistic: str
    value: float
    threshold: float | None
    drifted: bool


@dataclass(frozen=True, kw_only=True)
class Cells:
    """One column as tested: the same cells on both sides, none too rare.

    ``now`` and ``then`` are the true counts, ``drawn_now`` and ``drawn_then`` the same drawn out to
    ``SCALE`` rows with no cell empty. ``patients`` and ``trained``: what the rows of the window and of
    the reference are worth. ``missing`` holds the shares not recorded at training and now, from before
    any cell was merged.
    """

    column: str
    label: Text
    site: str | None
    labels: tuple[str, ...]
    now: Ints
    then: Ints
    drawn_now: Ints
    drawn_then: Ints
    patients: float
    trained: float
    missing: tuple[float, float]

    @property
    def rows(self) -> int:
        """Of the window."""
        return int(self.now.sum())

    @property
    def shares(self) -> tuple[FloatArray, FloatArray]:
        """Of each cell, at training and now."""
        return self.then / self.then.sum(), self.now / self.now.sum()

    @property
    def moved(self) -> str:
        """The cell that gained or lost most, in words."""
        then, now = self.shares
        most = int(np.argmax(np.abs(now - then)))
        label = WORDS.get(self.labels[most], self.labels[most])
        return f"“{label}” {percent(then[most])} at training, {percent(now[most])} now"


def tested(window: Window) -> Iterator[tuple[str | None, Counts]]:
    """All sites together, then each site with rows enough to be judged alone, earlier ones included."""
    if window.whole.rows >= MIN_ROWS:
        yield None, window.whole
    for name, counts in window.sites.items():
        if counts.rows + counts.earlier >= MIN_ROWS:
            yield name, counts


def cells_of(site: str | None, counts: Counts) -> list[Cells]:
    """The inputs and the risk that can be tested there; none under ``MIN_ROWS`` risks."""
    reference, patients = counts.reference, counts.patients
    enough = counts.scored and counts.scored + counts.earlier >= MIN_ROWS
    if reference is None or not enough or not patients:
        return []
    trained = (reference.patients or reference.rows) / max(1, reference.rows)
    found = (
        prepare(binned, counts.cells[binned.column], patients=patients, trained=trained, site=site)
        for binned in (*reference.columns, reference.risk)
        if binned.column in counts.cells
    )
    return [cells for cells in found if cells is not None]


def prepare(
    binned: Binned,
    window: Ints,
    *,
    patients: float | None = None,
    trained: float = 1.0,
    site: str | None = None,
) -> Cells | None:
    """Merge the cells too rare for the test, then draw both sides out to ``SCALE`` rows.

    A reference cell of 0 stands for anything that was too small to publish: it counts as half of
    ``SMALLEST_CELL``. An empty window cell counts as half a row. Else a logarithm of 0 would decide.
    ``patients``: what the window's rows are worth, by default each its own; ``trained``: what one of the
    reference is. None where either side is too small.
    """
    reference = np.array(binned.counts)
    n, m = int(window.sum()), int(reference.sum())
    if n < MIN_ROWS or m < MIN_ROWS:
        return None
    labels, groups = _merged(binned, window, reference * (n / m))
    now = np.array([window[group].sum() for group in groups])
    then = np.array([reference[group].sum() for group in groups])
    return Cells(
        column=binned.column,
        label=binned.label,
        site=site,
        labels=labels,
        now=now,
        then=then,
        drawn_now=scaled(np.where(now, now, 0.5)),
        drawn_then=scaled(np.where(then, then, SMALLEST_CELL / 2)),
        patients=n if patients is None else patients,
        trained=m * trained,
        missing=(float(reference[-1] / m), float(window[-1] / n)),
    )


def psi(window: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Population stability index of two sets of counts, none of them 0.

    >>> round(psi([30, 70], [50, 50]), 4)  # -0.2 ln(0.6) + 0.2 ln(1.4)
    0.1695
    """
    p, q = (side / side.sum() for side in (np.asarray(window, float), np.asarray(reference, float)))
    return float(((p - q) * np.log(p / q)).sum())


def scaled(counts: FloatArray) -> Ints:
    """``SCALE`` rows in the proportions of ``counts``, at least one a cell."""
    exact = counts / counts.sum() * SCALE
    rows = np.maximum(np.floor(exact), 1).astype(np.intp)
    order = np.argsort(-(exact - rows), kind="stable")
    short = SCALE - int(rows.sum())
    rows[order[: max(short, 0)]] += 1
    rows[int(np.argmax(rows))] += min(short, 0)
    return np.asarray(rows)


def threshold(cells: Cells, *, tests: int, alpha: float = ALPHA) -> float:
    """The PSI over which ``cells`` have drifted, where ``tests`` are made at once."""
    freedom = len(cells.labels) - 1
    if freedom < 1:
        return FLOOR
    scale = 1 / cells.patients + 1 / cells.trained
    return float(FLOOR + scale * chdtri(freedom, alpha / tests))


def judge(cells: Cells, value: float, *, tests: int, alpha: float = ALPHA) -> Finding:
    limit = threshold(cells, tests=tests, alpha=alpha)
    return Finding(
        column=cells.column,
        site=cells.site,
        statistic="psi",
        value=value,
        threshold=limit,
        drifted=value > limit,
    )


def missing(cells: Cells, *, tests: int, alpha: float = ALPHA) -> Finding:
    """By how much the share not recorded has changed: a loss of values, told apart from their shift.

    The threshold is ``LOST`` and what a difference of two shares reaches by chance (Wald).
    """
    then, now = cells.missing
    m = cells.trained
    pooled = (now * cells.patients + then * m) / (cells.patients + m)
    error = np.sqrt(pooled * (1 - pooled) * (1 / cells.patients + 1 / m))
    limit = float(LOST - ndtri(alpha / (2 * tests)) * error)
    return Finding(
        column=cells.column,
        site=cells.site,
        statistic="missing",
        value=now - then,
        threshold=limit,
        drifted=abs(now - then) > limit,
    )


def refusals(site: str | None, counts: Counts, *, tests: int, alpha: float = ALPHA) -> list[Finding]:
    """Share of rows refused for each field, of all rows there, the refused among them."""
    limit = refusal_limit(counts.rows, tests=tests, alpha=alpha)
    return [
        Finding(
            column=name,
            site=site,
            statistic="refused_share",
            value=rows / counts.rows,
            threshold=limit,
            drifted=rows / counts.rows > limit,
        )
        for name, rows in sorted(counts.refused.items())
    ]


def findings(window: Window, loaded: Artifact) -> tuple[list[Cells], list[Finding]]:
    """Every test of inputs and risks, over all sites and at each, and the cells that were tested.

    The chance of any false finding among them is what the spec's alarms may spend on one look.
    """
    watch = loaded.spec.watch
    alpha = watch.alpha / watch.looks
    slices = list(tested(window))
    cells = [found for site, counts in slices for found in cells_of(site, counts)]
    tests = max(1, 2 * len(cells) + sum(len(counts.refused) for _, counts in slices))
    found = [judge(one, psi(one.drawn_now, one.drawn_then), tests=tests, alpha=alpha) for one in cells]
    found += [missing(one, tests=tests, alpha=alpha) for one in cells if one.column != "risk"]
    for site, counts in slices:
        found += refusals(site, counts, tests=tests, alpha=alpha)
    return cells, found


def refusal_limit(rows: int, *, tests: int, alpha: float = ALPHA) -> float:
    """The share that chance exceeds in one of ``tests / ALPHA`` windows at most.

    >>> refusal_limit(1000, tests=50)
    0.013
    """
    return float(np.ceil(bdtrik(1 - alpha / tests, rows, TOLERATED)) / rows)


def _merged(
    binned: Binned, window: Ints, expected: FloatArray
) -> tuple[tuple[str, ...], list[list[int]]]:
    """Groups of cells to be tested as one, with their names.

    A cell stays where the reference leads one to expect ``EXPECTED`` rows, or where twice as many
    came unexpected: a column that is suddenly missing was never missing before.
    """
    rare = [bool(e < EXPECTED and w < 2 * EXPECTED) for w, e in zip(window, expected, strict=True)]
    last = len(window) - 1
    if binned.kept:
        rest = [i for i in range(len(window)) if rare[i] or binned.labels[i] == OTHER]
        groups = [[i] for i in range(len(window)) if i not in rest]
        if groups and _rare(rest, window, expected):
            # A handful among hundreds: wherever it goes it moves nothing.
            max(groups, key=lambda group: float(expected[group[0]])).extend(rest)
            rest = []
        names = tuple(binned.labels[group[0]] for group in groups)
        return ((*names, OTHER), [*groups, rest]) if rest else (names, groups)
    groups = [[i] for i in range(last)]
    while len(groups) > 1:
        poor = [i for i, group in enumerate(groups) if _rare(group, window, expected)]
        if not poor:
            break
        at = poor[0]
        weights = [float(expected[group].sum()) for group in groups]
        left = at > 0 and (at == len(groups) - 1 or weights[at - 1] <= weights[at + 1])
        first = at - 1 if left else at
        groups[first] += groups.pop(first + 1)
    names = ranges([binned.edges[group[-1]] for group in groups[:-1]])
    if rare[last]:
        groups[-1].append(last)
        return names, groups
    return (*names, ABSENT), [*groups, [last]]


def _rare(group: Sequence[int], window: Ints, expected: FloatArray) -> bool:
    cells = list(group)
    return bool(expected[cells].sum() < EXPECTED and window[cells].sum() < 2 * EXPECTED)


def percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
