"""A version beside the champion: on the very same rows, whichever columns it reads."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from data.home import Home
from data.marts.ed_visit import MART
from data.simulate import simulate
from data.source import Origin
from data.store import open_store
from models import artifact, catalog
from models.calibration import Calibration
from models.metrics import auroc
from models.spec import Boosting
from training import against, rows
from training import split as splits
from training.build import build

KEY = b"0123456789abcdef"


@pytest.fixture
def home(stock, tmp_path):
    """A copy of the mart for one test."""
    place = Home(tmp_path / "home")
    place.path.mkdir()
    shutil.copy(stock.home.path / "marts.duckdb", place.path)
    return place


def written(folder, fitted):
    artifact.write(folder, fitted, evidence={})
    return folder


@pytest.fixture
def ours(stock, tmp_path):
    return written(tmp_path / "ours", stock.fitted)


def compared(home, ours, theirs):
    return against.champion(home, ours, theirs, bootstrap=99)


def test_the_difference_is_that_of_the_test_rows(home, stock, ours, tmp_path):
    backwards = replace(stock.fitted, calibration=Calibration(slope=-1.0))
    theirs = written(tmp_path / "7", backwards)
    with rows.rebuilt(home, stock.fitted, mart=MART) as cohort:
        split = splits.of("time", cohort, splits.limits("2019-12", "2020-06", "2021-12"))
        test = cohort.take(split.test)
    expected = [auroc(test.outcome, one.risk(test.rows, test.site)) for one in (stock.fitted, backwards)]

    found = compared(home, ours, theirs)

    assert found["version"] == "7"
    assert found["auroc"]["value"] == pytest.approx(expected[0] - expected[1])
    assert found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"]
    assert found["seen"] == 0


def test_rows_that_were_loaded_since_are_not_asked(home, ours, tmp_path):
    before = compared(home, ours, shutil.copytree(ours, tmp_path / "7"))
    with open_store(home.marts) as store:
        more = simulate(visits=500, seed=2, first="2021-01", last="2021-12")
        store.load(MART, [more], Origin(load_id="two", source="own", use="care"), key=KEY)

    assert compared(home, ours, tmp_path / "7") == before


def test_rows_that_the_champion_learned_from_are_counted(home, stock, ours, tmp_path):
    provenance = stock.fitted.manifest.provenance
    later = {**provenance.periods, "validate": ("2020-07-01", "2020-12-31")}
    manifest = replace(stock.fitted.manifest, provenance=replace(provenance, periods=later))
    found = compared(home, ours, written(tmp_path / "7", replace(stock.fitted, manifest=manifest)))

    with rows.rebuilt(home, stock.fitted, mart=MART) as cohort:
        split = splits.of("time", cohort, splits.limits("2019-12", "2020-06", "2021-12"))
        seen = (cohort.time[split.test] < np.datetime64("2021-01-01")).sum()
    assert found["seen"] == seen > 100


def test_a_champion_that_reads_other_columns_is_asked_all_the_same(home, stock, ours, tmp_path):
    """The candidate leaves features out, so that its own cohort lacks columns of the champion's."""
    spec = replace(
        catalog.load("ed_admission"),
        features=("age", "ambulance", "arrival_hour"),
        subgroups=("age",),
        monotone={},
        comparators=(),
        boosting=Boosting(max_depth=3, learning_rate=0.3, rounds=10, early_stopping_rounds=5),
    )
    which = against.Slice(period=against.Period.between(None, "2021-12-31"))
    with rows.read(home, spec, MART, which) as (cohort, origins):
        split = splits.of("time", cohort, splits.limits("2019-12", "2020-06", "2021-12"))
        provenance = rows.provenance(cohort, split, origins, None, 0)
        small = build(spec, MART, cohort, split, provenance=provenance, seed=0, threads=1)

    found = compared(home, written(tmp_path / "small", small), ours)

    assert "why" not in found
    assert -0.3 < found["auroc"]["high"] < 0  # vital signs and acuity are worth something


@pytest.mark.parametrize("changed", ["rows", "mart", "released", "contract"])
def test_a_comparison_that_cannot_be_had_says_why(home, stock, ours, tmp_path, changed):
    theirs = tmp_path / "7"
    if changed != "released":
        shutil.copytree(ours, theirs)
    if changed == "rows":
        with open_store(home.marts) as store:
            store.engine._db.raw_sql("UPDATE ed_visit SET age = 50 WHERE age = 51")
    if changed == "mart":
        (home.path / "marts.duckdb").unlink()
    if changed == "contract":
        shutil.rmtree(theirs)
        columns = tuple(
            replace(c, high=119) if c.name == "age" else c for c in stock.fitted.mart.columns
        )
        moved = replace(stock.fitted.mart, columns=columns)
        written(theirs, replace(stock.fitted, mart=moved))
    says = {
        "rows": "no longer gives the rows",
        "mart": "there are no marts",
        "released": "no model at",
        "contract": "the contract of ed_visit changed",
    }

    found = compared(home, ours, theirs)

    assert found["auroc"] == {"value": None, "low": None, "high": None}
    assert says[changed] in found["why"]
