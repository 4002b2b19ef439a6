"""One version, fitted: everything that production needs of it, from the rows of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version as library_version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from data.contract import Mart
from data.terminal import Stage
from models import calibration, comparator, conformal, groups, novelty, ordinal, sites
from models.artifact import Artifact
from models.calibration import Calibration, sigmoid
from models.cohort import Cohort
from models.comparator import Comparator
from models.conformal import Conformal
from models.features import FeatureMap, Matrix
from models.manifest import FORMAT, Manifest, Provenance
from models.ordinal import Ordinal
from models.reference import build as build_reference
from models.series import SERIES
from models.spec import Boosting, ModelSpec
from models.utility import best_threshold
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
    chosen: Callable[[Pair, Pair], Boosting] | None = None,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 nobody listens
) -> Artifact:
    """Trees, calibration, comparator and reference of one version, on the rows of ``split``.

    A matrix larger than ``budget`` bytes stays in files under ``scratch``. ``chosen`` may find better
    settings on the training and tuning rows than the spec declares. Raises NotEnoughDataError
    where a part holds too few events.
    """
    stage("features", 0.05)
    features = FeatureMap.of(mart, spec.features, spec.lookback)
    monotone = features.constraints(spec.monotone)
    tuning = cohort.take(split.validate)
    with pairs(cohort, split, features, gaps=spec.lookback is None, seed=seed, scratch=scratch) as (
        train,
        tune,
    ):
        settings = chosen(train, tune) if chosen else spec.boosting
        booster = fit.boosted(
            train,
            tune,
            settings=settings,
            ordinal=spec.triage is not None,
            monotone=monotone,
            seed=seed,
            budget=budget,
            threads=threads,
            progress=lambda trees: stage(f"growing trees: {trees}", 0.1),
        )
        stage("logistic regression", 0.4)
        logistic = fit.logistic(train, seed=seed)
        margin = fit.margins(logistic if spec.learner == "logistic" else booster, tune)
    stage("calibrating", 0.45)
    line, levels = _line(spec, margin, tuning)
    log_odds = line.log_odds(margin)
    shifts, spread = sites.fit(log_odds, tuning.outcome, tuning.site)
    own = mart.only([*features.inputs, *(c.column for c in spec.at_request(mart))])
    learned = split.train
    taught = Masked(cohort.rows, learned)
    return Artifact(
        manifest=Manifest(
            format=FORMAT,
            model=spec.name,
            provenance=provenance,
            libraries={name: library_version(name) for name in LIBRARIES},
        ),
        spec=_fitted(replace(spec, boosting=settings), tuning, log_odds),
        mart=own,
        booster=booster,
        calibration=replace(line, sites=shifts, spread=spread),
        ordinal=levels,
        logistic=logistic,
        comparators=tuple(_comparators(spec, mart, taught, np.asarray(cohort.outcome[learned]))),
        conformal=_conformal(spec, own, levels, tuning, log_odds),
        novelty=novelty.fit(own.columns, taught),
        reference=build_reference(
            taught,
            own.columns,
            sigmoid(log_odds),
            site=cohort.site[learned],
            risk_site=tuning.site,
            person=cohort.person[learned],
        ),
    )


def _comparators(
    spec: ModelSpec, mart: Mart, taught: Masked, outcome: FloatArray
) -> Iterator[Comparator]:
    for name in (*spec.comparators, comparator.MAJORITY):
        scores = comparator.score(name, taught, mart, spec.lookback)
        yield comparator.fit(name, scores, outcome)


def _line(spec: ModelSpec, margin: FloatArray, tuning: Cohort) -> tuple[Calibration, Ordinal | None]:
    """The calibration on the tuning rows; they stopped the trees as well, which two numbers forgive."""
    if spec.triage is None:
        return calibration.fit(margin, tuning.outcome), None
    assert tuning.level is not None
    count = len(spec.triage.levels)
    line, levels = ordinal.fit(margin, tuning.level, levels=count, urgent=spec.triage.urgent)
    best = ordinal.kappa_cuts(line.log_odds(margin), tuning.level, levels=count)
    return line, replace(levels, kappa_cuts=tuple(best.tolist()))


def _fitted(spec: ModelSpec, tuning: Cohort, log_odds: FloatArray) -> ModelSpec:
    """The spec with the bands and the alert that the tuning rows choose, by the cost declared.

    Of the overall line: a site that is not known yet gets the same cut-points as all others.
    """
    if spec.triage is not None:
        assert tuning.level is not None
        levels = len(spec.triage.levels)
        costs = ordinal.cost(levels, spec.triage.under_weight, urgent=spec.triage.urgent)
        bands = spec.triage.bands(sigmoid(ordinal.cuts(log_odds, tuning.level, costs)).tolist())
        alert = next(band.at_least for band in bands if int(band.id) <= spec.triage.urgent)
        return replace(spec, bands=bands, alert_at=alert)
    if spec.alert_by == "utility":
        series = tuning.rows[SERIES]
        best = best_threshold(series, tuning.order, tuning.outcome, sigmoid(log_odds))
        if best.threshold < 1:  # else no alarm is better than any
            return spec.alerting_at(best.threshold)
    return spec


def _conformal(
    spec: ModelSpec, mart: Mart, levels: Ordinal | None, tuning: Cohort, log_odds: FloatArray
) -> Conformal:
    risk = sigmoid(log_odds)
    ordered = levels is not None
    return conformal.fit(
        levels.probabilities(log_odds) if levels else np.column_stack([1 - risk, risk]),
        (tuning.outcome if tuning.level is None else tuning.level - 1).astype(np.intp),
        groups=groups.crossed(spec.subgroups, mart, tuning.rows),
        classes=tuple(level.value for level in spec.triage.levels) if spec.triage else None,
        coverage=spec.coverage,
        ordinal=ordered,
    )


@contextmanager
def pairs(
    cohort: Cohort,
    split: Split,
    features: FeatureMap,
    *,
    gaps: bool,
    seed: int,
    scratch: Path | None,
) -> Iterator[tuple[Pair, Pair]]:
    """The training rows and the tuning rows, as fitting takes them.

    ``gaps``: among the training rows are copies with inputs withheld. An hourly series has its own.
    """
    rng = np.random.default_rng(seed)

    def with_gaps(matrix: Matrix) -> tuple[Matrix, npt.NDArray[np.intp]]:
        return fit.with_gaps(matrix, features, rng=rng)

    change = {"change": with_gaps} if gaps else {}
    with TemporaryDirectory(prefix="matrix-", dir=scratch) as folder:
        place = Path(folder)
        train = Pair.of(cohort, split.train, features, place / "train", **change)
        yield train, Pair.of(cohort, split.validate, features, place / "tune")
