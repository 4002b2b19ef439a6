"""The figures that the README states, on open data where they are at hand: as the bench makes them.

Each bound lies below what was measured by about a standard error, because a library's next version may
grow other trees; where a target was not reached the README's figures say so.
"""

import os
import runpy
from pathlib import Path

import pytest

from data.home import Home
from models import artifact, catalog, registry

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CAREMODELS_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="open data are not part of the repository"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def found(home):
    bench = runpy.run_path(str(ROOT / "benchmarks" / "open_data.py"))
    return bench["measure"](home, DATA, list(bench["MODELS"]), ablations=False)


def test_admission(found):
    row = found["ed_admission"]
    assert row["n"] == 12_765
    assert row["auroc"] >= 0.850
    assert 0.95 <= row["slope"] <= 1.07
    assert 0.93 <= row["oe"] <= 1.07
    assert row["logistic_regression"]["auroc"] >= 0.83  # a comparator worth beating
    assert row["logistic_regression"]["model_minus_this_low"] > 0.008
    assert row["news2"]["model_minus_this_low"] > 0.15
    assert row["acuity"]["model_minus_this_low"] > 0.13


def test_critical_care(found):
    row = found["ed_critical_care"]
    assert row["n"] == 12_594
    assert row["auroc"] >= 0.890
    assert row["auprc"] >= 0.27
    assert 0.9 <= row["slope"] <= 1.1
    assert row["news2"]["model_minus_this_low"] > 0.10
    assert row["logistic_regression"]["model_minus_this"] > 0


def test_triage(found):
    row = found["ed_triage"]
    assert row["n"] == 10_434
    assert row["kappa"] >= 0.49
    assert row["sensitivity_12"] >= 0.80
    assert row["over_triage_12"] <= 0.52  # the cost is flat about its least: the cut-point wanders
    assert row["harm_missed"] <= 0.10 < row["harm_missed_by_nurse"]
    assert 0.9 <= row["slope"] <= 1.1


def test_readmission(found):
    row = found["readmission_30d"]
    assert row["n"] == 16_917
    assert row["auroc"] >= 0.650
    assert 0.93 <= row["oe"] <= 1.05
    assert row["logistic_regression"]["model_minus_this_low"] > 0
    assert row["prior_stays"]["model_minus_this_low"] > 0.05


def test_sepsis(found):
    row = found["sepsis"]
    assert row["auroc"] >= 0.82
    assert row["utility"] >= 0.42
    assert 0.9 <= row["slope"] <= 1.1
    assert row["logistic_regression"]["model_minus_this_low"] > 0.015
    assert row["news2"]["model_minus_this_low"] > 0.10


# As it is imported, MLflow uses what SQLAlchemy's next version will do without.
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("model", catalog.names())
def test_no_audit_column_is_an_input_and_the_terms_are_kept(found, home, model):
    assert found[model]["events"] > 300
    loaded = artifact.load(registry.fetch(Home(home), model, "1"))

    inputs = {column.name for column in loaded.mart.columns}
    assert not inputs & {"race", "ethnicity", "payer", "region"}
    assert {column.role for column in loaded.mart.columns} == {"input"}
    provenance = loaded.manifest.provenance
    assert provenance.use == "demonstration"
    assert provenance.attribution
    assert sum(provenance.rows.values()) > 80_000
