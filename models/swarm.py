"""Draws contributions: what moves the risk of many patients, a point each. Computes nothing.

Like ``models.plots``, whose colours these are. Every point comes moved a little already; who is who must
not be told from a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.plots import COLOURS, GREY, INK, canvas, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW, MIDDLE, HIGH = COLOURS[0], "#A88FA8", COLOURS[1]
UNORDERED = COLOURS[2]
MISSING = "#B5B5B5"
BINS = 90
UNIT = "Contribution to the risk, in log-odds"


def beeswarm(points: pd.DataFrame, *, title: str = "") -> Figure:
    """Columns feature (its label), contribution, rank and ordered; a line a feature, as they come.

    ``rank`` from 0 to 1 is the place of the patient's value among all, NaN where it is missing; a
    feature that is not ``ordered`` (a category) has a colour of its own.
    """
    from matplotlib.colors import LinearSegmentedColormap

    names = list(dict.fromkeys(points["feature"]))
    figure = canvas((7.6, 1.3 + 0.36 * max(len(names), 3)))
    axes = figure.subplots()
    plain(axes, title)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=0)
    scale = LinearSegmentedColormap.from_list("rank", [LOW, MIDDLE, HIGH])
    reach = float(np.ptp(points["contribution"])) if len(points) else 0.0
    for k, name in enumerate(names):
        rows = points[points["feature"] == name]
        height = k + _spread(rows["contribution"].to_numpy(), reach)
        missing = rows["rank"].isna().to_numpy()
        colours = scale(rows["rank"].fillna(0).to_numpy())
        if not rows["ordered"].all():
            colours[:] = _rgba(UNORDERED)
        colours[missing] = _rgba(MISSING)
        axes.scatter(rows["contribution"], height, s=7, c=colours, linewidths=0, alpha=0.85, zorder=2)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel=UNIT)
    axes.spines["left"].set_visible(False)
    _scale(figure, axes, scale)
    return figure


def dependence(points: pd.DataFrame, *, title: str = "") -> Figure:
    """Columns feature, label (with its unit), value (NaN where missing) and contribution.

    A panel a feature. Those without the value stand apart, left of the axis's numbers.
    """
    names = list(dict.fromkeys(points["feature"]))
    columns = min(2, max(len(names), 1))
    figure = canvas((3.7 * columns, 2.9 * max(1, -(-len(names) // columns))))
    for k, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, k + 1)
        plain(axes, "")
        rows = points[points["feature"] == name]
        missing = rows["value"].isna()
        axes.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        known = rows[~missing]
        axes.scatter(
            known["value"], known["contribution"], s=6, color=COLOURS[0], alpha=0.45, linewidths=0
        )
        if missing.any():
            _apart(axes, rows.loc[missing, "contribution"].to_numpy())
        axes.set_xlabel(str(rows["label"].iloc[0]), fontsize=9)
        if k % columns == 0:
            axes.set_ylabel("Contribution (log-odds)", fontsize=9)
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=11)
    return figure


def _apart(axes: Any, contributions: npt.NDArray[np.float64]) -> None:
    low, high = axes.get_xlim()
    width = 0.16 * (high - low)
    place = low - width * np.linspace(0.35, 0.85, len(contributions))
    axes.scatter(place, contributions, s=6, color=MISSING, linewidths=0)
    axes.axvspan(low - 1.2 * width, low, color="#F4F4F4", zorder=-1)
    axes.text(
        low - 0.6 * width,
        0.99,
        "missing",
        color=GREY,
        fontsize=7.5,
        ha="center",
        va="top",
        transform=axes.get_xaxis_transform(),
    )
    axes.set_xlim(low - 1.2 * width, high)
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= high])


def _spread(values: npt.NDArray[np.float64], reach: float) -> npt.NDArray[np.float64]:
    """(n,) heights within 0.4 of the line, wider where more points fall together."""
    if not len(values) or not reach:
        return np.zeros(len(values))
    bins = np.floor((values - values.min()) / reach * BINS).astype(int)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins)
    start = np.cumsum(counts) - counts
    place = np.empty(len(values))
    place[order] = np.arange(len(values)) - start[bins[order]]
    side = np.where(place % 2 == 0, 1, -1) * np.ceil(place / 2)
    return np.asarray(0.38 * side / max(counts.max() / 2, 6))


def _rgba(colour: str) -> tuple[float, float, float, float]:
    from matplotlib.colors import to_rgba

    found: tuple[float, float, float, float] = to_rgba(colour)
    return found


def _scale(figure: Figure, axes: Any, scale: Any) -> None:
    """What the colours mean, beside the points."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    bar = figure.colorbar(ScalarMappable(cmap=scale), ax=axes, fraction=0.03, pad=0.02, aspect=30)
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.set_label("Value among these patients", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=8.5, length=0)
    bar.outline.set_visible(False)
    dots = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=colour, label=label)
        for colour, label in ((MISSING, "missing"), (UNORDERED, "category, has no order"))
    ]
    axes.legend(
        handles=dots,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=8.5,
        borderaxespad=0,
    )
