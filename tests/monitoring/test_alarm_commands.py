"""``caremodels alarms …`` as a script and a person use it."""

from __future__ import annotations

import json

import pytest

import caremodels
from data.home import Home
from data.pseudonym import load_key
from models import ledger
from models.signature import PLAN, of_plan
from monitoring import prometheus, states

MODEL = "ed_admission"
APRIL = {"from": "2026-04-01", "to": "2026-04-30"}
MAY = {"from": "2026-05-01", "to": "2026-05-31"}
SIGNED = ("--by", "Dr Chen", "--reason", "a new ward")


@pytest.fixture
def cli(home, capsys):
    """Type a command; its exit code, what it printed as JSON, and what it complained of."""

    def cli(*words):
        try:
            code = caremodels.main(["alarms", *words, "--json"])
        except SystemExit as left:  # argparse's own
            code = left.code
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return cli


def alarm(what, column=None):
    place = {"column": column, "site": None, "group": None, "value": None, "since": None}
    said = {"message": f"{what} is off", "limits": [None, None], "response": "inspect_inputs"}
    return {"what": what, **place, **said}


@pytest.fixture
def raised(home):
    """Monitoring raised these in a window."""

    def raised(*alarms, window=MAY, **given):
        return states.record(home, MODEL, "3", "champion", alarms, window, **given)

    return raised


def test_an_alarm_is_listed_acknowledged_and_closed(cli, raised):
    raised(alarm("refusals", "temperature"))
    code, found, said = cli("list")
    assert (code, said) == (0, "")
    assert found == {
        "alarms": [
            {
                **alarm("refusals", "temperature"),
                "number": 1,
                "model": MODEL,
                "version": "3",
                "pointer": "champion",
                "state": "open",
                "opened_at": found["alarms"][0]["opened_at"],
                "window": MAY,
                "seen_to": "2026-05-31",
                "quiet_from": None,
                "acknowledged": None,
                "closed": None,
                "answered": [],
            }
        ]
    }
    code, done, said = cli("acknowledge", "1", *SIGNED)
    assert (code, done["state"], said) == (0, "acknowledged", "")
    assert (done["acknowledged"]["by"], done["acknowledged"]["reason"]) == ("Dr Chen", "a new ward")
    code, found, said = cli("acknowledge", "1", *SIGNED)
    assert (code, found) == (1, None)
    assert said.startswith("caremodels: alarm 1 (refusals, temperature) was acknowledged by Dr Chen at ")
    code, done, said = cli("close", "1", *SIGNED)
    assert (code, done["state"]) == (0, "closed")
    assert said == "caremodels: it was raised to 2026-05-31; a later window may open it again\n"


def test_what_has_stopped_by_itself_is_closed_without_a_word(cli, raised):
    raised(alarm("silence"), window=APRIL)
    raised()
    assert cli("list")[1]["alarms"][0]["quiet_from"] == "2026-05-01"
    code, _, said = cli("close", "1", *SIGNED)
    assert (code, said) == (0, "")


def test_closed_alarms_and_other_models_are_listed_on_request(cli, raised):
    raised(alarm("refusals"), alarm("slope"))
    cli("close", "1", *SIGNED)

    def numbers(*words):
        return [one["number"] for one in cli("list", *words)[1]["alarms"]]

    assert (numbers(), numbers("--all"), numbers(MODEL)) == ([2], [1, 2], [2])
    assert (numbers("sepsis"), numbers("sepsis", "--all")) == ([], [])


def test_a_person_reads_an_alarm_in_a_line(raised, capsys):
    raised(alarm("refusals", "temperature"))
    assert caremodels.main(["alarms", "acknowledge", "1", *SIGNED]) == 0
    capsys.readouterr()
    assert caremodels.main(["alarms", "list"]) == 0
    first, line = capsys.readouterr().out.splitlines()
    assert first == "alarms:"
    assert line == (
        f"  number 1, model {MODEL} 3 (champion), what refusals, temperature, since 2026-05-01, "
        "last seen 2026-05-31, not raised since -, state acknowledged by Dr Chen, calls for "
        "inspect_inputs, says refusals is off"
    )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("list", "nope"), 1, "no model 'nope'"),
        (("close", "7", *SIGNED), 1, "no alarm has the number 7; known: none"),
        (("close", "0", *SIGNED), 2, "must be 1 or more"),
        (("close", "1", "--by", " ", "--reason", "x"), 2, "--by"),
        (("acknowledge", "1"), 2, "required"),
        ((), 2, "required"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_writes_nothing(cli, home, words, code, says):
    found, printed, said = cli(*words)
    assert (found, printed) == (code, None)
    assert says in said
    assert not home.ledger.exists()


def test_a_ledger_that_was_tampered_with_lists_no_alarm(cli, home, raised):
    raised(alarm("slope"))
    home.ledger.write_bytes(home.ledger.read_bytes()[:-2])
    code, found, said = cli("list")
    assert (code, found, said) == (1, None, "caremodels: ledger: line 1 was cut: it has no end\n")


def test_rules_for_prometheus_are_printed_as_they_are(home, capsys):
    assert caremodels.main(["alarms", "rules"]) == 0
    assert capsys.readouterr().out == prometheus.rules()


def test_only_kinds_that_a_window_could_judge_come_to_rest(raised, home: Home):
    """Of a window whose outcomes are not known yet nobody can say that the slope is well again."""
    raised(alarm("slope"), alarm("alert_rate"), window=APRIL)
    raised(unjudged={"slope"})
    found = {one.alarm["what"]: one.quiet_from for one in states.listed(home)}
    assert found == {"slope": None, "alert_rate": "2026-05-01"}
    acts = [entry.act for entry in ledger.verify(home.ledger, load_key(home.path))]
    assert acts == ["alarm opened", "alarm opened", "alarms seen"]
    raised(unjudged={"slope"}, window={"from": "2026-06-01", "to": "2026-06-30"})
    assert len(ledger.verify(home.ledger, load_key(home.path))) == 3


@pytest.mark.parametrize("by", [f"{PLAN} (Dr Chen)", f" {PLAN.title()}(x", f"{PLAN.upper()} ("])
def test_nobody_is_called_as_a_plan_is(by, capsys):
    with pytest.raises(SystemExit) as left:
        caremodels.main(["alarms", "close", "1", "--by", by, "--reason", "x"])
    assert left.value.code == 2
    assert "give a person's name" in capsys.readouterr().err
    assert of_plan(f"{PLAN} (Dr Chen)")
