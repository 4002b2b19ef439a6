"""Tested columns as a person reads them: the furthest over its limit first, cells in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring import charts
from monitoring.drift import WORDS, Cells, percent

BARS = 12
"""Cells drawn of one."""
RISK = "risk"
_JUDGED = ("value", "threshold", "drifted")
_SHARE = re.compile(r"\d+(\.\d+)?(e-\d+)?")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One tested column, for a person. ``lost``: values went missing, or are suddenly there."""

    cells: Cells
    value: float
    threshold: float
    drifted: bool
    lost: bool

    @property
    def ratio(self) -> float:
        return self.value / self.threshold

    @property
    def name(self) -> str:
        return self.cells.label.en

    @property
    def over(self) -> bool:
        return self.drifted or self.lost

    @property
    def gauge(self) -> str:
        return charts.gauge(self.ratio, over=self.drifted)

    @property
    def bars(self) -> list[tuple[str, float, float, str]]:
        """Label, share at training, share now and picture; of many cells those that moved most."""
        labels = [WORDS.get(label, label) for label in self.cells.labels]
        if self.cells.column == RISK:
            labels = [_SHARE.sub(lambda found: percent(float(found[0])), label) for label in labels]
        bars = list(zip(labels, *(side.tolist() for side in self.cells.shares), strict=True))
        if len(bars) > BARS:
            most = sorted(bars, key=lambda bar: -abs(bar[2] - bar[1]))[:BARS]
            bars = [bar for bar in bars if bar in most]
        longest = max(max(then, now) for _, then, now in bars)
        return [
            (label, then, now, charts.pair(then, now, most=longest, over=self.drifted))
            for label, then, now in bars
        ]


def in_order(columns: Sequence[Mapping[str, Any]], cells: Sequence[Cells]) -> list[Line]:
    """The tests of drift, the furthest over its limit first."""
    of = {(row["column"], row["site"]): row for row in columns if row["statistic"] == "psi"}
    lost = {
        (row["column"], row["site"])
        for row in columns
        if row["statistic"] == "missing" and row["drifted"]
    }
    found = [
        Line(
            cells=one,
            **{name: of[one.column, one.site][name] for name in _JUDGED},
            lost=(one.column, one.site) in lost,
        )
        for one in cells
    ]
    order = sorted(found, key=lambda line: (-line.ratio, line.cells.column, line.cells.site or ""))
    return sorted(order, key=lambda line: not line.over)
