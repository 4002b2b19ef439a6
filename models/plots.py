"""Draws what ``models.metrics`` and ``models.curves`` return; computes nothing.

Every function takes a mapping of name to frame, the model first and its comparators after it, and
returns a matplotlib Figure. Figures are built without pyplot: it keeps every figure it ever made, which
a service or a long training run would never give back. matplotlib is imported on use, for it is slow.

Colours: Okabe & Ito 2008, Color Universal Design, told apart by the colour-blind; the dashes tell the
lines apart in black and white too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Frames = Mapping[str, pd.DataFrame]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 3)), (0, (8, 3)))
GREY = "#767676"  # 4.5:1 on white, the least that WCAG 2.2 takes for text
INK = "#222222"
SQUARE = (4.8, 4.8)
MEASURES = {"auroc": "AUROC", "auprc": "AUPRC", "oe": "Observed / expected", "slope": "Slope"}


def roc(curves: Frames, *, values: Mapping[str, float] | None = None, title: str = "") -> Figure:
    """ROC curves from ``curves.roc_curve``; ``values`` (AUROC by name) stand in the key."""
    figure, axes = _square(title)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    for k, (name, frame) in enumerate(curves.items()):
        axes.plot(frame["fpr"], frame["tpr"], label=_label(name, values), **_style(k))
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
    _key(axes, "lower right")
    return figure


def precision_recall(
    curves: Frames,
    *,
    values: Mapping[str, float] | None = None,
    prevalence: float | None = None,
    title: str = "",
) -> Figure:
    """Curves from ``curves.pr_curve``; ``prevalence`` is what a guess would reach."""
    figure, axes = _square(title)
    if prevalence is not None:
        axes.axhline(prevalence, color=GREY, linewidth=0.8)
        axes.text(0.01, prevalence + 0.01, "prevalence", color=GREY, fontsize=8, va="bottom")
    for k, (name, frame) in enumerate(curves.items()):
        found = frame[frame["recall"] > 0]  # before the first one is found there is nothing to share
        # Precision holds from one threshold to the next; a straight line between would flatter.
        axes.step(
            found["recall"], found["precision"], where="pre", label=_label(name, values), **_style(k)
        )
    axes.set(xlabel="Sensitivity (recall)", ylabel="Positive predictive value (precision)")
    _key(axes, "upper right")
    return figure


def calibration(
    curves: Frames, *, histograms: Frames | None = None, smooth: Frames | None = None, title: str = ""
) -> Figure:
    """Observed against predicted from ``curves.calibration_curve``, with Wilson intervals.

    Below it the histogram of the first model's risks (``curves.risk_histogram``): where nobody is, the
    curve means nothing. ``smooth``: ``curves.smoothed_calibration``, drawn as the line.
    """
    figure = canvas((4.8, 6.0))
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    plain(axes, title)
    plain(below, "")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    axes.annotate(
        "ideal",
        (0.93, 0.93),
        (-3, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        color=GREY,
        fontsize=8,
        ha="right",
    )
    for k, (name, frame) in enumerate(curves.items()):
        style = _style(k)
        line = (smooth or {}).get(name, frame)
        axes.plot(line["risk"], line["observed"], label=name, **style)
        reach = np.stack([frame["observed"] - frame["low"], frame["high"] - frame["observed"]])
        axes.errorbar(
            frame["risk"],
            frame["observed"],
            yerr=np.maximum(reach, 0),  # rounding alone can make it negative
            fmt="o",
            color=style["color"],
            markersize=4,
            elinewidth=0.9,
            zorder=style["zorder"],
        )
    end = furthest(curves, smooth)
    axes.set(ylabel="Observed share", xlim=(0, end), ylim=(0, end), aspect="equal")
    _key(axes, "upper left")
    for name, frame in list((histograms or {}).items())[:1]:
        _histogram(below, name, frame)
    below.set_visible(bool(histograms))
    (below if histograms else axes).set_xlabel("Predicted risk")
    axes.tick_params(labelbottom=not histograms)
    return figure


def furthest(curves: Frames, smooth: Frames | None = None) -> float:
    """Where the axes of :func:`calibration` end: of a rare outcome not at 1."""
    lines = [*curves.values(), *(smooth or {}).values()]
    highest = [
        frame[name].max() for frame in lines for name in ("risk", "observed", "high") if name in frame
    ]
    return next((end for end in (0.1, 0.2, 0.3, 0.5) if max(highest, default=1) <= end), 1.0)


def _histogram(axes: Any, name: str, frame: pd.DataFrame) -> None:
    """Those with the outcome upwards, those without downwards, each as shares of its own: an outcome
    that is rare would not be seen beside the rest.
    """
    for column, sign, colour, ink, words, at in (
        ("events", 1, COLOURS[0], COLOURS[0], "with the outcome", 0.96),
        ("non_events", -1, "#BBBBBB", GREY, "without", 0.04),
    ):
        total = frame[column].sum()
        axes.bar(
            frame["low"],
            sign * frame[column] / max(total, 1),
            frame["high"] - frame["low"],
            align="edge",
            color=colour,
            edgecolor="white",
            linewidth=0.5,
        )
        axes.text(
            0.99,
            at,
            f"{words}, n = {total:,}",
            color=ink,
            fontsize=8,
            ha="right",
            va="top" if sign > 0 else "bottom",
            transform=axes.transAxes,
        )
    up, down = (frame[column].max() / max(frame[column].sum(), 1) for column in ("events", "non_events"))
    axes.set_ylim(-1.2 * max(down, 0.01), max(1.2 * up + 0.35 * (up + down), 0.01))  # room for the words
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_ylabel(f"Share of each,\n{name[0].lower()}{name[1:]}", fontsize=8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * abs(value):.0f} %")
    axes.yaxis.get_major_locator().set_params(nbins=4)


def decision_curve(curves: Frames, *, title: str = "") -> Figure:
    """Net benefit from ``curves.net_benefit`` over thresholds, against treating all and none."""
    figure = canvas((6.4, 4.2))
    axes = figure.subplots()
    plain(axes, title)
    first = next(iter(curves.values()))
    t = first["threshold"].to_numpy()
    axes.plot(t, first["treat_none"], color=INK, linewidth=0.8)
    axes.plot(t, first["treat_all"], color=GREY, linewidth=1.2)
    ends = [("treat none", 0.0, INK)]
    for k, (name, frame) in enumerate(curves.items()):
        axes.plot(frame["threshold"], frame["model"], **_style(k))
        ends.append((name, float(frame["model"].iloc[-1]), COLOURS[k % len(COLOURS)]))
    top = max(float(frame[["model", "treat_all"]].max(axis=None)) for frame in curves.values())
    top = max(top, 1e-3) * 1.08
    # Below zero lies harm: a strip shows where a curve dives, all of it would flatten the rest.
    axes.set(xlim=(t.min(), t.max()), ylim=(-0.25 * top, top))
    _beside(axes, ends)
    shown = first[first["treat_all"].between(-0.2 * top, top)]
    if len(shown):
        # Where the line leaves the picture there is most room beside it.
        at, leaves = shown.iloc[-1], len(shown) < 0.8 * len(first)
        axes.annotate(
            "treat all",
            (at["threshold"], at["treat_all"]),
            (6, 0) if leaves else (-6, -6),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
            ha="left" if leaves else "right",
            va="bottom" if leaves else "top",
        )
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.set(xlabel="Threshold risk for acting", ylabel="Net benefit")
    return figure


def forest(
    by_group: pd.DataFrame, *, overall: float | None = None, metric: str = "auroc", title: str = ""
) -> Figure:
    """One measure with its interval in each subgroup of ``Evaluation.by_group``.

    A suppressed group keeps its line and says so: to leave it out would hide that it exists.
    """
    rows = by_group[by_group["metric"] == metric]
    lines: list[tuple[str, pd.Series | None]] = []
    for group, members in rows.groupby("group", sort=False):
        lines.append((str(group), None))
        lines += [(str(row["level"]), row) for _, row in members.iterrows()]
    figure = canvas((6.8, 1.1 + 0.24 * max(len(lines), 3)))
    axes = figure.subplots()
    plain(axes, title)
    if overall is not None:
        axes.axvline(overall, color=GREY, linewidth=0.8, linestyle=DASHES[1], zorder=0)
        axes.text(
            overall,
            1.005,
            "all",
            color=GREY,
            fontsize=8,
            ha="center",
            va="bottom",
            transform=axes.get_xaxis_transform(),
        )
    aside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    for k, (_, row) in enumerate(lines):
        if row is None:
            continue
        if row["suppressed"] or np.isnan(row["value"]):
            words = "too few to show" if row["suppressed"] else "not defined"
            axes.text(1.03, k, words, color=GREY, style="italic", **aside)
            continue
        axes.plot(
            [row["low"], row["high"]], [k, k], color=COLOURS[0], linewidth=1.4, solid_capstyle="butt"
        )
        axes.plot(row["value"], k, "s", color=COLOURS[0], markersize=5)
        spread = "" if np.isnan(row["low"]) else f"  ({row['low']:.2f}–{row['high']:.2f})"
        axes.text(1.03, k, f"{row['value']:.2f}{spread}", color=INK, **aside)
    names = [name if row is None else f"{name}   n = {row['n']:,}" for name, row in lines]
    axes.set_yticks(range(len(lines)), names, fontsize=8.5, color=INK)
    axes.tick_params(axis="y", length=0)
    for (_, row), label in zip(lines, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if row is None else "normal")
    axes.set(ylim=(len(lines) - 0.4, -0.6), xlabel=MEASURES.get(metric, metric))
    axes.spines["left"].set_visible(False)
    return figure


def utility(curves: Frames, *, chosen: float | None = None, title: str = "") -> Figure:
    """Columns threshold and utility: 0 for no alarm at all, 1 for the best. ``chosen``: the alert's."""
    figure = canvas((7.4, 4.2))
    axes = figure.subplots()
    plain(axes, title)
    axes.axhline(0, color=INK, linewidth=0.8)
    for k, (name, frame) in enumerate(curves.items()):
        axes.plot(frame["threshold"], frame["utility"], label=name, **_style(k))
    if chosen is not None:
        axes.axvline(chosen, color=GREY, linewidth=0.8, linestyle=DASHES[1], zorder=0)
        axes.annotate(
            f"alert at {100 * chosen:.2g} %",
            (chosen, 0),
            (4, 4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=GREY,
            fontsize=8,
        )
    # Far below zero alarms never end: how far, nobody needs to see.
    best = max([0.05, *(float(frame["utility"].max()) for frame in curves.values())])
    shown = pd.concat([frame[frame["utility"] > -0.4 * best] for frame in curves.values()])
    axes.set(xscale="log", ylim=(-0.4 * best, 1.1 * best))
    if len(shown):
        axes.set_xlim(shown["threshold"].min(), shown["threshold"].max())
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.set(xlabel="Threshold risk for an alarm", ylabel="Normalised utility")
    _key(axes, "upper left", bbox_to_anchor=(1, 1))
    return figure


def levels(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Rows of each true level (down) by the level given (across), the most urgent first.

    The colour is the share of the true level's rows. Right of the diagonal lies under-triage.
    """
    counts = table.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(counts / counts.sum(axis=1, keepdims=True))
    figure = canvas((2.6 + 0.95 * len(counts), 1.5 + 0.62 * len(counts)))
    axes = figure.subplots()
    plain(axes, title)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (true, given), value in np.ndenumerate(share):
        axes.text(
            given,
            true,
            f"{value:.0%}\n{counts[true, given]:,.0f}",
            color="white" if value > 0.55 else INK,
            fontsize=8.5,
            ha="center",
            va="center",
            fontweight="bold" if true == given else "normal",
        )
    places = range(len(counts))
    axes.set_xticks(places, [str(name) for name in table.columns], color=INK)
    axes.set_yticks(
        places,
        [f"{name}   n = {n:,.0f}" for name, n in zip(table.index, counts.sum(axis=1), strict=True)],
    )
    axes.tick_params(length=0, labelcolor=INK)
    axes.set(xlabel="Level given   (right of the diagonal: less urgent than the true one)")
    axes.set_ylabel("True level")
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def canvas(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=150, layout="constrained")


def _square(title: str) -> tuple[Figure, Any]:
    figure = canvas(SQUARE)
    axes = figure.subplots()
    plain(axes, title)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return figure, axes


def plain(axes: Any, title: str) -> None:
    """No box around it, and quiet numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, color=GREY)
    if title:
        axes.set_title(title, loc="left", fontsize=11)


def _style(k: int) -> dict[str, Any]:
    """The model, first, is the heavier line and lies on top."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k % len(DASHES)],
        "linewidth": 1.4 if k else 2.2,
        "zorder": 3 if k else 4,
    }


def _label(name: str, values: Mapping[str, float] | None) -> str:
    return name if values is None or name not in values else f"{name}  {values[name]:.2f}"


def _key(axes: Any, where: str, **more: Any) -> None:
    """Names in the colours of their lines, no box: curves that cross leave no room beside them."""
    axes.legend(loc=where, frameon=False, fontsize=9, labelcolor="linecolor", handlelength=2.4, **more)


def _beside(axes: Any, ends: list[tuple[str, float, str]]) -> None:
    """Names at the right ends of their lines, moved apart where they would cover each other."""
    low, high = axes.get_ylim()
    gap, at = (high - low) / 18, -np.inf
    for name, y, colour in sorted(ends, key=lambda end: end[1]):
        at = max(min(max(y, low), high), at + gap)
        axes.annotate(
            name,
            (1, at),
            (5, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
