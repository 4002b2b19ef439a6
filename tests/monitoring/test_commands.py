"""``caremodels monitor`` as a scheduler and a person use it: exit codes, and words for what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

import caremodels
from models import artifact, release
from monitoring import every, states

MODEL = "ed_admission"
MAY = ("--from", "2026-05", "--to", "2026-05", "--as-of", "2026-07-01")
FEVER = "outside 25 to 45 Cel"


@pytest.fixture(scope="module")
def version(loaded, tmp_path_factory):
    """The tiny model as a folder of files, with figures of its promotion."""
    folder = tmp_path_factory.mktemp("version") / "artifact"
    artifact.write(folder, loaded, evidence={"evaluation.json": b'{"n": 9}'})
    return folder


@pytest.fixture
def home(log, version, monkeypatch):
    """The home of the log, in which the model is released as version 3 and answers."""
    monkeypatch.setenv("CAREMODELS_HOME", str(log.home.path))
    release.publish(log.home.releases, version, model=MODEL, version="3")
    release.point(log.home.releases, model=MODEL, pointer="champion", version="3")
    return log.home


@pytest.fixture
def cli(home, capsys):
    """Type a command; its exit code, what it printed as JSON, and what it complained of."""

    def cli(*words):
        try:
            code = caremodels.main([*words, "--json"])
        except SystemExit as left:  # argparse's own
            code = left.code
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return cli


@pytest.fixture
def refused(log, visits):
    """A month in which every temperature was refused: an alarm for which nothing need be scored."""

    def refused(n=150, **given):
        log.add(visits(n, 5), refuse=(np.ones(n, dtype=bool), "temperature", FEVER), **given)

    return refused


# Verdicts


def test_an_empty_window_ends_with_4_and_says_so(cli, home):
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, said) == (4, "")
    assert (found["verdict"], found["n"], found["outcomes"]) == ("insufficient", 0, 0)
    assert found["alarms"][0]["message"] == "0 predictions in the window; at least 100 are needed"
    assert found["window"] == {"from": "2026-05-01", "to": "2026-05-31"}
    assert found["as_of"] == "2026-07-01T00:00:00Z"
    assert (home.reports / "index.html").read_text().count("Not enough data") == 1


def test_an_alarm_ends_with_3_and_names_the_page_to_read(cli, home, refused):
    refused()
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, said) == (3, "")
    assert [(alarm["what"], alarm["column"]) for alarm in found["alarms"]] == [
        ("refusals", "temperature")
    ]
    assert found["report"] == str(home.reports / MODEL / "3" / "2026-05-01_2026-05-31" / "index.html")
    page = (home.reports / "index.html").read_text()
    assert f'href="{MODEL}/3/2026-05-01_2026-05-31/index.html"' in page


def test_a_person_reads_a_few_lines(home, refused, capsys):
    refused()
    assert caremodels.main(["monitor", MODEL, *MAY]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        f"model: {MODEL}", "version: 3", "n: 150", "outcomes: 0", "verdict: alarm"
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "number 1, state open, what refusals, message Body temperature: 100% of requests" in text
    assert "action inspect_inputs" in text
    assert lines[-1] == f"report: {home.reports}/{MODEL}/3/2026-05-01_2026-05-31/index.html"


@pytest.mark.slow
def test_a_quiet_window_ends_with_0(cli, log, visits):
    log.add(visits(1000, 5), outcomes=True)
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, found["verdict"], found["n"], said) == (0, "quiet", 1000, "")


def test_an_alarm_that_a_person_closed_calls_for_nothing_when_its_window_is_judged_again(
    cli, home, refused
):
    refused()
    assert [item["action"] for item in cli("monitor", MODEL, *MAY)[1]["proposed"]] == ["inspect_inputs"]
    states.close(home, 1, by="Dr Chen", reason="the thermometer was replaced")
    code, found, _ = cli("monitor", MODEL, *MAY)
    assert (code, found["alarms"][0]["state"], found["proposed"]) == (3, "closed", [])
    page = (home.reports / MODEL / "3" / "2026-05-01_2026-05-31" / "index.html").read_text()
    assert "Closed by Dr Chen: the thermometer was replaced." in page


# What cannot be judged


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("monitor",), 2, "name one model, or --all"),
        (("monitor", MODEL, "--all"), 2, "name one model, or --all"),
        (("monitor", "--all", "--version", "3"), 2, "--version belongs to one model"),
        (("monitor", MODEL, "--every", "month"), 2, "--every wants --from and --to"),
        (("monitor", MODEL, "--every", "month", "--from", "2026-05"), 2, "wants --from and --to"),
        (("monitor", MODEL, "--every", "month", "--to", "2026-05"), 2, "wants --from and --to"),
        (("monitor", MODEL, "--every", "week", *MAY), 2, "invalid choice"),
        (("monitor", MODEL, "--from", "2026-06", "--to", "2026-05"), 2, "ends before it starts"),
        (("monitor", MODEL, "--as-of", "yesterday"), 2, "not a month (YYYY-MM) or day"),
        (("monitor", "nope"), 1, "no model 'nope'; known: ed_admission"),
        (("monitor", "sepsis"), 1, "sepsis: no version is released"),
        (("monitor", MODEL, "--as", "challenger"), 1, "no version is released"),
        (("monitor", MODEL, "--version", "9"), 1, "ed_admission: version 9 was never released"),
        (("outcomes", "load", "nope"), 1, "no mart 'nope'"),
        (("outcomes", "load", "ed_visit"), 4, "there are no marts at"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_the_right_code(cli, home, words, code, says):
    found, printed, said = cli(*words)
    assert (found, printed) == (code, None)
    assert says in said
    assert "Traceback" not in said
    assert not home.reports.exists()
    assert not home.ledger.exists()


def test_a_zone_that_is_none_is_said_before_anything_is_read(cli, monkeypatch, home):
    monkeypatch.setenv("CAREMODELS_TIMEZONE", "Mars/Olympus")
    code, _, said = cli("monitor", MODEL, *MAY)
    assert (code, home.reports.exists()) == (2, False)
    assert said == (
        "caremodels: CAREMODELS_TIMEZONE: expected a time zone such as Asia/Shanghai, "
        "not 'Mars/Olympus'\n"
    )


def test_without_any_release_there_is_nothing_to_watch(cli, home):
    release.unpoint(home.releases, model=MODEL, pointer="champion")
    code, _, said = cli("monitor", "--all")
    assert (code, said) == (
        1,
        "caremodels: no version is released, so that nothing is to be watched\n",
    )


def test_a_log_that_is_no_database_ends_with_1(cli, monkeypatch, tmp_path):
    broken = tmp_path / "broken.db"
    broken.write_text("no database, though it is long enough to be taken for one" * 20)
    monkeypatch.setenv("CAREMODELS_LOG", f"sqlite:///{broken}")
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, found) == (1, None)
    assert f"caremodels: {MODEL}, 2026-05-01 to 2026-05-31: the prediction log cannot be opened" in said


@pytest.mark.parametrize("name", ["reference.json", "booster.ubj", "evaluation.json"])
def test_a_version_whose_files_are_not_what_was_released_is_not_judged(cli, home, name):
    (home.releases / MODEL / "3" / name).unlink()
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, found) == (1, None)
    assert f"{name} is missing" in said


def test_rows_that_make_no_sense_are_counted_and_the_rest_is_judged(cli, log, visits):
    log.add(visits(60, 5), outcomes=True)
    with log.engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.execute("PRAGMA ignore_check_constraints = ON")
        for number, change in enumerate(
            ("margin = 'high'", "status = 'maybe'", "at = '2026-05-01 99:99'", "inputs = '{'",
             "site = CAST(x'6eff' AS TEXT)", "used = ''")
        ):  # fmt: skip
            name = f"prediction-{number:07}"
            driver.execute(f"UPDATE prediction SET {change} WHERE prediction_id = ?", (name,))
        driver.execute("PRAGMA ignore_check_constraints = OFF")
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, said) == (4, "")
    quality = json.loads(
        (log.home.reports / MODEL / "3" / "2026-05-01_2026-05-31" / "quality.json").read_text()
    )
    # Of one it is not even known whether it was scored; the one without a site is no worse for it.
    assert (found["n"], quality["unreadable"]) == (59, 5)
    assert (found["outcomes"], found["performance"]["n"]) == (56, 56)


def test_outcomes_of_visits_that_nobody_scored_are_counted(cli, log):
    log.write([log.record(encounter="somebody", margin=0.0, risk=0.5)])
    assert cli("mart", "simulate", "--visits", "40", "--seed", "3")[0] == 0
    code, found, said = cli("outcomes", "load", "ed_visit")
    assert (code, found["joined"], found["revised"], said) == (0, 0, 0, "")
    assert 0 < found["unknown"] <= 40


# Alone, and safe to type again


def test_a_second_run_is_turned_away_and_harms_nothing(cli, home, refused):
    refused()
    with every.alone(home):
        code, found, said = cli("monitor", "--all", *MAY)
    assert (code, found) == (1, None)
    assert said.startswith("caremodels: another run of monitor is under way in this home (process ")
    assert not home.reports.exists()
    assert cli("monitor", "--all", *MAY)[0] == 3


def test_reports_that_cannot_be_written_are_an_error_and_hide_no_alarm(cli, home, refused):
    refused()
    home.reports.write_text("a file where a folder should be")
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, found) == (1, None)
    assert f"{MODEL}, 2026-05-01 to 2026-05-31: " in said
    assert "Traceback" not in said
    home.reports.unlink()
    code, found, _ = cli("monitor", MODEL, *MAY)
    assert (code, [alarm["number"] for alarm in found["alarms"]]) == (3, [1])


def test_an_index_that_cannot_be_written_does_not_quiet_an_alarm(cli, home, refused):
    (home.reports / "index.html").mkdir(parents=True)
    assert cli("monitor", MODEL, *MAY)[0] == 1  # else it would have been 4
    refused()
    code, found, said = cli("monitor", MODEL, *MAY)
    assert (code, found["verdict"]) == (3, "alarm")
    assert said.startswith(f"caremodels: {home.reports}/index.html: ")


def test_a_ledger_that_was_tampered_with_is_an_alarm_in_itself(cli, home, refused, caplog):
    refused()
    cli("monitor", MODEL, *MAY)
    home.ledger.write_bytes(home.ledger.read_bytes().replace(b"100% of", b"000% of"))
    broken = home.ledger.read_bytes()
    code, found, _ = cli("monitor", MODEL, *MAY)
    assert code == 3
    assert [(a["what"], a["number"], a["state"]) for a in found["alarms"]] == [
        ("refusals", None, "open"),
        ("ledger", None, "open"),
    ]
    assert "entry 1 does not follow from the one before" in found["alarms"][1]["message"]
    assert "The ledger was tampered with" in caplog.text
    page = (home.reports / MODEL / "3" / "2026-05-01_2026-05-31" / "index.html").read_text()
    assert "Body temperature: 100% of requests" in page
    assert "The ledger was tampered with" in page
    assert home.ledger.read_bytes() == broken
    # In a window without any other alarm it is no quieter.
    code, found, _ = cli("monitor", MODEL, "--from", "2026-06", "--to", "2026-06", *MAY[4:])
    assert (code, [alarm["what"] for alarm in found["alarms"]]) == (3, ["ledger"])


def test_a_ledger_that_cannot_be_written_is_no_quieter(cli, home, refused):
    refused()
    home.ledger.mkdir()
    code, found, _ = cli("monitor", MODEL, *MAY)
    assert (code, [alarm["what"] for alarm in found["alarms"]]) == (3, ["refusals", "ledger"])


# Several at once


def test_champion_and_challenger_are_judged_each_by_its_own(cli, home, log, refused, version):
    refused()
    release.publish(home.releases, version, model=MODEL, version="4")
    release.point(home.releases, model=MODEL, pointer="challenger", version="4")
    silent = {"version": "4", "pointer": "challenger", "used": "silent", "margin": 0.0, "risk": 0.5}
    log.write([log.record(**silent) for _ in range(7)])
    code, found, said = cli("monitor", "--all", *MAY)
    assert (code, found["verdict"], found["failed"], said) == (3, "alarm", [], "")
    told = [(one["version"], one["pointer"], one["n"], one["verdict"]) for one in found["results"]]
    assert told == [("3", "champion", 150, "alarm"), ("4", "challenger", 7, "insufficient")]
    page = (home.reports / "index.html").read_text()
    assert found["index"] == str(home.reports / "index.html")
    for link in ("3/2026-05-01_2026-05-31", "4/2026-05-01_2026-05-31_challenger"):
        assert f'href="{MODEL}/{link}/index.html"' in page


@pytest.mark.parametrize(("alarming", "code"), [(False, 1), (True, 3)])
def test_a_model_that_cannot_be_judged_keeps_no_other_from_it(cli, home, refused, alarming, code):
    if alarming:
        refused()
    for model, version in (("readmission_30d", "7"), ("zz", "1")):
        (home.releases / model).mkdir(parents=True)
        release.point(home.releases, model=model, pointer="champion", version=version)
    (home.releases / "zz" / "1").mkdir()
    found, printed, said = cli("monitor", "--all", *MAY)
    assert found == code
    assert [one["model"] for one in printed["results"]] == [MODEL]
    assert [(one["model"], one["pointer"], one["window"]) for one in printed["failed"]] == [
        ("readmission_30d", "champion", "2026-05-01 to 2026-05-31"),
        ("zz", "champion", "2026-05-01 to 2026-05-31"),
    ]
    assert (
        "readmission_30d, 2026-05-01 to 2026-05-31: readmission_30d: version 7 was never released"
        in said
    )
    page = (home.reports / "index.html").read_text()
    assert page.count("Not judged: ") == 2
    assert printed["verdict"] == ("alarm" if alarming else "failed")


def test_each_month_is_judged_in_its_turn(cli, home, refused):
    refused()
    words = ("--from", "2026-04-15", "--to", "2026-06", "--every", "month", *MAY[4:])
    code, found, _ = cli("monitor", MODEL, *words)
    assert code == 3
    assert [
        (one["window"]["from"], one["window"]["to"], one["verdict"]) for one in found["results"]
    ] == [
        ("2026-04-01", "2026-04-30", "insufficient"),
        ("2026-05-01", "2026-05-31", "alarm"),
        ("2026-06-01", "2026-06-30", "insufficient"),
    ]
    assert len(list((home.reports / MODEL / "3").iterdir())) == 3


def test_without_dates_it_is_the_last_whole_month_where_the_site_is(cli, monkeypatch):
    assert cli("monitor", MODEL, "--as-of", "2026-06-01")[1]["window"]["from"] == "2026-05-01"
    assert cli("monitor", MODEL, "--as-of", "2026-05-31")[1]["window"]["from"] == "2026-04-01"
    monkeypatch.setenv("CAREMODELS_TIMEZONE", "Asia/Shanghai")
    _, found, _ = cli("monitor", MODEL, "--as-of", "2026-06-01")
    # That day begins there eight hours before it does in Greenwich.
    assert (found["window"]["from"], found["as_of"]) == ("2026-05-01", "2026-05-31T16:00:00Z")
