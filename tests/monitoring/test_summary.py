"""What a window says in a few sentences."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from models.catalog import ed_admission
from models.watch import What
from monitoring.summary import KINDS, STEPS, head, kind, summary

FAIR = {"value": 1.02, "low": 0.9, "high": 1.15}
LOADED = SimpleNamespace(spec=ed_admission.SPEC, reference=SimpleNamespace(sites={"north": None}))


def span(value, low, high):
    return {"value": value, "low": low, "high": high}


def alarm(what, *, site=None, group=None, state="open"):
    return {"what": what, "site": site, "group": group, "state": state, "message": f"{what} was raised"}


def said(
    *, oe=FAIR, events=102, n=500, apart=None, auroc=None, then=None, reason=None, task=None, **given
):
    """The summary of a quiet window of 1,000 requests, but for what is given."""
    performance = {
        "n": n,
        "events": events,
        "reason": reason,
        "auroc": auroc,
        "calibration": {"oe": oe["value"]},
        "intervals": {"oe": {"low": oe["low"], "high": oe["high"]}},
        "apart": apart or {},
        "triage": None,
        "utility": None,
        "at_promotion": then and {"auroc": then},
        **(task or {}),
    }
    monitored = {
        "verdict": "quiet",
        "n": 1000,
        "outcomes": n,
        "alarms": [],
        "columns": [{"threshold": 0.2, "drifted": False}, {"threshold": None, "drifted": False}],
        "estimate": {},
        "performance": performance,
    }
    sites = given.pop("sites", [])
    status = {"scored": 900, "abstained": 60, "refused": 40}
    return summary(monitored | given, {"status": status, "sites": sites}, LOADED)


@pytest.mark.parametrize(
    ("oe", "judged"),
    [
        (FAIR, "about as many (observed/expected 1.02, interval 0.90 to 1.15)"),
        (span(0.9, 0.84, 0.97), "somewhat fewer, within the limits of 0.8 to 1.25"),
        (span(1.1, 1.03, 1.2), "somewhat more, within the limits of 0.8 to 1.25"),
        (span(0.6, 0.5, 0.7), "the risks are too high"),
        (span(0.7, 0.6, 0.82), "the risks seem too high"),
        (span(1.6, 1.4, 1.8), "the risks are too low"),
        (span(1.4, 0.7, 2.9), "too few to tell from chance"),
        (span(0.6, None, None), "how sure that is cannot be told (observed/expected 0.60)"),
    ],
)
def test_calibration_in_words_goes_by_the_interval_and_the_limits(oe, judged):
    assert f": {judged}" in said(oe=oe)[1]


def test_what_no_alarm_says_yet_is_told_as_such():
    beyond = span(0.6, 0.5, 0.7)
    more = " For an alarm more of it must be seen."
    assert said(oe=beyond)[1].endswith(more)
    raised = [alarm("calibration", site="north")]
    assert more not in said(oe=beyond, verdict="alarm", alarms=raised)[1]
    assert more not in said()[1]


def test_as_many_as_expected_are_events_over_the_ratio():
    """By hand: 102 / 1.02 = 100."""
    told = said()[1]
    assert told.startswith("Of 500 answers whose outcome is known, 102 had it where 100 were expected:")


def test_no_event_at_all_is_told_without_a_number_of_expected():
    told = said(oe=span(0.0, 0.0, 0.0), events=0)[1]
    assert "0 had it where some were expected: the risks are too high" in told


def test_the_shown_are_left_out_where_others_are_enough_to_judge_by():
    parts = {"n": 300, "events": 30, "oe": span(1.0, 0.8, 1.2)}
    told = said(oe=span(0.6, 0.5, 0.7), apart={"shown": parts, "unshown": parts})[1]
    assert told.startswith("Of 300 answers that no clinician was shown and whose outcome is known, 30")
    assert "too high" not in told


def test_fewer_events_among_the_shown_are_no_fault():
    parts = {"n": 300, "events": 30, "oe": span(0.6, 0.5, 0.7)}
    told = said(apart={"shown": parts, "unshown": None})[1]
    assert "fewer, as a warning that is heeded makes them" in told
    more = said(apart={"shown": parts | {"oe": span(1.6, 1.4, 1.9)}, "unshown": None})[1]
    assert "the risks are too low" in more


@pytest.mark.parametrize(
    ("now", "side"),
    [
        (span(0.84, 0.8, 0.88), "about as well as"),
        (span(0.7, 0.65, 0.75), "worse than"),
        (span(0.95, 0.92, 0.98), "better than"),
    ],
)
def test_ranking_is_held_against_the_promotion(now, side):
    told = said(auroc=now, then=span(0.85, 0.82, 0.88))[1]
    assert told.endswith(f"It ranks patients {side} at promotion (AUROC {now['value']:.2f}; 0.85 then).")


def test_without_a_promotion_ranking_is_explained():
    told = said(auroc=span(0.84, 0.8, 0.88))[1]
    assert told.endswith("It ranks patients with AUROC 0.84; 0.5 is chance, 1 without a fault.")


@pytest.mark.parametrize(
    ("now", "side"),
    [
        (span(0.28, 0.23, 0.35), "more than the 16% at promotion"),
        (span(0.17, 0.12, 0.22), "about as many as the 16% at promotion"),
        (span(0.08, 0.05, 0.12), "fewer than the 16% at promotion"),
    ],
)
def test_who_was_urgent_and_made_to_wait_is_told(now, side):
    then = {"under_urgent": 0.16, "intervals": {"under_urgent": {"low": 0.14, "high": 0.18}}}
    task = {"triage": {"under_urgent": now}, "at_promotion": {"triage": then}}
    share = f"{now['value']:.0%}" if now["value"] >= 0.1 else "8.0%"
    assert f"Of the urgent {share} were given no urgent level, {side}." in said(task=task)
    alone = said(task={"triage": {"under_urgent": now}})
    assert f"Of the urgent {share} were given no urgent level." in alone


def test_what_alerts_were_worth_is_told():
    then = {"utility": span(0.44, 0.4, 0.48)}
    worse = said(task={"utility": span(0.3, 0.25, 0.35), "at_promotion": then})
    scale = "where 0 is never to alert and 1 the best"
    assert f"The utility of the alerts is 0.30, {scale}; less than the 0.44 at promotion." in worse
    alone = said(task={"utility": span(0.3, 0.25, 0.35)})
    assert f"The utility of the alerts is 0.30, {scale}." in alone


def test_what_drifted_without_an_alarm_is_not_denied():
    rows = [{"threshold": 0.2, "drifted": place < 2} for place in range(50)]
    assert said(columns=rows)[0].endswith("of 50 tests 2 are over the limit, of what hardly weighs.")
    assert said()[0].endswith("of 1 tests none is over its limit.")


def test_of_many_alarms_four_are_named_each_once():
    raised = [alarm("input_drift", site="a"), alarm("input_drift", site="a"), alarm("silence", site="b")]
    raised += [alarm("subgroup", group="sex: female"), alarm("slope"), alarm("alert_rate")]
    raised.append(alarm("net_benefit", state="closed"))
    assert said(verdict="alarm", alarms=raised)[0] == (
        "Shifted input at a; Silent site b; Calibration of a subgroup (sex: female); Calibration slope; "
        "and 1 more."
    )
    assert head({"verdict": "alarm", "alarms": raised}) == "Alarm: 6 things need a look"


def test_alarms_that_are_all_closed_need_no_look():
    raised = [alarm("slope", state="closed")]
    assert head({"verdict": "alarm", "alarms": raised}) == "Alarm: all of it was dealt with"
    assert said(verdict="alarm", alarms=raised)[0] == "What this window raised a person has closed."


def test_too_little_to_judge_says_what_is_lacking():
    told = said(verdict="insufficient", alarms=[alarm("insufficient", state=None)])
    assert told[0] == "That is too little to judge: insufficient was raised."
    assert head({"verdict": "insufficient", "alarms": []}) == "Not enough data"


def test_before_outcomes_are_known_the_estimate_is_told():
    foreseen = {"oe": span(0.9, 0.7, 1.1)}
    told = said(reason="too few", outcomes=1, estimate=foreseen)[1]
    assert told == (
        "1 outcome is known, too few to judge by. By what is known of earlier windows "
        "observed/expected will be 0.90 (0.70 to 1.10)."
    )
    none = said(reason="too few", outcomes=0, estimate={"oe": None})[1]
    assert none == "No outcome is known yet (admitted, kept for observation or transferred)."


def test_of_an_empty_window_only_that_is_told():
    status = {"status": dict.fromkeys(("scored", "abstained", "refused"), 0), "sites": []}
    empty = {
        "verdict": "insufficient",
        "n": 0,
        "alarms": [alarm("insufficient", state=None)],
        "performance": {
            "reason": "none",
            "auroc": None,
            "triage": None,
            "utility": {"value": None},
            "at_promotion": None,
        },
    }
    assert summary(empty, status, LOADED) == [
        "That is too little to judge: insufficient was raised.",
        "No request came in this window.",
    ]


def test_requests_add_up_and_a_new_site_is_named():
    sites = [
        {"site": "new", "rows": 250, "training_rows": None},
        {"site": "small", "rows": 99, "training_rows": None},
        {"site": "north", "rows": 651, "training_rows": 900},
    ]
    *_, given, new = said(sites=sites)
    assert (
        given
        == "900 of 1,000 requests were given a risk; 60 were not and 40 were refused for bad input."
    )
    assert new == "Without enough rows in training to be held to: new (25% of the requests)."


def test_every_kind_and_response_that_a_spec_may_declare_has_its_words():
    declared = ed_admission.SPEC.watch.alarms
    assert {one.what for one in declared} == set(KINDS) == set(What.__args__)
    assert {one.response for one in declared} <= set(STEPS)
    assert kind(alarm("ledger")) == "Ledger"
    assert not any(re.search("_", words) for words in KINDS.values())
