"""A run over several models and windows: alone, restartable, and no failure hides a verdict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import msgspec
import numpy as np
import pytest

import caremodels
from data.errors import ConflictError
from data.period import Period
from data.pseudonym import load_key
from models import artifact, ledger, release
from monitoring import every, history, index
from monitoring.every import Run, Target, alone, targets, watch

MODEL = "ed_admission"
JULY = datetime(2026, 7, 1, tzinfo=UTC)
KEY = "2026-05-01_2026-05-31"
FILES = {"index.html", "report.json", "quality.json"}

KILLED = """
import os, signal, sys
from pathlib import Path
import caremodels

def dying(method, where):
    def call(self, *given):
        if where(self):
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *given)
    return call

if sys.argv[1] == "in the middle of writing":
    Path.write_bytes = dying(Path.write_bytes, lambda path: path.name == "index.html")
else:  # the former report was moved away, and the new one is not in its place
    Path.rename = dying(Path.rename, lambda path: ".new." in path.name)
caremodels.main(sys.argv[2:])
"""
WORDS = ("monitor", MODEL, "--from", "2026-05", "--to", "2026-05", "--as-of", "2026-07-01", "--json")


@pytest.fixture(scope="module")
def version(loaded, tmp_path_factory):
    """The tiny model as a folder of files, with figures of its promotion."""
    folder = tmp_path_factory.mktemp("version") / "artifact"
    artifact.write(folder, loaded, evidence={"evaluation.json": b'{"n": 9}'})
    return folder


@pytest.fixture
def released(log, version, monkeypatch):
    """The home of the log, in which versions are released and pointed to."""
    monkeypatch.setenv("CAREMODELS_HOME", str(log.home.path))

    def released(**pointers):
        for pointer, number in pointers.items():
            release.publish(log.home.releases, version, model=MODEL, version=number)
            release.point(log.home.releases, model=MODEL, pointer=pointer, version=number)
        return log.home

    return released


@pytest.fixture
def refused(log, visits):
    """A month in which every temperature was refused: an alarm for which nothing need be scored."""
    everybody = np.ones(150, dtype=bool)
    log.add(visits(150, 5), refuse=(everybody, "temperature", "outside 25 to 45 Cel"))


# What is judged


def test_every_pointer_names_a_target_champions_first(released):
    home = released(challenger="4", champion="3")
    (home.releases / "sepsis").mkdir()
    release.point(home.releases, model="sepsis", pointer="champion", version="1")
    assert targets(home) == [
        Target(model=MODEL, version="3", pointer="champion"),
        Target(model="sepsis", version="1", pointer="champion"),
        Target(model=MODEL, version="4", pointer="challenger"),
    ]
    release.unpoint(home.releases, model=MODEL, pointer="challenger")
    assert [target.pointer for target in targets(home)] == ["champion", "champion"]


@pytest.mark.parametrize(
    ("now", "days"),
    [
        (datetime(2026, 3, 1), ("2026-02-01", "2026-02-28")),  # noqa: DTZ001 wall clock
        (datetime(2028, 3, 31, 23, 59), ("2028-02-01", "2028-02-29")),  # noqa: DTZ001
        (datetime(2026, 1, 31), ("2025-12-01", "2025-12-31")),  # noqa: DTZ001
    ],
)
def test_the_last_month_is_whole(now, days):
    assert every.last_month(now).days == days


def test_months_that_are_touched_are_whole():
    found = every.months(Period.between("2025-11-30", "2026-01-01"))
    assert [month.days[0] for month in found] == ["2025-11-01", "2025-12-01", "2026-01-01"]
    assert [month.days[1] for month in found] == ["2025-11-30", "2025-12-31", "2026-01-31"]


@pytest.mark.parametrize(
    ("verdicts", "failed", "expected"),
    [
        (["quiet", "alarm", "insufficient"], True, "alarm"),
        (["quiet", "insufficient"], True, "failed"),
        (["quiet", "insufficient"], False, "quiet"),
        (["insufficient"], False, "insufficient"),
        ([], True, "failed"),
    ],
)
def test_the_gravest_verdict_is_that_of_the_run(verdicts, failed, expected):
    results = tuple(SimpleNamespace(verdict=verdict) for verdict in verdicts)
    assert Run(results=results, failed=({"error": "x"},) if failed else ()).verdict == expected


# Alone


def test_one_run_at_a_time_and_the_lock_goes_with_it(tmp_path):
    home = SimpleNamespace(path=tmp_path / "home")
    with alone(home):
        with (
            pytest.raises(ConflictError, match=rf"under way in this home \(process {os.getpid()}\)"),
            alone(home),
        ):
            pass
        with alone(SimpleNamespace(path=tmp_path / "another")):
            pass
    with alone(home):
        pass


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_no_lock(tmp_path):
    code = (
        "import fcntl, os, sys, time\n"
        "lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print(os.getpid(), file=lock, flush=True); print('held', flush=True); time.sleep(600)"
    )
    home = SimpleNamespace(path=tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "monitor.lock")], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match=rf"\(process {holder.pid}\)"), alone(home):
            pass
        holder.kill()
        holder.wait()
        with alone(home):
            pass


# Restartable


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["in the middle of writing", "between the two renames"])
def test_a_run_that_was_killed_is_typed_again_and_gives_the_whole_report(
    released, refused, moment, capsys
):
    home = released(champion="3")
    assert caremodels.main(list(WORDS)) == 3
    place = home.reports / MODEL / "3"
    before = {path.name: path.read_bytes() for path in (place / KEY).iterdir()}
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, *WORDS], check=False)
    assert killed.returncode == -signal.SIGKILL
    # The report or what it was, and a half folder.
    assert len([path.name for path in place.iterdir()]) == 2
    assert caremodels.main(list(WORDS)) == 3
    assert [path.name for path in place.iterdir()] == [KEY]
    assert {path.name: path.read_bytes() for path in (place / KEY).iterdir()} == before
    assert set(before) == FILES
    # The alarm was opened once, however often its window was judged.
    assert len(ledger.verify(home.ledger, load_key(home.path))) == 1


def test_what_a_killed_run_left_is_no_earlier_window(tmp_path):
    home = SimpleNamespace(reports=tmp_path)
    report = {"pointer": "champion", "window": {"from": "2026-04-01", "to": "2026-04-30"}}
    for name in ("2026-04-01_2026-04-30", ".2026-04-01_2026-04-30.new.77"):
        (tmp_path / "m" / "1" / name).mkdir(parents=True)
        (tmp_path / "m" / "1" / name / "report.json").write_text(json.dumps(report))
    found = history.earlier(home, "m", "1", "champion", Period.between("2026-05", "2026-05"))
    assert found == [{**report, "columns": [], "alarms": []}]


@pytest.mark.parametrize(
    "report",
    [
        "",
        "[]",
        '{"pointer": "champion"}',
        '{"pointer": "champion", "window": {"from": "2026-04-01"}}',
        '{"pointer": "champion", "window": {"from": "2026-04-01", "to": 4}}',
        '{"pointer": "champion", "window": {"from": "2026-04-01", "to": "2026-04-30"}, "columns": 7}',
        '{"pointer": "champion", "window": {"from": "2026-04-01", "to": "2026-04-30"}, "alarms": [{}]}',
    ],
)
def test_what_is_no_report_is_passed_over(tmp_path, report):
    (tmp_path / "m" / "1" / "x").mkdir(parents=True)
    (tmp_path / "m" / "1" / "x" / "report.json").write_text(report)
    home = SimpleNamespace(reports=tmp_path)
    assert history.earlier(home, "m", "1", "champion", Period.between("2026-05", "2026-05")) == []


def test_what_evidently_could_not_read_is_taken_out_of_its_workspace(tmp_path, caplog):
    whole, cut, empty = (tmp_path / str(uuid4()) for _ in range(3))
    for project in (whole, cut):
        (project / "snapshots").mkdir(parents=True)
    empty.mkdir()
    (whole / "metadata.json").write_text("{}")
    (cut / "metadata.json").write_text('{"name": "sep')
    for name, text in (("a", '{"value": NaN}'), ("b", '{"value": 0.'), ("c", "")):
        (whole / "snapshots" / f"{name}.json").write_text(text)
    (tmp_path / "notes").mkdir()  # somebody's own
    every._mended(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([whole.name, "notes"])
    assert [path.name for path in whole.rglob("*.json")] == ["metadata.json", "a.json"]
    assert caplog.text.count("half written and is gone") == 4
    every._mended(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_workspace_that_was_cut_costs_no_report_and_is_filled_again(released, log, visits):
    home = released(champion="3")
    log.add(visits(300, 5))
    job = [Target(model=MODEL, version="3", pointer="champion")], [Period.between("2026-05", "2026-05")]
    assert watch(home, *job, as_of=JULY).failed == ()
    for file in home.evidently.rglob("*.json"):  # the project's and the run's
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    assert watch(home, *job, as_of=JULY).failed == ()
    (again,) = home.evidently.glob("*/snapshots/*.json")
    assert f"3/{KEY}" in json.loads(again.read_bytes())["tags"]


# No failure hides another


def test_a_report_that_cannot_be_written_is_the_failure_of_its_version_alone(released, refused):
    home = released(champion="3", challenger="4")
    (home.reports / MODEL).mkdir(parents=True)
    (home.reports / MODEL / "4").write_text("a file where a folder should be")
    stages = []
    run = watch(
        home,
        [Target(model=MODEL, version=version, pointer="champion") for version in ("4", "3")],
        [Period.between("2026-05", "2026-05")],
        as_of=JULY,
        stage=lambda name, done: stages.append((name, done)),
    )
    assert [(found.version, found.verdict) for found in run.results] == [("3", "alarm")]
    (failed,) = run.failed
    assert (failed["version"], failed["window"]) == ("4", "2026-05-01 to 2026-05-31")
    assert str(home.reports / MODEL / "4") in failed["error"]
    assert run.verdict == "alarm"
    assert [done for _, done in stages] == sorted(done for _, done in stages)
    assert stages[-1] == (f"{MODEL}: done", 1.0)


def test_the_index_links_what_was_judged_and_names_what_was_not(released, refused):
    home = released(champion="3")
    job = [Target(model=MODEL, version="3", pointer="champion")], [Period.between("2026-05", "2026-05")]
    run = watch(home, *job, as_of=JULY)
    failed = [{"model": "m", "version": "1", "pointer": "champion", "window": "w", "error": "<b> & c"}]
    place = index.publish(home, run.results, failed)
    page = place.read_text()
    (link,) = (part.split('"')[0] for part in page.split('href="')[1:])
    assert (place.parent / link).samefile(run.results[0].report)
    assert "judged 1 window; 1 could not be judged" in page
    assert "Not judged: &lt;b&gt; &amp; c" in page
    assert [path.name for path in home.reports.iterdir() if path.is_file()] == ["index.html"]
    report = msgspec.json.decode(Path(run.results[0].report).with_name("report.json").read_bytes())
    assert report["verdict"] == "alarm"
