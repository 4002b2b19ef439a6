"""The command line as a script uses it: exit codes, JSON on standard output, errors in a sentence."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data.home import Home
from data.marts.ed_visit import MART
from models import artifact, ledger, manifest
from training.rows import rebuilt

pytestmark = pytest.mark.slow
CANARY = "9417.25"
KEY = "a key of these tests"
"""Patients are numbered by it, and parted by their numbers: the same on every run."""
VISITS = 30_000  # so many that trees are surely no worse than logistic regression
SIMULATE = ("mart", "simulate", "--visits", str(VISITS), "--seed", "7", "--json")


def caremodels(home, *words):
    environment = {**os.environ, "CAREMODELS_HOME": str(home), "CAREMODELS_KEY": KEY}
    return subprocess.run(
        [sys.executable, "-m", "caremodels", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def result(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with simulated visits and a first version of the model."""
    home = tmp_path_factory.mktemp("home")
    loaded = result(caremodels(home, *SIMULATE))
    assert (loaded["read"], loaded["kept"], loaded["refused"]) == (VISITS, VISITS, 0)
    trained = caremodels(home, "train", "ed_admission", "--json")
    assert trained.stderr == ""  # quiet in a pipe
    assert result(trained)["version"] == "1"
    return home


def test_a_second_load_adds_nothing(home):
    again = result(caremodels(home, *SIMULATE))

    assert again["kept"] == VISITS
    rows = result(caremodels(home, "evaluate", "ed_admission", "--from", "2021-01", "--json"))
    assert rows["flow"][0]["rows"] < VISITS


def test_evaluate_prints_the_measures_of_a_period(home):
    found = result(
        caremodels(home, "evaluate", "ed_admission", "--from", "2021-01", "--to", "2021-12", "--json")
    )

    assert (found["model"], found["version"]) == ("ed_admission", "1")
    assert found["auroc"]["low"] < found["auroc"]["value"] < found["auroc"]["high"]
    assert found["auroc"]["value"] > 0.75
    assert {"intercept", "slope", "oe"} <= found["calibration"].keys()
    assert {"sex", "age", "site_tier"} <= {row["group"] for row in found["groups"]}
    assert found["comparators"]["logistic_regression"]["auroc"]["value"] > 0.7
    assert found["seen"] == 0


def test_a_period_that_the_version_learned_from_is_said(home):
    done = caremodels(home, "evaluate", "ed_admission", "--from", "2016-01", "--json")

    assert json.loads(done.stdout)["seen"] > 0
    assert "the figures flatter it" in done.stderr


def test_promotion_publishes_and_is_written_down(home):
    words = ("--by", "Dr Chen", "--reason", "pilot", "--json")
    promoted = result(caremodels(home, "promote", "ed_admission", "--version", "1", *words))

    assert promoted["promoted"] is True
    assert all(finding["passed"] for finding in promoted["gate"])
    assert {frozenset(finding) for finding in promoted["gate"]} == {
        frozenset({"criterion", "value", "limit", "passed"})
    }
    assert (home / "releases/ed_admission/champion").read_text(encoding="utf-8") == "1\n"
    verified = result(caremodels(home, "ledger", "verify", "--json"))
    assert (verified["intact"], verified["last"]["by"]) == (True, "Dr Chen")
    assert verified["anchors"] == {"releases": 1, "mlflow": 1}
    released = result(caremodels(home, "releases", "--json"))["releases"]
    pointers = {"champion": "1", "challenger": None}
    assert released == {
        "ed_admission": {
            **pointers,
            "withdrawn": {},
            "ledger": pointers,
            "mlflow": pointers,
            "differs": [],
        }
    }


def test_a_model_of_simulated_visits_is_served_with_demo_only(home):
    caremodels(home, "promote", "ed_admission", "--version", "1", "--by", "a", "--reason", "b")

    done = caremodels(home, "serve", "--port", "0")

    assert done.returncode == 1
    assert "demonstration, not for care" in done.stderr


def test_the_card_says_what_the_model_must_not_be_used_for(home, tmp_path):
    written = result(caremodels(home, "card", "ed_admission", "--out", str(tmp_path), "--json"))

    assert {file.name for file in tmp_path.iterdir()} >= {"card.html", "card.json", "evaluation.json"}
    assert sorted(written["files"]) == sorted(str(file) for file in tmp_path.iterdir())
    card = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "Demonstration, not for care." in card
    assert "Not a reason to send a patient home." in card
    assert "不得作为让患者离院的依据" in card


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A home with a version of a few visits: too few events in its test period.

    There are 89, and the gate wants 100. The largest hospital has 45 of them, and at least 33 in any
    four of the five parts in which a recalibration is cross-validated, which wants 10.
    """
    small = tmp_path_factory.mktemp("small")
    result(caremodels(small, "mart", "simulate", "--visits", "4000", "--json"))
    result(caremodels(small, "train", "ed_admission", "--no-ablations", "--json"))
    return small


SIGNED = ("--by", "Dr Chen", "--reason", "pilot")
SECOND = ("--override-by", "Dr Wang", "--override-reason", "to see it work")


def test_a_gate_that_is_not_passed_ends_with_3(small):
    done = caremodels(small, "promote", "ed_admission", "--version", "1", *SIGNED, "--json")

    assert done.returncode == 3
    assert not json.loads(done.stdout)["promoted"]
    assert not (small / "releases/ed_admission/champion").exists()
    assert not (small / "ledger.jsonl").exists()


def test_the_same_person_overrides_nothing(small):
    again = ("--override-by", "dr chen", "--override-reason", "please")
    done = caremodels(small, "promote", "ed_admission", "--version", "1", *SIGNED, *again)

    assert done.returncode == 2
    assert "an override is a second person's" in done.stderr


def test_a_version_is_overridden_adapted_replaced_rolled_back_and_withdrawn(small, tmp_path):
    home = shutil.copytree(small, tmp_path / "home")

    def act(*words):
        return result(caremodels(home, *words, *SIGNED, "--json"))

    overridden = act("promote", "ed_admission", "--version", "1", *SECOND)
    assert (overridden["promoted"], overridden["override"]["used"]) == (True, True)

    adapted = act("recalibrate", "ed_admission", "--site", "tertiary-01", "--from", "2021-01")
    assert (adapted["version"], adapted["from_version"], adapted["site"]) == ("2", "1", "tertiary-01")
    assert {"n", "events", "before", "after", "shift"} <= adapted.keys()
    assert (home / "releases/ed_admission/champion").read_text(encoding="utf-8") == "1\n"

    replaced = act("promote", "ed_admission", "--version", "2", *SECOND)
    assert replaced["champion"]["version"] == "1"
    assert act("rollback", "ed_admission")["version"] == "1"
    assert act("withdraw", "ed_admission")["version"] == "1"
    assert not (home / "releases/ed_admission/champion").exists()

    released = result(caremodels(home, "releases", "--json"))["releases"]["ed_admission"]
    assert (released["champion"], released["withdrawn"]) == (None, {"champion": "1"})
    assert result(caremodels(home, "ledger", "verify", "--json"))["entries"] == 5

    book = home / "ledger.jsonl"
    book.write_bytes(b"".join(book.read_bytes().splitlines(keepends=True)[:-1]))
    cut = caremodels(home, "ledger", "verify")
    assert cut.returncode == 1
    assert "release ed_admission 1 knows of entry 5: entries were removed" in cut.stderr


def opened(home, response):
    """The number of an alarm about version 1, written as monitoring writes it."""
    place = {"column": None, "site": "tertiary-01", "group": None}
    alarm = {"what": "calibration", **place, "response": response}
    window = {"from": "2021-12-01", "to": "2021-12-31"}
    entry = ledger.append(
        home / "ledger.jsonl",
        KEY.encode(),
        act=ledger.ALARM_OPENED,
        model="ed_admission",
        version="1",
        by="caremodels monitor",
        reason="seen",
        evidence={"pointer": "champion", "alarm": alarm, "window": window},
    )
    return str(entry.number)


def test_an_alarm_is_answered_by_who_may(small, tmp_path):
    home = shutil.copytree(small, tmp_path / "home")
    result(caremodels(home, "promote", "ed_admission", "--version", "1", *SIGNED, *SECOND, "--json"))
    number = opened(home, "recalibrate")

    unsigned = caremodels(home, "respond", number)
    assert unsigned.returncode == 2
    assert "change-control.toml lets it not happen without a signature: give --by and" in unsigned.stderr

    refused = caremodels(home, "respond", number, *SIGNED, "--json")
    assert refused.returncode == 3
    told = json.loads(refused.stdout)
    assert (told["version"], told["pointed"], told["by"]) == ("2", None, "Dr Chen")
    assert told["details"][0]["site"] == "tertiary-01"
    assert "gate: events in the test period, at least 100" in told["refused"]
    assert "ed_admission 2 is registered and not pointed to: gate: events in the" in refused.stderr
    assert not (home / "releases/ed_admission/challenger").exists()

    withdrawal = opened(home, "withdraw")
    (home / "change-control.toml").write_text(
        'approved_by = "Dr Wu"\n[default.withdraw]\nwithout_signature = true\nmost_a_year = 1\n'
        'description = "d"\nprotocol = "p"\nimpact = "i"\n'
    )
    done = caremodels(home, "respond", withdrawal)
    assert done.returncode == 0, done.stderr
    assert "by: change control (Dr Wu)" in done.stdout
    assert not (home / "releases/ed_admission/champion").exists()
    entries = ledger.verify(home / "ledger.jsonl", KEY.encode())
    assert [one.act for one in entries[-2:]] == ["withdraw champion", "alarm answered"]


def test_a_ledger_is_verified_while_mlflow_is_down(small, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    down = caremodels(small, "ledger", "verify", "--json")
    without = caremodels(small, "ledger", "verify", "--no-mlflow", "--json")

    assert down.returncode == 1
    assert "MLflow: " in down.stderr
    assert result(without)["anchors"]["mlflow"] is None
    assert "what MLflow knows of the ledger was not checked" in without.stderr


def test_monitoring_a_window_without_predictions_ends_with_4(home):
    caremodels(home, "promote", "ed_admission", "--version", "1", "--by", "a", "--reason", "b")

    done = caremodels(home, "monitor", "ed_admission", "--from", "1999-01", "--to", "1999-02", "--json")

    assert done.returncode == 4
    assert json.loads(done.stdout)["verdict"] == "insufficient"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("train", "nope"), 1, "no model 'nope'; known: ed_admission"),
        (("train", "ed_admission"), 4, "there are no marts at"),
        (("train", "ed_admission", "--train-to", "2019-12"), 2, "go together"),
        (("evaluate", "ed_admission"), 1, "no version is registered"),
        (("evaluate", "ed_admission", "--from", "2021-13"), 2, "not a month"),
        (
            ("evaluate", "ed_admission", "--from", "2021-02", "--to", "2021-01"),
            2,
            "ends before it starts",
        ),
        (
            ("promote", "ed_admission", "--version", "9", "--by", "a", "--reason", "b"),
            1,
            "not registered",
        ),
        (("promote", "ed_admission", "--version", "9", "--by", " ", "--reason", "b"), 2, "--by"),
        (("promote", "ed_admission", "--version", "1", "--by", "a", *SECOND), 2, "required"),
        (("rollback", "ed_admission", *SIGNED), 1, "names no champion to go back to"),
        (("withdraw", "ed_admission", *SIGNED), 1, "no version is released"),
        (("withdraw", "../..", *SIGNED), 1, "no version is released"),
        (("withdraw", "ed_admission"), 2, "required"),
        (("recalibrate", "ed_admission", *SIGNED), 2, "--site"),
        (("recalibrate", "ed_admission", "--site", "x", *SIGNED), 1, "no version is registered"),
        (("recalibrate", "nope", "--site", "x", *SIGNED), 1, "no model 'nope'"),
        (("respond", "7", *SIGNED), 1, "no alarm has the number 7; known: none"),
        (("respond", *SIGNED), 2, "required"),
        (("respond", "0", *SIGNED), 2, "must be 1 or more"),
        (("train", "ed_admission", "--trials", "0"), 2, "must be 1 or more"),
        (("serve",), 1, "no model is released"),
        (("serve", "--host", "0.0.0.0"), 2, "only loopback"),
        (("monitor", "ed_admission"), 1, "no version is released"),
        (("mart", "load", "nope", "--source", "nhamcs_ed", "--files", "x"), 1, "no mart 'nope'"),
        (("mart", "load", "ed_visit", "--source", "nope", "--files", "x"), 1, "no source 'nope'"),
        (("mart", "load", "ed_visit", "--source", "nhamcs_ed", "--files", "x"), 1, "no file matches"),
        (("mart", "simulate", "--visits", "0"), 2, "must be 1 or more"),
        (("mart", "simulate", "--visits", "many"), 2, "invalid"),
        (("mart", "simulate", "--visits", "10", "--drift", "flood"), 2, "flood"),
        (("train",), 2, "required"),
        ((), 2, "required"),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_code(tmp_path, words, code, says):
    done = caremodels(tmp_path, *words)

    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", f"age\n{CANARY}\n", "cannot be read as Parquet"),
        ("a.csv", f"AGE\n{CANARY}\n", "YEAR"),
        ("a.txt", f"AGE\n{CANARY}\n", "all of one kind: .parquet, .csv"),
    ],
)
def test_a_file_that_is_not_what_it_says_names_itself_and_no_value(tmp_path, name, content, says):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")

    done = caremodels(
        tmp_path, "mart", "load", "ed_visit", "--source", "nhamcs_ed", "--files", str(file)
    )

    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_mart_that_another_process_holds_is_said(tmp_path):
    import duckdb

    result(caremodels(tmp_path, "mart", "simulate", "--visits", "50", "--json"))
    with duckdb.connect(tmp_path / "marts.duckdb"):
        done = caremodels(tmp_path, "mart", "simulate", "--visits", "60", "--json")

    assert done.returncode == 1
    assert "another process has it open" in done.stderr


def test_a_version_says_as_of_which_day_it_learned(tmp_path):
    result(caremodels(tmp_path, "mart", "simulate", "--visits", "12000", "--seed", "7", "--json"))
    limits = ["--train-to", "2019-12", "--validate-to", "2020-06", "--test-to", "2021-12"]
    options = ["--as-of", "2021-03-10", "--memory", "0.001", "--json"]
    trained = result(caremodels(tmp_path, "train", "ed_admission", *limits, *options))

    (folder,) = (file.parent for file in tmp_path.glob("mlartifacts/**/manifest.json"))
    provenance = manifest.verify(folder).provenance
    assert str(provenance.as_of) == "2021-03-10 00:00:00"
    assert trained["metrics"]["flow"][0]["rows"] < 12000
    with rebuilt(Home(tmp_path), artifact.load(folder), mart=MART) as cohort:
        assert cohort.time.max() < np.datetime64("2021-03-10")
