"""Evidently's pages and its workspace: each window once, and no patient's row in either."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from data.home import Home
from monitoring import report
from monitoring.drift import SCALE, prepare, psi
from monitoring.run import monitor

pytestmark = pytest.mark.slow
JUNE = datetime(2026, 6, 1, tzinfo=UTC).replace(tzinfo=None)
MAY, CHALLENGED = "3/2026-05-01_2026-05-31", "3/2026-05-01_2026-05-31_challenger"


@pytest.fixture
def cells(loaded):
    """Every column, its shares as at training but for 40 rows of the first cell."""
    found = []
    for binned in (*loaded.reference.columns, loaded.reference.risk):
        now = np.array(binned.counts) // 10
        now[0] += 40
        found.append(prepare(binned, now))
    return found


@pytest.fixture
def tested(cells):
    """A run of ``cells`` under a key, as ``monitor`` makes it."""

    def tested(key, limit=0.1):
        return report.drift(cells, {one.column: limit for one in cells}, tags=[key], at=JUNE)

    return tested


def runs(home):
    """Of every run in the workspace its project, name, time and tags, as Evidently reads it."""
    from evidently.ui.workspace import Workspace

    workspace = Workspace.create(str(home.evidently))
    found = []
    for project in workspace.list_projects():
        for number in workspace.list_runs(project.id):
            run = workspace.get_run(project.id, number)
            found.append((project.name, run.name, run.timestamp, tuple(run.tags)))
    return sorted(found)


def test_a_run_stands_in_its_model_s_project_with_its_window_and_pointer(tmp_path, tested):
    home = Home(tmp_path)
    report.keep(home, "ed_admission", MAY, tested(MAY)[2])
    report.keep(home, "ed_admission", CHALLENGED, tested(CHALLENGED)[2])
    report.keep(home, "sepsis", MAY, tested(MAY)[2])
    assert runs(home) == [
        ("ed_admission", MAY, JUNE, (MAY, "champion")),
        ("ed_admission", CHALLENGED, JUNE, (CHALLENGED, "challenger")),
        ("sepsis", MAY, JUNE, (MAY, "champion")),
    ]


def test_a_window_again_replaces_its_run(tmp_path, tested):
    home = Home(tmp_path)
    for limit in (0.1, 0.000001):
        report.keep(home, "ed_admission", MAY, tested(MAY, limit)[2])
    (file,) = home.evidently.glob("*/snapshots/*.json")
    assert len(runs(home)) == 1
    # The later of the two stands, in which every column is over its limit.
    assert "1e-06" in file.read_text()
    assert "NOT detected" not in file.read_text()


def test_a_run_or_a_first_page_that_was_cut_hinders_no_other(tmp_path, tested):
    home = Home(tmp_path)
    report.keep(home, "ed_admission", MAY, tested(MAY)[2])
    for name in ("*/snapshots/*.json", "*/dashboard.json"):
        (file,) = home.evidently.glob(name)
        file.write_text(file.read_text()[:40])
    report.keep(home, "ed_admission", MAY, tested(MAY)[2])
    report.keep(home, "ed_admission", CHALLENGED, tested(CHALLENGED)[2])
    kept = list(home.evidently.glob("*/snapshots/*.json"))
    assert {json.loads(file.read_text())["name"] for file in kept} == {MAY, CHALLENGED}


def test_a_person_s_words_for_a_project_are_kept(tmp_path, tested):
    home = Home(tmp_path)
    report.keep(home, "ed_admission", MAY, tested(MAY)[2])
    (file,) = home.evidently.glob("*/metadata.json")
    file.write_text(file.read_text().replace("Drift by window", "Ours, of the ward"))
    report.keep(home, "ed_admission", CHALLENGED, tested(CHALLENGED)[2])
    assert "Ours, of the ward" in file.read_text()


def test_the_first_page_of_a_project_is_not_empty(tmp_path, tested):
    home = Home(tmp_path)
    report.keep(home, "ed_admission", MAY, tested(MAY)[2])
    (file,) = home.evidently.glob("*/dashboard.json")
    assert "Drift by window" in file.read_text()


def test_evidently_names_the_same_columns_as_our_limits(cells):
    """Its page calls a window drifted once one column is, as the verdict does."""
    values = {one.column: psi(one.drawn_now, one.drawn_then) for one in cells}
    first, *rest = sorted(values, key=values.get, reverse=True)
    limits = {name: values[name] * (0.9 if name == first else 1.1) for name in values}
    found, page, run = report.drift(cells, limits)
    assert found == pytest.approx(values)
    drifted = next(
        metric["value"]
        for metric in run.dict()["metrics"]
        if metric["config"]["type"].endswith(":DriftedColumnsCount")
    )
    assert drifted["count"] == 1
    assert rest
    assert b"Dataset Drift is detected" in page


def test_evidently_is_handed_as_many_rows_for_any_window(cells):
    assert {int(one.drawn_now.sum()) for one in cells} == {SCALE}
    _, page, run = report.drift(cells, {one.column: 0.1 for one in cells})
    (rows,) = {
        metric["value"]
        for metric in run.dict()["metrics"]
        if metric["config"]["type"].endswith(":RowCount")
    }
    assert rows == SCALE
    assert b"<html" in page[:500]


def outcome_page(loaded, risk, outcome):
    window = SimpleNamespace(risk=np.asarray(risk), outcome=np.asarray(outcome))
    return report.outcomes(window, loaded.reference.risk, threshold=0.3).decode()


def test_the_page_of_outcomes_tells_each_risk_as_the_mean_of_its_cell(loaded, visits):
    made = visits(900, 5)
    risk = loaded.score(made.rows).risk
    page = outcome_page(loaded, risk, made.outcome)
    codes = loaded.reference.risk.assign(risk)
    means = {round(float(risk[codes == code].mean()), 4) for code in np.unique(codes)}
    assert len(means) <= 10
    own = {f"{value:.6f}" for value in risk.tolist()}
    assert not own & set(re.findall(r"0\.\d{6}", page))


def test_the_page_of_outcomes_counts_what_the_window_holds(loaded):
    """By hand: of 40 alerted 30 are right, of 160 others 10 are missed: recall 0.75, precision 0.75."""
    risk = np.repeat([0.9, 0.01], [40, 160])
    outcome = np.concatenate([np.arange(40) < 30, np.arange(160) < 10]).astype(float)
    page = outcome_page(loaded, risk, outcome)
    told = {name: value for value, name in re.findall(r'"value": "([\d.]+)", "label": "(\w+)"', page)}
    assert (told["Recall"], told["Precision"]) == ("0.75", "0.75")


def test_no_patient_stands_in_evidently_s_pages_or_workspace(log, loaded, visits, may):
    log.add(visits(600, 5), outcomes=True)
    found = monitor(log.home, loaded, "3", may)
    (snapshot,) = log.home.evidently.glob("*/snapshots/*.json")
    folder = log.home.reports / found.model / "3"
    pages = [*folder.glob("*/evidently*.html"), snapshot]
    assert len(pages) == 3
    with log.engine.connect() as connection:
        risks = connection.exec_driver_sql("SELECT risk FROM prediction").scalars().all()
    # Edges of cells have four significant digits.
    own = {f"{risk:.6f}" for risk in risks}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "canary-patient" not in text
        assert "prediction-0" not in text
        assert not own & set(re.findall(r"0\.\d{6}", text))


def test_to_show_a_page_evidently_asks_nobody(tmp_path):
    """In a process of its own, with every socket forbidden."""
    code = """
import socket
def forbidden(*given, **named):
    raise AssertionError("a socket was opened")
socket.socket.connect = forbidden
import numpy as np
from data.contract import Text
from models.reference import Binned
from monitoring import drift, report
binned = Binned(column="x", label=Text("x", "x"), labels=("a", "b", "missing"), counts=(500, 500, 0),
                kept=("a", "b"))
cells = [drift.prepare(binned, np.array([60, 60, 0]))]
values, page, _ = report.drift(cells, {"x": 0.1})
print(values["x"], len(page) > 100_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.split() == ["0.0", "True"]
