"""The edges of a window, each with a clear answer: nobody, one patient, one class, no reference, no key.

And the same rows on another database. What the command line makes of them: test_commands.py.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import insert, select

from data.log.feedback import FeedbackRow, record_feedback
from data.log.outcomes import OutcomeRow, record_outcomes
from data.log.schema import connect, feedback, outcome, prediction, writing
from data.period import Period
from monitoring import alarms, states, window
from monitoring.run import judge, monitor

START, JULY = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
slow = pytest.mark.slow


@pytest.fixture
def run(log, loaded, may):
    """The verdict on May as of July."""

    def run(model=loaded, period=may, **given):
        return monitor(log.home, model, "3", period, **{"as_of": JULY, **given})

    return run


@pytest.fixture
def said(log, loaded, may):
    """What the window says, and the alarms of it, without a page or a ledger."""

    def said():
        read = window.read(log.engine, loaded, "3", may, keyring=log.keyring, as_of=JULY)
        judged = judge(read, loaded)
        return judged, alarms.raised(judged.signals, loaded.spec)

    return said


def written(found, name="report.json"):
    return msgspec.json.decode(Path(found.report).with_name(name).read_bytes())


def test_one_patient_of_many_visits_makes_no_drift(said, log, visits):
    """However often one person comes: one person says nothing of a shift."""
    made = visits(300, 5)
    made.rows["heart_rate"] += 12
    log.add(made, repeat=300)
    judged, raised = said()
    assert raised == []
    shift = next(row for row in judged.findings if row.column == "heart_rate" and row.site is None)
    assert (shift.statistic, shift.drifted) == ("psi", False)
    # What chance may add for one person is more than any shift.
    assert shift.threshold > 10


@pytest.mark.parametrize("same", [0.0, 1.0])
def test_one_class_has_no_measures_and_says_why(said, log, visits, same):
    made = visits(600, 5)
    made.outcome[:] = same
    log.add(made, outcomes=True)
    judged, raised = said()
    measured = judged.measured
    assert (measured["n"], measured["events"], measured["auroc"]) == (600, 600 * same, None)
    assert measured["reason"].startswith("600 outcomes are known, 0 of the rarer kind; at least 50")
    # That nobody was admitted, or everybody, is news for all that.
    assert raised[0]["what"] == "calibration"
    msgspec.json.encode([measured, judged.foreseen, judged.trend, judged.bets, raised])


@pytest.mark.parametrize("rows", [0, 1, 99])
def test_the_page_of_a_few_rows_is_whole(run, log, visits, rows):
    if rows:
        log.add(visits(rows, 5), outcomes=True)
    found = run()
    assert written(found)["n"] == written(found, "quality.json")["rows"] == rows
    page = Path(found.report).read_text()
    assert "Not enough data" in page
    assert f"{rows} predictions in the window; at least 100 are needed" in page
    assert page.rstrip().endswith("</html>")


def test_a_version_without_a_reference_to_hold_to_is_not_judged(run, loaded, log, visits):
    log.add(visits(150, 5), outcomes=True)

    def emptied(binned):
        return replace(binned, counts=(0,) * len(binned.counts))

    nothing = replace(
        loaded.reference,
        rows=12,
        columns=tuple(map(emptied, loaded.reference.columns)),
        risk=emptied(loaded.reference.risk),
        sites={},
    )
    found = run(replace(loaded, reference=nothing))
    assert (found.verdict, found.columns[0].column) == ("insufficient", "abstained")
    assert found.alarms[0]["message"] == (
        "0 rows in the reference of the version's training; at least 100 are needed"
    )
    assert found.performance["n"] == 150  # outcomes need no reference


@slow
def test_a_site_without_a_reference_is_counted_and_named(run, log, visits):
    made = visits(600, 5)
    made.site[made.site == "south"] = "east"
    log.add(made, outcomes=True)
    found = run()
    assert {row.site for row in found.columns if row.statistic == "psi"} == {None, "north"}
    # It sends a third of the requests: that alone is worth a look.
    assert [(alarm["column"], alarm["site"]) for alarm in found.alarms] == [("site", "east")]
    (east,) = (row for row in written(found, "quality.json")["sites"] if row["site"] == "east")
    assert (east["rows"], east["training_rows"]) == ((made.site == "east").sum(), None)
    assert "east" in Path(found.report).read_text()


@slow
def test_inputs_that_no_key_opens_are_no_quiet_window(run, log, visits):
    """A home that was moved without its keys reads every input as missing."""
    log.add(visits(300, 5), outcomes=True)
    (log.home.path / "log-keys.json").unlink()
    found = run()
    assert found.verdict == "insufficient"
    assert found.alarms[0]["message"] == (
        "0 scored predictions whose inputs can be read back; at least 100 are needed"
    )
    assert written(found, "quality.json")["unreadable"] == 300


def test_a_period_without_an_end_goes_up_to_now(run, log, visits):
    log.add(visits(60, 5))
    for period in (Period.between("2026-05", None), Period.between(None, None)):
        found = run(period=period)
        assert (found.n, found.verdict) == (60, "insufficient")


def test_nothing_comes_to_rest_in_a_window_that_was_not_judged(run, log, visits):
    """Not even where another alarm is raised: refusals need no scored row."""
    april = {"from": "2026-04-01", "to": "2026-04-30"}
    place = dict.fromkeys(("column", "site", "group", "value", "since"))
    alarm = {"what": "alert_rate", **place, "message": "x", "limits": [None, None], "response": "watch"}
    states.record(log.home, "ed_admission", "3", "champion", [alarm], april)
    everybody = np.ones(150, dtype=bool)
    log.add(visits(150, 5), refuse=(everybody, "temperature", "outside 25 to 45 Cel"))
    assert run().verdict == "alarm"
    assert [(one.alarm["what"], one.quiet_from) for one in states.listed(log.home)] == [
        ("alert_rate", None),
        ("refusals", None),
    ]


@slow
def test_the_same_rows_on_postgresql_give_the_same_report(run, log, visits, postgres_url, monkeypatch):
    log.add(visits(900, 5), outcomes=True, repeat=2)
    with log.engine.connect() as connection:
        names = connection.scalars(select(prediction.c.prediction_id).order_by("prediction_id")).all()
    later = START + timedelta(days=9)
    turned = [OutcomeRow(outcome=1, observed_at=later, prediction_id=name) for name in names[:200]]
    record_outcomes(log.engine, turned, later)
    seen = [
        FeedbackRow(prediction_id=name, outcome="accepted", occurred_at=later) for name in names[::5]
    ]
    record_feedback(log.engine, seen, later, keyring=log.keyring)
    # Several of one encounter, two of them at the same time, and one from before the year.
    encounter = {"encounter": "e", "margin": 0.0, "risk": 0.5, "inputs": "{}"}
    long_ago = {"at": START - timedelta(days=500), **encounter}
    log.write([log.record(**encounter), log.record(**encounter), log.record(**long_ago)])
    log.write([log.record(status="abstained", inputs="{}", encounter="e")])
    here = run()
    assert (here.n, here.outcomes) == (903, 900)

    server = connect(postgres_url)
    with log.engine.connect() as source, writing(server) as target:
        for table in (prediction, outcome, feedback):
            rows = [dict(row) for row in source.execute(select(table)).mappings()]
            target.execute(insert(table), rows)
    server.dispose()
    first = written(here)
    monkeypatch.setenv("CAREMODELS_LOG", postgres_url)
    there = run()
    assert there == here
    assert written(there) == first
    assert written(there, "quality.json") == written(here, "quality.json")
