"""``caremodels explain``: a window of the log, or one prediction, from the command line."""

from __future__ import annotations

import getpass
import json
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import select

import caremodels
from data.log.schema import maintenance, writing
from data.period import Period
from models import artifact
from monitoring.explain import run

IMPORTANCE = [{"feature": "age", "mean_abs": 3.0}, {"feature": "sex", "mean_abs": 1.0}]


@pytest.fixture
def explain(log, loaded, may):
    def explain(**given):
        return run.explain(log.home, loaded, "3", may, at_promotion={"importance": IMPORTANCE}, **given)

    return explain


def test_a_window_is_explained_from_the_log(log, visits, explain, loaded):
    made = visits(600, 5)
    log.add(made)
    found = explain()
    size = np.abs(loaded.score(made.rows).contributions)
    share = size.sum(axis=0) / size.sum()
    assert (found.n, found.explained, found.reason) == (600, 600, None)
    for place, feature in enumerate(loaded.features.features):
        row = next(row for row in found.features if row["feature"] == feature.name)
        assert row["share"]["value"] == pytest.approx(share[place])
    assert next(row for row in found.features if row["feature"] == "age")["training"] == 0.75
    groups = {(row["group"], row["level"]): row for row in found.groups}
    assert groups["site", "south"]["n"] == (made.site == "south").sum()
    assert groups["sex", "female"]["n"] == (made.rows["sex"] == 0).sum()
    assert {row["feature"] for row in found.values} == {f.name for f in loaded.features.features}
    folder = Path(found.report).parent
    assert folder == log.home.reports / "ed_admission/3/explained/2026-05-01_2026-05-31"
    assert msgspec.json.decode((folder / "explained.json").read_bytes())["n"] == 600


def test_the_same_window_again_gives_the_same_page_and_no_patient(log, visits, explain):
    log.add(visits(300, 5))
    files = [Path(explain().report).read_bytes() for _ in range(2)]
    assert files[0] == files[1]
    assert b"canary-patient" not in files[0]
    assert b"prediction-0" not in files[0]


def test_of_a_large_window_a_sample_is_opened(log, visits, explain, monkeypatch):
    monkeypatch.setattr(run, "MOST", 300)
    monkeypatch.setattr(run, "MOST_OF_SITE", 200)
    log.add(visits(1500, 5))
    found = explain()
    assert found.n == 1500
    assert 200 < found.explained < 400
    small = next(row for row in found.groups if row["level"] == "south")
    assert 150 < small["n"] < 250  # more than the fifth that all are opened of
    assert f"{found.explained:,} of them" in Path(found.report).read_text()


def test_a_window_of_too_few_tells_of_training_alone(log, visits, explain):
    log.add(visits(99, 5))
    found = explain()
    assert found.reason == "99 explanations in the window; at least 100 are needed"
    assert (found.groups, found.months, found.values) == ((), (), ())
    assert found.features[0]["feature"] == "age"
    assert found.features[0]["share"] is None


@pytest.fixture
def released(log, loaded, monkeypatch):
    """Version 3 as the champion of the home."""
    monkeypatch.setenv("CAREMODELS_HOME", str(log.home.path))
    evidence = {"evaluation.json": msgspec.json.encode({"importance": IMPORTANCE})}
    artifact.write(log.home.releases / "ed_admission" / "3", loaded, evidence=evidence)
    (log.home.releases / "ed_admission" / "champion").write_text("3\n")
    return log


def typed(capsys, *words):
    code = caremodels.main(["explain", "ed_admission", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


MONTHS = ("--from", "2026-05", "--to", "2026-05")


def test_a_window_at_the_command_line(released, visits, capsys):
    released.add(visits(200, 5))
    code, out, err = typed(capsys, *MONTHS, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["explained"] == 200
    code, out, err = typed(capsys, "--from", "2026-07", "--to", "2026-07")
    assert code == 4
    assert "0 explanations in the window" in err
    assert "feature age" in out


def test_without_dates_it_is_the_last_twelve_whole_months(released, capsys):
    code, out, _ = typed(capsys, "--json")
    assert code == 4
    window = json.loads(out)["window"]
    period = Period.between(window["from"][:7], window["to"][:7])
    assert list(period.days) == [window["from"], window["to"]]
    assert period.end.replace(year=period.end.year - 1) == period.start


def test_one_prediction_and_its_page(released, visits, capsys, tmp_path):
    made = visits(3, 5)
    released.add(made)
    page = tmp_path / "page.html"
    code, out, err = typed(capsys, "--prediction", "prediction-0000001", "--out", str(page), "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    scored = released.loaded.score(made.rows)
    assert found["exact"] is True
    assert found["risk"] == scored.risk[1]
    told = found["base_value"] + sum(row["contribution"] for row in found["reasons"])
    assert told == pytest.approx(scored.margin[1])
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    code, _, err = typed(capsys, "--prediction", "prediction-0000001", "--out", str(page))
    assert code == 2
    assert "File exists" in err
    code, out, _ = typed(capsys, "--prediction", "prediction-0000001")
    assert code == 0
    assert f"feature {found['reasons'][0]['feature']}, value " in out


def test_who_opens_a_prediction_is_written_down(released, visits, capsys):
    released.add(visits(3, 5))
    for name in ("prediction-0000001", "prediction-0000001", "nobody"):
        typed(capsys, "--prediction", name)
    with released.engine.connect() as connection:
        acts = connection.execute(select(maintenance)).all()
    assert [(act.act, act.by) for act in acts] == [("open", getpass.getuser())] * 2
    assert json.loads(acts[0].details) == {
        "model": "ed_admission",
        "prediction_id": "prediction-0000001",
    }
    assert caremodels.main(["log", "status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["opened"], found["maintenance"]) == (2, [])


def test_what_cannot_be_written_down_is_not_shown(released, visits, capsys, monkeypatch):
    released.add(visits(3, 5))
    monkeypatch.setattr("data.log.schema.PATIENCE", 0.1)
    with writing(released.engine):  # as another would who does not let go
        code, out, err = typed(capsys, "--prediction", "prediction-0000001")
    assert (code, out) == (1, "")
    assert "the prediction log cannot be written" in err


def test_a_prediction_that_comes_out_otherwise_is_said(released, visits, capsys):
    released.add(visits(3, 5))
    with released.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE prediction SET risk = risk / 2")
    code, out, err = typed(capsys, "--prediction", "prediction-0000000", "--json")
    assert code == 1
    assert json.loads(out)["exact"] is False
    assert "computed again the risk differs by" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--prediction", "nobody"), 1, "holds no prediction of this id"),
        (("--prediction", "x", "--from", "2026-05"), 2, "has its own time and version"),
        (("--out", "x.html"), 2, "--out goes with --prediction"),
        (("--version", "9", *MONTHS), 1, "version 9 was never released"),
        (("--as", "challenger", *MONTHS), 1, "no version is released"),
        (("--from", "2026-13"), 2, "not a month"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(released, capsys, words, code, says):
    found, out, err = typed(capsys, *words)
    assert (found, out) == (code, "")
    assert says in err


def test_a_prediction_of_another_model_is_not_told(released, visits, capsys):
    released.add(visits(1, 5))
    assert caremodels.main(["explain", "sepsis", "--prediction", "prediction-0000000"]) == 1
    assert "is of ed_admission, not of sepsis" in capsys.readouterr().err
