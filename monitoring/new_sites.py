"""A site that the version hardly knows: of which too few rows were in its training.

Its habits of measuring and its patients are its own, and nothing there is held to a reference. Where it
has grown to a part of all requests, that is told, with the columns that moved because of it: what is
like training without its rows has not drifted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from models.artifact import Artifact
from models.reference import MOST_SITES, SMALLEST_SITE, Binned, Reference
from monitoring import drift
from monitoring.counting import MIN_ROWS
from monitoring.drift import Finding
from monitoring.rates import wilson
from monitoring.signal import Signal
from monitoring.strata import SITE
from monitoring.window import Window

STATISTIC = "unknown_share"
LEAST = 0.02
"""Of the requests: a site that sends less changes nothing for the others."""


def findings(window: Window, loaded: Artifact) -> list[Finding]:
    """The share of the requests that each site sends of which the version has no reference.

    None of a version that has no references of sites.
    """
    known = loaded.reference.sites
    if not known or window.whole.rows < MIN_ROWS:
        return []
    strangers = {name: one.rows for name, one in window.sites.items() if one.reference is None}
    watch, limit = loaded.spec.watch, tolerated(loaded.reference)
    z = float(-ndtri(watch.alpha / watch.looks / max(1, len(strangers))))
    return [
        Finding(
            column=SITE,
            site=name,
            statistic=STATISTIC,
            value=rows / window.whole.rows,
            threshold=limit,
            drifted=wilson(rows, window.whole.rows, z=z)[0] > limit,
        )
        for name, rows in strangers.items()
    ]


def tolerated(reference: Reference) -> float:
    """The share that a site without a reference may have had at training, and twice that."""
    full = len(reference.sites) >= MOST_SITES
    largest = min(one.rows for one in reference.sites.values()) if full else SMALLEST_SITE
    return max(LEAST, 2 * largest / reference.rows)


def signals(window: Window, found: Sequence[Finding], moved: Sequence[str]) -> list[Signal]:
    """One for each site that has grown large. ``moved``: labels of the columns that moved with them."""
    raised = []
    for one in found:
        if not one.drifted:
            continue
        first = _first(window, one.site or "")
        message = (
            f"{one.site} sends {drift.percent(one.value)} of the requests and was hardly among the "
            f"training rows, since {first}: its risks are given by what is known of the other sites"
        )
        if moved:
            message += f". With it moved, and elsewhere did not: {', '.join(moved)}"
        raised.append(
            Signal(
                what="input_drift",
                message=message,
                column=SITE,
                site=one.site,
                value=one.value,
                limits=(None, one.threshold),
                since=first,
            )
        )
    return raised


def explain(window: Window, finding: Finding, strangers: Sequence[str]) -> bool:
    """Whether a column that moved over all sites is like training without the rows of ``strangers``."""
    reference = window.whole.reference
    if finding.site is not None or not strangers or reference is None:
        return False
    every: Sequence[Binned] = (*reference.columns, reference.risk)
    binned = next((one for one in every if one.column == finding.column), None)
    if binned is None or finding.column not in window.whole.cells:
        return False
    rest = window.whole.cells[finding.column] - sum(
        window.sites[name].cells[finding.column]
        for name in strangers
        if finding.column in window.sites[name].cells
    )
    cells = drift.prepare(binned, np.maximum(rest, 0))
    if cells is None:
        return False
    if finding.statistic == "missing":
        return not drift.missing(cells, tests=1).drifted
    return drift.psi(cells.drawn_now, cells.drawn_then) <= drift.threshold(cells, tests=1)


def _first(window: Window, name: str) -> str:
    """The first day on which it was heard of, of the past year."""
    days = [
        answers.at[answers.site == answers.sites.index(name)]
        for answers in (window.past, window.answers)
        if name in answers.sites
    ]
    first = min(part.min() for part in days if len(part))
    return str(first.astype("datetime64[D]"))
