"""A window in a few sentences, for a reader who knows patients and not statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.artifact import Artifact
from models.spec import ModelSpec
from models.watch import Response, What
from monitoring.breaches import bounds
from monitoring.counting import MIN_ROWS
from monitoring.drift import percent

KINDS: dict[What, str] = {
    "refusals": "Refused input",
    "input_drift": "Shifted input",
    "prediction_drift": "Shifted risks",
    "reason_drift": "Shifted reasons",
    "calibration": "Calibration",
    "slope": "Calibration slope",
    "discrimination": "Ranking of patients",
    "net_benefit": "Net benefit",
    "subgroup": "Calibration of a subgroup",
    "abstained_rate": "Risks not given",
    "alert_rate": "Rate of alerts",
    "silence": "Silent site",
}
STEPS: dict[Response, str] = {
    "inspect_inputs": "Look at how these inputs are measured and sent",
    "watch": "Watch the next window",
    "recalibrate": "Recalibrate",
    "retrain": "Train anew",
    "withdraw": "Withdraw the version",
}
HEADS = {"quiet": "Quiet", "alarm": "Alarm", "insufficient": "Not enough data"}
NAMED = 4
"""Alarms that the summary names."""


def head(monitored: Mapping[str, Any]) -> str:
    """The verdict in one line.

    >>> head({"verdict": "alarm", "alarms": [{"state": "open"}, {"state": "closed"}]})
    'Alarm: one thing needs a look'
    """
    if monitored["verdict"] != "alarm":
        return HEADS[monitored["verdict"]]
    n = len(standing(monitored["alarms"]))
    if not n:
        return "Alarm: all of it was dealt with"
    return f"Alarm: {'one thing needs' if n == 1 else f'{n} things need'} a look"


def standing(alarms: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that no person has closed."""
    return [alarm for alarm in alarms if alarm["state"] in ("open", "acknowledged")]


def kind(alarm: Mapping[str, Any]) -> str:
    """What an alarm is about, and where."""
    said = str(KINDS.get(alarm["what"], str(alarm["what"]).replace("_", " ").capitalize()))
    if alarm["group"]:
        said += f" ({alarm['group']})"
    if not alarm["site"]:
        return said
    return f"{said} {alarm['site']}" if alarm["what"] == "silence" else f"{said} at {alarm['site']}"


def summary(monitored: Mapping[str, Any], quality: Mapping[str, Any], loaded: Artifact) -> list[str]:
    """A sentence or two on each: what was found, how true the risks are, how many were given."""
    return [
        said
        for said in (
            _found(monitored),
            " ".join((_outcomes(monitored, loaded.spec), _ranking(monitored))).strip(),
            _levels(monitored),
            _hours(monitored),
            _given(monitored, quality),
            _new(monitored, quality, loaded),
        )
        if said
    ]


def _found(monitored: Mapping[str, Any]) -> str:
    if monitored["verdict"] == "insufficient":
        return f"That is too little to judge: {monitored['alarms'][-1]['message']}."
    if monitored["verdict"] == "alarm":
        kinds = list(dict.fromkeys(kind(alarm) for alarm in standing(monitored["alarms"])))
        more = len(kinds) - NAMED
        if not kinds:
            return "What this window raised a person has closed."
        return "; ".join(kinds[:NAMED]) + (f"; and {more} more." if more > 0 else ".")
    tests = [row for row in monitored["columns"] if row["threshold"] is not None]
    over = sum(row["drifted"] for row in tests)
    looked = f"Inputs and risks look as they did at training: of {len(tests):,} tests"
    if not over:
        return f"{looked} none is over its limit."
    return f"{looked} {over:,} {'is' if over == 1 else 'are'} over the limit, of what hardly weighs."


def _outcomes(monitored: Mapping[str, Any], spec: ModelSpec) -> str:
    """Whether as many came about as expected; of answers that were not shown, where some were."""
    measured = monitored["performance"]
    if not monitored["n"]:
        return ""
    if measured["reason"] is not None:
        return _foreseen(monitored, spec)
    n, events, oe, shown = _judged(measured)
    known = f"Of {n:,} answers{shown} whose outcome is known, {events:,} had it"
    if oe["value"] is None:
        return f"{known}."
    expected = f"{events / oe['value']:,.0f}" if oe["value"] else "some"
    limits = bounds(spec, "calibration", spec.limits.oe)
    judged = _calibrated(oe, limits, shown)
    told = any(alarm["what"] == "calibration" for alarm in standing(monitored["alarms"]))
    # One month may look bad by chance: the alarm is raised by a test over the year.
    more = "" if told or "the risks" not in judged else ". For an alarm more of it must be seen"
    return f"{known} where {expected} were expected: {judged}{more}."


def _judged(measured: Mapping[str, Any]) -> tuple[int, int, Mapping[str, Any], str]:
    """Answers, events, observed/expected and whose they are."""
    apart = measured["apart"] or {}
    if not apart.get("shown"):
        oe = {"value": measured["calibration"]["oe"], **measured["intervals"]["oe"]}
        return measured["n"], measured["events"], oe, ""
    name = "unshown" if apart.get("unshown") else "shown"
    whose = " that no clinician was shown" if name == "unshown" else " that a clinician was shown"
    nothing = {"value": None, "low": None, "high": None}
    return apart[name]["n"], apart[name]["events"], apart[name]["oe"] or nothing, f"{whose} and"


def _calibrated(oe: Mapping[str, Any], limits: tuple[float, float], shown: str) -> str:
    value, low, high = (oe[name] for name in ("value", "low", "high"))
    figures = f"{value:.2f}" + (
        "" if low is None or high is None else f", interval {low:.2f} to {high:.2f}"
    )
    figures = f"(observed/expected {figures})"
    if low is None or high is None:
        return f"how sure that is cannot be told {figures}"
    if low <= 1 <= high:
        told = "about as many" if limits[0] <= value <= limits[1] else "too few to tell from chance"
        return f"{told} {figures}"
    side = "fewer" if high < 1 else "more"
    if limits[0] <= value <= limits[1]:
        return f"somewhat {side}, within the limits of {limits[0]:g} to {limits[1]:g} {figures}"
    if side == "fewer" and "that a clinician" in shown:
        return f"fewer, as a warning that is heeded makes them {figures}"
    sure = high < limits[0] or low > limits[1]
    seem = "are" if sure else "seem"
    return f"the risks {seem} too {'high' if side == 'fewer' else 'low'} {figures}"


def _foreseen(monitored: Mapping[str, Any], spec: ModelSpec) -> str:
    said = f"No outcome is known yet ({spec.outcome.label.en.lower()})."
    if monitored["outcomes"]:
        one = monitored["outcomes"] == 1
        said = (
            f"{monitored['outcomes']:,} outcome{' is' if one else 's are'} known, too few to judge by."
        )
    oe = (monitored["estimate"] or {}).get("oe") or {}
    if all(oe.get(name) is not None for name in ("value", "low", "high")):
        said += (
            " By what is known of earlier windows observed/expected will be "
            f"{oe['value']:.2f} ({oe['low']:.2f} to {oe['high']:.2f})."
        )
    return said


def _ranking(monitored: Mapping[str, Any]) -> str:
    measured = monitored["performance"]
    now, then = measured["auroc"], (measured["at_promotion"] or {}).get("auroc")
    if not now or now["value"] is None:
        return ""
    figures = f"AUROC {now['value']:.2f}"
    side = _beside(now, then, ("worse than", "about as well as", "better than"))
    if not then or not side:
        return f"It ranks patients with {figures}; 0.5 is chance, 1 without a fault."
    return f"It ranks patients {side} at promotion ({figures}; {then['value']:.2f} then)."


def _beside(
    now: Mapping[str, Any], then: Mapping[str, Any] | None, words: tuple[str, str, str]
) -> str | None:
    """Which of the words for less, the same and more the intervals say; None where one is not known."""
    if not then or None in (row[name] for row in (now, then) for name in ("value", "low", "high")):
        return None
    less, same, more = words
    if now["high"] < then["low"]:
        return less
    return more if now["low"] > then["high"] else same


def _levels(monitored: Mapping[str, Any]) -> str:
    """Of a model of levels what harms most: the urgent who are made to wait."""
    now = (monitored["performance"]["triage"] or {}).get("under_urgent")
    if not now:
        return ""
    said = f"Of the urgent {percent(now['value'])} were given no urgent level"
    found = (monitored["performance"]["at_promotion"] or {}).get("triage")
    then = found and {"value": found["under_urgent"], **found["intervals"]["under_urgent"]}
    side = _beside(now, then, ("fewer than", "about as many as", "more than"))
    return f"{said}, {side} the {percent(then['value'])} at promotion." if then and side else f"{said}."


def _hours(monitored: Mapping[str, Any]) -> str:
    """Of hourly alerts what they were worth."""
    now = monitored["performance"]["utility"]
    if not now or now["value"] is None:
        return ""
    said = f"The utility of the alerts is {now['value']:.2f}, where 0 is never to alert and 1 the best"
    then = (monitored["performance"]["at_promotion"] or {}).get("utility")
    side = _beside(now, then, ("less than", "about as much as", "more than"))
    return f"{said}; {side} the {then['value']:.2f} at promotion." if then and side else f"{said}."


def _given(monitored: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    status = quality["status"]
    if not monitored["n"]:
        return "No request came in this window."
    said = f"{status['scored']:,} of {monitored['n']:,} requests were given a risk; "
    said += f"{status['abstained']:,} were not"
    return said + f" and {status['refused']:,} were refused for bad input."


def _new(monitored: Mapping[str, Any], quality: Mapping[str, Any], loaded: Artifact) -> str:
    new = [
        f"{row['site']} ({percent(row['rows'] / monitored['n'])} of the requests)"
        for row in quality["sites"]
        if loaded.reference.sites and row["training_rows"] is None and row["rows"] >= MIN_ROWS
    ]
    return f"Without enough rows in training to be held to: {', '.join(new)}." if new else ""
