"""A window of the log in, verdict and report out. Evidently takes seconds to import: mostly slow."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from data.errors import UnavailableError
from data.log.outcomes import OutcomeRow, record_outcomes
from monitoring import alarms, report, states, window
from monitoring.drift import prepare, psi
from monitoring.run import judge, monitor

SHAPE = {
    "model", "version", "pointer", "window", "zone", "as_of", "n", "outcomes", "share", "verdict",
    "columns", "performance", "estimate", "trend", "sequential", "reasons", "alarms", "proposed",
    "report",
}  # fmt: skip
COLUMN = {"column", "site", "statistic", "value", "threshold", "drifted"}
ALARM = {
    "number", "state", "opened", "acknowledged", "closed", "what", "column", "site", "group", "message",
    "value", "limits", "since", "response",
}  # fmt: skip
PROPOSAL = {"action", "why", "alarms", "signature", "beyond", "command", "details"}
START, JULY = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
slow = pytest.mark.slow


@pytest.fixture
def run(log, loaded, may):
    """The verdict on May as of July, whatever this machine's clock says."""

    def run(**given):
        return monitor(log.home, loaded, "3", may, **{"as_of": JULY, **given})

    return run


def drifted(found):
    return {(row.column, row.site) for row in found.columns if row.drifted}


def folder(found):
    return Path(found.report).parent


@slow
def test_importing_it_loads_no_evidently():
    code = "import sys, monitoring.run; print(any(m in sys.modules for m in ('evidently', 'mlflow')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("n", [0, 1, 99])
def test_a_window_too_small_is_a_verdict_with_its_reason(run, log, visits, n):
    if n:
        log.add(visits(n, 5), outcomes=True)
    found = run()
    assert (found.verdict, found.n, found.proposed) == ("insufficient", n, ())
    assert [alarm["what"] for alarm in found.alarms] == ["insufficient"]
    assert "at least 100 are needed" in found.alarms[0]["message"]
    assert found.columns == ()
    page = Path(found.report).read_text()
    assert "Not enough data" in page
    assert "evidently.html" not in page


def test_refusals_alone_are_loud_where_nothing_could_be_scored(run, log, visits):
    everybody = np.ones(150, dtype=bool)
    log.add(visits(150, 5), refuse=(everybody, "temperature", "outside 25 to 45 Cel"))
    found = run()
    assert found.verdict == "alarm"
    assert ("temperature", None) in drifted(found)


def test_abstentions_alone_are_not_enough_to_judge(run, log):
    log.write([log.record(status="abstained", inputs="{}") for _ in range(150)])
    found = run()
    assert found.verdict == "insufficient"
    assert [row.value for row in found.columns if row.column == "abstained"] == [1.0]


def test_a_log_that_is_none_is_an_error_and_leaves_no_report(log, loaded, may, monkeypatch, tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_text("no database, though it is long enough to be taken for one" * 20)
    monkeypatch.setenv("CAREMODELS_LOG", f"sqlite:///{broken}")
    with pytest.raises(UnavailableError):
        monitor(log.home, loaded, "3", may)
    assert not log.home.reports.exists()


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    report.publish(tmp_path / "r", {"index.html": b"old", "stale.html": b""})
    with pytest.raises(TypeError):
        report.publish(tmp_path / "r", {"index.html": b"new", "bad.html": None})
    assert (tmp_path / "r" / "index.html").read_bytes() == b"old"
    report.publish(tmp_path / "r", {"index.html": b"new"})
    assert [path.name for path in tmp_path.rglob("*")] == ["r", "index.html"]


# As of when


def test_the_same_moment_gives_the_same_report_whatever_is_told_later(run, log, visits):
    log.add(visits(90, 5), outcomes=True)
    moment = START + timedelta(days=20)
    found = run(as_of=moment)
    assert (found.as_of, found.outcomes, found.performance["n"]) == ("2026-05-21T00:00:00Z", 90, 90)
    before = [(folder(found) / name).read_bytes() for name in ("report.json", "index.html")]
    with log.engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT prediction_id FROM prediction").scalars().all()
    now = moment + timedelta(days=1)
    turned = [OutcomeRow(outcome=1, observed_at=now, prediction_id=name) for name in names]
    assert record_outcomes(log.engine, turned, now).counts.revised > 0
    log.write([log.record(at=START, received_at=now, margin=0.0, risk=0.5)])
    assert run(as_of=moment) == found
    assert [(folder(found) / name).read_bytes() for name in ("report.json", "index.html")] == before
    later = run(as_of=now)
    assert (later.n, later.performance["events"]) == (91, 90)
    assert found.performance["events"] < 90


def test_outcomes_count_once_they_can_be_known_of_everybody(run, log, visits):
    """Of an admission after two days: of rows every four minutes those up to 200 minutes."""
    log.add(visits(99, 5), outcomes=True)
    found = run(as_of=START + timedelta(days=2, minutes=200))
    assert (found.n, found.outcomes, found.trend[-1]["outcomes"]) == (99, 51, 51)
    assert found.trend[-1]["mature"] == pytest.approx(51 / 99)


# Whose answers


def test_a_silent_challenger_has_a_window_of_its_own(run, log, visits):
    log.add(visits(60, 5), outcomes=True)
    log.write([log.record(pointer="challenger", used="silent", margin=0.0, risk=0.5)] * 1)
    spoken, silent = run(), run(pointer="challenger")
    assert [(found.pointer, found.n) for found in (spoken, silent)] == [
        ("champion", 60),
        ("challenger", 1),
    ]
    assert [path.name for path in sorted(folder(spoken).parent.iterdir())] == [
        "2026-05-01_2026-05-31",
        "2026-05-01_2026-05-31_challenger",
    ]


def test_the_alarms_of_a_challenger_are_its_own(run, log, visits):
    everybody = np.ones(150, dtype=bool)
    log.add(visits(150, 5), refuse=(everybody, "temperature", "outside 25 to 45 Cel"))
    log.write([log.record(pointer="challenger", used="silent", margin=0.0, risk=0.5)])
    assert run().alarms[0]["what"] == "refusals"
    assert [alarm["what"] for alarm in run(pointer="challenger").alarms] == ["insufficient"]
    assert {one.pointer for one in states.listed(log.home)} == {"champion"}


@pytest.mark.parametrize("used", ["answered", "card"])
def test_fewer_events_among_the_shown_alone_are_no_calibration_alarm(log, loaded, visits, may, used):
    """A warning changes the outcome that it warned of: of five events one still comes about."""
    left, turned = visits(2000, 5), visits(2000, 6)
    turned.outcome *= turned.rng.random(2000) < 0.2
    log.add(left, outcomes=True)
    log.add(turned, outcomes=True)
    with log.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE prediction SET used = ? WHERE prediction_id >= 'prediction-0002000'", (used,)
        )
    read = window.read(log.engine, loaded, "3", may, keyring=log.keyring, as_of=JULY)
    judged = judge(read, loaded)
    raised = alarms.raised(judged.signals, loaded.spec)
    assert any(alarm["what"] == "calibration" for alarm in raised) == (used == "answered")
    if used == "card":
        apart = judged.measured["apart"]
        assert apart["unshown"]["oe"]["value"] == pytest.approx(1, abs=0.1)
        assert apart["shown"]["oe"]["value"] == pytest.approx(0.2, abs=0.05)


def test_where_all_were_shown_no_alarm_is_raised_for_fewer_events(log, loaded, visits, may):
    """Of five events three are prevented: neither a subgroup nor the slope is at fault."""
    made = visits(2500, 5)
    made.outcome *= made.rng.random(2500) < 0.4
    log.add(made, outcomes=True)
    with log.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prediction SET used = 'card'")
    read = window.read(log.engine, loaded, "3", may, keyring=log.keyring, as_of=JULY)
    assert alarms.raised(judge(read, loaded).signals, loaded.spec) == []


# Whose clock


def test_a_month_begins_where_the_site_is(run, log, monkeypatch):
    """In Shanghai, eight hours ahead, May begins on 30 April at 16:00 UTC."""
    hours = [datetime(2026, 4, 30, 15, 59), datetime(2026, 4, 30, 16), datetime(2026, 5, 31, 15, 59)]  # noqa: DTZ001
    hours.append(datetime(2026, 5, 31, 16))  # noqa: DTZ001
    log.write([log.record(at=at, margin=0.0, risk=0.5, site="north") for at in hours])
    assert (run().n, run().zone) == (2, "UTC")
    monkeypatch.setenv("CAREMODELS_TIMEZONE", "Asia/Shanghai")
    found = run()
    assert (found.n, found.zone) == (2, "Asia/Shanghai")
    assert "Asia/Shanghai" in Path(found.report).read_text()
    with log.engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM prediction WHERE at = '2026-04-30 16:00:00.000000'")
        connection.commit()
    assert run().n == 1


# With Evidently


@slow
def test_our_psi_is_evidently_s(loaded):
    """By hand: (0.3 - 0.5) ln(0.3/0.5) + (0.7 - 0.5) ln(0.7/0.5) = 0.1695."""
    sex = next(c for c in loaded.reference.columns if c.column == "sex")
    half = type(sex)(
        column="sex", label=sex.label, labels=sex.labels, counts=(500, 500, 0, 0), kept=sex.kept
    )
    rng = np.random.default_rng(0)
    cells = [prepare(half, np.array([300, 700, 0, 0]))]
    for binned in (*loaded.reference.columns, loaded.reference.risk):
        if binned.column != "sex":
            window = rng.multinomial(700, rng.dirichlet(np.ones(len(binned.labels))))
            cells.append(prepare(binned, window))
    values, page, _ = report.drift(cells, {found.column: 0.1 for found in cells})
    assert values["sex"] == pytest.approx(0.1695, abs=5e-5)
    for found in cells:
        assert values[found.column] == pytest.approx(psi(found.drawn_now, found.drawn_then), rel=1e-9)
    assert page.lower().startswith(b"\n<!doctype html>") or b"<html" in page[:500]


@slow
def test_an_undrifted_window_is_quiet(run, log, visits, capfd):
    log.add(visits(3000, 5), outcomes=True)
    stages = []
    found = run(stage=lambda name, done: stages.append((name, done)))
    assert found.verdict == "quiet"
    assert (found.n, found.outcomes, found.alarms, found.proposed) == (3000, 3000, (), ())
    assert found.performance["calibration"]["oe"] == pytest.approx(1, abs=0.1)
    sites = {row.site for row in found.columns if row.statistic == "psi"}
    assert sites == {None, "north", "south"}
    assert [done for _, done in stages] == sorted(done for _, done in stages)
    assert capfd.readouterr() == ("", "")


@slow
def test_the_report_is_the_json_and_holds_no_row(run, log, visits):
    log.add(visits(600, 5), outcomes=True)
    found = run(at_promotion={"n": 9, "auroc": {"value": 0.7, "low": 0.6, "high": 0.8}})
    files = {path.name: path.read_bytes() for path in folder(found).iterdir()}
    assert set(files) == {
        "index.html",
        "report.json",
        "quality.json",
        "evidently.html",
        "evidently_outcomes.html",
    }
    printed = msgspec.json.decode(msgspec.json.encode(asdict(found)))
    assert msgspec.json.decode(files["report.json"]) == printed
    assert set(printed) == SHAPE
    assert all(set(row) == COLUMN for row in printed["columns"])
    assert (printed["zone"], printed["as_of"], printed["share"]) == ("UTC", "2026-07-01T00:00:00Z", 1.0)
    assert printed["window"] == {"from": "2026-05-01", "to": "2026-05-31"}
    assert folder(found) == log.home.reports / "ed_admission" / "3" / "2026-05-01_2026-05-31"
    page = files["index.html"].decode()
    assert "Demonstration, not for care." in page
    assert "0.700" in page
    assert "<script" not in page
    assert "http" not in page
    for name, content in files.items():
        assert b"canary-patient" not in content, name
        assert b"prediction-0" not in content, name
    # A risk to its last digits is one patient's; Evidently gets the means of ten cells.
    with log.engine.connect() as connection:
        risks = connection.exec_driver_sql("SELECT risk FROM prediction").scalars().all()
    for risk in set(risks):
        assert f"{risk:.6f}".encode() not in files["evidently_outcomes.html"]


@slow
def test_the_same_window_again_gives_the_same_report(run, log, visits):
    log.add(visits(600, 5), outcomes=True)
    found = run()
    before = {path.name: path.read_bytes() for path in folder(found).iterdir()}
    (folder(found) / "stale.html").write_text("left from an older run")
    assert run() == found
    after = {path.name: path.read_bytes() for path in folder(found).iterdir()}
    assert set(after) == set(before)
    for name in ("index.html", "report.json", "quality.json"):
        assert after[name] == before[name]
    assert [path.name for path in folder(found).parent.iterdir()] == ["2026-05-01_2026-05-31"]


@slow
def test_a_shifted_column_is_named(run, log, visits):
    made = visits(1500, 5)
    made.rows["heart_rate"] += 12
    log.add(made)
    found = run()
    assert found.verdict == "alarm"
    assert {column for column, _ in drifted(found)} - {"risk"} == {"heart_rate"}
    alarm = next(alarm for alarm in found.alarms if alarm["column"] == "heart_rate")
    assert (alarm["what"], alarm["site"]) == ("input_drift", None)
    assert alarm["message"].startswith("Heart rate has shifted over all sites together")
    assert "inspect_inputs" in {item["action"] for item in found.proposed}
    assert found.performance["auroc"] is None


@slow
def test_a_thermometer_in_fahrenheit_is_found_at_its_site(run, log, visits):
    made = visits(1500, 5)
    log.add(made, refuse=(made.site == "south", "temperature", "outside 25 to 45 Cel"))
    found = run()
    assert drifted(found) == {("temperature", None), ("temperature", "south")}
    assert [(a["what"], a["column"], a["site"]) for a in found.alarms] == [
        ("refusals", "temperature", "south")
    ]
    (alarm,), (proposed,) = found.alarms, found.proposed
    assert set(alarm) == ALARM
    assert (alarm["number"], alarm["state"], alarm["since"]) == (1, "open", "2026-05-01")
    assert alarm["message"].startswith("Body temperature: 100% of requests at south are refused")
    assert set(proposed) == PROPOSAL
    assert (proposed["action"], proposed["alarms"]) == ("inspect_inputs", [1])
    # Somebody has to look: there is nothing to type, and so nothing to sign.
    assert (proposed["command"], proposed["signature"]) == (None, False)
    assert proposed["why"] == alarm["message"]
    assert "outside 25 to 45 Cel" in Path(found.report).read_text()


@slow
def test_what_is_no_longer_recorded_at_one_site_is_found_there(run, log, visits):
    made = visits(1500, 5)
    lost = (made.site == "south") & (np.arange(1500) % 2 == 0)
    made.rows["heart_rate"][lost] = np.nan
    log.add(made)
    alarms = [alarm for alarm in run().alarms if alarm["column"] == "heart_rate"]
    assert [alarm["site"] for alarm in alarms] == ["south"]
    assert alarms[0]["message"].startswith(
        "Heart rate is less often recorded at south: not recorded in 0.0% at training, 4"
    )
    assert alarms[0]["value"] == pytest.approx(0.5, abs=0.05)


@slow
def test_a_change_of_practice_calls_for_recalibration(run, log, visits):
    made = visits(2000, 5)
    made.outcome = made.outcome * (np.arange(2000) % 2)
    log.add(made, outcomes=True)
    found = run()
    first = found.alarms[0]
    assert (first["what"], first["site"], first["response"]) == ("calibration", None, "recalibrate")
    assert first["message"].startswith("Observed/expected is 0.4")
    assert (first["value"], first["limits"]) == (pytest.approx(0.42, abs=0.005), [0.8, 1.25])
    proposed = next(item for item in found.proposed if item["action"] == "recalibrate")
    assert set(proposed) == PROPOSAL
    number = first["number"]
    assert number in proposed["alarms"]
    # Without a change-control file a person signs.
    assert proposed["signature"]
    assert proposed["command"].startswith(f"caremodels respond {number} ")
    for row in proposed["details"]:
        assert abs(row["after"]["oe"] - 1) < abs(row["before"]["oe"] - 1)
        assert row["shift"] < 0
    assert {row["site"] for row in proposed["details"]} == {"north", "south"}
