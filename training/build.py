"""One version, fitted: everything that production needs of it, from the rows of a split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as library_version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data.contract import Mart
from data.terminal import Stage
from models.artifact import Artifact
from models.calibration import sigmoid
from models.cohort import Cohort
from models.features import FeatureMap, Matrix
from models.manifest import FORMAT, Manifest, Provenance
from models.reference import build as build_reference
from models.spec import ModelSpec
from training import fit
from training.pair import FloatArray, Masked, Pair
from training.split import Split

LIBRARIES = ("xgboost-cpu", "scikit-learn", "numpy", "pandas", "pyarrow")


def build(
    spec: ModelSpec,
    mart: Mart,
    cohort: Cohort,
    split: Split,
    *,
    provenance: Provenance,
    seed: int,
    threads: int = 2,
    budget: int = fit.BUDGET,
    scratch: Path | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Artifact:
    """Trees, calibration, comparator and reference of one version, on the rows of ``split``.

    A matrix larger than ``budget`` bytes stays in files under ``scratch``. Raises NotEnoughDataError
    where a part holds too few events.
    """
    stage("features", 0.05)
    features = FeatureMap.of(mart, spec.features)
    with pairs(cohort, split, features, seed=seed, scratch=scratch) as (train, tune):
        booster, calibration = fit.boosted(
            train,
            tune,
            settings=spec.boosting,
            seed=seed,
            budget=budget,
            threads=threads,
            progress=lambda trees: stage(f"growing trees: {trees}", 0.1),
        )
        stage("logistic regression", 0.45)
        logistic = fit.logistic(train, seed=seed)
        margin = calibration.log_odds(fit.margins(booster, tune))
    inputs = mart.select([*features.inputs, *(c.column for c in spec.at_triage(mart))])
    learned = split.train
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
            Masked(cohort.rows, learned),
            inputs,
            sigmoid(margin),
            site=cohort.site[learned],
            risk_site=cohort.site[split.validate],
        ),
    )


@contextmanager
def pairs(
    cohort: Cohort, split: Split, features: FeatureMap, *, seed: int, scratch: Path | None
) -> Iterator[tuple[Pair, Pair]]:
    """The training rows, with copies that have gaps, and the tuning rows, as fitting takes them."""
    rng = np.random.default_rng(seed)

    def with_gaps(matrix: Matrix, outcome: FloatArray) -> tuple[Matrix, FloatArray]:
        return fit.with_gaps(matrix, outcome, features, rng=rng)

    with TemporaryDirectory(prefix="matrix-", dir=scratch) as folder:
        place = Path(folder)
        train = Pair.of(cohort, split.train, features, place / "train", change=with_gaps)
        yield train, Pair.of(cohort, split.validate, features, place / "tune")
