"""Shared by all rooms: a home of its own for every test that asks, and one tiny real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate
from models import artifact as artifacts
from models import catalog
from models.artifact import Artifact
from models.manifest import Provenance
from models.spec import Boosting
from training.build import build
from training.cohort import Cohort, select
from training.split import Split

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
    learn = np.arange(len(cohort)) < 0.75 * len(cohort)
    split = Split(train=learn, validate=~learn, test=~learn, periods={}, seen_before=0)
    provenance = Provenance(
        use="care",
        load_ids=("simulated",),
        periods={
            "train": ("2019-01-01", "2020-12-31"),
            "validate": ("2021-01-01", "2021-06-30"),
            "test": ("2021-07-01", "2021-12-31"),
        },
        rows={"train": int(learn.sum()), "validate": int((~learn).sum())},
        flow=cohort.flow,
    )
    few = replace(spec, boosting=FEW_TREES)
    fitted = build(few, MART, cohort, split, provenance=provenance, seed=0, threads=1)
    return replace(fitted, spec=spec)


@pytest.fixture(scope="session")
def written(tiny, tmp_path_factory) -> Path:
    """The tiny model as a folder of files. Read it; what changes it takes a copy."""
    folder = tmp_path_factory.mktemp("written") / "artifact"
    artifacts.write(folder, tiny, evidence={"card.html": b"<p>A card.</p>\n"})
    return folder
