"""What became of a visit, as the mart came to know it, meets the prediction that was made of it."""

from datetime import datetime

import pyarrow as pa
import pytest
from sqlalchemy import select

from data.contract import sample
from data.log.schema import outcome
from data.marts.ed_visit import MART
from data.pseudonym import keyed_hash, load_key
from data.source import Origin
from data.store import open_store
from monitoring import outcomes

ARRIVED, LEFT = datetime(2026, 5, 1, 8), datetime(2026, 5, 1, 15, 30)  # noqa: DTZ001
FATES = {
    "admitted": ("admitted", LEFT),
    "home": ("discharged", LEFT),
    "no time of leaving": ("discharged", None),
    "still there": (None, None),
    "left early": ("left_after_triage", LEFT),
    "never scored": ("admitted", LEFT),
}


def bring(log, key):
    """A mart with one visit of each fate, loaded under ``key``."""
    table = sample(MART, len(FATES), seed=1)
    cells = {
        "visit_id": list(FATES),
        "arrived_at": [ARRIVED] * len(FATES),
        "age": [60.0] * len(FATES),
        "disposition": [fate for fate, _ in FATES.values()],
        "departed_at": [left for _, left in FATES.values()],
    }
    for name, values in cells.items():
        position = table.column_names.index(name)
        table = table.set_column(position, name, pa.array(values, table.schema.field(position).type))
    with open_store(log.home.marts) as store:
        store.load(MART, [table], Origin(load_id="one", source="own", use="care"), key=key)


@pytest.fixture
def predicted(log):
    """Predictions of all visits but the last."""
    key = load_key(log.home.path)
    log.write(
        log.record(encounter=keyed_hash(key, visit, kind="encounter"), risk=0.3)
        for visit in list(FATES)[:-1]
    )
    return log


def load(log):
    return outcomes.load(log.home, MART, stage=lambda _name, _done: None)


def test_outcomes_are_joined_with_the_time_at_which_they_were_known(predicted):
    bring(predicted, load_key(predicted.home.path))

    assert load(predicted) == {"joined": 3, "unknown": 1, "revised": 0}
    with predicted.engine.connect() as connection:
        rows = connection.execute(select(outcome.c.outcome, outcome.c.observed_at)).all()
    # Without a time of leaving, the disposition counts as known two days after arrival.
    assert sorted(rows) == [(0, LEFT), (0, datetime(2026, 5, 3, 8)), (1, LEFT)]  # noqa: DTZ001
    assert load(predicted) == {"joined": 0, "unknown": 1, "revised": 0}


def test_a_mart_under_another_key_knows_no_visit_of_the_log(predicted):
    bring(predicted, b"another key of enough characters")

    assert load(predicted) == {"joined": 0, "unknown": 4, "revised": 0}
