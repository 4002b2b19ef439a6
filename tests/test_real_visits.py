"""The figures that the README states, on the survey's visits where they are at hand."""

import os
from pathlib import Path

import pytest

from data import source
from data.home import Home
from data.marts.ed_visit import MART
from data.pseudonym import load_key
from data.store import open_store
from models import artifact, catalog, registry
from training import run

ROOT = Path(__file__).resolve().parents[1]
VISITS = Path(os.environ.get("CAREMODELS_DATA", ROOT.parent / "shared" / "data")) / "nhamcs_ed"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VISITS.is_dir(), reason="the survey's files are not part of the repository"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("real"))
    query = source.load("nhamcs_ed")
    tables = source.batches(query, source.find(str(VISITS / "ed*.parquet")))
    with open_store(home.marts) as store:
        report = store.load(MART, tables, query.origin("nhamcs"), key=load_key(home.path))
    assert report.read == 128_076
    spec = catalog.load("ed_admission")
    return home, run.train(home, spec, train_to="2019-12", validate_to="2020-12", test_to="2021-12")


def test_admission_is_predicted_as_well_as_stated(trained):
    _, version = trained
    figures = version.metrics

    assert figures["n"] == 12_765
    assert figures["auroc"]["value"] >= 0.848
    assert 0.9 <= figures["calibration"]["slope"] <= 1.1
    assert 0.9 <= figures["calibration"]["oe"] <= 1.1
    regression = figures["comparators"]["logistic_regression"]
    assert 0.80 <= regression["auroc"]["value"] < figures["auroc"]["value"]
    assert regression["model_minus_this"]["auroc"]["low"] > 0
    assert figures["weighted"]["auroc"]["value"] >= 0.848
    for ablation in ("without history", "without the nurse's acuity", "without either"):
        assert 0.80 <= figures["ablations"][ablation]["auroc"] < figures["auroc"]["value"]


def test_no_audit_column_is_an_input_and_the_terms_are_kept(trained):
    home, version = trained
    loaded = artifact.load(registry.fetch(home, "ed_admission", version.version))

    inputs = {column.name for column in loaded.mart.columns}
    assert not inputs & {"race", "ethnicity", "payer", "region"}
    assert loaded.manifest.provenance.use == "demonstration"
    assert "not for care" in loaded.manifest.provenance.terms[0]
