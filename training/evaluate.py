"""How good a version is on rows that it has not seen: itself, its comparators, each subgroup, each site.

One bundle of plain numbers, from which gate, card and command line read. Every interval comes from the
same resamples of patients, the comparators' as well, so that differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data.contract import Mart
from data.errors import NotEnoughDataError
from models import agreement, conformal, curves, groups, metrics, ordinal, utility
from models.artifact import Artifact, Scored
from models.cohort import Cohort
from models.series import SERIES
from models.spec import ModelSpec, Triage
from training import poor
from training.answers import Answers, answered

FloatArray = npt.NDArray[np.float64]
BOOTSTRAP = 1000
THRESHOLDS = 50
FEWEST_EVENTS = 10
"""At a site: under it its figures are noise."""
MOST_SITES = 60
STRANGE = {"above_95": 0.95, "above_99": 0.99, "above_999": 0.999}


def evaluate(
    artifact: Artifact,
    cohort: Cohort,
    mart: Mart,
    *,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    answers: Answers | None = None,
) -> dict[str, Any]:
    """Every figure of a report, JSON-able; null where one is not defined.

    ``cohort``: rows of the test period only. ``answers``: those of :func:`answered`, where they are at
    hand. Where the mart carries survey weights, ``weighted`` holds the same measures for the population.
    Raises NotEnoughDataError where no row or no event is left.
    """
    spec = artifact.spec
    if len(cohort) == 0 or cohort.outcome.sum() == 0:
        raise NotEnoughDataError(f"{spec.name}: {len(cohort)} rows and no event to evaluate on")
    told = answered(artifact, cohort, seed=seed) if answers is None else answers
    attributes = groups.of(spec.subgroups, mart, cohort.rows)
    measured = metrics.evaluate(
        cohort.outcome,
        told.risk,
        cluster=cohort.cluster,
        person=cohort.person,
        groups=attributes,
        comparators=told.rivals,
        threshold=spec.alert_at,
        bootstrap=bootstrap,
        seed=seed,
    )
    comparators = metrics.comparators_as_dict(measured)
    for name, risk in told.rivals.items():
        comparators[name]["net_benefit"] = _net_benefit(spec, cohort, risk)
    return {
        **metrics.as_dict(measured),
        "sites": _sites(cohort, told.risk),
        "net_benefit": _net_benefit(spec, cohort, told.risk),
        "weighted": _weighted(spec, cohort, told.risk, bootstrap, seed),
        "comparators": comparators,
        "triage": _triage(artifact, cohort, told.margin, bootstrap, seed),
        "utility": _utility(spec, cohort, told.risk, bootstrap, seed),
        "conformal": _conformal(artifact, cohort, told.margin, attributes),
        "novelty": _novelty(artifact, cohort),
        "poor_inputs": poor.measure(artifact, cohort, seed=seed),
        "importance": _importance(artifact, told.explained),
        "flow": [{"step": step, "rows": rows} for step, rows in cohort.flow],
    }


def _net_benefit(spec: ModelSpec, cohort: Cohort, risk: FloatArray) -> dict[str, Any]:
    low, high = spec.benefit
    found = curves.net_benefit(cohort.outcome, risk, np.linspace(low, high, THRESHOLDS))
    return {"low": low, "high": high, "curve": found.to_dict("records")}


def _weighted(
    spec: ModelSpec, cohort: Cohort, risk: FloatArray, bootstrap: int, seed: int
) -> dict[str, Any] | None:
    if cohort.weight is None:
        return None
    measured = metrics.evaluate(
        cohort.outcome,
        risk,
        cluster=cohort.cluster,
        weight=cohort.weight,
        threshold=spec.alert_at,
        bootstrap=bootstrap,
        seed=seed,
    )
    figures = metrics.as_dict(measured)
    del figures["groups"]
    return figures


def _sites(cohort: Cohort, risk: FloatArray) -> dict[str, Any] | None:
    """How much sites differ. One of fewer than ``SMALLEST_GROUP`` people is counted and not shown."""
    names, code = np.unique(cohort.site.astype(str), return_inverse=True)
    if len(names) < 2:
        return None
    n, events = np.bincount(code), np.bincount(code, cohort.outcome)
    seen = np.unique(np.stack([code, cohort.person]), axis=1)[0]
    shown = np.bincount(seen, minlength=len(names)) >= metrics.SMALLEST_GROUP
    measured = shown & (events >= FEWEST_EVENTS)
    auroc = np.where(measured, metrics.auroc_by(code, cohort.outcome, risk), np.nan)
    oe = np.where(measured, events / np.bincount(code, risk), np.nan)
    largest = np.argsort(-n, kind="stable")
    return {
        "count": len(names),
        "measured": int(measured.sum()),
        "auroc": _spread(auroc),
        "oe": _spread(oe),
        "rows": [
            {
                "site": str(names[k]),
                "n": int(n[k]),
                "events": int(events[k]),
                "auroc": _known(auroc[k]),
                "oe": _known(oe[k]),
            }
            for k in largest[shown[largest]][:MOST_SITES]
        ],
    }


def _spread(values: FloatArray) -> dict[str, float | None]:
    known = values[np.isfinite(values)]
    low, median, high = np.quantile(known, (0.1, 0.5, 0.9)) if len(known) else [np.nan] * 3
    return {"median": _known(median), "low": _known(low), "high": _known(high)}


def _triage(
    artifact: Artifact, cohort: Cohort, margin: FloatArray, bootstrap: int, seed: int
) -> dict[str, Any] | None:
    triage = artifact.spec.triage
    if triage is None:
        return None
    assert cohort.level is not None
    assert cohort.harm is not None
    assert artifact.ordinal is not None
    levels, given = len(triage.levels), artifact.level(margin)
    cuts = artifact.ordinal.kappa_cuts
    best = {"best": ordinal.assigned(margin, cuts, levels=levels)} if cuts else {}
    found = agreement.measure(
        cohort.level,
        given,
        levels=levels,
        urgent=triage.urgent,
        coarser=_national(triage),
        others=best,
        harm=cohort.harm,
        cluster=cohort.cluster,
        bootstrap=bootstrap,
        seed=seed,
    )
    at = {name: _estimate(*figures) for name, *figures in found.itertuples(index=False)}
    plain = ("specificity_urgent", "under_triage", "over_triage", "under_urgent", "over_urgent")
    return {
        "levels": [level.value for level in triage.levels],
        "kappa": at["kappa"],
        "kappa_four": at["kappa_coarser"],
        "kappa_best": at.get("kappa_best"),
        "sensitivity_urgent": at["sensitivity_urgent"],
        **{name: at[name]["value"] for name in plain},
        "intervals": {name: {end: at[name][end] for end in ("low", "high")} for name in plain},
        "table": agreement.confusion(cohort.level, given, levels=levels).tolist(),
        "harm": {
            "events": int(np.nansum(cohort.harm)),
            "missed": at["missed"],
            "nurse_missed": at["missed_true"],
        },
    }


def _national(triage: Triage) -> list[int]:
    """The place of each level among the national ones, from 1."""
    names = list(dict.fromkeys(level.national for level in triage.levels))
    return [names.index(level.national) + 1 for level in triage.levels]


def _utility(
    spec: ModelSpec, cohort: Cohort, risk: FloatArray, bootstrap: int, seed: int
) -> dict[str, Any] | None:
    """Of the alarms that the version would raise, hour by hour."""
    if spec.lookback is None:
        return None
    of = utility.per_patient(
        cohort.rows[SERIES],
        cohort.order,
        cohort.outcome,
        risk >= spec.alert_at,
        patient=cohort.cluster,
    )
    found = utility.interval(of, bootstrap=bootstrap, seed=seed)
    return {**_estimate(found.value, found.low, found.high), "threshold": spec.alert_at}


def _conformal(
    artifact: Artifact, cohort: Cohort, margin: FloatArray, attributes: Mapping[str, groups.Levels]
) -> list[dict[str, Any]]:
    truth = cohort.outcome if cohort.level is None else cohort.level - 1
    lines = conformal.covered(
        artifact.sets(cohort.rows, margin),
        truth.astype(np.intp),
        groups=attributes,
        classes=artifact.conformal.classes,
    )
    return [
        {
            "group": line.group,
            "level": line.level,
            "class": line.class_,
            "n": line.n,
            "coverage": line.coverage,
            "size": line.size,
            "ambiguous": line.ambiguous,
            "empty": line.empty,
        }
        for line in lines
    ]


def _novelty(artifact: Artifact, cohort: Cohort) -> dict[str, float]:
    percentile = artifact.novelty.percentile(cohort.rows)
    return {name: float((percentile > limit).mean()) for name, limit in STRANGE.items()}


def _importance(artifact: Artifact, scored: Scored) -> list[dict[str, Any]]:
    """The mean size of each feature's contribution, in log-odds, the largest first."""
    sizes = np.abs(scored.contributions).mean(axis=0)
    features = artifact.features.features
    return [
        {
            "feature": features[k].name,
            "label": {"en": features[k].label.en, "zh": features[k].label.zh},
            "mean_abs": float(sizes[k]),
        }
        for k in np.argsort(-sizes, kind="stable")
    ]


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _estimate(value: float, low: float, high: float) -> dict[str, float | None]:
    return {"value": _known(value), "low": _known(low), "high": _known(high)}


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures as MLflow keeps them: one name, one number."""
    at = figures["at_threshold"]
    named = {
        **_area("", figures),
        "brier": figures["brier"],
        "brier_skill": figures["brier_skill"],
        "calibration_intercept": figures["calibration"]["intercept"],
        "calibration_slope": figures["calibration"]["slope"],
        "observed_over_expected": figures["calibration"]["oe"],
        "ici": figures["calibration"]["ici"],
        **{name: at[name] for name in (*metrics.AT_THRESHOLD, "net_benefit")},
        **{name: share for name, share in figures["novelty"].items() if name == "above_99"},
    }
    for rival, theirs in figures["comparators"].items():
        named |= _area(f"{rival}_", theirs)
        named |= _three(f"auroc_over_{rival}", theirs["model_minus_this"]["auroc"])
    if triage := figures["triage"]:
        for name in ("kappa", "kappa_four", "kappa_best", "sensitivity_urgent"):
            named |= _three(name, triage[name] or {})
        shares = ("specificity_urgent", "under_triage", "over_triage", "over_urgent")
        named |= {name: triage[name] for name in shares}
        named |= _three("harm_missed", triage["harm"]["missed"])
    if figures["utility"]:
        named |= _three("utility", figures["utility"])
    return {name: float(value) for name, value in named.items() if value is not None}


def _area(prefix: str, measured: Mapping[str, Any]) -> dict[str, float | None]:
    return _three(f"{prefix}auroc", measured["auroc"]) | _three(f"{prefix}auprc", measured["auprc"])


def _three(name: str, estimate: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: estimate.get("value"),
        f"{name}_low": estimate.get("low"),
        f"{name}_high": estimate.get("high"),
    }


def tables(figures: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """The same figures as tidy tables: who reads them in a spreadsheet needs no JSON."""
    rivals = figures["comparators"]
    everybody = {"model": figures, **rivals}
    found = {
        "overall": pd.DataFrame(_measures(figures)),
        "groups": pd.DataFrame([row for group in figures["groups"] for row in _of_group(group)]),
        "comparators": pd.DataFrame(
            [{"comparator": name, **row} for name, of in rivals.items() for row in _measures(of)]
        ),
        "net_benefit": pd.DataFrame(
            [
                {"by": name, "threshold": point["threshold"], "net_benefit": point["model"]}
                for name, of in everybody.items()
                for point in of["net_benefit"]["curve"]
            ]
            + [
                {"by": name, "threshold": point["threshold"], "net_benefit": point[name]}
                for name in ("treat_all", "treat_none")
                for point in figures["net_benefit"]["curve"]
            ]
        ),
        "conformal": pd.DataFrame(figures["conformal"]).astype({"class": "Int64"}),
        "novelty": pd.DataFrame(list(figures["novelty"].items()), columns=["measure", "share"]),
        "poor_inputs": pd.DataFrame(figures["poor_inputs"]["withheld"]),
        "importance": pd.DataFrame(
            [{**row, "label": row["label"]["en"]} for row in figures["importance"]]
        ),
        "flow": pd.DataFrame(figures["flow"]),
    }
    if weighted := figures["weighted"]:
        found["weighted"] = pd.DataFrame(_measures(weighted))
    if sites := figures["sites"]:
        found["sites"] = pd.DataFrame(sites["rows"])
    if triage := figures["triage"]:
        found["triage"] = pd.DataFrame(_of_triage(triage))
        found["triage_levels"] = pd.DataFrame(
            [
                {"level": level, "given": given, "rows": rows}
                for level, counts in enumerate(triage["table"], start=1)
                for given, rows in enumerate(counts, start=1)
            ]
        )
    if ablations := figures.get("ablations"):
        found["ablations"] = pd.DataFrame([{"name": name, **of} for name, of in ablations.items()])
    return found


def _measures(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """metric, value, low, high of a model or a comparator."""
    values = {
        **{metric: of[metric]["value"] for metric in ("auroc", "auprc")},
        **{metric: of[metric] for metric in ("brier", "brier_skill")},
        **of["calibration"],
        **of["at_threshold"],
    }
    for metric, span in of["intervals"].items():
        yield {"metric": metric, "value": values[metric], **span}
    if gain := of.get("model_minus_this"):
        yield {"metric": "model_minus_this", **gain["auroc"]}
    if useful := of.get("utility"):
        yield {"metric": "utility", **{name: useful[name] for name in ("value", "low", "high")}}


def _of_group(group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    known = {name: group[name] for name in ("group", "level", "n", "events", "suppressed")}
    yield {**known, "metric": "auroc", **group["auroc"]}
    for metric, span in group["intervals"].items():
        yield {**known, "metric": metric, "value": group[metric], **span}


def _of_triage(triage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("kappa", "kappa_four", "kappa_best", "sensitivity_urgent"):
        yield {"measure": name, **(triage[name] or {})}
    for name, span in triage["intervals"].items():
        yield {"measure": name, "value": triage[name], **span}
    for name in ("missed", "nurse_missed"):
        yield {"measure": f"harm_{name}", **triage["harm"][name]}
