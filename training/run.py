"""Mart in, registered version out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from data import marts
from data.contract import Mart
from data.errors import IntegrityError, UsageError
from data.home import Home
from data.period import Period
from data.source import Origin
from data.store import Slice, open_store
from data.terminal import Stage
from models import artifact, registry
from models.artifact import Artifact
from models.calibration import sigmoid
from models.cohort import Cohort, columns, gathered
from models.features import FeatureMap
from models.manifest import Provenance
from models.spec import ModelSpec
from training import build, card, fit
from training.evaluate import BOOTSTRAP, evaluate, flat
from training.pair import Pair
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
    as_of: datetime | None = None,
    budget: int = fit.BUDGET,
    seed: int = 0,
    stage: Stage = lambda name, done: None,  # noqa: ARG005 a listener that does not listen
) -> Trained:
    """Fit, calibrate, evaluate and register a version. It promotes nothing.

    ``as_of``: learn only from what was known before that time. A matrix of more than ``budget`` bytes
    stays on disk.
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
    which = Slice(period=Period.between(None, test_to), as_of=as_of)
    with _cohort(home, spec, mart, which) as (cohort, origins):
        stretches = periods(cohort.time, ends)
        split = by_time_and_patient(cohort.time, cohort.patient, stretches)
        return _train(
            home,
            spec,
            mart,
            cohort,
            split,
            provenance=_provenance(cohort, split, origins, as_of, seed),
            budget=budget,
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
    budget: int,
    seed: int,
    stage: Stage,
) -> Trained:
    fitted = build.build(
        spec,
        mart,
        cohort,
        split,
        provenance=provenance,
        seed=seed,
        budget=budget,
        scratch=home.scratch,
        stage=stage,
    )
    test = cohort.take(split.test)
    stage("evaluating", 0.6)
    figures = evaluate(fitted, test, mart, seed=seed)
    figures["ablations"] = _ablations(
        spec, mart, cohort, split, budget=budget, seed=seed, scratch=home.scratch, stage=stage
    )
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
                **{f"{part}_period": str(stretch) for part, stretch in split.periods.items()},
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
    with _cohort(home, fitted.spec, mart, Slice(period=period)) as (cohort, _):
        figures = evaluate(fitted, cohort, mart, bootstrap=bootstrap)
        tuned_to = np.datetime64(fitted.manifest.provenance.periods["validate"][1])
        return {**figures, "seen": int((cohort.time.astype("datetime64[D]") <= tuned_to).sum())}


@contextmanager
def rebuilt(home: Home, fitted: Artifact, *, mart: Mart) -> Iterator[Cohort]:
    """The cohort that a version was made from, as it was then, whatever was loaded since.

    Raises IntegrityError where the mart no longer gives the same rows.
    """
    provenance = fitted.manifest.provenance
    which = Slice(
        period=Period.between(None, provenance.periods["test"][1]),
        loads=provenance.load_ids,
        as_of=provenance.as_of,
    )
    with _cohort(home, fitted.spec, mart, which) as (cohort, _):
        if cohort.fingerprint != provenance.fingerprint:
            raise IntegrityError(f"{fitted.spec.name}: the mart no longer gives the rows learned from")
        yield cohort


@contextmanager
def _cohort(
    home: Home, spec: ModelSpec, mart: Mart, which: Slice
) -> Iterator[tuple[Cohort, list[Origin]]]:
    """A cohort of the mart, and where its rows came from."""
    with ExitStack() as until_used:
        # The mart is let go before the fitting, which may take hours.
        with open_store(home.marts, write=False) as store:
            tables = store.batches(mart, which, columns=columns(spec, mart))
            cohort = until_used.enter_context(gathered(spec, mart, tables, scratch=home.scratch))
            origins = store.origins(cohort.load_ids)
        yield cohort, origins


def _ablations(
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
    """AUROC on the same test rows of the model fitted without some features."""
    from models.metrics import auroc

    found = {}
    for index, ablation in enumerate(spec.ablations):
        stage(f"ablation: {ablation.name}", 0.7 + 0.15 * index / len(spec.ablations))
        names = [name for name in spec.features if name not in ablation.without]
        kept = FeatureMap.of(mart, names)
        with build.pairs(cohort, split, kept, seed=seed, scratch=scratch) as (train, tune):
            booster, _ = fit.boosted(train, tune, settings=spec.boosting, budget=budget, seed=seed)
            logistic = fit.logistic(train, seed=seed)
            test = Pair.of(cohort, split.test, kept, train.path.with_name("test"))
            found[ablation.name] = {
                "auroc": auroc(test.outcome, sigmoid(fit.margins(booster, test))),
                "logistic_regression": auroc(test.outcome, logistic.risk(test.matrix)),
            }
    return found


def _provenance(
    cohort: Cohort, split: Split, origins: list[Origin], as_of: datetime | None, seed: int
) -> Provenance:
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
        fingerprint=cohort.fingerprint,
        as_of=as_of,
        seed=seed,
    )
