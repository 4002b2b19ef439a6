"""Drift, attributed: which column, at which site, since which day. Pure.

A shift of the whole network measures about the same at each site; one of a few sites is thinned out
over all together. Whichever explains the
other is named, once; so is a new site that the others are unlike.

**Since when.** Within the window the day is sought that parts it best: the likelihood ratio of cells
counted before and after (a multinomial each), where it is larger than chance makes of all days tried,
and only if the part before still looked like training. Where the whole window is shifted it began
with it, or with the first of the windows before it that were shifted too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, xlogy

from models.artifact import Artifact
from models.watch import What
from monitoring import drift, new_sites
from monitoring.drift import Cells, Finding
from monitoring.signal import Signal
from monitoring.window import Counts, Window

THINNED = 2.0
"""How much larger a statistic is at a site than over all, where the site accounts for both."""
CHANCE = 1e-3
"""Of a day that parts a quiet window, over all days tried."""
FEWEST = 30
"""Rows on either side of the day."""
RISK = "risk"
SAYS: dict[str, What] = {
    "psi": "input_drift",
    "missing": "input_drift",
    "refused_share": "refusals",
}

Ints = npt.NDArray[np.intp]


def signals(
    window: Window,
    loaded: Artifact,
    cells: Sequence[Cells],
    findings: Iterable[Finding],
    earlier: Sequence[Mapping[str, Any]] = (),
    *,
    importance: Mapping[str, float] | None = None,
) -> list[Signal]:
    """One for each column that drifted: at the site that it is about, if it is one alone.

    ``importance``: column -> its share of the explanations at training, as :func:`important` gives it.
    One under the spec's ``watch.important`` is told and raises none; without it each counts.
    """
    columns = loaded.mart.columns
    labels = {column.name: column.label.en for column in columns} | {RISK: "The risk"}
    tested = {(found.column, found.site): found for found in cells}
    findings = list(findings)
    grown = [finding for finding in findings if finding.statistic == new_sites.STATISTIC]
    strangers = [finding.site or "" for finding in grown if finding.drifted]
    with_them: list[str] = []
    found: dict[tuple[str, bool], list[Finding]] = {}
    for finding in findings:
        if finding.drifted and finding.statistic in SAYS:
            refused = finding.statistic == "refused_share"
            found.setdefault((finding.column, refused), []).append(finding)
    raised = []
    for (column, refused), together in found.items():
        share = 1.0 if importance is None or column == RISK else importance.get(column, 0.0)
        if not refused and share < loaded.spec.watch.important:
            continue
        shown, sites = attributed(together)
        if not sites and new_sites.explain(window, shown, strangers):
            with_them.append(labels.get(column, column))
            continue
        site = shown.site if len(sites) == 1 else None
        place = _place(shown, sites)
        label, limit = labels.get(column, column), shown.threshold or 0.0
        first = since(window, shown, earlier)
        if refused:
            message = (
                f"{label}: {drift.percent(shown.value)} of requests {place} are refused for this "
                f"field; up to {drift.percent(limit)} is expected"
            )
        elif shown.statistic == "missing":
            then, now = tested[column, shown.site].missing
            message = (
                f"{label} is {'less' if now > then else 'more'} often recorded {place}: not recorded "
                f"in {drift.percent(then)} at training, {drift.percent(now)} now"
            )
        else:
            message = (
                f"{label} has shifted {place}: {tested[column, shown.site].moved} "
                f"(PSI {shown.value:.2f}, limit {limit:.2f})"
            )
        raised.append(
            Signal(
                what="prediction_drift" if column == RISK else SAYS[shown.statistic],
                message=f"{message}, since {first}",
                column=column,
                site=site,
                value=shown.value,
                limits=(None, limit),
                since=first,
            )
        )
    return [*new_sites.signals(window, grown, with_them), *raised]


def important(loaded: Artifact, at_promotion: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Column -> the largest share of the explanations that a feature which reads it carries."""
    rows = (at_promotion or {}).get("importance")
    if not rows:
        return None
    total = sum(row["mean_abs"] for row in rows) or 1.0
    shares = {row["feature"]: row["mean_abs"] / total for row in rows}
    found: dict[str, float] = {}
    for feature in loaded.features.features:
        for column in feature.reads:
            found[column] = max(found.get(column, 0.0), shares.get(feature.name, 0.0))
    return found


def attributed(found: Sequence[Finding]) -> tuple[Finding, list[Finding]]:
    """Of one column's findings the one to show, and the sites that account for them; none: all do.

    Where values went missing that is shown, and not that the cells moved with it.
    """
    lost = [finding for finding in found if finding.statistic == "missing"]
    found = lost or found
    sites = [finding for finding in found if finding.site is not None]
    together = [finding for finding in found if finding.site is None]
    if together:
        sites = [f for f in sites if abs(f.value) > THINNED * abs(together[0].value)]
    shown = max(sites or together or found, key=lambda f: abs(f.value) / (f.threshold or 1))
    return shown, sites


def since(window: Window, finding: Finding, earlier: Sequence[Mapping[str, Any]] = ()) -> str:
    """The first day of what was found, YYYY-MM-DD."""
    daily = _daily(window, finding)
    day = None if daily is None else parted(daily)
    if day is not None and not _shifted_before(window, finding, day):
        return f"{window.period.start + timedelta(days=day):%Y-%m-%d}"
    first = window.period.days[0]
    for report in reversed(earlier):
        if not any(_same(row, finding) for row in report["columns"]):
            break
        alarm = next((one for one in report["alarms"] if _about(one, finding)), None)
        first = (alarm or {}).get("since") or report["window"]["from"]
    return str(first)


def parted(daily: Ints) -> int | None:
    """The day (its place) from which ``daily`` counts (days, cells) are others, None where none is.

    >>> quiet, moved = [[30, 30]] * 10, [[50, 10]] * 5
    >>> parted(np.array(quiet + moved)), parted(np.array(quiet))
    (10, None)
    """
    before = np.cumsum(daily, axis=0)[:-1].astype(np.float64)
    after = daily.sum(axis=0) - before
    days = np.flatnonzero((before.sum(axis=1) >= FEWEST) & (after.sum(axis=1) >= FEWEST))
    cells = int((daily.sum(axis=0) > 0).sum())
    if not len(days) or cells < 2:
        return None
    ratio = 2 * (_likelihood(before[days]) + _likelihood(after[days]) - _likelihood(daily.sum(axis=0)))
    best = int(np.argmax(ratio))
    if chdtrc(cells - 1, ratio[best]) * len(days) > CHANCE:
        return None
    return int(days[best]) + 1


def _likelihood(counts: npt.NDArray[Any]) -> Any:
    """Log-likelihood of counts (..., cells) at their own shares."""
    total = counts.sum(axis=-1, keepdims=True)
    return xlogy(counts, counts / np.maximum(total, 1)).sum(axis=-1)


def _counts(window: Window, site: str | None) -> Counts:
    return window.whole if site is None else window.sites[site]


def _daily(window: Window, finding: Finding) -> Ints | None:
    if finding.statistic != "refused_share":
        return _counts(window, finding.site).daily.get(finding.column)
    # Which field was refused on which day is not kept; that requests were refused is.
    answers = window.answers
    there = (
        np.ones(len(answers), dtype=bool)
        if finding.site is None
        else answers.site == answers.sites.index(finding.site)
    )
    start = np.datetime64(window.period.start, "D")
    day = (answers.at[there].astype("datetime64[D]") - start).astype(np.intp)
    days = (window.period.end - window.period.start).days
    if days > 10 * 366 or not len(day):
        return None
    refused = answers.status[there] == 2
    return np.column_stack(
        [np.bincount(day[mask], minlength=days)[:days] for mask in (refused, ~refused)]
    )


def _shifted_before(window: Window, finding: Finding, day: int) -> bool:
    """Whether the part before ``day`` was no longer like training either."""
    if finding.statistic == "refused_share":
        return False
    counts = _counts(window, finding.site)
    assert counts.reference is not None
    binned = next(
        one for one in (*counts.reference.columns, counts.reference.risk) if one.column == finding.column
    )
    part = drift.prepare(binned, counts.daily[finding.column][:day].sum(axis=0))
    if part is None:
        return False
    return drift.psi(part.drawn_now, part.drawn_then) > drift.threshold(part, tests=1)


def _same(row: Mapping[str, Any], finding: Finding) -> bool:
    return bool(row["drifted"] and (row["column"], row["site"]) == (finding.column, finding.site))


def _about(alarm: Mapping[str, Any], finding: Finding) -> bool:
    return bool(alarm["column"] == finding.column and alarm["site"] in (None, finding.site))


def _place(shown: Finding, sites: Sequence[Finding]) -> str:
    if not sites:
        return "over all sites together"
    return f"at {shown.site}" if len(sites) == 1 else f"at {len(sites)} sites, most at {shown.site}"
