"""What became of a visit, as the mart came to know it, meets the prediction that was made of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import select, text

from data.contract import sample
from data.home import Home
from data.log.append import Entry, LogWriter
from data.log.purge import purge
from data.log.read import moment
from data.log.schema import connect, outcome, writing
from data.log.seal import FILE, load_keyring
from data.marts import icu_hour
from data.marts.ed_visit import MART
from data.pseudonym import keyed_hash, load_key
from data.source import Origin
from data.store import open_store
from models import catalog
from models.cohort import select as select_cohort
from models.manifest import Provenance
from models.spec import Boosting, Support
from monitoring import answers, outcomes
from monitoring.sampled import UTC_ZONE
from serving.schema import read_predict
from serving.scorer import Receipt, Scorer
from training.build import build
from training.split import Split

ARRIVED, LEFT = datetime(2026, 5, 1, 8), datetime(2026, 5, 1, 15, 30)  # noqa: DTZ001
FATES = {
    "admitted": ("admitted", LEFT),
    "home": ("discharged", LEFT),
    "no time of leaving": ("discharged", None),
    "still there": (None, None),
    "left early": ("left_after_triage", LEFT),
    "never scored": ("admitted", LEFT),
}


def filled(mart, cells):
    """Rows of ``mart``, drawn but for the columns of ``cells``."""
    table = sample(mart, len(next(iter(cells.values()))), seed=1)
    for name, values in cells.items():
        position = table.column_names.index(name)
        table = table.set_column(position, name, pa.array(values, table.schema.field(position).type))
    return table


def bring(log, key):
    """A mart with one visit of each fate, loaded under ``key``."""
    cells = {
        "visit_id": list(FATES),
        "arrived_at": [ARRIVED] * len(FATES),
        "age": [60.0] * len(FATES),
        "disposition": [fate for fate, _ in FATES.values()],
        "departed_at": [left for _, left in FATES.values()],
    }
    with open_store(log.home.marts) as store:
        store.load(MART, [filled(MART, cells)], Origin(load_id="one", source="own", use="care"), key=key)


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


def told(**counts):
    return {"joined": 0, "unknown": 0, "revised": 0, "unopened": 0} | counts


def test_outcomes_are_joined_with_the_time_at_which_they_were_known(predicted):
    bring(predicted, load_key(predicted.home.path))

    assert load(predicted) == told(joined=3, unknown=1)
    with predicted.engine.connect() as connection:
        rows = connection.execute(select(outcome.c.outcome, outcome.c.observed_at)).all()
    # Without a time of leaving, the disposition counts as known two days after arrival.
    assert sorted(rows) == [(0, LEFT), (0, datetime(2026, 5, 3, 8)), (1, LEFT)]  # noqa: DTZ001
    assert load(predicted) == told(unknown=1)


def test_a_model_of_levels_is_told_the_level_that_was_right(log):
    key, spec = load_key(log.home.path), catalog.load("ed_triage")
    acuity = {"urgent": 2, "not": 4, "no level": None}
    log.write(
        log.record(
            model=spec.name,
            encounter=keyed_hash(key, visit, kind="encounter"),
            risk=0.3,
            margin=-1.0,
            level=3,
        )
        for visit in acuity
    )
    cells = {
        "visit_id": list(acuity),
        "arrived_at": [ARRIVED] * 3,
        "acuity": list(acuity.values()),
        "disposition": ["discharged"] * 3,
    }
    with open_store(log.home.marts) as store:
        store.load(MART, [filled(MART, cells)], Origin(load_id="one", source="own", use="care"), key=key)
    assert load(log) == told(joined=2)
    may = {"start": datetime(2026, 5, 1), "end": datetime(2026, 6, 1)}  # noqa: DTZ001
    with moment(log.engine) as connection:
        found = answers.read(
            connection,
            spec,
            version="3",
            pointer="champion",
            as_of=datetime.now(UTC),
            zone=UTC_ZONE,
            **may,
        ).answers
    assert found.level.tolist() == [3, 3, 3]
    assert [found.outcome[found.outcome_level == right].tolist() for right in (2, 4)] == [[1.0], [0.0]]
    assert sorted(found.outcome_level.tolist()) == [0, 2, 4]


def test_a_mart_under_another_key_knows_no_visit_of_the_log(predicted):
    bring(predicted, b"another key of enough characters")

    assert load(predicted) == told(unknown=4)


# Series: an hour of an encounter has an outcome of its own

SEEN, TOMORROW = datetime(2026, 5, 1, 8, tzinfo=UTC), datetime(2026, 5, 2, 8)  # noqa: DTZ001
COURSE = {"A": [0, 0, 0, 1, 1, 1], "B": [0, 1, None]}
"""Stay -> whether there was sepsis in its first hour and each later one; None is not known yet."""


def hours(course, **more):
    """One row a stay and hour, without dates."""
    flat = [(stay, n, fate) for stay, fates in course.items() for n, fate in enumerate(fates, 1)]
    stay, hour, fate = zip(*flat, strict=True)
    ill = [None if one is None else bool(one) for one in fate]
    cells = {"stay_id": stay, "patient_id": stay, "icu_hour": hour, "sepsis_6h": ill}
    undated = dict.fromkeys(("charted_at", "sepsis_known_at"), [None] * len(flat))
    return filled(icu_hour.MART, cells | undated | more)


@pytest.fixture(scope="module")
def sepsis():
    """``sepsis`` on three of its columns and a few trees, never at a loss."""
    spec = replace(
        catalog.load("sepsis"),
        features=("icu_hour", "heart_rate", "lactate"),
        comparators=(),
        support=Support(),
        alert_by="declared",
        lookback=3,
        boosting=Boosting(max_depth=2, learning_rate=0.3, rounds=3),
    )
    rng = np.random.default_rng(4)
    table = hours({f"s{n}": (rng.random(12) < n % 10 / 10).astype(int).tolist() for n in range(60)})
    table = table.append_column("load_id", [["drawn"] * len(table)])
    cohort = select_cohort(spec, icu_hour.MART, table)
    learn = cohort.person % 4 > 0
    return build(
        spec,
        icu_hour.MART,
        cohort,
        Split(train=learn, validate=~learn, test=~learn, periods={}),
        provenance=Provenance(use="demonstration"),
        seed=0,
        threads=1,
    )


class Unit:
    """Asks hour by hour, logs what was answered, and later comes to know what happened."""

    def __init__(self, home, sepsis):
        self.home, self.engine = home, connect(home.log)
        self.key, self.keyring = load_key(home.path), load_keyring(home.path)
        self._scorer = Scorer(artifact=sepsis, version="1", key=self.key)

    def ask(self, *asked, at=SEEN, **more):
        """Answer each (stay, hour), with all the hours before it; the names of the answers."""
        records = []
        for stay, hour in asked:
            rows = [{"icu_hour": n, "heart_rate": 70 + n} for n in range(1, hour + 1)]
            context = [{"series_id": stay, "at": at.isoformat()}]
            body = json.dumps({"instances": rows, "context": context}).encode()
            records += self._scorer.predict(read_predict(body, series=True), Receipt.now()).records
        records = [record | more for record in records]
        with LogWriter(self.engine, self.keyring) as writer:
            writer.submit(Entry(predictions=tuple(records))).result()
        return [record["prediction_id"] for record in records]

    def bring(self, table, load_id="one"):
        (self.home.path / "marts.duckdb").unlink(missing_ok=True)
        with open_store(self.home.marts) as store:
            origin = Origin(load_id=load_id, source="own", use="care")
            store.load(icu_hour.MART, [table], origin, key=self.key)

    def load(self):
        return outcomes.load(self.home, icu_hour.MART, stage=lambda _name, _done: None)

    def known(self):
        """Prediction -> its outcomes with their times, in the order of recording."""
        query = select(outcome.c.prediction_id, outcome.c.outcome, outcome.c.observed_at)
        found = {}
        with self.engine.connect() as connection:
            for name, value, at in connection.execute(query.order_by(outcome.c.id)):
                found.setdefault(name, []).append((value, at))
        return found


@pytest.fixture
def unit(tmp_path, sepsis):
    made = Unit(Home(tmp_path), sepsis)
    yield made
    made.engine.dispose()


def test_each_hour_of_a_series_has_its_own_outcome(unit):
    asked = [("A", 2), ("A", 5), ("A", 5), ("A", 9), ("B", 1), ("B", 3), ("C", 1)]
    names = unit.ask(*asked)
    unit.bring(hours(COURSE))

    # Of eight known hours two of A and one of B were asked about.
    assert unit.load() == told(joined=3, unknown=5)
    fates = {("A", 2): 0, ("A", 5): 1, ("B", 1): 0}
    expected = {
        name: [(fates[of], TOMORROW)] for name, of in zip(names, asked, strict=True) if of in fates
    }
    assert len(expected) == 4
    assert unit.known() == expected
    assert unit.load() == told(unknown=5)
    assert unit.known() == expected


def test_an_hour_that_is_asked_about_again_gets_the_outcome_that_it_already_had(unit):
    first = unit.ask(("A", 5))
    unit.bring(hours(COURSE))
    assert unit.load() == told(joined=1, unknown=7)
    again = unit.ask(("A", 5), at=SEEN.replace(hour=9))
    assert unit.load() == told(joined=1, unknown=7)
    assert unit.known() == {first[0]: [(1, TOMORROW)], again[0]: [(1, TOMORROW.replace(hour=9))]}


@pytest.mark.parametrize(
    ("dated", "expected"),
    [
        ({}, TOMORROW),
        ({"charted_at": LEFT}, datetime(2026, 5, 2, 15, 30)),  # noqa: DTZ001
        ({"charted_at": LEFT, "sepsis_known_at": ARRIVED}, ARRIVED),
    ],
)
def test_an_outcome_is_known_when_the_mart_says_or_else_when_it_could_no_longer_come(
    unit, dated, expected
):
    (name,) = unit.ask(("A", 4))
    unit.bring(hours(COURSE, **{column: [when] * 9 for column, when in dated.items()}))
    assert unit.load() == told(joined=1, unknown=7)
    assert unit.known() == {name: [(1, expected)]}


def test_an_outcome_that_a_later_mart_tells_otherwise_is_revised(unit):
    (name,) = unit.ask(("A", 5))
    unit.bring(hours(COURSE))
    unit.load()
    unit.bring(hours(COURSE | {"A": [0] * 6}), load_id="two")
    assert unit.load() == told(revised=1, unknown=7)
    assert unit.known() == {name: [(1, TOMORROW), (0, TOMORROW)]}
    assert unit.load() == told(unknown=7)


def test_what_a_challenger_said_of_an_hour_is_held_against_the_same_outcome(unit):
    (champion,) = unit.ask(("A", 5))
    (silent,) = unit.ask(("A", 5), pointer="challenger", shadow_of=champion, version="2")
    unit.bring(hours(COURSE))
    assert unit.load() == told(joined=1, unknown=7)
    assert unit.known() == {name: [(1, TOMORROW)] for name in (champion, silent)}


def test_an_answer_without_a_risk_is_told_no_outcome(unit):
    (name,) = unit.ask(("A", 5))
    with writing(unit.engine) as connection:
        connection.execute(text("UPDATE prediction SET status = 'abstained', risk = NULL"))
    unit.bring(hours(COURSE))
    assert unit.load() == told(unknown=8)
    assert name not in unit.known()


def test_predictions_whose_inputs_were_purged_are_counted_and_named_to_nobody(unit, caplog):
    unit.ask(("A", 2), ("A", 5))
    ago = datetime.now(UTC)
    purge(unit.engine, before=ago, now=ago, by="Dr Wu", reason="retention", what="inputs")
    (kept,) = unit.ask(("A", 4))
    unit.bring(hours(COURSE))
    assert unit.load() == told(joined=1, unknown=7, unopened=2)
    assert unit.known() == {kept: [(1, TOMORROW)]}
    assert caplog.messages == ["2 predictions of sepsis do not tell their hour"]


def test_predictions_of_a_lost_key_and_of_a_log_that_was_tampered_with_are_counted(unit):
    unit.ask(("A", 2))
    (unit.home.path / FILE).unlink()
    unit.keyring = load_keyring(unit.home.path)
    names = unit.ask(*[("A", hour) for hour in (1, 3, 4, 5, 6)])
    with writing(unit.engine) as connection:
        changes = ("inputs = 'no'", "inputs = '{}'", 'inputs = \'{"icu_hour": "5"}\'', "at = 'no'")
        for name, change in zip(names, changes, strict=False):
            connection.execute(text(f"UPDATE prediction SET {change} WHERE prediction_id = '{name}'"))
    unit.bring(hours(COURSE))
    assert unit.load() == told(joined=1, unknown=7, unopened=5)
    assert unit.known() == {names[4]: [(1, TOMORROW)]}


def test_a_long_mart_is_read_in_pieces_that_part_no_stay(unit, monkeypatch):
    monkeypatch.setattr("data.engine.embedded.BATCH", 2_048)  # DuckDB's smallest
    monkeypatch.setattr(outcomes, "_ASKED", 7)
    # 37 hours a stay: a piece ends within one. Which fate an hour has tells its number.
    stays = {f"s{n}": [(n + hour) % 2 for hour in range(1, 38)] for n in range(120)}
    asked = [(stay, hour) for stay in stays for hour in (1, 36)]
    names = unit.ask(*asked)
    with writing(unit.engine) as connection:
        connection.execute(text("UPDATE prediction SET inputs = NULL WHERE rowid % 4 < 2"))
    unit.bring(hours(stays))
    with open_store(unit.home.marts, write=False) as store:
        assert len(list(store.batches(icu_hour.MART))) == 3
    assert unit.load() == told(joined=120, unknown=120 * 37 - 120, unopened=120)
    expected = {
        name: [((int(stay[1:]) + hour) % 2, TOMORROW)]
        for name, (stay, hour) in zip(names, asked, strict=True)
        if name in unit.known()
    }
    assert len(expected) == 120
    assert unit.known() == expected
