"""The plots of a version, as PNG: frames are computed here, ``models.plots`` and ``models.swarm`` draw.

Where points stand for patients (a thousand, drawn at random) they are moved a little and no number of
theirs is kept.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data import marts
from models import curves, metrics, plots, swarm, utility
from models.artifact import LOGISTIC, TREES, Artifact
from models.cohort import Cohort
from models.comparator import MAJORITY
from models.feature import Feature
from models.scores import SCORES
from models.series import SERIES
from training.answers import Answers, answered, around
from training.evaluate import tables

FloatArray = npt.NDArray[np.float64]
SHOWN = 15
"""Features in the beeswarm; those after them hardly move a risk."""
NUMBERS = 4
BINS = 20
JITTER = 0.006
"""Of the range of the values: a point says about where a patient stands, not what was charted."""
OUTERMOST = 0.005
"""The share of values at each end that is left out: they squeeze the rest and are easily recognised."""
STEPS = 200
UNITS = {"a": "years", "d": "days", "h": "hours", "Cel": "°C", "mm[Hg]": "mmHg", "[pH]": "", "1": ""}
"""UCUM as people write it; what stands in braces there is no unit."""


def draw(
    fitted: Artifact,
    cohort: Cohort,
    *,
    figures: Mapping[str, Any] | None = None,
    answers: Answers | None = None,
) -> dict[str, bytes]:
    """Name -> PNG, the comparators beside the model.

    ``figures``: what ``training.evaluate`` found on the same rows; without them no plot is drawn of what
    needs intervals (subgroups) or the levels given. ``answers``: those that the figures were made from.
    """
    told = answered(fitted, cohort) if answers is None else answers
    drawn = {**_curves(fitted, cohort, told), **_explained(fitted, cohort, told)}
    if fitted.spec.lookback is not None:
        drawn["utility"] = _utility(fitted, cohort, told)
    if figures is not None:
        drawn |= _grouped(fitted, figures)
        if figures["triage"]:
            drawn["levels"] = _levels(fitted, figures["triage"])
    return {name: _png(figure) for name, figure in drawn.items()}


def _risks(told: Answers) -> dict[str, FloatArray]:
    """By the names that people read. The majority's is the line of a guess in every plot."""
    learners = {LOGISTIC: "Logistic regression", TREES: "Boosted trees"}
    named = learners | {name: of.label.en for name, of in SCORES.items()}
    rivals = {named[name]: risk for name, risk in told.rivals.items() if name != MAJORITY}
    return {"This model": told.risk, **rivals}


def _curves(fitted: Artifact, cohort: Cohort, told: Answers) -> dict[str, Any]:
    y, risks = cohort.outcome, _risks(told)
    thresholds = np.linspace(*fitted.spec.benefit, STEPS)
    some = dict(list(risks.items())[:2])  # more curves with their bins would hide each other
    bins = {name: curves.calibration_curve(y, risk) for name, risk in some.items()}
    smooth = {name: curves.smoothed_calibration(y, risk) for name, risk in some.items()}
    fine = round(BINS / plots.furthest(bins, smooth))
    return {
        "roc": plots.roc(
            {name: _thin(curves.roc_curve(y, risk)) for name, risk in risks.items()},
            values={name: metrics.auroc(y, risk) for name, risk in risks.items()},
        ),
        "precision_recall": plots.precision_recall(
            {name: _thin(curves.pr_curve(y, risk)) for name, risk in risks.items()},
            values={name: metrics.auprc(y, risk) for name, risk in risks.items()},
            prevalence=float(y.mean()),
        ),
        "calibration": plots.calibration(
            bins,
            histograms={name: curves.risk_histogram(y, risk, bins=fine) for name, risk in some.items()},
            smooth=smooth,
        ),
        "decision_curve": plots.decision_curve(
            {name: curves.net_benefit(y, risk, thresholds) for name, risk in risks.items()}
        ),
    }


def _explained(fitted: Artifact, cohort: Cohort, told: Answers) -> dict[str, Any]:
    """The contributions of the rows explained, and the values that they belong to."""
    scored, rng = told.explained, np.random.default_rng(0)
    near, at = around(cohort, told.positions)
    order = np.argsort(-np.abs(scored.contributions).mean(axis=0), kind="stable")
    swarmed: list[pd.DataFrame] = []
    numbers: list[pd.DataFrame] = []
    for k in order:
        feature = fitted.features.features[k]
        # A category has a column for each; a series' first column is the last known value.
        ordered = "=" not in feature.parts[0]
        value = np.asarray(feature.fill(near)[at], dtype=np.float64)
        first, moved = value[:, 0], scored.contributions[:, k]
        if len(swarmed) < SHOWN:
            ranks = pd.Series(first).rank(pct=True).to_numpy()
            missing = np.isnan(value).all(axis=1)
            rank = np.where(missing, np.nan, ranks if ordered else 0.5)
            swarmed.append(
                pd.DataFrame(
                    {
                        "feature": feature.label.en,
                        "contribution": moved + rng.normal(0, 0.002, len(moved)),
                        "rank": rank,
                        "ordered": ordered,
                    }
                )
            )
        if ordered and len(numbers) < NUMBERS and len(np.unique(first[~np.isnan(first)])) > 2:
            frame = pd.DataFrame({"value": _moved(first, rng), "contribution": moved})
            kept = frame["value"].notna() | np.isnan(first)
            numbers.append(frame[kept].assign(feature=feature.name, label=_label(feature)))
    return {
        "beeswarm": swarm.beeswarm(pd.concat(swarmed)),
        **({"dependence": swarm.dependence(pd.concat(numbers))} if numbers else {}),
    }


def _label(feature: Feature) -> str:
    unit = UNITS.get(feature.unit or "", feature.unit or "")
    return feature.label.en if not unit or "{" in unit else f"{feature.label.en}, {unit}"


def _moved(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The values, each moved a little; NaN in place of the outermost."""
    low, high = np.nanquantile(values, (OUTERMOST, 1 - OUTERMOST))
    inner = np.where((values >= low) & (values <= high), values, np.nan)
    return np.asarray(inner + rng.uniform(-1, 1, len(values)) * JITTER * (high - low))


def _utility(fitted: Artifact, cohort: Cohort, told: Answers) -> Any:
    """The utility of hourly alarms at every threshold that matters."""
    alarm, silence = utility.rewards(cohort.rows[SERIES], cohort.order, cohort.outcome)
    gain = alarm - silence
    best = np.maximum(gain, 0).sum()
    lines = {}
    for name, risk in _risks(told).items():
        order = np.argsort(-risk, kind="stable")
        reached = np.cumsum(gain[order]) / best
        frame = pd.DataFrame({"threshold": risk[order], "utility": reached})
        frame = frame.drop_duplicates("threshold", keep="last")  # equal risks alarm together
        lines[name] = _thin(frame[frame["threshold"] > 0])
    return plots.utility(lines, chosen=fitted.spec.alert_at)


def _grouped(fitted: Artifact, figures: Mapping[str, Any]) -> dict[str, Any]:
    groups = tables(figures)["groups"]
    if groups.empty:
        return {}
    groups = groups.astype({"value": float, "low": float, "high": float})
    mart = marts.load(fitted.spec.mart)  # the artifact's own lacks what is only audited
    groups["group"] = [mart[name].label.en for name in groups["group"]]
    auroc, oe = figures["auroc"]["value"], figures["calibration"]["oe"]
    return {
        "subgroups": plots.forest(groups, overall=auroc, metric="auroc"),
        "subgroups_oe": plots.forest(groups, overall=oe, metric="oe"),
    }


def _levels(fitted: Artifact, triage: Mapping[str, Any]) -> Any:
    assert fitted.spec.triage is not None
    names = [level.label.en for level in fitted.spec.triage.levels]
    short = [str(level.value) for level in fitted.spec.triage.levels]
    return plots.levels(pd.DataFrame(triage["table"], index=names, columns=short))


def _thin(frame: pd.DataFrame, most: int = 2000) -> pd.DataFrame:
    """Every so many rows of a curve, its ends among them: a picture has no room for more."""
    if len(frame) <= most:
        return frame
    return frame.iloc[np.unique(np.linspace(0, len(frame) - 1, most).astype(int))]


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
