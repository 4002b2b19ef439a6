"""Shared by all rooms: a home of its own for every test that asks, and one tiny real model."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from data.contract import Mart
from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate
from models import artifact as artifacts
from models import catalog
from models.artifact import Artifact
from models.calibration import sigmoid
from models.features import FeatureMap
from models.manifest import FORMAT, Manifest, Provenance
from models.reference import build as build_reference
from models.spec import Boosting
from training import fit
from training.cohort import Cohort, select

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("CAREMODELS_HOME", "CAREMODELS_MARTS", "CAREMODELS_LOG", "MLFLOW_TRACKING_URI")
# No test judges a time, Hypothesis's own included: the same examples everywhere, however slow.
hypothesis.settings.register_profile(
    "caremodels",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("caremodels")

FEW_TREES = Boosting(max_depth=3, learning_rate=0.3, rounds=25, early_stopping_rounds=5)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """What is set on this machine is no business of a test's."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Home:
    """An empty home in a folder that pytest clears away."""
    monkeypatch.setenv("CAREMODELS_HOME", str(tmp_path / "home"))
    return Home.from_env()


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    """Some thousand simulated adults, in order of arrival."""
    visits = simulate(visits=4_000, seed=5, first="2019-01", last="2021-12")
    visits = visits.append_column("load_id", [["simulated"] * len(visits)])
    return select(catalog.load("ed_admission"), MART, visits)


@pytest.fixture(scope="session")
def tiny(cohort) -> Artifact:
    """``ed_admission`` with a handful of trees, made the way ``training.run`` makes one.

    Frozen, and shared by the whole session: what changes it takes a copy.
    """
    spec = catalog.load("ed_admission")
    features = FeatureMap.of(MART, spec.features)
    matrix = features.matrix(cohort.rows)
    learn = np.arange(len(cohort)) < 0.75 * len(cohort)
    train = fit.with_gaps(matrix[learn], cohort.outcome[learn], features, seed=0)
    tune = (matrix[~learn], cohort.outcome[~learn])
    booster, calibration = fit.boosted(train, tune, settings=FEW_TREES, seed=0, threads=1)
    margin = calibration.log_odds(
        booster.inplace_predict(tune[0], predict_type="margin").astype(np.float64)
    )
    inputs = MART.select([*features.inputs, *(c.column for c in spec.at_triage(MART))])
    return Artifact(
        manifest=Manifest(
            format=FORMAT,
            model=spec.name,
            provenance=Provenance(
                use="care",
                load_ids=("simulated",),
                periods={
                    "train": ("2019-01-01", "2020-12-31"),
                    "validate": ("2021-01-01", "2021-06-30"),
                    "test": ("2021-07-01", "2021-12-31"),
                },
                rows={"train": int(learn.sum()), "validate": int((~learn).sum())},
                flow=cohort.flow,
            ),
            libraries={name: version(name) for name in ("xgboost-cpu", "numpy")},
        ),
        spec=spec,
        mart=Mart(
            name=MART.name,
            row=MART.row,
            columns=inputs,
            key=MART.key,
            patient=MART.patient,
            site=MART.site,
            time=MART.time,
        ),
        booster=booster,
        calibration=calibration,
        logistic=fit.logistic(*train, seed=0),
        reference=build_reference(
            {column.name: cohort.rows[column.name][learn] for column in inputs},
            inputs,
            sigmoid(margin),
            site=cohort.site[learn],
            risk_site=cohort.site[~learn],
        ),
    )


@pytest.fixture(scope="session")
def written(tiny, tmp_path_factory) -> Path:
    """The tiny model as a folder of files. Read it; what changes it takes a copy."""
    folder = tmp_path_factory.mktemp("written") / "artifact"
    artifacts.write(folder, tiny, evidence={"card.html": b"<p>A card.</p>\n"})
    return folder
