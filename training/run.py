"""Mart in, registered version out."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from data import marts
from data.contract import Mart
from data.errors import IntegrityError, UsageError
from data.home import Home
from data.period import Period
from data.store import Slice
from data.terminal import Stage
from models import artifact, registry
from models.artifact import Artifact
from models.cohort import Cohort
from models.features import FeatureMap
from models.manifest import Provenance
from models.spec import Boosting, ModelSpec
from training import ablation, build, card, fit, rows, search
from training import split as splits
from training.answers import answered
from training.draw import draw
from training.evaluate import BOOTSTRAP, evaluate, flat, tables
from training.pair import Pair
from training.split import Split, limits


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What ``caremodels train --json`` prints."""

    model: str
    version: str
    run_id: str
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work a training is worth. A matrix of more than ``budget`` bytes stays on disk.

    ``trials`` and ``minutes`` bound the search for better settings than the spec declares; there is
    none without either. ``ablations``: fit the model again under each that the spec declares.
    """

    budget: int = fit.BUDGET
    trials: int = 0
    minutes: float | None = None
    ablations: bool = True

    @property
    def searches(self) -> bool:
        return self.trials > 0 or self.minutes is not None


def train(
    home: Home,
    spec: ModelSpec,
    *,
    train_to: str | None = None,
    validate_to: str | None = None,
    test_to: str | None = None,
    as_of: datetime | None = None,
    effort: Effort = Effort(),
    seed: int = 0,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Trained:
    """Fit, calibrate, evaluate and register a version. It promotes nothing.

    ``as_of``: learn only from what was known before that time. Raises NotEnoughDataError, UsageError
    or ContractError, each naming what is wrong; nothing is registered then.
    """
    ends = limits(train_to, validate_to, test_to)
    if seed < 0:
        raise UsageError("--seed is 0 or more")
    mart = marts.load(spec.mart)
    features = FeatureMap.of(mart, spec.features, spec.lookback)
    features.constraints(spec.monotone)
    spec.hold(mart, features.inputs)
    stage("reading the mart", 0.0)
    which = Slice(period=Period.between(None, test_to), as_of=as_of)
    with rows.read(home, spec, mart, which) as (cohort, origins):
        split = splits.of(spec.split, cohort, ends)
        return _train(
            home,
            spec,
            mart,
            cohort,
            split,
            provenance=rows.provenance(cohort, split, origins, as_of, seed),
            effort=effort,
            seed=seed,
            stage=stage,
        )


def _train(
    home: Home,
    spec: ModelSpec,
    mart: Mart,
    cohort: Cohort,
    split: Split,
    *,
    provenance: Provenance,
    effort: Effort,
    seed: int,
    stage: Stage,
) -> Trained:
    found: list[search.Found] = []
    features = FeatureMap.of(mart, spec.features, spec.lookback)

    def chosen(train: Pair, tune: Pair) -> Boosting:
        if effort.searches:
            found.append(
                search.search(
                    train,
                    tune,
                    spec.boosting,
                    monotone=features.constraints(spec.monotone),
                    ordinal=spec.triage is not None,
                    seed=seed,
                    trials=effort.trials,
                    minutes=effort.minutes,
                    storage=home.path / "searches",
                    key=spec.name,
                    budget=effort.budget,
                    progress=stage,
                )
            )
        return found[0].settings if found else spec.boosting

    fitted = build.build(
        spec,
        mart,
        cohort,
        split,
        provenance=provenance,
        seed=seed,
        budget=effort.budget,
        scratch=home.scratch,
        chosen=chosen,
        stage=stage,
    )
    test = cohort.take(split.test)
    stage("evaluating", 0.5)
    told = answered(fitted, test, seed=seed)
    figures = evaluate(fitted, test, mart, seed=seed, answers=told)
    figures["ablations"] = {}
    if effort.ablations:
        figures["ablations"] = ablation.measure(
            fitted.spec,
            mart,
            cohort,
            split,
            budget=effort.budget,
            seed=seed,
            scratch=home.scratch,
            stage=stage,
        )
    figures["search"] = asdict(found[0]) if found else None
    stage("drawing", 0.85)
    drawn = draw(fitted, test, figures=figures, answers=told)
    registered = _registered(home, fitted, figures, drawn, test, stage)
    stage("done", 1.0)
    return Trained(
        model=spec.name, version=registered.version, run_id=registered.run_id, metrics=figures
    )


def _registered(
    home: Home,
    fitted: Artifact,
    figures: dict[str, Any],
    drawn: dict[str, bytes],
    test: Cohort,
    stage: Stage,
) -> registry.Version:
    """The version's folder, written, loaded again to see that it answers, and registered."""
    with tempfile.TemporaryDirectory() as scratch:
        evidence = Path(scratch, "evidence")
        card.write(evidence, fitted, figures, drawn=drawn, cohort=test)
        for name, table in tables(figures).items():
            table.to_csv(evidence / f"{name}.csv", index=False)
        folder = Path(scratch, "artifact")
        kept = [evidence / "evaluation.json", *sorted(evidence.glob("card.*"))]
        artifact.write(folder, fitted, evidence={path.name: path.read_bytes() for path in kept})
        artifact.load(folder)
        stage("registering", 0.9)
        provenance = fitted.manifest.provenance
        return registry.register(
            home,
            fitted,
            folder,
            params={
                **asdict(fitted.spec.boosting),
                "seed": provenance.seed,
                "trees": fitted.booster.num_boosted_rounds() * fitted.spec.boosting.trees_a_round,
                **{f"{part}_rows": rows for part, rows in provenance.rows.items()},
                **{f"{part}_period": " to ".join(days) for part, days in provenance.periods.items()},
                "data_fingerprint": provenance.fingerprint,
            },
            metrics=flat(figures),
            evidence=evidence,
        )


def reevaluate(
    home: Home, fitted: Artifact, period: Period, *, mart: Mart, bootstrap: int = BOOTSTRAP
) -> dict[str, Any]:
    """Evaluate a version on any period of the mart.

    One that was split by patient is evaluated on every patient of the mart who did not teach it: its own
    test patients, and whoever was loaded since. ``seen`` counts rows of the period that the version was
    trained or tuned on: where it is not 0 the figures flatter. Raises IntegrityError where the mart's
    contract has moved on since, UsageError for a period of a version split by patient.
    """
    if fitted.mart.columns != mart.select([column.name for column in fitted.mart.columns]):
        raise IntegrityError(f"{fitted.spec.name}: the contract of {mart.name} changed since training")
    periods = fitted.manifest.provenance.periods
    if not periods:
        if period != Period.between(None, None):
            raise UsageError(f"{fitted.spec.name} is split by patient, not by time: give no period")
        taught = rows.taught(home, fitted, mart=mart)
        with rows.read(home, fitted.spec, mart, Slice()) as (cohort, _):
            strangers = cohort.take(~np.isin(cohort.patient, taught))
        return {**evaluate(fitted, strangers, mart, bootstrap=bootstrap), "seen": 0}
    with rows.read(home, fitted.spec, mart, Slice(period=period)) as (cohort, _):
        figures = evaluate(fitted, cohort, mart, bootstrap=bootstrap)
        tuned_to = np.datetime64(periods["validate"][1])
        return {**figures, "seen": int((cohort.time.astype("datetime64[D]") <= tuned_to).sum())}
