"""From the log to counts."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.seal import load_keyring
from data.period import Period
from monitoring.counting import UNDECLARED
from monitoring.window import quality, read

START = datetime(2026, 5, 1, tzinfo=UTC)


def test_every_row_is_counted_once_together_and_once_at_its_site(log, loaded, visits, may):
    made = visits(700, 5)
    log.add(made, outcomes=True, repeat=2)
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.whole.rows == found.whole.scored == found.whole.outcomes == len(found.outcome) == 700
    assert found.whole.patients == 350
    assert len(np.unique(found.patient)) == 350
    for name, counts in found.sites.items():
        assert counts.rows == (made.site == name).sum()
    for column, cells in found.whole.cells.items():
        assert cells.sum() == 700, column
    pain = found.whole.cells["pain"]
    assert pain[-1] == np.isnan(made.rows["pain"]).sum()
    assert np.array_equal(np.sort(found.risk), np.sort(loaded.risk(made.rows)))


def test_another_version_month_or_model_is_not_in_it(log, loaded, visits, may):
    log.add(visits(120, 5))
    log.add(visits(50, 6), version="4")
    log.write([log.record(model="sepsis"), log.record(at=may.end)])
    assert read(log.engine, loaded, "3", may, keyring=log.keyring).whole.rows == 120
    assert read(log.engine, loaded, "4", may, keyring=log.keyring).whole.rows == 50
    assert (
        read(
            log.engine, loaded, "5", Period.between("2020-01", "2020-02"), keyring=log.keyring
        ).whole.rows
        == 0
    )


def test_what_a_version_said_silently_is_not_what_it_answered(log, loaded, visits, may):
    log.add(visits(120, 5))
    log.write([log.record(pointer="challenger", used="silent") for _ in range(30)])
    assert read(log.engine, loaded, "3", may, keyring=log.keyring).whole.rows == 120
    silent = read(log.engine, loaded, "3", may, keyring=log.keyring, pointer="challenger")
    assert silent.whole.rows == 30


def test_inputs_that_no_key_opens_are_counted_and_harm_no_other(log, loaded, visits, may, tmp_path):
    log.add(visits(50, 5))
    (tmp_path / "log-keys.json").unlink()
    log.keyring = load_keyring(tmp_path)
    log.add(visits(70, 6))
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert (found.whole.rows, found.whole.unreadable, found.whole.cells["age"].sum()) == (120, 50, 70)


def test_refusals_are_counted_by_field_rule_and_site(log, loaded, visits, may):
    made = visits(300, 5)
    north = made.site == "north"
    log.add(made, refuse=(north, "temperature", "outside 25 to 45 Cel"))
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.whole.refused == {"temperature": north.sum()}
    assert found.sites["south"].refused == {}
    assert quality(found)["refusals"] == [
        {
            "field": "temperature",
            "rule": "outside 25 to 45 Cel",
            "rows": north.sum(),
            "sites": {"north": north.sum()},
        }
    ]


def test_a_field_of_the_callers_own_making_is_not_repeated(log, loaded, may):
    faults = [{"field": name, "reason": "unknown field"} for name in ("Wang Fang", "Li Na")]
    reasons = msgspec.json.encode(faults).decode()
    log.write([log.record(status="refused", reasons=reasons)])
    assert read(log.engine, loaded, "3", may, keyring=log.keyring).whole.refused == {UNDECLARED: 1}


@pytest.mark.parametrize(
    "inputs", [None, "", "{", "[]", '{"age": "old"}', '{"age": 40}, {"age": 50}', '{"sex": 1}']
)
def test_inputs_that_cannot_be_read_are_counted(log, loaded, visits, may, inputs):
    log.add(visits(110, 5))
    log.write([log.record(inputs=inputs, risk=0.2, margin=-1.4, site="north")])
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.whole.rows == 111
    assert found.whole.unreadable == found.sites["north"].unreadable == 1
    assert found.whole.cells["age"].sum() == 110


def test_of_an_ordinal_model_the_risk_is_that_of_its_event(log, loaded, may):
    inputs = msgspec.json.encode({"age": 40}).decode()
    margins = np.linspace(-3, 3, 7)
    # As ed_triage answers: each risk is of another level, the last of them certain.
    rows = [log.record(margin=margin, risk=1.0, inputs=inputs) for margin in margins.tolist()]
    log.write(rows)
    known = [
        OutcomeRow(outcome=1, observed_at=START, prediction_id=row["prediction_id"]) for row in rows
    ]
    record_outcomes(log.engine, known, START)
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert np.allclose(np.sort(found.risk), 1 / (1 + np.exp(-margins)))
    expected = loaded.reference.risk.assign(found.risk)
    cells = found.whole.cells["risk"]
    assert np.array_equal(cells, np.bincount(expected, minlength=len(cells)))
    assert (cells > 0).sum() > 3


def test_of_a_series_the_scored_row_is_counted(log, loaded, may):
    before = [{"age": 30, "heart_rate": 60 + hour} for hour in range(23)]
    inputs = {"age": 40, "heart_rate": 90, "series": before}
    log.write([log.record(inputs=msgspec.json.encode(inputs).decode(), margin=-1.0, risk=0.27)])
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.whole.unreadable == 0
    assert found.whole.cells["age"].sum() == found.whole.cells["heart_rate"].sum() == 1


def test_an_empty_window_is_a_window(log, loaded, may):
    found = read(log.engine, loaded, "3", may, keyring=log.keyring)
    assert found.whole.rows == found.whole.patients == len(found.outcome) == 0
    assert quality(found)["missing"][0]["window"] is None


def test_batches_do_not_show(log, loaded, visits, may, monkeypatch):
    log.add(visits(500, 5), outcomes=True)
    whole = read(log.engine, loaded, "3", may, keyring=log.keyring)
    monkeypatch.setattr("data.log.read._AT_ONCE", 16)
    monkeypatch.setattr("data.log.read._TOGETHER", 4)
    told = []
    pieces = read(log.engine, loaded, "3", may, keyring=log.keyring, done=told.append)
    assert told[-1] == 1
    assert told == sorted(told)
    assert len(told) > 8
    assert pieces.whole.patients == whole.whole.patients == 500
    assert np.array_equal(pieces.patient, whole.patient)
    for column, cells in whole.whole.cells.items():
        assert np.array_equal(pieces.whole.cells[column], cells)
