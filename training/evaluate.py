"""How good a version is on rows that it has not seen: itself, its comparators, each subgroup."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from data.contract import Mart
from data.errors import NotEnoughDataError
from models import metrics
from models.artifact import Artifact
from models.cohort import Cohort
from models.spec import ModelSpec

FloatArray = npt.NDArray[np.float64]
AGE_BANDS = (18, 40, 65, 80)
BOOTSTRAP = 500
LOGISTIC = "logistic_regression"


def evaluate(
    artifact: Artifact, cohort: Cohort, mart: Mart, *, bootstrap: int = BOOTSTRAP, seed: int = 0
) -> dict[str, Any]:
    """Every figure of a report, JSON-able. ``cohort``: rows of the test period only.

    The comparators are measured on the very same rows with the same resamples. Where the mart
    carries survey weights, ``weighted`` holds the same measures for the population.
    Raises NotEnoughDataError where no row or no event is left.
    """
    if len(cohort) == 0 or cohort.outcome.sum() == 0:
        raise NotEnoughDataError(f"{artifact.spec.name}: {len(cohort)} rows and no event to evaluate on")
    risks = {artifact.spec.name: artifact.risk(cohort.rows), **comparators(artifact, cohort)}
    return {
        **_figures(artifact.spec, cohort, risks[artifact.spec.name], mart, bootstrap, seed),
        "weighted": _weighted(artifact.spec, cohort, risks[artifact.spec.name], bootstrap, seed),
        "comparators": {
            name: _comparator(artifact.spec, cohort, risk, risks[artifact.spec.name], bootstrap, seed)
            for name, risk in risks.items()
            if name != artifact.spec.name
        },
        "flow": [{"step": step, "rows": rows} for step, rows in cohort.flow],
    }


def comparators(artifact: Artifact, cohort: Cohort) -> dict[str, FloatArray]:
    """Risks of what a hospital could use instead, on the same rows."""
    return {LOGISTIC: artifact.logistic.risk(artifact.features.matrix(cohort.rows))}


def subgroups(spec: ModelSpec, mart: Mart, cohort: Cohort) -> dict[str, npt.NDArray[Any]]:
    """Group -> the level of each row, as text; a level that is missing in all rows is no group."""
    found = {}
    for name in spec.subgroups:
        column = mart[name]
        values = cohort.rows[name]
        match column.kind:
            case "category":
                labels = np.array([*(c.id for c in column.categories), ""], dtype=object)
                levels = labels[values]
            case "text":
                levels = np.array([value or "" for value in values], dtype=object)
            case _:
                ends = [f"{low}-{high - 1}" for low, high in pairwise(AGE_BANDS)]
                labels = np.array([f"under {AGE_BANDS[0]}", *ends, f"{AGE_BANDS[-1]}+"], dtype=object)
                levels = labels[np.searchsorted(AGE_BANDS, values, side="right")]
        if (levels != "").any():
            levels[levels == ""] = "not recorded"
            found[name] = levels
    return found


def _figures(
    spec: ModelSpec, cohort: Cohort, risk: FloatArray, mart: Mart, bootstrap: int, seed: int
) -> dict[str, Any]:
    evaluation = metrics.evaluate(
        cohort.outcome,
        risk,
        cluster=cohort.cluster,
        person=cohort.person,
        groups=subgroups(spec, mart, cohort),
        threshold=spec.alert_at,
        bootstrap=bootstrap,
        seed=seed,
    )
    return metrics.as_dict(evaluation)


def _weighted(
    spec: ModelSpec, cohort: Cohort, risk: FloatArray, bootstrap: int, seed: int
) -> dict[str, Any] | None:
    if cohort.weight is None:
        return None
    evaluation = metrics.evaluate(
        cohort.outcome,
        risk,
        cluster=cohort.cluster,
        weight=cohort.weight,
        threshold=spec.alert_at,
        bootstrap=bootstrap,
        seed=seed,
    )
    return metrics.as_dict(evaluation)


def _comparator(
    spec: ModelSpec,
    cohort: Cohort,
    risk: FloatArray,
    model_risk: FloatArray,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    evaluation = metrics.evaluate(
        cohort.outcome,
        risk,
        cluster=cohort.cluster,
        threshold=spec.alert_at,
        bootstrap=bootstrap,
        seed=seed,
    )
    gain = metrics.paired_difference(
        cohort.outcome, model_risk, risk, cluster=cohort.cluster, bootstrap=bootstrap, seed=seed
    )
    return {
        **metrics.as_dict(evaluation),
        "model_minus_this": {"auroc": {"value": gain.value, "low": gain.low, "high": gain.high}},
    }


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures as MLflow keeps them: one name, one number."""
    named = {
        "auroc": figures["auroc"]["value"],
        "auroc_low": figures["auroc"]["low"],
        "auroc_high": figures["auroc"]["high"],
        "auprc": figures["auprc"]["value"],
        "brier": figures["brier"],
        "calibration_intercept": figures["calibration"]["intercept"],
        "calibration_slope": figures["calibration"]["slope"],
        "observed_over_expected": figures["calibration"]["oe"],
    }
    return {name: float(value) for name, value in named.items() if value is not None}
