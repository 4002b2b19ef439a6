"""One version, fitted: everything that production needs of it, from the rows of a split."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as library_version
from typing import Any

import numpy as np

from data.contract import Mart
from models.artifact import Artifact
from models.calibration import sigmoid
from models.features import FeatureMap, Matrix
from models.manifest import FORMAT, Manifest, Provenance
from models.reference import build as build_reference
from models.spec import ModelSpec
from training import fit
from training.cohort import Cohort
from training.split import Split

LIBRARIES = ("xgboost-cpu", "scikit-learn", "numpy", "pandas", "pyarrow")
Stage = Callable[[str, float], None]
"""Told the name of the stage and how far along the whole is, 0 to 1."""


def build(
    spec: ModelSpec,
    mart: Mart,
    cohort: Cohort,
    split: Split,
    *,
    provenance: Provenance,
    seed: int,
    threads: int = 2,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Artifact:
    """Trees, calibration, comparator and reference of one version, on the rows of ``split``.

    Raises NotEnoughDataError where a part holds too few events.
    """
    stage("features", 0.05)
    features = FeatureMap.of(mart, spec.features)
    matrix = features.matrix(cohort.rows)
    train, tune = pairs(matrix, cohort, split, features, seed)
    booster, calibration = fit.boosted(
        train,
        tune,
        settings=spec.boosting,
        seed=seed,
        threads=threads,
        progress=lambda trees: stage(f"growing trees: {trees}", 0.1),
    )
    stage("logistic regression", 0.45)
    logistic = fit.logistic(*train, seed=seed)
    inputs = mart.select([*features.inputs, *(c.column for c in spec.at_triage(mart))])
    margin = calibration.log_odds(
        booster.inplace_predict(tune[0], predict_type="margin").astype(np.float64)
    )
    learned = cohort.take(split.train)
    return Artifact(
        manifest=Manifest(
            format=FORMAT,
            model=spec.name,
            provenance=provenance,
            libraries={name: library_version(name) for name in LIBRARIES},
        ),
        spec=spec,
        mart=mart.only([column.name for column in inputs]),
        booster=booster,
        calibration=calibration,
        logistic=logistic,
        reference=build_reference(
            {column.name: learned.rows[column.name] for column in inputs},
            inputs,
            sigmoid(margin),
            site=learned.site,
            risk_site=cohort.site[split.validate],
        ),
    )


def pairs(
    matrix: Matrix, cohort: Cohort, split: Split, features: FeatureMap, seed: int
) -> tuple[Any, Any]:
    """Matrix and outcome of the training rows, with their copies, and of the tuning rows."""
    train, tune = ((matrix[split[part]], cohort.outcome[split[part]]) for part in ("train", "validate"))
    return fit.with_gaps(*train, features, seed=seed), tune
