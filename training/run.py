"""Mart in, registered version out."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data import marts
from data.contract import Mart
from data.errors import IntegrityError, UsageError
from data.home import Home
from data.period import Period
from data.store import Origin, open_store
from models import artifact, registry
from models.artifact import Artifact
from models.features import FeatureMap
from models.manifest import Provenance
from models.spec import ModelSpec
from training import build, card, fit
from training.build import Stage
from training.cohort import Cohort, select
from training.evaluate import BOOTSTRAP, evaluate, flat
from training.split import Split, by_time_and_patient, limits, periods


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What ``caremodels train --json`` prints."""

    model: str
    version: str
    run_id: str
    metrics: dict[str, Any]


def train(
    home: Home,
    spec: ModelSpec,
    *,
    train_to: str | None = None,
    validate_to: str | None = None,
    test_to: str | None = None,
    seed: int = 0,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Trained:
    """Fit, calibrate, evaluate and register a version. It promotes nothing.

    Raises NotEnoughDataError, UsageError or ContractError, each naming what is wrong; nothing is
    registered then.
    """
    ends = limits(train_to, validate_to, test_to)
    if seed < 0:
        raise UsageError("--seed is 0 or more")
    mart = marts.load(spec.mart)
    features = FeatureMap.of(mart, spec.features)
    spec.hold(mart, features.inputs)
    stage("reading the mart", 0.0)
    last = Period.between(None, test_to)
    with open_store(home.marts) as store:
        cohort = select(spec, mart, store.read(mart, last))
        origins = store.origins(cohort.load_ids)
    stretches = periods(cohort.time, ends)
    split = by_time_and_patient(cohort.time, cohort.patient, stretches)

    fitted = build.build(
        spec,
        mart,
        cohort,
        split,
        provenance=_provenance(cohort, split, origins, seed),
        seed=seed,
        stage=stage,
    )
    test = cohort.take(split.test)
    stage("evaluating", 0.6)
    figures = evaluate(fitted, test, mart, seed=seed)
    figures["ablations"] = _ablations(spec, mart, cohort, split, seed, stage)
    stage("drawing", 0.85)
    with tempfile.TemporaryDirectory() as scratch:
        evidence = Path(scratch, "evidence")
        card.write(evidence, fitted, figures, cohort=test)
        folder = Path(scratch, "artifact")
        artifact.write(
            folder,
            fitted,
            evidence={
                "evaluation.json": msgspec.json.format(msgspec.json.encode(figures)),
                "card.html": (evidence / "card.html").read_bytes(),
            },
        )
        artifact.load(folder)
        stage("registering", 0.9)
        registered = registry.register(
            home,
            fitted,
            folder,
            params={
                **asdict(spec.boosting),
                "seed": seed,
                "trees": fitted.booster.num_boosted_rounds(),
                **{f"{part}_period": str(stretch) for part, stretch in stretches.items()},
                "data_fingerprint": fitted.manifest.provenance.fingerprint,
            },
            metrics=flat(figures),
            evidence=evidence,
        )
    stage("done", 1.0)
    return Trained(
        model=spec.name, version=registered.version, run_id=registered.run_id, metrics=figures
    )


def reevaluate(
    home: Home, fitted: Artifact, period: Period, *, mart: Mart, bootstrap: int = BOOTSTRAP
) -> dict[str, Any]:
    """Evaluate a version on any period of the mart.

    ``seen`` counts rows of the period that the version was trained or tuned on: where it is not 0
    the figures flatter. Raises IntegrityError where the mart's contract has moved on since.
    """
    if fitted.mart.columns != mart.select([column.name for column in fitted.mart.columns]):
        raise IntegrityError(f"{fitted.spec.name}: the contract of {mart.name} changed since training")
    with open_store(home.marts) as store:
        cohort = select(fitted.spec, mart, store.read(mart, period))
    figures = evaluate(fitted, cohort, mart, bootstrap=bootstrap)
    tuned_to = np.datetime64(fitted.manifest.provenance.periods["validate"][1])
    return {**figures, "seen": int((cohort.time.astype("datetime64[D]") <= tuned_to).sum())}


def _ablations(
    spec: ModelSpec, mart: Mart, cohort: Cohort, split: Split, seed: int, stage: Stage
) -> dict[str, Any]:
    """AUROC on the same test rows of the model fitted without some features."""
    from models.metrics import auroc

    found = {}
    for index, ablation in enumerate(spec.ablations):
        stage(f"ablation: {ablation.name}", 0.7 + 0.15 * index / len(spec.ablations))
        names = [name for name in spec.features if name not in ablation.without]
        kept = FeatureMap.of(mart, names)
        matrix = kept.matrix(cohort.rows)
        train, tune = build.pairs(matrix, cohort, split, kept, seed)
        booster, _ = fit.boosted(train, tune, settings=spec.boosting, seed=seed)
        logistic = fit.logistic(*train, seed=seed)
        test, outcome = matrix[split.test], cohort.outcome[split.test]
        found[ablation.name] = {
            "auroc": auroc(outcome, booster.inplace_predict(test).astype(np.float64)),
            "logistic_regression": auroc(outcome, logistic.risk(test)),
        }
    return found


def _provenance(cohort: Cohort, split: Split, origins: list[Origin], seed: int) -> Provenance:
    digest = hashlib.sha256(cohort.outcome.tobytes())
    for name in sorted(cohort.rows):
        values = cohort.rows[name]
        digest.update(repr(values.tolist()).encode() if values.dtype == object else values.tobytes())
    flow = [*cohort.flow, ("patient seen in an earlier part", split.seen_before)]
    return Provenance(
        # One source whose terms forbid care is enough.
        use="demonstration" if any(o.use == "demonstration" for o in origins) else "care",
        terms=tuple(sorted({origin.terms for origin in origins if origin.terms})),
        attribution=tuple(sorted({origin.attribution for origin in origins if origin.attribution})),
        load_ids=cohort.load_ids,
        periods={part: stretch.days for part, stretch in split.periods.items()},
        rows={part: int(split[part].sum()) for part in split.periods},
        flow=tuple(flow),
        fingerprint=digest.hexdigest(),
        seed=seed,
    )
