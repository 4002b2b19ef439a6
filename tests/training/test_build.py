"""What is built from the rows of a split, for each kind of model."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data.contract import sample
from data.marts import ed_visit, icu_hour
from data.simulate import simulate
from models import artifact, catalog
from models.calibration import sigmoid
from models.cohort import select
from models.manifest import Provenance
from models.series import SERIES
from models.spec import Boosting
from training import build, split
from training.pair import Pair

FEW = Boosting(rounds=25, learning_rate=0.3, max_depth=3)


def built(name, mart, table):
    spec = replace(catalog.load(name), boosting=FEW)
    cohort = select(spec, mart, table.append_column("load_id", [["one"] * len(table)]))
    parts = split.of("patient_hash", cohort, ())
    return build.build(
        spec, mart, cohort, parts, provenance=Provenance(use="care"), seed=0, threads=1
    ), cohort


@pytest.fixture(scope="module")
def levels():
    visits = simulate(visits=4_000, seed=3, first="2019-01", last="2019-12")
    place = visits.column_names.index("acuity")
    first = pc.and_(pc.equal(visits["acuity"], 2), pc.greater(visits["heart_rate"], 95))
    level = pc.if_else(pc.fill_null(first, fill_value=False), 1, visits["acuity"])
    return built("ed_triage", ed_visit.MART, visits.set_column(place, visits.schema.field(place), level))


@pytest.fixture(scope="module")
def stays():
    """Hours of stays that get worse while the lactate rises."""
    rng = np.random.default_rng(0)
    stay = np.repeat(np.arange(400), 20)
    hour = np.tile(np.arange(1, 21), 400)
    ill = (stay % 4 == 0) & (hour > 10)
    cells = {
        "stay_id": [f"stay-{number}" for number in stay],
        "patient_id": [f"patient-{number}" for number in stay],
        "icu_hour": hour,
        "lactate": np.where(rng.random(8000) < 0.3, rng.gamma(2, 1 + 2.0 * ill), np.nan).round(1),
        "sepsis_6h": ill & (rng.random(8000) < 0.9),
    }
    table = sample(icu_hour.MART, 8000, seed=1)
    for name, values in cells.items():
        place = table.column_names.index(name)
        table = table.set_column(
            place, name, pa.array(values, table.schema.field(place).type, from_pandas=True)
        )
    return built("sepsis", icu_hour.MART, table)


def test_levels_are_bands_of_the_risk_of_the_urgent_ones(levels, tmp_path):
    fitted, cohort = levels
    assert [band.id for band in fitted.spec.bands] == ["5", "4", "3", "2", "1"]
    starts = [band.at_least for band in fitted.spec.bands]
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert fitted.spec.alert_at == starts[3]

    artifact.write(tmp_path / "levels", fitted, evidence={})
    loaded = artifact.load(tmp_path / "levels")
    scored = loaded.score(cohort.rows)
    assert scored.additive.all()
    assert scored.probabilities.sum(axis=1) == pytest.approx(np.ones(len(cohort)))
    rows = np.arange(len(cohort))
    reached = np.cumsum(scored.probabilities, axis=1)[rows, scored.level - 1]
    assert scored.risk == pytest.approx(reached)
    assert ((sigmoid(scored.margin) >= fitted.spec.alert_at) == (scored.level <= 2)).all()
    assert "acuity" not in loaded.mart.by_name


def test_an_ordinal_model_learns_how_urgent_the_level_is(levels, tmp_path):
    fitted, cohort = levels
    whole = Pair.of(cohort, np.ones(len(cohort), dtype=bool), fitted.features, tmp_path / "all")
    assert whole.target.tolist() == (-cohort.level).tolist()
    assert whole.outcome.tolist() == (cohort.level <= 2).tolist()
    rising = [fitted.margin(whole.matrix)[cohort.level == level].mean() for level in range(1, 6)]
    assert rising[0] > rising[2] > rising[4]


def test_the_alert_of_a_series_is_the_one_of_the_greatest_utility(stays, tmp_path):
    fitted, cohort = stays
    declared = catalog.load("sepsis").alert_at
    assert fitted.spec.alert_at != declared
    assert fitted.spec.alert_at in [band.at_least for band in fitted.spec.bands]
    artifact.write(tmp_path / "series", fitted, evidence={})
    risk = artifact.load(tmp_path / "series").risk(cohort.rows)
    assert risk[cohort.outcome == 1].mean() > 2 * risk[cohort.outcome == 0].mean()


def test_the_hours_of_one_stay_are_scored_as_among_all(stays):
    fitted, cohort = stays
    whole = fitted.risk(cohort.rows)
    mine = np.flatnonzero(cohort.rows[SERIES] == cohort.rows[SERIES][0])
    alone = {name: values[mine] for name, values in cohort.rows.items() if name != SERIES}
    assert fitted.risk(alone).tobytes() == whole[mine].tobytes()


@pytest.mark.parametrize("block", [64, 10**6])
def test_a_stay_is_not_cut_by_a_block(stays, tmp_path, monkeypatch, block):
    fitted, cohort = stays
    monkeypatch.setattr("training.pair.BLOCK", block)
    found = Pair.of(cohort, np.ones(len(cohort), dtype=bool), fitted.features, tmp_path / "all")
    assert found.matrix.tobytes() == fitted.features.matrix(cohort.rows).tobytes()


def test_prediction_sets_cover_what_they_state_on_rows_of_the_same_kind(levels):
    fitted, cohort = levels
    sets = fitted.sets(cohort.rows, fitted.margin(fitted.features.matrix(cohort.rows)))
    covered = sets[np.arange(len(cohort)), cohort.level.astype(int) - 1]
    assert covered.mean() > 0.87
    assert sets.any(axis=1).all()
