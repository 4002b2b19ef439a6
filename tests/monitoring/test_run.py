"""A window of the log in, verdict and report out. Evidently takes seconds to import: mostly slow."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from data.errors import UnavailableError
from monitoring import report
from monitoring.drift import prepare, psi
from monitoring.run import monitor

SHAPE = {
    "model", "version", "pointer", "window", "n", "outcomes", "verdict", "columns", "performance",
    "alarms", "proposed", "report",
}  # fmt: skip
COLUMN = {"column", "site", "statistic", "value", "threshold", "drifted"}
slow = pytest.mark.slow


@pytest.fixture
def run(log, loaded, may):
    def run(**given):
        return monitor(log.home, loaded, "3", may, **given)

    return run


def drifted(found):
    return {(row.column, row.site) for row in found.columns if row.drifted}


def folder(found):
    return Path(found.report).parent


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
    values, page = report.drift(cells, {found.column: 0.1 for found in cells})
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
    assert found.proposed == ({"action": "inspect_inputs", "why": "Body temperature at south"},)
    assert "outside 25 to 45 Cel" in Path(found.report).read_text()


@slow
def test_what_is_no_longer_recorded_at_one_site_is_found_there(run, log, visits):
    made = visits(1500, 5)
    lost = (made.site == "south") & (np.arange(1500) % 2 == 0)
    made.rows["heart_rate"][lost] = np.nan
    log.add(made)
    alarms = [alarm for alarm in run().alarms if alarm["column"] == "heart_rate"]
    assert [alarm["site"] for alarm in alarms] == ["south"]
    assert "“not recorded” 0.0% at training" in alarms[0]["message"]


@slow
def test_a_change_of_practice_calls_for_recalibration(run, log, visits):
    made = visits(2000, 5)
    made.outcome = made.outcome * (np.arange(2000) % 2)
    log.add(made, outcomes=True)
    found = run()
    assert [alarm["what"] for alarm in found.alarms] == ["calibration"]
    assert [item["action"] for item in found.proposed] == ["recalibrate"]
    assert "observed/expected is 0." in found.alarms[0]["message"]
