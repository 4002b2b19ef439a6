"""A model split by patient, on stays of which only the order is known: no year, and no today."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from data import marts
from data.contract import sample
from data.home import Home
from data.pseudonym import load_key
from data.source import Origin
from data.store import open_store
from models import artifact, catalog, ledger, registry
from models.spec import Boosting
from training import promotion, recalibrate, respond, rows, run

# As it is imported, MLflow uses what SQLAlchemy's next version will do without.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::Warning")]
KEY = b"0123456789abcdef"
MODEL = "readmission_30d"
FEW_TREES = Boosting(max_depth=2, learning_rate=0.3, rounds=9, early_stopping_rounds=5)
SIGNED = {"by": "Dr Chen", "reason": "as proposed"}
SECOND = {"override_by": "Dr Wu", "override_reason": "to see it work"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Version 1 learned from 4,000 stays of 2,000 people at two hospitals, and is champion."""
    spec = replace(catalog.load(MODEL), boosting=FEW_TREES, ablations=())
    monkeypatch.setattr(catalog, "load", lambda _: spec)
    mart = marts.load(spec.mart)
    table = sample(mart, 4_000, seed=4)
    rng = np.random.default_rng(4)
    cells = {
        mart.time: [None] * len(table),
        mart.patient: [f"p{i}" for i in rng.integers(0, 2_000, len(table))],
        mart.site: [f"s{i}" for i in rng.integers(0, 2, len(table))],
    }
    for name, values in cells.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(place).type))
    home = Home(tmp_path / "home")
    with open_store(home.marts) as store:
        store.load(mart, [table], Origin(load_id="stays", source="own", use="care"), key=KEY)
    assert run.train(home, spec).version == "1"
    promotion.promote(home, spec, "1", pointer="champion", **SIGNED, **SECOND)
    return home


def test_it_is_recalibrated_on_strangers_and_trained_anew_on_all_there_is(home, watch):
    spec, mart = catalog.load(MODEL), marts.load("inpatient_stay")
    named = {"model": MODEL, "version": "1"}
    adapted = respond.respond(home, [watch.raised("recalibrate", site="s0", **named)], **SIGNED)
    again = respond.respond(home, [watch.raised("retrain", **named)], **SIGNED)

    assert (adapted.version, again.version) == ("2", "3")
    entries = ledger.verify(home.ledger, load_key(home.path))
    learned = next(entry for entry in entries if entry.act == ledger.RECALIBRATE)
    assert (learned.evidence["period"], learned.evidence["as_of"]) == (None, None)
    first, third = (artifact.load(registry.fetch(home, MODEL, version)) for version in "13")
    with recalibrate._rows(home, first, mart, "s0", recalibrate.EVERYTHING) as (cohort, _, _):
        assert adapted.details[0]["n"] == len(cohort)
        assert not np.isin(cohort.patient, rows.taught(home, first, mart=mart)).any()
    assert third.manifest.provenance.as_of is None
    assert third.manifest.provenance.fingerprint == first.manifest.provenance.fingerprint
    assert spec.split != "time"
