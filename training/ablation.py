"""What a version is worth without some of its features, or without knowing what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.contract import Mart
from data.terminal import Stage
from models.calibration import sigmoid
from models.cohort import Cohort
from models.features import FeatureMap
from models.metrics import auroc
from models.spec import Ablation, ModelSpec
from training import build, fit
from training.pair import Pair, imputed
from training.split import Split


def measure(
    spec: ModelSpec,
    mart: Mart,
    cohort: Cohort,
    split: Split,
    *,
    budget: int,
    seed: int,
    scratch: Path,
    stage: Stage,
) -> dict[str, Any]:
    """Ablation -> AUROC on the same test rows of a model fitted under it, and of the regression."""
    found = {}
    for index, ablation in enumerate(spec.ablations):
        stage(f"ablation: {ablation.name}", 0.6 + 0.25 * index / len(spec.ablations))
        found[ablation.name] = _measured(
            ablation, spec, mart, cohort, split, budget=budget, seed=seed, scratch=scratch
        )
    return found


def _measured(
    ablation: Ablation,
    spec: ModelSpec,
    mart: Mart,
    cohort: Cohort,
    split: Split,
    *,
    budget: int,
    seed: int,
    scratch: Path,
) -> dict[str, float]:
    names = [name for name in spec.features if name not in ablation.without]
    kept = FeatureMap.of(mart, names, spec.lookback)
    signs = {name: sign for name, sign in spec.monotone.items() if name not in ablation.without}
    gaps = spec.lookback is None and not ablation.imputed
    with build.pairs(cohort, split, kept, gaps=gaps, seed=seed, scratch=scratch) as made:
        pairs = (*made, Pair.of(cohort, split.test, kept, made[0].path.with_name("test")))
        train, tune, test = imputed(*pairs) if ablation.imputed else pairs
        booster = fit.boosted(
            train,
            tune,
            settings=spec.boosting,
            ordinal=spec.triage is not None,
            monotone=kept.constraints(signs),
            budget=budget,
            seed=seed,
        )
        logistic = fit.logistic(train, seed=seed)
        return {
            "auroc": auroc(test.outcome, sigmoid(fit.margins(booster, test))),
            "logistic_regression": auroc(test.outcome, logistic.risk(test.matrix)),
        }
